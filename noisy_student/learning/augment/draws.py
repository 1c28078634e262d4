"""What each film of a batch gets, drawn from the policy: numbers only, no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student import randomness
from noisy_student.config.noise import STRONGEST, NoiseConfig, Operation

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BANK: Final = 2**20
"""Places at which a film's grain can start in the fixed bank of normal numbers; the sign doubles them."""

KNOTS: Final = 6
"""Knots of the elastic displacement along either axis."""

_SLOTS: Final = 7  # numbers of one operation: used or not, its lot among the optional ones, and up to five magnitudes


@dataclass(frozen=True)
class Draws:
    """The noise of each film of a batch; arrays have shape (B,) unless said otherwise.

    A film without an operation has the value that changes nothing, which is 0 unless said otherwise.
    """

    flip: Bools
    """Whether left and right are exchanged."""
    rotate: Floats
    """Degrees, counter-clockwise on the screen."""
    scale: Floats
    """Factor of size, symmetric about 1 on a logarithmic scale; 1 is none."""
    translate: Floats
    """Shift right and down as shares of the side, (B, 2)."""
    shear: Floats
    """Degrees of shear along x and along y, (B, 2)."""
    perspective: Floats
    """Change of magnification from the centre to the right and to the lower edge, (B, 2)."""
    crop: Floats
    """Shares of the side cut off at the top, left, bottom and right, (B, 4)."""
    elastic: Floats
    """Displacements (B, 2, KNOTS, KNOTS) along x and y as shares of the side."""
    gamma: Floats
    """Exponent of the intensities; 1 is none."""
    contrast: Floats
    """Factor of the distance to the film's mean, >= 0; 1 is none."""
    brightness: Floats
    """Added on the [0, 1] scale."""
    window: Floats
    """Widths cut off at the dark and at the bright end of the scale, (B, 2)."""
    equalize: Floats
    """Share of the equalised film."""
    clahe: Floats
    """Share of the film equalised tile by tile."""
    posterize: Ints
    """Bits that are dropped."""
    low_resolution: Floats
    """Share of the resolution that is lost, on a ladder of few steps."""
    blur: Floats
    """Standard deviation in pixels of a 96-pixel film."""
    edges: Floats
    """Weight of the difference to a blurred copy."""
    sharpness: Floats
    """Factor of the distance to the smoothed film; 1 is none, 0 the smoothed film."""
    poisson: Floats
    """Standard deviation of quantum noise at white."""
    gaussian: Floats
    """Standard deviation of additive noise on the [0, 1] scale."""
    grain_offset: Ints
    """Start of the film's grain in the bank, in [0, BANK)."""
    grain_sign: Floats
    """-1 or 1, the sign with which the grain is added."""
    erase: Floats
    """Top, left, bottom and right of the erased rectangle as shares of the side, (B, 4)."""
    grid: Floats
    """Of the grid mask: period, side of a square, offset down and offset right, as shares of the side, (B, 4)."""


class _Lots:
    """Uniform numbers by operation and slot for the films of a batch, and which film gets which operation."""

    def __init__(self, noise: NoiseConfig, seed: int, generation: int, position: Ints, image_id: Ints) -> None:
        self.noise, self.coordinates = noise, (seed, generation, position, image_id)
        self.dial = noise.strength / STRONGEST
        # A number is known by the name of its operation: a new operation leaves the draws of all others as they are.
        self.names = tuple(name for name, operation in noise.operations().items() if operation.probability > 0)
        codes = np.array([randomness.text_id(name) for name in self.names], dtype=np.int64)
        self._u = randomness.uniform(
            seed, generation, position[:, None, None], image_id[:, None, None], codes[:, None], np.arange(_SLOTS)
        )  # (B, operations, slots)

    @cached_property
    def used(self) -> dict[str, Bools]:
        """Which films get which operation."""
        operations = self.noise.operations()
        chance = np.array([operations[name].probability for name in self.names])
        used = self._u[:, :, 0] < chance
        optional = np.array([operations[name].optional for name in self.names], dtype=bool)
        if optional.sum() > self.noise.count:
            rank = self._u[:, optional, 1].argsort(axis=1).argsort(axis=1)
            used[:, optional] &= rank < self.noise.count
        return {name: used[:, index] for index, name in enumerate(self.names)}

    def on(self, name: str) -> Bools:
        """Return which films get ``name``."""
        return self.used.get(name, np.zeros(len(self.coordinates[2]), dtype=bool))

    def u(self, name: str, slot: int) -> Floats:
        """Return magnitude ``slot`` (0 to 4) of ``name``, uniform in [0, 1)."""
        if name not in self.names:
            return np.zeros(len(self.coordinates[2]))
        numbers: Floats = self._u[:, self.names.index(name), 2 + slot]
        return numbers

    def reach(self, name: str) -> float:
        """Return the largest change by ``name`` at the policy's strength."""
        operation: Operation = getattr(self.noise, name)
        return operation.range * self.dial

    def one_sided(self, name: str, slot: int = 0, least: float = 0.0) -> Floats:
        """Return a change in [least * reach, reach), 0 for films without the operation."""
        return np.where(self.on(name), (least + (1.0 - least) * self.u(name, slot)) * self.reach(name), 0.0)

    def direction(self, name: str, slot: int = 0) -> Floats:
        """Return a share of the reach in [-1, 1), 0 for films without the operation."""
        return np.where(self.on(name), 2.0 * self.u(name, slot) - 1.0, 0.0)

    def two_sided(self, name: str, slot: int = 0) -> Floats:
        """Return a change in [-reach, reach), 0 for films without the operation."""
        return self.direction(name, slot) * self.reach(name)

    def pairs(self, name: str) -> Floats:
        """Return two changes in [-reach, reach) per film, (B, 2)."""
        return np.stack([self.two_sided(name, 0), self.two_sided(name, 1)], axis=1)


