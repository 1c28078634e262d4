"""CheXpert Plus (Chambon et al. 2024): its table and its label files -> manifest.

The table has a row per film and no labels; those are in files of one JSON object per line, made by CheXbert from the
impression, the findings or the whole report. The table writes ``.jpg`` where the PNG archive has ``.png``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import json as arrow_json

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import cells
from noisy_student.data.sources.chexpert import PROJECTIONS, split_paths
from noisy_student.errors import DataError

TABLE: Final = "df_chexpert_plus_240401.csv"
"""The official table."""
LABELS: Final = "chexbert_labels/impression_fixed.json"
"""The label file that is read where ``data.label_file`` names no other. CheXpert's own labels come from the
impression too; those of the whole report also count what is only in the patient's history."""

_COLUMNS: Final = ("path_to_image", "ap_pa", "age", "sex", "split")
_PLACES: Final = ("", "PNG/", "PNG/PNG/")


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the table and the label file."""
    return [root / (config.csv or TABLE), root / (config.label_file or LABELS)]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:
    """Return the films of the table with the labels of the label file; a film that it lacks carries no labels.

    Raises:
        DataError: a file or column is missing, a path is not of CheXpert's form, or a cell has an unknown value.
    """
    path, label_path = tables(root, config)
    table = cells.read_table(path, _COLUMNS)
    names = cells.required(table, path, "path_to_image", "data.csv")
    parts = split_paths(names)
    wrong = parts["file"].isna().to_numpy()
    if wrong.any():
        raise DataError(
            f"{cells.place(path, wrong)}: path_to_image is not of the form "
            f"train/patient00001/study1/view1_frontal.jpg ({int(wrong.sum())} such rows)",
            "Correct the rows or remove them.",
        )
    found, labelled = _labels(label_path, names, config.labels)
    columns: dict[str, Any] = {name: parts[name] for name in ("patient", "study", "view", "split")}
    columns |= {"image": _unpacked(root, parts["image"]) if images else parts["image"]}
    if "split" in table.columns:
        columns["split"] = cells.mapped(table["split"], cells.SPLITS, path, "split")
    if "sex" in table.columns:
        columns["sex"] = cells.mapped(table["sex"], cells.SEXES, path, "sex")
    if "ap_pa" in table.columns:
        columns["projection"] = cells.mapped(table["ap_pa"], PROJECTIONS, path, "ap_pa")
    if "age" in table.columns:
        columns["age"] = cells.ages(table["age"], path, "age")
    return manifests.build({**columns, **found, "labelled": labelled}, config.labels)


def _labels(
    path: Path, films: pd.Series[str], labels: tuple[str, ...]
) -> tuple[dict[str, np.typing.NDArray[np.float32]], np.typing.NDArray[np.bool_]]:
    """Return the labels of the films, NaN for a film that the file lacks, and whether it has the film (N,)."""
    try:
        lines = arrow_json.read_json(path).to_pandas()
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing", "Unpack chexbert_labels, or set data.label_file.") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(
            f"{path}: is not a file of one JSON object per line ({error})", "Take it from the data set again."
        ) from error
    if "path_to_image" not in lines.columns:
        raise cells.missing_column(path, "path_to_image", lines.columns, "data.label_file")
    wanted = cells.label_names(lines.columns, path, labels).values()
    table = pd.DataFrame({name: _plain(lines[name]) for name in ("path_to_image", *wanted)})
    known = cells.label_columns(table, path, labels, cells.row_place)
    first = np.flatnonzero(~table["path_to_image"].duplicated())
    found = pd.Index(table["path_to_image"].iloc[first]).get_indexer(films)
    row = np.where(found >= 0, first[found], -1)
    return {label: np.where(row >= 0, value[row], np.float32(np.nan)) for label, value in known.items()}, row >= 0


def _plain(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return numbers as they are, and the texts of anything else that JSON has; blank for null."""
    if column.dtype != object:
        return column
    return column.map(lambda value: "" if value is None else str(value))


def _unpacked(root: Path, images: pd.Series[str]) -> pd.Series[str]:
    """Return the paths as the archive was unpacked: below ``PNG/`` or not, with ``.png`` for ``.jpg`` or not.

    Some of its parts may be there alone, so a film is looked for whose patient has a folder.
    """
    bare = images.str.replace(r"\.[a-z]+$", "", regex=True)
    owner = bare.str.extract(r"^([^/]+/[^/]+)/")[0]
    for place in _PLACES:
        folders = (root / place / split for split in owner.str.partition("/")[0].unique())
        there = {f"{folder.name}/{entry.name}" for folder in folders if folder.is_dir() for entry in os.scandir(folder)}
        for sample in bare[owner.isin(there)]:
            for ending in (".jpg", ".png"):
                if (root / f"{place}{sample}{ending}").is_file():
                    return place + bare + ending
    return images
