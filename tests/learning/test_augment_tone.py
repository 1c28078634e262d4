"""Point operations, equalisation and CLAHE against formulas, PIL and Kornia."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from films import drawn, films, noisy, only
from kornia.enhance import equalize_clahe
from PIL import Image, ImageOps

from noisy_student.learning.augment import to_float, tone

COLUMNS = ("gamma", "contrast", "brightness")


def column(values):
    return torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None, None, None]


def test_gamma_contrast_and_brightness_by_formula():
    images = films(channels=3)
    clean = to_float(images).double()
    noise = only(*COLUMNS)
    gamma, contrast, brightness = (column(getattr(drawn(noise), name)) for name in COLUMNS)
    # The mean is rounded to a level.
    mean = (clean.mean((1, 2, 3), keepdim=True) * 255).round() / 255
    contrasted = (mean + (clean - mean) * contrast).clamp(0, 1)
    for names, expected in (
        (("gamma",), clean**gamma),
        (("brightness",), (clean + brightness).clamp(0, 1)),
        (("contrast",), contrasted),
        (COLUMNS, (contrasted**gamma + brightness).clamp(0, 1)),
    ):
        torch.testing.assert_close(noisy(only(*names), images).double(), expected, rtol=0, atol=1e-6)


def test_window_stretches_what_it_leaves():
    draws, clean = drawn(only("window")), to_float(films()).double()
    low, high = column(draws.window[:, 0]), 1 - column(draws.window[:, 1])
    assert (draws.window > 0.01).all()
    expected = ((clean - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(noisy(only("window")).double(), expected, rtol=0, atol=1e-6)


def test_contrast_keeps_the_mean_of_the_windowed_film():
    noise = only("window", "contrast")
    draws, clean = drawn(noise), to_float(films()).double()
    low, width = column(draws.window[:, 0]), 1 - column(draws.window.sum(1))
    mean = (clean.mean((1, 2, 3), keepdim=True) * 255).round() / 255
    values, mean = (((part - low) / width).clamp(0, 1) for part in (clean, mean))
    expected = (mean + (values - mean) * column(draws.contrast)).clamp(0, 1)
    torch.testing.assert_close(noisy(noise).double(), expected, rtol=0, atol=1e-6)


def test_posterise_is_pils():
    images = films(32)
    bits = drawn(only("posterize"), 32).posterize
    assert set(bits) == {1, 2, 3, 4, 5}
    result = noisy(only("posterize"), images)
    for film in range(32):
        expected = ImageOps.posterize(Image.fromarray(images[film, 0].numpy()), 8 - int(bits[film]))
        assert np.array_equal(np.rint(result[film, 0].numpy() * 255), np.asarray(expected))


def test_posterise_comes_after_the_other_point_operations():
    noise, images = only("gamma", "posterize"), films()
    draws = drawn(noise)
    toned = np.rint((images.numpy() / 255.0) ** draws.gamma[:, None, None, None] * 255).astype(int)
    step = 2 ** draws.posterize[:, None, None, None]
    np.testing.assert_allclose(noisy(noise, images).numpy() * 255, toned - toned % step, atol=1e-4)


def test_equalise_is_pils():
    images = films(6, size=64)
    levels = tone.equalized(images)
    for film in range(6):
        expected = ImageOps.equalize(Image.fromarray(images[film, 0].numpy()))
        assert np.array_equal(levels[film].numpy()[images[film, 0].numpy()], np.asarray(expected))
    draws = dataclasses.replace(drawn(only()), equalize=np.array([0.0, 0.25, 0.5, 0.75, 1.0, 0.1]))
    blended = tone.table(images, draws)
    clean = torch.arange(256) / 255
    expected = clean + torch.from_numpy(draws.equalize)[:, None] * (levels / 255 - clean)
    torch.testing.assert_close(blended.double(), expected, rtol=0, atol=1e-6)


def test_equalise_leaves_a_film_of_one_level():
    for level in (0, 77, 255):
        flat = torch.full((2, 1, 40, 40), level, dtype=torch.uint8)
        assert torch.equal(noisy(only("equalize"), flat), to_float(flat[:2]))


@pytest.mark.parametrize(("size", "tiles"), [(64, 8), (96, 8), (224, 8), (40, 4)])
@pytest.mark.parametrize("clip", [2.0, 4.0])
def test_clahe_is_kornias(size, tiles, clip):
    images = films(4, size=size)
    # A hundredth of a level more: Kornia truncates, and k / 255 * 255 may be a little below k.
    levels = ((images.double() + 0.01) / 255).clamp(max=1)
    expected = 255 * equalize_clahe(levels, clip, (tiles, tiles))
    result = tone.clahe(images, np.ones(4), clip).double()
    assert (result - images).abs().mean() > 5
    # Ours is rounded to a level. Both interpolate between the same tables, in which ties are rounded differently: with
    # 100 pixels to a tile every tenth count is one.
    assert (result - expected).abs().max() <= 1.51
    assert ((result - expected).abs() > 0.51).double().mean() < 0.06


def test_clahe_of_sizes_that_tiles_do_not_divide_flips_with_the_film():
    images = films(4, size=75)
    flipped = tone.clahe(images.flip(-1), np.ones(4)).flip(-1).int()
    # Tiles of nine and ten pixels are not laid symmetrically, so this is no identity, but nearly one.
    difference = (flipped - tone.clahe(images, np.ones(4)).int()).abs().float()
    assert difference.mean() < 12
    assert tone.clahe(images, np.zeros(4)).equal(images)


def test_clahe_is_blended_by_its_share():
    images = films(3, size=64)
    whole = tone.clahe(images, np.ones(3)).double()
    half = tone.clahe(images, np.array([0.0, 0.5, 1.0])).double()
    share = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None]
    assert (half - (images + share * (whole - images))).abs().max() <= 1.0  # each rounds to a level


def test_mean_level_rounds_half_up():
    images = torch.tensor([[0, 1], [1, 2], [255, 255], [0, 0]], dtype=torch.uint8).view(4, 1, 1, 2)
    assert tone.mean_level(images).flatten().tolist() == [1, 2, 255, 0]
