"""From a batch of clean films to a batch of noisy ones: the order of the operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisy_student.config.noise import NoiseConfig
from noisy_student.learning.augment import filters, geometry, texture, tone
from noisy_student.learning.augment.arrays import placed
from noisy_student.learning.augment.draws import Draws, draw
from noisy_student.learning.augment.mixing import draw_mixing, mix

Ints = npt.NDArray[np.int64]

EDGE_SIGMA: Final = 1.5
"""Blur of the copy that edge highlighting takes the difference to, in pixels of a 96-pixel film."""

_GEOMETRY: Final = ("flip", "rotate", "scale", "translate", "shear", "perspective", "crop", "elastic")
_TONE: Final = ("gamma", "contrast", "brightness", "window", "equalize", "posterize")


class Augment:
    """Callable that gives a batch its noise; holds the bank of grain and the pixel numbers on the device."""

    def __init__(
        self, noise: NoiseConfig, *, size: int, channels: int, device: torch.device | str, seed: int, generation: int
    ) -> None:
        self.noise, self.size, self.channels, self.device = noise, size, channels, torch.device(device)
        self.seed, self.generation = seed, generation
        used = {
            name
            for name, operation in noise.operations().items()
            if operation.probability > 0 and not (operation.optional and noise.count == 0)
        }
        self._warps, self._tones = bool(used & set(_GEOMETRY)), bool(used & set(_TONE))
        self._pixels = torch.arange(size, dtype=torch.float32, device=self.device)
        grain = noise.strength > 0 and used & {"gaussian", "poisson"}
        self._grain = texture.Grain(size, self.device, seed) if grain else None

    @torch.no_grad()
    def __call__(self, images: Tensor, position: Ints, image_id: Ints) -> Tensor:
        """Return the noisy films as float32 (B, C, H, W) in [0, 1].

        Args:
            images: uint8 (B, C, H, W) on the device; not changed. B may be 0.
            position: (B,) places in the sample sequence.
            image_id: (B,) stable identifiers of the films.
        """
        assert images.shape[1:] == (self.channels, self.size, self.size), "films of another shape than announced"
        if self.noise.strength == 0 or not len(images):
            return tone.to_float(images)
        draws = draw(self.noise, seed=self.seed, generation=self.generation, position=position, image_id=image_id)
        if draws.clahe.any():
            images = self._on(draws.clahe, images.clone(), lambda films, rows: tone.clahe(films, draws.clahe[rows]))
        noisy, fill = self._toned_and_warped(images, draws)
        noisy = self._filtered(noisy, draws)
        if self._grain is not None:
            noisy = self._on(draws.gaussian + draws.poisson, noisy, self._with_grain(draws))
        if draws.erase.any() or draws.grid[:, 1].any():
            noisy = texture.paint(noisy, fill, draws.erase, draws.grid, self._pixels)
        return noisy.clamp_(0.0, 1.0)

    @torch.no_grad()
    def mix(
        self, images: Tensor, target: Tensor, weight: Tensor, pos_weight: Tensor, position: Ints
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images, target, weight and pos_weight after mixup and cutmix; the same ones where there is neither.

        Args:
            images: noisy films of a whole step, float (B, C, H, W).
            target: (B, K).
            weight: (B, K).
            pos_weight: (B, K).
            position: (B,) places in the sample sequence.
        """
        mixing = draw_mixing(self.noise, seed=self.seed, generation=self.generation, position=position)
        return (
            (images, target, weight, pos_weight) if mixing is None else mix(mixing, images, target, weight, pos_weight)
        )

    def _toned_and_warped(self, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the films after tone and geometry, and their mean intensity (B, 1) that covers what is erased."""
        if not self._tones:
            table = tone.to_float(torch.arange(256, device=self.device)).expand(len(images), 256)
        else:
            table = tone.table(images, draws)
        fill = table.gather(1, tone.mean_level(images))
        if not self._warps:
            return (tone.lookup(table, images) if self._tones else tone.to_float(images)), fill
        # What comes in from outside is black as it is on this film, not the 0 of the [0, 1] scale: a corner must not
        # tell the network how bright the film was made. So black is 0 during the warp.
        black = table[:, :1]
        warped = geometry.warp(tone.lookup(table - black, images), draws, self._pixels)
        return warped.add_(black[:, :, None, None]), fill

    def _filtered(self, images: Tensor, draws: Draws) -> Tensor:
        scale = self.size / 96
        changes: tuple[tuple[npt.NDArray[np.float64], Callable[[Tensor, Ints], Tensor]], ...] = (
            (draws.low_resolution, lambda films, rows: filters.coarsen(films, draws.low_resolution[rows])),
            (draws.blur, lambda films, rows: filters.blur(films, draws.blur[rows] * scale)),
            (draws.edges, lambda films, rows: filters.highlight(films, draws.edges[rows], EDGE_SIGMA * scale)),
            (draws.sharpness - 1.0, lambda films, rows: filters.sharpen(films, draws.sharpness[rows])),
        )
        for amount, change in changes:
            images = self._on(amount, images, change)
        return images

    def _with_grain(self, draws: Draws) -> Callable[[Tensor, Ints], Tensor]:
        grain = self._grain
        assert grain is not None

        def change(films: Tensor, rows: Ints) -> Tensor:
            sign, offset = draws.grain_sign[rows], draws.grain_offset[rows]
            return grain.add(films, draws.gaussian[rows], draws.poisson[rows], sign, offset)

        return change

    def _on(self, amount: npt.NDArray[np.float64], images: Tensor, change: Callable[[Tensor, Ints], Tensor]) -> Tensor:
        """Return ``images``, overwritten, with ``change`` on the rows that have an ``amount``."""
        rows = np.flatnonzero(amount)
        if len(rows) in (0, len(images)):
            return change(images, rows) if len(rows) else images
        index = placed(rows, self.device)
        return images.index_copy_(0, index, change(images.index_select(0, index), rows))
