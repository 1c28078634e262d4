"""CheXpert (Irvin et al. 2019) and sets in its layout -> manifest.

``train.csv``, ``valid.csv`` and, where there is one, a test table lie in the root. Columns are matched by name, the
part of a path before ``train/``, ``valid/`` or ``test/`` is dropped, so the full set, the small one and the mirrors
without a root folder read alike. A row of a test table may stand for a study: it is joined to the study's films.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources.csv_table import Texts, ages, label_columns, line, mapped, missing_column, read_table
from noisy_student.errors import DataError

TEST_TABLES: Final = ("test.csv", "test_labels.csv", "groundtruth.csv")
"""Names of the test table, in the order in which they are looked for."""

_STUDY: Final = r"^(?:.*/)?(?P<folder>(?:train|valid|test)/(?P<patient>patient\d{5,})/(?P<study>study\d+))"
_FILM: Final = _STUDY + r"/(?P<file>view\d+_(?P<view>frontal|lateral)\.(?:jpg|jpeg|png))$"
_FILE: Final = r"^view\d+_(?:frontal|lateral)\.(?:jpg|jpeg|png)$"
_SEXES: Final = {"": "", "unknown": "", "male": "M", "female": "F", "m": "M", "f": "F"}
_PROJECTIONS: Final = {"": "", "ap": "AP", "pa": "PA", "ll": "", "rl": ""}


def load(root: Path, config: DataConfig) -> Manifest:
    """Return the films of the tables in ``root``, train first, then valid, then test.

    Sex, age and projection are unknown where a table lacks their columns.

    Raises:
        DataError: a table or column is missing, a path is not of CheXpert's form, a cell has an unknown value, or a
            study of the test table has no films.
    """
    tables = {"train": root / "train.csv", "valid": root / "valid.csv"}
    test = _test_table(root, config.labels)
    if test is not None:
        tables["test"] = test
    parts = [_load_table(root, path, split, config.labels) for split, path in tables.items()]
    frame = pd.concat([part.frame for part in parts], ignore_index=True)
    return Manifest(frame, config.labels)


def _test_table(root: Path, labels: tuple[str, ...]) -> Path | None:
    """Return the first test table that has all labels, else the first there is, else None."""
    there = [root / name for name in TEST_TABLES if (root / name).is_file()]
    for path in there:
        try:
            label_columns(read_table(path).iloc[:0], path, labels)
        except DataError:
            continue
        return path
    return there[0] if there else None


def _load_table(root: Path, path: Path, split: str, labels: tuple[str, ...]) -> Manifest:
    if not path.is_file():
        raise DataError(
            f"{path}: is missing", "Set data.root to the folder that holds train.csv and valid.csv of CheXpert."
        )
    table = read_table(path)
    named = {column.strip().lower().replace("_", " "): column for column in table.columns}
    if "path" not in named:
        raise missing_column(path, "Path", table.columns, "data.source")
    found = label_columns(table, path, labels)
    paths = table[named["path"]]
    parts = paths.str.extract(_FILM)
    films = parts["file"].notna().to_numpy()
    source = np.arange(len(table))  # the row of the table that each film takes its labels from
    if split == "test" and not films.all():
        parts, source = _join_films(root, path, paths, parts, films)
    elif not films.all():
        raise _no_match(path, ~films)
    columns: dict[str, object] = {
        "image": (parts["folder"] + "/" + parts["file"]).to_numpy(dtype=object),
        "patient": parts["patient"].to_numpy(dtype=object),
        "study": (parts["patient"] + "/" + parts["study"]).to_numpy(dtype=object),
        "view": parts["view"].to_numpy(dtype=object),
        "split": split,
        "labelled": True,
    }
    if "sex" in named:
        columns["sex"] = mapped(_texts(table, named["sex"]), _SEXES, path, named["sex"])[source]
    if "ap/pa" in named:
        columns["projection"] = mapped(_texts(table, named["ap/pa"]), _PROJECTIONS, path, named["ap/pa"])[source]
    if "age" in named:
        columns["age"] = ages(_texts(table, named["age"]), path, named["age"])[source]
    return manifests.build({**columns, **{label: value[source] for label, value in found.items()}}, labels)


def _texts(table: pd.DataFrame, column: str) -> Texts:
    return table[column].str.strip().to_numpy(dtype=object)


def _no_match(path: Path, wrong: np.typing.NDArray[np.bool_]) -> DataError:
    # The path itself would put a patient's identifier into the message; the line finds it.
    return DataError(
        f"{path}, line {line(wrong)}: Path is not of the form .../patient00001/study1/view1_frontal.jpg below "
        f"train/, valid/ or test/ ({int(wrong.sum())} such rows)",
        "Correct the rows, or use data.source: csv for a table of another form.",
    )


def _join_films(
    root: Path, path: Path, paths: pd.Series[str], parts: pd.DataFrame, films: np.typing.NDArray[np.bool_]
) -> tuple[pd.DataFrame, np.typing.NDArray[np.int64]]:
    """Return the parts of every film of the table and its row; rows that name a study give each film in its folder."""
    studies = paths.str.extract(_STUDY + "/?$")
    wrong = ~films & studies["folder"].isna().to_numpy()
    if wrong.any():
        raise _no_match(path, wrong)
    source: list[int] = []
    records: list[dict[str, str]] = []
    for row, is_film in enumerate(films):
        if is_film:
            found = [parts.iloc[row].to_dict()]
        else:
            study = studies.iloc[row].to_dict()
            names = _films_in(root / str(study["folder"]), path, row)
            found = [{**study, "file": name, "view": name.split("_")[1].split(".")[0]} for name in names]
        records += [{str(key): str(value) for key, value in record.items()} for record in found]
        source += [row] * len(found)
    return pd.DataFrame.from_records(records), np.asarray(source, dtype=np.int64)


def _films_in(folder: Path, path: Path, row: int) -> list[str]:
    names = pd.Series(sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else [], dtype="str")
    films = list(names[names.str.match(_FILE)])
    if not films:
        raise DataError(
            f"{path}, line {row + 2}: the study's folder has no films (view*_frontal.jpg, view*_lateral.jpg)",
            "Unpack the test films below data.root, or remove the row.",
        )
    return films
