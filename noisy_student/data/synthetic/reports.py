"""Train labels as a report labeller would give them: explicit 0, -1 or blank where CheXpert has them."""

from __future__ import annotations

from typing import Final

import numpy as np

from noisy_student.data.synthetic.cases import TAG_REPORT, Draws
from noisy_student.labels import OBSERVATIONS
from noisy_student.randomness import uniform

# Rows of CheXpert's train table (223,414) that say -1 and 0, and the share truly positive among the -1 of labels
# that were read again by radiologists (0.5 where nobody did); last, how frequent the finding is in phantoms.
_COUNTS: Final[dict[str, tuple[int, int, float, float]]] = {
    "Enlarged Cardiomediastinum": (12403, 21638, 0.53, 0.27),
    "Cardiomegaly": (8087, 11116, 0.40, 0.21),
    "Lung Opacity": (5598, 6599, 0.50, 0.53),
    "Lung Lesion": (1488, 1270, 0.50, 0.14),
    "Edema": (12984, 20726, 0.52, 0.19),
    "Consolidation": (27742, 28097, 0.03, 0.15),
    "Pneumonia": (18770, 2799, 0.08, 0.14),
    "Atelectasis": (33739, 1328, 0.54, 0.19),
    "Pneumothorax": (3145, 56341, 0.50, 0.14),
    "Pleural Effusion": (11628, 35396, 0.29, 0.26),
    "Pleural Other": (2653, 316, 0.50, 0.13),
    "Fracture": (642, 2512, 0.50, 0.13),
    "Support Devices": (1079, 6137, 0.50, 0.44),
}
_ROWS: Final = 223_414
_MISSED: Final = 0.05
"""Share of present findings that a report does not mention."""


def chances(observation: str) -> tuple[float, float, float]:
    """Return P(-1 | present), P(-1 | absent) and P(0 | absent) of a report, by Bayes from CheXpert's counts.

    Raises:
        KeyError: the label is No Finding, which a report never denies.
    """
    unsure, zero, positive, prevalence = _COUNTS[observation]
    unsure_share = unsure / _ROWS
    if_present = min(0.6, unsure_share * positive / prevalence)
    if_absent = min(0.6, unsure_share * (1 - positive) / (1 - prevalence))
    return if_present, if_absent, min(1 - if_absent, zero / _ROWS / (1 - prevalence))


def reported(seed: int, split: int, patient: int, study: int, labels: tuple[int, ...]) -> Draws:
    """Return the 14 labels of a study as a report gives them: 1, 0, -1 (uncertain) or NaN (not mentioned)."""
    u = uniform(seed, TAG_REPORT, split, patient, study, np.arange(len(OBSERVATIONS)))
    out = np.full(len(OBSERVATIONS), np.nan)
    for number, name in enumerate(OBSERVATIONS):
        if name == "No Finding":
            out[number] = 1.0 if labels[number] else np.nan
            continue
        if_present, if_absent, denied = chances(name)
        if labels[number]:
            if u[number] < if_present:
                out[number] = -1.0
            elif u[number] < 1 - _MISSED:
                out[number] = 1.0
        elif u[number] < if_absent:
            out[number] = -1.0
        elif u[number] < if_absent + denied:
            out[number] = 0.0
    return tuple(out.tolist())
