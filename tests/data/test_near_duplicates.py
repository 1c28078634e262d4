"""Copies of films are found, films of different patients are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates, uniform_filter
from scipy.stats import rankdata

from noisy_student.data import check, near_duplicates
from noisy_student.data import manifest as manifests
from noisy_student.data.synthetic import render
from noisy_student.data.synthetic.dataset import rows_of

Film = npt.NDArray[np.uint8]


@lru_cache
def phantoms(count: int, lateral: bool = False) -> Film:
    """One frontal or lateral phantom of each of ``count`` patients."""
    rows = rows_of(5, "valid", range(1, (8 if lateral else 2) * count + 1))
    first = {row.case.patient: row.case for row in reversed(list(rows)) if (row.case.projection == "LL") == lateral}
    cases = [first[patient] for patient in sorted(first)][:count]
    assert len(cases) == count
    return np.concatenate([render(cases[start : start + 64], 96) for start in range(0, count, 64)])


def thumbnails(films: list[Film]) -> Film:
    return np.stack([near_duplicates.thumbnail(film[None]) for film in films])


def again(film: Film) -> Film:
    stream = io.BytesIO()
    Image.fromarray(film).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))


def resized(film: Film) -> Film:
    return np.asarray(Image.fromarray(film).resize((70, 80), Image.Resampling.BILINEAR))


def cropped(film: Film) -> Film:
    high, wide = film.shape
    return film[round(0.03 * high) : round(0.98 * high), round(0.01 * wide) : round(0.97 * wide)]


def brighter(film: Film) -> Film:
    return np.clip(film * 1.1 + 10, 0, 255).astype(np.uint8)


def darker(film: Film) -> Film:
    return (film * 0.7).astype(np.uint8)


def gamma(film: Film) -> Film:
    return np.rint(255 * (film / 255) ** 0.7).astype(np.uint8)


def together(film: Film) -> Film:
    return again(cropped(darker(film)))


CHANGES: dict[str, Callable[[Film], Film]] = {
    change.__name__: change for change in (again, resized, cropped, brighter, darker, gamma, together)
}


@pytest.mark.parametrize("name", CHANGES)
def test_copies_are_found_and_nothing_else(name: str) -> None:
    films = phantoms(240)
    copies = [CHANGES[name](film) for film in films[:60]]
    pairs, likeness = near_duplicates.find(thumbnails([*films, *copies]))
    found = {(int(first), int(second)) for first, second in pairs}
    right = {(number, 240 + number) for number in range(60)}
    assert found <= right
    assert len(found) >= 57
    assert (likeness >= near_duplicates.ALIKE).all()


def test_films_of_different_patients_are_not_alike() -> None:
    assert len(near_duplicates.find(thumbnails(list(phantoms(600))))[0]) == 0


@pytest.mark.slow
def test_many_films_of_different_patients_are_not_alike() -> None:
    films = [*phantoms(4000), *phantoms(1000, lateral=True)]
    assert len(near_duplicates.find(thumbnails(films))[0]) == 0


def test_few_films_are_compared_each_with_each() -> None:
    films = phantoms(5)
    pairs, likeness = near_duplicates.find(thumbnails([*films, cropped(films[3])]))
    assert pairs.tolist() == [[3, 5]]
    assert 0.9 <= likeness[0] <= 1
    assert len(near_duplicates.find(thumbnails([films[0]]))[0]) == 0
    assert len(near_duplicates.find(np.zeros((0, 64, 64), np.uint8))[0]) == 0


def test_films_without_content_are_like_no_other() -> None:
    blank = [np.full((64, 64), value, np.uint8) for value in (0, 0, 9, 9)]
    assert len(near_duplicates.find(thumbnails([*blank, *phantoms(3)]))[0]) == 0
    assert len(near_duplicates.find(thumbnails(blank * 100))[0]) == 0


def test_real_films_of_different_patients_are_not_alike(real_data: Path) -> None:
    paths = sorted((real_data / "nih1000" / "images").rglob("*.png"))
    if not paths:
        pytest.skip(f"no films of NIH at {real_data}; set NS_REAL_DATA")
    films = [np.asarray(Image.open(path).convert("L")) for path in paths[:500]]
    copies = [together(film) for film in films[:50]]
    pairs, _ = near_duplicates.find(thumbnails([*films, *copies]))
    patient = [path.name.split("_")[0] for path in paths[:500]]
    found = {(int(first), int(second)) for first, second in pairs}
    assert len(found & {(number, 500 + number) for number in range(50)}) >= 47
    others = {pair for pair in found if patient[pair[0]] != patient[pair[1] % 500]}
    assert others == set()


# -- the parts -----------------------------------------------------------------------------------------------------


def test_even_histograms_are_ranks() -> None:
    films = thumbnails(list(phantoms(4)))
    expected = (rankdata(films.reshape(4, -1), axis=1) - 0.5) / films[0].size
    np.testing.assert_allclose(near_duplicates._even(films).reshape(4, -1), expected, atol=1e-6)


def test_halved_is_the_mean_of_four_pixels() -> None:
    films = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    expected = films.reshape(3, 4, 2, 4, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(near_duplicates._halved(films), expected, rtol=1e-6)


def test_details_are_what_a_box_filter_leaves() -> None:
    films = np.random.default_rng(0).random((3, 32, 32), dtype=np.float32)
    expected = films - uniform_filter(films, (0, 7, 7), mode="nearest")
    np.testing.assert_allclose(near_duplicates._details(films), expected, atol=1e-5)


def test_moved_is_a_bilinear_warp() -> None:
    film = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    way = np.array([[1.25, -0.5, 2.0, 0.75]], dtype=np.float32)
    away, place = np.linspace(-1, 1, 32), np.arange(32)
    down, across = np.meshgrid(place - 0.5 + 0.75 * away, place + 1.25 + 2 * away, indexing="ij")
    expected = map_coordinates(film, [down.clip(0, 31 - 1e-3), across.clip(0, 31 - 1e-3)], order=1)
    np.testing.assert_allclose(near_duplicates._moved(film[None], way)[0], expected, atol=2e-3)


def test_a_step_finds_how_far_a_film_was_moved() -> None:
    films = near_duplicates._halved(near_duplicates._even(thumbnails(list(phantoms(20)))))
    way = np.tile(np.array([[0.4, -0.3, 0.5, 0.2]], dtype=np.float32), (20, 1))
    found = near_duplicates._step(films, near_duplicates._moved(films, way))
    assert np.abs(np.median(found - way, axis=0)).max() < 0.15


# -- in the check --------------------------------------------------------------------------------------------------


def test_near_duplicates_across_splits_are_leakage(tmp_path: Path) -> None:
    films = phantoms(6)
    names = [f"{number}.png" for number in range(6)]
    for name, film in zip(names, films, strict=True):
        Image.fromarray(film).save(tmp_path / name)
    Image.fromarray(cropped(films[2])).save(tmp_path / "2-cropped.png")
    Image.fromarray(darker(films[2])).save(tmp_path / "2-darker.png")
    (tmp_path / "2-copy.png").write_bytes((tmp_path / "2.png").read_bytes())
    Image.fromarray(again(films[4])).save(tmp_path / "4-again.png")
    every = [*names, "2-cropped.png", "2-darker.png", "2-copy.png", "4-again.png", "gone.png"]
    splits = ["train"] * 7 + ["test"] + ["train"] * 3
    patients = ["a", "b", "c", "d", "e", "f", "c", "g", "c", "e", "h"]
    columns = {"image": every, "patient": patients, "study": every, "split": splits, "A": [1.0] * len(every)}
    result = check.check(manifests.build(columns, ("A",)), tmp_path, 96)
    assert result["duplicates"] == [
        {
            "kind": "near",
            "images": ["2.png", "2-cropped.png", "2-darker.png", "2-copy.png"],
            "splits": ["test", "train"],
            "patients": 2,
            "leakage": True,
        },
        {"kind": "near", "images": ["4.png", "4-again.png"], "splits": ["train"], "patients": 1, "leakage": False},
    ]
    assert result["leakage"] == 1
    assert result["problems"] == {"missing": 1}


def test_the_bar_ends_at_all_pairs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(near_duplicates, "DELAY", 0)
    monkeypatch.setattr(near_duplicates, "_ALL_PAIRS", 4)
    films = phantoms(30)
    near_duplicates.find(thumbnails([*films, cropped(films[3])]), progress=True)
    err = capsys.readouterr().err
    assert "films alike: 100%" in err
    assert "496/496" in err  # 31 films with themselves and those after them
    assert "compare alike films" in err
