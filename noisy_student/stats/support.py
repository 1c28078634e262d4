"""How many patients stand behind a figure, and what too few of them rule out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.stats.metrics import Floats, Ints

RESAMPLED: Final = 2
"""Fewest patients of a class for an interval: a lone one is in every resample that counts, as if it were certain."""
TOLD: Final = 5
"""Fewest patients of a class for the words better and worse. Resamples of n show the share (n - 1) / n of
the variance that there is: of 2 half of it, of 5 four fifths."""
THE_FINDING: Final = "the finding"
_NAMED: Final = 3


def of_classes(truth: npt.ArrayLike, patients: npt.ArrayLike) -> Ints:
    """Return the patients with a positive film, and with a negative film, of each label of ``truth`` (N, K): (K, 2)."""
    truth = np.asarray(truth, dtype=np.float64)
    codes = np.asarray(patients)
    return np.array(
        [[np.unique(codes[truth[:, k] == value]).size for value in (1, 0)] for k in range(truth.shape[1])],
        dtype=np.int64,
    ).reshape(-1, 2)


def lacking(counts: Ints, names: Sequence[str], fewest: int) -> str | None:
    """Return which of the classes have fewer than ``fewest`` patients, ``None`` where none has.

    ``counts`` (K, 2) are those of :func:`of_classes`; ``names`` are what the labels are called.
    """
    few = sorted(
        (int(count), k, side)
        for k, pair in enumerate(counts)
        for side, count in zip(("with", "without"), pair, strict=True)
        if count < fewest
    )
    if not few:
        return None
    said = [f"{count} patient{'' if count == 1 else 's'} {side} {names[k]}" for count, k, side in few]
    return f"only {_shortened(said)}"


def incomplete(draws: Floats, names: Sequence[str]) -> tuple[float, list[str]]:
    """Return the share of the resamples ``draws`` (R, K) that lack a class of a label, and of which, most often first.

    A mean over the labels that are left in such a resample is another figure, so it takes no part in an interval.
    """
    missing = np.isnan(draws)
    shares = missing.mean(axis=0)
    order = np.argsort(-shares, kind="stable")
    return float(missing.any(axis=1).mean()), [names[k] for k in order if shares[k] > 0]


def most_incomplete(share: float, names: Sequence[str]) -> str:
    """Return that too many resamples lack a class, and of which labels."""
    return f"{100 * share:.0f} % of the resamples have one class only of {_shortened(names)}"


def _shortened(texts: Sequence[str]) -> str:
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")
