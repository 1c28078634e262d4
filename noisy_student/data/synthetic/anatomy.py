"""The frontal thorax as attenuation: air, soft tissue, bone and vessels laid over each other.

Attenuation is about 0 in open air, 0.3 in lung, 0.9 in the heart and 1 in the abdomen. Layers add up, as they do in
an X-ray, and only the tone curve saturates: so ribs show through the heart and vessels in front of the diaphragm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from noisy_student.data.synthetic.banks import tree_window
from noisy_student.data.synthetic.cases import F32, Case
from noisy_student.data.synthetic.shape import Shape, bump, edge, shape, spread

_RIB_STEPS = 512


@dataclass(frozen=True)
class Thorax:
    """A batch of thoraxes in layers, each of shape (N, S, S): findings still change them before they are summed."""

    shape: Shape
    att: F32  # everything but vessels and ribs
    air: F32  # the attenuation that air takes away
    lung: F32  # 1 in the lungs, 0 outside
    vessels: F32
    ribs: F32


def _rib_profile() -> F32:
    """Return one period of rib and gap: a band with bright cortex, the lower border thinner and sharper."""
    phase = (np.arange(_RIB_STEPS) + 0.5) / _RIB_STEPS
    band = np.clip((phase - 0.06) / 0.07, 0, 1) * np.clip((0.56 - phase) / 0.05, 0, 1)
    cortex = bump((phase - 0.12) / 0.035) + 0.9 * bump((phase - 0.50) / 0.030)
    return (0.62 * band + 0.48 * cortex).astype(np.float32)


_RIB = _rib_profile()


def _periodic(phase: F32) -> F32:
    # Integer masking, not ``% 1``: a float32 remainder can equal 1.0 and index past the table.
    return np.take(_RIB, (phase * _RIB_STEPS).astype(np.int32) & (_RIB_STEPS - 1))


def _ribs(g: Shape) -> F32:
    build = g.build
    pitch = spread(build.rib_pitch)
    a = np.abs(g.x) / spread(g.width)
    down = g.y - spread(g.apex)
    # Posterior ribs leave the spine level, then dive along the wall; anterior ribs climb outwards, broader and fainter.
    behind = spread(build.rib_slope) * (0.55 * a**2 + 0.75 * a**5) - 0.10 * (1 - a) ** 2
    front = -0.62 * a + 0.20 * a**2
    posterior = (down * (1 - 0.10 * down) - behind) / pitch + spread(build.rib_phase)
    anterior = (down - front) / (1.28 * pitch) + spread(build.rib_phase + 0.4)
    weight = spread(build.rib_contrast) * np.clip((a - 0.10) / 0.14, 0, 1)
    rows = edge((down - 0.02) / 0.10) * (1 - 0.6 * edge((g.y - spread(g.base) - 0.05) / 0.35))
    ribs = _periodic(posterior) * (weight * (1 + 0.9 * np.clip(a - 0.55, 0, 0.5)))
    ribs += _periodic(anterior) * (0.62 * weight * np.clip((a - 0.42) / 0.3, 0, 1))
    reach = np.minimum(g.x - g.left, g.right - g.x)
    ribs *= rows * np.clip(reach * 26 + 1.0, 0, 1)
    return ribs


def _vessels(cases: Sequence[Case], g: Shape, lung: F32) -> F32:
    """Return the vessels of both lungs: a tree of the bank each, its hilum put beside the heart's upper end."""
    out = np.empty_like(lung)
    size, half = lung.shape[2], lung.shape[2] // 2
    x, y = g.x[:, 0, :], g.y[:, :, 0]
    for n in range(len(cases)):
        hilum_y = float(g.top[n]) + 0.02
        row = int(np.clip(np.searchsorted(y[n], hilum_y), 0, size - 1))
        step = float(g.pixel[n])
        reach = 0.70 / float(g.width[n])
        first, last = (float(y[n, 0]) - step / 2 - hilum_y) * reach, (float(y[n, -1]) + step / 2 - hilum_y) * reach
        start = float(x[n, 0]) - step / 2
        left_hilum = float(g.inner_left[n, row, 0]) - 0.035
        right_hilum = float(g.inner_right[n, row, 0]) + 0.02
        middle = start + half * step
        end = start + size * step
        box = ((start - left_hilum) * reach, first, (middle - left_hilum) * reach, last)
        out[n, :, :half] = tree_window(float(g.build.tree_left[n]), *box, half, size)
        # The other lung is the mirrored tree, a little higher as the left hilum is.
        box = ((right_hilum - end) * reach, first + 0.05, (right_hilum - middle) * reach, last + 0.05)
        out[n, :, half:] = tree_window(float(g.build.tree_right[n]), *box, size - half, size)[:, ::-1]
    # Lying down evens out upper and lower vessels; standing, the bases carry most.
    bias = 0.85 + 0.35 * edge((g.y - spread(g.top)) / 0.8)
    return out * (lung * (spread(g.build.vessels * (1 + 0.1 * g.supine)) * bias))


