"""The phantoms: CheXpert's layout and labels, films that depend on coordinates alone, findings in their place."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from noisy_student.cli.synthetic import synthetic as command
from noisy_student.config import SyntheticConfig
from noisy_student.data import synthetic as synthetic_package
from noisy_student.data.synthetic import VERSION, contact_sheet, dataset, findings_sheet, render, write_dataset
from noisy_student.data.synthetic.anatomy import thorax
from noisy_student.data.synthetic.banks import tree_window
from noisy_student.data.synthetic.cases import Case
from noisy_student.data.synthetic.sheet import SEVERITIES, finding_cases
from noisy_student.errors import DataError
from noisy_student.labels import OBSERVATIONS
from noisy_student.runs import read_json, write_json

OFFICIAL = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CONFIG = SyntheticConfig(train_patients=20, valid_patients=5, test_patients=6, size=32, seed=3)
GOLDEN = Path(__file__).with_name("synthetic_golden.json")
NONE = (0.0,) * len(OBSERVATIONS)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "CheXpert-v1.0-small"
    write_dataset(root, CONFIG)
    return root


def tables(root: Path) -> dict[str, pd.DataFrame]:
    return {split: pd.read_csv(root / f"{split}.csv") for split in ("train", "valid", "test")}


def local(root: Path, path: str) -> Path:
    return root.parent / path


# -- tables and files --------------------------------------------------------------------------------------------


def test_tables_have_the_official_columns_and_every_film_exists(data_root: Path) -> None:
    for split, table in tables(data_root).items():
        assert ",".join(table.columns) == OFFICIAL
        assert (data_root / f"{split}.csv").read_text().startswith(OFFICIAL + "\n")
        pattern = rf"CheXpert-v1\.0-small/{split}/patient\d{{5}}/study\d+/view\d+_(?:frontal|lateral)\.jpg"
        assert table["Path"].str.fullmatch(pattern).all()
        assert table["Path"].is_unique
        for path in table["Path"]:
            with Image.open(local(data_root, path)) as film:
                assert (film.format, film.mode, film.size) == ("JPEG", "L", (32, 32))
        lateral = table["Path"].str.endswith("lateral.jpg")
        assert (lateral == (table["Frontal/Lateral"] == "Lateral")).all()
        assert (table["AP/PA"].isna() == lateral).all()
        assert set(table["AP/PA"].dropna()) <= {"AP", "PA"}
        assert set(table["Sex"]) <= {"Male", "Female"}
        assert table["Age"].between(18, 90).all()
    files = {str(path.relative_to(data_root.parent)) for path in data_root.rglob("*.jpg")}
    assert files == {path for table in tables(data_root).values() for path in table["Path"]}


def test_patients_are_numbered_as_in_chexpert(data_root: Path) -> None:
    numbers = {
        split: table["Path"].str.extract(r"patient(\d{5})")[0].astype(int) for split, table in tables(data_root).items()
    }
    assert sorted(set(numbers["train"])) == list(range(1, 21))
    assert sorted(set(numbers["valid"])) == list(range(64541, 64546))
    assert sorted(set(numbers["test"])) == list(range(64741, 64747))


def test_label_values_of_each_split(data_root: Path) -> None:
    made = tables(data_root)
    train = made["train"][list(OBSERVATIONS)]
    assert set(np.unique(train.to_numpy()[~train.isna().to_numpy()])) == {-1.0, 0.0, 1.0}
    assert train.isna().to_numpy().any()
    assert set(train["No Finding"].dropna()) == {1.0}
    for split in ("valid", "test"):
        assert set(np.unique(made[split][list(OBSERVATIONS)].to_numpy())) == {0.0, 1.0}


def test_views_of_a_study_share_labels_and_patients_share_sex(data_root: Path) -> None:
    table = tables(data_root)["train"]
    study = table["Path"].str.rsplit("/", n=1).str[0]
    patient = table["Path"].str.split("/").str[2]
    assert (study.value_counts() > 1).any()
    assert (study.groupby(patient).nunique() > 1).any()
    assert (table[list(OBSERVATIONS)].fillna(9).groupby(study).nunique() == 1).all(axis=None)
    assert (table["Sex"].groupby(patient).nunique() == 1).all()
    assert (table["Age"].groupby(patient).agg(lambda ages: ages.is_monotonic_increasing)).all()


# -- determinism -------------------------------------------------------------------------------------------------


def test_a_patient_is_the_same_whatever_the_size_of_the_set(tmp_path: Path, data_root: Path) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    write_dataset(root, CONFIG.model_copy(update={"train_patients": 8}))
    few, many = tables(root)["train"], tables(data_root)["train"]
    pd.testing.assert_frame_equal(few, many.iloc[: len(few)])
    assert len(few) < len(many)
    for path in few["Path"]:
        assert local(root, path).read_bytes() == local(data_root, path).read_bytes()


def test_films_do_not_depend_on_batch_or_order_and_do_depend_on_every_coordinate() -> None:
    cases = [row.case for row in dataset.rows_of(0, "train", range(1, 13))]
    assert {case.projection for case in cases} == {"AP", "PA", "LL"}
    together = render(cases, 48)
    assert together.dtype == np.uint8
    assert together.shape == (len(cases), 48, 48)
    backwards = render(cases[::-1], 48)[::-1]
    alone = np.concatenate([render([case], 48) for case in cases])
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, alone)
    base = cases[0]
    for change in ({"seed": 1}, {"split": 1}, {"patient": 99}, {"study": 9}, {"view": 9}):
        assert (render([dataclasses.replace(base, **change)], 48) != together[:1]).mean() > 0.3, change


def test_layers_are_float32() -> None:
    case = Case(0, 0, 1, 1, 1, "AP", True, tuple([0.0] + [0.9] * 13))
    layers = thorax([case], 32)
    for name in ("att", "air", "lung", "vessels", "ribs"):
        assert getattr(layers, name).dtype == np.float32, name
    assert tree_window(0.5, -1, -1, 1, 1, 20, 30).shape == (30, 20)


# -- writing, resuming, refusing ---------------------------------------------------------------------------------


def test_marker_holds_version_and_config_and_a_complete_set_is_left_alone(data_root: Path) -> None:
    assert read_json(data_root / "synthetic.json") == {"version": VERSION, "config": CONFIG.model_dump(mode="json")}
    assert not (data_root / dataset.STARTED).exists()
    before = {path: path.stat().st_mtime_ns for path in data_root.rglob("*")}
    write_dataset(data_root, CONFIG)
    assert {path: path.stat().st_mtime_ns for path in data_root.rglob("*")} == before
    with pytest.raises(DataError, match=r"other settings.*\n.*another folder"):
        write_dataset(data_root, CONFIG.model_copy(update={"seed": 4}))


def killed_after(films: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save, count = dataset._save, 0

    def once(film: npt.NDArray[np.uint8], path: Path) -> None:
        nonlocal count
        count += 1
        if count > films:
            raise KeyboardInterrupt
        save(film, path)

    monkeypatch.setattr(dataset, "_save", once)


def test_an_interrupted_set_is_continued(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    with monkeypatch.context() as patch:
        killed_after(9, patch)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(root, CONFIG)
    kept = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    assert len(kept) == 9
    assert not (root / "synthetic.json").exists()
    write_dataset(root, CONFIG, progress=True)
    assert "film" in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    for split in ("train", "valid", "test"):
        assert (root / f"{split}.csv").read_bytes() == (data_root / f"{split}.csv").read_bytes()
    assert {p.relative_to(root) for p in root.rglob("*")} == {p.relative_to(data_root) for p in data_root.rglob("*")}
    for path in kept:
        assert path.read_bytes() == (data_root / path.relative_to(root)).read_bytes()


def test_half_a_set_of_other_settings_is_made_anew(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    with monkeypatch.context() as patch:
        killed_after(9, patch)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(root, CONFIG.model_copy(update={"seed": 77}))
    write_dataset(root, CONFIG)
    first = "train/patient00001/study1/view1_frontal.jpg"
    assert (root / first).read_bytes() == (data_root / first).read_bytes()


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path / "thesis.txt", CONFIG)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_json(empty / "synthetic.json", {"version": 0, "config": {}})
    with pytest.raises(DataError, match="other settings"):
        write_dataset(empty, CONFIG)


# -- sheets and the frozen generator -----------------------------------------------------------------------------


def test_sheets_show_films_as_they_come_and_every_observation_alone(tmp_path: Path) -> None:
    for name, write, rows in (("a.png", contact_sheet, 6), ("b.png", findings_sheet, 13)):
        write(tmp_path / name, size=48)
        with Image.open(tmp_path / name) as sheet:
            assert sheet.format == "PNG"
            assert sheet.size == (8 * 50, rows * 63)
            pixels = np.asarray(sheet)
        assert all(pixels[row * 63 + 13 : row * 63 + 61].std() > 20 for row in range(rows))
    entries = finding_cases(0)
    for row in range(13):
        frontal, lateral = entries[8 * row : 8 * row + 4], entries[8 * row + 4 : 8 * row + 8]
        for view in (frontal, lateral):
            people = {dataclasses.replace(case, severity=NONE) for _, case in view}
            assert len(people) == 1
            assert [max(case.severity) for _, case in view] == [0, *SEVERITIES]
            assert all(OBSERVATIONS[row + 1].split()[-1] in caption for caption, _ in view[1:])


def test_the_command_writes_the_second_sheet_and_takes_the_prevalence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(synthetic_package, "findings_sheet", lambda path, **rest: asked.update(path=path, **rest))
    monkeypatch.setattr(synthetic_package, "contact_sheet", lambda path, **rest: asked.update(first=path, **rest))
    arguments = ["--findings", str(tmp_path / "f.png"), "--preview", str(tmp_path / "p.png")]
    done = CliRunner().invoke(command, [*arguments, "--set", "seed=9", "--set", "prevalence=chexpert"])
    assert done.exit_code == 0, done.output
    assert asked == {"path": tmp_path / "f.png", "first": tmp_path / "p.png", "seed": 9, "prevalence": "chexpert"}
    assert CliRunner().invoke(command, [*arguments, "--set", "size=64"]).exit_code == 0
    assert asked["size"] == 64


@pytest.mark.parametrize(("split", "most"), [("train", 64540), ("valid", 200)])
def test_no_split_has_more_patients_than_there_are_numbers_before_the_next(split: str, most: int) -> None:
    following = {"train": "valid", "valid": "test"}[split]
    assert dataset.FIRST_PATIENT[split] + most == dataset.FIRST_PATIENT[following]
    assert SyntheticConfig(**{f"{split}_patients": most})
    with pytest.raises(ValueError, match=f"less than or equal to {most}"):
        SyntheticConfig(**{f"{split}_patients": most + 1})


def test_the_benchmark_prints_films_per_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).parents[2] / "scripts" / "bench_phantoms.py"
    for arguments in (["--json"], []):
        monkeypatch.setattr("sys.argv", [str(script), "--sizes", "32", "48", "--films", "8", *arguments])
        runpy.run_path(str(script), run_name="__main__")
        out = capsys.readouterr().out
        if arguments:
            found = json.loads(out)
            assert found["version"] == VERSION
            assert set(found["films_per_second_per_core"]) == {"32", "48"}
            assert min(found["films_per_second_per_core"].values()) > 0
        else:
            assert out.count("films/s/core") == 2


def block_means(film: npt.NDArray[np.uint8]) -> list[int]:
    """Return the means of a film's 8 by 8 blocks: what stays the same where a last bit does not."""
    side = len(film) // 8
    means = film.reshape(8, side, 8, side).mean(axis=(1, 3))
    return [int(value) for value in np.rint(means).ravel()]


