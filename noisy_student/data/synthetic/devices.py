"""Tubes, lines, wires and boxes on a film, drawn as polylines in body coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from noisy_student.data.synthetic.cases import F32, Draws

Point = tuple[float, float]


def curve(points: Sequence[Point], steps: int = 24) -> list[Point]:
    """Return a Catmull-Rom curve through ``points``."""
    p = np.array([points[0], *points, points[-1]])
    t = np.linspace(0, 1, steps)[:, None]
    out = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        bend = (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
        out.append(0.5 * (2 * b + (c - a) * t + bend))
    return [(float(x), float(y)) for x, y in np.concatenate(out)]


def kinds(s: float, u: Draws) -> list[int]:
    """Return which of the eight kinds of device a study shows, one to four, in the order of drawing."""
    chosen: list[int] = np.argsort([*u[1:8], u[31]])[: 1 + int(2.2 * s + 0.9 * u[8])].tolist()
    return chosen


class Pen:
    """A grey picture at twice the film's resolution, drawn on in body coordinates."""

    def __init__(self, x: F32, y: F32) -> None:
        self.size = len(x)
        self.fold = 2 if self.size <= 512 else 1
        self.picture = Image.new("L", (self.size * self.fold, self.size * self.fold), 0)
        self.pen = ImageDraw.Draw(self.picture)
        self.step = float(x[1] - x[0]) / self.fold
        self.left, self.top = float(x[0]) - self.step / 2, float(y[0]) - self.step / 2

    def at(self, point: Point) -> Point:
        return (point[0] - self.left) / self.step, (point[1] - self.top) / self.step

    def line(self, points: Sequence[Point], width: float, shade: int) -> None:
        pixels = max(1, round(width / self.step))
        # A wire thinner than a pixel is drawn fainter instead, down to half.
        shade = round(shade * min(1.0, max(0.5, width / self.step)))
        self.pen.line([self.at(point) for point in points], fill=shade, width=pixels, joint="curve")

    def ring(self, centre: Point, rx: float, ry: float, width: float, shade: int, fill: int = 0) -> None:
        (a, b), (c, d) = self.at((centre[0] - rx, centre[1] - ry)), self.at((centre[0] + rx, centre[1] + ry))
        self.pen.ellipse((a, b, c, d), outline=shade, width=max(1, round(width / self.step)), fill=fill or None)

    def box(self, centre: Point, rx: float, ry: float, shade: int) -> None:
        (a, b), (c, d) = self.at((centre[0] - rx, centre[1] - ry)), self.at((centre[0] + rx, centre[1] + ry))
        self.pen.rounded_rectangle((a, b, c, d), radius=0.35 * (c - a), fill=shade)

    def map(self) -> F32:
        picture = self.picture.reduce(self.fold) if self.fold > 1 else self.picture
        return np.asarray(picture, dtype=np.float32) * np.float32(1 / 255)


