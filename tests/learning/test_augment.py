"""Properties of the input noise, and its geometry and blur against Kornia's and SciPy's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import get_rotation_matrix2d, warp_affine
from scipy import ndimage

from noisy_student import randomness
from noisy_student.config.learning import NoiseConfig
from noisy_student.learning.augment import BANK, Augment, blur, contact_sheet, draw, matrices, to_float

SILENT = dict.fromkeys(
    ("flip", "rotate", "scale", "translate", "shear", "gamma", "brightness", "contrast", "blur", "noise", "erase"), 0.0
)
# Bilinear weights in single precision at 40 pixels: coordinates are good to about 40 * 2**-23, intensities alike.
CLOSE = {"rtol": 0.0, "atol": 2e-5}


def only(**settings) -> NoiseConfig:
    return NoiseConfig(**{**SILENT, **settings})


def films(count=6, channels=1, size=40, seed=0):
    """Smooth random films with a black rim and every level, uint8 (B, C, size, size)."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=(count, channels, size, size)), (0, 0, 2, 2))
    values -= values.min((1, 2, 3), keepdims=True)
    values *= 255 / values.max((1, 2, 3), keepdims=True)
    values[:, :, [0, -1], :] = values[:, :, :, [0, -1]] = 0
    return torch.from_numpy(values.astype(np.uint8))


def where(count=6):
    return np.arange(count, dtype=np.int64) + 10, np.arange(count, dtype=np.int64) * 7 + 3


def augment(noise, channels=1, size=40, seed=0, generation=1):
    return Augment(noise, size=size, channels=channels, device="cpu", seed=seed, generation=generation)


def noisy(noise, images=None, seed=0, **options):
    images = films() if images is None else images
    return augment(noise, images.shape[1], images.shape[2], seed, **options)(images, *where(len(images)))


def drawn(noise, count=6, seed=0, generation=1):
    position, image_id = where(count)
    return draw(noise, seed=seed, generation=generation, position=position, image_id=image_id)


# -- purity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_strength_zero_is_exactly_the_clean_film(channels):
    images = films(channels=channels)
    kept = images.clone()
    result = noisy(NoiseConfig(strength=0.0), images)
    assert torch.equal(result, images.float() / 255)
    assert torch.equal(to_float(images), result)
    assert torch.equal(images, kept)


def test_noise_without_any_operation_is_exactly_the_clean_film():
    assert torch.equal(noisy(only()), to_float(films()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("channels", "size"), [(1, 40), (3, 33)])
def test_a_film_does_not_depend_on_its_batch(channels, size, threads):
    count = 23
    images, (position, image_id) = films(count, channels, size), where(count)
    call = augment(NoiseConfig(blur=0.6), channels, size)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        full = call(images, position, image_id)
        for order in (np.random.default_rng(1).permutation(count), np.arange(3, 17, 2), *np.arange(count)[:, None]):
            part = call(images[torch.from_numpy(order)], position[order], image_id[order])
            assert torch.equal(part, full[torch.from_numpy(order)])
    finally:
        torch.set_num_threads(before)


def test_every_coordinate_changes_every_operation():
    noise = NoiseConfig(flip=0.5, blur=0.9, erase=1.0)
    position, image_id = where(64)
    base = {"seed": 0, "generation": 1, "position": position, "image_id": image_id}
    first = draw(noise, **base)
    changes = ({"seed": 1}, {"generation": 2}, {"position": position + 100}, {"image_id": image_id + 1})
    for name in (field.name for field in dataclasses.fields(first)):
        assert np.array_equal(getattr(first, name), getattr(draw(noise, **base), name))
        for change in changes:
            assert not np.array_equal(getattr(first, name), getattr(draw(noise, **{**base, **change}), name))


def test_the_same_film_at_another_place_gets_other_noise():
    images = films(1).repeat(2, 1, 1, 1)
    call = augment(NoiseConfig())
    same = call(images, np.array([4, 4]), np.array([9, 9]))
    other = call(images, np.array([4, 5]), np.array([9, 9]))
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], other[0])
    assert not torch.equal(other[0], other[1])


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_result_is_float_in_the_unit_interval(strength):
    result = noisy(NoiseConfig(strength=strength, noise=0.2), films(32))
    assert result.dtype == torch.float32
    assert result.shape == (32, 1, 40, 40)
    assert result.min() >= 0
    assert result.max() <= 1
    assert (result - to_float(films(32))).abs().mean() > 0.05


