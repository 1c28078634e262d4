"""Grain from a bank of normal numbers, and what is painted over a film: one rectangle, a grid of squares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisy_student import randomness
from noisy_student.learning.augment.arrays import column, placed
from noisy_student.learning.augment.draws import BANK

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Grain:
    """The noise of quanta and detector; holds the bank of normal numbers on the device."""

    def __init__(self, size: int, device: torch.device, seed: int) -> None:
        bank = randomness.generator(seed, randomness.text_id("grain")).standard_normal(BANK + size * size, np.float32)
        self._windows = torch.from_numpy(bank).to(device).unfold(0, size * size, 1)  # a view, (BANK + 1, S * S)

    def add(self, images: Tensor, gaussian: Floats, poisson: Floats, sign: Floats, offset: Ints) -> Tensor:
        """Return ``images`` (B, C, S, S) with their film's piece of the bank, the same on all channels.

        The variance is ``gaussian ** 2 + poisson ** 2 * intensity``: a detector's, and that of a Poisson number of
        quanta, whose normal limit holds well where ``poisson`` is below 0.1 (more than 100 quanta at white).
        """
        field = self._windows[placed(offset, images.device)].view(-1, 1, *images.shape[2:])
        if not poisson.any():
            return images + field * column(sign * gaussian, images)
        # The root of a rounded square is the number itself, so a film without quantum noise has the same bits here.
        quanta, detector = column(poisson, images).square(), column(gaussian, images).square()
        deviation = (images.clamp(min=0.0) * quanta).add_(detector).sqrt_()
        return images + field * column(sign, images) * deviation


def paint(images: Tensor, fill: Tensor, erase: Floats, grid: Floats, pixels: Tensor) -> Tensor:
    """Return ``images`` (B, C, S, S) with ``fill`` (B, 1) in a rectangle and in a regular grid of squares.

    Args:
        images: float films.
        fill: what is painted.
        erase: (B, 4) top, left, bottom, right as shares of the side; empty where nothing is erased.
        grid: (B, 4) period, side of a square, offset down, offset right as shares of the side (Chen et al., "GridMask
            data augmentation", 2020); a side of 0 is no grid.
        pixels: (S,) the numbers 0 ... S - 1 on the device.
    """
    size = len(pixels)
    edges = placed(np.rint(erase * size).astype(np.float32), images.device)
    top, left, bottom, right = edges[:, :, None].unbind(1)
    down, across = (pixels >= top) & (pixels < bottom), (pixels >= left) & (pixels < right)  # (B, S)
    inside = down[:, :, None] & across[:, None, :]
    if grid[:, 1].any():
        lines = placed(np.rint(grid * size).astype(np.float32), images.device)
        period, side, first_row, first_column = lines[:, :, None].unbind(1)
        down, across = ((pixels + first).remainder(period) < side for first in (first_row, first_column))
        inside |= down[:, :, None] & across[:, None, :]
    return torch.where(inside[:, None], fill[:, :, None, None], images)
