"""The command that draws the noise: the films it chooses, what it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisy_student.cli import main
from noisy_student.cli.augment_preview import _films, _findings
from noisy_student.config import DataConfig, NoiseConfig
from noisy_student.learning.augment import preview


@pytest.fixture
def ns(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    def call(*arguments: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["augment-preview", *arguments])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve films in three splits: of the eight to train on, four normal, two with A, one with B, one with both."""
    draw, rows = np.random.default_rng(0), []
    found = ["", "", "", "", "A", "A", "B", "AB"]
    for number in range(12):
        Image.fromarray(draw.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        split = "train" if number < 8 else "valid" if number < 10 else "test"
        labels = {name: int(number >= 8 or name in found[number]) for name in "AB"}
        rows.append({"image": f"{number}.png", "patient": f"p{number}", "split": split, **labels})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def data_of(root: Path) -> DataConfig:
    return DataConfig(source="csv", root=root, labels=("A", "B"), image_size=32)


def given(root: Path) -> list[str]:
    return ["--set", f"data={{source: csv, root: {root}, labels: [A, B], image_size: 32}}"]


def test_films_are_of_many_findings_and_of_the_train_table(root: Path) -> None:
    chosen, pixels = _films(data_of(root), 3)
    assert pixels.shape == (3, 1, 32, 32)
    assert len(chosen) == 3
    assert all(int(name.split(".")[0]) < 8 for name in chosen.frame["image"])
    shown = set(", ".join(_findings(chosen)).split(", "))
    assert {"A", "B"} <= shown
    everything, _ = _films(data_of(root), 32)
    assert len(everything) == 8
    assert sorted(_findings(everything)) == ["A", "A", "A, B", "B", *["no label"] * 4]


def test_a_table_without_a_train_split_is_shown_all(root: Path) -> None:
    frame = pd.read_csv(root / "labels.csv")
    frame[frame["split"] == "test"].to_csv(root / "labels.csv", index=False)
    assert len(_films(data_of(root), 5)[0]) == 2


def test_the_picture_shows_the_noise_of_the_generation(root: Path, ns: Any) -> None:
    out = root / "new" / "sheet.png"
    noise = ["--set", "generations.2.noise.strength=4", "--set", "seed=5"]
    code, said, err = ns(str(out), *given(root), *noise, "--films", "2", "--generation", "2", "--strengths", "0, 9")
    assert (code, err) == (0, "")
    assert said == f"2 films under the noise of generation 2 are in {out}\n"
    chosen, _ = _films(data_of(root), 2)
    films = np.stack(
        [
            np.asarray(Image.open(root / name).resize((32, 32), Image.Resampling.BILINEAR))
            for name in chosen.frame["image"]
        ]
    )[:, None]
    noises = NoiseConfig(strength=4, flip={"probability": 0})  # the demo mirrors no film
    expected = preview(films, noises, strengths=(0, 9), names=_findings(chosen), seed=5, generation=2)
    assert np.array_equal(np.asarray(Image.open(out)), expected)
    ns(str(out), *given(root), *noise, "--films", "2", "--generation", "1", "--strengths", "0, 9")
    assert not np.array_equal(np.asarray(Image.open(out)), expected)


def test_without_a_configuration_it_draws_a_few_phantoms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ns: Any
) -> None:
    monkeypatch.setenv("NS_CACHE", str(tmp_path / "cache"))
    code, out, err = ns(str(tmp_path / "sheet.png"), "--films", "3")
    assert (code, err) == (0, "")
    assert out.startswith("3 films under the noise of generation 1")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.mode == "L"
    assert 3 <= len(list((tmp_path / "cache").rglob("*.jpg"))) < 200  # not the thousands of the demo


def test_another_film_takes_the_place_of_one_that_cannot_be_read(root: Path, ns: Any) -> None:
    out, first = root / "sheet.png", _films(data_of(root), 2)[0].frame["image"].iloc[0]
    (root / first).write_bytes(b"no film")
    assert first not in set(_films(data_of(root), 8)[0].frame["image"])
    code, said, err = ns(str(out), *given(root), "--films", "2")
    assert (code, said) == (0, f"2 films under the noise of generation 1 are in {out}\n")
    assert f"ns: warning: {root / first}: cannot be decoded" in err
    assert "the film is left out" in err
    out.unlink()
    for number in range(8):
        (root / f"{number}.png").unlink(missing_ok=True)
    code, _, err = ns(str(out), *given(root), "--films", "2")
    assert code == 3
    assert err.count("ns: warning: ") == 2  # not a line for each film of a set whose folder is wrong
    assert "Restore the file from its source" in err
    assert not out.exists()


@pytest.mark.parametrize("strengths", ["", "eleven", "3,11", "-1", "nan"])
def test_strengths_that_are_no_list_of_settings_are_refused(root: Path, ns: Any, strengths: str) -> None:
    code, _, err = ns(str(root / "sheet.png"), *given(root), "--strengths", strengths)
    assert code == 2
    assert f"--strengths {strengths}: is no list of numbers from 0 to 10" in err
    assert not (root / "sheet.png").exists()
