"""Readers of public data sets, on tables of their form, and on the real films of NIH where they are there."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data import sources
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources.padchest import KNOWN_BAD
from noisy_student.data.sources.vindr import combine
from noisy_student.errors import DataError
from noisy_student.labels import NIH, OBSERVATIONS, PADCHEST, VINDR


def load(source: Any, root: Path, *, images: bool = True, **changes: Any) -> Manifest:
    return sources.load(DataConfig(source=source, root=root, **changes), images=images)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_every_set_has_labels_of_its_own() -> None:
    assert DataConfig(source="nih", root=".").labels == NIH
    assert DataConfig(source="vindr", root=".").labels == VINDR
    assert DataConfig(source="padchest", root=".").labels == tuple(PADCHEST)
    assert DataConfig(source="mimic", root=".").labels == OBSERVATIONS
    assert DataConfig(source="nih", root=".", labels=["Mass"]).labels == ("Mass",)


# -- CheXpert Plus -------------------------------------------------------------------------------------------------


def chexpert_plus(root: Path) -> Path:
    frame = pd.DataFrame(
        {
            "path_to_image": [
                "train/patient00001/study1/view1_frontal.jpg",
                "train/patient00001/study1/view2_lateral.jpg",
                "valid/patient64541/study1/view1_frontal.jpg",
            ],
            "frontal_lateral": ["Frontal", "Lateral", "Frontal"],
            "ap_pa": ["AP", "", "PA"],
            "deid_patient_id": ["patient00001", "patient00001", "patient64541"],
            "report": ['NARRATIVE:\nlines,\n"quoted"', "", "x"],
            "age": ["68.0", "68.0", ""],
            "sex": ["Female", "Female", "Unknown"],
            "split": ["train", "train", "valid"],
        }
    )
    frame.to_csv(root / "df_chexpert_plus_240401.csv", index=False)
    folder = root / "chexbert_labels"
    folder.mkdir()
    lines = [
        {"path_to_image": frame["path_to_image"][2], "Edema": 1.0, "Fracture": -1.0},
        {"path_to_image": frame["path_to_image"][0], "Edema": None, "Fracture": 0.0},
        {"path_to_image": "train/patient00009/study1/view1_frontal.jpg", "Edema": 1.0, "Fracture": 1.0},
    ]
    (folder / "impression_fixed.json").write_text("\n".join(map(json.dumps, lines)))
    (folder / "report_fixed.json").write_text(json.dumps(lines[0] | {"Edema": 0.0}) + "\n")
    return root


def test_chexpert_plus_joins_its_label_file(tmp_path: Path) -> None:
    manifest = load("chexpert_plus", chexpert_plus(tmp_path), labels=("Fracture", "Edema"))
    frame = manifest.frame
    assert frame["image"].tolist()[1] == "train/patient00001/study1/view2_lateral.jpg"
    assert frame["study"].tolist() == ["patient00001/study1", "patient00001/study1", "patient64541/study1"]
    assert frame["view"].tolist() == ["frontal", "lateral", "frontal"]
    assert frame["projection"].tolist() == ["AP", "", "PA"]
    assert frame["split"].tolist() == ["train", "train", "valid"]
    assert frame["sex"].tolist() == ["F", "F", ""]
    np.testing.assert_array_equal(frame["age"], [68, 68, np.nan])
    np.testing.assert_array_equal(manifests.values(manifest), [[0, np.nan], [np.nan, np.nan], [-1, 1]])
    assert frame["labelled"].tolist() == [True, False, True]
    other = load("chexpert_plus", tmp_path, labels=("Edema",), label_file="chexbert_labels/report_fixed.json")
    np.testing.assert_array_equal(manifests.values(other)[:, 0], [np.nan, np.nan, 0])


def test_a_study_that_mentions_no_label_asked_for_carries_labels_all_the_same(tmp_path: Path) -> None:
    """Blanks are what ``targets.blank`` says: without normal studies the others' shares would be of no one."""
    (tmp_path / "mimic").mkdir()
    films = load("mimic", mimic(tmp_path / "mimic"), labels=("Edema",))
    np.testing.assert_array_equal(manifests.values(films)[:, 0], [np.nan, np.nan, np.nan, -1, -1])
    assert films.frame["labelled"].tolist() == [True, True, False, True, True]
    plus = load("chexpert_plus", chexpert_plus(tmp_path), labels=("Edema",))
    np.testing.assert_array_equal(manifests.values(plus)[:, 0], [np.nan, np.nan, 1])
    assert plus.frame["labelled"].tolist() == [True, False, True]


