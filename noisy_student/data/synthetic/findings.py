"""What each observation looks like on a frontal film, painted into the layers of one thorax.

Findings that move borders (a large heart, a wide mediastinum, lost volume) are in :mod:`.shape`; here is what adds
or takes attenuation. Opacities hide vessels, air has none, and nothing is painted outside the tissue it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.data.synthetic.anatomy import Thorax
from noisy_student.data.synthetic.banks import cloud
from noisy_student.data.synthetic.cases import F32, INDEX, Case, Draws, finding_draws, side_of
from noisy_student.data.synthetic.devices import devices
from noisy_student.data.synthetic.shape import bump, edge


@dataclass(slots=True)
class View:
    """One thorax of a batch while it is painted: maps (S, S) share the batch's memory; row functions are (S, 1)."""

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

    def fill(self, amount: F32) -> None:
        """Replace air by tissue in the lungs: ``amount`` in [0, 1] of it, vessels lost in the same measure."""
        self.att += self.air * amount
        self.vessels *= 1 - np.minimum(amount, 1)


def view(layers: Thorax, n: int) -> View:
    """Return film ``n`` of a batch for painting."""
    g = layers.shape
    maps = (layers.att[n], layers.air[n], layers.lung[n], layers.vessels[n], layers.ribs[n])
    borders = (g.x[n], g.y[n], g.left[n], g.right[n], g.inner_left[n], g.inner_right[n], g.dome[n])
    numbers = (float(g.top[n]), float(g.base[n]), float(g.apex[n]), float(g.width[n]), float(g.pixel[n]))
    return View(*maps, *borders, *numbers)


def _size(v: View) -> int:
    return int(v.att.shape[0])


def _patch(v: View, u: Draws, x: float, y: float, radius: float, fuzz: float) -> F32:
    """Return an irregular patch, values in [0, 1], about ``radius`` wide; ``u`` gives four draws for its texture."""
    r = np.sqrt(((v.x - x) / radius) ** 2 + ((v.y - y) / (radius * (0.8 + 0.6 * u[3]))) ** 2)
    return edge((1.0 - r + 0.30 * cloud(u[0], u[1], u[2], _size(v))) / fuzz)


def effusion(v: View, case: Case, s: float, u: Draws) -> None:
    """Fluid from the costophrenic angle up, its surface a meniscus that climbs the chest wall; sometimes both sides."""
    sides = [(side_of(case, "Pleural Effusion"), s)]
    if u[1] < 0.35:
        sides.append((-sides[0][0], s * (0.35 + 0.4 * u[2])))
    for side, amount in sides:
        t = np.abs(v.x) / v.width
        level = v.base - (0.05 + 0.78 * amount**1.25) * v.height * 0.85
        surface = level + 0.17 * np.clip(1.02 - t, 0, 1) ** 0.8 + 0.05 * np.clip(0.5 - t, 0, 1)
        v.fill((0.96 * edge((v.y - surface) / 0.10)) * v.half(side))


def pneumothorax(v: View, case: Case, s: float, u: Draws) -> None:
    """Air between lung and wall: a thin pleural line, no vessels and a darker rim beyond it, a lung that shrinks."""
    side = side_of(case, "Pneumothorax")
    gap = 0.025 + 0.30 * s**1.4
    y = v.y[:, 0]
    wall = v.wall(side)[:, 0]
    down = np.clip((y - v.apex) / v.height, 0, 1)
    # Upright, air rises: the gap is widest at the apex and closes towards the base unless there is much of it.
    shrunk = np.interp(y - 1.3 * gap, y, wall) - gap * (1 - (0.75 - 0.5 * s) * down)
    outside = (np.abs(v.x) - shrunk[:, None].astype(np.float32)) / max(0.020, 1.2 * v.pixel)
    above = (v.apex + 1.5 * gap - v.y) / max(0.020, 1.2 * v.pixel)
    distance = np.maximum(outside, above)
    free = edge(distance) * v.half(side)
    v.vessels *= 1 - free
    v.att -= (0.055 + 0.05 * s) * free * v.lung
    v.att += (0.10 + 0.04 * u[3]) * bump(distance / 0.8) * (v.lung * v.half(side))
    v.fill((1 - free) * ((0.02 + 0.16 * s**2) * v.half(side)).astype(np.float32))


def edema(v: View, _case: Case, s: float, u: Draws) -> None:
    """Haze about both hila, fat and blurred vessels, short septal lines at the bases."""
    a = np.abs(v.x)
    hila = bump((a - 0.40 * v.width) / (0.34 * v.width)) * bump((v.y - v.top - 0.16) / 0.34)
    texture = np.clip(1 + 0.55 * cloud(u[0], u[1], u[2], _size(v)), 0.1, 2.2)
    v.vessels *= 1 + 0.55 * s * bump((v.y - v.top + 0.1) / 0.5)
    v.att += v.lung * ((0.06 + 0.32 * s) * hila * texture + 0.09 * s)
    lines = edge((np.cos(2 * np.pi * v.y / 0.055) - 0.86) / 0.14) * edge((v.y - v.base + 0.34) / 0.1)
    near = (v.wall(-1) * v.half(-1) + v.wall(1) * v.half(1)) - a
    v.att += (0.10 * s) * (lines * edge((0.10 - near) / 0.03)) * v.lung * (v.y < v.base - 0.02)


