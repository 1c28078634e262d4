"""Pre-drawn pictures that films take windows of: vessel trees, shoulder girdles, clouds and grain.

Drawing a branching tree costs more than a whole film, so a few are drawn once per process and every film takes its
own, placed, turned and scaled.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from noisy_student.data.synthetic.cases import F32
from noisy_student.randomness import generator

TREES: Final = 24
"""Vessel trees in the bank."""
GIRDLES: Final = 12
"""Shoulder girdles in the bank for each position of the arms."""
CLOUDS: Final = 24
"""Cloud textures in the bank."""
REACH: Final = 1.5
"""Half side of a picture of the bank in film units (the film spans -1 to 1)."""
_DRAWN: Final = 640
_SCALE: Final = _DRAWN / (2 * REACH)
_GRAIN_SPARE: Final = 256

Point = tuple[float, float]


def _pixel(x: float, y: float) -> Point:
    return x * _SCALE + _DRAWN / 2, y * _SCALE + _DRAWN / 2


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    return picture if side == _DRAWN else picture.resize((side, side), Image.Resampling.BOX)


# -- vessels -----------------------------------------------------------------------------------------------------


def _branch(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, start: Point, angle: float, width: float, left: float
) -> None:
    """Draw a vessel from ``start`` until its length ``left`` is used up; branches first, so that trunks lie on top."""
    bend, length = rng.normal(0, 0.5), min(left, rng.uniform(0.06, 0.17))
    steps = max(2, int(length / 0.015))
    points = [start]
    for _ in range(steps):
        angle += bend * length / steps + rng.normal(0, 0.04)
        points.append(
            (points[-1][0] + math.cos(angle) * length / steps, points[-1][1] + math.sin(angle) * length / steps)
        )
    left -= length
    if left > 0.015 and width > 0.0022:
        fork, share = rng.uniform(0.35, 0.8), rng.uniform(0.55, 0.88)
        turn = 1 if rng.random() < 0.5 else -1
        _branch(pen, rng, points[-1], angle + turn * fork * (1 - share), width * share**0.42, left)
        _branch(pen, rng, points[-1], angle - turn * fork * share, width * (1 - share) ** 0.42, 0.75 * left)
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        shade = int(255 * min(1.0, 0.16 + width * 24))
        pen.line([_pixel(ax, ay), _pixel(bx, by)], fill=shade, width=max(1, round(width * _SCALE)))


@lru_cache(maxsize=4 * TREES)
def _tree(number: int, side: int) -> Image.Image:
    """Return a vessel tree as a grey picture of ``side`` pixels: the hilum in the centre, vessels to the left (-x)."""
    rng = generator(0x7EE5, number)
    picture = Image.new("L", (_DRAWN, _DRAWN), 0)
    pen = ImageDraw.Draw(picture)
    # Angles from level: most vessels run up or down, and those to the base are the longest and widest.
    for turn, width, length in (
        (-1.50, 0.020, 0.55), (-1.22, 0.017, 0.60), (-0.85, 0.015, 0.60), (-0.45, 0.014, 0.58),
        (0.00, 0.014, 0.58), (0.40, 0.017, 0.62), (0.75, 0.021, 0.72), (1.05, 0.024, 0.80), (1.35, 0.027, 0.80),
    ):  # fmt: skip
        angle = math.pi - turn + rng.normal(0, 0.12)
        start = (-0.02 * rng.random(), 0.075 * turn + rng.normal(0, 0.012))
        _branch(pen, rng, start, angle, width * rng.uniform(0.75, 1.2), length * rng.uniform(0.85, 1.15))
    # Fine vessels between: the lung is nowhere empty.
    for _ in range(26):
        r, turn = rng.uniform(0.10, 0.45), rng.uniform(-1.5, 1.5)
        start = (-r * math.cos(turn), r * 1.2 * math.sin(turn))
        _branch(pen, rng, start, math.pi - turn + rng.normal(0, 0.4), rng.uniform(0.003, 0.006), 0.25)
    # The hilum: the descending artery, the upper vein, and vessels seen end on.
    for px, py, rx, ry in (
        (-0.015, 0.085, 0.030, 0.110),
        (-0.010, -0.045, 0.034, 0.060),
        (0.01, 0.02, 0.045, 0.06),
    ):
        x, y = px + rng.normal(0, 0.006), py + rng.normal(0, 0.015)
        pen.ellipse([*_pixel(x - rx, y - ry), *_pixel(x + rx, y + ry)], fill=int(rng.uniform(120, 165)))
    for _ in range(4):
        x, y, r = rng.normal(-0.06, 0.02), rng.normal(0, 0.09), rng.uniform(0.009, 0.015)
        pen.ellipse([*_pixel(x - r, y - r), *_pixel(x + r, y + r)], fill=215)
    return _shrunk(picture.filter(ImageFilter.GaussianBlur(1.5)), side)


def _bank_side(size: int) -> int:
    """Return a side for the bank that is near a film's own resolution, in few steps so that the cache is used."""
    return min(_DRAWN, max(160, 64 * math.ceil(1.45 * size / 64)))


