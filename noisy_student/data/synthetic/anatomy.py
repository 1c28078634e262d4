"""The frontal thorax as attenuation: air, soft tissue and vessels laid over each other; bones are in :mod:`.bones`.

Attenuation is about 0 in open air, 0.3 in lung, 0.9 in the heart and 1 in the abdomen. Layers add up, as they do in
an X-ray, and only the tone curve saturates: so ribs show through the heart and vessels in front of the diaphragm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from noisy_student.data.synthetic.banks import cloud, tree_window
from noisy_student.data.synthetic.bones import ribs, shoulders, spine
from noisy_student.data.synthetic.cases import F32, Case
from noisy_student.data.synthetic.shape import Shape, edge, shape, spread


@dataclass(frozen=True)
class Thorax:
    """A batch of thoraxes in layers, each of shape (N, S, S): findings still change them before they are summed."""

    shape: Shape
    att: F32  # everything but vessels and ribs
    air: F32  # the attenuation that air takes away
    lung: F32  # 1 in the lungs, 0 outside
    vessels: F32
    ribs: F32


def _vessels(cases: Sequence[Case], g: Shape, lung: F32) -> F32:
    """Return the vessels of both lungs: a tree of the bank each, its hilum put beside the heart's upper end."""
    out = np.empty_like(lung)
    size, half = lung.shape[2], lung.shape[2] // 2
    x, y = g.x[:, 0, :], g.y[:, :, 0]
    for n in range(len(cases)):
        hilum_y = float(g.top[n]) + 0.03
        row = int(np.clip(np.searchsorted(y[n], hilum_y), 0, size - 1))
        step = float(g.pixel[n])
        reach = 0.70 / float(g.width[n])
        first, last = (float(y[n, 0]) - step / 2 - hilum_y) * reach, (float(y[n, -1]) + step / 2 - hilum_y) * reach
        start = float(x[n, 0]) - step / 2
        left_hilum = float(g.inner_left[n, row, 0]) - 0.015
        right_hilum = float(g.inner_right[n, row, 0]) + 0.005
        middle = start + half * step
        end = start + size * step
        box = ((start - left_hilum) * reach, first, (middle - left_hilum) * reach, last)
        out[n, :, :half] = tree_window(float(g.build.tree_left[n]), *box, half, size)
        # The other lung is the mirrored tree, a little higher as the left hilum is.
        box = ((right_hilum - end) * reach, first + 0.05, (right_hilum - middle) * reach, last + 0.05)
        out[n, :, half:] = tree_window(float(g.build.tree_right[n]), *box, size - half, size)[:, ::-1]
    # Lying down evens out upper and lower vessels; standing, the bases carry most.
    bias = 0.80 + (0.40 - 0.25 * spread(g.supine)) * edge((g.y - spread(g.top)) / 0.8)
    return out * (lung * (spread(g.build.vessels * (1 + 0.15 * g.supine)) * bias))


