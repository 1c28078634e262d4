"""Paired comparison of several models on the same cases, per label and over the macro labels, and how it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student.stats.intervals import Difference, auroc_columns, bootstrap_aurocs, difference, macro
from noisy_student.stats.metrics import Floats, checked
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
) -> list[Comparison]:
    """Return model b minus model a for each of ``pairs`` (a, b), all measured on the same resamples of patients.

    ``scores`` are M matrices (N, K), ``columns`` the macro labels. The numbers are those of
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

    def differ(a: int, b: int, chosen: Sequence[int]) -> Difference:
        value = float(macro(values[b], chosen) - macro(values[a], chosen))
        resampled: Floats = macro(draws[b], chosen) - macro(draws[a], chosen)
        return difference(value, resampled, confidence, "no label has both a positive and a negative film")

    return [
        Comparison(differ(a, b, columns), tuple(differ(a, b, [k]) for k in range(known.shape[1])), either, counts)
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
    }


def comparison_json(found: Comparison, labels: Sequence[str], smallest: float, confidence: float) -> dict[str, Any]:
    """Return ``{"macro": D, "labels": {NAME: D}}``, each with its plain ``sentence``.

    A label counts as better or worse only after Holm's adjustment over all labels (``p_holm``). ``smallest`` is the
    difference of which the sentence says how many patients would show it.
    """
    adjusted = holm({name: one.p_value for name, one in zip(labels, found.labels, strict=True)})
    said = sentence(found.macro, found.macro_patients, smallest, confidence)
    entries = {}
    for name, one, patients in zip(labels, found.labels, found.patients, strict=True):
        words = sentence(one, patients, smallest, confidence, adjusted[name])
        entries[name] = {**difference_json(one), "p_holm": adjusted[name], "sentence": words}
    return {"macro": {**difference_json(found.macro), "sentence": said}, "labels": entries}
