"""How often, with what and how surely: draws of studies whose reports have CheXpert's shares of 1, -1, 0 and blank.

A study is drawn report first. Correlated normal variables, one per observation, decide what the report says: the
highest values are positive, those below uncertain, the rest denied or not mentioned. What is truly there is then
drawn given the report, so that every share of the train table is right by construction and the truth is what valid and
test tables hold. Patients keep a part of their variables from study to study.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from noisy_student.data.synthetic.cases import INDEX, OPACITIES, TAG_REPORT, TAG_TRUTH, TAG_VIEWS
from noisy_student.labels import OBSERVATIONS
from noisy_student.randomness import uniform

Prevalence = Literal["enriched", "chexpert"]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer[Any]]

NAMES: Final = OBSERVATIONS[1:]
"""The observations that are drawn; No Finding follows from them."""
_COUNT: Final = len(NAMES)

AP_STUDIES: Final = 0.847
"""Share of studies filmed from the front (AP), which are those of patients in bed."""

# Shares of CheXpert's train rows that say 1, -1 and 0: first the studies filmed AP, then those filmed PA; and the
# share truly positive among the -1 of labels that radiologists read again (0.5 where nobody did).
_CHEXPERT: Final[dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]]] = {
    "Enlarged Cardiomediastinum": ((0.0480, 0.0526, 0.0591), (0.0493, 0.0641, 0.2083), 0.53),
    "Cardiomegaly": ((0.1280, 0.0352, 0.0297), (0.0999, 0.0391, 0.1091), 0.40),
    "Lung Opacity": ((0.5204, 0.0213, 0.0225), (0.3315, 0.0362, 0.0503), 0.50),
    "Lung Lesion": ((0.0309, 0.0048, 0.0018), (0.0712, 0.0121, 0.0172), 0.50),
    "Edema": ((0.2937, 0.0682, 0.0736), (0.0571, 0.0285, 0.1494), 0.52),
    "Consolidation": ((0.0712, 0.1337, 0.0774), (0.0514, 0.0961, 0.2686), 0.03),
    "Pneumonia": ((0.0223, 0.0862, 0.0068), (0.0411, 0.0777, 0.0295), 0.08),
    "Atelectasis": ((0.1632, 0.1648, 0.0048), (0.1086, 0.1105, 0.0094), 0.54),
    "Pneumothorax": ((0.0963, 0.0140, 0.2422), (0.0596, 0.0144, 0.2818), 0.50),
    "Pleural Effusion": ((0.4229, 0.0487, 0.1008), (0.2763, 0.0619, 0.3285), 0.29),
    "Pleural Other": ((0.0094, 0.0069, 0.0006), (0.0345, 0.0264, 0.0038), 0.50),
    "Fracture": ((0.0382, 0.0024, 0.0099), (0.0472, 0.0044, 0.0153), 0.50),
    "Support Devices": ((0.6021, 0.0046, 0.0282), (0.2748, 0.0054, 0.0254), 0.50),
}

_ENRICHED: Final[dict[str, float]] = {
    "Enlarged Cardiomediastinum": 0.08,
    "Cardiomegaly": 0.20,
    "Lung Opacity": 0.07,
    "Lung Lesion": 0.13,
    "Edema": 0.18,
    "Consolidation": 0.15,
    "Pneumonia": 0.13,
    "Atelectasis": 0.16,
    "Pneumothorax": 0.14,
    "Pleural Effusion": 0.25,
    "Pleural Other": 0.12,
    "Fracture": 0.12,
    "Support Devices": 0.45,
}
"""Shares of 1 in the enriched set: what is rare in CheXpert is frequent enough to be learned from 100 patients."""

_CORRELATIONS: Final[dict[tuple[str, str], float]] = {
    ("Consolidation", "Atelectasis"): 0.60,
    ("Lung Opacity", "Pneumonia"): 0.34,
    ("Lung Opacity", "Pleural Effusion"): 0.32,
    ("Lung Opacity", "Atelectasis"): 0.22,
    ("Lung Opacity", "Consolidation"): 0.17,
    ("Lung Opacity", "Edema"): 0.12,
    ("Lung Opacity", "Lung Lesion"): 0.13,
    ("Lung Opacity", "Support Devices"): 0.12,
    ("Cardiomegaly", "Edema"): 0.34,
    ("Cardiomegaly", "Pneumothorax"): -0.28,
    ("Cardiomegaly", "Lung Lesion"): -0.13,
    ("Cardiomegaly", "Pleural Effusion"): 0.06,
    ("Enlarged Cardiomediastinum", "Cardiomegaly"): 0.15,
    ("Edema", "Pneumonia"): 0.23,
    ("Edema", "Pneumothorax"): -0.40,
    ("Edema", "Fracture"): -0.23,
    ("Edema", "Lung Lesion"): -0.17,
    ("Edema", "Pleural Other"): -0.16,
    ("Edema", "Pleural Effusion"): 0.11,
    ("Edema", "Support Devices"): 0.09,
    ("Consolidation", "Pneumonia"): 0.20,
    ("Consolidation", "Pleural Effusion"): 0.16,
    ("Consolidation", "Pneumothorax"): -0.13,
    ("Pneumonia", "Pneumothorax"): -0.23,
    ("Pneumonia", "Support Devices"): -0.20,
    ("Pneumonia", "Lung Lesion"): 0.11,
    ("Atelectasis", "Pleural Effusion"): 0.18,
    ("Pneumothorax", "Fracture"): 0.11,
    ("Pneumothorax", "Pleural Effusion"): -0.11,
    ("Pneumothorax", "Support Devices"): 0.06,
    ("Pleural Effusion", "Fracture"): -0.14,
    ("Pleural Effusion", "Pleural Other"): 0.13,
    ("Pleural Effusion", "Support Devices"): 0.18,
    ("Pleural Other", "Lung Lesion"): 0.13,
    ("Pleural Other", "Fracture"): 0.15,
    ("Lung Lesion", "Support Devices"): -0.15,
    ("Fracture", "Support Devices"): -0.14,
}
"""Tetrachoric correlations between what CheXpert's reports name (1 or -1), within studies of one projection."""

