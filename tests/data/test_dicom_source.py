"""A folder of DICOM as a data set: patients, views, labels, and what is left out."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_films import film, write
from pydicom.dataset import Dataset

from noisy_student.config import DataConfig
from noisy_student.data import cache, check, sources
from noisy_student.data import manifest as manifests
from noisy_student.data.decode import DecodeSettings
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import dicom
from noisy_student.errors import ConfigError, DataError

KEY = "a key for tests, long enough"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NS_PATIENT_KEY", KEY)


def put(root: Path, name: str, patient: str = "P1", study: str = "1.2.1", **elements: Any) -> Dataset:
    pixels = np.random.default_rng(list(name.encode())).integers(0, 4096, (24, 20), dtype=np.uint16)
    data = film(pixels, bits=12, PatientID=patient, StudyInstanceUID=study, ViewPosition="PA", **elements)
    write(root / name, data)
    return data


def load(root: Path, **changes: Any) -> Manifest:
    return sources.load(DataConfig(source="dicom", root=root, labels=("Edema", "Fracture"), **changes))


def column(films: Manifest, name: str) -> list[Any]:
    return films.frame[name].tolist()


def test_patients_and_studies_come_from_the_header(tmp_path: Path) -> None:
    put(tmp_path, "b/2.dcm", "P1", "1.2.1")
    put(tmp_path, "a/1.dcm", "P1", "1.2.1")
    put(tmp_path, "a/3.dcm", "P1", "1.2.2")
    put(tmp_path, "IM0004", "P2", "1.2.3")
    films = load(tmp_path)
    assert column(films, "image") == ["IM0004", "a/1.dcm", "a/3.dcm", "b/2.dcm"]
    patients, studies = column(films, "patient"), column(films, "study")
    assert patients[1] == patients[2] == patients[3] != patients[0]
    assert studies[1] == studies[3]
    assert len(set(studies)) == 3
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in (*patients, *studies))
    assert column(films, "view") == ["frontal"] * 4
    assert column(films, "projection") == ["PA"] * 4
    assert column(films, "split") == [""] * 4
    assert not any(column(films, "labelled"))
    assert np.isnan(manifests.values(films)).all()


def test_hospitals_may_use_the_same_number(tmp_path: Path) -> None:
    put(tmp_path, "1.dcm", "77", "1.2.1", IssuerOfPatientID="North")
    put(tmp_path, "2.dcm", "77", "1.2.2", IssuerOfPatientID="South")
    put(tmp_path, "3.dcm", "77", "1.2.2", IssuerOfPatientID="South")
    first, second, third = column(load(tmp_path), "patient")
    assert first != second == third


def test_a_patient_whose_issuer_stands_in_some_headers_alone_is_one(tmp_path: Path) -> None:
    put(tmp_path, "1.dcm", "77", "1.2.1", IssuerOfPatientID="North")
    put(tmp_path, "2.dcm", "77", "1.2.1")
    put(tmp_path, "3.dcm", "77", "1.2.2")
    put(tmp_path, "4.dcm", "78", "1.2.3")
    films = load(tmp_path)
    first, second, third, other = column(films, "patient")
    assert first == second == third != other
    studies = column(films, "study")
    assert studies[0] == studies[1] != studies[2]
    put(tmp_path, "5.dcm", "77", "1.2.4", IssuerOfPatientID="South")  # of two issuers the study's
    by_study = column(load(tmp_path), "patient")
    assert by_study[0] == by_study[1] == first
    assert len(set(by_study)) == 4


def test_a_study_number_of_two_patients_is_two_studies(tmp_path: Path) -> None:
    put(tmp_path, "1.dcm", "P1", "1.2.1")
    put(tmp_path, "2.dcm", "P2", "1.2.1")
    assert len(set(column(load(tmp_path), "study"))) == 2


def test_without_an_identifier_name_and_birth_date_or_the_study_make_the_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    person = {"PatientName": "Quill^Ada", "PatientBirthDate": "19500102"}
    put(tmp_path, "1.dcm", "", "1.2.1", **person)
    put(tmp_path, "2.dcm", "", "1.2.2", **person)
    put(tmp_path, "3.dcm", "", "1.2.3", PatientName="Quill^Ada")
    put(tmp_path, "4.dcm", "", "1.2.3")
    put(tmp_path, "5.dcm", "", "")
    put(tmp_path, "6.dcm", "", "")
    patients = column(load(tmp_path), "patient")
    assert patients[0] == patients[1]
    assert patients[2] == patients[3]
    assert len(set(patients)) == 4
    assert "4 of 6 DICOM files name no patient" in caplog.text


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({"ViewPosition": "AP"}, ("frontal", "AP")),
        ({"ViewPosition": "ANTERO_POSTERIOR"}, ("frontal", "AP")),
        ({"ViewPosition": "LL"}, ("lateral", "LL")),
        ({"ViewPosition": "RL"}, ("lateral", "RL")),
        ({"ViewPosition": "LATERAL"}, ("lateral", "")),
        ({"ViewPosition": "", "PatientOrientation": ["L", "F"]}, ("frontal", "")),
        ({"ViewPosition": "TANGENTIAL", "PatientOrientation": ["P", "F"]}, ("lateral", "")),
        ({"ViewPosition": "", "PatientOrientation": "A"}, ("lateral", "")),
        ({"ViewPosition": "", "PatientOrientation": ["F", "L"]}, ("", "")),
        ({"ViewPosition": ""}, ("", "")),
        ({"ViewPosition": None}, ("", "")),
    ],
)
def test_views(tmp_path: Path, elements: dict[str, Any], view: tuple[str, str]) -> None:
    data = film(np.zeros((8, 8), np.uint8), PatientID="P")
    for name, value in elements.items():
        if value is not None:
            setattr(data, name, value)
    write(tmp_path / "1.dcm", data)
    films = load(tmp_path)
    assert (column(films, "view")[0], column(films, "projection")[0]) == view


def test_the_view_may_be_a_code(tmp_path: Path) -> None:
    code = Dataset()
    code.CodeMeaning = "postero-anterior"
    put(tmp_path, "1.dcm", ViewCodeSequence=[code])
    data = film(np.zeros((8, 8), np.uint8), ViewCodeSequence=[code])
    write(tmp_path / "1.dcm", data)
    assert column(load(tmp_path), "projection") == ["PA"]
    assert len(load(tmp_path, views="frontal")) == 1


# -- what is found -------------------------------------------------------------------------------------------------


def test_dicom_is_told_by_its_ending_or_its_first_bytes(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.DICOM", "IM3", "1.2.840.4", "5.jpg", ".hidden.dcm", "__MACOSX/6.dcm", ".cache/7.dcm"):
        put(tmp_path, name)
    (tmp_path / "labels.csv").write_text("image,Edema\n")
    (tmp_path / "readme").write_text("words")
    os.mkfifo(tmp_path / "pipe")
    assert column(load(tmp_path), "image") == ["1.2.840.4", "1.dcm", "2.DICOM", "5.jpg", "IM3"]


def test_files_that_are_no_films_are_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "film.dcm")
    for number in range(12):
        put(tmp_path, f"loop{number:02d}.dcm", NumberOfFrames=3, Rows=8)
    put(tmp_path, "a-report.dcm", Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    assert column(load(tmp_path), "image") == ["film.dcm"]
    assert "a-report.dcm is left out: it has no picture (Basic Text SR Storage)" in caplog.text
    assert "loop08.dcm is left out: it has 3 frames, and a film has one" in caplog.text
    assert "loop09.dcm" not in caplog.text
    assert "3 more files are left out: 3 where it has 3 frames" in caplog.text


def test_files_without_a_readable_header_stay_for_the_decoder_to_judge(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "film.dcm")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "loop.dcm").symlink_to("loop.dcm")
    (tmp_path / "text.dcm").write_text("words" * 100)
    os.mkfifo(tmp_path / "pipe.dcm")
    films = load(tmp_path)
    assert column(films, "image") == ["empty.dcm", "film.dcm", "loop.dcm", "pipe.dcm", "text.dcm"]
    assert len(set(column(films, "patient"))) == 5
    assert "4 of 5 DICOM files have no DICOM header that can be read" in caplog.text


def test_names_of_all_kinds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a b.dcm", "it's.dcm", 'say "x".dcm', "new\nline.dcm", "Röntgen-胸部.dcm", "tab\t.dcm", "100%.dcm"]
    for name in names:
        put(tmp_path, name)
    with open(os.fsencode(tmp_path) + b"/latin-\xe9.dcm", "wb") as stream:
        stream.write((tmp_path / "a b.dcm").read_bytes())
    assert column(load(tmp_path), "image") == sorted(names)
    assert "latin-\\udce9.dcm' is left out: its name is not UTF-8" in caplog.text


def test_folders_without_films_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no DICOM files"):
        load(tmp_path)
    put(tmp_path, "1.dcm", NumberOfFrames=3, Rows=8)
    with pytest.raises(DataError, match=r"none of the 1 DICOM files is a film, such as '1.dcm': it has 3 frames"):
        load(tmp_path)


def test_a_patient_in_a_path_or_in_the_pixels_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "quill/1.dcm", "0042", PatientName="QUILL^Ada")
    put(tmp_path, "0042/2.dcm", "0042")
    put(tmp_path, "3.dcm", "0042", BurnedInAnnotation="YES")
    load(tmp_path)
    assert "2 of 3 DICOM files lie at a path that holds the patient's name or identifier" in caplog.text
    assert "1 of 3 DICOM files say that words about the patient are burned into their pixels" in caplog.text
    assert "0042" not in caplog.text
    assert "quill" not in caplog.text.lower()


def test_the_set_is_there_when_its_folder_or_table_is(tmp_path: Path) -> None:
    assert sources.is_there(DataConfig(source="dicom", root=tmp_path), tmp_path)
    with_table = DataConfig(source="dicom", root=tmp_path, csv="labels.csv")
    assert not sources.is_there(with_table, tmp_path)
    (tmp_path / "labels.csv").touch()
    assert sources.is_there(with_table, tmp_path)


def test_the_films_of_vindr_decode(tmp_path: Path) -> None:
    rows = [{"image_id": f"{number:032x}", "rad_id": "R1", "Edema": number} for number in range(2)]
    (tmp_path / "annotations").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "annotations" / "image_labels_train.csv", index=False)
    for row in rows:
        put(tmp_path, f"train/{row['image_id']}.dicom", PhotometricInterpretation="MONOCHROME1")
    films = sources.load(DataConfig(source="vindr", root=tmp_path, labels=("Edema",)))
    assert [name.rpartition(".")[2] for name in column(films, "image")] == ["dicom", "dicom"]
    built = cache.build(
        tmp_path, column(films, "image"), DecodeSettings(16, 1), tmp_path / "cache", workers=1, max_bad_share=0
    )
    assert built.ok.all()
    assert np.ptp(built.pixels[0]) > 50


def test_the_shape_of_dicom_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path / "long.dcm", film(np.arange(40 * 12, dtype=np.uint16).reshape(40, 12)))
    assert check.look(str(tmp_path), 64, "long.dcm").problems == {
        "tiny": "12 x 40 pixels",
        "aspect": "12 x 40 pixels",
    }


def test_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        put(tmp_path, f"{number}.dcm", f"P{number // 2}")
    alone = load(tmp_path).frame
    monkeypatch.setattr(dicom, "INLINE", 2)
    pd.testing.assert_frame_equal(load(tmp_path).frame, alone)


# -- keys ----------------------------------------------------------------------------------------------------------


def patient(root: Path, **changes: Any) -> str:
    return str(column(load(root, **changes), "patient")[0])


def test_the_key_decides_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "films", "1.dcm", "P1")
    first = patient(tmp_path / "films")
    assert first == dicom.pseudonym(KEY.encode(), "patient", "", "P1")
    (tmp_path / "key").write_text("another key, also long enough\n")
    by_file = patient(tmp_path / "films", dicom={"key_file": tmp_path / "key"})
    assert by_file == dicom.pseudonym(b"another key, also long enough", "patient", "", "P1") != first
    monkeypatch.setenv("NS_PATIENT_KEY", "too short")
    with pytest.raises(ConfigError, match=r"\$NS_PATIENT_KEY: the key of the patients has fewer than 16"):
        load(tmp_path / "films")
    with pytest.raises(ConfigError, match=r"data.dicom.key_file: .*gone cannot be read"):
        load(tmp_path / "films", dicom={"key_file": tmp_path / "gone"})


def test_without_a_key_one_is_drawn_and_kept_beside_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NS_PATIENT_KEY")
    put(tmp_path / "films", "1.dcm", "P1")
    first = patient(tmp_path / "films", cache_dir=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.name == "patient.key"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(kept.read_text().strip()) == 64
    assert patient(tmp_path / "films", cache_dir=tmp_path / "cache") == first
    assert patient(tmp_path / "films", cache_dir=tmp_path / "other") != first
    monkeypatch.setenv("NS_CACHE", str(tmp_path / "cache"))
    assert patient(tmp_path / "films") == first


def test_two_processes_agree_on_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NS_PATIENT_KEY")
    path = tmp_path / "patient.key"
    link = os.link

    def first_comes_another(source: Path, target: Path) -> None:
        path.write_text("of the other process")
        link(source, target)

    monkeypatch.setattr(os, "link", first_comes_another)
    assert dicom.patient_key(DataConfig(source="dicom", root=tmp_path, cache_dir=tmp_path)) == b"of the other process"
    assert [found.name for found in tmp_path.iterdir()] == ["patient.key"]


# -- labels --------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, patient, study in (("a/1.dcm", "P1", "1.2.1"), ("a/2.dcm", "P1", "1.2.1"), ("b/1.dcm", "P2", "1.2.2")):
        put(tmp_path, name, patient, study)
    return tmp_path


def labelled(root: Path, rows: list[dict[str, Any]], join: str, column: str = "image", **changes: Any) -> Manifest:
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return load(root, csv="labels.csv", dicom={"join": join, "column": column}, **changes)


def edema(films: Manifest) -> list[float]:
    return [float(value) for value in films.frame["Edema"]]


@pytest.mark.parametrize("names", [("a/1.dcm", "b/1.dcm"), ("a/1", "b/1"), ("./a/1.dcm", "b\\1.dcm")])
def test_labels_by_path(root: Path, names: tuple[str, str]) -> None:
    rows = [{"image": name, "Edema": place, "Fracture": ""} for place, name in enumerate(names)]
    films = labelled(root, rows, "file")
    np.testing.assert_array_equal(edema(films), [0, np.nan, 1])
    assert column(films, "labelled") == [True, False, True]


@pytest.mark.parametrize("name", ["2.dcm", "2"])
def test_labels_by_name(root: Path, name: str) -> None:
    films = labelled(root, [{"image": name, "Edema": -1, "Fracture": 0}], "file")
    np.testing.assert_array_equal(edema(films), [np.nan, -1, np.nan])


def test_a_name_that_fits_two_films_is_an_error(root: Path) -> None:
    rows = [{"image": "2.dcm", "Edema": 1, "Fracture": 0}, {"image": "1.dcm", "Edema": 1, "Fracture": 0}]
    with pytest.raises(DataError, match=r"labels.csv, line 3: column 'image' fits more than one film"):
        labelled(root, rows, "file")


def test_labels_by_study_are_those_of_all_its_films(root: Path) -> None:
    rows = [{"uid": "1.2.1", "Edema": 1, "Fracture": 0}, {"uid": "1.2.2", "Edema": 0.5, "Fracture": 0}]
    assert edema(labelled(root, rows, "study", "uid")) == [1, 1, 0.5]


def test_labels_by_instance(root: Path) -> None:
    from pydicom import dcmread

    rows = [{"sop": str(dcmread(root / "a/2.dcm").SOPInstanceUID), "Edema": 1, "Fracture": 0}]
    np.testing.assert_array_equal(edema(labelled(root, rows, "instance", "sop")), [np.nan, 1, np.nan])


def test_the_table_may_also_hold_split_sex_age_and_site(root: Path) -> None:
    rows = [
        {"image": "a/1", "Edema": 1, "Fracture": 0, "split": "val", "s": "female", "y": 40, "where": "North"},
        {"image": "a/2", "Edema": 1, "Fracture": 0, "split": "val", "s": "", "y": "", "where": ""},
    ]
    films = labelled(root, rows, "file", columns={"sex": "s", "age": "y", "site": "where"})
    assert column(films, "split") == ["valid", "valid", ""]
    assert column(films, "sex") == ["F", "", ""]
    np.testing.assert_array_equal(column(films, "age"), [40, np.nan, np.nan])
    assert column(films, "site") == ["North", "", ""]
    with pytest.raises(DataError, match="has no column 'sex'"):
        labelled(root, rows, "file", columns={"sex": "sex"})


@pytest.mark.parametrize("join", ["study", "instance", "file"])
def test_rows_that_fit_nothing_are_counted_and_none_at_all_is_an_error(
    root: Path, join: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "1.2.99.secret"
    with pytest.raises(DataError, match=f"no row of column 'image' fits a film .data.dicom.join is {join}") as caught:
        labelled(root, [{"image": secret, "Edema": 1, "Fracture": 0}], join)
    assert secret not in str(caught.value)
    rows = [{"image": secret, "Edema": 1, "Fracture": 0}, {"image": "1.2.2", "Edema": 1, "Fracture": 0}]
    if join == "study":
        with caplog.at_level(logging.WARNING):
            labelled(root, rows, join)
        assert "1 of 2 rows fit no film" in caplog.text
        assert secret not in caplog.text


@pytest.mark.parametrize(("join", "name"), [("study", "1.2.1"), ("file", "2.dcm")])
def test_two_rows_about_one_film_are_an_error(root: Path, join: str, name: str) -> None:
    rows = [{"image": name, "Edema": value, "Fracture": 0} for value in (0, 1)]
    with pytest.raises(DataError, match="line 2 and line 3: are about the same films"):
        labelled(root, rows, join)


def test_a_table_that_is_wrong_names_its_column(root: Path) -> None:
    with pytest.raises(DataError, match="has no column 'uid'"):
        labelled(root, [{"image": "a/1", "Edema": 1, "Fracture": 0}], "file", "uid")
    with pytest.raises(DataError, match="line 2: column 'Edema' is '7'"):
        labelled(root, [{"image": "a/1", "Edema": 7, "Fracture": 0}], "file")
    with pytest.raises(DataError, match=r"gone.csv: is missing"):
        load(root, csv="gone.csv")
