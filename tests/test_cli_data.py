"""``ns data stats``, ``split`` and ``check`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisy_student.cli import main, options
from noisy_student.config.load import load
from noisy_student.data import manifest as manifests
from noisy_student.data import sources, splits
from noisy_student.labels import OBSERVATIONS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set in CheXpert's layout: 12 train and 4 valid patients, two films each."""
    draw = np.random.default_rng(0)
    for split, first, count in (("train", 1, 12), ("valid", 64541, 4)):
        rows = []
        for patient in range(first, first + count):
            for view in ("view1_frontal", "view2_lateral"):
                path = f"{split}/patient{patient:05d}/study1/{view}.jpg"
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(1, 255, (64, 64), dtype=np.uint8)).save(tmp_path / path)
                values = {label: float((patient + place) % 2) for place, label in enumerate(OBSERVATIONS)}
                rows.append({"Path": f"CheXpert-v1.0-small/{path}", "Sex": "Male", "Age": 50, **values})
        pd.DataFrame(rows).to_csv(tmp_path / f"{split}.csv", index=False)
    return tmp_path


def ns(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["data", *arguments])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


def test_stats_need_the_table_alone(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = tmp_path / "elsewhere" / "train.csv"
    alone.parent.mkdir()
    alone.write_bytes((root / "train.csv").read_bytes())
    code, out, _ = ns(capsys, "stats", "--source", "chexpert", "--csv", str(alone), "--no-images", "--json")
    assert code == 0
    figures = json.loads(out)
    assert figures["source"] == "chexpert"
    assert figures["all"]["images"] == 24
    assert figures["all"]["labels"]["Edema"]["positive"] == 12
    assert figures["missing_images"] is None
    code, out, _ = ns(capsys, "stats", "--source", "chexpert", "--csv", str(alone))
    assert code == 0
    assert "24 films are not below" in out


def test_stats_follow_the_policies_of_the_configuration(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(root / "train.csv")
    table["Edema"] = -1.0
    table["Lung Opacity"] = np.nan
    table.to_csv(root / "train.csv", index=False)
    given = ["--source", "chexpert", "--csv", str(root / "train.csv"), "--json"]

    def mass(label: str, *more: str) -> float:
        _, out, _ = ns(capsys, "stats", *given, *(word for pair in more for word in ("--set", pair)))
        return float(json.loads(out)["all"]["labels"][label]["target_mass"])

    assert mass("Edema") == 24
    assert mass("Edema", "targets.uncertain=zeros") == 0
    assert 24 * 0.55 < mass("Edema", "targets.uncertain=smooth_ones") < 24 * 0.85
    assert mass("Lung Opacity") == 0
    # Consolidation is positive for every other patient, and Pneumonia for the others.
    assert mass("Lung Opacity", "targets.fill_parents=true") == 24


def test_stats_read_a_configuration(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(f"data: {{source: chexpert, root: {root}, labels: [Edema], views: frontal}}\n")
    code, out, _ = ns(capsys, "stats", "--config", str(config))
    assert code == 0
    assert "train: 12 films, 12 studies, 12 patients" in out
    assert "valid: 4 films" in out
    assert "all: 16 films" in out
    assert "not below" not in out


def test_a_table_that_is_wrong_exits_with_3(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ns(capsys, "stats", "--source", "nih", "--csv", str(root / "train.csv"), "--no-images")
    assert code == 3
    assert "train.csv: has no column 'Image Index'" in err
    code, _, err = ns(capsys, "stats", "--source", "nhi", "--csv", str(root / "train.csv"))
    assert code == 2
    assert "data.source" in err
    assert "'nih'" in err


def test_a_split_is_written_once_for_every_seed_and_used_by_a_run(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = root / "made" / "split.parquet"
    given = ["--source", "chexpert", "--csv", str(root / "train.csv")]
    given = ["--set", "data.source=chexpert", "--set", f"data.root={root}"]
    budget = ["--set", "split={labelled_patients: 3, validation: carve}"]
    code, out, _ = ns(capsys, "split", *given, *budget, "--seed", "4", "--seed", "5", "-o", str(output), "--json")
    assert code == 0
    first, second = json.loads(out)
    assert (first["seed"], second["seed"]) == (4, 5)
    assert first["hash"] != second["hash"]
    assert first["path"].endswith("split-4.parquet")
    assert first["budget"] == {
        "images": 12,
        "patients": 6,
        "labelled_images": 6,
        "labelled_patients": 3,
        "valid_images": 6,
        "valid_patients": 3,
    }
    config = load(None, [*given[1::2], "split.file=" + first["path"]])
    films, summary = splits.assign(sources.load(config.data), config.split)
    assert summary["file_hash"] == summary["hash"] == first["hash"]
    labelled = manifests.values(manifests.select(films, "train", labelled=True))
    edema = OBSERVATIONS.index("Edema")
    assert first["labelled_positives"]["Edema"] == int(labelled[:, edema].sum())


def test_a_split_is_only_shown_without_an_output(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(root.rglob("*"))
    given: list[Any] = ["--set", "data.source=chexpert", "--set", f"data.root={root}", "--set"]
    code, out, _ = ns(capsys, "split", *given, "split={labelled_patients: 1, validation: carve}")
    assert code == 0
    assert out.startswith("seed 0, hash ")
    assert "  labelled          2 films of       1 patients" in out
    assert "  budget            4 films of       2 patients" in out
    assert "  left out          0 films" in out
    assert "has only" in out
    assert "a run stops here" in out
    assert sorted(root.rglob("*")) == before
    code, out, _ = ns(
        capsys, "split", *given, "split={labelled_patients: 4, validation: carve}", "-o", str(root / "s.parquet")
    )
    assert code == 0
    assert f", {root / 's.parquet'}" in out
    assert "a run stops here" not in out


def test_check_finds_leakage_and_exits_with_3(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--set", "data.source=chexpert", "--set", f"data.root={root}", "--set", "data.image_size=64"]
    given += ["--set", "split={labelled_patients: 2, validation: carve}"]
    code, out, _ = ns(capsys, "check", *given)
    assert code == 0
    assert out == "32 films looked at\ngroups of equal or nearly equal films: 0, across splits: 0\n"
    film = root / "train" / "patient00003" / "study1" / "view1_frontal.jpg"
    copy = root / "valid" / "patient64541" / "study1" / "view1_frontal.jpg"
    copy.write_bytes(film.read_bytes())
    code, out, _ = ns(capsys, "check", *given, "--json")
    assert code == 3
    (group,) = json.loads(out)["duplicates"]
    assert "test" in group["splits"]  # valid.csv is the test set where validation is carved
    film.unlink()
    code, out, _ = ns(capsys, "check", *given, "-v")
    assert code == 3
    assert "missing: 1\n  train/patient00003/study1/view1_frontal.jpg: there is no such file" in out


def test_films_that_the_configuration_leaves_out_leak_into_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(1)
    table = pd.read_csv(root / "valid.csv")
    table["Path"] = table["Path"].str.replace("valid/patient645", "test/patient655")
    table.to_csv(root / "test.csv", index=False)
    for path in table["Path"].str.removeprefix("CheXpert-v1.0-small/"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(1, 255, (64, 64), dtype=np.uint8)).save(root / path)
    first = root / "valid" / "patient64541" / "study1" / "view1_frontal.jpg"
    for number in (64542, 64543, 64544):  # in all validation patients, two of whom are left out
        (root / "valid" / f"patient{number}" / "study1" / "view1_frontal.jpg").write_bytes(first.read_bytes())
    given = ["--source", "chexpert", "--set", f"data.root={root}", "--set", "split.labelled_patients=2"]
    code, out, _ = ns(capsys, "check", *given, "--set", "split.valid_images=4", "--json")
    assert code == 0
    (group,) = json.loads(out)["duplicates"]
    assert (group["splits"], group["leakage"]) == (["left out", "valid"], False)
    _, out, _ = ns(capsys, "check", *given, "--set", "split.valid_images=4")
    assert "exact, left out and valid\n" in out
    copy = root / "train" / "patient00003" / "study1" / "view1_frontal.jpg"
    copy.write_bytes(first.read_bytes())
    code, out, _ = ns(capsys, "check", *given, "--set", "split.valid_images=4")
    assert code == 3
    assert "across splits: 1" in out


def test_check_files_films_under_the_official_split_where_the_configured_one_cannot_be_made(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = root / "train" / "patient00003" / "study1" / "view1_frontal.jpg"
    (root / "valid" / "patient64541" / "study1" / "view2_lateral.jpg").write_bytes(film.read_bytes())
    code, out, _ = ns(capsys, "check", "--source", "chexpert", "--set", f"data.root={root}")
    assert code == 3
    assert "leak between train and valid" in out


def test_a_table_without_its_source_is_refused_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "empty" / "train.csv"
    table.parent.mkdir()
    for command in ("stats", "split", "check", "prepare"):
        code, _, err = ns(capsys, command, "--csv", str(table))
        assert (code, err.splitlines()[0]) == (2, "ns: --csv needs --source"), command
        code, _, err = ns(capsys, command, "--source", "csv", "--csv", str(table))
        assert code == 3, command
        assert str(table) in err
    assert list(table.parent.iterdir()) == []


@pytest.mark.parametrize("command", ["stats", "split"])
def test_the_making_of_the_synthetic_set_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(options, "show_progress", lambda quiet: not quiet)
    for seed, flags, shown in ((1, [], True), (2, ["-q"], False)):
        size = f"data.synthetic={{train_patients: 9, valid_patients: 3, test_patients: 3, size: 32, seed: {seed}}}"
        given = ["--set", size, "--set", f"data.cache_dir={tmp_path}", "--set", "split.labelled_patients=4"]
        code, _, err = ns(capsys, command, *given, *flags)
        assert (code, "synthetic" in err) == (0, shown)


def test_prepare_takes_a_source_and_its_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--source", "chexpert", "--csv", str(root / "train.csv"), "--set", "data.image_size=32"]
    code, out, _ = ns(capsys, "prepare", *given, "--set", f"data.cache_dir={root / 'cache'}", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["films"], found["patients"], found["unreadable"]) == (24, 12, [])
    assert found["cache"].startswith(str(root / "cache"))


def test_a_split_replaces_nothing_but_a_split_and_only_where_asked(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--source", "chexpert", "--set", f"data.root={root}"]
    given += ["--set", "split={labelled_patients: 4, validation: carve}"]
    kept = (root / "train.csv").read_bytes()

    def fails(name: str, *words: str, more: tuple[str, ...] = ()) -> None:
        for flags in ((), ("--overwrite",)):
            code, _, err = ns(capsys, "split", *given, "-o", str(root / name), *more, *flags)
            assert code == 2
            for word in words:
                assert word in err

    fails("train.csv", "a split is a Parquet file", "ends in .parquet")
    fails("split", "ends in .parquet")
    foreign = root / "labels.parquet"
    foreign.write_bytes(kept)
    fails("labels.parquet", "is not a split written by ns data split", "Choose another name")
    pd.DataFrame({"image": ["a"]}).to_parquet(foreign)
    fails("labels.parquet", "is not a split written by ns data split")
    (root / "folder.parquet").mkdir()
    fails("folder.parquet", "is a directory", "Name a file that ends in .parquet")
    assert (root / "train.csv").read_bytes() == kept
    assert pd.read_parquet(foreign)["image"].tolist() == ["a"]

    output = root / "split.parquet"
    several = ["split", *given, "--seed", "1", "--seed", "2", "-o", str(output)]
    assert ns(capsys, *several)[0] == 0
    first = (root / "split-1.parquet").read_bytes()
    (root / "split-1.parquet").rename(output)
    code, _, err = ns(capsys, *several)
    assert code == 2
    assert f"{root / 'split-2.parquet'}: there is a split already" in err
    assert "--overwrite" in err
    assert not (root / "split-1.parquet").exists()  # looked at before anything is written
    assert ns(capsys, *several, "--overwrite")[0] == 0
    assert (root / "split-1.parquet").read_bytes() == first


def test_a_split_that_cannot_be_written_says_so_in_the_words_of_the_command(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--source", "chexpert", "--set", f"data.root={root}"]
    given += ["--set", "split={labelled_patients: 4, validation: carve}"]
    code, _, err = ns(capsys, "split", *given, "-o", str(root / "train.csv" / "split.parquet"))
    assert code == 1
    assert err.splitlines()[-1].strip() == "Choose another --output."
