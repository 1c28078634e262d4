from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisy_student.errors import DataError
from noisy_student.targets import folds


def labelled(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return patients (N,), one to four films each, and where a film is positive for 3 labels (N, 3)."""
    draw = np.random.default_rng(seed)
    films = np.repeat([f"p{number}" for number in range(patients)], draw.integers(1, 5, patients)).astype(object)
    return films, draw.random((len(films), 3)) < (0.5, 0.2, 0.05)


@given(st.integers(6, 60), st.integers(2, 6), st.integers(0, 5))
def test_a_patient_is_in_one_fold_and_the_folds_are_even(patients: int, count: int, seed: int) -> None:
    films, positive = labelled(patients, seed)
    fold = folds.deal(films, positive, count, seed)
    of = {patient: set(fold[films == patient].tolist()) for patient in films}
    assert all(len(found) == 1 for found in of.values())
    sizes = np.bincount([found.pop() for found in of.values()], minlength=count)
    assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(fold, folds.deal(films, positive, count, seed))


@given(st.integers(0, 20))
def test_the_rarest_label_is_dealt_evenly(seed: int) -> None:
    films, positive = labelled(200, seed)
    rarest = int(positive.sum(axis=0).argmin())
    fold = folds.deal(films, positive, 4, seed)
    sizes = [len(set(films[(fold == number) & positive[:, rarest]])) for number in range(4)]
    assert max(sizes) - min(sizes) <= 1


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does() -> None:
    films, positive = labelled(40, 1)
    fold = folds.deal(films, positive, 4, 0)
    order = np.random.default_rng(2).permutation(len(films))
    assert np.array_equal(folds.deal(films[order], positive[order], 4, 0), fold[order])
    assert not np.array_equal(folds.deal(films, positive, 4, 1), fold)


def test_more_folds_than_patients_are_refused() -> None:
    films, positive = labelled(3, 0)
    with pytest.raises(DataError, match="4 folds are asked for, and 3 patients are labelled") as caught:
        folds.deal(films, positive, 4, 0)
    assert "Lower folds" in caught.value.hint


def test_what_is_written_is_read_by_film(tmp_path: Path) -> None:
    images = np.array(["a", "b", "c"], dtype=object)
    folds.write(images, np.array([2, 0, 1]), tmp_path / "folds.parquet")
    assert folds.read(tmp_path / "folds.parquet", images[[2, 0]]).tolist() == [1, 2]
