"""Mixup and cutmix: two films of a batch and their soft targets become one.

Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018, and Yun et al., "CutMix", ICCV 2019. Both train on
``lam * loss(a) + (1 - lam) * loss(b)``. The weighted cross-entropy is linear in weight, target and class weight, so
that sum is the loss of one film with the target, weight and class weight that :func:`mix` returns: no objective has to
know that a film is mixed. The film at a place stays the larger part of the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisy_student import randomness
from noisy_student.config.noise import STRONGEST, NoiseConfig
from noisy_student.learning.augment.arrays import column, placed
from noisy_student.learning.augment.draws import rectangles

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SLOTS: Final = 6  # used or not, share, partner, and the rectangle's shape and place


@dataclass(frozen=True)
class Mixing:
    """Who is mixed with whom in a batch; arrays have shape (B,) unless said otherwise."""

    partner: Ints
    """Row of the other film in the batch."""
    share: Floats
    """Weight of the partner in the blend of mixup."""
    cut: Floats
    """Top, left, bottom and right (B, 4), as shares of the side, of the rectangle that is the partner's (cutmix)."""


def mixes(noise: NoiseConfig) -> bool:
    """Return whether the policy mixes films at all."""
    return noise.strength > 0 and max(noise.mixup.probability, noise.cutmix.probability) > 0


def draw_mixing(noise: NoiseConfig, *, seed: int, generation: int, position: Ints) -> Mixing | None:
    """Return the mixing of a whole batch, ``None`` where the policy has none.

    A film's partner is a function of (seed, generation, position) and of the batch that the position belongs to: the
    places ``position`` have to be all those of a step, in any order. A film gets mixup or cutmix, not both.

    Args:
        noise: what to draw from.
        seed: seed of the run.
        generation: number of the generation.
        position: (B,) places of the batch in the sample sequence, without gaps.
    """
    count, dial = len(position), noise.strength / STRONGEST
    if count < 2 or not mixes(noise):
        return None
    first = int(position.min())
    assert position.max() - first == count - 1, "mixing takes a whole batch"
    u = randomness.uniform(seed, generation, position[:, None], randomness.text_id("mixing"), np.arange(_SLOTS)[None])
    step = 1 + (u[:, 2] * (count - 1)).astype(np.int64)  # 1 ... count - 1: never the film itself
    row = np.empty(count, dtype=np.int64)
    row[position - first] = np.arange(count)
    blends, cuts = noise.mixup.probability, noise.cutmix.probability
    # Of two operations that both would come, cutmix gives way: mixup takes [0, p), cutmix a share of the rest.
    blended = u[:, 0] < blends
    cut = ~blended & (u[:, 0] < blends + (1.0 - blends) * cuts)
    area = np.where(cut, u[:, 1] * noise.cutmix.range * dial, 0.0)
    return Mixing(
        partner=row[(position - first + step) % count],
        share=np.where(blended, u[:, 1] * noise.mixup.range * dial, 0.0),
        cut=rectangles(area, u[:, 3], u[:, 4], u[:, 5]),
    )


def mix(
    mixing: Mixing, images: Tensor, target: Tensor, weight: Tensor, pos_weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images, target, weight and pos_weight of the mixed batch.

    With ``lam`` the film's share of an entry, ``w`` the weights, ``y`` the targets and ``c`` the class weights of film
    a and its partner b, the mixture has the weight ``W = lam w_a + (1 - lam) w_b``, the target ``Y = (lam w_a y_a +
    (1 - lam) w_b y_b) / W`` and the class weight ``(lam w_a c_a y_a + (1 - lam) w_b c_b y_b) / (W Y)``. Its weighted
    cross-entropy, and its sum of weights, are then exactly ``lam`` of a's and ``1 - lam`` of b's.

    Args:
        mixing: from :func:`draw_mixing`.
        images: float (B, C, S, S).
        target: (B, K) in [0, 1], NaN where the weight is 0 allowed.
        weight: (B, K), >= 0.
        pos_weight: (B, K), > 0.
    """
    size, device = images.shape[-1], images.device
    edges = np.rint(mixing.cut * size)
    height, width = edges[:, 2] - edges[:, 0], edges[:, 3] - edges[:, 1]
    taken = mixing.share + height * width / size**2  # the partner's part of each film; one of the two is 0
    chosen = np.flatnonzero(taken)
    if not len(chosen):
        return images, target, weight, pos_weight
    rows, others = (placed(index, device) for index in (chosen, mixing.partner[chosen]))
    mine, theirs = images[rows], images[others]
    share = column(mixing.share[chosen], images)
    blended = mine * (1.0 - share) + theirs * share
    pixels = torch.arange(size, device=device, dtype=torch.float32)
    top, left, bottom, right = placed(edges[chosen].astype(np.float32), device)[:, :, None].unbind(1)
    down, across = (pixels >= top) & (pixels < bottom), (pixels >= left) & (pixels < right)
    mixed = images.clone()
    mixed[rows] = torch.where((down[:, :, None] & across[:, None, :])[:, None], theirs, blended)

    part = placed(taken.astype(np.float32), device)[:, None]
    known = torch.where(weight > 0, target, 0.0)  # a target that counts for nothing may be NaN
    other = placed(mixing.partner, device)
    ours, others_weight = weight * (1.0 - part), weight[other] * part
    positive, others_positive = ours * known, others_weight * known[other]
    total, share_of_ones = ours + others_weight, positive + others_positive
    ones = positive * pos_weight + others_positive * pos_weight[other]
    untouched = part == 0
    return (
        mixed,
        torch.where(untouched, target, _ratio(share_of_ones, total, 0.0)),
        torch.where(untouched, weight, total),
        torch.where(untouched, pos_weight, _ratio(ones, share_of_ones, 1.0)),
    )


def _ratio(above: Tensor, below: Tensor, otherwise: float) -> Tensor:
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), otherwise)