def _zone(v: View, side: int, across: float, down: float) -> tuple[float, float]:
    """Return the point of a lung at the shares ``across`` (hilum to wall) and ``down`` (apex to base)."""
    y = v.apex + v.height * down
    row = int(np.clip(np.searchsorted(v.y[:, 0], y), 0, _size(v) - 1))
    inner, wall = float(v.inner(side)[row, 0]), float(v.wall(side)[row, 0])
    return side * (inner + (wall - inner) * across), y


def consolidation(v: View, case: Case, s: float, u: Draws) -> None:
    """One dense lobar opacity with air bronchograms; at the right upper lobe it ends at the horizontal fissure."""
    side = side_of(case, "Consolidation")
    x, y = _zone(v, side, 0.35 + 0.35 * u[1], (0.28, 0.55, 0.72)[int(3 * u[2])] + 0.06 * u[3])
    patch = _patch(v, u[4:8], x, y, (0.15 + 0.22 * s), 0.55)
    if side < 0 and u[2] < 1 / 3:
        fissure = y + 0.5 * (0.15 + 0.22 * s) + 0.10 * (np.abs(v.x) - 0.3)
        patch = np.maximum(patch, 0.6 * edge((0.35 + 0.2 * s - np.abs(v.x - x)) / 0.3)) * edge((fissure - v.y) / 0.03)
        patch = patch * edge((v.y - y + 0.35 + 0.2 * s) / 0.4)
    patch *= v.half(side) * (0.40 + 0.45 * s)
    v.att -= 0.30 * s * patch * v.vessels  # the air in the bronchi beside the vessels stays
    v.fill(patch)


def pneumonia(v: View, case: Case, s: float, u: Draws) -> None:
    """One to three fuzzy, mottled patches of lower density than a lobar consolidation, in the lower zones."""
    side = side_of(case, "Pneumonia")
    for k in range(1 + int(2.4 * s * u[1] + 0.5 * s)):
        w = u[8 + 7 * k : 15 + 7 * k]
        at = side if k < 2 else -side
        x, y = _zone(v, at, 0.28 + 0.46 * w[0], 0.42 + 0.34 * w[1])
        mottle = np.clip(0.85 + 0.4 * cloud(w[2], w[4], w[3], _size(v)), 0.45, 1.5)
        patch = _patch(v, w[2:6], x, y, 0.12 + 0.13 * s, 1.3)
        v.fill(patch * mottle * v.half(at) * (0.28 + 0.34 * s))


def haze(v: View, case: Case, s: float, u: Draws) -> None:
    """An opacity that is nothing in particular: a faint, even veil over a part of one lung."""
    side = side_of(case, "Lung Opacity")
    x, y = _zone(v, side, 0.3 + 0.4 * u[1], 0.25 + 0.5 * u[2])
    v.fill(_patch(v, u[4:8], x, y, 0.24 + 0.16 * s, 1.7) * v.half(side) * (0.16 + 0.26 * s))


def atelectasis(v: View, case: Case, s: float, u: Draws) -> None:
    """Plate-like bands above a raised dome; when severe, a wedge of collapsed lower lobe beside the heart."""
    side = side_of(case, "Atelectasis")
    for k in range(1 + int(2.5 * s * u[1] + s)):
        w = u[4 + 5 * k : 9 + 5 * k]
        x, y = _zone(v, side, 0.25 + 0.4 * w[0], 0.60 + 0.16 * w[1])
        slope = side * (w[2] - 0.35) * 0.5
        along, off = v.x - x, v.y - y - slope * (v.x - x)
        length, thick = 0.14 + 0.14 * w[3], 0.010 + 0.014 * s * (0.5 + w[4])
        band = edge((length - np.abs(along)) / 0.12) * edge((thick - np.abs(off)) / max(0.014, 1.1 * v.pixel))
        v.att += band * v.lung * (0.12 + 0.20 * s)
    if s > 0.45:
        depth = (np.abs(v.x) - np.abs(v.inner(side))) / (0.05 + 0.34 * s)
        down = (v.y - v.base + 0.55) / 0.45
        v.fill(edge((down - 0.25 - depth) / 0.22) * v.half(side) * (0.55 * s))


def lesion(v: View, case: Case, s: float, u: Draws) -> None:
    """One to three round nodules or masses with lobed, fairly sharp borders; small ones may be calcified."""
    side = side_of(case, "Lung Lesion")
    for k in range(1 + int(u[1] * 3.0 * s)):
        w = u[4 + 8 * k : 12 + 8 * k]
        x, y = _zone(v, side if k != 1 else -side, 0.22 + 0.55 * w[0], 0.15 + 0.62 * w[1])
        radius = max(0.032 + 0.085 * s * (0.5 + 0.7 * w[2]), 1.2 * v.pixel)
        dx, dy = v.x - x, v.y - y
        angle = np.arctan2(dy, dx)
        lobes = 1 + 0.09 * np.sin(3 * angle + 6 * w[3]) + 0.06 * np.sin(5 * angle + 6 * w[4])
        r = np.sqrt(dx * dx + dy * dy) / (radius * lobes)
        density = (0.20 + 0.15 * s) * (1.35 if w[5] < 0.2 and s < 0.5 else 1.0)
        ball = np.sqrt(np.clip(1 - 0.75 * r * r, 0, 1)) * edge((1 - r) / 0.25)
        v.att += density * ball * np.minimum(v.lung + 0.25, 1)


