"""Filters of neighbouring pixels, as sums of shifted films.

The grouped convolution of Kornia's filters picks another algorithm, and other last bits, for a batch of one; a sum of
shifted films has the same bits in any batch.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from noisy_student.learning.augment.arrays import column, placed

Floats = npt.NDArray[np.float64]


def blur(images: Tensor, sigma: Floats) -> Tensor:
    """Return (B, C, S, S) ``images`` after a Gaussian blur with ``sigma`` (B,) > 0 in pixels; edges reflect."""
    # Wider than three deviations adds nothing; reflection needs a radius below the side.
    reach = np.minimum(np.ceil(3.0 * sigma), images.shape[-1] - 1)
    radius = int(reach.max())
    offsets = np.arange(-radius, radius + 1)
    # Each film's own radius, so that a film's kernel does not depend on the widest of its batch.
    weights = np.exp(-0.5 * (offsets / sigma[:, None]) ** 2) * (np.abs(offsets) <= reach[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    taps = placed(weights.astype(np.float32), images.device)[:, :, None, None, None]
    for axis, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = functional.pad(images, padding, mode="reflect")
        length = images.shape[axis]
        images, scaled = padded.narrow(axis, 0, length) * taps[:, 0], torch.empty_like(images)
        for tap in range(1, 2 * radius + 1):  # a fused multiply-add would round differently at a tensor's end
            images += torch.mul(padded.narrow(axis, tap, length), taps[:, tap], out=scaled)
    return images


def highlight(images: Tensor, amount: Floats, sigma: float) -> Tensor:
    """Return ``images`` plus ``amount`` (B,) times their difference to a blurred copy (unsharp mask), in [0, 1]."""
    smooth = blur(images, np.full(len(images), sigma))
    weight = column(amount, images)
    return (images + (images - smooth) * weight).clamp_(0.0, 1.0)


def sharpen(images: Tensor, factor: Floats) -> Tensor:
    """Return ``images`` with their distance to a smoothed copy multiplied by ``factor`` (B,) >= 0, in [0, 1].

    The smoothed copy is PIL's: a 3 x 3 mean in which the centre counts five times. The outermost pixels stay.
    """
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    box = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]
    inner = images[:, :, 1:-1, 1:-1]
    smooth = (box + 4.0 * inner) / 13.0
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = (smooth + (inner - smooth) * column(factor, images)).clamp_(0.0, 1.0)
    return result


def coarsen(images: Tensor, loss: Floats) -> Tensor:
    """Return ``images`` averaged to 1 - ``loss`` (B,) of their size and enlarged again; few different losses, < 1."""
    result, size = images.clone(), images.shape[-1]
    for value in np.unique(loss[loss > 0]):
        rows = placed(np.flatnonzero(loss == value), images.device)
        side = max(2, math.ceil(size * (1.0 - value)))
        small = functional.interpolate(images[rows], (side, side), mode="area")
        result[rows] = functional.interpolate(small, (size, size), mode="bilinear", align_corners=False)
    return result
