"""What surrounds the lung: fluid and air in the pleural space, thick pleura, broken ribs."""

from __future__ import annotations

import numpy as np

from noisy_student.data.synthetic.banks import cloud
from noisy_student.data.synthetic.cases import Draws
from noisy_student.data.synthetic.shape import bump, edge
from noisy_student.data.synthetic.view import View


def effusion(v: View, side: int, s: float, u: Draws) -> None:
    """Fluid from the costophrenic angle up, its surface a meniscus that climbs the wall; lying, a veil as well."""
    sides = [(side, s)]
    if u[1] < 0.35:
        sides.append((-side, s * (0.35 + 0.5 * u[2])))
    a = np.abs(v.x)
    for at, amount in sides:
        level = v.base + 0.03 - (0.06 + 0.74 * amount**1.3) * v.height * 0.85
        lateral = np.clip(v.wall(at) - a, 0, None)
        medial = np.clip(a - v.inner(at), 0, None)
        climb = (0.07 + 0.09 * amount) * np.exp(-lateral / (0.07 + 0.07 * amount)) + 0.05 * np.exp(-medial / 0.08)
        surface = level + 0.05 - climb
        fuzz = 0.06 + 0.10 * v.supine * (u[3] < 0.6)
        v.fill(0.97 * edge((v.y - surface) / fuzz) * v.half(at))
        if v.supine and u[3] < 0.6:
            veil = np.clip((v.y - v.apex - 0.1) / v.height, 0, 1) ** 1.5
            v.fill(veil * v.half(at) * (0.30 * amount))


def pneumothorax(v: View, side: int, s: float, u: Draws) -> None:
    """Air between lung and wall: a thin pleural line, no vessels and a darker rim beyond it, a lung that shrinks."""
    gap = 0.035 + 0.33 * s**1.25
    y = v.y[:, 0]
    wall = v.wall(side)[:, 0]
    down = np.clip((y - v.apex) / v.height, 0, 1)
    # Upright, air rises: the gap is widest at the apex and closes towards the base unless there is much of it.
    shrunk = np.interp(y - 1.3 * gap, y, wall) - gap * (1 - (0.75 - 0.5 * s) * down)
    thin = v.soft(0.018)
    outside = (np.abs(v.x) - shrunk[:, None].astype(np.float32)) / thin
    above = (v.apex + 1.4 * gap - v.y) / thin
    distance = np.maximum(outside, above)
    free = edge(distance) * v.half(side)
    v.vessels *= 1 - free
    v.att -= (0.06 + 0.08 * s) * free * v.lung
    v.att += (0.09 + 0.05 * u[3]) * bump((distance + 0.2) / 0.65) * (v.lung * v.half(side))
    v.fill((1 - free) * ((0.02 + 0.22 * s**2) * v.half(side)).astype(np.float32))


def pleural_other(v: View, side: int, s: float, u: Draws) -> None:
    """Thick pleura: a rind along the lateral wall, a cap at the apex, a blunt angle; calcified plaques when marked."""
    near = v.wall(side) - np.abs(v.x)
    wave = 1 + 0.28 * np.sin(7 * v.y + 6 * u[1]) + 0.16 * np.sin(17 * v.y + 6 * u[2])
    middle = v.apex + v.height * (0.35 + 0.45 * u[3])
    thick = (0.042 + 0.080 * s) * wave * bump((v.y - middle) / (0.20 + 0.26 * s))
    rind = edge((thick - near) / v.soft(0.022)) * v.half(side)
    cap = edge((v.apex + 0.03 + (0.04 + 0.10 * s) * u[4] + 0.02 * wave - v.y) / 0.035) * v.half(side)
    v.fill(np.maximum(rind, 0.75 * cap) * (0.50 + 0.38 * s))
    if u[5] < 0.5 or s > 0.75:
        # Plaques are seen along the wall and, where they lie before or behind the lung, as islands with a bright rim.
        islands = cloud(u[5], u[6], u[7], v.size) - (1.75 - 0.55 * s)
        plaque = edge(islands / 0.35) * (0.45 + 0.55 * bump(islands / 0.18))
        on_wall = edge((0.6 * thick - near) / v.soft(0.016)) * edge((cloud(u[6], u[7], u[5], v.size) + 0.2) / 0.5)
        low = edge((v.y - v.apex - 0.30 * v.height) / 0.2)
        v.att += (0.05 + 0.13 * s) * (plaque * low + 1.3 * on_wall) * v.half(side) * v.lung


def fracture(v: View, side: int, s: float, u: Draws) -> None:
    """Neighbouring ribs broken: a dark gap, the outer piece shifted, callus when old, blood beside it when fresh."""
    x, y = v.at(side, 0.58 + 0.28 * u[1], 0.22 + 0.40 * u[2])
    reach = 0.08 + 0.26 * s * (0.5 + 0.5 * u[3])
    beyond = (np.abs(v.x) - abs(x))[0]
    slant = 0.9 * (u[5] - 0.5)
    # The outer piece drops at the break and comes back to its place at the wall.
    drop = (0.034 + 0.060 * s) * np.exp(-np.clip(beyond, 0, None) / 0.22) * (beyond > 0)
    rows = np.flatnonzero(np.abs(v.y[:, 0] - y) < reach + 0.08)
    columns = np.flatnonzero((beyond > -0.12) & (beyond < 0.5) & v.half(side)[0])
    if not len(rows) or not len(columns):
        return
    window = np.ix_(rows, columns)
    before = v.ribs[window]
    near = edge((reach - np.abs(v.y[rows] - y)) / 0.05)
    source = (rows[:, None] - np.rint(near * (drop[columns] / v.pixel))).astype(np.intp)
    moved = v.ribs[np.clip(source, 0, v.size - 1), columns[None, :]]
    line = beyond[columns] - slant * (v.y[rows] - y) - 0.02 * np.sin(40 * (v.y[rows] - y) + 6 * u[6])
    gap = bump(line / max(0.015, 0.8 * v.pixel)) * near
    # The ends of the pieces overlap where they are pushed together, and old breaks grow callus.
    ends = bump((np.abs(line) - 0.030) / 0.022) * near * (0.3 + 0.6 * s)
    knob = bump(line / 0.045) * near * edge((before - 0.03) / 0.04)
    callus = knob * ((0.13 + 0.17 * s) * (1.0 if u[4] < 0.6 else 0.6))
    if u[4] > 0.35:  # blood outside the pleura
        lens = (0.030 + 0.060 * s) * edge((reach + 0.03 - np.abs(v.y - y)) / 0.14)
        v.fill(edge((lens - (v.wall(side) - np.abs(v.x))) / v.soft(0.024)) * v.half(side) * (0.35 + 0.45 * s))
    v.ribs[window] = moved * (1 + ends) * (1 - (0.6 + 0.4 * s) * gap) + callus