# -- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_ranges_scale_with_strength(strength):
    noise = NoiseConfig(strength=strength, contrast=0.8)
    draws = drawn(noise, 4000)
    log2 = np.log2(1 + noise.scale * strength)
    for values, largest in (
        (draws.rotate, 12 * strength),
        (draws.translate, 0.08 * strength),
        (draws.shear, 6 * strength),
        (np.log2(draws.gamma), 0.5 * strength),
        (draws.brightness, 0.2 * strength),
        (np.log2(draws.scale), log2),
    ):
        # Uniform on [-largest, largest): of 4000 the extreme is within 1 % of it, the mean within 5 %.
        assert 0.99 * largest < np.abs(values).max() <= largest
        assert abs(values.mean()) < 0.05 * largest
    assert draws.contrast.min() == pytest.approx(max(1 - 0.8 * strength, 0), abs=0.01 * strength)
    assert 0.99 * 0.04 * strength < draws.noise.max() <= 0.04 * strength
    sigma = draws.blur_sigma[draws.blur_sigma > 0]
    assert 0.1 * strength <= sigma.min()
    assert 0.99 * strength < sigma.max() <= strength
    chance = min(strength, 1.0)
    assert (draws.blur_sigma > 0).mean() == pytest.approx(0.3 * chance, abs=0.03)
    assert draws.flip.mean() == pytest.approx(0.5 * chance, abs=0.03)
    top, left, bottom, right = draws.erase.T
    area = (bottom - top) * (right - left)
    assert (area > 0).mean() == pytest.approx(0.5 * chance, abs=0.03)
    assert 0.97 * 0.15 * strength < area.max() <= 0.15 * strength + 1e-12
    assert min(top.min(), left.min()) >= 0
    assert max(bottom.max(), right.max()) <= 1 + 1e-12
    assert draws.noise_offset.min() >= 0
    assert draws.noise_offset.max() < BANK
    assert set(draws.noise_sign) == {-1.0, 1.0}


def test_operations_are_drawn_independently():
    draws = drawn(NoiseConfig(), 4000)
    columns = [draws.rotate, draws.scale, *draws.translate.T, *draws.shear.T, draws.gamma, draws.contrast]
    correlation = np.corrcoef([*columns, draws.brightness, draws.noise, draws.flip, draws.noise_sign])
    # Independent columns have a correlation of SD 1/sqrt(4000) = 0.016; 66 pairs stay below 5 of those.
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.08


# -- geometry ---------------------------------------------------------------------------------------------------------


def test_flip_exchanges_left_and_right_and_twice_is_the_film():
    images = films()
    once = noisy(only(flip=1.0))
    torch.testing.assert_close(once, to_float(images).flip(-1), **CLOSE)
    again = noisy(only(flip=1.0), (once * 255).round().to(torch.uint8))
    torch.testing.assert_close(again, to_float(images), **CLOSE)


def test_flip_probability_is_per_film():
    result, images = noisy(only(flip=0.5), films(32)), to_float(films(32))
    flips = drawn(only(flip=0.5), 32).flip
    assert 5 < flips.sum() < 27
    expected = torch.where(torch.from_numpy(flips)[:, None, None, None], images.flip(-1), images)
    torch.testing.assert_close(result, expected, **CLOSE)


GEOMETRY = {"flip": 0.5, "rotate": 30.0, "scale": 0.3, "translate": 0.1, "shear": 20.0}


@pytest.mark.parametrize("settings", [GEOMETRY, *({name: value} for name, value in GEOMETRY.items())])
def test_warp_agrees_with_kornia_and_scipy(settings):
    noise, images = only(**settings), films(8)
    result, matrix = noisy(noise, images), matrices(drawn(noise, 8), 40)
    clean = to_float(images)
    kornia = warp_affine(clean, torch.from_numpy(matrix[:, :2]).float(), (40, 40), align_corners=True)
    # A film's rim is black, so both treatments of its outer half pixel are the same.
    torch.testing.assert_close(result, kornia, **CLOSE)
    for film in range(8):
        inverse = np.linalg.inv(matrix[film])[[1, 0, 2]][:, [1, 0, 2]]  # SciPy's order is (row, column)
        scipy = ndimage.affine_transform(clean[film, 0].double().numpy(), inverse, order=1, mode="grid-constant")
        np.testing.assert_allclose(result[film, 0].numpy(), scipy, **CLOSE)


