"""MIMIC-CXR-JPG (Johnson et al. 2019): three tables, joined -> manifest.

A film lies at ``files/p<first 2 of subject_id>/p<subject_id>/s<study_id>/<dicom_id>.jpg``. Labels are per study.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import cells
from noisy_student.errors import DataError

KINDS: Final = ("metadata", "split", "chexpert")
"""The three tables, ``mimic-cxr-<version>-<kind>.csv.gz`` or unpacked; ``data.csv`` may name another label table."""

_VIEWS: Final = {"ap": "frontal", "pa": "frontal", "lateral": "lateral", "ll": "lateral"}


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the three tables; the official name where one is not there."""
    found = []
    for kind in KINDS:
        there = sorted(root.glob(f"mimic-cxr-*-{kind}.csv*"))
        found.append(there[0] if there else root / f"mimic-cxr-2.0.0-{kind}.csv.gz")
    # Naming one of the two other tables only says where the set is.
    if config.csv and root / config.csv not in found[:2]:
        found[2] = root / config.csv
    return found


def load(root: Path, config: DataConfig, images: bool) -> Manifest:  # noqa: ARG001 - the rule says where films are
    """Return the films of the metadata table with their official split and their study's labels.

    A study without a row in the label table carries no labels; blanks of one that has a row mean what ``targets.blank``
    says. A view position other than AP, PA, LATERAL and LL is neither frontal nor lateral. Dates are shifted for each
    patient, so they only order the films of one patient.

    Raises:
        DataError: a table or column is missing, a film has no split, or a cell has an unknown value.
    """
    path, split_path, label_path = tables(root, config)
    films = cells.read_table(path, ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate"))
    dicom, subject, study = (
        cells.required(films, path, name, "data.source") for name in ("dicom_id", "subject_id", "study_id")
    )
    found, labelled = _labels(label_path, study, config.labels)
    view = cells.required(films, path, "ViewPosition", "data.source", blank=True).str.lower()
    columns: dict[str, Any] = {
        "image": "files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + dicom + ".jpg",
        "patient": subject,
        "study": subject + "/s" + study,
        "view": view.map(_VIEWS).fillna(""),
        "projection": view.str.upper().where(view.isin(["ap", "pa", "ll"]), ""),
        "split": _split(split_path, dicom),
    }
    if "StudyDate" in films.columns:
        columns["date"] = cells.dates(films["StudyDate"], path, "StudyDate")
    return manifests.build({**columns, **found, "labelled": labelled}, config.labels)


def _split(path: Path, dicom: pd.Series[str]) -> Any:
    table = cells.read_table(path)
    names = cells.required(table, path, "dicom_id", "data.source")
    split = cells.mapped(cells.required(table, path, "split", "data.source"), cells.SPLITS, path, "split")
    row = _rows(path, names, dicom)
    if (row < 0).any():
        raise DataError(
            f"{path}: {int((row < 0).sum())} films of the metadata table have no split, such as "
            f"{dicom[row < 0].iloc[0]}",
            "Take the three tables from one version of the data set.",
        )
    return split[row]


def _labels(
    path: Path, study: pd.Series[str], labels: tuple[str, ...]
) -> tuple[dict[str, np.typing.NDArray[np.float32]], np.typing.NDArray[np.bool_]]:
    """Return the labels of each film's study, NaN where it has no row, and whether it has one (N,)."""
    table = cells.read_table(path)
    row = _rows(path, cells.required(table, path, "study_id", "data.csv"), study)
    found = cells.label_columns(table, path, labels)
    return {label: np.where(row >= 0, value[row], np.float32(np.nan)) for label, value in found.items()}, row >= 0


def _rows(path: Path, key: pd.Series[str], wanted: pd.Series[str]) -> np.typing.NDArray[np.intp]:
    """Return the row of ``key`` that has each wanted value (N,), -1 where none has."""
    double = key.duplicated().to_numpy(dtype=bool)
    if double.any():
        raise DataError(
            f"{cells.place(path, double)}: {key.name} {key[double].iloc[0]} is there twice",
            "Keep one row for each.",
        )
    return pd.Index(key).get_indexer(pd.Index(wanted))
