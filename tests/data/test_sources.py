"""Readers: CheXpert's tables in their known forms, and any CSV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisy_student.config import ColumnsConfig, DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data import sources
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pleural Effusion\n"
LABELS = ("Pleural Effusion", "Edema")


def chexpert_root(tmp_path: Path, prefix: str = "CheXpert-v1.0-small/") -> Path:
    (tmp_path / "train.csv").write_text(
        HEADER
        + f"{prefix}train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,0.0\n"
        + f"{prefix}train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,1.0,,0.0\n"
        + f"{prefix}train/patient00002/study12/view1_frontal.jpg,Unknown,,Frontal,LL,,-1.0,1\n"
    )
    (tmp_path / "valid.csv").write_text(
        HEADER + f"{prefix}valid/patient64541/study1/view1_frontal.jpg,Male,90,Frontal,PA,0.0,1.0,0.0\n"
    )
    return tmp_path


def load_chexpert(root: Path, **changes: Any) -> Manifest:
    return sources.load(DataConfig(source="chexpert", root=root, **{"labels": LABELS, **changes}))


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0-small/", "CheXpert-v1.0/", "", "a/train/b/"])
def test_chexpert_is_read_by_name_whatever_the_root(tmp_path: Path, prefix: str) -> None:
    manifest = load_chexpert(chexpert_root(tmp_path, prefix))
    frame = manifest.frame
    assert frame["image"].tolist() == [
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00001/study1/view2_lateral.jpg",
        "train/patient00002/study12/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    assert frame["patient"].tolist() == ["patient00001", "patient00001", "patient00002", "patient64541"]
    assert frame["study"].tolist()[1:3] == ["patient00001/study1", "patient00002/study12"]
    assert frame["view"].tolist() == ["frontal", "lateral", "frontal", "frontal"]
    assert frame["projection"].tolist() == ["AP", "", "LL", "PA"]
    assert frame["sex"].tolist() == ["F", "F", "", "M"]
    np.testing.assert_array_equal(frame["age"], [68, 68, np.nan, 90])
    assert frame["split"].tolist() == ["train", "train", "train", "valid"]
    assert frame["labelled"].all()
    assert manifest.labels == LABELS
    np.testing.assert_array_equal(manifests.values(manifest), [[0, np.nan], [0, np.nan], [1, -1], [0, 1]])


def test_chexpert_frontal_only(tmp_path: Path) -> None:
    manifest = load_chexpert(chexpert_root(tmp_path), views="frontal")
    assert set(manifest.frame["view"]) == {"frontal"}
    assert manifest.frame.index.tolist() == [0, 1, 2]


def test_the_synthetic_source_reads_the_same_layout(tmp_path: Path) -> None:
    chexpert_root(tmp_path)
    config = DataConfig(source="synthetic", root=tmp_path, labels=LABELS)
    pd.testing.assert_frame_equal(sources.load(config).frame, load_chexpert(tmp_path).frame)


def test_columns_may_be_reordered_and_named_with_underscores(tmp_path: Path) -> None:
    chexpert_root(tmp_path)
    for name in ("train.csv", "valid.csv"):
        table = pd.read_csv(tmp_path / name).iloc[:, ::-1]
        table.rename(columns={"Pleural Effusion": "Pleural_Effusion", "AP/PA": "ap/pa"}).to_csv(
            tmp_path / name, index=False
        )
    manifest = load_chexpert(tmp_path)
    np.testing.assert_array_equal(manifests.values(manifest)[:, 0], [0, 0, 1, 0])
    assert manifest.frame["projection"].tolist() == ["AP", "", "LL", "PA"]


@pytest.mark.parametrize(
    ("name", "head"), [("test.csv", "Path"), ("test_labels.csv", "Path"), ("groundtruth.csv", "Study")]
)
def test_study_rows_of_a_test_table_are_joined_to_their_films(tmp_path: Path, name: str, head: str) -> None:
    chexpert_root(tmp_path)
    (tmp_path / name).write_text(
        f"{head},Edema,Pleural Effusion\n"
        "CheXpert-v1.0/test/patient64741/study1,1,0\n"
        "CheXpert-v1.0/test/patient64742/study1/view1_frontal.jpg,0,1\n"
        "test/patient64743/study2/,0,0\n"
    )
    for film in ("64741/study1/view1_frontal", "64741/study1/view2_lateral", "64743/study2/view3_frontal"):
        path = tmp_path / "test" / f"patient{film}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "test/patient64741/study1/.DS_Store").touch()
    test = manifests.select(load_chexpert(tmp_path), split="test")
    assert test.frame["image"].tolist() == [
        "test/patient64741/study1/view1_frontal.jpg",
        "test/patient64741/study1/view2_lateral.jpg",
        "test/patient64742/study1/view1_frontal.jpg",
        "test/patient64743/study2/view3_frontal.jpg",
    ]
    assert test.frame["view"].tolist() == ["frontal", "lateral", "frontal", "frontal"]
    np.testing.assert_array_equal(manifests.values(test), [[0, 1], [0, 1], [1, 0], [0, 0]])
    assert test.frame["age"].isna().all()


def test_a_test_table_without_labels_gives_way_to_one_with(tmp_path: Path) -> None:
    chexpert_root(tmp_path)
    film = "test/patient64741/study1/view1_frontal.jpg"
    (tmp_path / "test.csv").write_text(f"Path,Sex\n{film},Male\n")
    with pytest.raises(DataError, match=r"test.csv: has no column 'Pleural Effusion'; its columns are Path, Sex"):
        load_chexpert(tmp_path)
    (tmp_path / "groundtruth.csv").write_text(f"Path,Edema,Pleural Effusion\n{film},1,1\n")
    assert len(manifests.select(load_chexpert(tmp_path), split="test")) == 1


def test_a_study_without_films_is_an_error(tmp_path: Path) -> None:
    chexpert_root(tmp_path)
    (tmp_path / "test.csv").write_text("Path,Edema,Pleural Effusion\ntest/patient64741/study1,1,0\n")
    with pytest.raises(DataError, match=r"test.csv, line 2: the study's folder has no films"):
        load_chexpert(tmp_path)
    (tmp_path / "test.csv").write_text("Path,Edema,Pleural Effusion\ntest/64741,1,0\n")
    with pytest.raises(DataError, match=r"test.csv, line 2: Path is not of the form"):
        load_chexpert(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "train/patient1/study1/view1_frontal.jpg",
        "train/patient00003/study1",
        "patient00003/study1/view1_frontal.jpg",
        "",
    ],
)
def test_a_path_of_another_form_names_file_and_line(tmp_path: Path, path: str) -> None:
    chexpert_root(tmp_path)
    with (tmp_path / "train.csv").open("a") as stream:
        stream.write(f"{path},Male,50,Frontal,AP,,,\n")
    with pytest.raises(DataError, match=r"train.csv, line 5: Path is not of the form .* \(1 such rows\)"):
        load_chexpert(tmp_path)


@pytest.mark.parametrize("value", ["2", "yes", "-0.5", "True", "inf", "NA"])
def test_an_unknown_label_names_file_line_column_and_value(tmp_path: Path, value: str) -> None:
    chexpert_root(tmp_path)
    with (tmp_path / "train.csv").open("a") as stream:
        stream.write(f"train/patient00003/study1/view1_frontal.jpg,Male,50,Frontal,AP,,{value},\n")
    with pytest.raises(DataError, match=f"train.csv, line 5: column 'Edema' is '{value}'"):
        load_chexpert(tmp_path)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("Sex", "Man,50,Frontal,AP"),
        ("Age", "Male,old,Frontal,AP"),
        ("Age", "Male,-3,Frontal,AP"),
        ("AP/PA", "Male,5,Frontal,XX"),
    ],
)
def test_an_unknown_demographic_value_names_file_line_and_column(tmp_path: Path, column: str, cells: str) -> None:
    chexpert_root(tmp_path)
    with (tmp_path / "train.csv").open("a") as stream:
        stream.write(f"train/patient00003/study1/view1_frontal.jpg,{cells},,,\n")
    with pytest.raises(DataError, match=f"train.csv, line 5: column '{column}' is"):
        load_chexpert(tmp_path)


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.root: .*gone is not a folder"):
        load_chexpert(tmp_path / "gone")
    with pytest.raises(DataError, match="no folder given"):
        sources.load(DataConfig(source="synthetic"))
    with pytest.raises(DataError, match=r"train.csv: is missing"):
        load_chexpert(tmp_path)
    chexpert_root(tmp_path)
    with pytest.raises(DataError, match=r"train.csv: has no column 'Fracture'; its columns are Path, Sex") as caught:
        load_chexpert(tmp_path, labels=("Fracture",))
    assert "data.labels" in caught.value.hint
    (tmp_path / "valid.csv").write_text("File,Edema,Pleural Effusion\nx,1,1\n")
    with pytest.raises(DataError, match=r"valid.csv: has no column 'Path'"):
        load_chexpert(tmp_path)
    (tmp_path / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"valid.csv: is missing"):
        load_chexpert(tmp_path)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    chexpert_root(tmp_path)
    for name in ("train.csv", "valid.csv"):
        (tmp_path / name).write_text(HEADER)
    with pytest.raises(DataError, match=r"train.csv, .*valid.csv: has no rows"):
        load_chexpert(tmp_path)
    (tmp_path / "train.csv").write_text("")
    with pytest.raises(DataError, match=r"train.csv: is not a CSV table"):
        load_chexpert(tmp_path)
    (tmp_path / "train.csv").write_bytes("Path,Sex,\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train.csv: is not a CSV table"):
        load_chexpert(tmp_path)


def test_load_checks_the_manifest(tmp_path: Path) -> None:
    chexpert_root(tmp_path)
    (tmp_path / "valid.csv").write_text(HEADER + "train/patient00001/study9/view1_frontal.jpg,Male,9,Frontal,PA,,1,0\n")
    with pytest.raises(DataError, match="more than one split"):
        load_chexpert(tmp_path)


# -- any CSV -------------------------------------------------------------------------------------------------------

ALL_COLUMNS = ColumnsConfig(
    image="file", patient="id", study="visit", split="part", view="view", sex="gender", age="years"
)


def load_csv(root: Path, text: str, columns: ColumnsConfig = ALL_COLUMNS, **changes: Any) -> Manifest:
    (root / "films.csv").write_text(text)
    values = {"labels": ("Edema", "Scoliosis"), "csv": "films.csv", "columns": columns, **changes}
    return sources.load(DataConfig(source="csv", root=root, **values))


FULL = "file,id,visit,part,view,gender,years,Scoliosis,edema\n"


def test_csv_with_all_columns(tmp_path: Path) -> None:
    manifest = load_csv(
        tmp_path,
        FULL + "x/1.png,007,1,Train,PA,f,41,1,0.5\nx/2.png,007,1,train,lateral,F,41,,\n"
        "x/3.png,8,1,validation,ap,male,,0,-1\nx/4.png,9,1,,,,,0,0\n",
    )
    frame = manifest.frame
    assert frame["patient"].tolist() == ["007", "007", "8", "9"]
    assert frame["study"].tolist() == ["007/1", "007/1", "8/1", "9/1"]
    assert frame["split"].tolist() == ["train", "train", "valid", ""]
    assert frame["view"].tolist() == ["frontal", "lateral", "frontal", ""]
    assert frame["projection"].tolist() == ["PA", "", "AP", ""]
    assert frame["sex"].tolist() == ["F", "F", "M", ""]
    np.testing.assert_array_equal(frame["age"], [41, 41, np.nan, np.nan])
    np.testing.assert_array_equal(manifests.values(manifest), [[0.5, 1], [np.nan, np.nan], [-1, 0], [0, 0]])
    assert frame["labelled"].tolist() == [True, False, True, True]


def test_csv_with_only_what_is_needed(tmp_path: Path) -> None:
    columns = ColumnsConfig(image="file", patient="id", split=None)
    manifest = load_csv(tmp_path, "file,id,Edema,Scoliosis\na.png,1,0,1\nb.png,1,1,0\n", columns)
    assert manifest.frame["split"].tolist() == ["", ""]
    assert manifest.frame["study"].tolist() == ["1/a.png", "1/b.png"]


@pytest.mark.parametrize("column", ["file", "id", "visit", "part", "view", "gender", "years"])
def test_csv_names_a_missing_column_and_its_key(tmp_path: Path, column: str) -> None:
    table = FULL.replace(column, "other") + "x/1.png,007,1,train,PA,f,41,1,0\n"
    with pytest.raises(DataError, match=f"films.csv: has no column '{column}'; its columns are .*other") as caught:
        load_csv(tmp_path, table)
    assert "Set data.columns." in caught.value.hint


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",7,1,train,PA,f,41,1,0", "column 'file' is blank"),
        ("x,,1,train,PA,f,41,1,0", "column 'id' is blank"),
        ("x,7,,train,PA,f,41,1,0", "column 'visit' is blank"),
        ("x,7,1,dev,PA,f,41,1,0", "column 'part' is 'dev'"),
        ("x,7,1,train,oblique,f,41,1,0", "column 'view' is 'oblique'"),
        ("x,7,1,train,PA,divers,41,1,0", "column 'gender' is 'divers'"),
        ("x,7,1,train,PA,f,forty,1,0", "column 'years' is 'forty'"),
        ("x,7,1,train,PA,f,41,no,0", "column 'Scoliosis' is 'no'"),
    ],
)
def test_csv_names_line_column_and_value(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=f"films.csv, line 3: {message}"):
        load_csv(tmp_path, f"{FULL}a.png,1,1,train,PA,f,41,1,0\n{row}\n")


def test_csv_frontal_needs_a_view_column_and_filters_by_it(tmp_path: Path) -> None:
    columns = ColumnsConfig(image="file", patient="id", split=None)
    with pytest.raises(DataError, match="no column says which films are"):
        load_csv(tmp_path, "file,id,Edema,Scoliosis\na.png,1,0,1\n", columns, views="frontal")
    rows = "a.png,1,1,train,PA,f,41,1,0\nb.png,1,1,train,lateral,f,41,1,0\n"
    assert load_csv(tmp_path, FULL + rows, views="frontal").frame["image"].tolist() == ["a.png"]


def test_csv_missing_file_and_paths_outside_the_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels.csv: is missing"):
        sources.load(DataConfig(source="csv", root=tmp_path))
    with pytest.raises(DataError, match=r"'../x.png' \(one of 1\) is not below data.root"):
        load_csv(tmp_path, FULL + "../x.png,7,1,train,PA,f,41,1,0\n")


@pytest.mark.real
def test_the_real_table_of_kermany160() -> None:
    folder = Path(os.environ.get("NS_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "kermany160"
    if not folder.is_dir():
        pytest.skip(f"no real films at {folder}; set NS_REAL_DATA")
    labels = ("Normal", "Pneumonia", "Bacterial", "Viral")
    manifest = sources.load(DataConfig(source="csv", root=folder, labels=labels))
    assert manifest.frame["split"].value_counts().to_dict() == {"train": 3905, "valid": 515, "test": 812}
    matrix = manifests.values(manifest)
    np.testing.assert_array_equal(matrix[:, 0], 1 - matrix[:, 1])
    np.testing.assert_array_equal(matrix[:, 1], matrix[:, 2] + matrix[:, 3])
    assert (folder / manifest.frame["image"].iloc[0]).is_file()