def test_single_matrices_are_what_they_are_called():
    centre = torch.tensor([[19.5, 19.5]]).repeat(6, 1)
    noise = only(rotate=30.0)
    expected = get_rotation_matrix2d(centre, torch.from_numpy(drawn(noise).rotate).float(), torch.ones(6, 2))
    np.testing.assert_allclose(matrices(drawn(noise), 40)[:, :2], expected, atol=1e-4)

    draws = drawn(only(scale=0.3))
    expected = get_rotation_matrix2d(
        centre, torch.zeros(6), torch.from_numpy(draws.scale).float()[:, None].repeat(1, 2)
    )
    np.testing.assert_allclose(matrices(draws, 40)[:, :2], expected, atol=1e-4)

    draws = drawn(only(translate=0.2))
    np.testing.assert_allclose(matrices(draws, 40)[:, :2, 2], draws.translate * 40, atol=1e-12)

    draws = drawn(only(shear=20.0))
    shear = matrices(draws, 40)
    np.testing.assert_allclose(shear[:, 0, 1], np.tan(np.deg2rad(draws.shear[:, 0])), atol=1e-12)
    np.testing.assert_allclose(shear[:, 1, 0], np.tan(np.deg2rad(draws.shear[:, 1])), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(shear), 1.0)


def test_matrices_compose_in_the_order_that_is_documented():
    whole = drawn(NoiseConfig(**GEOMETRY))
    none = drawn(only())
    flip, scale, shear, rotate, translate = (
        matrices(dataclasses.replace(none, **{name: getattr(whole, name)}), 40)
        for name in ("flip", "scale", "shear", "rotate", "translate")
    )
    np.testing.assert_allclose(matrices(whole, 40), translate @ rotate @ shear @ scale @ flip, atol=1e-12)
    assert np.allclose(matrices(none, 40), np.eye(3))


def test_what_comes_in_from_outside_is_black_as_on_the_film():
    result = noisy(only(translate=0.9, brightness=0.5), films(32))
    shift, brightness = (
        drawn(only(translate=0.9, brightness=0.5), 32).translate,
        drawn(only(brightness=0.5), 32).brightness,
    )
    moved = np.abs(shift[:, 0]) > 0.1
    assert moved.sum() > 10
    for film in np.flatnonzero(moved):
        edge = result[film, 0, :, 0 if shift[film, 0] > 0 else -1]
        torch.testing.assert_close(edge, torch.full((40,), max(brightness[film], 0.0), dtype=torch.float32), **CLOSE)


def test_warp_and_intensity_together_are_one_after_the_other():
    images, brightness = films(), torch.from_numpy(drawn(only(brightness=0.5)).brightness)[:, None, None, None]
    assert brightness.max() > 0.1
    expected = (to_float(images).flip(-1) + brightness).clamp(0, 1).float()
    torch.testing.assert_close(noisy(only(flip=1.0, brightness=0.5), images), expected, **CLOSE)


# -- intensity --------------------------------------------------------------------------------------------------------


def test_gamma_contrast_and_brightness_by_formula():
    images = films(channels=3)
    clean = to_float(images).double()
    column = {
        name: torch.from_numpy(getattr(drawn(NoiseConfig(contrast=0.9)), name))[:, None, None, None]
        for name in ("gamma", "contrast", "brightness")
    }
    mean = clean.mean((1, 2, 3), keepdim=True)
    contrasted = (mean + (clean - mean) * column["contrast"]).clamp(0, 1)
    whole = (contrasted ** column["gamma"] + column["brightness"]).clamp(0, 1)
    for settings, expected in (
        ({"gamma": 0.5}, clean ** column["gamma"]),
        ({"brightness": 0.2}, (clean + column["brightness"]).clamp(0, 1)),
        ({"contrast": 0.9}, contrasted),
        ({"gamma": 0.5, "brightness": 0.2, "contrast": 0.9}, whole),
    ):
        torch.testing.assert_close(noisy(only(**settings), images).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("sigma", "radius"), [(0.3, 2), (1.4, 5)])
def test_blur_is_kornias_gaussian(sigma, radius):
    images = to_float(films(5, channels=2))
    sigmas = np.linspace(0.2, sigma, 5)
    expected = gaussian_blur2d(
        images, (2 * radius + 1, 2 * radius + 1), torch.from_numpy(sigmas).float()[:, None].repeat(1, 2)
    )
    torch.testing.assert_close(blur(images, sigmas, radius), expected, rtol=0, atol=1e-5)


def test_blur_touches_the_chosen_films_only_and_scales_with_the_size():
    noise = only(blur=0.5, blur_sigma=2.0)
    images, sigma = films(32), drawn(noise, 32).blur_sigma
    result = noisy(noise, images)
    untouched = torch.from_numpy(sigma == 0)
    assert 5 < untouched.sum() < 27
    assert torch.equal(result[untouched], to_float(images)[untouched])
    for film in np.flatnonzero(sigma):
        pixels = sigma[film] * 40 / 96
        smooth = ndimage.gaussian_filter(images[film, 0].numpy() / 255.0, pixels, mode="mirror", radius=3)
        np.testing.assert_allclose(result[film, 0].numpy(), smooth, atol=2e-6)


