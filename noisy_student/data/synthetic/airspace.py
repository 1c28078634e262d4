"""What fills the lung: oedema, consolidation, pneumonia, collapse, lesions and nameless opacities.

Each painter takes the view, the side (-1 or 1), the severity in (0, 1] and the finding's uniforms. Opacities take the
place of air, so they never exceed soft tissue, and vessels vanish in them.
"""

from __future__ import annotations

import numpy as np

from noisy_student.data.synthetic.banks import cloud
from noisy_student.data.synthetic.cases import Draws
from noisy_student.data.synthetic.shape import bump, edge
from noisy_student.data.synthetic.view import View


def edema(v: View, side: int, s: float, u: Draws) -> None:
    """Haze about both hila that spares the edges, wide upper vessels, mottled lungs, septal lines at the bases."""
    del side  # water knows no side
    a = np.abs(v.x)
    lean = 1 + 0.5 * (u[3] - 0.5) * np.sign(v.x)  # seldom quite even
    hila = bump((a - 0.38 * v.width) / (0.30 * v.width)) * bump((v.y - v.top - 0.20) / (0.30 + 0.10 * s)) * lean
    coarse = cloud(u[0], u[1], u[2], v.size)
    fine = cloud(u[2], u[0], u[1], v.size, fine=True)
    v.vessels *= 1 + (0.9 * s + 0.2) * bump((v.y - v.top + 0.16) / 0.26)
    water = (0.10 + 0.62 * s**1.3) * hila * np.clip(1 + 0.40 * coarse, 0.2, 1.9) + 0.10 * s * edge((v.y - v.top) / 0.9)
    v.fill(np.minimum(water, 0.92))
    v.att += v.lung * ((0.012 + 0.030 * s) * fine * (0.4 + hila))
    near = (v.wall(-1) * v.half(-1) + v.wall(1) * v.half(1)) - a
    # Kerley's B lines: short, level, reaching the pleura, a centimetre apart, no two alike.
    wave = np.cos(2 * np.pi * (v.y + 0.01 * np.sign(v.x) + 0.06 * near) / 0.052) + 0.35 * fine
    lines = edge((wave - 0.72) / 0.35) * edge((0.085 + 0.02 * coarse - near) / 0.03)
    low = edge((v.y - v.base + 0.42) / 0.12) * edge((v.base - 0.05 - v.y) / 0.05)
    v.att += (0.04 + 0.06 * s) * lines * low * v.lung


def consolidation(v: View, side: int, s: float, u: Draws) -> None:
    """A dense lobar opacity, fuzzy but for the fissure that bounds it, the air of its bronchi left dark."""
    zone = int(3 * u[2])
    radius = 0.15 + 0.20 * s
    x, y = v.at(side, 0.42 + 0.26 * u[1], (0.27, 0.56, 0.74)[zone] + 0.05 * u[3])
    patch = v.patch(u[4:8], x, y, radius, 0.80, 0.36)
    slant = 0.12 * (np.abs(v.x) - abs(x))
    if zone == 0:  # the upper lobe ends at the horizontal fissure
        patch = patch * edge((y + 0.55 * radius + slant - v.y) / v.soft(0.03))
    elif zone == 1 and side < 0:  # the middle lobe begins there
        patch = patch * edge((v.y - y + 0.60 * radius - slant) / v.soft(0.03))
    patch *= v.half(side) * (0.34 + 0.52 * s)
    v.att -= (0.16 + 0.36 * s) * patch * np.minimum(2.2 * v.vessels, 0.6)  # air bronchograms beside the vessels
    v.fill(patch)


def pneumonia(v: View, side: int, s: float, u: Draws) -> None:
    """Patches with fuzzy borders, mottled and of several sizes; in a third a net of lines in the lower zones."""
    if u[2] < 0.33:
        net = cloud(u[8], u[9], u[10], v.size, fine=True)
        for at, share in ((side, 1.0), (-side, 0.55 * (u[11] < 0.6))):
            if not share:
                continue
            x, y = v.at(at, 0.42, 0.60 + 0.14 * u[12])
            zone = v.patch(u[13:17], x, y, 0.26 + 0.14 * s, 1.4) * v.half(at) * share
            v.fill(zone * (0.16 + 0.30 * s))
            v.att += v.lung * zone * ((0.02 + 0.05 * s) * net)
        return
    for k in range(1 + int(2.3 * s * u[1] + 0.9 * s)):
        w = u[8 + 6 * k : 14 + 6 * k]
        at = side if k != 1 else -side
        x, y = v.at(at, 0.28 + 0.46 * w[0], 0.46 + 0.32 * w[1])
        mottle = np.clip(0.85 + 0.45 * cloud(w[2], w[4], w[3], v.size), 0.35, 1.6)
        patch = v.patch(w[2:6], x, y, 0.13 + 0.16 * s * (0.6 + 0.5 * w[5]), 1.4, 0.45)
        v.fill(np.minimum(patch * mottle * v.half(at) * (0.36 + 0.42 * s), 0.9))


