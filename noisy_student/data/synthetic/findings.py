"""Which painter draws which observation, and what looks like a finding but is none.

Findings that move borders (a large heart, a wide mediastinum, lost volume) are in :mod:`.shape`; the painters add or
take attenuation, and nothing is painted outside the tissue it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from noisy_student.data.synthetic import airspace, pleura
from noisy_student.data.synthetic.anatomy import Thorax
from noisy_student.data.synthetic.cases import INDEX, Case, Draws, finding_draws, side_of
from noisy_student.data.synthetic.devices import devices
from noisy_student.data.synthetic.shape import Pose, bump, edge
from noisy_student.data.synthetic.view import View, view

PAINTERS: Final[dict[str, Callable[[View, int, float, Draws], None]]] = {
    "Edema": airspace.edema,
    "Lung Opacity": airspace.haze,
    "Consolidation": airspace.consolidation,
    "Pneumonia": airspace.pneumonia,
    "Atelectasis": airspace.atelectasis,
    "Lung Lesion": airspace.lesion,
    "Pleural Other": pleura.pleural_other,
    "Pleural Effusion": pleura.effusion,
    "Fracture": pleura.fracture,
    "Pneumothorax": pleura.pneumothorax,
}
"""Painter of each finding, in the order of painting: air last, so that no vessel is left beyond the pleural line."""


def mimics(v: View, pose: Pose, n: int) -> None:
    """Paint what is no finding but looks like one: skin folds, nipples, a fissure, buttons, a chain, a scar.

    Rib crossings, a low inspiration, rotation, AP magnification, fat pads and an unfolded aorta are part of the
    anatomy and mislead as well.
    """
    fold, nipples = float(pose.fold[n]), float(pose.nipples[n])
    fissure, clothes = float(pose.fissure[n]), float(pose.clothes[n])
    if v.supine and fold < 0.42:  # like a pleural line, but vessels go on beyond it and it leaves the chest
        side = 1 if fold < 0.34 else -1
        at = v.width * (0.58 + 0.25 * np.sin(60 * fold)) + 0.14 * (v.y + 0.2) + 0.1 * fold * v.y**2
        d = (np.abs(v.x) - at) / 0.06
        v.att += 0.085 * np.clip(1 + d, 0, 1) * (d < 0) * (edge((v.y + 0.5) / 0.3) * v.half(side))
    if nipples < 0.33:  # like nodules
        for side in (-1, 1) if nipples < 0.26 else (1,):
            r = np.sqrt((v.x - side * 0.58 * v.width) ** 2 + (v.y - v.base + 0.14 + 0.4 * nipples) ** 2)
            v.att += (0.06 + 0.14 * nipples) * edge((0.026 - r) / v.soft(0.016))
    if fissure < 0.45:  # like a band of collapse, but hair-thin
        line = v.y - v.top - 0.10 - 0.08 * fissure - 0.16 * (np.abs(v.x) - 0.3) ** 2
        across = edge((np.abs(v.x) - v.inner(-1) - 0.06) / 0.06) * v.half(-1)
        v.att += (0.05 + 0.05 * fissure) * bump(line / max(0.007, 0.6 * v.pixel)) * across * v.lung
    if 0.30 < clothes < 0.42:  # like nodules or electrodes
        for k in range(3):
            cx, cy = 0.05 * np.sin(40 * clothes) + 0.4 * np.sin(90 * clothes + 2 * k), -0.55 + 0.42 * k + 0.3 * clothes
            r = np.sqrt((v.x - cx) ** 2 + (v.y - cy) ** 2)
            v.att += 0.16 * bump((r - 0.020) / max(0.008, 0.7 * v.pixel))
    elif clothes > 0.66:  # like a catheter
        dip = v.apex - 0.10 + 0.30 * (clothes - 0.6)
        chain = np.abs(v.y - dip + 1.3 * np.abs(v.x) ** 1.5) / max(0.009, 0.7 * v.pixel)
        v.att += 0.16 * bump(chain) * (np.cos(150 * v.x) > -0.3) * (v.y < dip + 0.02)


def paint(case: Case, n: int, layers: Thorax) -> None:
    """Paint the findings, devices and mimics of ``case`` into film ``n`` of ``layers``."""
    v = view(layers, n)
    mimics(v, layers.shape.pose, n)
    for name, painter in PAINTERS.items():
        if case.has(name):
            painter(v, side_of(case, name), case.severity[INDEX[name]], finding_draws(case, name))
    if case.has("Support Devices"):
        middle = float(np.mean(layers.shape.lean[n]))
        u = finding_draws(case, "Support Devices")
        v.att += devices(case.severity[INDEX["Support Devices"]], u, v.x[0], v.y[:, 0], middle, v.top, v.base, v.width)
