"""Filters, grain and paint of the input noise against Kornia, PIL, SciPy and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from films import augment, drawn, films, noisy, only, where
from kornia.enhance import sharpness
from kornia.filters import gaussian_blur2d, unsharp_mask
from PIL import Image, ImageEnhance
from scipy import ndimage

from noisy_student import randomness
from noisy_student.learning.augment import filters, to_float
from noisy_student.learning.augment.draws import BANK

# -- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 1.4])
def test_blur_is_kornias_gaussian(sigma):
    images = to_float(films(5, channels=2))
    kernel = 2 * int(np.ceil(3 * sigma)) + 1
    expected = gaussian_blur2d(images, (kernel, kernel), (sigma, sigma))
    torch.testing.assert_close(filters.blur(images, np.full(5, sigma)), expected, rtol=0, atol=1e-5)


def test_blur_is_scipys_with_a_sigma_for_each_film_and_scales_with_the_size():
    noise, images = only("blur", probability=0.5, range=4.0), films(32)
    sigma, result = drawn(noise, 32).blur, noisy(noise, images)
    untouched = torch.from_numpy(sigma == 0)
    assert 5 < untouched.sum() < 27
    assert torch.equal(result[untouched], to_float(images)[untouched])
    for film in np.flatnonzero(sigma):
        pixels = sigma[film] * 40 / 96
        radius = int(np.ceil(3 * pixels))
        smooth = ndimage.gaussian_filter(images[film, 0].numpy() / 255.0, pixels, mode="mirror", radius=radius)
        np.testing.assert_allclose(result[film, 0].numpy(), smooth, atol=2e-6)


def test_blur_wider_than_the_film_is_cut_to_it():
    images = films(8, size=16)
    result = noisy(only("blur", range=500.0), images)
    assert torch.isfinite(result).all()
    assert (result.std((1, 2, 3)) < 0.3 * to_float(images).std((1, 2, 3))).all()


def test_sharpness_is_kornias_and_pils():
    images = films(8)
    factor = np.linspace(0, 5, 8)
    result = filters.sharpen(to_float(images), factor)
    torch.testing.assert_close(result, sharpness(to_float(images), torch.from_numpy(factor).float()), rtol=0, atol=1e-6)
    for film in range(8):
        picture = Image.fromarray(images[film, 0].numpy())
        expected = np.asarray(ImageEnhance.Sharpness(picture).enhance(float(factor[film]))).astype(float)
        # PIL rounds the smoothed film to levels, and the factor multiplies that.
        assert np.abs(result[film, 0].numpy() * 255 - expected).max() <= 1 + 0.5 * abs(1 - factor[film])


def test_edges_are_kornias_unsharp_mask():
    images, amount = to_float(films(4)), np.full(4, 1.0)
    kernel = 2 * int(np.ceil(3 * 1.5)) + 1
    expected = unsharp_mask(images, (kernel, kernel), (1.5, 1.5)).clamp(0, 1)
    torch.testing.assert_close(filters.highlight(images, amount, 1.5), expected, rtol=0, atol=1e-5)
    draws = drawn(only("edges"))
    expected = filters.highlight(to_float(films()), draws.edges, 1.5 * 40 / 96)
    assert torch.equal(noisy(only("edges")), expected)


def test_low_resolution_is_pils_box_and_bilinear():
    images = films(12)
    loss = drawn(only("low_resolution"), 12).low_resolution
    result = noisy(only("low_resolution"), images)
    for film in range(12):
        side = int(np.ceil(40 * (1 - loss[film])))
        picture = Image.fromarray(images[film, 0].numpy().astype(np.float32))
        if 40 % side:  # adaptive averaging and PIL's box differ where pixels are cut
            assert result[film].std() < to_float(images[film]).std()
            continue
        small = picture.resize((side, side), Image.Resampling.BOX)
        expected = np.asarray(small.resize((40, 40), Image.Resampling.BILINEAR)) / 255
        np.testing.assert_allclose(result[film, 0], expected, atol=1e-5)
    exact = filters.coarsen(to_float(images), np.full(12, 0.5))
    picture = Image.fromarray(images[0, 0].numpy().astype(np.float32)).resize((20, 20), Image.Resampling.BOX)
    np.testing.assert_allclose(
        exact[0, 0], np.asarray(picture.resize((40, 40), Image.Resampling.BILINEAR)) / 255, atol=1e-5
    )


# -- grain ------------------------------------------------------------------------------------------------------------


def test_grain_has_the_drawn_deviation_and_no_trace_of_its_neighbour():
    noise = only("gaussian")
    images = torch.full((16, 3, 64, 64), 128, dtype=torch.uint8)
    field = noisy(noise, images) - 128 / 255
    draws = drawn(noise, 16)
    assert torch.equal(field[:, 0], field[:, 1])  # grey on every channel
    # The deviation of 4096 normals is known to 1.1 %; 5 of those.
    np.testing.assert_allclose(field[:, 0].std((1, 2)).numpy(), draws.gaussian, rtol=0.055)
    flat = (field[:, 0] / field[:, 0].std((1, 2), keepdim=True)).flatten(1)
    assert flat.mean(1).abs().max() < 5 / 64
    correlation = flat @ flat.T / 4096
    assert (correlation - torch.eye(16)).abs().max() < 6 / 64
    across = (flat.view(16, 64, 64)[:, :, 1:] * flat.view(16, 64, 64)[:, :, :-1]).mean((1, 2))
    assert across.abs().max() < 6 / 64


def test_quantum_noise_grows_with_the_root_of_the_intensity():
    noise = only("poisson")
    levels = torch.tensor([0, 32, 64, 128, 200], dtype=torch.uint8)
    position, image_id = np.full(5, 10), np.full(5, 3)  # the same draw on films of different intensity
    images = levels[:, None, None, None].expand(-1, 1, 64, 64)
    field = augment(noise, size=64)(images, position, image_id) - to_float(images)
    deviation = field.std((1, 2, 3))
    white = drawn(noise, 1).poisson[0]
    assert deviation[0] == 0
    np.testing.assert_allclose(deviation[1:], white * np.sqrt(levels[1:].numpy() / 255), rtol=0.055)


def test_variances_of_quantum_and_detector_noise_add_up():
    noise = only("poisson", "gaussian")
    images = torch.full((8, 1, 64, 64), 100, dtype=torch.uint8)
    draws, field = drawn(noise, 8), noisy(noise, images) - 100 / 255
    expected = np.sqrt(draws.gaussian**2 + draws.poisson**2 * 100 / 255)
    np.testing.assert_allclose(field.std((1, 2, 3)), expected, rtol=0.055)


def test_grain_is_the_films_piece_of_the_bank_with_its_sign():
    noise = only("gaussian")
    images = torch.full((8, 1, 40, 40), 128, dtype=torch.uint8)
    field, draws = noisy(noise, images) - 128 / 255, drawn(noise, 8)
    assert len(set(draws.grain_sign)) == 2
    bank = randomness.generator(0, randomness.text_id("grain")).standard_normal(BANK + 1600, np.float32)
    for film, offset in enumerate(draws.grain_offset):
        expected = bank[offset : offset + 1600] * draws.gaussian[film] * draws.grain_sign[film]
        np.testing.assert_allclose(field[film].flatten().numpy(), expected, atol=1e-6)


def test_grain_depends_on_the_seed():
    images = torch.full((1, 1, 40, 40), 128, dtype=torch.uint8)
    one, two = (noisy(only("gaussian"), images, seed=seed) - 128 / 255 for seed in (0, 1))
    assert np.abs(np.corrcoef(one.flatten(), two.flatten())[0, 1]) < 0.15  # SD 1/40, and 6 of those


def test_grain_of_a_film_is_the_same_beside_one_with_quantum_noise():
    """The batch decides by which formula the grain is added; the bits are the same."""
    some = only("gaussian", "poisson").model_copy(update={"poisson": only("poisson", probability=0.5).poisson})
    images, (position, image_id) = films(16), where(16)
    full, without = augment(some)(images, position, image_id), drawn(some, 16).poisson == 0
    assert 3 < without.sum() < 13
    rows = np.flatnonzero(without)
    assert torch.equal(augment(some)(images[rows], position[rows], image_id[rows]), full[rows])


# -- paint ------------------------------------------------------------------------------------------------------------


def test_erasing_fills_one_rectangle_with_the_films_mean():
    noise = only("erase", probability=0.7, range=0.3)
    images = films(32, channels=3)
    clean, result = to_float(images), noisy(noise, images)
    edges = np.rint(drawn(noise, 32).erase * 40).astype(int)
    erased = 0
    for film, (top, left, bottom, right) in enumerate(edges):
        expected = clean[film].clone()
        expected[:, top:bottom, left:right] = clean[film].double().mean().float()
        torch.testing.assert_close(result[film], expected, rtol=0, atol=0.51 / 255)  # the mean is rounded to a level
        erased += (bottom - top) * (right - left) > 0
    assert 10 < erased < 32


def test_what_is_erased_has_the_films_mean_after_its_tone():
    noise, images = only("erase", "brightness"), films(8)
    draws, result = drawn(noise, 8), noisy(noise, images)
    mean = np.rint(images.double().mean((1, 2, 3)).numpy()) / 255
    for film, (top, left, bottom, right) in enumerate(np.rint(draws.erase * 40).astype(int)):
        piece = result[film, 0, top:bottom, left:right]
        np.testing.assert_allclose(piece, np.clip(mean[film] + draws.brightness[film], 0, 1), atol=1e-6)


def test_the_grid_mask_by_its_formula():
    noise, images = only("grid", probability=0.6), films(24)
    clean, result, draws = to_float(images), noisy(noise, images), drawn(noise, 24)
    place, masked = np.arange(40), 0
    for film, (period, side, down, right) in enumerate(np.rint(draws.grid * 40)):
        rows, columns = (place + down) % period < side, (place + right) % period < side
        inside = torch.from_numpy(rows[:, None] & columns[None, :])
        expected = torch.where(inside, clean[film, 0].double().mean().float(), clean[film, 0])
        torch.testing.assert_close(result[film, 0], expected, rtol=0, atol=0.51 / 255)
        masked += bool(inside.any())
    assert 8 < masked < 22
