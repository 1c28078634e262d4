"""A look at every film of a data set before anything is trained on it: missing, damaged, odd or there twice."""

from __future__ import annotations

import hashlib
import multiprocessing
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from noisy_student.data import near_duplicates
from noisy_student.data.decode import FORMATS, DecodeSettings, decode
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError

ASPECT: Final = 2.0
"""A film whose longer side is more than this many times the shorter one is odd."""
SATURATED: Final = 0.6
"""A film with more than this share of its pixels at black or at white is odd."""
CHUNK: Final = 64
"""Films per task of a worker."""
INLINE: Final = 256
"""Up to this many films are looked at in this process."""
LEFT_OUT: Final = "left out"
"""The split of films that a configuration leaves out, which no film can leak into."""
SERIOUS: Final = ("missing", "unreadable")
"""Problems that keep a film out of training."""


@dataclass(frozen=True, eq=False)
class Look:
    """What one film looks like.

    Attributes:
        problems: problem -> words.
        digest: hash of its bytes; empty where it could not be read.
        thumbnail: for :mod:`noisy_student.data.near_duplicates`; black where it could not be read.
    """

    problems: dict[str, str]
    digest: str = ""
    thumbnail: npt.NDArray[np.uint8] = field(default_factory=lambda: near_duplicates.NOTHING)


def look(root: str, size: int, image: str, window: tuple[float, float] | None = None) -> Look:
    """Return what the film at ``root / image`` looks like when it is decoded for a model of side ``size``.

    All of the film is looked at, whatever its fit; ``window`` is that of :class:`DecodeSettings`.
    """
    path = Path(root, image)
    if not path.is_file():
        return Look({"missing": "a folder" if path.is_dir() else "there is no such file"})
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        pixels = decode(path, DecodeSettings(size, 1, window=window))
    except (DataError, OSError) as error:
        reason = error.message if isinstance(error, DataError) else str(error)
        return Look({"unreadable": reason.replace(str(path), "the film")})
    problems = {}
    shape = _shape(path)
    if shape is not None:
        width, height = shape
        if 2 * min(shape) < size:
            problems["tiny"] = f"{width} x {height} pixels"
        if max(shape) > ASPECT * min(shape):
            problems["aspect"] = f"{width} x {height} pixels"
    ends = {"black": float((pixels == 0).mean()), "white": float((pixels == 255).mean())}
    if pixels.min() == pixels.max():
        problems["constant"] = f"every pixel is {pixels.min()}"
    elif max(ends.values()) > SATURATED:
        worst = max(ends, key=ends.__getitem__)
        problems["saturated"] = f"{ends[worst]:.0%} of the pixels are {worst}"
    return Look(problems, digest, near_duplicates.thumbnail(pixels))


def _shape(path: Path) -> tuple[int, int] | None:
    """Return width and height from the header, ``None`` where they are not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except UnidentifiedImageError:
        from noisy_student.data import dicom  # here, because it is rarely needed

        try:
            found = dicom.read(path, ("Rows", "Columns"))
            return dicom.safely("", lambda _: (int(found.Columns), int(found.Rows)))
        except ValueError:
            return None


def check(
    films: Manifest,
    root: Path,
    size: int,
    *,
    window: tuple[float, float] | None = None,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """Return what is wrong with the films of a manifest, as plain values.

    ``problems`` counts by kind; ``films`` has image, problem and detail of each; ``duplicates`` has the groups of films
    with equal bytes (``kind`` exact) and of those that look the same (``near``), with their splits, the number of
    patients they are filed under, and ``leakage``: whether they are in more than one split; ``leakage`` counts those
    groups.

    Args:
        films: the films, with their splits.
        root: folder of the data set.
        size: side of the decoded film.
        window: percentiles for films of more than 8 bits, as the cache takes them.
        workers: processes that read.
        progress: show films/s and the time left on stderr.
    """
    images = films.frame["image"].tolist()
    looks = _look_at(str(root), size, window, images, workers, progress)
    found = [
        {"image": image, "problem": problem, "detail": detail}
        for image, seen in zip(images, looks, strict=True)
        for problem, detail in seen.problems.items()
    ]
    duplicates = groups(films, looks, progress=progress)
    kinds = pd.Series([entry["problem"] for entry in found], dtype="str").value_counts()
    return {
        "images": len(images),
        "problems": {str(kind): int(count) for kind, count in kinds.items()},
        "films": found,
        "duplicates": duplicates,
        "leakage": sum(group["leakage"] for group in duplicates),
    }


def groups(films: Manifest, looks: Sequence[Look], *, progress: bool = False) -> list[dict[str, Any]]:
    """Return the groups of films that are the same by their bytes or nearly so by their look, leaking ones first.

    A film that is nearly the same as two others brings them into one group. Unread films are in none.
    """
    one_of: dict[str, int] = {}
    for row, seen in enumerate(looks):
        if seen.digest:
            one_of.setdefault(seen.digest, row)
    different = list(one_of.values())
    leader = {row: row for row in different}

    def root_of(row: int) -> int:
        while leader[row] != row:
            row = leader[row]
        return row

    thumbnails = np.stack([near_duplicates.NOTHING, *(looks[row].thumbnail for row in different)])[1:]
    for first, second in near_duplicates.find(thumbnails, progress=progress)[0]:
        low, high = sorted((root_of(different[first]), root_of(different[second])))
        leader[high] = low
    members: dict[int, list[int]] = {}
    for row, seen in enumerate(looks):
        if seen.digest:
            members.setdefault(root_of(one_of[seen.digest]), []).append(row)
    found = [_group(films, rows, looks) for rows in members.values() if len(rows) > 1]
    return sorted(found, key=lambda group: not group["leakage"])


def _group(films: Manifest, rows: list[int], looks: Sequence[Look]) -> dict[str, Any]:
    frame = films.frame.iloc[rows]
    splits = sorted(set(frame["split"]))
    return {
        "kind": "exact" if len({looks[row].digest for row in rows}) == 1 else "near",
        "images": frame["image"].tolist(),
        "splits": splits,
        "patients": int(frame["patient"].nunique()),
        "leakage": len({*splits} - {LEFT_OUT}) > 1,
    }


def _look_at(
    root: str, size: int, window: tuple[float, float] | None, images: Sequence[str], workers: int, progress: bool
) -> list[Look]:
    task = partial(look, root, size, window=window)
    with tqdm(total=len(images), unit="film", desc="check", disable=not progress) as bar:
        if workers <= 1 or len(images) <= INLINE:
            return [_counted(bar, task(image)) for image in images]
        # Not forked: this process may hold threads, which a fork would leave in the middle of anything.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return [_counted(bar, seen) for seen in pool.map(task, images, chunksize=CHUNK)]


def _counted(bar: Any, seen: Look) -> Look:
    bar.update()
    return seen