def haze(v: View, side: int, s: float, u: Draws) -> None:
    """An opacity that is nothing in particular: a faint veil over a part of one lung, sometimes of both bases."""
    both = u[3] < 0.3
    down = 0.72 if both else 0.25 + 0.5 * u[2]
    for at in (side, -side) if both else (side,):
        x, y = v.at(at, 0.30 + 0.4 * u[1], down)
        v.fill(v.patch(u[4:8], x, y, 0.22 + 0.16 * s, 1.6) * v.half(at) * (0.16 + 0.34 * s))


def atelectasis(v: View, side: int, s: float, u: Draws) -> None:
    """Bands above a raised dome; when marked, a collapsed lobe: a wedge at the heart, or the upper lobe drawn up."""
    for k in range(1 + int(2.0 * s * u[1] + 1.2 * s)):
        w = u[4 + 5 * k : 9 + 5 * k]
        x, y = v.at(side, 0.25 + 0.45 * w[0], 0.60 + 0.20 * w[1])
        slope, bow = side * (w[2] - 0.35) * 0.5, 0.4 * (w[4] - 0.5)
        along = v.x - x
        off = v.y - y - slope * along - bow * along**2
        length, thick = 0.13 + 0.16 * w[3], (0.013 + 0.018 * s * (0.5 + w[4])) * (1.1 - 0.6 * side * along)
        band = edge((length - np.abs(along)) / 0.14) * edge((thick - np.abs(off)) / v.soft(0.016))
        v.att += band * v.lung * (0.13 + 0.19 * s)
    if s <= 0.4:
        return
    grade = (s - 0.4) / 0.6
    depth = np.abs(v.x) - np.abs(v.inner(side))
    if u[2] < 0.3:  # the upper lobe folds up and inwards below the clavicle, its border bowed
        out = np.clip(depth, 0, None)
        border = v.apex + v.height * (0.44 - 0.12 * grade) - 0.55 * out + 0.45 * out**2
        v.fill(edge((border - v.y) / 0.045) * v.half(side) * (0.45 + 0.45 * grade))
        return
    sail = (0.04 + 0.34 * grade) * np.clip((v.y - v.base + 0.60) / 0.50, 0, 1)
    wedge = edge((sail - depth) / 0.10) * edge((v.y - v.base + 0.55) / 0.3) * v.half(side)
    v.fill(wedge * (0.35 + 0.50 * grade))
    behind = edge(-depth / 0.05) * edge((v.y - v.base + 0.50) / 0.3) * edge((np.abs(v.x) - 0.06) / 0.05)
    v.att += (0.05 + 0.09 * grade) * behind * edge((v.dome - v.y) / 0.08) * v.half(side)


def lesion(v: View, side: int, s: float, u: Draws) -> None:
    """One to four round nodules or a mass: balls, lobed or spiculated when large, now and then hollow or calcified."""
    count = 1 + (int(u[1] * 4.0) if u[2] < 0.5 and s > 0.35 else 0)
    for k in range(min(count, 3)):
        w = u[4 + 8 * k : 12 + 8 * k]
        x, y = v.at(side if k != 1 else -side, 0.18 + 0.62 * w[0], 0.14 + 0.64 * w[1])
        radius = max(0.062 + 0.125 * s**1.2 * (0.6 + 0.6 * w[2]) / (1 + 0.3 * (count > 1)), 1.1 * v.pixel)
        reach = 1.5 * radius
        rows = (v.y[:, 0] > y - reach) & (v.y[:, 0] < y + reach)
        columns = (v.x[0] > x - reach) & (v.x[0] < x + reach)
        if not rows.any() or not columns.any():
            continue
        window = np.ix_(rows, columns)
        dx, dy = v.x[:, columns] - x, v.y[rows] - y
        angle = np.arctan2(dy, dx)
        spikes = (
            0.026 * (np.cos(13 * angle + 9 * w[5]) + np.cos(21 * angle + 9 * w[4]))
            if w[6] < 0.35 and radius > 0.06
            else np.float32(0)
        )
        lobes = 1 + 0.10 * np.sin(2 * angle + 6 * w[3]) + 0.07 * np.sin(3 * angle + 6 * w[4]) + spikes
        r = np.sqrt(dx * dx + dy * dy) / (radius * lobes)
        ball = np.sqrt(np.clip(1.06 - r * r, 0, 1)) * edge((1.04 - r) / max(0.22, 1.4 * v.pixel / radius))
        if w[5] < 0.15 and radius > 0.07:  # a cavity
            ball = ball - 0.7 * edge((0.55 - r) / 0.25)
        dense = 1.5 if w[5] > 0.85 and radius < 0.06 else 1.0
        v.att[window] += (0.27 + 0.13 * s) * dense * ball * np.minimum(v.lung[window] + 0.2, 1)
