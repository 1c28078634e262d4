"""Films that are nearly the same: compressed again, resized, cropped a little or exposed otherwise.

Chest films are alike, so a perceptual hash of 64 bits does not do: the nearest film of another patient agrees with a
film in more bits than its own copy with 2 % cut off each side. So candidates are found by what sets a film apart from
the collection's other films, and each pair is then laid one over the other and compared in its details.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from noisy_student.data.decode import DELAY

SIDE: Final = 64
"""Side of the thumbnails that are compared."""
NOTHING: Final = np.zeros((SIDE, SIDE), dtype=np.uint8)
"""The thumbnail of a film that cannot be read: like no other."""
ALIKE: Final = 0.9
"""Correlation of details from which two films are near duplicates. Two films of different patients come to 0.89 at most
among 5,228 phantoms and 0.81 among 1,000 films of NIH; copies with 2 % cut off each side come to 0.93 and more."""

_CANDIDATES: Final = 20  # later films that each film is laid over
_SIMILAR: Final = 0.6  # cosine of descriptors from which a film is a candidate
_DIMENSIONS: Final = 48
_ALL_PAIRS: Final = 200  # up to this many films every pair is compared: too few to learn what is common to them
_BATCH: Final = 256
_WORTH: Final = (0.85, 0.75)  # likeness at a quarter and half of the size from which a pair is looked at further
_EDGE: Final = 6  # rows and columns at the border that a copy may lack
_FURTHEST: Final = 8.0  # pixels that cropping moves a detail at most

Floats = npt.NDArray[np.float32]
Pairs = npt.NDArray[np.int64]


def thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a decoded film (C, S, S), its first channel, as uint8 of shape (64, 64)."""
    return np.asarray(Image.fromarray(pixels[0]).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def find(thumbnails: npt.NDArray[np.uint8], *, progress: bool = False) -> tuple[Pairs, Floats]:
    """Return the pairs (M, 2) of films that are nearly the same, the smaller row first, and their likeness (M,).

    Args:
        thumbnails: one per film, uint8 (N, 64, 64), from :func:`thumbnail`. Constant ones are like no other.
        progress: show pairs/s and the time left on stderr, if it takes more than a moment.
    """
    there = np.flatnonzero(thumbnails.min(axis=(1, 2)) < thumbnails.max(axis=(1, 2)))
    coarse = np.zeros((len(thumbnails), SIDE // 4, SIDE // 4), dtype=np.float32)
    for start in range(0, len(thumbnails), _BATCH):
        coarse[start : start + _BATCH] = _halved(_halved(_even(thumbnails[start : start + _BATCH])))
    pairs = there[_candidates(coarse[there], progress)]
    likeness = np.zeros(len(pairs), dtype=np.float32)
    starts = range(0, len(pairs), _BATCH)
    for start in tqdm(starts, unit="batch", desc="compare alike films", delay=DELAY, disable=not progress):
        rows = pairs[start : start + _BATCH]
        first, second = coarse[rows[:, 0]], coarse[rows[:, 1]]
        way = _step(first, second)
        worth = np.flatnonzero(_agreement(_moved(first, way), second) >= _WORTH[0])
        if not len(worth):
            continue
        left, right = (_even(thumbnails[rows[worth, side]]) for side in (0, 1))
        likeness[start + worth] = _likeness(left, right, 2 * way[worth])
    return pairs[likeness >= ALIKE], likeness[likeness >= ALIKE]


def _candidates(coarse: Floats, progress: bool) -> Pairs:
    """Return pairs of films (N, 16, 16) that are worth comparing, each once, the smaller row first."""
    if len(coarse) <= _ALL_PAIRS:
        return np.stack(np.triu_indices(len(coarse), 1), axis=1)
    descriptors = _descriptors(coarse)
    found = []
    height = max(1, (1 << 22) // len(coarse))  # 16 MB of products at a time
    # Counted in pairs: the first films have most films after them. Quadratic, and the only thing here that is.
    pairs = len(coarse) * (len(coarse) + 1) // 2
    with tqdm(total=pairs, unit="pair", unit_scale=True, desc="films alike", delay=DELAY, disable=not progress) as bar:
        for start in range(0, len(coarse), height):
            # Every film with every later one, by matrix products: seconds for 20,000 films, and none is missed.
            products = descriptors[start : start + height] @ descriptors[start:].T
            place, other = np.nonzero(products >= _SIMILAR)
            place, other = place[other > place], other[other > place]
            order = np.lexsort((-products[place, other], place))
            place, other = place[order], other[order]
            best = np.arange(len(place)) - np.searchsorted(place, place) < _CANDIDATES
            found.append(np.stack([place[best], other[best]], axis=1) + start)
            done = len(products)
            bar.update(done * (len(coarse) - start) - done * (done - 1) // 2)
    return np.concatenate(found)


def _descriptors(coarse: Floats) -> Floats:
    """Return a unit vector for each film (N, D): its deviation from the mean film, every direction equally wide."""
    deviation = _unit(coarse.reshape(len(coarse), -1))
    deviation -= deviation.mean(axis=0)
    spread, directions = np.linalg.eigh((deviation.T @ deviation).astype(np.float64) / len(coarse))
    kept = slice(-_DIMENSIONS, None)
    return _unit(deviation @ (directions[:, kept] / np.sqrt(spread[kept] + 1e-9)).astype(np.float32))


def _unit(vectors: Floats) -> Floats:
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _even(thumbnails: npt.NDArray[np.uint8]) -> Floats:
    """Return films with even histograms from 0 to 1: every monotone change of exposure leaves them as they are."""
    count = len(thumbnails)
    flat = thumbnails.reshape(count, SIDE * SIDE)
    where = (np.arange(count)[:, None] * 256 + flat).ravel()
    histogram = np.bincount(where, minlength=count * 256).reshape(count, 256)
    ranks = ((histogram.cumsum(axis=1) - histogram / 2) / flat.shape[1]).astype(np.float32)
    return np.asarray(ranks.ravel()[where].reshape(thumbnails.shape))


def _halved(films: Floats) -> Floats:
    """Return the means of 2 x 2 pixels."""
    rows = films[:, ::2] + films[:, 1::2]
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / 4, dtype=np.float32)


# -- one film over another -----------------------------------------------------------------------------------------


def _likeness(first: Floats, second: Floats, way: Floats) -> Floats:
    """Return the correlation (M,) of details after each first film (M, 64, 64) was laid over the second.

    Pairs that are far from alike at half the size are not looked at further. ``way`` (M, 4) is a first guess of
    :func:`_step` in pixels of half the size.
    """
    first, second = _same_ends(first, second)
    small, other = _halved(first), _halved(second)
    way = way + _step(_moved(small, way), other)
    likeness = _agreement(_moved(small, way), other)
    rest = np.flatnonzero(likeness >= _WORTH[1])
    likeness[rest] = _agreement(_moved(first[rest], 2 * way[rest]), second[rest])
    return likeness


def _same_ends(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Return both films with black and white as far in as in either: a brighter copy has lost its brightest shades."""
    axes = (1, 2)
    black = np.maximum(first.min(axis=axes, keepdims=True), second.min(axis=axes, keepdims=True))
    white = np.minimum(first.max(axis=axes, keepdims=True), second.max(axis=axes, keepdims=True))

    def ended(films: Floats) -> Floats:
        # A level that a share q of the pixels has, at the end of the scale, has rank q / 2 or 1 - q / 2.
        films = np.where(films < 2 * black, black, films)
        return np.where(films > 2 * white - 1, white, films)

    return ended(first), ended(second)


def _agreement(films: Floats, others: Floats) -> Floats:
    edge = _EDGE * films.shape[1] // SIDE
    inner = (slice(None), slice(edge, -edge), slice(edge, -edge))
    left, right = (
        _unit(_details(each)[inner].reshape(len(each), (films.shape[1] - 2 * edge) ** 2)) for each in (films, others)
    )
    return np.asarray((left * right).sum(axis=1), dtype=np.float32)


def _step(films: Floats, others: Floats) -> Floats:
    """Return how far to move details of ``films`` (M, S, S) towards ``others``: (M, 4), in pixels.

    Shift and stretch along x and y, by least squares on the film, its gradients, and its gradients times the distance
    from the centre (the tangents of a small crop; Simard et al. 1998).
    """
    down, right = np.gradient(films, axis=(1, 2))
    away = np.linspace(-1, 1, films.shape[1], dtype=np.float32)
    tangents = np.stack([np.ones_like(films), films, right, down, right * away, down * away[:, None]], axis=-1)
    edge = _EDGE * films.shape[1] // SIDE
    inner = (slice(None), slice(edge, -edge), slice(edge, -edge))
    basis = tangents[inner].reshape(len(films), -1, 6)
    target = others[inner].reshape(len(films), -1, 1)
    turned = basis.transpose(0, 2, 1)
    weights = np.linalg.solve(turned @ basis + 1e-5 * np.eye(6, dtype=np.float32), turned @ target)[..., 0]
    limit = _FURTHEST * films.shape[1] / SIDE
    return np.asarray(np.clip(weights[:, 2:] / np.maximum(weights[:, 1:2], 0.2), -limit, limit), dtype=np.float32)


def _moved(films: Floats, way: Floats) -> Floats:
    """Return the films with details moved by ``way`` (M, 4) of :func:`_step`, bilinear, edges repeated."""
    side = films.shape[1]
    away, place = np.linspace(-1, 1, side, dtype=np.float32), np.arange(side, dtype=np.float32)
    across = np.clip(place + way[:, :1] + way[:, 2:3] * away, 0, side - 1.001)
    down = np.clip(place + way[:, 1:2] + way[:, 3:4] * away, 0, side - 1.001)

    def between(values: Floats, at: Floats, axis: int) -> Floats:
        low = at.astype(np.int64)
        share = at - low
        shape = (slice(None), None, slice(None)) if axis == 2 else (slice(None), slice(None), None)
        result: Any = np.take_along_axis(values, low[shape], axis) * (1 - share[shape])
        result += np.take_along_axis(values, low[shape] + 1, axis) * share[shape]
        return np.asarray(result, dtype=np.float32)

    return between(between(films, across, 2), down, 1)


def _details(films: Floats) -> Floats:
    """Return the films less their mean over 7 x 7 pixels."""
    blurred = films
    for axis in (1, 2):
        width = [(0, 0), (0, 0), (0, 0)]
        width[axis] = (4, 3)
        sums = np.pad(blurred, width, mode="edge").cumsum(axis=axis, dtype=np.float32)
        ends = [slice(None)] * 3
        starts = [slice(None)] * 3
        ends[axis], starts[axis] = slice(7, None), slice(None, -7)
        blurred = (sums[tuple(ends)] - sums[tuple(starts)]) / 7
    return films - blurred
