"""``ns data stats``, ``split`` and ``check`` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisy_student.cli import main
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


def test_check_files_films_under_the_official_split_where_the_configured_one_cannot_be_made(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = root / "train" / "patient00003" / "study1" / "view1_frontal.jpg"
    (root / "valid" / "patient64541" / "study1" / "view2_lateral.jpg").write_bytes(film.read_bytes())
    code, out, _ = ns(capsys, "check", "--source", "chexpert", "--set", f"data.root={root}")
    assert code == 3
    assert "leak between train and valid" in out