def tree_window(number: float, left: float, top: float, right: float, bottom: float, columns: int, rows: int) -> F32:
    """Return a window of a vessel tree, values in [0, 1], shape (rows, columns).

    ``number`` in [0, 1) chooses the tree; the window's borders are film units from the hilum.
    """
    side = _bank_side(max(rows, columns))
    picture = _tree(int(number * TREES), side)
    scale = side / (2 * REACH)
    box = [min(max((value + REACH) * scale, 0.0), float(side)) for value in (left, top, right, bottom)]
    window = picture.resize((columns, rows), Image.Resampling.BILINEAR, box=(box[0], box[1], box[2], box[3]))
    return np.asarray(window, dtype=np.float32) * np.float32(1 / 255)


# -- shoulders ---------------------------------------------------------------------------------------------------


def _drawn_girdle(rng: np.random.Generator, lying: bool) -> tuple[Image.Image, Image.Image]:
    """Return bones and soft tissue of the shoulder on the right of the film; the joint is the picture's centre."""
    bones, flesh = Image.new("L", (_DRAWN, _DRAWN), 0), Image.new("L", (_DRAWN, _DRAWN), 0)
    pen, soft = ImageDraw.Draw(bones), ImageDraw.Draw(flesh)
    # Standing, the arms are turned out and the blades leave the lungs; lying, the arms rest beside the trunk.
    arm = rng.uniform(-0.02, 0.22) if lying else rng.uniform(0.12, 0.65)
    blade = rng.uniform(-0.08, 0.10) if lying else rng.uniform(-0.42, -0.15)

    def turned(points: list[Point], angle: float) -> list[Point]:
        cos, sin = math.cos(angle), math.sin(angle)
        return [_pixel(x * cos - y * sin, x * sin + y * cos) for x, y in points]

    def jitter(points: list[Point]) -> list[Point]:
        return [(x + rng.normal(0, 0.010), y + rng.normal(0, 0.010)) for x, y in points]

    border = jitter([(-0.03, -0.06), (-0.14, -0.10), (-0.27, -0.13), (-0.33, -0.04), (-0.31, 0.12), (-0.25, 0.33),
                     (-0.19, 0.46), (-0.14, 0.46), (-0.10, 0.33), (-0.04, 0.13), (-0.01, 0.06)])  # fmt: skip
    pen.polygon(turned(border, blade), fill=58)
    pen.line(turned(border[6:], blade), fill=140, width=8, joint="curve")  # the thick lateral border
    pen.line(turned(border[1:7], blade), fill=95, width=3, joint="curve")
    pen.line(turned([(-0.32, 0.00), (-0.18, -0.055), (0.00, -0.12), (0.06, -0.105)], blade), fill=120, width=11)
    pen.line(turned([(-0.09, -0.06), (-0.05, -0.02), (-0.02, 0.01)], blade), fill=130, width=15)  # coracoid

    reach = [(0.055, 0.03), (0.105, 0.30), (0.125, 0.60), (0.135, 1.3)]
    for half, shade in ((0.060, 110), (0.040, 92)):
        edge = [(x - half, y) for x, y in reach] + [(x + half * 0.85, y) for x, y in reversed(reach)]
        pen.polygon(turned(edge, -arm), fill=shade)
        if shade == 110:
            for wall in (edge[:4], edge[4:]):
                pen.line(turned(wall, -arm), fill=185, width=5)
    (cx, cy), r = turned([(0.065, 0.0)], -arm)[0], 0.094 * _SCALE
    pen.ellipse([cx - r, cy - r, cx + r, cy + r], fill=128, outline=165, width=3)

    thick = rng.uniform(0.13, 0.19)
    outline = [(0.20 + 0.3 * thick, -0.03), (0.13 + thick, 0.28), (0.13 + thick, 0.62), (0.13 + 0.8 * thick, 1.4),
               (0.13 - 0.8 * thick, 1.4), (0.11 - thick, 0.60), (0.02 - 0.7 * thick, 0.30), (-0.25, 0.10),
               (-0.20, -0.14), (0.02, -0.15), (0.14, -0.10)]  # fmt: skip
    soft.polygon(turned(outline, -arm), fill=255)
    return bones.filter(ImageFilter.GaussianBlur(2.2)), flesh.filter(ImageFilter.GaussianBlur(9))