def golden_now() -> dict[str, Any]:
    cases = [
        Case(3, 1, patient, 1, 1, view, patient % 2 == 0, NONE) for patient, view in ((1, "PA"), (2, "AP"), (3, "LL"))
    ]
    loaded = dict.fromkeys(("Cardiomegaly", "Edema", "Fracture", "Pleural_Effusion", "Pleural_Other"), 0.5)
    more = dict.fromkeys(("Atelectasis", "Consolidation", "Lung_Lesion", "Lung_Opacity", "Pneumothorax"), 0.7)
    rest = dict.fromkeys(("Enlarged_Cardiomediastinum", "Pneumonia", "Support_Devices"), 0.8)
    cases += [case.with_severity(**found) for case in cases for found in (loaded, more, rest)]
    labels = {
        prevalence: [
            [row.path, row.age, [None if np.isnan(value) else value for value in row.labels], list(row.case.severity)]
            for split in ("train", "test")
            for row in dataset.rows_of(3, split, range(1, 5), prevalence)
        ]
        for prevalence in ("enriched", "chexpert")
    }
    return {"version": VERSION, "films": [block_means(film) for film in render(cases, 64)], "labels": labels}


def test_films_and_labels_are_those_of_this_version() -> None:
    """A generator that draws something else needs a new version, and then new figures wherever it is used.

    After raising VERSION: ``python tests/data/test_synthetic.py`` writes the file anew.
    """
    expected, found = read_json(GOLDEN), golden_now()
    assert found["version"] == expected["version"]
    assert found["labels"] == expected["labels"]
    # Other machines and libraries round differently: 1 grey value of a block's mean is allowed.
    np.testing.assert_allclose(found["films"], expected["films"], atol=1)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden_now()) + "\n", encoding="utf-8")
