"""Paired comparison of several models on the same cases, per label and over the macro labels, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student.stats import support
from noisy_student.stats.intervals import NO_CLASSES, Difference, auroc_columns, bootstrap_aurocs, difference, macro
from noisy_student.stats.metrics import checked
from noisy_student.stats.power import holm, sentence


@dataclass(frozen=True)
class Comparison:
    """AUROC of one model minus that of another: over the macro labels, and per label."""

    macro: Difference
    labels: tuple[Difference, ...]
    macro_patients: int
    """Patients with a known truth of a macro label."""
    patients: tuple[int, ...]
    """Patients with a known truth of each label."""
    macro_few: str | None = None
    """Which classes have too few patients for the words better and worse, ``None`` where none has."""
    few: tuple[str | None, ...] = ()
    """The same of each label."""


def compare_models(
    truth: npt.ArrayLike,
    scores: Sequence[npt.ArrayLike],
    pairs: Sequence[tuple[int, int]],
    patients: npt.ArrayLike,
    columns: Sequence[int],
    *,
    replicates: int,
    seed: int,
    confidence: float,
    stratify: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> list[Comparison]:
    """Return model b minus model a for each of ``pairs`` (a, b), all measured on the same resamples of patients.

    ``scores`` are M matrices (N, K), ``columns`` the macro labels, ``names`` the labels', for reasons. The macro mean
    is over the labels with both classes, and its resamples are those that have all of these. The numbers are those of
    :func:`noisy_student.stats.intervals.compare`, which takes one pair and one set of labels at a time.

    Raises:
        DataError: the arrays do not fit together, or there are no films.
    """
    arrays = [checked(truth, score, patients) for score in scores]
    codes = np.asarray(patients)
    strata = None if stratify is None else np.tile(np.asarray(stratify), len(arrays))
    draws = bootstrap_aurocs([(*pair, codes) for pair in arrays], replicates, seed, strata)
    values = [auroc_columns(*pair) for pair in arrays]
    known = ~np.isnan(arrays[0][0])
    counts = tuple(int(np.unique(codes[known[:, k]]).size) for k in range(known.shape[1]))
    either = int(np.unique(codes[known[:, np.asarray(columns, dtype=np.int64)].any(axis=1)]).size)

    classes = support.of_classes(arrays[0][0], codes)
    called = [f"label {k}" if names is None else names[k] for k in range(known.shape[1])]
    used = [k for k in columns if (classes[k] > 0).all()]

    def differ(a: int, b: int, chosen: Sequence[int], own: Sequence[str]) -> Difference:
        value = float(macro(values[b], chosen) - macro(values[a], chosen))
        first, second = (draws[model][:, list(chosen)] for model in (a, b))
        lacking = support.lacking(classes[list(chosen)], own, support.RESAMPLED)
        return difference(value, first, second, confidence, NO_CLASSES, own, lacking)

    finding = [support.THE_FINDING]
    of_macro = [called[k] for k in used]
    macro_few = support.lacking(classes[used], of_macro, support.TOLD)
    few = tuple(support.lacking(classes[[k]], finding, support.TOLD) for k in range(known.shape[1]))
    return [
        Comparison(
            differ(a, b, used, of_macro),
            tuple(differ(a, b, [k], finding) for k in range(known.shape[1])),
            either,
            counts,
            macro_few,
            few,
        )
        for a, b in pairs
    ]


def difference_json(found: Difference) -> dict[str, Any]:
    """Return a difference as it stands in the files of a run; undefined is ``null`` with a reason."""
    return {
        "difference": found.value,
        "ci": None if found.ci is None else list(found.ci),
        "lower": found.lower,
        "upper": found.upper,
        "p": found.p_value,
        "reason": found.reason,
        "undefined_replicates": found.undefined,
        "undefined_labels": None if found.value is None else list(found.undefined_labels),
    }


def comparison_json(
    found: Comparison,
    labels: Sequence[str],
    smallest: float,
    confidence: float,
    macro_p: float | None = None,
    macro_tests: int = 1,
) -> dict[str, Any]:
    """Return ``{"macro": D, "labels": {NAME: D}}``, each with its plain ``sentence``.

    A label counts as better or worse only after Holm's adjustment over all labels (``p_holm``), and nothing does where
    a class has fewer patients than :data:`noisy_student.stats.support.TOLD`. ``smallest`` is the difference of which
    the sentence says how many patients would show it. Where the macro mean is one of ``macro_tests`` comparisons,
    ``macro_p`` is its p-value adjusted over these, and has a say in its sentence.
    """
    tests = max(1, sum(one.p_value is not None for one in found.labels))
    adjusted = holm({name: one.p_value for name, one in zip(labels, found.labels, strict=True)})
    said = sentence(
        found.macro, found.macro_patients, smallest, confidence, macro_p, found.macro_few, tests=macro_tests
    )
    entries = {}
    for name, one, patients, few in zip(labels, found.labels, found.patients, found.few, strict=True):
        words = sentence(one, patients, smallest, confidence, adjusted[name], few, tests)
        entries[name] = {**difference_json(one), "p_holm": adjusted[name], "sentence": words}
    return {"macro": {**difference_json(found.macro), "sentence": said}, "labels": entries}
