"""The borders of a frontal thorax as 1-D functions of height or width, with the findings that move them.

Film units: x from -1 (left of the film, the patient's right) to 1, y from -1 (top) to 1. Body coordinates are film
coordinates without the pose's shift and zoom. Row functions have shape (N, S, 1), column functions (N, 1, S): only
where they meet does a full map arise, which keeps a film cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from noisy_student.data.synthetic.cases import (
    F32,
    TAG_BUILD,
    TAG_POSE,
    Case,
    between,
    columns,
    draw,
    side_of,
)

SPAN = 1.07
"""Half side of the rendered square: a little more than the film, so that a tilted film has no empty corners."""


@dataclass(frozen=True)
class Build:
    """What stays with a patient; each field has shape (N,), lengths in film units."""

    width: F32 = field(metadata=between(0.64, 0.82))
    apex: F32 = field(metadata=between(-0.86, -0.72))
    base: F32 = field(metadata=between(0.46, 0.66))
    dome: F32 = field(metadata=between(0.18, 0.33))
    heart: F32 = field(metadata=between(0.39, 0.50))
    heart_top: F32 = field(metadata=between(-0.22, -0.08))
    mediastinum: F32 = field(metadata=between(0.115, 0.165))
    knob: F32 = field(metadata=between(0.010, 0.085))
    trunk: F32 = field(metadata=between(-0.01, 0.05))
    unfolding: F32 = field(metadata=between(-0.05, 0.05))
    fat_pad: F32 = field(metadata=between(-0.05, 0.09))
    habitus: F32 = field(metadata=between(-0.08, 0.20))
    rib_pitch: F32 = field(metadata=between(0.125, 0.160))
    rib_phase: F32 = field(metadata=between(0.0, 1.0))
    rib_drop: F32 = field(metadata=between(1.3, 2.6))
    rib_set: F32 = field(metadata=between(0.0, 1.0))
    rib_contrast: F32 = field(metadata=between(0.08, 0.16))
    spine: F32 = field(metadata=between(0.065, 0.09))
    scoliosis: F32 = field(metadata=between(-0.06, 0.06))
    vessels: F32 = field(metadata=between(0.24, 0.46))
    texture: F32 = field(metadata=between(0.004, 0.022))
    breast: F32 = field(metadata=between(0.04, 0.19))
    breast_size: F32 = field(metadata=between(0.26, 0.44))
    cartilage: F32 = field(metadata=between(-0.10, 0.09))
    tree_left: F32 = field(metadata=between(0.0, 1.0))
    tree_right: F32 = field(metadata=between(0.0, 1.0))
    girdle: F32 = field(metadata=between(0.0, 1.0))
    bubble: F32 = field(metadata=between(-0.05, 0.12))


@dataclass(frozen=True)
class Pose:
    """What changes from study to study; each field has shape (N,)."""

    inspiration: F32 = field(metadata=between(-0.20, 0.12))
    rotation: F32 = field(metadata=between(-1.0, 1.0))
    zoom: F32 = field(metadata=between(0.92, 1.18))
    shift_x: F32 = field(metadata=between(-0.09, 0.09))
    shift_y: F32 = field(metadata=between(-0.06, 0.14))
    clavicle: F32 = field(metadata=between(-0.64, -0.48))
    clavicle_tilt: F32 = field(metadata=between(-0.02, 0.24))
    gas: F32 = field(metadata=between(0.20, 0.46))
    bowel: F32 = field(metadata=between(-0.5, 0.5))
    bowel_u: F32 = field(metadata=between(0.0, 1.0))
    fold: F32 = field(metadata=between(0.0, 1.0))
    nipples: F32 = field(metadata=between(0.0, 1.0))
    fissure: F32 = field(metadata=between(0.0, 1.0))
    clothes: F32 = field(metadata=between(0.0, 1.0))
    chin: F32 = field(metadata=between(0.0, 1.0))


@dataclass(frozen=True)
class Shape:
    """The borders of a batch of frontal thoraxes, all in body coordinates."""

    build: Build
    pose: Pose
    supine: F32  # (N,) 1 for AP films
    x: F32  # (N, 1, S)
    y: F32  # (N, S, 1)
    left: F32  # (N, S, 1) chest wall on the left of the film
    right: F32  # (N, S, 1)
    inner_left: F32  # (N, S, 1) border of heart and mediastinum
    inner_right: F32  # (N, S, 1)
    dome: F32  # (N, 1, S) upper face of the diaphragm
    lean: F32  # (N, S, 1) sideways shift of the mediastinum
    top: F32  # (N,) upper end of the heart
    base: F32  # (N,) height of the costophrenic angles
    apex: F32  # (N,)
    width: F32  # (N,) half width of the chest
    pixel: F32  # (N,) side of a pixel

    @property
    def joint(self) -> tuple[F32, F32]:
        """Distance from the middle and height of the shoulder joints, each (N,)."""
        out = self.width + 0.20 + 0.5 * self.build.habitus
        return out, self.pose.clavicle - 0.03 - 0.3 * self.pose.clavicle_tilt


def spread(values: F32) -> F32:
    """Return (N,) values as (N, 1, 1), to meet row and column functions."""
    return values[:, None, None].astype(np.float32)


def edge(distance: F32) -> F32:
    """Return a smooth step of ``distance`` (in units of the border's softness): 0 below -1/2, 1 above 1/2."""
    t = np.asarray(distance + np.float32(0.5))
    np.maximum(t, 0, out=t)
    np.minimum(t, 1, out=t)
    out = 3 - 2 * t
    out *= t
    out *= t
    return out


def bump(z: F32) -> F32:
    """Return exp(-z**2 / 2), a bump of height 1."""
    out: F32 = np.exp(-0.5 * z * z)
    return out


def grid(size: int) -> F32:
    """Return the coordinates of the rendered pixels' centres, shape (size,)."""
    return ((np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1) * np.float32(SPAN)


def persons(cases: Sequence[Case]) -> tuple[Build, Pose]:
    """Return build and pose of each case; a batch has one seed and one split."""
    seed, split = cases[0].seed, cases[0].split
    patients = np.array([case.patient for case in cases])
    studies = np.array([case.study for case in cases])
    return draw(Build, seed, TAG_BUILD, split, patients), draw(Pose, seed, TAG_POSE, split, patients, studies)


def shape(cases: Sequence[Case], size: int) -> Shape:
    """Return the borders of frontal ``cases`` (one seed, one split) on a grid of ``size`` pixels."""
    build, pose = persons(cases)
    supine = np.array([case.projection == "AP" for case in cases], dtype=np.float32)
    axis = grid(size)
    x = (axis[None, None, :] - spread(pose.shift_x)) / spread(pose.zoom)
    y = (axis[None, :, None] - spread(pose.shift_y)) / spread(pose.zoom)

    def side(observation: str) -> F32:
        # Drawn only where it matters: a draw costs more than a border.
        sides = [side_of(case, observation) if case.has(observation) else 1 for case in cases]
        return np.array(sides, dtype=np.float32)

    heart_up, wide = columns(cases, "Cardiomegaly"), columns(cases, "Enlarged Cardiomediastinum")
    collapse, collapse_side = columns(cases, "Atelectasis"), side("Atelectasis")
    # Air and fluid push the mediastinum away once there is much of it; collapse draws it near.
    push = -0.09 * side("Pneumothorax") * np.clip(columns(cases, "Pneumothorax") - 0.6, 0, 1)
    push -= 0.10 * side("Pleural Effusion") * np.clip(columns(cases, "Pleural Effusion") - 0.6, 0, 1)
    middle = push + 0.06 * collapse_side * collapse + 0.025 * pose.rotation

    base = build.base + pose.inspiration - 0.10 * supine
    apex, width = build.apex, build.width
    s = np.clip((y - spread(apex)) / spread(base - apex), 0, 1)
    wall = spread(width) * (0.34 + 0.66 * (1 - (1 - s) ** 2.3) ** 0.70) * (1 - 0.045 * s**5)

    # The right atrium is an even arc, the left ventricle a slope that bulges just above the diaphragm.
    # Lying and breathing out make the same heart look larger: the first mimic of cardiomegaly.
    squeeze = 1 + 0.10 * supine - 0.30 * np.minimum(pose.inspiration, 0)
    across = 2 * width * build.heart * squeeze * (1 + 0.50 * heart_up)
    top = build.heart_top + 0.4 * pose.inspiration - 0.06 * supine - 0.10 * heart_up
    tall = spread(base - 0.02 - top)
    down = (y - spread(top)) / tall
    atrium = spread(across * 0.34) * np.sqrt(1 - np.clip((down - 0.58) / 0.66, -1, 1) ** 2)
    t = (down - 0.78) / np.where(down < 0.78, np.float32(0.88), np.float32(0.42))
    ventricle = spread(across * 0.66) * (1 - np.abs(np.clip(t, -1, 1)) ** 2.1) ** 0.72
    pad = spread(np.maximum(build.fat_pad, 0)) * edge((y - spread(base) + 0.16) / 0.22)
    narrow = spread(build.mediastinum * (1 + 0.16 * supine) * (1 + 0.85 * wide))
    stem = narrow * (1 - 0.12 * edge((y - spread(top) + 0.45) / 0.2) * edge((spread(top) - y) / 0.2))
    above = y - spread(top)
    aged = np.maximum(build.unfolding, 0)
    knob = spread((build.knob + 0.5 * aged) * (1 + 0.8 * wide)) * bump((above + 0.22) / 0.075)
    trunk = spread(build.trunk) * bump((above + 0.03) / 0.09)
    cava = spread(0.012 + aged + 0.05 * wide) * bump((above + 0.22) / 0.16)
    lean = spread(middle) * edge((y - spread(apex)) / 1.2 + 0.2)
    # Towards the apex the lung's inner border turns outwards and meets the wall in a dome.
    cap = np.clip(s / 0.25, 0, 1)
    over = spread(width * 0.34) * (1 - np.sqrt(cap * (2 - cap)))

    side_x = np.where(x < 0, np.float32(-1), np.float32(1))
    lift = spread(0.16 * collapse) * (side_x == spread(collapse_side))
    height = spread(build.dome * (1 - 0.2 * supine)) + np.float32(0.045) * (side_x < 0) + lift
    offset = (np.abs(x) - spread(width * 0.42)) / spread(width * 0.58)
    # Past the wall the curve goes on falling, so that the costophrenic angle stays sharp.
    falls = np.where(offset < 0, 0.60 * offset**2, np.abs(offset) ** 2.4)

    return Shape(
        build=build,
        pose=pose,
        supine=supine,
        x=x,
        y=y,
        left=-wall * spread(1 + 0.03 * pose.rotation),
        right=wall * spread(1 - 0.03 * pose.rotation),
        inner_left=-np.maximum((stem**4 + atrium**4) ** 0.25 + cava + 0.6 * pad, over) + lean,
        inner_right=np.maximum((stem**4 + ventricle**4) ** 0.25 + knob + trunk + pad, over) + lean,
        dome=spread(base) - height * (1 - np.minimum(falls, 1.3)),
        lean=lean,
        top=top,
        base=base,
        apex=apex,
        width=width,
        pixel=(2 * SPAN / size / pose.zoom).astype(np.float32),
    )
