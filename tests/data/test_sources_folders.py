"""Class folders: with and without split folders, one or several labels, patients from names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from noisy_student.config import DataConfig, SplitConfig
from noisy_student.data import manifest as manifests
from noisy_student.data import sources, splits
from noisy_student.data.decode import DecodeSettings, decode
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources.files import FILMS
from noisy_student.errors import ConfigError, DataError

KERMANY = r"^(person\d+|(?:NORMAL2-)?IM-\d+)"


def films(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def load(root: Path, labels: tuple[str, ...], **folders: Any) -> Manifest:
    return sources.load(DataConfig(source="folders", root=root, labels=labels, folders=folders))


KAGGLE = (
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_bacteria_2.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "test/PNEUMONIA/person3_virus_16.jpeg",
)


def test_the_folders_of_kaggle(tmp_path: Path) -> None:
    films(tmp_path, *KAGGLE, "train/.DS_Store", "__MACOSX/train/NORMAL/._x.jpeg", "train/PNEUMONIA/notes.txt")
    manifest = load(tmp_path, ("Pneumonia",), negative=("normal",), patient=KERMANY)
    frame = manifest.frame.set_index("image")
    assert sorted(frame.index) == sorted(KAGGLE)
    assert frame["patient"].to_dict() == {
        KAGGLE[0]: "IM-0115",
        KAGGLE[1]: "NORMAL2-IM-0115",
        KAGGLE[2]: "person1",
        KAGGLE[3]: "person1",
        KAGGLE[4]: "NORMAL2-IM-1427",
        KAGGLE[5]: "person3",
    }
    assert frame["split"].to_dict() == {
        name: {"val": "valid"}.get(name.split("/")[0], name.split("/")[0]) for name in KAGGLE
    }
    assert frame["Pneumonia"].to_dict() == {name: float("PNEUMONIA" in name) for name in KAGGLE}
    assert frame["labelled"].all()


def test_folders_without_splits_and_with_folders_below(tmp_path: Path) -> None:
    films(tmp_path, "Tumour/p1/a b.png", "Tumour/p2/é.png", "stroma/p1/c.tif")
    manifest = load(tmp_path, ("Tumour", "Stroma"), patient=r"^[^/]+", patient_per_class=True)
    assert manifest.frame["image"].tolist() == ["Tumour/p1/a b.png", "Tumour/p2/é.png", "stroma/p1/c.tif"]
    assert manifest.frame["patient"].tolist() == ["Tumour/p1", "Tumour/p2", "stroma/p1"]
    assert set(manifest.frame["split"]) == {""}
    np.testing.assert_array_equal(manifests.values(manifest), [[1, 0], [1, 0], [0, 1]])


def test_the_numbers_of_patients_may_begin_anew_in_the_test_folder(tmp_path: Path) -> None:
    films(tmp_path, "train/A/7_1.png", "val/A/8_1.png", "test/A/7_1.png", "test/A/9_1.png")
    with pytest.raises(DataError, match="more than one split"):
        load(tmp_path, ("A",), patient=r"^(\d+)")
    manifest = load(tmp_path, ("A",), patient=r"^(\d+)", test_apart=True)
    assert manifest.frame["patient"].tolist() == ["test/7", "test/9", "7", "8"]


def test_without_an_expression_every_film_is_its_own_patient(tmp_path: Path) -> None:
    manifest = load(films(tmp_path, "A/1.png", "B/1.png"), ("A", "B"))
    assert manifest.frame["patient"].tolist() == ["A/1.png", "B/1.png"]


def test_a_folder_may_name_several_labels_and_a_label_another_name_of_it(tmp_path: Path) -> None:
    films(tmp_path, "edema+effusion/1.png", "Effusion/2.png", "none/3.png")
    manifest = load(tmp_path, ("Edema", "Pleural Effusion"), separator="+", negative=("none",))
    np.testing.assert_array_equal(manifests.values(manifest), [[0, 1], [1, 1], [0, 0]])


def test_an_official_validation_split_that_is_too_small_is_drawn_anew(tmp_path: Path) -> None:
    names = [f"train/{kind}/{n}_{view}.png" for kind in "AB" for n in range(20) for view in "xy"]
    films(tmp_path, *names, "val/A/100_x.png", "test/A/200_x.png", "test/B/201_x.png")
    manifest = load(tmp_path, ("A", "B"), patient=r"^(\d+)_", patient_per_class=True)
    config = SplitConfig(labelled_fraction=1.0, min_valid_images=5, fractions=(0.75, 0.25, 0))
    result, summary = splits.assign(manifest, config)
    assert summary["counts"]["valid"]["patients"] == 10  # a quarter of 41
    assert summary["counts"]["test"] == {"images": 2, "patients": 2}
    assert summary["dropped"] == 0
    assert len(result) == len(manifest)
    assert sources.is_there(DataConfig(source="folders", root=tmp_path, labels=("A",)), tmp_path)
    kept, official = splits.assign(manifest, config.model_copy(update={"min_valid_images": 1}))
    assert official["counts"]["valid"] == {"images": 1, "patients": 1}
    assert len(kept) == len(manifest)


def test_files_with_other_endings_are_left_out_by_name_and_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films(
        tmp_path, "A/1.jp2", "A/2.J2K", "B/3.png", "B/.hidden.gif", ".git/x.gif", "A/old.gif", "A/film", "read me.txt"
    )
    manifest = load(tmp_path, ("A", "B"))
    assert manifest.frame["image"].tolist() == ["A/1.jp2", "A/2.J2K", "B/3.png"]
    (message,) = caplog.messages
    assert "3 of 6 files are left out" in message
    assert message.endswith(": A/film, A/old.gif, read me.txt")
    caplog.clear()
    films(tmp_path, *(f"B/{n:02}.gif" for n in range(20)))
    load(tmp_path, ("A", "B"))
    assert "23 of 26 files are left out" in caplog.text
    assert "B/07.gif and 13 more" in caplog.text
    assert "B/08.gif" not in caplog.text


def test_only_films_say_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(films(tmp_path, "A/1.png", "B/.DS_Store", "B/2.jpg"), ("A", "B"))
    assert caplog.messages == []


def test_every_ending_is_one_that_the_decoder_reads(tmp_path: Path) -> None:
    for ending in set(FILMS) - {".dcm", ".dicom"}:
        path = tmp_path / f"film{ending}"
        Image.effect_noise((40, 30), 60).save(path)
        assert decode(path, DecodeSettings(16, 1)).shape == (1, 16, 16)


def test_a_name_that_is_not_utf_8_is_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    films(tmp_path, "A/1.png", "B/2.png")
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/A/latin-\xe9.png")).touch()
        Path(os.fsdecode(bytes(tmp_path) + b"/A/latin-\xe9.gif")).touch()
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert load(tmp_path, ("A", "B")).frame["image"].tolist() == ["A/1.png", "B/2.png"]
    assert r"'A/latin-\udce9.png' is left out: its name is not UTF-8" in caplog.text
    assert r"1 of 4 files are left out" in caplog.text
    assert r"A/latin-\udce9.gif" in caplog.text


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ((), {}, "has no films in class folders"),
        (("loose.png",), {}, "the film 'loose.png' lies in no class folder"),
        (("train/loose.png",), {}, "the film 'train/loose.png' lies in no class folder"),
        (("A/1.png", "B/2.png", "C/3.png"), {}, r"the class folder 'C' is not in data.labels \(A, B\)"),
        (("A/1.png",), {}, r"no class folder is named 'B' \(there are A\)"),
        (("train/A/1.png", "A/1.png", "B/1.png"), {}, "'A/1.png' lies beside the folders train, valid and test"),
        (("A/1.png", "B/x.png"), {"patient": r"^(\d+)"}, r"finds no patient in 1 of 2 films, such as 'B/x.png'"),
        (("A/1.png", "B/x.png"), {"patient": r"^\d*"}, r"finds no patient in 1 of 2 films"),
    ],
)
def test_folders_that_cannot_be_read_are_named(
    tmp_path: Path, names: tuple[str, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(films(tmp_path, *names), ("A", "B"), **options)


def test_an_expression_that_is_none_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.folders.patient: '\(' is not a regular expression"):
        load(films(tmp_path, "A/1.png"), ("A",), patient="(")
    with pytest.raises(ValueError, match="needs the names of the class folders"):
        DataConfig(source="folders", root=tmp_path)


NAMES = st.text("ab 0'\"é,\n", min_size=1, max_size=6).filter(lambda name: name.strip() == name and name)


@settings(deadline=None, max_examples=30)
@given(found=st.dictionaries(st.tuples(st.sampled_from(["A", "B"]), NAMES), st.booleans(), min_size=1, max_size=12))
def test_no_film_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, found: dict[tuple[str, str], bool]
) -> None:
    root = tmp_path_factory.mktemp("films")
    names = [f"{kind}/{name}.{'png' if png else 'JPEG'}" for (kind, name), png in found.items()]
    films(root, *names, "A/always.png", "B/always.png")
    manifest = load(root, ("A", "B"))
    assert sorted(manifest.frame["image"]) == sorted([*names, "A/always.png", "B/always.png"])
    values = manifests.values(manifest)
    assert (values.sum(axis=1) == 1).all()
    assert [bool(re.match("A/", name)) for name in manifest.frame["image"]] == (values[:, 0] == 1).tolist()
