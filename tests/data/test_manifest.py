"""The one table: its checks, its file, and what sealing hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError

NAN = float("nan")


def make(**changes: Any) -> Manifest:
    columns: dict[str, Any] = {
        "image": ["a/1.png", "a/2.png", "b/1.png", "c/1.png"],
        "patient": ["p1", "p1", "p2", "p3"],
        "study": ["p1/s1", "p1/s1", "p2/s1", "p3/s1"],
        "view": ["frontal", "lateral", "", "frontal"],
        "projection": ["AP", "", "", "PA"],
        "sex": ["F", "F", "", "M"],
        "age": [61.5, 61.5, NAN, 0.0],
        "split": ["train", "train", "train", "test"],
        "labelled": [True, True, False, False],
        "Zebra": [1.0, NAN, -1.0, 0.25],
        "Alpha": [0.0, 1.0, 1.0, 1.0],
    }
    return manifests.build({**columns, **changes}, ("Zebra", "Alpha"))


def test_columns_have_the_order_and_types_of_the_contract() -> None:
    frame = make().frame
    fixed = ["image", "patient", "study", "view", "projection", "sex", "site", "date", "age", "split", "labelled"]
    assert list(frame.columns) == [*fixed, "Zebra", "Alpha"]
    assert frame["labelled"].dtype == bool
    assert frame["age"].dtype == np.float64
    assert frame["Zebra"].dtype == frame["Alpha"].dtype == np.float32
    assert all(isinstance(name, str) for name in frame["patient"])
    manifests.check(make())


def test_build_fills_optional_columns_with_unknown() -> None:
    manifest = manifests.build({"image": ["x"], "patient": ["p"], "study": ["s"], "A": [1]}, ("A",))
    row = manifest.frame.iloc[0]
    assert (row["view"], row["projection"], row["sex"], row["split"], row["labelled"]) == ("", "", "", "", False)
    assert np.isnan(row["age"])
    manifests.check(manifest)


@pytest.mark.parametrize("labels", [("image",), ("labelled",), ("A", "A")])
def test_build_refuses_a_label_that_clashes(labels: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=f"'{labels[0]}' is the name of another column"):
        manifests.build({"image": ["x"], "patient": ["p"], "study": ["s"], "A": [1]}, labels)


def test_values_are_a_float32_matrix_in_label_order() -> None:
    matrix = manifests.values(make())
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array([[1, 0], [NAN, 1], [-1, 1], [0.25, 1]], dtype=np.float32))


def test_select_numbers_rows_from_zero() -> None:
    pool = manifests.select(make(), split="train", labelled=False)
    assert pool.frame["image"].tolist() == ["b/1.png"]
    assert pool.frame.index.tolist() == [0]
    assert len(manifests.select(make(), labelled=True)) == 2
    assert len(manifests.select(make(), split="test")) == 1
    assert len(manifests.select(make())) == 4


def test_check_refuses_an_empty_table_and_wrong_columns() -> None:
    with pytest.raises(DataError, match="has no rows"):
        manifests.check(manifests.select(make(), split="valid"))
    with pytest.raises(DataError, match="expected image, patient"):
        manifests.check(Manifest(make().frame.drop(columns="sex"), ("Zebra", "Alpha")))


def test_check_names_a_duplicate_image() -> None:
    with pytest.raises(DataError, match=r"'a/1.png' is listed twice \(1 rows too many\)"):
        manifests.check(make(image=["a/1.png", "a/1.png", "b/1.png", "c/1.png"]))


@pytest.mark.parametrize("path", ["/etc/x.png", "../x.png", "a/../../x.png", "a/..", "C:/x.png", "a\\x.png", "", "./x"])
def test_check_refuses_paths_that_may_leave_the_root(path: str) -> None:
    with pytest.raises(DataError, match=r"is not below data\.root"):
        manifests.check(make(image=["a/1.png", "a/2.png", path, "c/1.png"]))


def test_check_allows_dots_that_are_part_of_a_name() -> None:
    manifests.check(make(image=["a/1..png", "..a/2.png", "a../x", ".hidden/1.png"]))


@pytest.mark.parametrize("value", [2.0, -0.5, 1.001, -2.0, float("inf")])
def test_check_names_image_column_and_value_of_a_wrong_label(value: float) -> None:
    with pytest.raises(DataError, match=rf"b/1.png: 'Alpha' is {value:g}"):
        manifests.check(make(Alpha=[0.0, 1.0, value, 1.0]))


@pytest.mark.parametrize(("column", "value"), [("view", "side"), ("projection", "XX"), ("sex", "X"), ("split", "dev")])
def test_check_names_a_value_outside_a_closed_column(column: str, value: str) -> None:
    values = make().frame[column].tolist()
    with pytest.raises(DataError, match=f"c/1.png: {column} is '{value}'"):
        manifests.check(make(**{column: [*values[:3], value]}))


def test_check_names_a_patient_in_two_splits_by_hash_only() -> None:
    with pytest.raises(DataError, match="1 patient has more than one split") as caught:
        manifests.check(make(split=["train", "valid", "train", "test"]))
    assert manifests.patient_hash("p1") in str(caught.value)
    assert "p1" not in str(caught.value).replace(manifests.patient_hash("p1"), "")


def test_check_counts_patients_in_two_splits() -> None:
    with pytest.raises(DataError, match="2 of column 'patient' have more than one split"):
        manifests.check(make(patient=["p1", "p1", "p2", "p2"], split=["train", "valid", "train", "test"]))


def test_check_refuses_a_study_shared_by_patients() -> None:
    with pytest.raises(DataError, match="1 study has more than one patient"):
        manifests.check(make(study=["s", "s", "s", "t"]))


def test_patient_hash_is_short_stable_and_keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NS_PATIENT_KEY", raising=False)
    first = manifests.patient_hash("patient00001")
    assert len(first) == 8
    assert first == manifests.patient_hash("patient00001") != manifests.patient_hash("patient00002")
    monkeypatch.setenv("NS_PATIENT_KEY", "of this hospital")
    assert manifests.patient_hash("patient00001") != first


def test_a_file_gives_back_the_table(tmp_path: Path) -> None:
    manifest = make()
    manifests.write(manifest, tmp_path / "sub" / "m.parquet")
    again = manifests.read(tmp_path / "sub" / "m.parquet")
    assert again.labels == ("Zebra", "Alpha")
    pd.testing.assert_frame_equal(again.frame, manifest.frame)
    manifests.check(again)


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    manifests.write(make(), tmp_path / "a.parquet")
    manifests.write(manifests.read(tmp_path / "a.parquet"), tmp_path / "b.parquet")
    shuffled = make().frame.iloc[[3, 2, 1, 0]].iloc[::-1].reset_index(drop=True)
    manifests.write(Manifest(shuffled, ("Zebra", "Alpha")), tmp_path / "c.parquet")
    first = (tmp_path / "a.parquet").read_bytes()
    assert first == (tmp_path / "b.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()
    manifests.write(make(Alpha=[0.0, 1.0, 1.0, 0.0]), tmp_path / "d.parquet")
    assert first != (tmp_path / "d.parquet").read_bytes()


def test_read_names_a_file_that_is_missing_damaged_or_foreign(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.parquet: is missing"):
        manifests.read(tmp_path / "gone.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"bad.parquet: cannot be read"):
        manifests.read(tmp_path / "bad.parquet")
    make().frame.to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match=r"foreign.parquet: is not a manifest"):
        manifests.read(tmp_path / "foreign.parquet")


def test_seal_hides_pool_and_test_labels_and_keeps_them_apart() -> None:
    manifest = make(
        patient=["p1", "p2", "p3", "p4"],
        study=["1", "2", "3", "4"],
        split=["train", "valid", "train", "test"],
        labelled=[True, False, False, False],
    )
    before = manifest.frame.copy()
    seen, sealed = manifests.seal(manifest)
    expected = np.array([[1, 0], [NAN, 1], [NAN, NAN], [NAN, NAN]], dtype=np.float32)
    np.testing.assert_array_equal(manifests.values(seen), expected)
    assert seen.frame["Zebra"].dtype == np.float32
    assert sealed.frame["image"].tolist() == ["b/1.png", "c/1.png"]
    np.testing.assert_array_equal(manifests.values(sealed), np.array([[-1, 1], [0.25, 1]], dtype=np.float32))
    pd.testing.assert_frame_equal(manifest.frame, before)
    manifests.check(seen)
    manifests.check(sealed)
