"""Film files: that they are there and below the root, and their uint8 pixels.

Light on imports: the worker processes of the cache build load this.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from noisy_student.data.pixels import PixelError, between, check_size, percentiles
from noisy_student.errors import DataError

FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "JPEG2000")
"""Formats that are tried. A closed list: Pillow would also start Ghostscript for a file that looks like EPS."""

DELAY: Final = 2.0
"""Seconds after which a bar is shown of what mostly takes less."""

_ORIENTATION: Final = 0x0112  # the EXIF tag
_PHOTOMETRIC: Final = 262  # the TIFF tag
_WHITE_IS_ZERO: Final = 0
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BLACK: Final = (0, 0, 0, 255)
_HINT: Final = "Restore the file from its source, or remove its row from the table."


@dataclass(frozen=True)
class DecodeSettings:
    """What the pixels of a film depend on.

    Attributes:
        size: side of the square output in pixels.
        channels: 1 (grey) or 3 (RGB).
        fit: how a film becomes square. ``stretch`` resizes all of it, as is usual on CheXpert; ``pad`` keeps the aspect
            ratio and fills up with black; ``crop`` keeps it and takes the centre.
        window: percentiles that become black and white on films of more than 8 bits; ``None`` is the full 16 bits, and
            on DICOM the header's window.
    """

    size: int
    channels: int
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    window: tuple[float, float] | None = None


def decode(path: str | os.PathLike[str], settings: DecodeSettings) -> npt.NDArray[np.uint8]:
    """Return the film as uint8 of shape (C, size, size).

    What a file is, its content says, not its name. JPEGs are decoded at the smallest of libjpeg's scales that is not
    below what is asked for (``draft``), and every film is resized with an antialiasing bilinear filter. EXIF
    orientation is applied, transparency put on black, 16 bits are scaled as ``settings.window`` says, and of several
    pages the first counts. DICOM is read by :mod:`noisy_student.data.dicom`.

    Raises:
        DataError: the file is missing, truncated, damaged, no regular file, of an unknown format, of more than
            :data:`pixels.LARGEST` pixels, or of a depth with no fixed range.
    """
    mode = "L" if settings.channels == 1 else "RGB"
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd tags and large films; here a film is readable or not, and large ones have our limit.
            warnings.simplefilter("ignore")
            pixels = np.asarray(_open(path, mode, settings))
    except (MemoryError, DataError):
        raise
    except Exception as error:  # parsers of damaged files raise nearly anything: struct.error, SyntaxError ...
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{os.fspath(path)}: cannot be decoded ({reason.replace(os.fspath(path), 'the file')})", _HINT
        ) from error
    return pixels[None] if settings.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open(path: str | os.PathLike[str], mode: str, settings: DecodeSettings) -> Image.Image:
    """Return the square film in ``mode``."""
    info = os.stat(path)  # noqa: PTH116 - a Path per film costs more than the call
    if not stat.S_ISREG(info.st_mode):
        raise PixelError("it is a folder" if stat.S_ISDIR(info.st_mode) else "it is no regular file")
    if not info.st_size:
        raise PixelError("the file is empty")
    # As a stream: Pillow would map a TIFF that it knows by name into memory, and get lying ones wrong.
    with open(path, "rb") as stream:
        try:
            with Image.open(stream, formats=FORMATS) as image:
                return _square_of(image, mode, settings)
        except UnidentifiedImageError:
            stream.seek(128)
            if stream.read(4) != b"DICM":
                raise PixelError("its format is not known") from None
    from noisy_student.data.dicom import picture  # here, because most films are JPEGs and pydicom takes long to import

    return _fitted(picture(Path(path), settings.window).convert(mode), settings)


def _square_of(image: Image.Image, mode: str, settings: DecodeSettings) -> Image.Image:
    """Return the square film of an opened file."""
    check_size(*image.size)
    if image.format == "PNG" and not image.info.get("exif"):
        image.load()  # its orientation may stand behind the pixels
    turn = _orientation(image) if image.info.get("exif") else 1
    width, height = image.size if turn < 5 else image.size[::-1]
    side = _inner(width, height, settings)
    image.draft(mode, side if turn < 5 else side[::-1])
    upright = image.transpose(_TURNS[turn]) if turn in _TURNS else image
    upright.info = image.info
    eight = _eight_bit(upright, mode, settings.window)
    if _is_wide(image) and image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
        eight = ImageOps.invert(eight)  # of 8 bits Pillow turns them over itself
    return _fitted(eight, settings, side)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where the tags are damaged, for the film itself may be sound."""
    found = image.getexif().get(_ORIENTATION)
    return found if found in _TURNS else 1


def _inner(width: int, height: int, settings: DecodeSettings) -> tuple[int, int]:
    """Return width and height of the film inside the square."""
    size = settings.size
    if settings.fit != "pad":
        return size, size
    return max(1, round(size * min(1, width / height))), max(1, round(size * min(1, height / width)))


def _fitted(image: Image.Image, settings: DecodeSettings, side: tuple[int, int] | None = None) -> Image.Image:
    """Return the film resized to the square; ``side`` where draft has already changed its size."""
    size, (width, height) = settings.size, image.size
    side = side or _inner(width, height, settings)
    box = None
    if settings.fit == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short)
    resized = image.resize(side, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    if side == (size, size):
        return resized
    square = Image.new(image.mode, (size, size))
    square.paste(resized, ((size - side[0]) // 2, (size - side[1]) // 2))
    return square


def _eight_bit(image: Image.Image, mode: str, window: tuple[float, float] | None) -> Image.Image:
    """Return the image in ``mode`` ("L" or "RGB"), 8 bits per channel."""
    if image.mode == mode and "transparency" not in image.info:
        return image
    if _is_wide(image):
        return Image.fromarray(_from_wide(np.asarray(image), window)).convert(mode)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return Image.alpha_composite(Image.new("RGBA", image.size, _BLACK), image.convert("RGBA")).convert(mode)
    if image.mode == "LAB":
        image = image.convert("RGB")  # the only way that Pillow knows out of it
    return image.convert(mode)


def _is_wide(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _from_wide(values: npt.NDArray[Any], window: tuple[float, float] | None) -> npt.NDArray[np.uint8]:
    """Return uint8 of the shape of ``values``, which have more than 8 bits."""
    if window is not None:
        return between(values, *percentiles(values, window))
    if values.dtype.kind == "f":
        raise PixelError("floating-point pixels have no fixed range; data.window gives them one")
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise PixelError("32-bit pixels beyond 16 bits have no fixed range; data.window gives them one")
    return ((wide + 128) // 257).astype(np.uint8)


def source_stamps(root: Path, images: Sequence[str], *, progress: bool = False) -> npt.NDArray[np.int64]:
    """Return size and mtime in ns of each film, int64 (N, 2), after checking that it is there and below the root.

    Args:
        root: folder of the data set, with its own symbolic links resolved.
        images: paths below ``root``.
        progress: show films/s and the time left on stderr, if it takes more than a moment.

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
    # Seconds on a disk of this machine, minutes for a large set on a network drive.
    bar = tqdm(images, unit="film", desc="look for films", delay=DELAY, disable=not progress)
    for row, image in enumerate(bar):
        parent, _, name = image.rpartition("/")
        path = f"{real(parent)}/{name}"
        try:
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                path, info = os.path.realpath(path), os.stat(path)  # noqa: PTH116
        except OSError as error:
            # A link that leads to itself is there, and cannot be decoded: a matter for quarantine.
            if error.errno != errno.ELOOP:
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
