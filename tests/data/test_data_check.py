"""Every way in which a film can be odd, and films that are there twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisy_student.data import check as checks
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest


def films(root: Path, count: int = 4) -> list[str]:
    draw = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        Image.fromarray(draw.integers(1, 255, (64, 64), dtype=np.uint8)).save(root / name)
    return names


def as_manifest(names: list[str], splits: list[str] | None = None, patients: list[str] | None = None) -> Manifest:
    columns = {"image": names, "patient": patients or names, "study": names, "split": splits or ["train"] * len(names)}
    return manifests.build({**columns, "A": [1.0] * len(names)}, ("A",))


def found(root: Path, name: str, size: int = 64) -> dict[str, str]:
    return checks.look(str(root), size, name).problems


def test_a_good_film_has_no_problems(tmp_path: Path) -> None:
    films(tmp_path)
    assert found(tmp_path, "0.png") == {}
    assert checks.look(str(tmp_path), 64, "0.png").digest != checks.look(str(tmp_path), 64, "1.png").digest


@pytest.mark.parametrize(
    ("shape", "value", "size", "problems"),
    [
        ((20, 60), None, 64, {"tiny": "60 x 20 pixels", "aspect": "60 x 20 pixels"}),
        ((31, 62), None, 64, {"tiny": "62 x 31 pixels"}),
        ((32, 64), None, 64, {}),
        ((300, 120), None, 64, {"aspect": "120 x 300 pixels"}),
        ((64, 64), 7, 64, {"constant": "every pixel is 7"}),
        ((64, 64), 0, 64, {"constant": "every pixel is 0"}),
    ],
)
def test_odd_films(
    tmp_path: Path, shape: tuple[int, int], value: int | None, size: int, problems: dict[str, str]
) -> None:
    pixels = np.random.default_rng(1).integers(1, 255, shape, dtype=np.uint8)
    Image.fromarray(pixels if value is None else np.full(shape, value, np.uint8)).save(tmp_path / "x.png")
    assert found(tmp_path, "x.png", size) == problems


@pytest.mark.parametrize(("value", "word"), [(0, "black"), (255, "white")])
def test_saturated_films(tmp_path: Path, value: int, word: str) -> None:
    pixels = np.random.default_rng(1).integers(1, 255, (100, 100), dtype=np.uint8)
    pixels[:59] = value
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert found(tmp_path, "x.png", 100) == {}
    pixels[:65] = value
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert found(tmp_path, "x.png", 100) == {"saturated": f"65% of the pixels are {word}"}


def test_films_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no film")
    films(tmp_path, 1)
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:900])
    assert found(tmp_path, "gone.png") == {"missing": "there is no such file"}
    assert found(tmp_path, "folder.png") == {"missing": "a folder"}
    for name in ("empty.png", "text.jpg", "cut.png"):
        (reason,) = found(tmp_path, name).items()
        assert reason[0] == "unreadable"
        assert reason[1].startswith("the film: cannot be decoded")
        assert str(tmp_path) not in reason[1]
        assert checks.look(str(tmp_path), 64, name).digest == ""


def test_a_film_that_pillow_does_not_know_has_no_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.dcm").write_bytes(b"a format that another decoder reads")
    monkeypatch.setattr(checks, "decode", lambda path, settings: np.arange(64, dtype=np.uint8).reshape(1, 8, 8))
    assert found(tmp_path, "x.dcm") == {}


def test_a_set_is_counted_and_equal_films_across_splits_are_leakage(tmp_path: Path) -> None:
    names = films(tmp_path, 6)
    for copy, original in (("a.png", "0.png"), ("b.png", "1.png"), ("c.png", "1.png")):
        (tmp_path / copy).write_bytes((tmp_path / original).read_bytes())
    every = [*names, "a.png", "b.png", "c.png", "gone1.png", "gone2.png"]
    splits = ["train"] * 6 + ["train", "test", "train", "train", "test"]
    result = checks.check(as_manifest(every, splits, [*names, "0.png", "x", "y", "z", "w"]), tmp_path, 64)
    assert result["images"] == 11
    assert result["problems"] == {"missing": 2}
    assert [entry["image"] for entry in result["films"]] == ["gone1.png", "gone2.png"]
    assert result["leakage"] == 1
    assert result["duplicates"] == [
        {
            "kind": "exact",
            "images": ["1.png", "b.png", "c.png"],
            "splits": ["test", "train"],
            "patients": 3,
            "leakage": True,
        },
        {"kind": "exact", "images": ["0.png", "a.png"], "splits": ["train"], "patients": 1, "leakage": False},
    ]


def test_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*films(tmp_path, 3), "gone.png"]
    alone = checks.check(as_manifest(names), tmp_path, 64)
    monkeypatch.setattr(checks, "INLINE", 1)
    assert checks.check(as_manifest(names), tmp_path, 64, workers=2) == alone
