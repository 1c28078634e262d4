"""What holds for every operation of the noise: it depends on the film's coordinates alone, and stays in its range."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from films import augment, drawn, films, noisy, only, where

from noisy_student.config import NoiseConfig
from noisy_student.config.noise import OPERATIONS
from noisy_student.learning.augment import Draws, contact_sheet, draw, preview, to_float

MIXING = ("mixup", "cutmix")
PIXELS = tuple(name for name in OPERATIONS if name not in MIXING)
EVERYTHING = NoiseConfig(strength=9, count=len(PIXELS))


# -- nothing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_strength_zero_is_exactly_the_clean_film(channels):
    images = films(channels=channels)
    kept = images.clone()
    result = noisy(NoiseConfig(strength=0.0, count=20), images)
    assert torch.equal(result, images.float() / 255)
    assert torch.equal(to_float(images), result)
    assert torch.equal(images, kept)


def test_noise_without_any_operation_is_exactly_the_clean_film():
    assert torch.equal(noisy(only()), to_float(films()))


@pytest.mark.parametrize("name", PIXELS)
def test_probability_zero_is_the_identity(name):
    assert torch.equal(noisy(only(name, probability=0.0)), to_float(films()))


@pytest.mark.parametrize("name", [name for name in PIXELS if name != "flip"])
def test_range_zero_is_the_identity(name):
    result = noisy(only(name, range=0.0))
    # A warp by nothing still interpolates, at pixel centres that are good to rounding.
    torch.testing.assert_close(result, to_float(films()), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", PIXELS)
def test_an_operation_does_something_to_every_film(name):
    images = films(12, size=96)
    changed = (noisy(only(name), images) - to_float(images)).abs().amax((1, 2, 3))
    assert (changed > 1e-3).all()


@pytest.mark.parametrize("name", PIXELS)
def test_films_that_do_not_draw_an_operation_are_left_alone(name):
    images = films(24)
    all_of_them, some = noisy(only(name), images), noisy(only(name, probability=0.5), images)
    clean = to_float(images)
    with_it = torch.tensor([torch.equal(some[film], all_of_them[film]) for film in range(24)])
    without = torch.tensor([torch.allclose(some[film], clean[film], rtol=0, atol=2e-5) for film in range(24)])
    assert (with_it | without).all()
    assert 4 <= without.sum() <= 20


# -- purity -----------------------------------------------------------------------------------------------------------


def check_alone_and_together(noise, channels, size, count):
    images, (position, image_id) = films(count, channels, size), where(count)
    call = augment(noise, channels, size)
    full = call(images, position, image_id)
    for order in (np.random.default_rng(1).permutation(count), np.arange(1, count, 2), *np.arange(6)[:, None]):
        part = call(images[torch.from_numpy(order)], position[order], image_id[order])
        assert torch.equal(part, full[torch.from_numpy(order)])


@pytest.mark.parametrize("name", PIXELS)
def test_an_operation_does_not_depend_on_the_batch(name):
    check_alone_and_together(only(name, probability=0.7), 1, 40, 9)


@pytest.mark.parametrize("noise", [EVERYTHING, NoiseConfig()], ids=["everything", "default"])
@pytest.mark.parametrize(("channels", "size"), [(1, 40), (3, 33), (1, 64)])
def test_a_film_does_not_depend_on_its_batch(channels, size, noise):
    check_alone_and_together(noise, channels, size, 11)


def test_a_film_does_not_depend_on_the_threads_that_share_its_batch():
    before, (position, image_id) = torch.get_num_threads(), where(17)
    call = augment(EVERYTHING, size=64)
    try:
        torch.set_num_threads(1)
        alone = call(films(17, size=64), position, image_id)
        torch.set_num_threads(2)
        assert torch.equal(call(films(17, size=64), position, image_id), alone)
    finally:
        torch.set_num_threads(before)


def test_every_coordinate_changes_every_operation():
    noise = NoiseConfig(strength=10, count=20)
    position, image_id = where(64)
    base = {"seed": 0, "generation": 1, "position": position, "image_id": image_id}
    first = draw(noise, **base)
    changes = ({"seed": 1}, {"generation": 2}, {"position": position + 100}, {"image_id": image_id + 1})
    for name in (field.name for field in dataclasses.fields(Draws)):
        assert np.array_equal(getattr(first, name), getattr(draw(noise, **base), name))
        for change in changes:
            assert not np.array_equal(getattr(first, name), getattr(draw(noise, **{**base, **change}), name)), name


def test_taking_an_operation_away_leaves_the_draws_of_the_others():
    noise = NoiseConfig(count=20)
    less = noise.model_copy(update={"rotate": noise.rotate.model_copy(update={"probability": 0.0})})
    for name in (field.name for field in dataclasses.fields(Draws)):
        same = np.array_equal(getattr(drawn(noise), name), getattr(drawn(less), name))
        assert same == (name != "rotate")


def test_the_same_film_at_another_place_gets_other_noise():
    images = films(1).repeat(2, 1, 1, 1)
    call = augment(NoiseConfig())
    same = call(images, np.array([4, 4]), np.array([9, 9]))
    other = call(images, np.array([4, 5]), np.array([9, 9]))
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], other[0])
    assert not torch.equal(other[0], other[1])


# -- range ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PIXELS)
def test_an_operation_gives_float_films_in_the_unit_interval_without_gradient(name, channels):
    images = films(6, channels)
    kept = images.clone()
    with torch.enable_grad():
        result = noisy(only(name), images)
    assert torch.equal(images, kept)
    assert (result.dtype, result.shape) == (torch.float32, images.shape)
    assert not result.requires_grad
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("name", PIXELS)
def test_grey_films_of_three_channels_are_treated_as_grey_films(name):
    grey = films()
    colour = noisy(only(name), grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(colour, noisy(only(name), grey).expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("strength", [1.0, 5.0, 10.0])
def test_the_whole_policy_stays_in_range_and_grows_with_the_dial(strength):
    images = films(48)
    result = noisy(NoiseConfig(strength=strength), images)
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1
    weaker = noisy(NoiseConfig(strength=strength / 2), images)
    # Without the flip, which has no range.
    still = torch.from_numpy(~drawn(NoiseConfig(), 48).flip)
    clean = to_float(images)
    assert (result - clean)[still].abs().mean() > 1.2 * (weaker - clean)[still].abs().mean()


def test_flat_films_come_through():
    for level in (0, 1, 128, 255):
        flat = torch.full((32, 1, 40, 40), level, dtype=torch.uint8)
        assert torch.isfinite(noisy(EVERYTHING, flat)).all()


# -- the policy -------------------------------------------------------------------------------------------------------


def test_count_operations_are_chosen_per_film_without_replacement():
    optional = [name for name, operation in NoiseConfig().operations().items() if operation.optional]
    assert len(optional) == 15
    noise = NoiseConfig(count=3)
    draws = drawn(noise, 3000)
    used = np.stack([active(draws, name) for name in optional], axis=1)
    assert used.sum(1).max() == 3
    assert used.sum(1).min() == 3
    for name, share in zip(optional, used.mean(0), strict=True):
        # SD of a share of 0.2 in 3000 draws is 0.0073; 5 of those.
        assert share == pytest.approx(0.2, abs=0.037), name
    together = np.corrcoef(used.T)
    assert (together[~np.eye(15, dtype=bool)] < 0.05).all()  # drawn without replacement, one makes another rarer


def active(draws, name):
    values = getattr(draws, name)
    if name == "sharpness":
        return values != 1
    return values[:, 1] > 0 if name == "grid" else values.reshape(len(values), -1).any(1) & np.any(values)


@pytest.mark.parametrize("count", [0, 15, 99])
def test_none_or_all_of_the_optional_operations(count):
    draws = drawn(NoiseConfig(count=count), 8)
    for name in ("elastic", "blur", "erase", "grid", "gaussian", "window"):
        assert active(draws, name).all() == (count > 0)
        assert active(draws, name).any() == (count > 0)


def test_an_optional_operation_is_used_with_its_probability_once_chosen():
    base = NoiseConfig(count=15)
    noise = base.model_copy(update={"blur": base.blur.model_copy(update={"probability": 0.3})})
    assert (drawn(noise, 3000).blur > 0).mean() == pytest.approx(0.3, abs=0.042)  # 5 SD of 0.0084


@pytest.mark.parametrize("strength", [2.0, 7.0, 10.0])
def test_ranges_scale_with_strength(strength):
    noise = NoiseConfig(strength=strength).only(*PIXELS)
    draws, dial = drawn(noise, 4000), strength / 10
    reach = {name: operation.range * dial for name, operation in noise.operations().items()}
    for name, values in (
        ("rotate", draws.rotate),
        ("translate", draws.translate),
        ("shear", draws.shear),
        ("perspective", draws.perspective),
        ("elastic", draws.elastic),
        ("brightness", draws.brightness),
        ("contrast", draws.contrast - 1),
        ("gamma", np.log2(draws.gamma)),
        ("scale", np.log(draws.scale) / np.log1p(reach["scale"]) * reach["scale"]),
    ):
        # Uniform on [-largest, largest): of 4000 the extreme is within 1 % of it, the mean within 5 %.
        assert 0.99 * reach[name] < np.abs(values).max() <= reach[name] * (1 + 1e-9), name
        assert abs(values.mean()) < 0.05 * reach[name], name
    for name, values in (
        ("crop", draws.crop),
        ("window", draws.window),
        ("equalize", draws.equalize),
        ("clahe", draws.clahe),
        ("edges", draws.edges),
        ("poisson", draws.poisson),
        ("gaussian", draws.gaussian),
        ("grid", (draws.grid[:, 1] / draws.grid[:, 0]) ** 2),
    ):
        assert values.min() >= 0
        assert 0.99 * reach[name] < values.max() <= reach[name], name
        assert values.mean() == pytest.approx(reach[name] / 2, rel=0.05), name
    assert 0.25 * reach["blur"] <= draws.blur.min() < 0.26 * reach["blur"]
    assert 0.99 * reach["blur"] < draws.blur.max() <= reach["blur"]
    assert draws.posterize.max() == np.ceil(reach["posterize"])
    assert draws.posterize.min() == 1
    assert draws.low_resolution.max() == pytest.approx(reach["low_resolution"], abs=0.0501)
    assert draws.sharpness.max() == pytest.approx(1 + reach["sharpness"], rel=0.01)
    assert draws.sharpness.min() == pytest.approx(max(1 - reach["sharpness"], 0), abs=0.01)
    top, left, bottom, right = draws.erase.T
    area = (bottom - top) * (right - left)
    assert 0.99 * reach["erase"] < area.max() <= reach["erase"] + 1e-12
    assert min(top.min(), left.min()) >= 0
    assert max(bottom.max(), right.max()) <= 1 + 1e-12
    assert draws.flip.all()
    assert set(draws.grain_sign) == {-1.0, 1.0}


def test_operations_are_drawn_independently():
    draws = drawn(NoiseConfig().only(*PIXELS, probability=0.5), 4000)
    columns = [draws.rotate, draws.scale, *draws.translate.T, *draws.shear.T, draws.gamma, draws.contrast]
    columns += [draws.brightness, *draws.crop.T, draws.blur, draws.gaussian, draws.poisson, draws.flip]
    correlation = np.corrcoef([*columns, draws.grain_sign])
    off = np.abs(correlation - np.eye(len(correlation)))
    off[9:13, 9:13] = 0  # the four sides of a crop come together
    off[2:4, 2:4] = off[4:6, 4:6] = 0
    # Independent columns have a correlation of SD 1/sqrt(4000) = 0.016; 150 pairs stay below 5 of those.
    assert off.max() < 0.08


def test_films_of_another_shape_are_a_mistake():
    with pytest.raises(AssertionError, match="another shape"):
        augment(NoiseConfig())(films(size=32), *where())


# -- pictures ---------------------------------------------------------------------------------------------------------


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


def test_the_preview_shows_every_operation_and_every_strength():
    images, noise = films(2, size=32), NoiseConfig(strength=6)
    sheet = preview(images.numpy(), noise, strengths=(0, 5), names=("a", "b"), generation=3, tile=32)
    side, caption, gap = 32, 18, 3
    position = np.arange(2, dtype=np.int64)

    def shown(block, column, row=0):
        heights = [caption + 2 * (side + (caption if number == 0 else 0) + gap) for number in range(4)]
        top = sum(heights[:block]) + caption + row * (heights[block] - caption) // 2
        return sheet[top : top + side, column * (side + gap) : column * (side + gap) + side]

    for block in range(4):
        assert np.array_equal(shown(block, 0, 1), images[1, 0])
    for block, column, name in ((0, 1, "flip"), (1, 6, "clahe"), (2, 7, "grid")):
        expected = augment(noise.only(name), size=32, generation=3)(images, position, position)
        assert np.array_equal(shown(block, column, 1), np.rint(expected[1, 0].numpy() * 255)), name
    assert not np.array_equal(shown(2, 8), images[0, 0])  # mixup
    assert np.array_equal(shown(3, 1), images[0, 0])  # strength 0
    policy = augment(noise.model_copy(update={"strength": 5}), size=32, generation=3)
    for column, first in ((2, 2), (3, 4)):
        expected = policy(images, position + first, position)
        assert np.array_equal(shown(3, column), np.rint(expected[0, 0].numpy() * 255))