def test_one_part_of_the_png_archive_is_found(tmp_path: Path) -> None:
    chexpert_plus(tmp_path)
    touch(tmp_path, "PNG/valid/patient64541/study1/view1_frontal.png")
    manifest = load("chexpert_plus", tmp_path, labels=("Edema",), missing="leave_out")
    assert manifest.frame["image"].tolist() == ["PNG/valid/patient64541/study1/view1_frontal.png"]


@pytest.mark.parametrize("place", ["", "PNG/", "PNG/PNG/"])
def test_chexpert_plus_finds_the_png_archive(tmp_path: Path, place: str) -> None:
    chexpert_plus(tmp_path)
    touch(tmp_path, f"{place}train/patient00001/study1/view2_lateral.png")
    manifest = load("chexpert_plus", tmp_path, labels=("Edema",))
    assert manifest.frame["image"].tolist()[0] == f"{place}train/patient00001/study1/view1_frontal.png"
    bare = load("chexpert_plus", tmp_path, labels=("Edema",), images=False)
    assert bare.frame["image"].tolist()[0] == "train/patient00001/study1/view1_frontal.jpg"


def test_chexpert_plus_names_what_is_wrong(tmp_path: Path) -> None:
    chexpert_plus(tmp_path)
    with pytest.raises(DataError, match=r"impression_fixed.json: has no column 'Scoliosis'"):
        load("chexpert_plus", tmp_path, labels=("Scoliosis",))
    path = tmp_path / "chexbert_labels" / "impression_fixed.json"
    path.write_text('{"film": 1}\n')
    with pytest.raises(DataError, match=r"impression_fixed.json: has no column 'path_to_image'"):
        load("chexpert_plus", tmp_path, labels=("Edema",))
    path.write_text("not json")
    with pytest.raises(DataError, match=r"impression_fixed.json: is not a file of one JSON object per line"):
        load("chexpert_plus", tmp_path, labels=("Edema",))
    path.unlink()
    with pytest.raises(DataError, match=r"impression_fixed.json: is missing"):
        load("chexpert_plus", tmp_path, labels=("Edema",))
    (tmp_path / "df_chexpert_plus_240401.csv").write_text("path_to_image,sex\nfilm.jpg,Male\n")
    with pytest.raises(DataError, match=r"240401.csv, line 2: path_to_image is not of the form"):
        load("chexpert_plus", tmp_path, labels=("Edema",))


@pytest.mark.parametrize(
    ("cell", "shown"), [("yes", "yes"), ({"value": 1}, "{'value': 1.0}"), ([1.0], "[1.]"), (True, "True"), (3, "3.0")]
)
def test_chexpert_plus_names_the_label_that_is_none(tmp_path: Path, cell: Any, shown: str) -> None:
    path = chexpert_plus(tmp_path) / "chexbert_labels" / "impression_fixed.json"
    film = {"path_to_image": "train/patient00001/study1/view1_frontal.jpg"}
    path.write_text("\n".join(json.dumps(film | {"Edema": value}) for value in (None, None, cell)))
    with pytest.raises(DataError, match=re.escape(f"impression_fixed.json, row 3: column 'Edema' is '{shown}'")):
        load("chexpert_plus", tmp_path, labels=("Edema",))


