"""What is burned into a film besides the patient: side marker, writing, and borders of the exposed field."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from noisy_student.data.synthetic.cases import F32

# Five columns by seven rows of dots, one number a row: the same marks on every machine, whatever fonts it has.
_GLYPHS: Final[dict[str, tuple[int, ...]]] = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "D": (30, 17, 17, 17, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
}
_INITIALS: Final = "ABDELMNOPRST"


@lru_cache(maxsize=64)
def _word(text: str) -> Image.Image:
    picture = Image.new("L", (6 * len(text) + 1, 9), 0)
    for number, letter in enumerate(text):
        for row, bits in enumerate(_GLYPHS[letter]):
            for column in range(5):
                if bits >> (4 - column) & 1:
                    picture.putpixel((6 * number + column + 1, row + 1), 255)
    return picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.BICUBIC)


def _stamp(sheet: Image.Image, text: str, at: tuple[float, float], height: float, angle: float) -> None:
    """Write ``text`` into ``sheet`` about ``at`` (shares of the side), its letters ``height`` of the side tall."""
    word = _word(text)
    scale = height * sheet.height / (7 * 4)
    small = word.resize(
        (max(2, round(word.width * scale)), max(2, round(word.height * scale))), Image.Resampling.BILINEAR
    )
    if angle:
        small = small.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    x, y = round(at[0] * sheet.width - small.width / 2), round(at[1] * sheet.height - small.height / 2)
    sheet.paste(255, (x, y), small)


def writing(u: list[float], projection: str, size: int) -> F32 | None:
    """Return the writing on a film as a map in [0, 1], shape (size, size), or None where there is none.

    Args:
        u: at least 10 uniforms that choose letters and places.
        projection: "PA", "AP" or "LL"; portable AP films carry words beside the letter.
        size: side of the film in pixels.
    """
    if u[0] < 0.12:
        return None
    sheet = Image.new("L", (size, size), 0)
    right = u[1] < 0.3
    letter = "R" if right else "L"
    edge_x = 0.045 + 0.11 * u[2]
    at = (edge_x if right or projection == "LL" else 1 - edge_x, 0.05 + 0.16 * u[3] ** 2 + 0.25 * (u[9] < 0.15))
    angle = 0.0 if u[4] < 0.6 else (360 * u[5] if u[4] > 0.93 else 24 * (u[5] - 0.5))
    height = 0.030 + 0.030 * u[5]
    _stamp(sheet, letter, at, height, angle)
    if u[6] < 0.4:  # initials of the radiographer below the letter
        pair = _INITIALS[int(u[7] * 12)] + _INITIALS[int(u[8] * 12)]
        _stamp(sheet, pair, (at[0], at[1] + 1.5 * height), 0.55 * height, angle)
    elif u[6] < 0.55:  # a disc about it
        pen, r = ImageDraw.Draw(sheet), 0.95 * height * size
        x, y = at[0] * size, at[1] * size
        pen.ellipse([x - r, y - r, x + r, y + r], outline=235, width=max(1, size // 128))
    if projection == "AP" and u[7] < 0.75:
        words = ("AP", "PORTABLE", "SUPINE", "SEMI")[int(4 * u[8])]
        low = u[9] < 0.5
        place = (0.12 + 0.1 * u[2], 0.95 - 0.04 * u[3]) if low else (at[0] * 0.8 + 0.1, min(0.9, at[1] + 0.13))
        _stamp(sheet, words, place, 0.018 + 0.006 * u[5], 0.0)
        if u[8] > 0.6:  # an arrow: this side up
            pen = ImageDraw.Draw(sheet)
            x, y, h = at[0] * size, (at[1] + 0.07) * size, 0.03 * size
            pen.line([x, y, x, y + h], fill=230, width=max(1, size // 96))
            pen.polygon([x - h / 2, y, x, y - h / 2, x + h / 2, y], fill=230)
    return np.asarray(sheet, dtype=np.float32) * np.float32(1 / 255)


def borders(u: list[float], size: int) -> tuple[F32, float] | None:
    """Return where a film is exposed (1) and where not (0), (size, size), and the grey of the rest; None: all is.

    Args:
        u: at least 8 uniforms: how many edges of the field lie on the film, how far in, how slanted, how grey.
        size: side of the film in pixels.
    """
    if u[0] < 0.45:
        return None
    axis = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(1 / size)
    slant = math.tan(math.radians(5 * (u[1] - 0.5) ** 3 * 8))
    x = axis[None, :] + np.float32(slant) * (axis[:, None] - np.float32(0.5))
    y = axis[:, None] - np.float32(slant) * (axis[None, :] - np.float32(0.5))
    field = np.ones((size, size), dtype=np.float32)
    soft = np.float32(size * (1.0 if u[6] < 0.7 else 0.15))
    for number, distance in enumerate((x, 1 - x, y, 1 - y)):
        v = u[2 + number]
        # An edge lies on the film in two of five cases, mostly just inside it.
        margin = 0.10 * ((v - 0.6) / 0.4) ** 2 if v > 0.6 else -1.0
        np.minimum(field, np.clip((distance - np.float32(margin)) * soft + np.float32(0.5), 0, 1), out=field)
    return field, 1.0 if u[7] < 0.06 else 0.02
