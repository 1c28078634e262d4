"""PadChest (Bustos et al. 2020): labels as the text of a list, many projections, some damaged films -> manifest."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import cells
from noisy_student.data.sources.files import locate
from noisy_student.errors import DataError
from noisy_student.labels import PADCHEST, canonical

TABLES: Final = (
    "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
)  # fmt: skip
"""The official table, unpacked or not."""

SILENT: Final = {"", "unchanged", "exclude", "suboptimal study"}
"""Terms that say nothing of what the film shows; a report of nothing else leaves every label unknown."""

_COLUMNS: Final = (
    "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM", "Projection",
    "Labels",
)  # fmt: skip
_PROJECTIONS: Final = {
    "": ("", ""), "pa": ("frontal", "PA"), "ap": ("frontal", "AP"), "ap_horizontal": ("frontal", "AP"),
    "l": ("lateral", ""), "costal": ("", ""), "exclude": ("", ""), "unk": ("", ""),
}  # fmt: skip

KNOWN_BAD: Final = frozenset(
    (
        "216840111366964012819207061112010307142602253_04-014-084.png",
        "216840111366964012989926673512011074122523403_00-163-058.png",
        "216840111366964012959786098432011033083840143_00-176-115.png",
        "216840111366964012558082906712009327122220177_00-102-064.png",
        "216840111366964012339356563862009072111404053_00-043-192.png",
        "216840111366964013076187734852011291090445391_00-196-188.png",
        "216840111366964012373310883942009117084022290_00-064-025.png",
        "216840111366964012283393834152009033102258826_00-059-087.png",
        "216840111366964012373310883942009170084120009_00-097-074.png",
        "216840111366964012819207061112010315104455352_04-024-184.png",
        "216840111366964012819207061112010306085429121_04-020-102.png",
        "216840111366964012989926673512011083134050913_00-168-009.png",
        "216840111366964012373310883942009152114636712_00-102-045.png",
        "216840111366964012819207061112010281134410801_00-129-131.png",
        "216840111366964012487858717522009280135853083_00-075-001.png",
        "216840111366964012989926673512011151082430686_00-157-045.png",
        "216840111366964013686042548532013208193054515_02-026-007.png",
        "216840111366964013590140476722013058110301622_02-056-111.png",
        "216840111366964013590140476722013043111952381_02-065-198.png",
        "216840111366964013829543166512013353113303615_02-092-190.png",
        "216840111366964013962490064942014134093945580_01-178-104.png",
    )
)
"""Films of the official archive that are missing or damaged; they are left out."""


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the table that is read."""
    if config.csv:
        return [root / config.csv]
    return [next((root / name for name in TABLES if (root / name).is_file()), root / TABLES[0])]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:
    """Return the films of the table without those of :data:`KNOWN_BAD`.

    A term that a report does not list is 0. A label is one of ours (:data:`noisy_student.labels.PADCHEST` says which
    terms make it positive) or a term by its own name. The age is the year of the study less the year of birth.

    Raises:
        DataError: a table or column is missing, a label is not a term of the table, or a cell cannot be read.
    """
    (path,) = tables(root, config)
    table = cells.read_table(path, _COLUMNS)
    names = cells.required(table, path, "ImageID", "data.csv")
    patients = cells.required(table, path, "PatientID", "data.csv")
    texts = cells.required(table, path, "Labels", "data.csv", blank=True)
    found, silent = _labels(texts, path, config.labels)
    view = {word: place for word, (place, _) in _PROJECTIONS.items()}
    side = {word: projection for word, (_, projection) in _PROJECTIONS.items()}
    columns: dict[str, Any] = {"image": _films(root, table, names, images), "patient": patients, "labelled": ~silent}
    # One study identifier of the official table belongs to two patients, so both name a study here.
    columns["study"] = patients + "/" + (table["StudyID"].str.strip() if "StudyID" in table.columns else names)
    if "Projection" in table.columns:
        columns["view"] = cells.mapped(table["Projection"], view, path, "Projection")
        columns["projection"] = cells.mapped(table["Projection"], side, path, "Projection")
    if "PatientSex_DICOM" in table.columns:
        columns["sex"] = cells.mapped(table["PatientSex_DICOM"], cells.SEXES, path, "PatientSex_DICOM")
    if "StudyDate_DICOM" in table.columns:
        columns["date"] = cells.dates(table["StudyDate_DICOM"], path, "StudyDate_DICOM")
        if "PatientBirth" in table.columns:
            columns["age"] = _ages(table["PatientBirth"], columns["date"])
    films = manifests.build({**columns, **found}, config.labels)
    return manifests.rows(films, ~names.isin(KNOWN_BAD).to_numpy(dtype=bool))


def _films(root: Path, table: pd.DataFrame, names: pd.Series[str], images: bool) -> pd.Series[str]:
    """Return where the films are: all in one folder, or in folders with the number of ``ImageDir``."""
    official = table["ImageDir"].str.strip() + "/" + names if "ImageDir" in table.columns else names
    return locate(root, names, (".", "images", "[0-9]*", "images/[0-9]*"), official) if images else official


def _labels(
    texts: pd.Series[str], path: Path, labels: tuple[str, ...]
) -> tuple[dict[str, np.typing.NDArray[np.float32]], np.typing.NDArray[np.bool_]]:
    """Return the labels, NaN where the report is silent, and where (N,) it is."""
    codes, sets = cells.parse_sets(texts, path, _parse)
    silent = np.asarray([terms <= SILENT for terms in sets], dtype=bool)[codes]
    by_lower = {term.lower(): term for terms in sets for term in terms}
    found = {}
    for label in labels:
        terms = PADCHEST.get(canonical(label), (label.strip(),))
        if canonical(label) not in PADCHEST and label.strip().lower() not in by_lower:
            raise DataError(
                f"{path}: no report lists '{label}'",
                f"Choose data.labels from {', '.join(PADCHEST)}, or a term of the column 'Labels'.",
            )
        value = cells.listed(codes, sets, [by_lower.get(term.lower(), term) for term in terms])
        found[label] = np.where(silent, np.float32(np.nan), value)
    return found, silent


def _parse(word: str) -> set[str]:
    """Return the terms of a cell such as ``['pneumonia', ' pleural effusion']``; none for a blank one."""
    if word.lower() in ("", "nan"):
        return set()
    terms = ast.literal_eval(word)
    if not isinstance(terms, list):
        raise ValueError(f"{word} is not a list")
    return {str(term).strip() for term in terms}


def _ages(birth: pd.Series[str], date: np.typing.NDArray[np.object_]) -> np.typing.NDArray[np.float64]:
    """Return years between birth and study, NaN where one is unknown or the difference is no age."""
    born, _ = cells.numbers(birth)
    year, _ = cells.numbers(pd.Series(date, dtype="str").str[:4])
    age = year - born
    return np.where((age >= 0) & (age <= 150), age, np.nan)
