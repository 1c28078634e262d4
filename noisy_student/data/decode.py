"""Film files: that they are there and below the root, and their uint8 pixels.

Light on imports: the worker processes of the cache build load this.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from noisy_student.errors import DataError

FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000")
"""Formats that are tried. A closed list: Pillow would also start Ghostscript for a file that looks like EPS."""


@dataclass(frozen=True)
class DecodeSettings:
    """What the pixels of a film depend on.

    Attributes:
        size: side of the square output in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    size: int
    channels: int


def decode(path: str | os.PathLike[str], settings: DecodeSettings) -> npt.NDArray[np.uint8]:
    """Return the film as uint8 of shape (C, size, size).

    The whole film is resized to the square, as is usual on CheXpert: nothing is cropped and the aspect ratio is not
    kept. JPEGs are decoded at the smallest of libjpeg's scales that is not below ``size`` (``draft``), then resized
    with an antialiasing bilinear filter. 16-bit films are scaled linearly from 0...65535 to 0...255, transparency is
    put on black, and EXIF orientation is not applied.

    Raises:
        DataError: the file is missing, truncated, damaged, of an unknown format, or of a depth with no fixed range.
    """
    mode = "L" if settings.channels == 1 else "RGB"
    side = (settings.size, settings.size)
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft(mode, side)
            resized = _eight_bit(image, mode).resize(side, Image.Resampling.BILINEAR, reducing_gap=2.0)
            pixels = np.asarray(resized)
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # parsers of damaged files raise nearly anything: struct.error, SyntaxError, KeyError ...
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{os.fspath(path)}: cannot be decoded ({reason.replace(os.fspath(path), 'the file')})",
            "Restore the file from its source, or remove its row from the table.",
        ) from error
    return pixels[None] if settings.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    """Return the image in ``mode`` ("L" or "RGB"), 8 bits per channel."""
    if image.mode == mode:
        return image
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError("32-bit pixels beyond 16 bits have no fixed range")
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert(mode)
    return image.convert(mode)


def source_stamps(root: Path, images: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return size and mtime in ns of each film, int64 (N, 2), after checking that it is there and below the root.

    Args:
        root: folder of the data set, with its own symbolic links resolved.
        images: paths below ``root``.

    Raises:
        DataError: a film is missing, or a symbolic link or ``..`` leads out of the root.
    """
    real_folders: dict[str, str] = {"": str(root)}
    prefix = f"{root}/"

    def real(relative: str) -> str:
        # os.path.realpath looks at every folder on the way again for each film; this looks once at each.
        if relative not in real_folders:
            parent, _, name = relative.rpartition("/")
            path = f"{real(parent)}/{name}"
            real_folders[relative] = os.path.realpath(path) if name == ".." or os.path.islink(path) else path  # noqa: PTH114
        return real_folders[relative]

    found = np.zeros((len(images), 2), dtype=np.int64)
    missing = []
    for row, image in enumerate(images):
        parent, _, name = image.rpartition("/")
        path = f"{real(parent)}/{name}"
        try:
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                path, info = os.path.realpath(path), os.stat(path)  # noqa: PTH116
        except OSError:
            missing.append(image)
            continue
        if not path.startswith(prefix):
            raise DataError(
                f"{image}: lies outside {root} (a symbolic link or '..' leads there)",
                "Copy the films below data.root, or set data.root to the folder that holds them.",
            )
        found[row] = info.st_size, info.st_mtime_ns
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} films are missing or cannot be reached below {root}, such as "
            + ", ".join(missing[:3]),
            "Check data.root and whether the archive is unpacked in full.",
        )
    return found
