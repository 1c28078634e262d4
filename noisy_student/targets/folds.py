"""Folds of the label budget: which labelled films a network of a cross-fitted run does not learn from.

A patient's films are in one fold, so the network that was trained without a fold says of its films what it would say of
a stranger's: its predictions there are out of fold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.data import draws
from noisy_student.errors import DataError
from noisy_student.runs import atomic

Ints = npt.NDArray[np.int64]


def deal(patients: npt.NDArray[np.object_], positive: npt.NDArray[np.bool_], count: int, seed: int) -> Ints:
    """Return the fold (N,), from 0 to ``count`` - 1, of films of ``patients`` (N,); a patient is in one fold.

    Every label's patients are dealt evenly (:func:`noisy_student.data.draws.dealt`).

    Args:
        patients: patient of each film (N,).
        positive: (N, K) where a film is positive for a label.
        count: how many folds.
        seed: seed of the order.

    Raises:
        DataError: there are fewer patients than folds.
    """
    codes = np.unique(patients.astype(str), return_inverse=True)[1].astype(np.int64)
    order = draws.shuffled(codes, seed, "folds")
    if len(order) < count:
        raise DataError(
            f"folds: {count} folds are asked for, and {len(order)} patients are labelled",
            "Lower folds, or label more patients.",
        )
    fold_of = np.empty(len(order), dtype=np.int64)
    fold_of[order] = draws.dealt(order, codes, positive, count)
    return fold_of[codes]


def write(images: npt.NDArray[np.object_], fold: Ints, path: Path) -> None:
    """Write the folds as Parquet: ``image`` and ``fold``."""
    with atomic(path) as temporary:
        pd.DataFrame({"image": images, "fold": fold}).to_parquet(temporary, index=False)


def read(path: Path, images: npt.NDArray[np.object_]) -> Ints:
    """Return the fold (N,) of the films ``images`` (N,), all of which are in the file."""
    frame = pd.read_parquet(path).set_index("image")
    fold: Ints = frame.loc[list(images), "fold"].to_numpy(dtype=np.int64)
    return fold