def draw(noise: NoiseConfig, *, seed: int, generation: int, position: Ints, image_id: Ints) -> Draws:
    """Return the noise of each film, a pure function of its coordinates.

    Every range is multiplied by ``noise.strength / 10``; probabilities are as they are written.

    Args:
        noise: what to draw from.
        seed: seed of the run.
        generation: 0 for the teacher, 1 for its first student, ...
        position: (B,) place of each film in the sample sequence; a film drawn twice in an epoch has two.
        image_id: (B,) stable identifiers of the films.
    """
    lots = _Lots(noise, seed, generation, position, image_id)
    grain = randomness.uniform(seed, generation, position, image_id, randomness.text_id("grain"))
    place = (grain * 2 * BANK).astype(np.int64)
    return Draws(
        flip=lots.on("flip"),
        rotate=lots.two_sided("rotate"),
        scale=(1.0 + lots.reach("scale")) ** lots.direction("scale"),
        translate=lots.pairs("translate"),
        shear=lots.pairs("shear"),
        perspective=lots.pairs("perspective"),
        crop=np.stack([lots.one_sided("crop", slot) for slot in range(4)], axis=1),
        elastic=_elastic(lots),
        gamma=np.exp2(lots.two_sided("gamma")),
        contrast=1.0 + lots.two_sided("contrast"),
        brightness=lots.two_sided("brightness"),
        window=np.stack([lots.one_sided("window", 0), lots.one_sided("window", 1)], axis=1),
        equalize=lots.one_sided("equalize"),
        clahe=lots.one_sided("clahe"),
        posterize=np.ceil(lots.one_sided("posterize")).astype(np.int64),
        # Films of one step are resized together, so the ladder has few steps.
        low_resolution=np.rint(lots.one_sided("low_resolution", least=0.25) * 10.0) / 10.0,
        # Below a quarter of a pixel a blur is none.
        blur=lots.one_sided("blur", least=0.25),
        edges=lots.one_sided("edges"),
        sharpness=np.maximum(1.0 + lots.two_sided("sharpness"), 0.0),
        poisson=lots.one_sided("poisson"),
        gaussian=lots.one_sided("gaussian"),
        grain_offset=place % BANK,
        grain_sign=np.where(place < BANK, -1.0, 1.0),
        erase=rectangles(lots.one_sided("erase"), *(lots.u("erase", slot) for slot in (1, 2, 3))),
        grid=_grid(lots),
    )


def rectangles(area: Floats, aspect: Floats, down: Floats, right: Floats) -> Floats:
    """Return top, left, bottom and right (B, 4), as shares of the side, of rectangles inside the film.

    Args:
        area: (B,) share of the film; 0 gives zeros.
        aspect: (B,) in [0, 1): height over width, from 1/2 to 2.
        down: (B,) in [0, 1): from the uppermost place to the lowest.
        right: (B,) in [0, 1): from the leftmost place to the rightmost.
    """
    ratio = np.exp2(2.0 * aspect - 1.0)
    # Where the longer side would not fit, it is cut to the film and the area is kept by the other.
    height = np.clip(np.sqrt(area * ratio), area, 1.0)
    width = np.divide(area, height, out=np.zeros_like(area), where=height > 0)
    top, left = down * (1.0 - height), right * (1.0 - width)
    return np.stack([top, left, top + height, left + width], axis=1) * (area > 0)[:, None]


def _elastic(lots: _Lots) -> Floats:
    displacement = np.zeros((len(lots.coordinates[2]), 2, KNOTS, KNOTS))
    if (chosen := np.flatnonzero(lots.on("elastic"))).size:
        seed, generation, position, image_id = lots.coordinates
        knots = np.arange(2 * KNOTS**2).reshape(2, KNOTS, KNOTS)
        ours = (chosen[:, None, None, None],)
        numbers = randomness.uniform(
            seed, generation, position[ours], image_id[ours], randomness.text_id("elastic knots"), knots
        )
        displacement[chosen] = (2.0 * numbers - 1.0) * lots.reach("elastic")
    return displacement


def _grid(lots: _Lots) -> Floats:
    period = np.where(lots.on("grid"), 0.15 + 0.25 * lots.u("grid", 1), 1.0)
    square = period * np.sqrt(lots.one_sided("grid"))
    offsets = [np.where(square > 0, lots.u("grid", slot) * period, 0.0) for slot in (2, 3)]
    return np.stack([period, square, *offsets], axis=1)
