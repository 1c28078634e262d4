"""NIH ChestX-ray14 (Wang et al. 2017): its table and lists -> manifest.

The films lie in ``images_001/images`` ... ``images_012/images`` as unpacked, or all in one folder. The header of the
table has commas inside two names, so its last columns are misnamed by any CSV reader; none of them is used.
"""

from __future__ import annotations

import logging
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
from noisy_student.labels import NIH, SPELLINGS, UNIONS, canonical

TABLE: Final = "Data_Entry_2017_v2020.csv"
"""The official table."""
LISTS: Final = {
    "train_val_list.txt": "train", "train_list.txt": "train", "val_list.txt": "valid", "test_list.txt": "test",
}  # fmt: skip
"""Lists of film names that make the split: the two official ones, or three."""

_log = logging.getLogger(__name__)
_FOLDERS: Final = ("images_*/images", "images_*", "images", ".")


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the table that is read."""
    return [root / (config.csv or TABLE)]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:
    """Return the films of the table; the lists beside it, where there are any, make the split.

    A finding that a film does not list is 0: the labels of this set know no blank. ``Lung Lesion`` is Nodule or Mass.

    Raises:
        DataError: a table or column is missing, a finding or cell is not known, a list cannot be read, or a film is
            in no list or in two.
    """
    (path,) = tables(root, config)
    table = cells.read_table(path)
    names = cells.required(table, path, "Image Index", "data.csv")
    patients = cells.required(table, path, "Patient ID", "data.csv")
    texts = cells.required(table, path, "Finding Labels", "data.csv")
    codes, sets = cells.parse_sets(texts, path, lambda word: {canonical(name) for name in word.split("|")})
    known = {*NIH, "No Finding"}
    unknown = np.asarray([not findings <= known for findings in sets], dtype=bool)[codes]
    if unknown.any():
        raise DataError(
            f"{cells.place(path, unknown)}: 'Finding Labels' is '{texts[unknown].iloc[0]}'",
            f"Findings of this set are {', '.join(SPELLINGS['nih'].values())}.",
        )
    found = {label: cells.listed(codes, sets, _findings(label)) for label in config.labels}
    columns: dict[str, Any] = {
        "image": locate(root, names, _FOLDERS, "images/" + names) if images else "images/" + names,
        "patient": patients,
        "study": patients + "/" + names.str.replace(r"\.\w+$", "", regex=True),
        "view": "frontal",
        "labelled": True,
        "split": _splits(path.parent, names),
    }
    for name in ("Patient Gender", "Patient Sex"):
        if name in table.columns:
            columns["sex"] = cells.mapped(table[name], cells.SEXES, path, name)
    if "View Position" in table.columns:
        sides = {"": "", "ap": "AP", "pa": "PA"}
        columns["projection"] = cells.mapped(table["View Position"], sides, path, "View Position")
    if "Patient Age" in table.columns:
        columns["age"] = cells.ages(_years(table["Patient Age"], path), path, "Patient Age")
    return manifests.build({**columns, **found}, config.labels)


def _years(texts: pd.Series[str], path: Path) -> pd.Series[str]:
    """Return the ages, those of the first release above 150 as unknown: they are errors of the table."""
    texts = texts.str.strip().str.replace(r"^(\d{3})Y$", r"\1", regex=True)
    wrong = pd.to_numeric(texts, errors="coerce") > cells.OLDEST
    if wrong.any():
        _log.warning("%s: %d ages above %d are taken as unknown", path, int(wrong.sum()), cells.OLDEST)
    return texts.mask(wrong, "")


def _findings(label: str) -> tuple[str, ...]:
    """Return the findings of the set, by our names, that make a label positive."""
    name = canonical(label)
    if name not in SPELLINGS["nih"] and name not in UNIONS:
        raise DataError(
            f"data.labels: '{label}' is not a finding of NIH ChestX-ray14",
            f"Choose from {', '.join((*SPELLINGS['nih'], *UNIONS))}.",
        )
    return UNIONS.get(name, (name,))


def _splits(folder: Path, names: pd.Series[str]) -> Any:
    """Return the split of each film, all empty where there are no lists."""
    split = pd.Series("", index=names.index, dtype="str")
    there = {folder / name: part for name, part in LISTS.items() if (folder / name).is_file()}
    for path, part in there.items():
        try:
            members = names.isin(set(path.read_text(encoding="utf-8-sig").split()))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not a list of names in UTF-8 ({error})", "Take the list again.") from error
        twice = (members & (split != "") & (split != part)).to_numpy(dtype=bool)
        if twice.any():
            raise DataError(
                f"{path}: lists '{names[twice].iloc[0]}', which is in another list too ({int(twice.sum())} such films)",
                "Keep the official lists, or your own, but not both.",
            )
        split = split.mask(members, part)
    left = (split == "").to_numpy(dtype=bool)
    if there and left.any():
        raise DataError(
            f"{folder}: '{names[left].iloc[0]}' is in none of {', '.join(path.name for path in there)} "
            f"({int(left.sum())} such films)",
            "Complete the lists, remove the rows, or remove all lists to split by split.fractions.",
        )
    return split
