"""Cases to films: layers summed, tilted, put through the film's tone curve, with grain and sharpening.

A film depends on its case alone, not on its batch: every operation works within one film.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from noisy_student.data.synthetic.anatomy import thorax
from noisy_student.data.synthetic.banks import cloud, grain
from noisy_student.data.synthetic.cases import F32, TAG_EXPOSURE, TAG_MARKS, Case, between, draw
from noisy_student.data.synthetic.findings import paint
from noisy_student.data.synthetic.lateral import lateral
from noisy_student.data.synthetic.markers import borders, writing
from noisy_student.data.synthetic.shape import SPAN
from noisy_student.randomness import uniform

_BATCH_PIXELS: Final = 2**17  # maps of this many float32 stay in a core's cache


@dataclass(frozen=True)
class Exposure:
    """How a view was taken and printed; each field has shape (N,)."""

    tilt: F32 = field(metadata=between(-4.5, 4.5))  # degrees
    dose: F32 = field(metadata=between(-0.13, 0.13))  # shift of the attenuation
    gain: F32 = field(metadata=between(0.82, 1.18))
    softness: F32 = field(metadata=between(0.15, 0.32))
    noise: F32 = field(metadata=between(0.002, 0.024))
    sharpen: F32 = field(metadata=between(0.1, 1.0))
    floor: F32 = field(metadata=between(0.0, 0.06))
    ceiling: F32 = field(metadata=between(0.84, 1.0))
    heel: F32 = field(metadata=between(-0.06, 0.06))  # brightness from top to bottom
    across: F32 = field(metadata=between(-0.07, 0.07))  # brightness from left to right
    cloud: F32 = field(metadata=between(0.0, 1.0))
    grain_u: F32 = field(metadata=between(0.0, 1.0))
    grain_v: F32 = field(metadata=between(0.0, 1.0))
    grid: F32 = field(metadata=between(-0.024, 0.006))  # lines of the anti-scatter grid


def _tilt(att: F32, degrees: float) -> F32:
    """Return ``att`` turned about its centre and cut to the film (the rendered square is a little larger)."""
    size = att.shape[0]
    turn = np.deg2rad(degrees)
    cos, sin = np.cos(turn) / SPAN, np.sin(turn) / SPAN
    middle = size / 2
    matrix = (cos, sin, middle - (cos + sin) * middle, -sin, cos, middle - (cos - sin) * middle)
    tilted = Image.fromarray(att).transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(tilted)


def _blur(film: F32, radius: int) -> F32:
    """Return the mean over a square of side ``2 * radius + 1`` by running sums along both axes of (N, S, S)."""
    for axis in (1, 2):
        width = [(0, 0)] * 3
        width[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(film, width, mode="edge"), axis=axis, dtype=np.float32)
        length = film.shape[axis]
        ends = np.take(total, np.arange(2 * radius + 1, 2 * radius + 1 + length), axis=axis)
        film = (ends - np.take(total, np.arange(length), axis=axis)) / np.float32(2 * radius + 1)
    return film


def develop(att: F32, cases: Sequence[Case]) -> npt.NDArray[np.uint8]:
    """Return films (N, S, S) uint8 of attenuations ``att`` (N, S, S): logistic tone, sharpening, grain, printing."""
    size = att.shape[1]
    ids = [np.array([getattr(case, key) for case in cases]) for key in ("patient", "study", "view")]
    e = draw(Exposure, cases[0].seed, TAG_EXPOSURE, cases[0].split, *ids)
    portable = np.array([case.projection == "AP" for case in cases], dtype=np.float32)
    tilted = np.stack([_tilt(att[n], float(e.tilt[n])) for n in range(len(cases))])
    for n in range(len(cases)):
        # Muscle, fat and blood are not even: without this the heart looks like a paper cut-out.
        tilted[n] += np.float32(0.022) * cloud(float(e.cloud[n]), float(e.grain_v[n]), float(e.grain_u[n]), size)

    def c(values: F32) -> F32:
        return values[:, None, None].astype(np.float32)

    axis = ((np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size)) - 1
    density = (tilted - np.float32(0.61)) * c(e.gain / e.softness)
    density += c((e.dose + 0.03 * portable) / e.softness) + c(e.heel / e.softness) * axis[None, :, None]
    density += c(e.across / e.softness) * axis[None, None, :]
    film = np.reciprocal(1 + np.exp(-density))
    radius = max(1, size // 48)
    film += c(e.sharpen * 0.6) * (film - _blur(film, radius))
    noise = c(e.noise * (1 + 0.5 * portable) * (0.2 + 0.8 * min(1.0, size / 256)))
    for n in range(len(cases)):
        film[n] += (
            noise[n] * (0.25 + 1.6 * film[n] * (1 - film[n])) * grain(float(e.grain_u[n]), float(e.grain_v[n]), size)
        )
    film *= c(e.ceiling - e.floor)
    film += c(e.floor)
    for n, case in enumerate(cases):
        if e.grid[n] > 0:
            film[n] += e.grid[n] * np.cos(axis * np.float32(size * (0.4 + 0.5 * float(e.cloud[n]))))
        u = uniform(case.seed, TAG_MARKS, case.split, case.patient, case.study, case.view, np.arange(20)).tolist()
        if (field_and_grey := borders(u[:8], size)) is not None:
            exposed, grey = field_and_grey
            film[n] *= exposed
            film[n] += np.float32(grey) * (1 - exposed)
        if (marks := writing(u[8:], case.projection, size)) is not None:
            np.maximum(film[n], np.float32(0.78 + 0.22 * u[0]) * marks, out=film[n])
    films: npt.NDArray[np.uint8] = (np.clip(film, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    return films


def render(cases: Sequence[Case], size: int) -> npt.NDArray[np.uint8]:
    """Return the films of ``cases`` as uint8 of shape (N, size, size).

    A film is a function of its case and ``size`` alone; number and order of the other cases do not matter.
    """
    films = np.empty((len(cases), size, size), dtype=np.uint8)
    groups: dict[tuple[int, int, bool], list[int]] = {}
    for number, case in enumerate(cases):
        groups.setdefault((case.seed, case.split, case.projection == "LL"), []).append(number)
    step = max(1, _BATCH_PIXELS // size**2)
    for (_, _, from_side), numbers in groups.items():
        for start in range(0, len(numbers), step):
            chosen = numbers[start : start + step]
            batch = [cases[number] for number in chosen]
            films[chosen] = develop(lateral(batch, size) if from_side else _frontal(batch, size), batch)
    return films


def _frontal(cases: Sequence[Case], size: int) -> F32:
    layers = thorax(cases, size)
    for number, case in enumerate(cases):
        paint(case, number, layers)
    att = layers.att
    att += layers.vessels
    att += layers.ribs
    return att
