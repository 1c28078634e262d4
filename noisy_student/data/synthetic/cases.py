"""Cases: who is filmed, how, and what is wrong with them; every draw is a function of a film's coordinates.

A case holds severities, not pixels. Anatomy is drawn per patient, findings and pose per study, exposure per view,
so films of one patient resemble each other and two views of a study show the same disease.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from noisy_student.labels import OBSERVATIONS
from noisy_student.randomness import uniform

F32 = npt.NDArray[np.floating[Any]]
# float32 at run time (a test checks it); NumPy's types widen a product with a Python float to float64.
Draws = tuple[float, ...]
Projection = Literal["PA", "AP", "LL"]
T = TypeVar("T")

SPLITS: Final[dict[str, int]] = {"train": 0, "valid": 1, "test": 2}
"""Splits and the number that stands for each in a draw."""

INDEX: Final[dict[str, int]] = {name: number for number, name in enumerate(OBSERVATIONS)}
"""Column of each observation in :attr:`Case.severity`."""

OPACITIES: Final = ("Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis")
"""Observations whose parent is Lung Opacity (Irvin et al. 2019, figure 1)."""

RATES: Final[dict[str, float]] = {
    "Enlarged Cardiomediastinum": 0.10,
    "Cardiomegaly": 0.27,
    "Lung Opacity": 0.10,
    "Lung Lesion": 0.17,
    "Edema": 0.24,
    "Consolidation": 0.19,
    "Pneumonia": 0.17,
    "Atelectasis": 0.24,
    "Pneumothorax": 0.18,
    "Pleural Effusion": 0.33,
    "Pleural Other": 0.16,
    "Fracture": 0.16,
    "Support Devices": 0.50,
}
"""Chance of each finding in a patient who is ill; rare ones are more frequent than in CheXpert on purpose."""

HEALTHY: Final = 0.24
"""Share of studies without any finding but devices."""
HEALTHY_DEVICES: Final = 0.25
"""Share of those that show a device."""

# Tags keep draws of different purpose apart.
TAG_BUILD, TAG_POSE, TAG_EXPOSURE, TAG_TRUTH, TAG_FINDING, TAG_VIEWS, TAG_REPORT = range(1, 8)


@dataclass(frozen=True)
class Case:
    """One film to render. ``severity`` has one value in [0, 1] per observation; 0 is absent."""

    seed: int
    split: int
    patient: int
    study: int
    view: int
    projection: Projection
    female: bool
    severity: tuple[float, ...]

    def has(self, observation: str) -> bool:
        """Return whether the finding itself is drawn (a parent label may be true without)."""
        return self.severity[INDEX[observation]] > 0

    def with_severity(self, **findings: float) -> Case:
        """Return the same film with other severities; names are observations with underscores for spaces."""
        values = list(self.severity)
        for name, value in findings.items():
            values[INDEX[name.replace("_", " ")]] = value
        return dataclasses.replace(self, severity=tuple(values))


def truth(severity: Sequence[float]) -> tuple[int, ...]:
    """Return the 14 true labels (0 or 1) of a study: the findings drawn, their parents, and No Finding."""
    present = {name: severity[INDEX[name]] > 0 for name in OBSERVATIONS}
    present["Enlarged Cardiomediastinum"] |= present["Cardiomegaly"]
    present["Lung Opacity"] |= any(present[name] for name in OPACITIES)
    present["No Finding"] = not any(present[name] for name in OBSERVATIONS[1:-1])
    return tuple(int(present[name]) for name in OBSERVATIONS)


def draw_severity(seed: int, split: int, patient: int, study: int) -> tuple[float, ...]:
    """Return the severities of a study, each 0 or in [0.15, 1]: some obvious, some barely visible."""
    u = uniform(seed, TAG_TRUTH, split, patient, study, np.arange(2 + 2 * len(OBSERVATIONS)))
    healthy, presence, degree = u[0] < HEALTHY, u[2::2], u[3::2]
    values = [0.0] * len(OBSERVATIONS)
    for name, rate in RATES.items():
        if healthy:
            rate = HEALTHY_DEVICES if name == "Support Devices" else 0.0
        if presence[INDEX[name]] < rate:
            values[INDEX[name]] = round(0.15 + 0.85 * float(degree[INDEX[name]]), 4)
    if not healthy and not any(values[1:-1]):
        # An ill patient has at least one finding; without this a quarter more studies would read No Finding.
        names = [name for name in RATES if name != "Support Devices"]
        chosen = names[int(u[1] * len(names))]
        values[INDEX[chosen]] = round(0.15 + 0.85 * float(degree[INDEX[chosen]]), 4)
    return tuple(values)


def draw_projections(seed: int, split: int, patient: int, study: int, devices: bool) -> tuple[Projection, ...]:
    """Return the views of a study in file order: mostly one frontal, often a lateral, rarely two frontals."""
    u = uniform(seed, TAG_VIEWS, split, patient, study, np.arange(3))
    # Bedridden patients are filmed AP, and they are the ones with lines and tubes.
    bed = u[0] < (0.85 if devices else 0.55)
    frontal: Projection = "AP" if bed else "PA"
    lateral = u[1] < (0.10 if bed else 0.35)
    if lateral:
        return ("LL",) if u[2] < 0.01 else (frontal, "LL")
    return (frontal, frontal) if u[2] < 0.05 else (frontal,)


def is_female(seed: int, split: int, patient: int) -> bool:
    """Return whether the patient is female (41 %, as in CheXpert)."""
    return bool(uniform(seed, TAG_VIEWS, split, patient, 1000) < 0.41)


def between(low: float, high: float) -> dict[str, tuple[float, float]]:
    """Return the metadata of a field that :func:`draw` draws from [low, high], the middle most often."""
    return {"range": (low, high)}


def draw(kind: type[T], *coordinates: int | npt.ArrayLike) -> T:
    """Return ``kind`` with every field drawn in its range; fields have the shape of ``coordinates`` broadcast (N,)."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    expanded = [c if isinstance(c, int) else np.asarray(c)[..., None] for c in coordinates]
    u = uniform(*expanded, np.arange(2 * len(fields)))
    values = {}
    for number, field in enumerate(fields):
        low, high = field.metadata["range"]
        share = 0.5 * (u[..., 2 * number] + u[..., 2 * number + 1])
        values[field.name] = (low + (high - low) * share).astype(np.float32)
    return kind(**values)


def finding_draws(case: Case, observation: str, count: int = 32) -> Draws:
    """Return ``count`` uniforms for where and how a finding is drawn: shared by the views of a study."""
    coordinates = (case.seed, TAG_FINDING, case.split, case.patient, case.study, INDEX[observation])
    # Python floats, because a NumPy float64 would turn every map it meets into float64.
    return tuple(uniform(*coordinates, np.arange(count)).tolist())


def columns(cases: Sequence[Case], observation: str) -> F32:
    """Return the severity of one observation over ``cases``, shape (N,)."""
    number = INDEX[observation]
    return np.array([case.severity[number] for case in cases], dtype=np.float32)


def side_of(case: Case, observation: str) -> int:
    """Return the image side of a one-sided finding: -1 the left of the film (the patient's right), +1 the right."""
    return -1 if finding_draws(case, observation, 1)[0] < 0.5 else 1
