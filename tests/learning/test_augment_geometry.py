"""The warp of the input noise against Kornia's and SciPy's, and single pixels against arithmetic."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from films import CLOSE, drawn, films, noisy, only
from kornia.geometry.transform import get_rotation_matrix2d, warp_perspective
from scipy import ndimage
from torch.nn import functional

from noisy_student.config import NoiseConfig
from noisy_student.learning.augment import to_float
from noisy_student.learning.augment.geometry import matrices

GEOMETRY = ("flip", "rotate", "scale", "translate", "shear", "perspective", "crop")


def silent(count: int = 6):
    return drawn(only(), count)


def test_flip_exchanges_left_and_right_and_twice_is_the_film():
    images = films()
    once = noisy(only("flip"))
    torch.testing.assert_close(once, to_float(images).flip(-1), **CLOSE)
    again = noisy(only("flip"), (once * 255).round().to(torch.uint8))
    torch.testing.assert_close(again, to_float(images), **CLOSE)


def test_flip_is_drawn_per_film():
    result, images = noisy(only("flip", probability=0.5), films(32)), to_float(films(32))
    flips = drawn(only("flip", probability=0.5), 32).flip
    assert 5 < flips.sum() < 27
    expected = torch.where(torch.from_numpy(flips)[:, None, None, None], images.flip(-1), images)
    torch.testing.assert_close(result, expected, **CLOSE)


def scipy_warp(film: np.ndarray, matrix: np.ndarray, bend: np.ndarray | float = 0.0) -> np.ndarray:
    """Return ``film`` (S, S) where pixel p of the result shows matrix^-1 p + bend of the film."""
    size = len(film)
    y, x = np.mgrid[:size, :size].astype(float)
    sought = np.linalg.inv(matrix) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    places = (sought[:2] / sought[2])[::-1].reshape(2, size, size) + bend
    return ndimage.map_coordinates(film, places, order=1, mode="grid-constant")


@pytest.mark.parametrize("names", [GEOMETRY, *((name,) for name in GEOMETRY)], ids="-".join)
def test_warp_agrees_with_kornia_and_scipy(names):
    noise, images = only(*names), films(8)
    result, matrix = noisy(noise, images), matrices(drawn(noise, 8), 40)
    assert not np.allclose(matrix, np.eye(3))
    clean = to_float(images)
    kornia = warp_perspective(clean, torch.from_numpy(matrix).float(), (40, 40), align_corners=True)
    # A film's rim is black, so both treatments of its outer half pixel are the same.
    torch.testing.assert_close(result, kornia, rtol=0, atol=1e-4)  # Kornia solves its homographies in float32
    for film in range(8):
        np.testing.assert_allclose(result[film, 0], scipy_warp(clean[film, 0].double().numpy(), matrix[film]), **CLOSE)


def test_elastic_shifts_every_pixel_by_its_smoothed_knots():
    noise, images = only("rotate", "elastic"), films(6)
    draws, clean = drawn(noise), to_float(films(6))
    result = noisy(noise, images)
    for film in range(6):
        knots = torch.from_numpy(draws.elastic[film][None]) * 40
        bend = functional.interpolate(knots, (40, 40), mode="bicubic", align_corners=True)[0].numpy()[::-1]
        expected = scipy_warp(clean[film, 0].double().numpy(), matrices(draws, 40)[film], bend)
        np.testing.assert_allclose(result[film, 0], expected, rtol=0, atol=1e-4)


def test_elastic_by_equal_knots_is_a_shift(monkeypatch):
    """Knots of 1/10 of the side everywhere: pixel p shows the film at p + 4 pixels."""
    from noisy_student.learning.augment import geometry

    draws = dataclasses.replace(silent(1), elastic=np.broadcast_to([[[[0.1]], [[0.0]]]], (1, 2, 6, 6)))
    clean = to_float(films(1))
    result = geometry.warp(clean, draws, torch.arange(40.0))
    torch.testing.assert_close(result[..., :-4], clean[..., 4:], **CLOSE)
    assert (result[..., -3:] == 0).all()


def warped_point(point: tuple[float, float], size: int = 41, **values: object) -> tuple[float, float]:
    """Return where the bright pixel of a black film ends: its centre of mass after the warp of given draws."""
    from noisy_student.learning.augment import geometry

    draws = dataclasses.replace(silent(1), **{name: np.asarray([value]) for name, value in values.items()})
    images = torch.zeros(1, 1, size, size)
    images[0, 0, point[1], point[0]] = 1.0
    mass = geometry.warp(images, draws, torch.arange(float(size)))[0, 0].double().numpy()
    row, column = ndimage.center_of_mass(mass)
    return column, row


def test_a_pixel_moves_to_the_expected_place():
    """On a film of 41 pixels, whose centre is (20, 20)."""
    assert warped_point((10, 20), flip=True) == pytest.approx((30, 20), abs=1e-4)
    assert warped_point((30, 20), rotate=90.0) == pytest.approx((20, 10), abs=1e-4)  # counter-clockwise: right to top
    assert warped_point((10, 20), translate=(4 / 41, -2 / 41)) == pytest.approx((14, 18), abs=1e-4)
    assert warped_point((20, 30), shear=(45.0, 0.0)) == pytest.approx((30, 30), abs=1e-4)
    assert warped_point((30, 20), shear=(0.0, 45.0)) == pytest.approx((30, 30), abs=1e-4)
    assert warped_point((25, 25), scale=2.0) == pytest.approx((30, 30), abs=0.02)
    # Half of the film's width cut off at the left: the pixel at the cut's edge is then at the left edge.
    column, row = warped_point((30, 20), crop=(0.0, 0.5, 0.0, 0.0))
    assert ((column + 0.5) / 41, row) == pytest.approx((2 * ((30 + 0.5) / 41 - 0.5), 20), abs=0.02)
    # A tilt magnifies by 1 / (1 - t) what lies at the right edge of the result.
    column, _ = warped_point((30, 20), perspective=(0.2, 0.0))
    u, v = (30 - 20) / 20.5, (column - 20) / 20.5
    assert v / (1 + 0.2 * v) == pytest.approx(u, abs=0.005)


def test_single_matrices_are_what_they_are_called():
    centre = torch.tensor([[19.5, 19.5]]).repeat(6, 1)
    draws = drawn(only("rotate"))
    expected = get_rotation_matrix2d(centre, torch.from_numpy(draws.rotate).float(), torch.ones(6, 2))
    np.testing.assert_allclose(matrices(draws, 40)[:, :2], expected, atol=1e-4)

    draws = drawn(only("scale"))
    expected = get_rotation_matrix2d(
        centre, torch.zeros(6), torch.from_numpy(draws.scale).float()[:, None].repeat(1, 2)
    )
    np.testing.assert_allclose(matrices(draws, 40)[:, :2], expected, atol=1e-4)

    draws = drawn(only("translate"))
    np.testing.assert_allclose(matrices(draws, 40)[:, :2, 2], draws.translate * 40, atol=1e-12)

    draws = drawn(only("shear"))
    shear = matrices(draws, 40)
    np.testing.assert_allclose(shear[:, 0, 1], np.tan(np.deg2rad(draws.shear[:, 0])), atol=1e-12)
    np.testing.assert_allclose(shear[:, 1, 0], np.tan(np.deg2rad(draws.shear[:, 1])), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(shear), 1.0)

    draws = drawn(only("crop"))
    top, left, bottom, right = (draws.crop * 40 - 0.5).T
    corners = np.stack([left, top, np.ones(6)], axis=1)
    moved = np.einsum("bij,bj->bi", matrices(draws, 40), corners)
    np.testing.assert_allclose(moved, np.broadcast_to([-0.5, -0.5, 1.0], (6, 3)), atol=1e-9)
    corners = np.stack([39 - right, 39 - bottom, np.ones(6)], axis=1)
    moved = np.einsum("bij,bj->bi", matrices(draws, 40), corners)
    np.testing.assert_allclose(moved, np.broadcast_to([39.5, 39.5, 1.0], (6, 3)), atol=1e-9)


def test_matrices_compose_in_the_order_that_is_documented():
    whole, none = drawn(only(*GEOMETRY)), silent()
    flip, crop, scale, shear, rotate, tilt, translate = (
        matrices(dataclasses.replace(none, **{name: getattr(whole, name)}), 40)
        for name in ("flip", "crop", "scale", "shear", "rotate", "perspective", "translate")
    )
    np.testing.assert_allclose(matrices(whole, 40), translate @ tilt @ rotate @ shear @ scale @ crop @ flip, atol=1e-10)
    assert np.allclose(matrices(none, 40), np.eye(3))


def test_what_comes_in_from_outside_is_black_as_on_the_film():
    noise = only("translate", range=0.9).model_copy(
        update={"brightness": NoiseConfig().brightness.model_copy(update={"range": 0.5})}
    )
    result, draws = noisy(noise, films(32)), drawn(noise, 32)
    moved = np.abs(draws.translate[:, 0]) > 0.1
    assert moved.sum() > 10
    for film in np.flatnonzero(moved):
        edge = result[film, 0, :, 0 if draws.translate[film, 0] > 0 else -1]
        black = max(draws.brightness[film], 0.0)
        torch.testing.assert_close(edge, torch.full((40,), black, dtype=torch.float32), **CLOSE)


def test_warp_and_tone_together_are_one_after_the_other():
    noise, images = only("flip", "brightness"), films()
    brightness = torch.from_numpy(drawn(noise).brightness)[:, None, None, None]
    assert brightness.abs().max() > 0.1
    expected = (to_float(images).flip(-1) + brightness).clamp(0, 1).float()
    torch.testing.assert_close(noisy(noise, images), expected, **CLOSE)