_TRUE_IF_TOLD: Final = 0.95  # share of positive reports that are right
_MISSED: Final = 0.06  # share of reports that pass over a finding, for each positive report
_NO_FINDING_TOLD: Final = 0.90  # share of reports without any finding that are labelled No Finding
_LASTING: Final = 0.45  # part of the variance that a patient keeps from study to study

# Patients by number of studies: 1 to 10, then a tail.
_STUDIES: Final = np.cumsum([0.520, 0.173, 0.092, 0.057, 0.038, 0.026, 0.018, 0.014, 0.011, 0.008])
_STUDIES_ENRICHED: Final = np.cumsum([0.52, 0.28, 0.13, 0.07])
_TAIL: Final = 7.5


@dataclass(frozen=True)
class Studies:
    """What is known of N studies; the columns of the matrices are the 14 observations."""

    bed: npt.NDArray[np.bool_]  # (N,) filmed AP
    severity: F64  # (N, 14) in [0, 1]; 0 where the finding itself is absent
    truth: npt.NDArray[np.int64]  # (N, 14) 0 or 1, parents filled
    told: F64  # (N, 14) as a report gives them: 1, 0, -1 or NaN


@lru_cache(maxsize=2)
def _mixing() -> F64:
    """Return the Cholesky factor of the correlations, (13, 13)."""
    matrix = np.eye(_COUNT)
    for (a, b), value in _CORRELATIONS.items():
        i, j = INDEX[a] - 1, INDEX[b] - 1
        matrix[i, j] = matrix[j, i] = value
    return np.asarray(np.linalg.cholesky(matrix), dtype=np.float64)


@lru_cache(maxsize=2)
def _shares(prevalence: Prevalence) -> tuple[F64, F64, F64]:
    """Return the shares of 1, -1 and 0, first AP, then PA, (2, 13, 3); true among -1, (13,); passed over, (13,)."""
    shares = np.array([[_CHEXPERT[name][projection] for name in NAMES] for projection in (0, 1)])
    if prevalence == "enriched":
        positive = np.array([_ENRICHED[name] for name in NAMES])
        room = 0.97 - positive
        # Devices stay with those in bed.
        shares[:, :, 0] = positive
        shares[:, -1, 0] = [0.50, 0.20]
        total = shares[:, :, 1:].sum(axis=2, keepdims=True)
        shares[:, :, 1:] *= np.minimum(1, room[None, :, None] / np.maximum(total, 1e-9))
    overall = AP_STUDIES * shares[0, :, 0] + (1 - AP_STUDIES) * shares[1, :, 0]
    return shares, np.array([_CHEXPERT[name][2] for name in NAMES]), _MISSED * overall