def _spine(att: F32, g: Shape) -> None:
    """Add spine and trachea to the middle columns: bright bodies, darker discs, the air column to the carina."""
    build = g.build
    columns = _middle(g.x.shape[2])
    x = g.x[:, :, columns]
    bend = spread(build.scoliosis) * np.sin(2.2 * (g.y + 0.2)) + 0.2 * g.lean
    off = np.abs(x - bend) / spread(build.spine)
    level = (g.y + 0.03 * g.y**2) / (0.98 * spread(build.rib_pitch)) + spread(build.rib_phase)
    wave = np.cos(2 * np.pi * level)
    part = edge((1.0 - off) / 0.30) * (0.135 + 0.035 * wave)
    part += bump((off - 0.62) / 0.16) * (0.05 * np.clip(wave, 0, 1) ** 2)  # pedicles
    part += bump(off / 0.20) * (0.035 * np.clip(-wave + 0.3, 0, 1))  # spinous processes
    carina = spread(g.top) - 0.10
    below = g.y - carina
    from_axis = np.abs(x - (0.6 * g.lean + 0.015))
    part -= edge((0.036 - from_axis) / 0.03) * (0.13 * edge(-below / 0.06))
    reach = from_axis - (0.015 + 0.75 * np.clip(below, -0.03, 0.2))
    part -= bump(reach / 0.020) * (0.07 * edge(below / 0.05) * (1 - np.clip(below / 0.13, 0, 1)))
    att[:, :, columns] += part


def _middle(size: int) -> slice:
    """Return the columns that can hold the spine, whatever the pose."""
    return slice(int(0.24 * size), int(0.76 * size) + 1)


def _bones(att: F32, g: Shape) -> None:
    """Add clavicles, shoulder blades and the heads of the humeri to the rows that hold them."""
    pose = g.pose
    a = np.abs(g.x)
    rows = slice(0, int(0.62 * att.shape[1]))
    y = g.y[:, rows]
    tilt = pose.clavicle_tilt + 0.06 * g.supine
    t = (a - 0.08) / 0.62
    ridge = spread(pose.clavicle - 0.05 * g.supine) - spread(tilt) * t - 0.055 * np.sin(np.clip(t, 0, 1.2) * 5.2)
    ridge = ridge + 0.03 * spread(pose.rotation) * np.sign(g.x)
    thick = 0.030 + 0.012 * np.clip(np.abs(t - 0.45) * 2, 0, 1)
    span = edge((t + 0.02) / 0.10) * edge((1.02 - t) / 0.10)
    d = np.abs(y - ridge)
    att[:, rows] += (0.13 * edge((thick - d) / 0.016) + 0.07 * bump((d - thick + 0.007) / 0.009)) * span
    # Shoulder blade: its medial border runs down beside (PA) or over (AP) the upper lung.
    border = spread(g.width * 1.12 - 0.16 * g.supine) - 0.12 * (y + 0.4)
    blade = edge((a - border) / 0.03) * edge((border + 0.30 - a) / 0.25)
    ends = edge((y - spread(pose.clavicle) - 0.04) / 0.10) * edge((0.16 - y) / 0.22)
    att[:, rows] += blade * ends * (0.055 + 0.03 * bump((a - border) / 0.02))
    head_x, head_y = spread(g.width + 0.24), spread(pose.clavicle + 0.06)
    r = np.sqrt((a - head_x) ** 2 + (y - head_y) ** 2)
    shaft = edge((0.075 - np.abs(a - head_x - 0.05)) / 0.04) * (y > head_y)
    att[:, rows] += 0.10 * edge((0.13 - r) / 0.06) + 0.06 * shaft


