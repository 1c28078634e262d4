"""Tone: every point operation as one table of 256 levels per film, and CLAHE as tables per tile."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisy_student.learning.augment.arrays import column, placed
from noisy_student.learning.augment.draws import Draws

CLIP: Final = 4.0
"""Contrast limit of CLAHE: how many times the mean count a level of a tile may have."""


def to_float(images: Tensor) -> Tensor:
    """Return uint8 ``images`` as float32 in [0, 1]: the clean path, without noise."""
    return images.to(torch.float32) / 255.0


def lookup(table: Tensor, images: Tensor) -> Tensor:
    """Return table[b, images[b]] with the shape of ``images``; ``table`` is (B, levels)."""
    return table.gather(1, images.flatten(1).long()).view(images.shape)


def mean_level(images: Tensor) -> Tensor:
    """Return the mean of each uint8 film, rounded to a level, as int64 (B, 1)."""
    # An integer sum is exact in any order, so the mean does not depend on how threads share the batch.
    total = images.flatten(1).sum(1, dtype=torch.int64, keepdim=True)
    count = images[0].numel()
    return (2 * total + count) // (2 * count)


def table(images: Tensor, draws: Draws) -> Tensor:
    """Return (B, 256) float32 intensities in [0, 1] that the levels of each film become.

    In this order: equalise, window, contrast about the film's mean, gamma, brightness, posterise. Films of several
    channels have one table, so that grey stays grey.
    """
    device = images.device
    # Tables are made in double precision on the CPU: its vectorised and scalar powers differ in the last bit, and which
    # one an entry meets depends on the batch. Rounding to float32 hides that; GPUs have one power.
    precise, narrow = (torch.float64, np.float64) if device.type == "cpu" else (torch.float32, np.float32)
    levels = to_float(torch.arange(256, device=device)).to(precise).expand(len(images), 256)
    share = draws.equalize
    if (chosen := np.flatnonzero(share)).size:
        rows = placed(chosen, device)
        blend = placed(share[chosen].astype(narrow), device)[:, None]
        levels = levels.clone()
        levels[rows] += blend * (equalized(images[rows]).to(precise) / 255.0 - levels[rows])
    cut = draws.window
    columns = [cut[:, 0], 1.0 / (1.0 - cut.sum(axis=1)), draws.contrast, draws.gamma, draws.brightness]
    if any(np.ptp(column) or column[0] != neutral for column, neutral in zip(columns, (0, 1, 1, 1, 0), strict=True)):
        parameters = placed(np.stack(columns, axis=1, dtype=narrow), device)[:, :, None]
        low, stretch, contrast, gamma, brightness = parameters.unbind(1)
        mean = levels.gather(1, mean_level(images))
        levels, mean = (((values - low) * stretch).clamp(0.0, 1.0) for values in (levels, mean))
        levels = (levels * contrast + mean * (1.0 - contrast)).clamp_(0.0, 1.0)
        levels = (levels.pow(gamma) + brightness).clamp_(0.0, 1.0)
    if draws.posterize.any():
        step = placed(2**draws.posterize, device)[:, None]
        whole = (levels * 255.0).round().long()
        levels = torch.where(step > 1, (whole - whole % step).to(precise) / 255.0, levels)
    return levels.float()


def grey(images: Tensor) -> Tensor:
    """Return the levels (B, H * W) of uint8 films as int64: the mean of their channels, rounded down."""
    return images.sum(1, dtype=torch.int64).flatten(1) // images.shape[1]


def histogram(levels: Tensor, bins: int) -> Tensor:
    """Return counts int64 (B, bins) of the entries of ``levels`` (B, N), int64 in [0, bins)."""
    counts = torch.zeros(len(levels), bins, dtype=torch.int64, device=levels.device)
    return counts.scatter_add_(1, levels, torch.ones_like(levels))


def equalized(images: Tensor) -> Tensor:
    """Return the level (B, 256), as int64, that equalises the grey histogram of each uint8 film, by PIL's rule."""
    counts = histogram(grey(images), 256)
    used = torch.where(counts > 0, torch.arange(256, device=images.device), 0)
    last = counts.gather(1, used.argmax(1, keepdim=True))
    step = (counts.sum(1, keepdim=True) - last) // 255
    before = counts.cumsum(1) - counts
    levels = (step // 2 + before) // step.clamp(min=1)
    # A film of one level has no histogram to spread, and neither has one nearly so.
    return torch.where(step > 0, levels, torch.arange(256, device=images.device)).clamp(max=255)


def clahe(images: Tensor, share: npt.NDArray[np.float64], clip: float = CLIP) -> Tensor:
    """Return uint8 films (B, C, S, S) blended with their contrast-limited adaptive equalisation.

    Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994: a table per tile, clipped
    at ``clip`` times its mean count, and bilinear interpolation between the tables of the four nearest tiles. There are
    8 x 8 tiles, and 4 x 4 on films below 64 pixels. The tables are made from the grey film and shared by its channels.

    Args:
        images: the films.
        share: (B,) in [0, 1], weight of the equalised film.
        clip: contrast limit, >= 1.
    """
    count, channels, size, _ = images.shape
    device, tiles = images.device, 8 if size >= 64 else 4
    place = np.arange(size)
    tile = placed(place * tiles // size, device)  # the tile of a row or column
    flat = images.view(count, channels, -1).long()
    number = (tile[:, None] * tiles + tile[None, :]).flatten()
    counts = histogram(grey(images) + number * 256, tiles**2 * 256).view(count, tiles**2, 256)
    tables = _clipped_tables(counts, clip).view(count, -1)

    # From tile centre to tile centre, the outermost tables going on to the rim.
    position = np.clip((place + 0.5) * tiles / size - 0.5, 0.0, tiles - 1.0)
    lower = np.minimum(position.astype(np.int64), tiles - 2)
    weight = placed((position - lower).astype(np.float32), device)
    first = placed(lower, device)

    def of_tiles(down: int, right: int) -> Tensor:
        corner = ((first[:, None] + down) * tiles + first[None, :] + right).flatten()
        return tables.gather(1, (flat + corner * 256).flatten(1)).view(images.shape)

    def between(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        # Not torch.lerp: its fused multiply-add rounds differently at a tensor's end.
        return first + weight * (second - first)

    upper, below = (between(of_tiles(down, 0), of_tiles(down, 1), weight) for down in (0, 1))
    result = between(upper, below, weight[:, None])
    blend = column(share, images)
    return between(images.to(torch.float32), result, blend).round_().to(torch.uint8)


def _clipped_tables(counts: Tensor, clip: float) -> Tensor:
    """Return float32 tables (B, T, 256) in [0, 255] of tiles with ``counts`` (B, T, 256), as OpenCV and Kornia do."""
    pixels = counts.sum(2, keepdim=True)
    limited = counts.minimum((clip * pixels).div(256, rounding_mode="floor").clamp(min=1).long())
    excess = pixels - limited.sum(2, keepdim=True)
    # What was clipped goes to all levels alike, and the rest one by one to levels at even distances.
    each, rest = excess // 256, excess % 256
    step = 256 // rest.clamp(min=1)
    level = torch.arange(256, device=counts.device)
    limited = limited + each + ((level % step == 0) & (level // step < rest)).long()
    return ((limited.cumsum(2) * 255 * 2 + pixels) // (2 * pixels)).to(torch.float32)
