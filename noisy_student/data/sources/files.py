"""Where films lie below the root: data sets are unpacked in more than one way."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pandas as pd

FILMS: Final = (".png", ".jpg", ".jpeg", ".dicom", ".dcm", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".j2k")
"""Endings of film files, the preferred one first."""

_log = logging.getLogger(__name__)


def storable(path: str) -> bool:
    """Return whether a path can be written to a table: one that is not UTF-8 cannot, and is named in a warning."""
    try:
        path.encode()
    except UnicodeEncodeError:
        _log.warning("%s is left out: its name is not UTF-8", ascii(path))
        return False
    return True


def begins_like_dicom(path: str | Path) -> bool:
    """Return whether a regular file begins as DICOM does; pipes and devices, which could block, are not read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - paths are text where there is one per film
            return False
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def folders(root: Path, patterns: Sequence[str]) -> list[str]:
    """Return the folders below ``root`` that match one of the glob ``patterns``, in their order; ``.`` is the root."""
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [root] if pattern == "." else sorted(root.glob(pattern))
        found |= {path.relative_to(root).as_posix(): None for path in matches if path.is_dir()}
    return list(found)


def locate(
    root: Path, names: pd.Series[str], patterns: Sequence[str], otherwise: pd.Series[str], *, by_stem: bool = False
) -> pd.Series[str]:
    """Return the path below ``root`` of each film name (N,); ``otherwise`` (N,) where no such file is there.

    Each folder is listed once: asking for every film by itself takes minutes on a network drive.

    Args:
        root: folder of the data set.
        names: file names (N,).
        patterns: globs of the folders that may hold films; the first that has a name wins.
        otherwise: paths of the data set's own layout.
        by_stem: ``names`` are without their endings.
    """
    place: dict[str, str] = {}
    for folder in folders(root, patterns):
        prefix = "" if folder == "." else f"{folder}/"
        for name in _listing(root / folder):
            place.setdefault(name.rsplit(".", 1)[0] if by_stem else name, prefix + name)
    return names.map(place).fillna(otherwise).astype("str") if place else otherwise


def _listing(folder: Path) -> Iterator[str]:
    """Yield the names of the film files in a folder; of equal stems, the ending that comes first in ``FILMS``."""
    rank = {ending: place for place, ending in enumerate(FILMS)}
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if Path(entry.name).suffix.lower() in rank and not entry.name.startswith(".")
        ]
    yield from sorted(names, key=lambda name: (rank[Path(name).suffix.lower()], name))
