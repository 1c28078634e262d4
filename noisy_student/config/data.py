"""Settings of the data side: where films and labels come from, how they are split, cached and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section
from noisy_student.config.synthetic import SyntheticConfig
from noisy_student.labels import OBSERVATIONS


class ColumnsConfig(Section):
    """Names of the columns of a generic CSV table (source ``csv``); ``null`` where the table has none."""

    image: str = "image"
    """Path of the film, below ``data.root``."""
    patient: str = "patient"
    """Identifier of the patient; splits never cut through a patient."""
    study: str | None = None
    """Identifier of the study; without it every film is a study of its own."""
    split: str | None = "split"
    """Column with train / valid / test; without it ``split.fractions`` makes the splits."""
    view: str | None = None
    """Column with frontal / lateral."""
    sex: str | None = None
    """Column with the patient's sex."""
    age: str | None = None
    """Column with the patient's age in years."""


class DataConfig(Section):
    """Where films and labels are and how they are read."""

    source: Literal["synthetic", "chexpert", "csv"] = "synthetic"
    """``synthetic`` (made on the spot), ``chexpert`` (the official tables) or ``csv`` (any table)."""
    root: Path | None = None
    """Folder of the data set; every path in its tables stays below it."""
    csv: str = "labels.csv"
    """Table of source ``csv``, below ``root``."""
    columns: ColumnsConfig = ColumnsConfig()
    """Column names of source ``csv``."""
    labels: tuple[str, ...] = OBSERVATIONS
    """Labels to learn, by the name of their column."""
    views: Literal["all", "frontal"] = "all"
    """Which views to use."""
    image_size: int = Field(64, ge=16, le=2048)
    """Side in pixels at which films are cached and given to the model."""
    channels: Literal[1, 3] = 1
    """Channels of the cache: 1 (grey, right for X-rays) or 3."""
    cache_dir: Path | None = None
    """Folder of the decoded films; default ``$NS_CACHE`` or ``~/.cache/noisy_student``."""
    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Largest share of unreadable films that is put in quarantine before the build is an error."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """Size of the synthetic data set."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.labels:
            raise ValueError("labels: name at least one label")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a label is named twice")
        if self.source != "synthetic" and self.root is None:
            raise ValueError(f"root: source '{self.source}' needs the folder of the data set; set data.root")
        return self


class SplitConfig(Section):
    """The scarce labelled set, the pool and the validation set; always by whole patients."""

    seed: int = Field(0, ge=0)
    """Seed of the draw of labelled patients."""
    labelled_patients: int | None = Field(None, ge=1)
    """Number of labelled patients. Give one of the three; with none of them it is 100."""
    labelled_images: int | None = Field(None, ge=1)
    """Number of labelled films: whole patients, the last patient's surplus films are left out of everything."""
    labelled_fraction: float | None = Field(None, gt=0, le=1)
    """Share of train patients that is labelled; 1 labels them all."""
    validation: Literal["official", "carve"] = "official"
    """``official``: the data set's validation split. ``carve``: as many patients as are labelled, taken from train;
    the official validation split then serves as the test set where the data set has no test split."""
    valid_images: int | None = Field(None, ge=1)
    """Cut validation to this many films (whole patients, surplus left out); ``null`` keeps all."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Train, valid and test shares of patients for a table without a split column."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        keys = ("labelled_patients", "labelled_images", "labelled_fraction")
        if isinstance(values, dict) and all(values.get(key) is None for key in keys):
            return values | {"labelled_patients": 100}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [self.labelled_patients, self.labelled_images, self.labelled_fraction]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give only one of labelled_patients, labelled_images, labelled_fraction")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError("fractions: three shares that sum to 1")
        return self
