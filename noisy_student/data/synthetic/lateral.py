"""The lateral thorax: spine at the back (right of the film), heart in front, both domes, retrosternal air."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noisy_student.data.synthetic.banks import cloud, tree_window
from noisy_student.data.synthetic.bones import rib_profile
from noisy_student.data.synthetic.cases import F32, Case, columns
from noisy_student.data.synthetic.lateral_findings import Side, paint_lateral
from noisy_student.data.synthetic.shape import SPAN, Build, bump, edge, grid, persons, spread


def _spine(x: F32, y: F32, build: Build, middle: F32) -> F32:
    """Return vertebral bodies with bright end plates and the processes behind; darker towards the diaphragm."""
    off = (x - middle) / spread(0.080 + 0.3 * (build.spine - 0.075))
    level = (y + 0.10 * (x - middle)) / spread(build.rib_pitch * 1.02) + spread(build.rib_phase)
    wave = np.cos(2 * np.pi * level)
    body = edge((1 - np.abs(off)) / 0.35)
    disc = edge((wave - 0.78) / 0.22)
    att = body * (0.085 + 0.050 * bump((wave - 0.55) / 0.16) - 0.065 * disc)
    att += 0.030 * body * bump((np.abs(off) - 0.88) / 0.14)  # the cortex before and behind
    att += 0.040 * bump((off - 1.9) / 0.65) * (1 + 0.5 * wave)  # facets and processes
    att *= 1.20 - 0.45 * edge(y / 0.9)
    return att


def _ribs(x: F32, y: F32, back: F32, build: Build) -> F32:
    """Return the ribs of both sides, which sweep from the spine forwards and down and never quite coincide."""
    pitch = spread(build.rib_pitch * 1.06)
    forward = np.clip(back - x, 0, 1.4)
    sweep = 0.62 * forward - 0.20 * forward**2 - 0.10 * np.sqrt(forward + 0.01)
    near = (y - sweep) / pitch + spread(build.rib_phase + 4)
    far = (y - 0.93 * sweep) / (0.92 * pitch) + spread(build.rib_phase + 4.35)
    ribs = rib_profile(near, build.rib_set) + 0.8 * rib_profile(far, 1 - build.rib_set)
    ribs *= spread(build.rib_contrast * 0.46) * edge((x + 0.25) / 0.9)
    return ribs


def _vessels(x: F32, y: F32, build: Build, lung: F32, hilum: F32) -> F32:
    """Return the vessels of both lungs, which cross in the hilum."""
    size = lung.shape[2]
    out = np.empty_like(lung)
    for n in range(len(lung)):
        step = float(x[n, 0, 1] - x[n, 0, 0])
        left, top = float(x[n, 0, 0]) - step / 2 - 0.05, float(y[n, 0, 0]) - step / 2 - float(hilum[n])
        width, bottom = size * step, top + size * step
        out[n] = tree_window(float(build.tree_left[n]), -(left + width), top, -left, bottom, size, size)[:, ::-1]
        out[n] += tree_window(float(build.tree_right[n]), left, top, left + width, bottom, size, size)
        mottle = cloud(float(build.tree_left[n]), float(build.rib_set[n]), float(build.girdle[n]), size, fine=True)
        out[n] += np.float32(0.05) * mottle
    out *= lung * spread(0.62 * build.vessels)
    return out


def lateral(cases: Sequence[Case], size: int) -> F32:
    """Return the attenuation (N, size, size) of lateral ``cases`` (one seed, one split); 0 is open air."""
    build, pose = persons(cases)
    axis = grid(size)
    zoom = 1.06 * pose.zoom
    x = (axis[None, None, :] - spread(pose.shift_x)) / spread(zoom)
    y = (axis[None, :, None] - spread(pose.shift_y)) / spread(zoom)
    soft = spread(np.maximum(0.030, 1.3 * 2 * SPAN / size / zoom))
    base = build.base + 0.6 * pose.inspiration + 0.04
    big, wide = columns(cases, "Cardiomegaly"), columns(cases, "Enlarged Cardiomediastinum")
    collapse = columns(cases, "Atelectasis")

    # Inner faces of sternum and back, by row; the chest is narrow above and deep below.
    deep = spread((build.width - 0.73) * 0.7)
    down = np.clip((y + 0.84) / 1.25, 0, 1)
    front = -0.06 - (0.48 + deep) * np.sin(0.5 * np.pi * down**0.85) ** 0.9 + 0.10 * edge((y - 0.50) / 0.6)
    back = 0.30 + (0.34 + 0.5 * deep) * np.sqrt(np.sin(np.pi * np.clip(0.10 + 0.62 * down, 0, 1)))
    column = back - 0.235 + 0.03 * np.cos(2 * y)

    # Each dome is a bow: high in front of the middle, falling steeply to the angle behind. The right one is higher.
    def dome(height: F32) -> F32:
        behind = np.clip((x + 0.14) / 0.78, 0, 1.2)
        before = np.clip((-0.14 - x) / 0.42, 0, 1.2)
        return spread(base + 0.13) - spread(height) * (1 - behind**2.2) * (1 - 0.55 * before**2)

    right_dome = dome(build.dome * 1.45 + 0.03 + 0.10 * collapse)
    left_dome = dome(build.dome * 1.45 - 0.05) + 0.01
    roof = (y + 0.86 - 0.75 * (x - 0.12) ** 2) / (2.5 * soft)
    walls = np.minimum(np.minimum((x - front) / soft, (back - x) / soft), roof)
    above_right, above_left = edge((right_dome - y) / soft), edge((left_dome - y) / soft)
    chest = edge(walls)
    lung = chest * (0.5 * above_right + 0.5 * above_left)

    # The heart rests on the left dome and touches the sternum; above it lies retrosternal air.
    hx = front + spread(0.29 + 0.05 * big)
    hy = spread(base - 0.20 - 0.06 * big)
    rx, ry = spread(build.heart * (0.68 + 0.36 * big)), spread(0.30 + 0.10 * big)
    r = np.sqrt((((x - hx) + 0.42 * (y - hy)) / rx) ** 2 + ((y - hy) / ry) ** 2)
    heart = np.sqrt(np.clip(1.05 - r * r, 0, 1)) * edge((1.04 - r) / 0.14)
    stalk_x = x - 0.02 + 0.10 * (y - hy)
    stalk = bump(stalk_x / spread(0.13 * (1 + 0.7 * wide))) * edge((hy + 0.1 - y) / 0.3)
    forward = spread(wide) * edge((x - front) / 0.10) * edge((0.02 - x) / 0.25) * edge((hy - 0.1 - y) / 0.3)
    shoulders = edge((-0.34 - y) / 0.42)
    rim = np.clip(np.minimum(x - front, back - x) / 0.34, 0, 1)
    depth = (0.56 + 0.26 * np.sqrt(rim * (2 - rim))) * (1 - 0.22 * edge((x - column + 0.1) / 0.2))
    air = lung * (depth - 0.36 * heart * above_left - 0.16 * stalk - 0.30 * forward - 0.22 * shoulders)
    air = np.asarray(np.maximum(air, 0.04 * lung))

    fat = spread(build.habitus)
    neck = edge((y + 0.60) / 0.40)
    # The raised arms widen the outline above.
    low = edge((y - 0.15) / 0.3)
    skin_front = front * (1 - low) + np.minimum(front, -0.52) * low - 0.10 - 0.5 * fat - 0.14 * (1 - neck)
    female = np.array([case.female for case in cases], dtype=np.float32) * build.breast * 1.4
    skin_front = skin_front - spread(female) * bump((y - spread(base) + 0.34) / 0.20)
    skin_back = back + 0.17 + 0.45 * fat + 0.05 * np.sin(2.5 * y)
    body = np.sqrt(np.clip(np.minimum(x - skin_front, skin_back - x) / 0.26, 0, 1))
    att: F32 = body * (0.98 + 0.45 * fat + 0.10 * edge((y - left_dome) / 0.4)) - air
    bones = _spine(x, y, build, column) * body
    bones += _ribs(x, y, back, build) * edge((skin_back - 0.06 - x) / 0.04) * body * edge((y + 0.80) / 0.2)
    # Sternum in front, the raised arms and shoulder blades above.
    bones += 0.075 * bump((x - front + 0.030) / 0.022) * edge((0.30 - y) / 0.3) * edge((y + 0.55) / 0.2)
    blade = x - column - 0.06 - 0.35 * (y + 0.45)
    bones += 0.05 * bump(blade / 0.014) * edge((0.02 - y) / 0.2) * edge((y + 0.75) / 0.1)
    arm = x - 0.10 + 0.32 * (y + 0.75) + spread(0.10 * (pose.chin - 0.5))
    bones += (0.16 * edge((0.26 - np.abs(arm)) / 0.16) + 0.05 * bump((np.abs(arm) - 0.07) / 0.02)) * shoulders * body
    att += bones
    tube = x - 0.06 - 0.13 * (y + 0.8)
    att -= 0.11 * edge((0.042 - np.abs(tube)) / 0.03) * edge((-0.10 - y) / 0.08)
    arch = np.sqrt((x - 0.13) ** 2 + (y + 0.22) ** 2) - 0.15 - 0.4 * spread(build.knob)
    att += 0.04 * bump(arch / 0.035) * edge((x + 0.02) / 0.1) * edge((0.05 - y) / 0.2)
    gas = ((x + 0.12) / spread(0.06 + build.bubble * 1.2)) ** 2 + ((y - spread(base) - 0.06) / 0.05) ** 2
    att -= spread(pose.gas * (build.bubble > 0)) * edge((1 - gas) / 0.7) * (1 - lung)
    vessels = _vessels(x, y, build, lung, np.full(len(cases), -0.08))
    for n, case in enumerate(cases):
        side = Side(att[n], air[n], lung[n], vessels[n], x[n], y[n], front[n], back[n], float(base[n]))
        paint_lateral(case, side)
    att += vessels
    return att
