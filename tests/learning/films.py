"""Films and draws that the tests of the noise share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from noisy_student.config import NoiseConfig
from noisy_student.learning.augment import Augment, Draws, draw

# Bilinear weights in single precision at 40 pixels: coordinates are good to about 40 * 2**-23, intensities alike.
CLOSE = {"rtol": 0.0, "atol": 2e-5}


def only(*names: str, strength: float = 10, **changes: Any) -> NoiseConfig:
    """Return the policy with nothing but ``names``, at the end of their ranges."""
    return NoiseConfig(strength=strength).only(*names, **changes)


def films(count: int = 6, channels: int = 1, size: int = 40, seed: int = 0) -> Tensor:
    """Return smooth random films with a black rim and every level, uint8 (B, C, size, size)."""
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.normal(size=(count, channels, size, size)), (0, 0, 2, 2))
    values -= values.min((1, 2, 3), keepdims=True)
    values *= 255 / values.max((1, 2, 3), keepdims=True)
    values[:, :, [0, -1], :] = values[:, :, :, [0, -1]] = 0
    return torch.from_numpy(values.astype(np.uint8))


def where(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and image ids of ``count`` films."""
    return np.arange(count, dtype=np.int64) + 10, np.arange(count, dtype=np.int64) * 7 + 3


def augment(noise: NoiseConfig, channels: int = 1, size: int = 40, seed: int = 0, generation: int = 1) -> Augment:
    return Augment(noise, size=size, channels=channels, device="cpu", seed=seed, generation=generation)


def noisy(noise: NoiseConfig, images: Tensor | None = None, **options: Any) -> Tensor:
    """Return the films (those of :func:`films` by default) with their noise."""
    images = films() if images is None else images
    return augment(noise, images.shape[1], images.shape[2], **options)(images, *where(len(images)))


def drawn(noise: NoiseConfig, count: int = 6, seed: int = 0, generation: int = 1) -> Draws:
    position, image_id = where(count)
    return draw(noise, seed=seed, generation=generation, position=position, image_id=image_id)
