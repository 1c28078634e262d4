"""Everything that is measured of one set of predictions, as values for ``evaluation.json``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from noisy_student.errors import ConfigError, DataError
from noisy_student.stats import delong, metrics, reliability, support
from noisy_student.stats.intervals import bootstrap_auroc, complete, interval
from noisy_student.stats.metrics import Floats, Ints, checked
from noisy_student.stats.operating import Threshold, measure
from noisy_student.stats.strata import strata

Aggregation = Literal["mean", "max", "frontal"]
"""How the views of a study become one: their mean, their largest, or the mean of the frontal ones if there are any."""

NO_PROBABILITIES: Final = "scores outside [0, 1] are no probabilities"
NOTHING_KNOWN: Final = "no film with a known value"
CI_METHOD: Final = "bootstrap over patients"
SAME_IN_ALL: Final = "every resample gives the same figure"
MEANS: Final = ("ap", "brier", "log_loss", "ece")
"""Measures beside AUROC of which the macro mean is given, over the labels of the macro AUROC."""


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
    stratify: bool = False,
    before: npt.ArrayLike | None = None,
    points: Mapping[str, Mapping[str, Threshold]] | None = None,
    ranking: Collection[str] = (),
) -> dict[str, Any]:
    """Return counts, measures, intervals and curves per label, and their means over ``macro_labels``.

    ``truth`` (N, K) is 1, 0 or NaN for unknown, ``probability`` (N, K) in [0, 1], ``patients`` (N,) integer codes. An
    undefined measure is None with a ``reason``, and does not enter the macro mean. AUROC and average precision need
    both classes; Brier score, log loss and ECE need one known film. A reason beside an AUROC tells why ``ci`` is None.

    Args:
        truth: what is known.
        probability: what is predicted.
        patients: whose films they are; patients are resampled.
        labels: names of the K labels.
        macro_labels: labels of the macro means.
        replicates: bootstrap replicates.
        confidence: coverage of the intervals.
        bins: bins of the calibration errors and reliability diagrams.
        seed: seed of the resamples.
        stratify: keep in every resample the number of patients whose rarest finding it is, of findings that have ten
            patients or more (:func:`strata.strata`).
        before: probabilities (N, K) before calibration, for ``before``.
        points: label -> kind -> threshold chosen on other films, for ``operating_points``.
        ranking: labels whose scores need only rank; their measures of calibration are None.

    Raises:
        ConfigError: a macro label is not among the labels.
        DataError: the arrays do not fit together, or a probability is outside [0, 1].
    """
    truth, probability = checked(truth, probability, patients)
    if truth.ndim != 2 or truth.shape[1] != len(labels):
        raise DataError(f"truth has shape {truth.shape} for {len(labels)} labels", "Give one column per label.")
    said = probability[:, [name not in ranking for name in labels]]
    if (said < 0).any() or (said > 1).any():
        raise DataError("probability holds values outside [0, 1]", "Calibrate the logits first.")
    missing = [name for name in macro_labels if name not in labels]
    if missing:
        raise ConfigError(f"macro label '{missing[0]}' is not predicted", f"Choose among: {', '.join(labels)}.")
    aucs = np.full((replicates, len(labels)), np.nan)
    if len(truth):
        keep = strata(truth, patients) if stratify else None
        aucs = bootstrap_auroc(truth, probability, patients, replicates, seed, keep)
    raw = None if before is None else checked(truth, before)[1]
    entries = {}
    classes = support.of_classes(truth, patients)
    for k, name in enumerate(labels):
        entry = _ranking(truth[:, k], probability[:, k], np.asarray(patients), aucs[:, [k]], classes[[k]], confidence)
        entry |= dict(zip(("positive_patients", "negative_patients"), map(int, classes[k]), strict=True))
        entry |= _calibration(truth[:, k], None if name in ranking else probability[:, k], bins)
        entry["before"] = None if raw is None else _before(truth[:, k], raw[:, k], bins)
        chosen = None if points is None else points.get(name)
        entry["operating_points"] = chosen and {
            kind: measure(truth[:, k], probability[:, k], patients, threshold, confidence)
            for kind, threshold in chosen.items()
        }
        entries[name] = entry
    return {
        "n": len(truth),
        "patients": int(np.unique(np.asarray(patients)).size),
        "macro": _macro(entries, list(labels), list(macro_labels), aucs, classes, confidence),
        "labels": entries,
    }


def _macro(
    entries: dict[str, dict[str, Any]],
    labels: list[str],
    wanted: list[str],
    aucs: Floats,
    classes: Ints,
    confidence: float,
) -> dict[str, Any]:
    used = [name for name in wanted if entries[name]["auroc"] is not None]
    if not used:
        reason = f"none of the {len(wanted)} labels has both a positive and a negative film"
        nothing = dict.fromkeys(("auroc", "ci", *MEANS, "undefined_replicates", "undefined_labels"))
        return {**nothing, "labels": [], "reason": reason, "calibration_reason": reason}
    columns = [labels.index(name) for name in used]
    ranks = [name for name in used if entries[name]["calibration_reason"]]

    def mean(measure: str) -> float | None:
        values = [entries[name][measure] for name in used]
        return None if None in values else math.fsum(values) / len(used)

    return {
        "auroc": mean("auroc"),
        **{measure: mean(measure) for measure in MEANS},
        "labels": used,
        "calibration_reason": f"{NO_PROBABILITIES} ({', '.join(ranks)})" if ranks else None,
        **bounds(aucs[:, columns], classes[columns], used, confidence),
    }


def bounds(
    draws: Floats, classes: Ints, names: Sequence[str], confidence: float, *, gap: bool = False
) -> dict[str, Any]:
    """Return ``ci`` of the mean over K labels from its resamples (R, K), and what there is to say of it.

    ``reason`` tells why there is none: a class (``classes`` (K, 2), as by :func:`support.of_classes`) has fewer than
    two patients, more than half of the resamples lack a class of a label, or all give the same AUROC, as where scores
    separate the classes completely (of a ``gap`` that is no reason: the same films have none). Others that lack a class
    are left out, because their mean is over other labels: ``undefined_replicates`` is their share, ``undefined_labels``
    says which labels.
    """
    share, missing = support.incomplete(draws, names)
    lacking = support.lacking(classes, names, support.RESAMPLED)
    means = complete(draws)
    ci = None if lacking else interval(means, confidence)
    why = lacking or support.most_incomplete(share, missing)
    if ci is not None and not gap and np.nanmin(means) == np.nanmax(means):
        separated = set(np.unique(draws[~np.isnan(means)])) <= {0.0, 1.0}
        ci, why = None, delong.SEPARATED if separated else SAME_IN_ALL
    reason = None if ci else f"no interval: {why}"
    return {
        "ci": ci and list(ci),
        "undefined_replicates": share,
        "undefined_labels": missing,
        "reason": reason,
    }


def _ranking(
    truth: Floats, score: Floats, patients: npt.NDArray[Any], draws: Floats, classes: Ints, confidence: float
) -> dict[str, Any]:
    """Return what needs an order of the films alone; ``draws`` (R, 1) and ``classes`` (1, 2) are those of the label."""
    positives, negatives = int((truth == 1).sum()), int((truth == 0).sum())
    fpr, tpr = metrics.roc_curve(truth, score)
    recall, precision = metrics.precision_recall_curve(truth, score)
    reason = undefined_reason(positives, negatives)
    found: dict[str, Any] = {"ci": None, "undefined_replicates": None, "reason": reason}
    if reason is None:
        found = bounds(draws, classes, [support.THE_FINDING], confidence)
        del found["undefined_labels"]
    closed = delong.interval(truth, score, patients, confidence)
    return {
        "auroc": _number(metrics.auroc(truth, score)),
        **found,
        "ci_method": CI_METHOD,
        "delong_ci": None if closed.ci is None else list(closed.ci),
        "delong_method": closed.method,
        "delong_reason": closed.reason,
        "ap": _number(metrics.average_precision(truth, score)),
        "positives": positives,
        "negatives": negatives,
        "unknown": int(np.isnan(truth).sum()),
        "roc": {"fpr": _rounded(fpr), "tpr": _rounded(tpr)} if fpr.size else None,
        "pr": {"recall": _rounded(recall), "precision": _rounded(precision)} if recall.size else None,
    }


def _calibration(truth: Floats, probability: Floats | None, bins: int) -> dict[str, Any]:
    """Return what needs probabilities; nothing of it for ``None``."""
    if probability is None:
        keys = ("brier", "log_loss", "ece", "ece_width", "ece_debiased", "brier_parts", "reliability")
        return dict.fromkeys(keys) | {"calibration_reason": NO_PROBABILITIES}
    parts = reliability.brier_parts(truth, probability, bins)
    return {
        **_before(truth, probability, bins),
        "ece_width": _number(reliability.ece_width(truth, probability, bins)),
        "ece_debiased": _number(reliability.ece_debiased(truth, probability, bins)),
        "brier_parts": None if math.isnan(parts.reliability) else asdict(parts),
        "calibration_reason": NOTHING_KNOWN if np.isnan(truth).all() else None,
    }


def _before(truth: Floats, probability: Floats, bins: int) -> dict[str, Any]:
    diagram = metrics.reliability(truth, probability, bins)
    return {
        "brier": _number(metrics.brier(truth, probability)),
        "log_loss": _number(metrics.log_loss(truth, probability)),
        "ece": _number(metrics.ece(truth, probability, bins)),
        "reliability": {
            "probability": _rounded(diagram.mean_probability),
            "frequency": _rounded(diagram.frequency),
            "count": [int(count) for count in diagram.count],
        }
        if diagram.count.size
        else None,
    }


def undefined_reason(positives: int, negatives: int) -> str | None:
    """Return why a label with so many films has no AUROC, ``None`` where it has one."""
    films = positives + negatives
    if not films:
        return NOTHING_KNOWN
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
