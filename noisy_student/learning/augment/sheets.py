"""Pictures for people: films beside their noisy versions, and every operation of a policy on the same films."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from noisy_student.config.noise import NoiseConfig
from noisy_student.learning.augment.pipeline import Augment
from noisy_student.learning.augment.tone import to_float

Grey = npt.NDArray[np.uint8]

_GROUPS: Final = (
    ("flip", "rotate", "scale", "translate", "shear", "perspective", "crop", "elastic"),
    ("gamma", "contrast", "brightness", "window", "equalize", "clahe", "posterize", "low_resolution"),
    ("blur", "edges", "sharpness", "poisson", "gaussian", "erase", "grid", "mixup", "cutmix"),
)
_CAPTION: Final = 18  # height of a line of text in pixels
_GAP: Final = 3


def contact_sheet(clean: Tensor, noisy: Tensor, columns: int = 8) -> Grey:
    """Return a grey (H', W') picture of films with their noisy version below, ``columns`` pairs to a row.

    Args:
        clean: uint8 (B, C, H, W); of several channels the mean is shown.
        noisy: float (B, C, H, W) in [0, 1].
        columns: pairs per row; the last row is filled with black.
    """
    above = clean.float().mean(1).cpu().numpy()
    below = noisy.float().mean(1).cpu().numpy() * 255.0
    pairs = np.concatenate([above, below], axis=1)  # (B, 2 H, W)
    pairs = np.pad(pairs, ((0, -len(pairs) % columns), (1, 1), (1, 1)))
    count, height, width = pairs.shape
    grid = pairs.reshape(count // columns, columns, height, width).transpose(0, 2, 1, 3)
    sheet: Grey = np.rint(grid.reshape(-1, columns * width)).clip(0, 255).astype(np.uint8)
    return sheet


def preview(
    films: Grey,
    noise: NoiseConfig,
    *,
    strengths: Sequence[float],
    names: Sequence[str] = (),
    seed: int = 0,
    generation: int = 1,
    tile: int = 144,
) -> Grey:
    """Return a grey (H', W') picture of what a policy does: a block of columns per kind of operation, a row per film.

    Every block starts with the clean films. In the first three each operation is alone, for every film, at the
    policy's strength; the last one shows the whole policy at ``strengths``, with two draws of each but 0.

    Args:
        films: uint8 (N, C, S, S).
        noise: the policy.
        strengths: settings of the dial for the last block.
        names: what to write under each film of the first block.
        seed: seed of the run whose noise is shown.
        generation: its generation.
        tile: smallest side of a film on the picture in pixels.
    """
    clean = torch.from_numpy(films)
    blocks = []
    for group in _GROUPS:
        columns = [("clean", to_float(clean))]
        columns += [(name, _alone(clean, noise, name, seed, generation)) for name in group]
        blocks.append(_block(columns, tile, names if group is _GROUPS[0] else ()))
    columns = [("clean", to_float(clean))]
    for strength in strengths:
        policy = noise.model_copy(update={"strength": strength})
        for draw in range(1 if strength == 0 else 2):
            again = "" if draw == 0 else ", again"
            images = _noisy(clean, policy, seed, generation, first=(draw + 1) * len(films))
            columns.append((f"policy at {strength:g}{again}", images))
    blocks.append(_block(columns, tile, ()))
    width = max(block.shape[1] for block in blocks)
    return np.concatenate([np.pad(block, ((0, 0), (0, width - block.shape[1]))) for block in blocks])


def _alone(clean: Tensor, noise: NoiseConfig, name: str, seed: int, generation: int) -> Tensor:
    return _noisy(clean, noise.only(name), seed, generation)


def _noisy(clean: Tensor, noise: NoiseConfig, seed: int, generation: int, first: int = 0) -> Tensor:
    count, channels, size, _ = clean.shape
    call = Augment(noise, size=size, channels=channels, device="cpu", seed=seed, generation=generation)
    position = np.arange(first, first + count, dtype=np.int64)
    nothing = torch.zeros(count, 1)
    return call.mix(call(clean, position, position % count), nothing, nothing, nothing, position)[0]


def _block(columns: Sequence[tuple[str, Tensor]], tile: int, names: Sequence[str]) -> Grey:
    count, size = len(columns[0][1]), columns[0][1].shape[-1]
    side = max(size, tile)
    under = _CAPTION if names else 0
    sheet = Image.new("L", (len(columns) * (side + _GAP), _CAPTION + count * (side + under + _GAP)))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, (title, images) in enumerate(columns):
        left = column * (side + _GAP)
        pen.text((left + 2, 1), title, fill=255, font=font)
        grey = np.rint(images.mean(1).numpy() * 255.0).astype(np.uint8)
        for row, film in enumerate(grey):
            top = _CAPTION + row * (side + under + _GAP)
            sheet.paste(Image.fromarray(film).resize((side, side), Image.Resampling.BICUBIC), (left, top))
            if names and column == 0:
                pen.text((left + 2, top + side + 1), names[row], fill=255, font=font)
    return np.asarray(sheet)
