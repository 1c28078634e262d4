"""The lateral thorax: spine at the back (right of the film), heart in front, both domes, retrosternal air."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noisy_student.data.synthetic.banks import cloud, tree_window
from noisy_student.data.synthetic.cases import F32, Case, columns, finding_draws
from noisy_student.data.synthetic.shape import Build, bump, edge, grid, persons, spread
from noisy_student.labels import OBSERVATIONS


def _domes(x: F32, build: Build, base: F32, raised: F32) -> F32:
    """Return the upper face of the diaphragm by column: high in front, falling to the angle behind, (N, 1, S)."""
    height = spread(build.dome * 1.35 + 0.10 * raised)
    return spread(base) + 0.10 - height * bump((x + 0.16) / 0.40) - 0.10 * edge((-0.2 - x) / 0.5)


def _spine(x: F32, y: F32, build: Build) -> F32:
    """Return vertebral bodies with bright end plates, and the processes behind; darker towards the diaphragm."""
    bend = 0.40 + 0.13 * np.cos(1.7 * (y - 0.05))
    off = (x - bend) / spread(0.085 + 0.3 * (build.spine - 0.075))
    wave = np.cos(2 * np.pi * (y / spread(build.rib_pitch * 0.98) + spread(build.rib_phase)))
    body = edge((1 - np.abs(off)) / 0.25)
    plates = bump((wave - 0.75) / 0.16)
    att = body * (0.20 + 0.06 * plates - 0.10 * edge((wave - 0.93) / 0.10))
    att += 0.06 * edge((0.7 - np.abs(off - 1.9)) / 0.4) * (1 + 0.4 * wave)
    att *= 1.15 - 0.30 * edge(y / 0.9)
    return att


def _ribs(x: F32, y: F32, build: Build) -> F32:
    """Return ribs that sweep from the spine forwards and down, fading towards the sternum."""
    phase = (y - 0.55 * np.clip(0.55 - x, 0, 1.3) + 0.12 * x * x) / spread(build.rib_pitch * 1.05)
    wave = np.cos(2 * np.pi * (phase + spread(build.rib_phase)))
    ribs: F32 = spread(build.rib_contrast * 0.42) * np.clip(wave - 0.1, 0, 1) * edge((x + 0.15) / 0.9)
    return ribs


def _paint(case: Case, att: F32, air: F32, x: F32, y: F32, base: float) -> None:
    """Paint what a lateral film shows of the findings into one film."""
    size = att.shape[0]

    def patch(name: str, radius: float, amount: float, fuzz: float) -> None:
        u = finding_draws(case, name)
        cx, cy = -0.30 + 0.60 * u[1], -0.25 + 0.60 * u[2]
        r = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / radius
        nonlocal att
        att += air * (amount * edge((1 - r + 0.16 * cloud(u[4], u[5], u[6], size)) / fuzz))

    severity = dict(zip(OBSERVATIONS, case.severity, strict=True))
    if severity["Lung Opacity"]:
        patch("Lung Opacity", 0.35, 0.18 + 0.2 * severity["Lung Opacity"], 1.6)
    if severity["Consolidation"]:
        patch("Consolidation", 0.18 + 0.2 * severity["Consolidation"], 0.4 + 0.4 * severity["Consolidation"], 0.6)
    if severity["Pneumonia"]:
        patch("Pneumonia", 0.16 + 0.14 * severity["Pneumonia"], 0.3 + 0.3 * severity["Pneumonia"], 1.3)
    if severity["Edema"]:
        u = finding_draws(case, "Edema")
        hilum = bump((x - 0.02) / 0.28) * bump((y + 0.05) / 0.32)
        texture = np.clip(1 + 0.5 * cloud(u[0], u[1], u[2], size), 0.1, 2)
        att += air * ((0.08 + 0.5 * severity["Edema"]) * hilum * texture + 0.12 * severity["Edema"])
    if severity["Lung Lesion"]:
        u = finding_draws(case, "Lung Lesion")
        s = severity["Lung Lesion"]
        radius = max(0.04 + 0.08 * s, 2.4 / size)
        r = np.sqrt((x + 0.30 - 0.6 * u[5]) ** 2 + (y + 0.35 - 0.6 * u[6]) ** 2) / radius
        att += (0.22 + 0.14 * s) * np.sqrt(np.clip(1 - 0.7 * r * r, 0, 1)) * edge((1 - r) / 0.25) * (air > 0.1)
    if case.has("Atelectasis"):
        u = finding_draws(case, "Atelectasis")
        off = y - (0.22 + 0.12 * u[5]) - (u[6] - 0.5) * 0.6 * x
        att += air * (0.55 * edge((0.025 - np.abs(off)) / 0.02) * edge((0.28 - np.abs(x - 0.1)) / 0.1))
    if case.has("Pleural Effusion"):
        s = severity["Pleural Effusion"]
        surface = base + 0.08 - 0.65 * s**1.2 + 0.20 * np.clip(0.62 - x, 0, 1)
        att += air * (0.95 * edge((y - surface) / 0.10) * edge((x + 0.35 - 0.3 * (1 - s)) / 0.3))
    if case.has("Pneumothorax"):
        s = severity["Pneumothorax"]
        att -= air * ((0.05 + 0.12 * s) * edge((-0.35 + 0.5 * s - y) / 0.2))
    if case.has("Fracture"):
        u = finding_draws(case, "Fracture")
        r = np.sqrt((x - 0.1 - 0.3 * u[1]) ** 2 + (y + 0.3 * u[2]) ** 2)
        att += 0.12 * bump(r / 0.04)
    if case.has("Pleural Other"):
        s = severity["Pleural Other"]
        att += air * ((0.3 + 0.4 * s) * edge((x - 0.60 + 0.10 * s) / 0.06))
    if case.has("Support Devices"):
        u = finding_draws(case, "Support Devices")
        s = severity["Support Devices"]
        thick = max(0.012, 1.5 / size)
        course = -0.10 + 0.22 * u[9] + 0.12 * np.sin(2.2 * y + 5 * u[10])
        att += (0.14 + 0.16 * s) * edge((thick - np.abs(x - course)) / thick) * edge((0.2 + 0.7 * u[11] - y) / 0.05)
        if s > 0.6:
            box = np.maximum(np.abs(x + 0.52) / 0.05, np.abs(y + 0.30) / 0.10)
            att += 0.35 * edge((1 - box) / 0.2)


def lateral(cases: Sequence[Case], size: int) -> F32:
    """Return the attenuation (N, size, size) of lateral ``cases`` (one seed, one split); 0 is open air."""
    build, pose = persons(cases)
    axis = grid(size)
    x = (axis[None, None, :] - spread(pose.shift_x)) / spread(pose.zoom * 1.08)
    y = (axis[None, :, None] - spread(pose.shift_y)) / spread(pose.zoom * 1.08)
    base = build.base + 0.6 * pose.inspiration
    big = columns(cases, "Cardiomegaly")
    dome = _domes(x, build, base, columns(cases, "Atelectasis"))

    chest = spread((build.width - 0.72) * 0.6)
    down = np.clip((y + 0.80) / 1.2, 0, 1)
    front = -0.10 - (0.44 + chest) * np.sin(0.5 * np.pi * down**0.75) + 0.10 * edge((y - 0.45) / 0.6)
    back = 0.36 + (0.26 + 0.5 * chest) * np.sqrt(np.sin(np.pi * np.clip(0.12 + 0.62 * down, 0, 1)))
    roof = (y + 0.80 - 0.9 * (x - 0.14) ** 2) / 0.06
    soft = spread(np.maximum(0.05, 2.6 / size * np.ones_like(base)))
    inside = np.minimum(np.minimum((x - front) / soft, (back - x) / soft), np.minimum((dome - y) / (0.8 * soft), roof))
    lung = edge(inside)

    # The heart rests on the diaphragm and touches the sternum; above it lies retrosternal air.
    hx, hy = front + spread(0.30 + 0.04 * big), spread(base - 0.26 - 0.06 * big)
    rx, ry = spread((build.heart - 0.12) * (1 + 0.40 * big)), spread(0.30 * (1 + 0.22 * big))
    lean = (x - hx) + 0.35 * (y - hy)
    heart = edge((1 - np.sqrt((lean / rx) ** 2 + ((y - hy) / ry) ** 2)) / 0.22)
    wide = columns(cases, "Enlarged Cardiomediastinum")
    stalk = edge((spread(0.10 * (1 + 0.9 * wide)) - np.abs(x + 0.02 - 0.10 * y)) / 0.10) * edge((hy - y) / 0.2)
    air = lung * (0.66 - 0.40 * heart - 0.15 * stalk * (1 + 0.8 * spread(wide)) - 0.10 * edge((-0.30 - y) / 0.35))

    fat = spread(build.habitus)
    neck = edge((y + 0.66) / 0.35)
    skin_front = np.where(y < 0.2, front, np.minimum(front, -0.50)) - 0.10 - 0.4 * fat + 0.10 * (1 - neck)
    body = np.clip(np.minimum(x - skin_front, back + 0.24 + 0.4 * fat - x) / 0.22, 0, 1) ** 0.5
    att: F32 = body * (0.90 + 0.35 * fat + 0.12 * edge((y - dome) / 0.4)) - air
    att += _spine(x, y, build) * body + _ribs(x, y, build) * (lung > 0.05)
    att += 0.16 * body * edge((-0.42 - y) / 0.40) * edge((0.34 - np.abs(x - 0.06)) / 0.30)  # raised arms
    att += 0.12 * bump((x - front + 0.035) / 0.022) * edge((0.25 - y) / 0.3) * edge((y + 0.6) / 0.2)  # sternum
    tube = x - 0.02 - 0.16 * (y + 0.8)
    att -= 0.14 * edge((0.038 - np.abs(tube)) / 0.03) * edge((-0.14 - y) / 0.05) * (y > -1.2)
    for n, case in enumerate(cases):
        step = float(x[n, 0, 1] - x[n, 0, 0])
        at_x, at_y = 0.08, -0.08
        box = (float(x[n, 0, 0]) - at_x, float(y[n, 0, 0]) - at_y)
        vessels = np.zeros((size, size), dtype=np.float32)
        for number, flip in ((build.tree_left[n], False), (build.tree_right[n], True)):
            left, right = (-(box[0] + size * step), -box[0]) if flip else (box[0], box[0] + size * step)
            tree = tree_window(float(number), left, box[1], right, box[1] + size * step, size, size)
            vessels += tree[:, ::-1] if flip else tree
        att[n] += vessels * lung[n] * (0.6 * build.vessels[n])
        _paint(case, att[n], air[n], x[n], y[n], float(base[n]))
    return att