def test_chexpert_plus_passes_over_fields_that_are_no_labels(tmp_path: Path) -> None:
    path = chexpert_plus(tmp_path) / "chexbert_labels" / "impression_fixed.json"
    film = {"path_to_image": "train/patient00001/study1/view1_frontal.jpg", "note": "a text", "more": {"a": [1]}}
    first = film | {"Edema": "1.0"}
    path.write_text("\n".join(map(json.dumps, (first, film | {"Edema": None}, film | {"Edema": "0"}))))
    manifest = load("chexpert_plus", tmp_path, labels=("Edema",))
    np.testing.assert_array_equal(manifests.values(manifest)[:, 0], [1, np.nan, np.nan])


def test_a_label_file_belongs_to_chexpert_plus() -> None:
    with pytest.raises(ValueError, match="label_file: source 'nih' has none"):
        DataConfig(source="nih", root=".", label_file="x.json")


# -- NIH ChestX-ray14 ----------------------------------------------------------------------------------------------

NIH_TABLE = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]
00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143
00000001_001.png,Cardiomegaly|Effusion|Pleural_Thickening,1,1,58,M,PA,2894,2729,0.143,0.143
00000002_000.png,No Finding,0,2,80,F,AP,2500,2048,0.171,0.171
00000003_000.png,Nodule|Hernia,0,3,81,F,PA,2582,2991,0.143,0.143
"""  # noqa: E501


def nih(root: Path, **lists: str) -> Path:
    (root / "Data_Entry_2017_v2020.csv").write_text(NIH_TABLE)
    for name, films in lists.items():
        (root / f"{name}.txt").write_text("\n".join(f"0000000{film}.png" for film in films.split()) + "\n")
    return root


OFFICIAL = {"train_val_list": "1_000 1_001 2_000", "test_list": "3_000"}


def test_nih_findings_people_and_lists(tmp_path: Path) -> None:
    manifest = load("nih", nih(tmp_path, **OFFICIAL), labels=("Effusion ", "Hernia", "No Finding"))
    frame = manifest.frame
    assert frame["patient"].tolist() == ["1", "1", "2", "3"]
    assert frame["study"].tolist()[1] == "1/00000001_001"
    assert frame["split"].tolist() == ["train", "train", "train", "test"]
    assert frame["projection"].tolist() == ["PA", "PA", "AP", "PA"]
    assert frame["sex"].tolist() == ["M", "M", "F", "F"]
    assert frame["age"].tolist() == [57, 58, 80, 81]
    assert frame["labelled"].all()
    np.testing.assert_array_equal(manifests.values(manifest), [[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    ours = load("nih", tmp_path, labels=("Pleural Effusion",))
    np.testing.assert_array_equal(manifests.values(ours)[:, 0], manifests.values(manifest)[:, 0])


def test_nih_names_are_ours_and_lesions_are_nodules_or_masses(tmp_path: Path) -> None:
    for label in ("Pleural Thickening", "Pleural_Thickening"):
        manifest = load("nih", nih(tmp_path), labels=(label, "Lung Lesion"))
        np.testing.assert_array_equal(manifests.values(manifest), [[0, 0], [1, 0], [0, 0], [0, 1]])
    assert set(manifest.frame["split"]) == {""}


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["images_001/images/00000001_000.png", "images_012/images/00000003_000.png"], None),
        (["images/00000001_000.png", "images/00000003_000.png"], None),
        (["00000001_000.png", "00000003_000.png"], None),
        (["images_001/00000001_000.png", "images/00000003_000.png"], None),
        ([], ["images/00000001_000.png", "images/00000003_000.png"]),
    ],
)
def test_nih_films_are_found_nested_or_flat(tmp_path: Path, places: list[str], expected: list[str] | None) -> None:
    touch(nih(tmp_path), *places)
    images = load("nih", tmp_path).frame["image"].tolist()
    assert [images[0], images[3]] == (expected or places)
    assert images[1] == "images/00000001_001.png"
    assert load("nih", tmp_path, images=False).frame["image"].tolist()[0] == "images/00000001_000.png"


def test_ages_of_the_first_release_that_are_errors_are_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = nih(tmp_path) / "Data_Entry_2017_v2020.csv"
    table = pd.read_csv(path, dtype=str)
    table["Patient Age"] = ["412", "058Y", *table["Patient Age"][2:]]
    table.to_csv(path, index=False)
    ages = load("nih", tmp_path, images=False).frame["age"]
    assert np.isnan(ages[0])
    assert ages[1] == 58
    assert "1 ages above 150 are taken as unknown" in caplog.text


def test_films_that_annex_has_not_fetched_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(nih(tmp_path), "images/00000001_000.png", "images/00000001_001.png", "images/00000003_000.png")
    (tmp_path / "images/00000002_000.png").symlink_to("../.git/annex/objects/gone")
    manifest = load("nih", tmp_path, missing="leave_out")
    assert len(manifest) == 3
    assert "1 of 4 films are not below" in caplog.text


def test_nih_films_that_are_not_there_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(nih(tmp_path), "images/00000001_001.png", "00000003_000.png")
    manifest = load("nih", tmp_path, missing="leave_out")
    assert manifest.frame["image"].tolist() == ["images/00000001_001.png", "00000003_000.png"]
    assert "2 of 4 films are not below" in caplog.text


def test_nih_names_what_is_wrong(tmp_path: Path) -> None:
    nih(tmp_path, **(OFFICIAL | {"test_list": ""}))
    with pytest.raises(DataError, match=r"'00000003_000.png' is in none of train_val_list.txt, test_list.txt \(1 such"):
        load("nih", tmp_path)
    nih(tmp_path, **(OFFICIAL | {"test_list": "3_000 2_000"}))
    with pytest.raises(DataError, match=r"test_list.txt: lists '00000002_000.png', which is in another list too"):
        load("nih", tmp_path)
    nih(tmp_path, **OFFICIAL)
    with pytest.raises(DataError, match=r"'Fracture' is not a finding of NIH ChestX-ray14"):
        load("nih", tmp_path, labels=("Fracture",))
    (tmp_path / "test_list.txt").write_bytes(b"\xff\xfe0\x000\x00")
    with pytest.raises(DataError, match=r"test_list.txt: is not a list of names in UTF-8"):
        load("nih", tmp_path)
    nih(tmp_path, **OFFICIAL)
    path = tmp_path / "Data_Entry_2017_v2020.csv"
    path.write_text(NIH_TABLE.replace("Nodule|Hernia", "Nodule|Herna"))
    with pytest.raises(DataError, match=r"v2020.csv, line 5: 'Finding Labels' is 'Nodule\|Herna'"):
        load("nih", tmp_path)
    path.write_text(NIH_TABLE.replace("Patient ID", "Patient"))
    with pytest.raises(DataError, match=r"v2020.csv: has no column 'Patient ID'"):
        load("nih", tmp_path)


def test_nih_sex_has_two_headers(tmp_path: Path) -> None:
    nih(tmp_path)
    path = tmp_path / "Data_Entry_2017_v2020.csv"
    path.write_text(NIH_TABLE.replace("Patient Gender", "Patient Sex"))
    assert load("nih", tmp_path).frame["sex"].tolist() == ["M", "M", "F", "F"]


@pytest.mark.real
def test_the_real_films_of_nih1000(real_data: Path) -> None:
    root = real_data / "nih1000"
    if not root.is_dir():
        pytest.skip(f"no real films at {root}; set NS_REAL_DATA")
    manifest = load("nih", root, labels=(*NIH, "No Finding"))
    assert len(manifest) == 1000
    assert set(manifest.frame["split"]) == {"train", "valid", "test"}
    assert sources.there(root, manifest).all()
    matrix = manifests.values(manifest)
    # A film has a finding or "No Finding", never both; counted by hand from the column.
    np.testing.assert_array_equal(matrix[:, -1], matrix[:, :-1].sum(axis=1) == 0)
    table = pd.read_csv(root / "Data_Entry_2017_v2020.csv", index_col=False)
    for label, theirs in (("Pleural Effusion", "Effusion"), ("Pleural Thickening", "Pleural_Thickening")):
        counted = table["Finding Labels"].str.split("|").map(lambda found, name=theirs: name in found).sum()
        assert matrix[:, manifest.labels.index(label)].sum() == counted > 0


# -- MIMIC-CXR-JPG -------------------------------------------------------------------------------------------------


def mimic(root: Path, ending: str = ".csv.gz") -> Path:
    texts = {
        "metadata": "dicom_id,subject_id,study_id,ViewPosition,StudyDate\n"
        "d-1,10000032,50414267,PA,21800506\nd-2,10000032,50414267,LATERAL,21800506\n"
        "d-3,10000764,57375967,AP,21321015\nd-4,11000764,57375968,LAO,\nd-5,11000764,57375968,,\n",
        "split": "dicom_id,study_id,subject_id,split\nd-3,57375967,10000764,validate\nd-2,50414267,10000032,train\n"
        "d-1,50414267,10000032,train\nd-4,57375968,11000764,test\nd-5,57375968,11000764,test\n",
        "chexpert": "subject_id,study_id,Edema,Fracture\n11000764,57375968,-1.0,\n10000032,50414267,,0.0\n",
    }
    for kind, text in texts.items():
        path = root / f"mimic-cxr-2.0.0-{kind}{ending}"
        path.write_bytes(gzip.compress(text.encode()) if ending.endswith("gz") else text.encode())
    return root


@pytest.mark.parametrize("ending", [".csv.gz", ".csv"])
def test_mimic_joins_three_tables(tmp_path: Path, ending: str) -> None:
    manifest = load("mimic", mimic(tmp_path, ending), labels=("Edema", "Fracture"))
    frame = manifest.frame
    assert frame["image"].tolist()[0] == "files/p10/p10000032/s50414267/d-1.jpg"
    assert frame["image"].tolist()[3] == "files/p11/p11000764/s57375968/d-4.jpg"
    assert frame["study"].tolist()[0] == "10000032/s50414267"
    assert frame["split"].tolist() == ["train", "train", "valid", "test", "test"]
    assert frame["view"].tolist() == ["frontal", "lateral", "frontal", "", ""]
    assert frame["projection"].tolist() == ["PA", "", "AP", "", ""]
    assert frame["date"].tolist() == ["2180-05-06", "2180-05-06", "2132-10-15", "", ""]
    nan = np.nan
    np.testing.assert_array_equal(manifests.values(manifest), [[nan, 0], [nan, 0], [nan, nan], [-1, nan], [-1, nan]])
    assert frame["labelled"].tolist() == [True, True, False, True, True]


def test_mimic_takes_another_label_table_or_only_its_place(tmp_path: Path) -> None:
    mimic(tmp_path)
    (tmp_path / "negbio.csv").write_text("subject_id,study_id,Edema\n10000764,57375967,1\n")
    manifest = load("mimic", tmp_path, labels=("Edema",), csv="negbio.csv")
    np.testing.assert_array_equal(manifests.values(manifest)[:, 0], [np.nan, np.nan, 1, np.nan, np.nan])
    named = load("mimic", tmp_path, labels=("Edema",), csv="mimic-cxr-2.0.0-metadata.csv.gz")
    assert manifests.values(named)[3, 0] == -1


def test_mimic_names_what_is_wrong(tmp_path: Path) -> None:
    mimic(tmp_path, ".csv")
    split, labels = tmp_path / "mimic-cxr-2.0.0-split.csv", tmp_path / "mimic-cxr-2.0.0-chexpert.csv"
    labels.write_text(labels.read_text() + "10000032,50414267,1,1\n")
    with pytest.raises(DataError, match=r"chexpert.csv, line 4: study_id 50414267 is there twice"):
        load("mimic", tmp_path, labels=("Edema",))
    mimic(tmp_path, ".csv")
    split.write_text("dicom_id,split\nd-1,train\n")
    with pytest.raises(DataError, match=r"split.csv: 4 films of the metadata table have no split, such as d-2"):
        load("mimic", tmp_path, labels=("Edema",))
    split.unlink()
    with pytest.raises(DataError, match=r"mimic-cxr-2.0.0-split.csv.gz: is missing"):
        load("mimic", tmp_path, labels=("Edema",))
    assert not sources.is_there(DataConfig(source="mimic", root=tmp_path), tmp_path)


# -- VinDr-CXR -----------------------------------------------------------------------------------------------------


def vindr(root: Path) -> Path:
    folder = root / "annotations"
    folder.mkdir()
    (folder / "image_labels_train.csv").write_text(
        "image_id,rad_id,Cardiomegaly,Nodule/Mass,Other diseases,No finding\n"
        "b,R1,1,0,0,0\na,R9,0,0,0,1\nb,R2,1,1,0,0\na,R8,0,0,1,0\nb,R3,0,0,0,0\na,R7,0,0,1,0\n"
    )
    (folder / "image_labels_test.csv").write_text(
        "image_id,Cardiomegaly,Nodule/Mass,Other disease,No finding\nc,0,1,1,0\n"
    )
    return root


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("majority", [[1, 0, 0], [0, 0, 1], [0, 1, 1]]),
        ("any", [[1, 1, 0], [0, 0, 1], [0, 1, 1]]),
        ("mean", [[2 / 3, 1 / 3, 0], [0, 0, 2 / 3], [0, 1, 1]]),
    ],
)
def test_vindr_readers(tmp_path: Path, rule: str, expected: list[list[float]]) -> None:
    manifest = load("vindr", vindr(tmp_path), labels=("Cardiomegaly", "Lung Lesion", "Other Disease"), readers=rule)
    assert manifest.frame["image"].tolist() == ["train/b.dicom", "train/a.dicom", "test/c.dicom"]
    assert manifest.frame["split"].tolist() == ["train", "train", "test"]
    assert manifest.frame["patient"].tolist() == ["b", "a", "c"]
    np.testing.assert_allclose(manifests.values(manifest), expected, rtol=1e-6)


def test_readers_who_are_equally_divided_are_uncertain() -> None:
    votes, readers = np.array([0, 1, 2, 3, 2.0]), np.array([4, 2, 4, 4, 3])
    assert combine(votes, readers, "majority").tolist() == [0, -1, -1, 1, 1]


def test_vindr_films_may_have_been_converted(tmp_path: Path) -> None:
    touch(vindr(tmp_path), "train/a.png", "train/b.dicom", "train/b.jpg", "images/c.jpeg", "train/.a.jpg")
    images = load("vindr", tmp_path, labels=("Cardiomegaly",)).frame["image"].tolist()
    assert images == ["train/b.jpg", "train/a.png", "images/c.jpeg"]


def test_the_table_of_the_vindr_challenge_lists_findings(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(
        "image_id,class_name,class_id,rad_id,x_min\n"
        "a,Cardiomegaly,3,R1,1.0\na,Cardiomegaly,3,R1,9.0\na,No finding,14,R2,\na,Cardiomegaly,3,R3,2.0\n"
        "b,No finding,14,R1,\nb,No finding,14,R2,\nb,Nodule/Mass,8,R3,5\n"
    )
    manifest = load("vindr", tmp_path, csv="train.csv", labels=("Cardiomegaly", "Lung Lesion"), readers="mean")
    np.testing.assert_allclose(manifests.values(manifest), [[2 / 3, 0], [0, 1 / 3]], rtol=1e-6)
    with pytest.raises(DataError, match=r"train.csv: has no column 'Edema'"):
        load("vindr", tmp_path, csv="train.csv", labels=("Edema",))


def test_a_vote_is_yes_or_no(tmp_path: Path) -> None:
    path = vindr(tmp_path) / "annotations" / "image_labels_train.csv"
    path.write_text(path.read_text().replace("a,R8,0,", "a,R8,,"))
    with pytest.raises(DataError, match=r"train.csv, line 5: 'Cardiomegaly' is blank or neither 0 nor 1"):
        load("vindr", tmp_path, labels=("Cardiomegaly",))


# -- PadChest ------------------------------------------------------------------------------------------------------

PADCHEST_ROWS = (
    ("1_a.png", "0", "20140915", "s1", "p1", "1930.0", "F", "PA", "['normal']"),
    ("2_b.png", "0", "20150914", "s2", "p2", "1929.0", "M", "L", "['pneumonia', ' pleural effusion', '']"),
    ("3_c.png", "54", "20150914", "s2", "p3", "2020.0", "O", "AP_horizontal", "['NSG tube', 'laminar atelectasis']"),
    ("4_d.png", "54", "20150914", "s4", "p4", "", "nan", "COSTAL", "['unchanged', '']"),
    ("5_e.png", "54", "20150914", "s5", "p5", "1950", "F", "PA", "nan"),
    (sorted(KNOWN_BAD)[0], "54", "20150914", "s6", "p6", "1950", "F", "PA", "['normal']"),
)


def padchest(root: Path, rows: tuple[tuple[str, ...], ...] = PADCHEST_ROWS) -> Path:
    columns = [
        "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
        "Projection", "Labels",
    ]  # fmt: skip
    pd.DataFrame(rows, columns=columns).to_csv(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv")
    return root


def test_padchest_reads_lists_projections_and_leaves_out_known_bad_films(tmp_path: Path) -> None:
    labels = ("No Finding", "Pleural Effusion", "Atelectasis", "Support Devices", "laminar atelectasis", "nsg tube")
    manifest = load("padchest", padchest(tmp_path), labels=labels)
    frame, nan = manifest.frame, [np.nan] * 6
    assert frame["image"].tolist() == ["0/1_a.png", "0/2_b.png", "54/3_c.png", "54/4_d.png", "54/5_e.png"]
    assert frame["view"].tolist() == ["frontal", "lateral", "frontal", "", "frontal"]
    assert frame["projection"].tolist() == ["PA", "", "AP", "", "PA"]
    assert frame["sex"].tolist() == ["F", "M", "", "", "F"]
    assert frame["date"].tolist()[0] == "2014-09-15"
    np.testing.assert_array_equal(frame["age"], [84, 86, np.nan, np.nan, 65])
    assert frame["study"].tolist()[1:3] == ["p2/s2", "p3/s2"]
    assert frame["labelled"].tolist() == [True, True, True, False, False]
    expected = [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1], nan, nan]
    np.testing.assert_array_equal(manifests.values(manifest), expected)


def test_padchest_films_are_found_flat_or_by_folder(tmp_path: Path) -> None:
    touch(padchest(tmp_path), "1_a.png", "54/3_c.png", "images/0/2_b.png")
    images = load("padchest", tmp_path).frame["image"].tolist()
    assert images[:3] == ["1_a.png", "images/0/2_b.png", "54/3_c.png"]


def test_padchest_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no report lists 'Scoliosis'"):
        load("padchest", padchest(tmp_path), labels=("Scoliosis",))
    for cell in ("['pneumonia'", "pneumonia", "'pneumonia'", "{[]:1}", "{'pneumonia'}", "[" * 500):
        wrong = (*PADCHEST_ROWS[:1], (*PADCHEST_ROWS[1][:-1], cell))
        with pytest.raises(DataError, match=r"line 3: column 'Labels' is .* which is no list of terms"):
            load("padchest", padchest(tmp_path, wrong))
    (tmp_path / "other.csv").write_text("ImageID,PatientID,Labels\n1.png,p,['normal']\n")
    bare = load("padchest", tmp_path, csv="other.csv")
    assert (bare.frame["image"].item(), bare.frame["study"].item()) == ("1.png", "p/1.png")
