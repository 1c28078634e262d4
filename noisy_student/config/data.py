"""Settings of the data side: where films and labels come from, how they are split, cached and read."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from noisy_student.config.base import Section
from noisy_student.config.synthetic import SyntheticConfig
from noisy_student.labels import NIH, OBSERVATIONS, PADCHEST, VINDR, canonical

_LABELS: Final = {"nih": NIH, "vindr": VINDR, "padchest": tuple(PADCHEST)}


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
    """Column with frontal / lateral, or AP / PA."""
    projection: str | None = None
    """Column with AP / PA, where the view has a column of its own."""
    sex: str | None = None
    """Column with the patient's sex."""
    age: str | None = None
    """Column with the patient's age in years."""
    site: str | None = None
    """Column with the hospital or scanner, for ``split.sites``."""
    date: str | None = None
    """Column with the date (2017, 2017-05 or 2017-05-31), for ``split.dates``."""


class FoldersConfig(Section):
    """How source ``folders`` reads names of folders and files."""

    patient: str | None = None
    """Regular expression that finds the patient in a film's path below its class folder: its first group, or all that
    it matches. Without one every film counts as a patient of its own, and films of one patient may end up in two
    splits."""
    patient_per_class: bool = False
    """Patients of different class folders are different people, whatever their numbers."""
    test_apart: bool = False
    """Patients of the folder ``test`` are different people from the others, whatever their numbers."""
    separator: str | None = None
    """Splits the name of a class folder into several labels, as ``+`` does with ``Edema+Effusion``."""
    negative: tuple[str, ...] = ()
    """Class folders that mean none of the labels."""


class DicomConfig(Section):
    """How source ``dicom`` joins labels and hides patients."""

    join: Literal["file", "instance", "study"] = "file"
    """What a row of ``data.csv`` is about: a file (its path below ``data.root``, or its name, with or without the
    ending), an SOPInstanceUID, or a StudyInstanceUID, whose films then share the row."""
    column: str = "image"
    """Column of ``data.csv`` that names the file, instance or study."""
    key_file: Path | None = None
    """File with the secret that turns patients into hashes, at least 16 characters; ``null`` is ``$NS_PATIENT_KEY``,
    else ``patient.key`` beside the cache, which is made where it is not there."""