def test_blur_wider_than_the_film_is_cut_to_it():
    images = films(8, size=16)
    result = noisy(only(blur=1.0, blur_sigma=500.0), images)
    assert torch.isfinite(result).all()
    assert (result.std((1, 2, 3)) < 0.3 * to_float(images).std((1, 2, 3))).all()


def test_grain_has_the_drawn_deviation_and_no_trace_of_its_neighbour():
    noise = only(noise=0.08)
    images = torch.full((16, 3, 64, 64), 128, dtype=torch.uint8)
    field = noisy(noise, images) - 128 / 255
    draws = drawn(noise, 16)
    assert torch.equal(field[:, 0], field[:, 1])  # grey on every channel
    # The deviation of 4096 normals is known to 1.1 %; 5 of those.
    np.testing.assert_allclose(field[:, 0].std((1, 2)).numpy(), draws.noise, rtol=0.055)
    flat = (field[:, 0] / field[:, 0].std((1, 2), keepdim=True)).flatten(1)
    assert flat.mean(1).abs().max() < 5 / 64
    correlation = flat @ flat.T / 4096
    assert (correlation - torch.eye(16)).abs().max() < 6 / 64
    across = (flat.view(16, 64, 64)[:, :, 1:] * flat.view(16, 64, 64)[:, :, :-1]).mean((1, 2))
    assert across.abs().max() < 6 / 64


def test_grain_is_the_films_piece_of_the_bank_with_its_sign():
    noise = only(noise=0.08)
    images = torch.full((8, 1, 40, 40), 128, dtype=torch.uint8)
    field, draws = noisy(noise, images) - 128 / 255, drawn(noise, 8)
    assert len(set(draws.noise_sign)) == 2
    bank = randomness.generator(0, randomness.text_id("grain")).standard_normal(BANK + 1600, np.float32)
    for film, offset in enumerate(draws.noise_offset):
        expected = bank[offset : offset + 1600] * draws.noise[film] * draws.noise_sign[film]
        np.testing.assert_allclose(field[film].flatten().numpy(), expected, atol=1e-6)


def test_grain_depends_on_the_seed():
    images = torch.full((1, 1, 40, 40), 128, dtype=torch.uint8)
    one, two = (noisy(only(noise=0.08), images, seed=seed) - 128 / 255 for seed in (0, 1))
    assert np.abs(np.corrcoef(one.flatten(), two.flatten())[0, 1]) < 0.15  # SD 1/40, and 6 of those


def test_erasing_fills_one_rectangle_with_the_films_mean():
    noise = only(erase=0.7, erase_area=0.3)
    images = films(32, channels=3)
    clean, result = to_float(images), noisy(noise, images)
    edges = np.rint(drawn(noise, 32).erase * 40).astype(int)
    erased = 0
    for film, (top, left, bottom, right) in enumerate(edges):
        expected = clean[film].clone()
        expected[:, top:bottom, left:right] = clean[film].double().mean().float()
        torch.testing.assert_close(result[film], expected, rtol=0, atol=1e-6)
        erased += (bottom - top) * (right - left) > 0
    assert 10 < erased < 32


@pytest.mark.parametrize("settings", [{"erase": 1.0, "erase_area": 0.0}, {"erase": 0.0, "erase_area": 0.5}])
def test_erasing_nothing_does_nothing(settings):
    assert torch.equal(noisy(only(**settings)), to_float(films()))


def test_films_of_another_shape_are_a_mistake():
    with pytest.raises(AssertionError, match="another shape"):
        augment(NoiseConfig())(films(size=32), *where())


# -- picture ----------------------------------------------------------------------------------------------------------


def test_contact_sheet_shows_each_film_above_its_noisy_version():
    images = films(5, size=16)
    sheet = contact_sheet(images, 1 - to_float(images), columns=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (2 * 34, 3 * 18)
    for film in range(5):
        row, column = divmod(film, 3)
        tile = sheet[row * 34 : (row + 1) * 34, column * 18 : (column + 1) * 18][1:-1, 1:-1]
        assert np.array_equal(tile[:16], images[film, 0])
        assert np.array_equal(tile[16:], 255 - images[film, 0].numpy())
    assert not sheet[34:, 36:].any()
