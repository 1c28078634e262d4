from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noisy_student.data.predictions import Predictions, read, write
from noisy_student.errors import DataError

IMAGES = np.array(["p1/a.jpg", "p2/b.jpg", "p2/c.jpg"], dtype=object)
LABELS = ("Pleural Effusion", "Edema")
LOGITS = np.array([[-1.5, 2.0], [0.0, 40.0], [1e-7, -3.25]], dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    stored = tmp_path / "predictions" / "valid.parquet"
    write(Predictions(IMAGES, LABELS, LOGITS), stored)
    return stored


def test_predictions_come_back_bit_for_bit(path: Path) -> None:
    found = read(path, IMAGES)
    assert found.labels == LABELS
    assert found.images.tolist() == IMAGES.tolist()
    assert found.logits.dtype == np.float32
    np.testing.assert_array_equal(found.logits, LOGITS)
    assert list(pd.read_parquet(path).columns) == ["image", *LABELS]


@pytest.mark.parametrize("films", [IMAGES[::-1], IMAGES[:2], np.append(IMAGES, "p3/d.jpg"), IMAGES[:0]])
def test_predictions_of_other_films_are_refused(path: Path, films: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"valid\.parquet: holds other films than the manifest"):
        read(path, films)


def test_a_missing_file_says_which_command_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.parquet: is missing") as caught:
        read(tmp_path / "test.parquet", IMAGES)
    assert "ns iterate" in caught.value.hint


def test_no_films_are_an_empty_table(tmp_path: Path) -> None:
    write(Predictions(IMAGES[:0], LABELS, np.empty((0, 2), dtype=np.float32)), tmp_path / "pool.parquet")
    found = read(tmp_path / "pool.parquet", IMAGES[:0])
    assert (found.labels, found.logits.shape) == (LABELS, (0, 2))