def _soft_tissue(cases: Sequence[Case], g: Shape) -> F32:
    build, pose, a = g.build, g.pose, np.abs(g.x)
    shoulder = edge((g.y - spread(g.apex) - 0.02 - 0.1 * spread(build.habitus)) / 0.42)
    neck = spread(0.23 + 0.4 * build.habitus)
    slope = neck + (1.3 - neck) * shoulder
    flank = spread(g.width + 0.17 + 0.5 * build.habitus) * (1 - 0.04 * np.cos(2.5 * g.y))
    armpit = spread(g.apex) + 0.42
    hull = np.where(g.y > armpit, np.maximum(flank, slope - 0.75 * (g.y - armpit)), slope)
    body = np.sqrt(np.clip((hull - a) / 0.20, 0, 1))
    slab = 0.86 + 0.35 * spread(build.habitus) + 0.10 * edge((g.y - spread(g.base)) / 0.5)
    slab = slab - 0.16 * edge((spread(g.apex) - g.y) / 0.3 + 0.3)
    # The flanks are struck tangentially: less tissue than before and behind the lungs' middle.
    att = body * slab * (1 - 0.24 * edge((a - spread(g.width) - 0.03) / 0.4))
    arm = np.clip((a - spread(pose.arms) - 0.03 * g.y) / 0.07, 0, 1) * edge((g.y - armpit) / 0.3)
    att = np.asarray(np.maximum(att, 0.60 * arm))
    lower = slice(att.shape[1] // 3, None)
    for n in (n for n, case in enumerate(cases) if case.female):
        down = g.y[n, lower] - (g.base[n] - np.float32(0.16))
        fall = (down / np.where(down > 0, np.float32(0.26), np.float32(0.46))) ** 2
        r = ((a[n] - g.width[n] * np.float32(0.56)) / 0.36) ** 2 + fall
        att[n, lower] += build.breast[n] * np.sqrt(np.maximum(1 - r, 0))
    return att


def _bubble(att: F32, g: Shape) -> None:
    """Take away the gas of stomach and bowel below the left dome, in the lower right quarter of the film."""
    half = att.shape[1] // 2
    x, y = g.x[:, :, half:], g.y[:, half:]
    cx = spread(g.width * 0.52)
    column = np.argmin(np.abs(g.x[:, 0, :] - cx[:, :, 0]), axis=1)
    cy = spread(g.dome[np.arange(len(column)), 0, column] + 0.09)
    size = np.clip(g.build.bubble, 0, 1)
    r = ((x - cx) / spread(0.05 + size)) ** 2 + ((y - cy) / spread(0.02 + 0.45 * size)) ** 2
    att[:, half:, half:] -= spread(g.pose.gas * (size > 0)) * edge((1 - r) / 0.8)


def thorax(cases: Sequence[Case], size: int) -> Thorax:
    """Return the thoraxes of frontal ``cases`` (one seed, one split) on a grid of ``size`` pixels, in layers."""
    g = shape(cases, size)
    soft_wall = spread(np.maximum(0.026, 1.2 * g.pixel))
    soft_heart = spread(np.maximum(0.034, 1.3 * g.pixel))
    soft_dome = spread(np.maximum(0.030, 1.3 * g.pixel))
    inside = np.minimum(g.x / soft_wall - g.left / soft_wall, g.right / soft_wall - g.x / soft_wall)
    beside = np.maximum(g.inner_left / soft_heart - g.x / soft_heart, g.x / soft_heart - g.inner_right / soft_heart)
    # Above the apex the borders meet in a hairline; the roof closes it.
    roof = (g.y - spread(g.apex) - 0.008) / soft_wall
    inside = np.minimum(np.minimum(inside, beside), np.minimum(g.dome / soft_dome - g.y / soft_dome, roof))
    lung = edge(inside)
    across = 1 - 0.20 * np.clip(np.abs(g.x) / spread(g.width), 0, 1.2) ** 6
    across = across + 0.04 * spread(g.pose.rotation) * np.sign(g.x)
    depth = 0.555 + 0.085 * edge((g.y - spread(g.apex)) / 0.7 - 0.3) - 0.05 * edge((g.y - spread(g.base) + 0.3) / 0.6)
    air = lung * (across * depth)

    att = _soft_tissue(cases, g)
    att -= air
    heart = np.minimum(np.minimum(g.x - g.inner_left, g.inner_right - g.x) / 0.16, (g.y - spread(g.top) + 0.1) / 0.25)
    att += np.clip(heart, 0, 1) * (0.11 * (1 - 0.6 * edge((g.y - spread(g.base) + 0.1) / 0.1)))
    _spine(att, g)
    _bubble(att, g)
    _bones(att, g)
    return Thorax(g, att, air, lung, _vessels(cases, g, lung), _ribs(g))