def count_studies(seed: int, split: int, patients: Ints, prevalence: Prevalence) -> npt.NDArray[np.int64]:
    """Return the number of studies of each patient, (N,): as in CheXpert (2.9 a patient), or 1 to 4 when enriched."""
    u = uniform(seed, TAG_VIEWS, split, patients[:, None], np.arange(1001, 1003))
    steps = _STUDIES if prevalence == "chexpert" else _STUDIES_ENRICHED[:-1]
    count = 1 + np.searchsorted(steps, u[:, 0], side="right")
    tail = np.floor(-_TAIL * np.log1p(-u[:, 1])).astype(np.int64)
    return np.where(count > len(_STUDIES), count + np.minimum(tail, 80), count).astype(np.int64)


def _normals(seed: int, split: int, patients: Ints, studies: Ints) -> F64:
    """Return correlated standard normal variables, (N, 14): one per observation drawn, the last for the projection."""
    where = np.arange(_COUNT + 1)
    lasting = ndtri(uniform(seed, TAG_TRUTH, split, patients[:, None], 0, where))
    passing = ndtri(uniform(seed, TAG_TRUTH, split, patients[:, None], studies[:, None], where))
    z: F64 = np.sqrt(_LASTING) * lasting + np.sqrt(1 - _LASTING) * passing
    z[:, :_COUNT] = z[:, :_COUNT] @ _mixing().T
    return z


def draw_studies(seed: int, split: int, patients: Ints, studies: Ints, prevalence: Prevalence) -> Studies:
    """Return the studies (N,) of ``patients`` with the numbers ``studies`` (from 1); each depends on its own alone."""
    shares, true_if_unsure, passed_over = _shares(prevalence)
    z = _normals(seed, split, patients, studies)
    bed = z[:, -1] < ndtri(AP_STUDIES)
    positive, unsure, zero = np.moveaxis(shares[np.where(bed, 0, 1)], 2, 0)  # each (N, 13)
    above = ndtr(-z[:, :_COUNT])
    where = np.arange(_COUNT)
    u = uniform(seed, TAG_REPORT, split, patients[:, None, None], studies[:, None, None], np.arange(3)[:, None], where)
    told = np.where(u[:, 0] < zero / (1 - positive - unsure), 0.0, np.nan)
    told[above < positive + unsure] = -1.0
    told[above < positive] = 1.0
    chance = np.where(told == 1, _TRUE_IF_TOLD, np.where(told == -1, true_if_unsure, passed_over))
    chance[told == 0] *= 0.3
    present = u[:, 1] < chance
    # What the report is sure of tends to be plain to see, what it doubts or passes over tends to be faint.
    degree = u[:, 2]
    severity = np.where(
        told == 1, 0.15 + 0.85 * degree**0.6, np.where(told == -1, 0.10 + 0.60 * degree, 0.08 + 0.47 * degree)
    )
    severity = np.asarray(np.round(np.where(present, severity, 0.0), 4), dtype=np.float64)
    return _filled(bed, severity, told, prevalence, uniform(seed, TAG_REPORT, split, patients, studies, 99))


def _filled(bed: npt.NDArray[np.bool_], own: F64, told: F64, prevalence: Prevalence, u: F64) -> Studies:
    """Return the studies with No Finding and with parents: always in the truth, in enriched reports too."""
    count = len(own)
    severity = np.concatenate([np.zeros((count, 1)), own], axis=1)
    told = np.concatenate([np.full((count, 1), np.nan), told], axis=1)
    wide, heart, haze = (INDEX[name] for name in ("Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"))
    children = [INDEX[name] for name in OPACITIES]
    # A report that names an opacity means the child where there is one; a veil is painted only where there is none.
    child = (severity[:, children] > 0).any(axis=1)
    truth = (severity > 0).astype(np.int64)
    truth[:, wide] |= truth[:, heart]
    truth[:, haze] |= child
    severity[child, haze] = 0.0
    truth[:, 0] = ~truth[:, 1:-1].any(axis=1)
    if prevalence == "enriched":
        told[told[:, heart] == 1, wide] = 1.0
        told[(told[:, children] == 1).any(axis=1), haze] = 1.0
    silent = ~((told[:, 1:-1] == 1) | (told[:, 1:-1] == -1)).any(axis=1)
    told[silent & (u < _NO_FINDING_TOLD), 0] = 1.0
    return Studies(bed, severity, truth, told)
