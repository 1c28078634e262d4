"""Mixup and cutmix: partners, pixels, and a loss that is exactly the mixture of two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from films import augment, films, only

from noisy_student.config import NoiseConfig
from noisy_student.learning.augment import Mixing, draw_mixing, mix, to_float
from noisy_student.learning.losses import smoothed, weighted_bce

COUNT, LABELS = 16, 5


def labels(seed=0, count=COUNT):
    """Return target, weight and pos_weight with unknown entries, some of them NaN."""
    rng = np.random.default_rng(seed)
    target, weight = rng.random((count, LABELS)), rng.random((count, LABELS)) * (rng.random((count, LABELS)) > 0.4)
    target[weight == 0] = np.where(rng.random((count, LABELS)) < 0.5, np.nan, 0.3)[weight == 0]
    target[rng.random((count, LABELS)) < 0.2] = 0.0
    return tuple(torch.from_numpy(part) for part in (target, weight, rng.uniform(1, 8, (count, LABELS))))


def mixing_of(noise, count=COUNT, step=0, **coordinates):
    position = np.arange(count, dtype=np.int64) + step * count
    return draw_mixing(noise, **{"seed": 0, "generation": 1, "position": position} | coordinates)


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("names", [("mixup",), ("cutmix",), ("mixup", "cutmix")], ids="-".join)
def test_the_loss_of_the_mixture_is_the_mixture_of_the_losses(names, smoothing):
    """lam * loss(x, a) + (1 - lam) * loss(x, b), summed over films and labels, and the same for the sum of weights."""
    mixing = mixing_of(only(*names, probability=0.5))
    target, weight, pos_weight = labels()
    target = smoothed(target, smoothing)  # as batches are: before they are mixed
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 3, (COUNT, LABELS))).requires_grad_()
    images = to_float(films(COUNT))
    mixed = weighted_bce(logits, *mix(mixing, images, target, weight, pos_weight)[1:])

    edges = np.rint(mixing.cut * 40)
    part = mixing.share + (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1]) / 1600
    assert 4 < (part > 0).sum() < COUNT
    lam = torch.from_numpy(1 - part)[:, None]
    other = torch.from_numpy(mixing.partner)
    mine = weighted_bce(logits, target, weight * lam, pos_weight)
    theirs = weighted_bce(logits, target[other], weight[other] * (1 - lam), pos_weight[other])
    for whole, *parts in zip(mixed, mine, theirs, strict=True):
        # The mixture's share of the partner is held in single precision.
        torch.testing.assert_close(whole, sum(parts), rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(mixed[0], logits, retain_graph=True)[0]
    expected = torch.autograd.grad(mine[0] + theirs[0], logits)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_targets_and_class_weights_stay_in_range():
    target, weight, pos_weight = mix(mixing_of(only("mixup")), to_float(films(COUNT)), *labels())[1:]
    known = weight > 0
    assert known.any()
    assert target[known].min() >= 0
    assert target[known].max() <= 1
    assert torch.isfinite(target[known]).all()
    assert pos_weight.min() >= 1 - 1e-9
    assert pos_weight.max() <= 8
    assert not weight.isnan().any()


@pytest.mark.parametrize("channels", [1, 3])
def test_mixup_blends_the_films_by_its_share(channels):
    mixing = mixing_of(only("mixup", probability=0.6))
    images = to_float(films(COUNT, channels))
    result = mix(mixing, images, *labels())[0]
    assert 4 < (mixing.share > 0).sum() < COUNT
    assert not mixing.cut.any()
    share = torch.from_numpy(mixing.share).float()[:, None, None, None]
    expected = images * (1 - share) + images[mixing.partner] * share
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert torch.equal(result[mixing.share == 0], images[mixing.share == 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_cutmix_pastes_the_partners_rectangle(channels):
    mixing = mixing_of(only("cutmix", probability=0.6))
    images = to_float(films(COUNT, channels))
    result = mix(mixing, images, *labels())[0]
    assert not mixing.share.any()
    pasted = 0
    for film, (top, left, bottom, right) in enumerate(np.rint(mixing.cut * 40).astype(int)):
        expected = images[film].clone()
        expected[:, top:bottom, left:right] = images[mixing.partner[film], :, top:bottom, left:right]
        assert torch.equal(result[film], expected)
        pasted += (bottom - top) * (right - left) > 0
    assert 4 < pasted < COUNT


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("names", [("mixup",), ("cutmix",), ("mixup", "cutmix")], ids="-".join)
def test_mixed_pixels_stay_on_the_scale(names, channels):
    """Films of noise at the very ends of the scale: rounding must not lead beyond them."""
    levels = np.random.default_rng(2).choice([0, 1, 254, 255], (COUNT, channels, 40, 40)).astype(np.uint8)
    images = to_float(torch.from_numpy(levels))
    result = mix(mixing_of(only(*names, probability=0.8)), images, *labels())[0]
    assert result.shape == images.shape
    assert not torch.equal(result, images)
    assert result.min() >= 0
    assert result.max() <= 1


def test_what_is_not_mixed_is_left_as_it_is():
    images, (target, weight, pos_weight) = to_float(films(COUNT)), labels()
    mixing = mixing_of(only("mixup", probability=0.5))
    alone = mixing.share == 0
    result = mix(mixing, images, target, weight, pos_weight)
    for before, after in zip((images, target, weight, pos_weight), result, strict=True):
        assert np.array_equal(before[alone], after[alone], equal_nan=True)
        assert after.dtype == before.dtype
    nothing = Mixing(np.arange(COUNT), np.zeros(COUNT), np.zeros((COUNT, 4)))
    assert mix(nothing, images, target, weight, pos_weight)[0] is images


def test_partners_are_others_of_the_batch_and_every_other_is_as_likely():
    counts = np.zeros((8, 8))
    for step in range(400):
        mixing = mixing_of(only("mixup"), 8, step)
        assert (mixing.partner != np.arange(8)).all()
        np.add.at(counts, (np.arange(8), mixing.partner), 1)
    assert counts.sum() == 3200
    off = counts[~np.eye(8, dtype=bool)]
    # 400 draws among seven: 57 each, SD 7; 5 of those.
    assert abs(off - 400 / 7).max() < 35


def test_mixing_depends_on_the_place_and_not_on_the_order_in_the_batch():
    noise, order = only("mixup", "cutmix", probability=0.5), np.random.default_rng(0).permutation(COUNT)
    straight = mixing_of(noise, step=3)
    shuffled = draw_mixing(noise, seed=0, generation=1, position=3 * COUNT + order)
    assert np.array_equal(order[shuffled.partner], straight.partner[order])
    assert np.array_equal(shuffled.share, straight.share[order])
    assert np.array_equal(shuffled.cut, straight.cut[order])
    images, given = to_float(films(COUNT)), labels()
    one = mix(straight, images, *given)
    two = mix(shuffled, images[order], *(part[order] for part in given))
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(first[order], second, equal_nan=True)


@pytest.mark.parametrize("change", [{"seed": 1}, {"generation": 2}, {"step": 1}])
def test_every_coordinate_changes_the_mixing(change):
    first, second = (mixing_of(only("mixup", "cutmix", probability=0.5), **given) for given in ({}, change))
    assert not np.array_equal(first.partner, second.partner)
    assert not np.array_equal(first.share, second.share)
    assert not np.array_equal(first.cut, second.cut)


def test_the_film_stays_the_larger_part_and_the_dial_shrinks_the_other():
    for strength in (10.0, 4.0):
        mixing = mixing_of(only("mixup", strength=strength), 400)
        assert 0.49 * strength / 10 < mixing.share.max() <= 0.5 * strength / 10
        top, left, bottom, right = mixing_of(only("cutmix", strength=strength), 400).cut.T
        area = (bottom - top) * (right - left)
        assert 0.49 * strength / 10 < area.max() <= 0.5 * strength / 10 + 1e-9
        assert min(top.min(), left.min()) >= 0
        assert max(bottom.max(), right.max()) <= 1 + 1e-9


def test_probabilities_of_mixup_and_cutmix():
    noise = only("mixup", probability=0.3).model_copy(update={"cutmix": only("cutmix", probability=0.5).cutmix})
    mixing = mixing_of(noise, 4000)
    # SD of a share of 0.3 in 4000 draws is 0.0073; 5 of those.
    assert (mixing.share > 0).mean() == pytest.approx(0.3, abs=0.036)
    assert mixing.cut.any(1).mean() == pytest.approx(0.7 * 0.5, abs=0.038)
    assert not ((mixing.share > 0) & mixing.cut.any(1)).any()


@pytest.mark.parametrize(
    ("noise", "count"), [(NoiseConfig(), 8), (only("mixup", probability=0.0), 8), (only("mixup", strength=0), 8),
                         (only("mixup"), 1)]
)  # fmt: skip
def test_nothing_to_mix(noise, count):
    assert mixing_of(noise, count) is None
    images, given = to_float(films(count)), labels(count=count)
    assert augment(noise).mix(images, *given, np.arange(count))[0] is images


def test_half_a_batch_is_a_mistake():
    with pytest.raises(AssertionError, match="whole batch"):
        draw_mixing(only("mixup"), seed=0, generation=1, position=np.array([0, 1, 5]))


def test_gradients_never_flow():
    images = to_float(films(COUNT)).requires_grad_()
    with torch.enable_grad():
        mixed = augment(only("mixup")).mix(images, *labels(), np.arange(COUNT))
    assert not any(part.requires_grad for part in mixed)