def _soft_tissue(cases: Sequence[Case], g: Shape, flesh: F32) -> F32:
    """Return trunk, neck, shoulders (``flesh``) and breasts without the air in them."""
    build, pose, a = g.build, g.pose, np.abs(g.x)
    joint_x, joint_y = g.joint
    neck = spread(0.25 + 0.5 * build.habitus)
    shoulder = edge((g.y - spread(joint_y) + 0.22) / 0.46) ** 0.75
    slope = neck + (spread(joint_x + 0.06) - neck) * shoulder
    flank = spread(g.width + 0.19 + 0.65 * build.habitus) * (1 - 0.03 * np.cos(2.5 * g.y))
    armpit = spread(joint_y) + 0.30
    hull = np.where(g.y > armpit, np.maximum(flank, slope - 0.9 * (g.y - armpit)), slope)
    body = np.sqrt(np.clip((hull - a) / 0.24, 0, 1))
    slab = 0.88 + 0.40 * spread(build.habitus) + 0.12 * edge((g.y - spread(g.base)) / 0.5)
    slab = slab - 0.20 * edge((spread(g.apex) - g.y) / 0.3 + 0.3)
    # The flanks are struck tangentially: less tissue than before and behind the lungs' middle.
    att = body * slab * (1 - 0.14 * edge((a - spread(g.width) - 0.02) / 0.4))
    att = np.asarray(np.maximum(att, (0.56 + 0.4 * spread(build.habitus)) * flesh))
    chin = edge((0.30 - np.sqrt((0.8 * a) ** 2 + (g.y + 1.16 - spread(0.2 * (pose.chin - 0.55))) ** 2)) / 0.10)
    att += chin * spread(0.30 * (pose.chin > 0.55))
    lower = slice(att.shape[1] // 3, None)
    for n in (n for n, case in enumerate(cases) if case.female):
        reach = float(build.breast_size[n])
        down = g.y[n, lower] - (g.base[n] - np.float32(0.20))
        fall = (down / np.where(down > 0, np.float32(0.62 * reach), np.float32(1.35 * reach))) ** 2
        r = ((a[n] - g.width[n] * np.float32(0.66)) / np.float32(reach)) ** 2 + fall
        att[n, lower] += build.breast[n] * np.sqrt(np.maximum(1 - r, 0))
    return att


def _gas(att: F32, g: Shape) -> None:
    """Take away the gas of the stomach below the left dome, and of bowel lower down."""
    half = att.shape[1] // 2
    x, y = g.x[:, :, half:], g.y[:, half:]
    cx = spread(g.width * 0.50)
    column = np.argmin(np.abs(g.x[:, 0, :] - cx[:, :, 0]), axis=1)
    cy = spread(g.dome[np.arange(len(column)), 0, column] + 0.10)
    size = np.clip(g.build.bubble, 0, 1)
    down = y - cy
    # The patient stands or lies half up: the bubble is flat below, where it rests on fluid.
    tall = np.where(down > 0, spread(0.02 + 0.30 * size), spread(0.02 + 0.62 * size))
    r = ((x - cx) / spread(0.05 + size)) ** 2 + (down / tall) ** 2
    att[:, half:, half:] -= spread(g.pose.gas * (size > 0)) * edge((1 - r) / 0.7)
    for n in np.flatnonzero(g.pose.bowel > 0.08):
        u = float(g.pose.bowel_u[n])
        below = edge((y[n] - g.dome[n].max() - 0.12) / 0.12)
        loops = np.clip(cloud(u, 7 * u % 1, 31 * u % 1, att.shape[1])[half:] - 0.6, 0, 1)
        att[n, half:] -= float(g.pose.gas[n]) * below * loops * edge((g.width[n] - np.abs(g.x[n])) / 0.3)


def thorax(cases: Sequence[Case], size: int) -> Thorax:
    """Return the thoraxes of frontal ``cases`` (one seed, one split) on a grid of ``size`` pixels, in layers."""
    g = shape(cases, size)
    build = g.build
    soft_wall = spread(np.maximum(0.026, 1.2 * g.pixel))
    # The great vessels fade into the lung, the heart's border is sharper.
    soft_heart = spread(np.maximum(0.040, 1.3 * g.pixel)) + 0.035 * edge((spread(g.top) - g.y) / 0.2)
    soft_dome = spread(np.maximum(0.030, 1.3 * g.pixel))
    wall = np.minimum(g.x - g.left, g.right - g.x)
    inside = wall / soft_wall
    beside = np.maximum(g.inner_left / soft_heart - g.x / soft_heart, g.x / soft_heart - g.inner_right / soft_heart)
    # Above the apex the borders meet in a hairline; the roof closes it.
    roof = (g.y - spread(g.apex) - 0.008) / soft_wall
    inside = np.minimum(np.minimum(inside, beside), np.minimum(g.dome / soft_dome - g.y / soft_dome, roof))
    lung = edge(inside)
    # The chest is round: less air where the beam grazes the wall.
    rim = np.clip(wall / spread(0.42 * g.width), 0, 1)
    depth = 0.525 + 0.085 * edge((g.y - spread(g.apex)) / 0.7 - 0.3) - 0.10 * edge((g.y - spread(g.base) + 0.3) / 0.6)
    air = lung * (0.70 + 0.30 * np.sqrt(rim * (2 - rim)))
    air *= depth * (1 + 0.05 * spread(g.pose.rotation) * np.sign(g.x))

    bones, flesh = shoulders(g)
    att = _soft_tissue(cases, g, flesh)
    att += bones
    att -= air
    # The heart is round and has lung before and behind it: densest in the middle, thin at its borders.
    within = np.minimum(g.x - g.inner_left, g.inner_right - g.x)
    thick = np.clip(within / spread(0.34 * g.width), 0, 1)
    chest = edge(wall / soft_wall) * edge(g.dome / 0.10 - g.y / 0.10) * edge(roof * 0.5)
    behind = (chest - lung) * (depth * (0.46 - 0.34 * np.sqrt(thick * (2 - thick))))
    behind *= edge((g.y - spread(g.top) + 0.30) / 0.35)
    att -= behind
    # The border of the descending aorta, seen through the heart to the left of the spine.
    aorta = g.x - (0.10 + spread(np.maximum(build.unfolding, 0)) * np.sin(2.5 * (g.y + 0.4)) + g.lean)
    att += 0.035 * edge(-aorta / 0.02) * edge((aorta + 0.16) / 0.2) * edge((g.y - spread(g.top) + 0.16) / 0.1)
    spine(att, g)
    _gas(att, g)
    vessels = _vessels(cases, g, lung)
    for n in range(len(cases)):
        mottle = cloud(float(build.tree_left[n]), float(build.rib_set[n]), float(build.girdle[n]), size, fine=True)
        vessels[n] += float(build.texture[n]) * mottle * lung[n]
    return Thorax(g, att, air + behind, lung, vessels, ribs(g, lung))
