"""A split in a file: a later run gets the same one, and notices what does not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noisy_student.config import SplitConfig
from noisy_student.data import manifest as manifests
from noisy_student.data import split_files, splits
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError


def films(count: int = 60) -> Manifest:
    numbers = np.arange(count)
    split = np.where(numbers < count - 20, "train", np.where(numbers < count - 10, "valid", "test"))
    images = [f"f/{number:03d}é.png" for number in numbers]
    columns = {
        "image": images,
        "patient": [f"p{n // 2}" for n in numbers],
        "study": images,
        "split": split,
        "A": numbers % 2,
    }
    return manifests.build({**columns, "labelled": np.full(count, True)}, ("A",))  # fmt: skip


CONFIG = SplitConfig(labelled_patients=6, valid_images=5, seed=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    chosen, summary = splits.assign(films(), CONFIG)
    split_files.write(chosen, summary, tmp_path / "split.parquet")
    return tmp_path / "split.parquet"


def test_a_file_gives_the_split_it_was_made_from_whatever_else_is_set(path: Path) -> None:
    expected, first = splits.assign(films(), CONFIG)
    before = films()
    shuffled = Manifest(before.frame.sample(frac=1, random_state=1).reset_index(drop=True), before.labels)
    taken, second = splits.assign(shuffled, SplitConfig(file=path, labelled_patients=3, seed=1))
    pd.testing.assert_frame_equal(
        taken.frame.sort_values("image", ignore_index=True), expected.frame.sort_values("image", ignore_index=True)
    )
    for key in ("seed", "counts", "budget", "dropped", "hash"):
        assert second[key] == first[key]
    assert (second["file"], second["file_hash"], second["missing"]) == ("split.parquet", first["hash"], 0)


def test_the_hash_is_that_of_sorted_lines() -> None:
    chosen, summary = splits.assign(films(), CONFIG)
    frame = chosen.frame
    lines = sorted(
        f"{image}\t{split}\t{int(flag)}\n"
        for image, split, flag in zip(frame["image"], frame["split"], frame["labelled"], strict=True)
    )
    assert summary["hash"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_equal_splits_are_equal_bytes(path: Path, tmp_path: Path) -> None:
    chosen, summary = splits.assign(films(), CONFIG)
    split_files.write(chosen, summary, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_films_that_became_unreadable_may_be_missing(path: Path) -> None:
    before = films()
    gone = pq.read_table(path)["image"].to_pylist()[3]
    less = manifests.rows(before, (before.frame["image"] != gone).to_numpy(dtype=bool))
    with pytest.raises(DataError, match=r"names 1 films of \d+ that the data set does not have") as caught:
        splits.assign(less, SplitConfig(file=path))
    assert "the data set it was made for" in caught.value.hint
    taken, summary = splits.assign(less, SplitConfig(file=path), 0.05)
    assert summary["missing"] == 1
    assert summary["hash"] != summary["file_hash"]
    assert gone not in set(taken.frame["image"])


def test_a_file_of_other_films_does_not_fit(path: Path) -> None:
    other = manifests.replace(films(), image="other/" + films().frame["image"])
    with pytest.raises(DataError, match="that the data set does not have"):
        splits.assign(other, SplitConfig(file=path))


def test_a_changed_file_is_noticed(path: Path) -> None:
    table = pq.read_table(path)
    flags = table["labelled"].to_pylist()
    flags[0] = not flags[0]
    pq.write_table(table.set_column(2, "labelled", pa.array(flags)), path)
    with pytest.raises(DataError, match="was changed after it was written"):
        splits.assign(films(), SplitConfig(file=path))


def test_files_that_are_no_splits_are_named(tmp_path: Path) -> None:
    config = SplitConfig(file=tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"split.file: .*x.parquet is missing"):
        splits.assign(films(), config)
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DataError, match=r"x.parquet cannot be read"):
        splits.assign(films(), config)
    pd.DataFrame({"image": ["a"]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet is not a split written by ns data split"):
        splits.assign(films(), config)


def test_a_file_asks_for_no_budget() -> None:
    assert SplitConfig(file=Path("x")).labelled_patients is None
    assert SplitConfig().labelled_patients == 100