def devices(s: float, u: Draws, x: F32, y: F32, middle: float, top: float, base: float, width: float) -> F32:
    """Return the attenuation of one to four devices as a map (S, S).

    Args:
        s: severity in (0, 1]; subtle is one thin line, obvious several dense devices.
        u: uniforms that choose kinds and courses.
        x: body coordinate of each column, shape (S,).
        y: body coordinate of each row, shape (S,).
        middle: shift of the mediastinum.
        top: upper end of the heart.
        base: height of the costophrenic angles.
        width: half width of the chest.
    """
    pen = Pen(x, y)
    faint = 0.58 + 0.42 * s
    j = [value - 0.5 for value in u[9:30]]
    side = -1 if u[0] < 0.6 else 1

    def shade(full: int) -> int:
        return int(full * faint)

    for kind in kinds(s, u):
        if kind == 0:  # endotracheal tube: two walls down the trachea, the tip above the carina
            tip = top - 0.20 + 0.10 * j[0]
            for wall in (-0.013, 0.013):
                course = [(middle * 0.4 + 0.03 * j[1], -1.3), (middle * 0.5, -0.7), (middle * 0.6, tip)]
                pen.line(curve([(a + wall, b) for a, b in course]), 0.010, shade(200))
        elif kind == 1:  # central line: neck or arm vein to the superior vena cava
            low = top + 0.06 + 0.12 * j[2]
            neck = (side * (0.20 + 0.05 * j[3]), -1.15) if u[30] < 0.5 else (side * 0.95, -0.50 + 0.2 * j[3])
            bend = (side * (0.20 if u[30] < 0.5 else 0.45), -0.72 + 0.06 * j[4])
            pen.line(curve([neck, bend, (-0.10 + middle, -0.52), (-0.09 + middle, low)]), 0.013, shade(170))
        elif kind == 2:  # feeding tube: down the middle, past the hiatus, curling in the stomach
            end = (0.38 * width + 0.2 * j[5], base + 0.12 + 0.10 * j[6])
            course = [(0.02 * j[7], -1.3), (0.03 + middle, -0.4), (0.05 + middle, 0.2), (0.10 + middle, base - 0.12)]
            pen.line(curve([*course, end]), 0.016, shade(150))
        elif kind == 3:  # pacemaker: a box below the clavicle and two leads to the heart
            at = (0.62 * width + 0.05 * j[8] + 0.02, -0.40 + 0.08 * j[9])
            entry = (0.26, -0.56)
            for end in ((-0.12 + middle, top + 0.36), (0.20 + middle, base - 0.14)):
                course = [at, (0.45, -0.62), entry, (-0.09 + middle, -0.40), (-0.11 + middle, top + 0.14), end]
                pen.line(curve(course), 0.011, shade(220))
            pen.box(at, 0.095, 0.080, shade(235))
        elif kind == 4:  # chest drain: a wide tube from the flank upwards
            course = [(side * 1.1, 0.35 + 0.3 * j[10]), (side * width * 0.92, 0.22 + 0.3 * j[10])]
            course += [(side * width * 0.72, -0.15), (side * (0.42 + 0.1 * j[11]), -0.48 + 0.2 * j[12])]
            for off in (0.0, 0.030):
                pen.line(curve([(a, b + off) for a, b in course]), 0.011, shade(165))
        elif kind == 5:  # ECG leads: wires that wander to round electrodes
            for k in range(3):
                across, down = ((-0.66, -0.50), (0.66, -0.45), (0.54, 0.30))[k]
                spot = (across * width + 0.1 * j[13 + k], down + 0.1 * j[16 + k])
                sway = (spot[0] + 0.25 * j[14 + k], spot[1] + 0.35)
                pen.line(curve([spot, sway, (spot[0] * 0.5 + 0.3 * j[15 + k], 1.2)]), 0.008, shade(165))
                pen.ring(spot, 0.034, 0.034, 0.012, shade(190), shade(120))
        elif kind == 6:  # surgical clips: short bright dashes in a group
            cx, cy = side * width * (0.45 + 0.5 * j[0]), 0.5 * (top + base) + 0.6 * j[1] - 0.1
            for k in range(3 + int(5 * u[32])):
                x0, y0 = cx + 0.26 * j[2 + k], cy + 0.30 * j[10 + k]
                end = (x0 + 0.034 * math.cos(6 * j[k]), y0 + 0.034 * math.sin(6 * j[k]))
                pen.line([(x0, y0), end], 0.016, min(255, shade(320)))
        else:  # sternal wires after surgery, with a valve ring when there is much metal
            for k in range(6):
                centre = (middle * 0.5 + 0.02 * j[k], top - 0.28 + 0.125 * k)
                pen.ring(centre, 0.040 + 0.01 * j[6 + k], 0.026, 0.010, min(255, shade(330)))
            if s > 0.55:
                angle = [2 * math.pi * k / 24 for k in range(25)]
                valve = [(0.10 + middle + 0.085 * math.cos(a), top + 0.33 + 0.05 * math.sin(a + 0.5)) for a in angle]
                pen.line(valve, 0.018, shade(225))
    return pen.map() * np.float32(0.50)
