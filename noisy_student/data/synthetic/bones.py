"""The bones of a frontal thorax: ribs, spine with the air column before it, clavicles and shoulder girdles."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from noisy_student.data.synthetic.banks import girdle_window
from noisy_student.data.synthetic.cases import F32
from noisy_student.data.synthetic.shape import Shape, bump, edge, spread
from noisy_student.randomness import generator

_RIB_STEPS: Final = 128
_RIBS: Final = 16
_SETS: Final = 16


@lru_cache(maxsize=1)
def _rib_bank() -> F32:
    """Return profiles of ribs, (_SETS, _RIBS * _RIB_STEPS): bands with bright cortex, the lower border sharper.

    No two ribs of a set are equal in place, width and brightness.
    """
    phase = (np.arange(_RIB_STEPS) + 0.5) / _RIB_STEPS
    rows = []
    for number in range(_SETS):
        rng = generator(0x41B5, number)
        profiles = []
        for _ in range(_RIBS):
            start, width, bright = rng.uniform(0.05, 0.20), rng.uniform(0.36, 0.50), rng.uniform(0.8, 1.2)
            end = start + width
            band = np.clip((phase - start) / 0.09, 0, 1) * np.clip((end - phase) / 0.05, 0, 1)
            cortex = 0.8 * bump((phase - start - 0.06) / 0.045) + bump((phase - end + 0.05) / 0.032)
            profiles.append(bright * (0.58 * band + 0.45 * cortex))
        rows.append(np.concatenate(profiles))
    return np.stack(rows).astype(np.float32)


def rib_profile(phase: F32, sets: F32) -> F32:
    """Return the brightness at ``phase`` (whole numbers are ribs) in the rib sets chosen by ``sets`` (N,)."""
    bank = _rib_bank()
    # Integer masking, not ``%``: a float32 remainder can equal its divisor and index past the table.
    index = (phase * _RIB_STEPS).astype(np.int32) & (_RIBS * _RIB_STEPS - 1)
    index += ((sets * _SETS).astype(np.int32) * bank.shape[1])[:, None, None]
    return np.take(bank, index)


def ribs(g: Shape, lung: F32) -> F32:
    """Return the ribs (N, S, S): each is half an ellipse behind, level at the spine, and half an ellipse before.

    Both halves meet at the wall, where the rib turns; the anterior half is broader, fainter and ends at the cartilage.
    """
    build = g.build
    wall = np.where(g.x < 0, -g.left, g.right) + 0.012
    a = np.abs(g.x)
    share = a / wall
    turn = 1 - np.sqrt(np.maximum(1 - share * share, 0))
    down = g.y - spread(g.apex)
    pitch = build.rib_pitch
    # Upper ribs run level, lower ones dive.
    drop = spread(build.rib_drop) * (0.45 + 0.55 * edge((down - 0.45) / 0.9))
    base = spread(build.rib_phase + 3.5) + down * (1 - 0.06 * down) / spread(pitch)
    base = base + 0.12 * spread(g.pose.rotation) * np.sign(g.x)
    posterior = base - drop * (turn + 0.12 * a)
    anterior = (base - drop * 1.1 - spread(0.8 + build.rib_drop) * (1 - turn)) * 0.86
    weight = spread(build.rib_contrast) * edge((a - 0.14) / 0.16)
    rows = edge((down - 0.03) / 0.12) * (1 - 0.85 * edge((g.y - spread(g.base) - 0.02) / 0.30))
    cage = np.clip((wall - a) * 30 + 0.3, 0, 1) * rows
    fade = np.clip((share - 0.40) / 0.35, 0, 1) * (1 - 0.5 * edge((down - 1.0) / 0.3))
    out = rib_profile(posterior, build.rib_set) * (weight * (1 + 0.5 * np.clip(share - 0.6, 0, 0.4)))
    front = rib_profile(anterior, 1 - build.rib_set)
    out += front * (0.60 * weight * fade)
    for n in np.flatnonzero(build.cartilage > 0.02):  # calcified cartilage, where the anterior ribs end
        ends = bump((share[n] - 0.42) / 0.10) * (front[n] > 0.35)
        out[n] += float(build.cartilage[n]) * ends * edge((down[n] - 0.35) / 0.2)
    out *= cage * (0.62 + 0.38 * lung)  # in front of solid organs scatter takes part of the contrast
    return out


def spine(att: F32, g: Shape) -> None:
    """Add spine and trachea to the middle columns: bright bodies, darker discs, the air column to the carina."""
    build = g.build
    columns = _middle(g.x.shape[2])
    x = g.x[:, :, columns]
    bend = spread(build.scoliosis) * np.sin(2.2 * (g.y + 0.2)) + 0.2 * g.lean
    off = (x - bend) / spread(build.spine)
    away = np.abs(off)
    level = (g.y + 0.03 * g.y**2) / (0.94 * spread(build.rib_pitch)) + spread(build.rib_phase)
    wave = np.cos(2 * np.pi * level)
    # The beam is hard enough to show the discs above and through the heart, less so below the diaphragm.
    clear = 1.1 - 0.5 * edge((g.y - spread(g.base) + 0.1) / 0.5)
    part = edge((1.0 - away) / 0.45) * (0.105 + 0.030 * wave) * clear
    part += bump((away - 0.60) / 0.17) * (0.055 * np.clip(wave, 0, 1) ** 2 * clear)  # pedicles
    part += bump((off - 0.25 * spread(g.pose.rotation)) / 0.20) * (
        0.04 * np.clip(-wave + 0.2, 0, 1)
    )  # spinous processes
    part += bump((away - 1.35) / 0.35) * (0.030 * np.clip(wave + 0.2, 0, 1))  # transverse processes
    carina = spread(g.top) - 0.10
    below = g.y - carina
    from_axis = np.abs(x - (0.6 * g.lean + 0.015 + 0.02 * spread(g.pose.rotation)))
    part -= edge((0.040 - from_axis) / 0.03) * (0.12 * edge(-below / 0.06))
    reach = from_axis - (0.015 + 0.75 * np.clip(below, -0.03, 0.2))
    part -= bump(reach / 0.022) * (0.07 * edge(below / 0.05) * (1 - np.clip(below / 0.16, 0, 1)))
    att[:, :, columns] += part


def _middle(size: int) -> slice:
    """Return the columns that can hold the spine, whatever the pose."""
    return slice(int(0.20 * size), int(0.80 * size) + 1)


def shoulders(g: Shape) -> tuple[F32, F32]:
    """Return bones (attenuation) and soft tissue (0 to 1) of both shoulders and arms, with the clavicles, (N, S, S)."""
    count, size = len(g.top), g.x.shape[2]
    bones = np.zeros((count, size, size), dtype=np.float32)
    flesh = np.zeros((count, size, size), dtype=np.float32)
    joint_x, joint_y = g.joint
    half = size // 2
    for n in range(count):
        step = float(g.pixel[n])
        x0, y0 = float(g.x[n, 0, 0]), float(g.y[n, 0, 0]) - float(joint_y[n])
        lying = bool(g.supine[n])
        for side, start, columns in ((1, half, size - half), (-1, 0, half)):
            # The two shoulders of a person are alike, not equal.
            number = (float(g.build.girdle[n]) + (0.09 if side < 0 else 0.0)) % 1.0
            corner = (side * (x0 + start * step) - float(joint_x[n]), y0)
            pair = girdle_window(number, lying, corner, (side * step, step), columns, size)
            bones[n, :, start : start + columns], flesh[n, :, start : start + columns] = pair
    bones *= np.float32(0.34)
    rows = slice(0, int(0.55 * size))
    bones[:, rows] += _clavicles(g, rows)
    return bones, flesh


def _clavicles(g: Shape, rows: slice) -> F32:
    pose = g.pose
    y, a = g.y[:, rows], np.abs(g.x)
    joint_x, joint_y = g.joint
    # Rotation moves the inner ends to one side: the sign a reader looks for first.
    inner = 0.075 + 0.035 * spread(pose.rotation) * np.sign(g.x)
    t = (a - inner) / (spread(joint_x - 0.02) - inner)
    low, high = spread(pose.clavicle - 0.07 * g.supine), spread(joint_y - 0.13)
    ridge = low + (high - low) * np.clip(t, 0, 1.2) ** 0.8 - 0.045 * np.sin(np.clip(t, 0, 1.1) * 5.8) * (1 - 0.3 * t)
    thick = 0.024 + 0.016 * np.clip(np.abs(t - 0.5) * 2, 0, 1.2)
    d = np.abs(y - ridge)
    span = edge((t + 0.01) / 0.08) * edge((1.0 - t) / 0.12)
    return (0.085 * edge((thick - d) / 0.014) + 0.05 * bump((d - thick + 0.007) / 0.009)) * span
