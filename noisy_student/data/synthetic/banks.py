"""Pre-drawn textures that films take windows of: vessel trees, clouds, grain and side markers.

Drawing a branching tree costs more than a whole film, so a few are drawn once per process and every film takes its
own, shifted and scaled.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from noisy_student.data.synthetic.cases import F32
from noisy_student.randomness import generator

TREES: Final = 20
"""Vessel trees in the bank."""
CLOUDS: Final = 16
"""Cloud textures in the bank."""
REACH: Final = 1.5
"""Half side of a tree's picture in film units (the film spans -1 to 1); the hilum is at its centre."""
_DRAWN: Final = 640
_GRAIN_SPARE: Final = 256


def _branch(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, x: float, y: float, angle: float, width: float, left: float
) -> None:
    """Draw one vessel from (x, y) in film units until its length ``left`` is used up, splitting on the way."""
    scale = _DRAWN / (2 * REACH)
    bend = rng.normal(0, 0.10)
    segment = rng.uniform(0.07, 0.14)
    run = 0.0
    while run < segment and left > 0:
        step = 0.02
        nx, ny = x + step * math.cos(angle), y + step * math.sin(angle)
        shade = int(255 * min(1.0, 0.30 + width * 14))
        ends = [(x * scale + _DRAWN / 2, y * scale + _DRAWN / 2), (nx * scale + _DRAWN / 2, ny * scale + _DRAWN / 2)]
        pen.line(ends, fill=shade, width=max(1, round(width * scale)))
        x, y, run, left = nx, ny, run + step, left - step
        angle += bend * 0.25 + rng.normal(0, 0.03)
    if left <= 0 or width < 0.0035:
        return
    fork = rng.uniform(0.2, 0.5)
    share = rng.uniform(0.55, 0.85)
    _branch(pen, rng, x, y, angle + fork * (1 - share), width * share**0.5 * 0.93, left)
    _branch(pen, rng, x, y, angle - fork * share * 1.3, width * (1 - share) ** 0.5 * 0.93, left * 0.8)


@lru_cache(maxsize=4)
def vessel_trees(side: int) -> tuple[Image.Image, ...]:
    """Return the bank of vessel trees as grey pictures of ``side`` pixels, vessels fanning out to the left (-x)."""
    trees = []
    for number in range(TREES):
        rng = generator(0x7EE5, number)
        picture = Image.new("L", (_DRAWN, _DRAWN), 0)
        pen = ImageDraw.Draw(picture)
        for turn in np.linspace(-1.25, 1.35, 8):
            angle = math.pi - turn + rng.normal(0, 0.10)
            start = 0.03 * rng.random()
            length = 0.52 + 0.22 * abs(math.sin(turn)) + rng.uniform(-0.05, 0.1)
            width = rng.uniform(0.016, 0.026) * (1.15 if turn < 0 else 0.9)
            _branch(pen, rng, start * math.cos(angle), start * math.sin(angle) + 0.04 * turn, angle, width, length)
        # The hilum itself: the pulmonary artery seen end on and its first branches run together.
        for _ in range(3):
            px, py = rng.normal(-0.01, 0.012), rng.normal(0.02, 0.05)
            r = rng.uniform(0.025, 0.045)
            box = [(v * _DRAWN / (2 * REACH) + _DRAWN / 2) for v in (px - r, py - r * 1.6, px + r, py + r * 1.6)]
            pen.ellipse(box, fill=190)
        picture = picture.filter(ImageFilter.GaussianBlur(1.6))
        trees.append(picture.resize((side, side), Image.Resampling.BOX if side < _DRAWN else Image.Resampling.BILINEAR))
    return tuple(trees)


@lru_cache(maxsize=1)
def _clouds() -> tuple[Image.Image, ...]:
    pictures = []
    for number in range(CLOUDS):
        rng = generator(0xC10D, number)
        field = np.zeros((192, 192), dtype=np.float32)
        for cells, weight in ((6, 1.0), (12, 0.7), (24, 0.45), (48, 0.3)):
            coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
            field += weight * np.asarray(coarse.resize((192, 192), Image.Resampling.BICUBIC))
        field -= field.mean()
        pictures.append(Image.fromarray(field / field.std()))
    return tuple(pictures)


def cloud(number: float, u: float, v: float, size: int) -> F32:
    """Return a smooth random field, mean about 0 and deviation about 1, of shape (size, size).

    ``number`` in [0, 1) chooses the texture, ``u`` and ``v`` in [0, 1) the window.
    """
    picture = _clouds()[int(number * CLOUDS)]
    left, top = 64 * u, 64 * v
    window = picture.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + 128, top + 128))
    return np.asarray(window)


@lru_cache(maxsize=4)
def _grain(size: int) -> F32:
    side = size + _GRAIN_SPARE
    white = generator(0x64A1, size).standard_normal((side, side), dtype=np.float32)
    soft = (white + np.roll(white, 1, 0) + np.roll(white, 1, 1) + np.roll(white, (1, 1), (0, 1))) / 2
    return (0.75 * white + 0.5 * soft).astype(np.float32)


def grain(u: float, v: float, size: int) -> F32:
    """Return quantum noise of deviation about 1, shape (size, size): the window of the bank that (u, v) chooses."""
    top, left = int(u * _GRAIN_SPARE), int(v * _GRAIN_SPARE)
    return _grain(size)[top : top + size, left : left + size]


def tree_window(number: float, left: float, top: float, right: float, bottom: float, columns: int, rows: int) -> F32:
    """Return a window of a vessel tree, values in [0, 1], shape (rows, columns).

    ``number`` in [0, 1) chooses the tree; the window's borders are film units from the hilum.
    """
    side = min(_DRAWN, max(160, 32 * math.ceil(3 * max(rows, columns) / 32)))
    picture = vessel_trees(side)[int(number * TREES)]
    scale = side / (2 * REACH)
    box = [min(max((value + REACH) * scale, 0.0), float(side)) for value in (left, top, right, bottom)]
    window = picture.resize((columns, rows), Image.Resampling.BILINEAR, box=(box[0], box[1], box[2], box[3]))
    return np.asarray(window, dtype=np.float32) * np.float32(1 / 255)
