"""One frontal thorax while findings are painted into its layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noisy_student.data.synthetic.anatomy import Thorax
from noisy_student.data.synthetic.banks import cloud
from noisy_student.data.synthetic.cases import F32, Draws
from noisy_student.data.synthetic.shape import edge


@dataclass(slots=True)
class View:
    """One thorax of a batch: maps (S, S) share the batch's memory, row functions are (S, 1), columns (1, S)."""

    att: F32
    air: F32
    lung: F32
    vessels: F32
    ribs: F32
    x: F32  # (1, S)
    y: F32  # (S, 1)
    left: F32
    right: F32
    inner_left: F32
    inner_right: F32
    dome: F32  # (1, S)
    top: float
    base: float
    apex: float
    width: float
    pixel: float
    supine: bool

    @property
    def size(self) -> int:
        """Side of the maps in pixels."""
        return int(self.att.shape[0])

    @property
    def height(self) -> float:
        """Distance from apex to costophrenic angle."""
        return self.base - self.apex

    def wall(self, side: int) -> F32:
        """Return |x| of the chest wall on ``side`` (-1 or 1) by row, shape (S, 1)."""
        return self.right if side > 0 else -self.left

    def inner(self, side: int) -> F32:
        """Return |x| of the mediastinal border on ``side`` by row, shape (S, 1)."""
        return self.inner_right if side > 0 else -self.inner_left

    def half(self, side: int) -> npt.NDArray[np.bool_]:
        """Return whether a column lies on ``side``, shape (1, S)."""
        return self.x * side > 0

    def soft(self, least: float) -> float:
        """Return the softness of a border in film units: ``least``, but never below a pixel."""
        return max(least, 1.2 * self.pixel)

    def at(self, side: int, across: float, down: float) -> tuple[float, float]:
        """Return the point of a lung at the shares ``across`` (hilum to wall) and ``down`` (apex to base)."""
        y = self.apex + self.height * down
        row = int(np.clip(np.searchsorted(self.y[:, 0], y), 0, self.size - 1))
        inner, wall = float(self.inner(side)[row, 0]), float(self.wall(side)[row, 0])
        return side * (inner + (wall - inner) * across), y

    def fill(self, amount: F32) -> None:
        """Replace air by tissue: ``amount`` in [0, 1] of what is left, vessels lost in the same measure."""
        taken = self.air * amount
        self.att += taken
        self.air -= taken
        self.vessels *= 1 - amount

    def patch(self, u: Draws, x: float, y: float, radius: float, fuzz: float, ragged: float = 0.30) -> F32:
        """Return an irregular patch, values in [0, 1], about ``radius`` wide; ``u`` gives four draws for its shape."""
        r = np.sqrt(((self.x - x) / radius) ** 2 + ((self.y - y) / (radius * (0.8 + 0.6 * u[3]))) ** 2)
        return edge((1.0 - r + ragged * cloud(u[0], u[1], u[2], self.size)) / fuzz)


def view(layers: Thorax, n: int) -> View:
    """Return film ``n`` of a batch for painting."""
    g = layers.shape
    maps = (layers.att[n], layers.air[n], layers.lung[n], layers.vessels[n], layers.ribs[n])
    borders = (g.x[n], g.y[n], g.left[n], g.right[n], g.inner_left[n], g.inner_right[n], g.dome[n])
    numbers = (float(g.top[n]), float(g.base[n]), float(g.apex[n]), float(g.width[n]), float(g.pixel[n]))
    return View(*maps, *borders, *numbers, supine=bool(g.supine[n]))
