"""What a lateral film shows of the findings; a large heart and a wide mediastinum are part of the anatomy there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from noisy_student.data.synthetic.banks import cloud
from noisy_student.data.synthetic.cases import F32, INDEX, Case, Draws, finding_draws
from noisy_student.data.synthetic.devices import Pen, curve, kinds
from noisy_student.data.synthetic.shape import bump, edge


@dataclass(slots=True)
class Side:
    """One lateral thorax while it is painted: maps (S, S), ``x`` (1, S), ``y`` and the walls (S, 1)."""

    att: F32
    air: F32
    lung: F32
    vessels: F32
    x: F32
    y: F32
    front: F32
    back: F32
    base: float

    def cloud(self, u: Draws, *, fine: bool = False) -> F32:
        """Return the texture that the three draws ``u`` choose."""
        return cloud(u[0], u[1], u[2], self.att.shape[0], fine=fine)

    def fill(self, amount: F32) -> None:
        """Replace air by tissue: ``amount`` in [0, 1] of what is left, vessels lost in the same measure."""
        taken = self.air * amount
        self.att += taken
        self.air -= taken
        self.vessels *= 1 - amount

    def patch(self, u: Draws, x: float, y: float, radius: float, fuzz: float) -> F32:
        """Return an irregular patch, values in [0, 1], about ``radius`` wide."""
        r = np.sqrt((self.x - x) ** 2 + ((self.y - y) / 0.9) ** 2) / radius
        return edge((1 - r + 0.15 * self.cloud(u)) / fuzz)


def _haze(v: Side, s: float, u: Draws) -> None:
    v.fill(v.patch(u[4:7], -0.25 + 0.5 * u[1], -0.2 + 0.5 * u[2], 0.30, 1.6) * (0.16 + 0.30 * s))


def _consolidation(v: Side, s: float, u: Draws) -> None:
    """A lobe: the upper in front and above, the middle over the heart, the lower behind; the fissure is its border."""
    zone = int(3 * u[2])
    x, y = ((-0.12, -0.38), (-0.22, 0.08), (0.28, 0.16))[zone]
    patch = v.patch(u[4:7], x + 0.1 * u[1], y + 0.1 * u[3], 0.19 + 0.20 * s, 0.85)
    # The oblique fissure runs from behind and above to the front and below.
    fissure = (v.y - 0.02) + 0.75 * (v.x - 0.02)
    patch = patch * edge(fissure / 0.04 if zone == 2 else -fissure / 0.04) * (0.34 + 0.50 * s)
    v.att -= 0.4 * s * patch * v.vessels
    v.fill(patch)


def _pneumonia(v: Side, s: float, u: Draws) -> None:
    mottle = np.clip(0.85 + 0.45 * v.cloud(u[8:11]), 0.3, 1.6)
    for k in range(1 + int(2 * s * u[1])):
        w = u[11 + 5 * k : 16 + 5 * k]
        patch = v.patch(w, -0.25 + 0.55 * w[3], -0.10 + 0.42 * w[4], 0.14 + 0.13 * s, 1.4)
        v.fill(np.minimum(patch * mottle * (0.26 + 0.38 * s), 0.9))


def _edema(v: Side, s: float, u: Draws) -> None:
    hilum = bump((v.x - 0.04) / 0.28) * bump((v.y + 0.04) / 0.30)
    texture = np.clip(1 + 0.4 * v.cloud(u), 0.2, 1.9)
    v.vessels *= 1 + 0.7 * s
    v.fill(np.minimum((0.08 + 0.52 * s**1.3) * hilum * texture + 0.10 * s, 0.9))
    v.att += v.lung * (0.010 + 0.022 * s) * v.cloud(u[3:6], fine=True)
    fissure = (v.y - 0.02) + 0.75 * (v.x - 0.02)  # fluid in the fissure
    v.att += 0.06 * s * bump(fissure / 0.010) * v.lung * edge((0.35 - np.abs(v.x)) / 0.1)


def _lesion(v: Side, s: float, u: Draws) -> None:
    pixel = float(v.x[0, 1] - v.x[0, 0])
    radius = max(0.060 + 0.11 * s**1.2, 1.2 * pixel)
    dx, dy = v.x + 0.28 - 0.55 * u[5], v.y + 0.40 - 0.62 * u[6]
    r = np.sqrt(dx * dx + dy * dy) / (radius * (1 + 0.09 * np.sin(2 * np.arctan2(dy, dx) + 6 * u[7])))
    v.att += (0.26 + 0.14 * s) * np.sqrt(np.clip(1.06 - r * r, 0, 1)) * edge((1.04 - r) / 0.45) * v.lung


def _atelectasis(v: Side, s: float, u: Draws) -> None:
    off = v.y - (0.16 + 0.16 * u[5]) - (u[6] - 0.4) * 0.7 * v.x
    along = edge((0.22 + 0.1 * u[7] - np.abs(v.x - 0.12)) / 0.12)
    v.att += v.lung * (0.10 + 0.18 * s) * edge((0.012 + 0.012 * s - np.abs(off)) / 0.018) * along
    if s > 0.4:  # the lower lobe sinks against spine and diaphragm
        grade = (s - 0.4) / 0.6
        wedge = edge(((v.x - 0.45 + 0.30 * grade) + 0.9 * (v.y - v.base + 0.12)) / 0.10) * edge((v.y + 0.1) / 0.3)
        v.fill(wedge * (0.30 + 0.45 * grade))


def _effusion(v: Side, s: float, u: Draws) -> None:
    """Fluid that fills the angle behind first, its surface higher along both walls."""
    level = v.base + 0.13 - (0.05 + 0.62 * s**1.25)
    climb = (0.05 + 0.08 * s) * (np.exp(-(v.back - v.x) / 0.10) + 0.6 * np.exp(-(v.x - v.front) / 0.10))
    v.fill(0.90 * edge((v.y - level - 0.03 + climb) / 0.07) * (1 - 0.45 * (u[1] < 0.5) * edge((-0.1 - v.x) / 0.3)))


def _pneumothorax(v: Side, s: float, u: Draws) -> None:
    """Air before and above the lung, beyond a thin line."""
    gap = 0.03 + 0.26 * s**1.3
    distance = np.maximum(v.front + gap - v.x, -0.80 + 1.6 * gap + 0.4 * (v.x - 0.1) ** 2 - v.y) / 0.020
    free = edge(distance)
    v.vessels *= 1 - free
    v.att -= (0.04 + 0.06 * s) * free * v.lung
    v.att += (0.07 + 0.04 * u[3]) * bump((distance + 0.2) / 0.65) * v.lung


def _pleural_other(v: Side, s: float, u: Draws) -> None:
    wave = 1 + 0.3 * np.sin(8 * v.y + 6 * u[1])
    thick = (0.03 + 0.08 * s) * wave * bump((v.y - 0.3 * (u[2] - 0.3)) / 0.35)
    v.fill(edge((thick - (v.back - v.x)) / 0.03) * (0.40 + 0.40 * s))
    islands = v.cloud(u[5:8]) - (1.75 - 0.55 * s)
    v.att += (0.05 + 0.12 * s) * edge(islands / 0.35) * v.lung
    line = edge((0.012 - np.abs(v.y - v.base + 0.10 - 0.25 * (v.x + 0.1) ** 2)) / 0.012)  # plaque on the diaphragm
    v.att += 0.15 * s * line * edge((0.20 - np.abs(v.x + 0.05)) / 0.1)


def _fracture(v: Side, s: float, u: Draws) -> None:
    """A rib behind in two pieces out of line."""
    x, y = 0.30 + 0.25 * u[1], -0.25 + 0.45 * u[2]
    for sign in (-1, 1):
        along, off = v.x - x, v.y - y + 0.55 * (v.x - x) - sign * (0.014 + 0.034 * s) * (1 + 0.5 * u[3])
        piece = (
            edge((0.022 - np.abs(off)) / 0.014)
            * edge((sign * along + 0.012) / 0.02)
            * edge((0.22 - sign * along) / 0.14)
        )
        v.att += (0.13 + 0.13 * s) * piece


def _devices(v: Side, s: float, u: Draws) -> None:
    """The same devices as on the frontal film where they show from the side."""
    pen = Pen(v.x[0], v.y[:, 0])
    shade = int(255 * (0.58 + 0.42 * s))
    for kind in kinds(s, u):
        if kind == 0:
            for wall in (-0.014, 0.014):
                pen.line(
                    curve([(-0.10 + wall, -1.3), (0.02 + wall, -0.7), (0.09 + wall, -0.28)]), 0.012, int(0.75 * shade)
                )
        elif kind == 1:
            course = [(-0.45, -0.9), (-0.20, -0.55), (-0.06, -0.35), (-0.08, 0.02 + 0.1 * u[9])]
            pen.line(curve(course), 0.016, int(0.66 * shade))
        elif kind == 2:
            course = [(0.02, -1.3), (0.13, -0.4), (0.14, 0.15), (0.02, v.base + 0.02), (-0.20, v.base + 0.2)]
            pen.line(curve(course), 0.019, int(0.62 * shade))
        elif kind == 3:
            box = (float(v.front[v.front.shape[0] // 3, 0]) - 0.05, -0.42)
            for end in ((-0.30, v.base - 0.10), (-0.02, v.base - 0.24)):
                pen.line(curve([box, (-0.18, -0.62), (-0.04, -0.38), (-0.10, -0.02), end]), 0.014, int(0.86 * shade))
            pen.box(box, 0.030, 0.085, int(0.92 * shade))
        elif kind == 4:
            course = [(0.75, 0.35), (0.50, 0.20), (0.30, -0.10), (0.22, -0.45)]
            for off in (0.0, 0.028):
                pen.line(curve([(a, b + off) for a, b in course]), 0.012, int(0.66 * shade))
        elif kind == 5:
            for x, y in ((-0.52, -0.30 + 0.2 * u[9]), (0.62, -0.10 + 0.3 * u[10])):
                pen.ring((x, y), 0.014, 0.034, 0.012, int(0.74 * shade), int(0.5 * shade))
                pen.line(curve([(x, y), (0.8 * x, 0.5), (0.6 * x, 1.2)]), 0.010, int(0.64 * shade))
        elif kind == 6:
            for k in range(3 + int(5 * u[32])):
                x, y = -0.15 + 0.4 * (u[11 + k] - 0.5), 0.5 * (u[19 + k] - 0.5)
                pen.line([(x, y), (x + 0.03 * u[10 + k], y + 0.03 * (1 - u[10 + k]))], 0.016, shade)
        else:
            for k in range(6):
                y = -0.42 + 0.13 * k
                row = int(np.clip(np.searchsorted(v.y[:, 0], y), 0, len(v.y) - 1))
                pen.ring((float(v.front[row, 0]) - 0.030, y), 0.020, 0.026, 0.013, shade)
    v.att += pen.map() * np.float32(0.50)


_PAINTERS: Final[dict[str, Callable[[Side, float, Draws], None]]] = {
    "Lung Opacity": _haze,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Edema": _edema,
    "Lung Lesion": _lesion,
    "Atelectasis": _atelectasis,
    "Pleural Other": _pleural_other,
    "Pleural Effusion": _effusion,
    "Pneumothorax": _pneumothorax,
    "Fracture": _fracture,
    "Support Devices": _devices,
}


def paint_lateral(case: Case, side: Side) -> None:
    """Paint the findings and devices of ``case`` into a lateral thorax."""
    for name, painter in _PAINTERS.items():
        if case.has(name):
            painter(side, case.severity[INDEX[name]], finding_draws(case, name))
