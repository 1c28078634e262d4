"""What is measured of a generation's scores."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section


class EvaluationConfig(Section):
    """What is measured and how."""

    macro_labels: tuple[str, ...] = ()
    """Labels of the macro mean; empty means all of ``data.labels``."""
    level: Literal["image", "study"] = "image"
    """Unit of the headline figures; with ``study`` pseudo-labels too are what a teacher says of a study."""
    aggregation: Literal["mean", "max", "frontal"] = "mean"
    """How the logits of a study's films become one: their ``mean``, their ``max``, or the mean of the ``frontal`` ones
    where a study has any, else of all. The calibration of studies is fitted after it."""
    replicates: int = Field(2000, ge=100)
    """Bootstrap replicates (patients are resampled)."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    bins: int = Field(10, ge=2)
    """Bins of equal mass for ECE and reliability diagrams."""
    stratify: bool = False
    """Resample patients within strata by their rarest finding; intervals then hold for a test set in which as many
    patients have it as their rarest one. Findings of fewer than ten patients have no stratum, and a resample can lose
    them, as it can a rare negative."""
    target_sensitivity: float = Field(0.9, gt=0, le=1)
    """Sensitivity of the second operating point: the highest threshold that reaches it on the judging films."""
    target_specificity: float = Field(0.9, gt=0, le=1)
    """Specificity of the third operating point: the lowest threshold that reaches it on the judging films."""
    smallest_difference: float = Field(0.01, gt=0, lt=1)
    """Difference of AUROC that would matter: where two models cannot be told apart, the report says how many patients
    it would take to see this one."""
    subgroup_patients: int = Field(50, ge=2)
    """Groups (sex, age, view, projection, site) of fewer patients are marked as small and left out of the gap."""
    age_bands: tuple[Annotated[int, Field(gt=0, le=150)], ...] = Field((18, 40, 60, 80), min_length=1)
    """First years of the age bands after the youngest."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.age_bands) != sorted(set(self.age_bands)):
            raise ValueError("age_bands: ages have to rise")
        return self
