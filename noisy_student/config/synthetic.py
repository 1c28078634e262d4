"""Settings of the synthetic data set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from noisy_student.config.base import Section


class SyntheticConfig(Section):
    """Size of the synthetic data set that source ``synthetic`` makes when it is not there yet."""

    train_patients: int = Field(3000, ge=1, le=64540)
    """Patients of the train table (2.1 films each when enriched, 3.5 as in CheXpert); no more than CheXpert has."""
    valid_patients: int = Field(150, ge=1, le=200)
    """Patients of the validation table; no more than CheXpert has."""
    test_patients: int = Field(600, ge=1)
    """Patients of the test table."""
    size: int = Field(64, ge=32, le=2048)
    """Side of the square films in pixels."""
    prevalence: Literal["enriched", "chexpert"] = "enriched"
    """``enriched``: every label is frequent enough for small sets, 1 to 4 studies a patient, parents named in reports.
    ``chexpert``: shares of 1, -1 and 0, studies a patient and unnamed parents as in CheXpert's train table."""
    seed: int = Field(0, ge=0)
    """Seed of the films."""
