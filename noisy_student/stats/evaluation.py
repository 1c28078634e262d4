"""Everything that is measured of one set of predictions, as values for ``evaluation.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from noisy_student.errors import ConfigError, DataError
from noisy_student.stats import metrics
from noisy_student.stats.intervals import bootstrap_auroc, interval, macro
from noisy_student.stats.metrics import Floats, Ints, checked

Aggregation = Literal["mean", "max", "frontal"]
"""How the views of a study become one: their mean, their largest, or the mean of the frontal ones if there are any."""

NO_INTERVAL = "no interval: fewer than half of the resamples hold both classes"


def evaluate(
    truth: npt.ArrayLike,
    probability: npt.ArrayLike,
    patients: npt.ArrayLike,
    labels: Sequence[str],
    macro_labels: Sequence[str],
    *,
    replicates: int,
    confidence: float,
    bins: int,
    seed: int,
) -> dict[str, Any]:
    """Return counts, measures, intervals and curves per label, and the macro AUROC over ``macro_labels``.

    ``truth`` (N, K) is 1, 0 or NaN for unknown, ``probability`` (N, K) in [0, 1], ``patients`` (N,) integer codes. An
    undefined measure is None with a ``reason``, and does not enter the macro mean. AUROC and average precision need
    both classes; Brier score, log loss and ECE need one known film. A reason beside an AUROC tells why ``ci`` is None.

    Raises:
        ConfigError: a macro label is not among the labels.
        DataError: the arrays do not fit together, or a probability is outside [0, 1].
    """
    truth, probability = checked(truth, probability, patients)
    if truth.ndim != 2 or truth.shape[1] != len(labels):
        raise DataError(f"truth has shape {truth.shape} for {len(labels)} labels", "Give one column per label.")
    if (probability < 0).any() or (probability > 1).any():
        raise DataError("probability holds values outside [0, 1]", "Calibrate the logits first.")
    missing = [name for name in macro_labels if name not in labels]
    if missing:
        raise ConfigError(f"macro label '{missing[0]}' is not predicted", f"Choose among: {', '.join(labels)}.")
    aucs = np.full((replicates, len(labels)), np.nan)
    if len(truth):
        aucs = bootstrap_auroc(truth, probability, patients, replicates, seed)
    entries = {
        name: _label(truth[:, column], probability[:, column], interval(aucs[:, column], confidence), bins)
        for column, name in enumerate(labels)
    }
    return {
        "n": len(truth),
        "patients": int(np.unique(np.asarray(patients)).size),
        "macro": _macro(entries, list(labels), list(macro_labels), aucs, confidence),
        "labels": entries,
    }


def _macro(
    entries: dict[str, dict[str, Any]], labels: list[str], wanted: list[str], aucs: Floats, confidence: float
) -> dict[str, Any]:
    used = [name for name in wanted if entries[name]["auroc"] is not None]
    if not used:
        reason = f"none of the {len(wanted)} labels has both a positive and a negative film"
        return {"auroc": None, "ci": None, "labels": [], "reason": reason}
    columns = [labels.index(name) for name in used]
    ci = interval(macro(aucs, columns), confidence)
    return {
        "auroc": math.fsum(entries[name]["auroc"] for name in used) / len(used),
        "ci": None if ci is None else list(ci),
        "labels": used,
        "reason": NO_INTERVAL if ci is None else None,
    }


def _label(truth: Floats, probability: Floats, ci: tuple[float, float] | None, bins: int) -> dict[str, Any]:
    positives, negatives = int((truth == 1).sum()), int((truth == 0).sum())
    diagram = metrics.reliability(truth, probability, bins)
    fpr, tpr = metrics.roc_curve(truth, probability)
    reason = _reason(positives, negatives)
    if reason is None and ci is None:
        reason = NO_INTERVAL
    return {
        "auroc": _number(metrics.auroc(truth, probability)),
        "ci": None if ci is None else list(ci),
        "ap": _number(metrics.average_precision(truth, probability)),
        "brier": _number(metrics.brier(truth, probability)),
        "log_loss": _number(metrics.log_loss(truth, probability)),
        "ece": _number(metrics.ece(truth, probability, bins)),
        "positives": positives,
        "negatives": negatives,
        "unknown": int(np.isnan(truth).sum()),
        "reason": reason,
        "roc": {"fpr": _rounded(fpr), "tpr": _rounded(tpr)} if fpr.size else None,
        "reliability": {
            "probability": _rounded(diagram.mean_probability),
            "frequency": _rounded(diagram.frequency),
            "count": [int(count) for count in diagram.count],
        }
        if diagram.count.size
        else None,
    }


def _reason(positives: int, negatives: int) -> str | None:
    films = positives + negatives
    if not films:
        return "no film with a known value"
    counted = f"among {films} {'film' if films == 1 else 'films'}"
    if not positives:
        return f"no positives {counted}"
    return None if negatives else f"no negatives {counted}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 6) for value in values]


def aggregate(
    values: npt.ArrayLike, groups: npt.ArrayLike, how: Aggregation = "mean", frontal: npt.ArrayLike | None = None
) -> Floats:
    """Return one row (G, K) of ``values`` (N, K) per group, groups in the order of their codes.

    ``how`` is the mean, the largest value (``max``), or the mean of the rows that are ``frontal`` (N,) in groups that
    have any and of all rows in the others. NaN entries are left out; a group with nothing but NaN is NaN.

    Raises:
        DataError: ``how`` is "frontal" and ``frontal`` does not say of each row whether it is.
    """
    values = np.asarray(values, dtype=np.float64)
    codes, group = np.unique(np.asarray(groups), return_inverse=True)
    known = ~np.isnan(values)
    if how == "max":
        most: Floats = np.full((codes.size, *values.shape[1:]), -np.inf)
        np.maximum.at(most, group, np.where(known, values, -np.inf))
        return np.where(np.isneginf(most), np.nan, most)
    if how == "frontal":
        first = np.asarray(frontal, dtype=bool)
        if frontal is None or first.shape != group.shape:
            raise DataError("frontal views come first, and it is not known which views are frontal", "Say it per film.")
        used = first | (np.bincount(group, first, minlength=codes.size) == 0)[group]
        known &= used.reshape(-1, *(1,) * (values.ndim - 1))
    total, count = np.zeros((2, codes.size, *values.shape[1:]))
    np.add.at(total, group, np.where(known, values, 0.0))
    np.add.at(count, group, known)
    mean: Floats = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return mean


def agreed(truth: npt.ArrayLike, studies: npt.ArrayLike) -> Floats:
    """Return the truth (S, K) of each study: what its known views (N, K) agree on, else NaN."""
    known = aggregate(truth, studies)
    known[(known > 0) & (known < 1)] = np.nan
    return known


def by_study(
    truth: npt.ArrayLike, probability: npt.ArrayLike, patients: npt.ArrayLike, studies: npt.ArrayLike
) -> tuple[Floats, Floats, Ints]:
    """Return truth (S, K), mean probability (S, K) and patients (S,) per study, studies in the order of their codes.

    Views of which the truth is unknown do not count for the truth; a label on which known views disagree is unknown
    for the study.

    Raises:
        DataError: the arrays do not fit together, or a study has films of two patients.
    """
    truth, probability = checked(truth, probability, patients)
    patients = np.asarray(patients)
    if np.shape(studies) != patients.shape:
        raise DataError(f"studies has shape {np.shape(studies)} for {len(truth)} films", "Give one study per film.")
    _, first, group = np.unique(np.asarray(studies), return_index=True, return_inverse=True)
    if (patients != patients[first][group]).any():
        raise DataError("a study has films of two patients", "Make study codes unique across patients.")
    return agreed(truth, studies), aggregate(probability, studies), patients[first].astype(np.int64)
