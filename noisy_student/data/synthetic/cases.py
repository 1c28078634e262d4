"""Cases: who is filmed, how, and what is wrong with them; every draw is a function of a film's coordinates.

A case holds severities, not pixels. Anatomy is drawn per patient, findings and pose per study, exposure per view,
so films of one patient resemble each other and two views of a study show the same disease.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from noisy_student.labels import OBSERVATIONS, PARENTS
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

OPACITIES: Final = PARENTS["Lung Opacity"]
"""Observations that make Lung Opacity true."""

LASTING: Final = ("Lung Lesion", "Pleural Other", "Fracture")
"""Observations that stay in their place from study to study of a patient."""

_DRAWS: Final = 48

_VIEWS: Final[dict[bool, tuple[tuple[float, tuple[Projection, ...]], ...]]] = {
    True: ((0.031, ("AP", "LL")), (0.015, ("AP", "AP")), (0.954, ("AP",))),
    False: (
        (0.072, ("PA",)),
        (0.021, ("PA", "PA", "LL")),
        (0.016, ("PA", "LL", "LL")),
        (0.0008, ("LL",)),
        (0.8902, ("PA", "LL")),
    ),
}
"""Views of a study and how often they occur, by whether it was filmed AP; the shares add up to 1."""

# Tags keep draws of different purpose apart.
TAG_BUILD, TAG_POSE, TAG_EXPOSURE, TAG_TRUTH, TAG_FINDING, TAG_VIEWS, TAG_REPORT, TAG_MARKS = range(1, 9)


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


def projections(u: float, bed: bool) -> tuple[Projection, ...]:
    """Return the views of a study in file order, chosen by a uniform ``u``; patients in bed mostly have one."""
    shares = np.cumsum([share for share, _ in _VIEWS[bed]])
    return _VIEWS[bed][int(np.searchsorted(shares, u, side="right"))][1]


def is_female(seed: int, split: int, patients: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return whether each patient is female (41 %, as in CheXpert)."""
    return uniform(seed, TAG_VIEWS, split, patients, 1000) < 0.41


def first_age(seed: int, split: int, patients: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return each patient's age at the first study, 18 to 90, old ages most often."""
    return 18 + (73 * uniform(seed, TAG_VIEWS, split, patients, 1003) ** 0.75).astype(np.int64)


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


@lru_cache(maxsize=512)
def _findings_uniforms(seed: int, split: int, patient: int, study: int) -> tuple[Draws, ...]:
    """Return the uniforms of all observations of a study: one call costs little more than one observation's."""
    where, count = np.arange(len(OBSERVATIONS))[:, None], np.arange(_DRAWS)
    # Python floats, because a NumPy float64 would turn every map it meets into float64.
    return tuple(map(tuple, uniform(seed, TAG_FINDING, split, patient, study, where, count).tolist()))


def finding_draws(case: Case, observation: str) -> Draws:
    """Return 48 uniforms for where and how a finding is drawn: shared by a study's views, or by all studies."""
    study = 0 if observation in LASTING else case.study
    return _findings_uniforms(case.seed, case.split, case.patient, study)[INDEX[observation]]


def columns(cases: Sequence[Case], observation: str) -> F32:
    """Return the severity of one observation over ``cases``, shape (N,)."""
    number = INDEX[observation]
    return np.array([case.severity[number] for case in cases], dtype=np.float32)


def side_of(case: Case, observation: str) -> int:
    """Return the image side of a one-sided finding: -1 the left of the film (the patient's right), +1 the right."""
    return -1 if finding_draws(case, observation)[0] < 0.5 else 1