class DataConfig(Section):
    """Where films and labels are and how they are read."""

    source: Literal[
        "synthetic", "chexpert", "chexpert_plus", "nih", "mimic", "vindr", "padchest", "folders", "dicom", "csv"
    ] = "synthetic"
    """``synthetic`` (made on the spot), a public set in its official layout (``chexpert``, ``chexpert_plus``, ``nih``,
    ``mimic``, ``vindr``, ``padchest``), ``folders`` (one per class), ``dicom`` (a folder of DICOM files) or ``csv``
    (any CSV or Parquet table)."""
    root: Path | None = None
    """Folder of the data set; every path in its tables stays below it."""
    csv: str | None = None
    """Table, below ``root``; ``null`` is the official one of the data set, labels.csv for source ``csv``, and
    none for ``dicom``."""
    label_file: str | None = None
    """Label file of source ``chexpert_plus``, below ``root``; ``null`` is CheXbert on the impression."""
    columns: ColumnsConfig = ColumnsConfig()
    """Column names of source ``csv``."""
    folders: FoldersConfig = FoldersConfig()
    """Names of source ``folders``."""
    dicom: DicomConfig = DicomConfig()
    """Labels and patients of source ``dicom``."""
    readers: Literal["majority", "any", "mean"] = "majority"
    """What several readers of one film (VinDr-CXR) say together: most of them (-1 when they are equally divided), any
    one of them, or the share of them as a soft target."""
    labels: tuple[str, ...] = OBSERVATIONS
    """Labels to learn, by our names or those of the data set; without them, all findings of ``nih``, ``vindr`` and
    ``padchest``, and the 14 observations of CheXpert otherwise."""
    views: Literal["all", "frontal"] = "all"
    """Which views to use."""
    missing: Literal["error", "leave_out"] = "error"
    """What becomes of rows whose film is not there: a set that was fetched in part is used with ``leave_out``."""
    image_size: int = Field(64, ge=16, le=2048)
    """Side in pixels at which films are cached and given to the model."""
    channels: Literal[1, 3] = 1
    """Channels of the cache: 1 (grey, right for X-rays) or 3."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How a film becomes square: ``stretch`` all of it, ``pad`` the shorter side with black, or ``crop`` the centre."""
    window: tuple[float, float] | None = None
    """Percentiles, such as [0.5, 99.5], that become black and white on films of more than 8 bits; ``null`` is the full
    range of 16 bits, and the window of the header on DICOM."""
    cache_dir: Path | None = None
    """Folder of the decoded films; default ``$NS_CACHE`` or ``~/.cache/noisy_student``."""
    max_bad_share: float = Field(0.01, ge=0, le=1)
    """Largest share of unreadable films that is put in quarantine before the build is an error."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """Size of the synthetic data set."""

    @model_validator(mode="before")
    @classmethod
    def _own_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(source := values.get("source"), str):
            return values
        own: dict[str, Any] = {}
        if source in _LABELS and values.get("labels") is None:
            own["labels"] = _LABELS[source]
        if source == "csv" and values.get("csv") is None:
            own["csv"] = "labels.csv"
        return values | own

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.labels:
            raise ValueError("labels: name at least one label")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a label is named twice")
        ours: dict[str, str] = {}
        for label in self.labels:
            if (first := ours.setdefault(canonical(label), label)) != label:
                raise ValueError(f"labels: '{first}' and '{label}' are the same label")
        if self.source != "synthetic" and self.root is None:
            raise ValueError(f"root: source '{self.source}' needs the folder of the data set; set data.root")
        if self.source == "folders" and self.labels == OBSERVATIONS:
            raise ValueError("labels: source 'folders' needs the names of the class folders that are labels")
        if self.window is not None and not 0 <= self.window[0] < self.window[1] <= 100:
            raise ValueError("window: two percentiles from 0 to 100, the smaller one first")
        if self.label_file is not None and self.source != "chexpert_plus":
            raise ValueError(f"label_file: source '{self.source}' has none")
        return self


class SplitConfig(Section):
    """The scarce labelled set, the pool and the validation set; always by whole patients."""

    file: Path | None = None
    """A split written by ``ns data split``; the other keys of this section are then not used."""
    seed: int = Field(0, ge=0)
    """Seed of the draw of labelled patients."""
    labelled_patients: int | None = Field(None, ge=1)
    """Number of labelled patients. Give one of the three; with none of them it is 100."""
    labelled_images: int | None = Field(None, ge=1)
    """Number of labelled films: whole patients, the last patient's surplus films are left out of everything."""
    labelled_fraction: float | None = Field(None, gt=0, le=1)
    """Share of the train patients with labels whose labels are used; 1 uses them all. A film without any
    is of the pool."""
    stratify: bool = False
    """Draw so that every label, the rare ones first, has its share of patients in every budget. Looks at the labels of
    all train patients, so it is for experiments in which the pool's labels are known and hidden."""
    validation: Literal["official", "carve"] = "official"
    """``official``: the data set's validation split. ``carve``: patients taken from train; the official validation
    split then serves as the test set where the data set has no test split, and is left out where it has one."""
    carve_share: float | None = Field(None, gt=0, lt=1)
    """Share of the labelled patients that ``carve`` turns into validation, so that both together are the budget;
    ``null`` takes as many patients again from the rest of train."""
    valid_images: int | Literal["labelled"] | None = None
    """Cut validation to this many films, or to as many as are labelled (whole patients, surplus left out); ``null``
    keeps all."""
    pool_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the pool's patients that stays in it, the rest is left out: what fewer films without labels would do."""
    min_valid_images: int = Field(0, ge=0)
    """An official validation split with fewer films than this joins train, and validation is drawn anew by
    ``fractions`` (not at all where its share is 0, as before ``validation: carve``)."""
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    """Train, valid and test shares of patients for a table without a split column."""
    sites: dict[Literal["train", "valid", "test"], tuple[str, ...]] = Field({})
    """Sites of each split, in place of the data set's own; films of sites that are not named go to train, or nowhere
    where train is named. A patient with films in two splits stays in the later one (test before valid before train);
    the other films are left out."""
    dates: dict[Literal["valid", "test"], str] = Field({})
    """First date (2017, 2017-05 or 2017-05-31) of validation and test, in place of the data set's own splits; films
    before both are train. Patients with films in two are treated as under ``sites``."""

    @field_validator("dates", mode="before")
    @classmethod
    def _as_text(cls, values: Any) -> Any:
        # YAML reads 2017 as a number and 2017-05-31 as a date.
        if isinstance(values, dict):
            return {key: str(date) if isinstance(date, int | datetime.date) else date for key, date in values.items()}
        return values

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        keys = ("labelled_patients", "labelled_images", "labelled_fraction")
        if isinstance(values, dict) and all(values.get(key) is None for key in (*keys, "file")):
            return values | {"labelled_patients": 100}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [self.labelled_patients, self.labelled_images, self.labelled_fraction]
        if sum(value is not None for value in given) != 1 and self.file is None:
            raise ValueError("give only one of labelled_patients, labelled_images, labelled_fraction")
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError("fractions: three shares that sum to 1")
        if isinstance(self.valid_images, int) and self.valid_images < 1:
            raise ValueError("valid_images: at least 1, or 'labelled'")
        if self.carve_share is not None and self.validation != "carve":
            raise ValueError("carve_share: does nothing without validation: carve")
        self._check_keys()
        return self

    def _check_keys(self) -> None:
        """Check the splits by site or date."""
        if self.sites and self.dates:
            raise ValueError("give sites or dates, not both")
        named = [site for sites in self.sites.values() for site in sites]
        double = sorted({site for site in named if named.count(site) > 1})
        if double:
            raise ValueError(f"sites: '{double[0]}' is named twice")
        for split, date in self.dates.items():
            if not re.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?", date):
                raise ValueError(f"dates.{split}: '{date}' is not of the form 2017, 2017-05 or 2017-05-31")
        if len(self.dates) == 2 and self.dates["valid"] >= self.dates["test"]:
            raise ValueError("dates: validation has to begin before test")