@lru_cache(maxsize=8 * GIRDLES)
def _girdle(number: int, lying: bool, side: int) -> tuple[Image.Image, Image.Image]:
    """Return the shoulder ``number`` as pictures of ``side`` pixels."""
    bones, flesh = _drawn_girdle(generator(0x5C4B, number, int(lying)), lying)
    return _shrunk(bones, side), _shrunk(flesh, side)


def girdle_window(number: float, lying: bool, corner: Point, step: Point, columns: int, rows: int) -> tuple[F32, F32]:
    """Return bones and soft tissue of a shoulder, values in [0, 1], shape (rows, columns).

    Args:
        number: in [0, 1), chooses the shoulder.
        lying: arms beside the trunk (AP) or turned out (PA).
        corner: the window's first corner in film units from the joint; +x is away from the body.
        step: film units from pixel to pixel; a negative step across mirrors.
        columns: width of the window in pixels.
        rows: height of the window in pixels.
    """
    side = _bank_side(max(rows, columns))
    scale = side / (2 * REACH)
    matrix = (step[0] * scale, 0, (corner[0] + REACH) * scale, 0, step[1] * scale, (corner[1] + REACH) * scale)
    pair = _girdle(int(number * GIRDLES), lying, side)
    bones, flesh = (
        picture.transform((columns, rows), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        for picture in pair
    )
    unit = np.float32(1 / 255)
    return np.asarray(bones, dtype=np.float32) * unit, np.asarray(flesh, dtype=np.float32) * unit


# -- textures ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _clouds(fine: bool) -> tuple[Image.Image, ...]:
    cells = ((24, 0.6), (48, 1.0), (96, 0.8)) if fine else ((6, 1.0), (12, 0.7), (24, 0.45), (48, 0.3))
    pictures = []
    for number in range(CLOUDS):
        rng = generator(0xC10D, number, fine)
        field = np.zeros((192, 192), dtype=np.float32)
        for count, weight in cells:
            coarse = Image.fromarray(rng.standard_normal((count, count)).astype(np.float32))
            field += weight * np.asarray(coarse.resize((192, 192), Image.Resampling.BICUBIC))
        field -= field.mean()
        pictures.append(Image.fromarray(field / field.std()))
    return tuple(pictures)


def cloud(number: float, u: float, v: float, size: int, *, fine: bool = False) -> F32:
    """Return a smooth random field, mean about 0 and deviation about 1, of shape (size, size).

    ``number`` in [0, 1) chooses the texture, ``u`` and ``v`` in [0, 1) the window; ``fine`` gives the mottle of lung
    and bone instead of billows.
    """
    picture = _clouds(fine)[int(number * CLOUDS)]
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
