from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noisy_student.data.predictions import Predictions, read, read_spread, spread_path, write, write_spread
from noisy_student.errors import DataError
from noisy_student.stats import consensus

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


# -- ensembles -------------------------------------------------------------------------------------------------------


def test_what_each_member_said_comes_back_bit_for_bit(tmp_path: Path) -> None:
    members = np.stack([LOGITS - 1, LOGITS * 3, LOGITS])
    path = tmp_path / "pool.parquet"
    write(Predictions(IMAGES, LABELS, LOGITS, members), path)
    found = read(path, IMAGES)
    assert found.labels == LABELS
    np.testing.assert_array_equal(found.logits, LOGITS)
    np.testing.assert_array_equal(found.each, members)
    assert list(pd.read_parquet(path).columns[1:]) == [
        *LABELS,
        *(f"member-{number}:{label}" for number in range(3) for label in LABELS),
    ]
    write(Predictions(IMAGES[:0], LABELS, LOGITS[:0], members[:, :0]), path)
    assert read(path, IMAGES[:0]).each.shape == (3, 0, 2)


def test_without_members_the_logits_are_what_is_calibrated(path: Path) -> None:
    found = read(path, IMAGES)
    assert found.members is None
    np.testing.assert_array_equal(found.each, LOGITS[None])


def test_a_spread_lies_beside_the_predictions(path: Path) -> None:
    spread = consensus.spread(1 / (1 + np.exp(-np.stack([LOGITS, LOGITS * 0.5]).astype(np.float64))))
    beside = spread_path(path)
    assert beside == path.with_name("valid-spread.parquet")
    write_spread(IMAGES, LABELS, spread, beside)
    found = read_spread(beside, IMAGES, LABELS)
    np.testing.assert_allclose(found.sd, spread.sd, rtol=1e-6)
    np.testing.assert_allclose(found.mutual_information, spread.mutual_information, rtol=1e-6, atol=1e-9)
    with pytest.raises(DataError, match=r"valid-spread\.parquet: holds other films"):
        read_spread(beside, IMAGES[::-1], LABELS)


def test_one_network_has_a_spread_of_null_and_not_of_0(path: Path) -> None:
    found = read_spread(spread_path(path), IMAGES, LABELS)
    assert found.sd.shape == found.mutual_information.shape == LOGITS.shape
    assert np.isnan(found.sd).all()
    write_spread(IMAGES, LABELS, found, spread_path(path))
    assert pd.read_parquet(spread_path(path)).drop(columns="image").isna().all().all()
    assert np.isnan(read_spread(spread_path(path), IMAGES, LABELS).mutual_information).all()