def pleural_other(v: View, case: Case, s: float, u: Draws) -> None:
    """Thickened pleura: a wavy rind along the lateral wall, a cap at the apex, calcified plaques when marked."""
    side = side_of(case, "Pleural Other")
    near = v.wall(side) - np.abs(v.x)
    wave = 1 + 0.4 * np.sin(9 * v.y + 6 * u[1]) + 0.25 * np.sin(21 * v.y + 6 * u[2])
    middle = v.apex + v.height * (0.35 + 0.4 * u[3])
    thick = (0.025 + 0.06 * s) * wave * bump((v.y - middle) / (0.18 + 0.22 * s))
    rind = edge((thick - near) / 0.025) * v.half(side)
    cap = edge((v.apex + 0.05 + 0.08 * s * u[4] - v.y) / 0.04) * v.half(side)
    v.fill(np.maximum(rind, 0.7 * cap).astype(np.float32) * (0.35 + 0.45 * s))
    if s > 0.5:
        spots = edge((cloud(u[5], u[6], u[7], _size(v)) - 0.5) / 0.4)
        row = edge((0.5 * thick - np.abs(near - 0.5 * thick)) / 0.02) * spots
        v.att += 0.22 * s * row * v.half(side) * v.lung


def fracture(v: View, case: Case, s: float, u: Draws) -> None:
    """Broken ribs of one side: a step with a dark gap, and bright callus about it."""
    side = side_of(case, "Fracture")
    x, y = _zone(v, side, 0.62 + 0.22 * u[1], 0.20 + 0.30 * u[2])
    step = max(1, round((0.02 + 0.035 * s) / v.pixel))
    outer = v.x * side > abs(x)
    reach = 0.07 + 0.15 * s
    rows = (np.abs(v.y - y) < reach) & outer
    moved = np.roll(v.ribs, step, axis=0)
    line = np.abs(v.x - x) / max(0.010, 0.8 * v.pixel)
    near = edge((reach - np.abs(v.y - y)) / 0.06)
    before = v.ribs.copy()
    v.ribs[...] = np.where(rows, moved, before)
    v.ribs += (0.9 + 0.8 * s) * before * near * bump((np.abs(v.x - x) - 0.03) / 0.024)
    v.ribs *= 1 - near * bump(line) * (0.7 + 0.3 * s)


def mimics(v: View, fold: float, nipples: float, supine: bool) -> None:
    """Paint what is no finding but looks like one: a skin fold in a lying patient, nipple shadows."""
    if supine and fold < 0.30:
        side = 1 if fold < 0.15 else -1
        at = v.width * (0.55 + 0.25 * np.sin(60 * fold)) + 0.12 * (v.y + 0.2)
        d = (np.abs(v.x) - at) / 0.05
        v.att += 0.10 * np.clip(1 + d, 0, 1) * (d < 0) * (edge((v.y + 0.5) / 0.3) * v.half(side))
    if nipples < 0.28:
        r = np.sqrt((np.abs(v.x) - 0.58 * v.width) ** 2 + (v.y - v.base + 0.22) ** 2)
        v.att += 0.13 * edge((0.028 - r) / 0.02)


PAINTERS: Final[dict[str, Callable[[View, Case, float, Draws], None]]] = {
    "Edema": edema,
    "Lung Opacity": haze,
    "Consolidation": consolidation,
    "Pneumonia": pneumonia,
    "Atelectasis": atelectasis,
    "Lung Lesion": lesion,
    "Pleural Other": pleural_other,
    "Pleural Effusion": effusion,
    "Fracture": fracture,
    "Pneumothorax": pneumothorax,
}
"""Painter of each finding, in the order of painting: air last, so that no vessel is left beyond the pleural line."""


def paint(case: Case, n: int, layers: Thorax) -> None:
    """Paint the findings, devices and mimics of ``case`` into film ``n`` of ``layers``."""
    v = view(layers, n)
    pose = layers.shape.pose
    mimics(v, float(pose.fold[n]), float(pose.nipples[n]), case.projection == "AP")
    for name, painter in PAINTERS.items():
        if case.has(name):
            painter(v, case, case.severity[INDEX[name]], finding_draws(case, name))
    if case.has("Support Devices"):
        middle = float(np.mean(layers.shape.lean[n]))
        u = finding_draws(case, "Support Devices")
        v.att += devices(case.severity[INDEX["Support Devices"]], u, v.x[0], v.y[:, 0], middle, v.top, v.base, v.width)
