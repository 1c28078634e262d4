"""Strata of patients, for resamples that do not lose rare findings."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.stats.metrics import Ints

SMALLEST_STRATUM: Final = 10
"""Patients of a stratum of their own. Fewer are drawn with others: a lone patient would be in every resample as if
it were certain to be."""


def strata(truth: npt.ArrayLike, patients: npt.ArrayLike, smallest: int = SMALLEST_STRATUM) -> Ints:
    """Return a stratum (N,) per film, constant within a patient, for resamples that keep rare findings.

    A patient belongs to the rarest finding that any of its films has (``truth`` (N, K), 1 where it is there), 0 is no
    finding. Findings of fewer than ``smallest`` patients make no stratum, and their patients count for their next one;
    where fewer than ``smallest`` are left for 0, they are drawn with the largest stratum.
    """
    of_film = np.unique(np.asarray(patients), return_inverse=True)[1]
    positive = np.asarray(truth, dtype=np.float64) == 1
    found = np.zeros((int(of_film.max(initial=-1)) + 1, positive.shape[1]), dtype=bool)
    np.logical_or.at(found, of_film, positive)
    stratum = np.zeros(len(found), dtype=np.int64)
    for place, label in enumerate(np.argsort(found.sum(axis=0), kind="stable"), start=1):
        members = found[:, label] & (stratum == 0)
        if members.sum() >= smallest:
            stratum[members] = place
    sizes = np.bincount(stratum)
    if 0 < sizes[:1].sum() < smallest and sizes.size > 1:
        stratum[stratum == 0] = 1 + np.argmax(sizes[1:])
    return stratum[of_film]
