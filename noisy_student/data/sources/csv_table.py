"""Any CSV table with a row per film -> manifest; and the parsing of cells that the other readers share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError
from noisy_student.labels import canonical

Texts = npt.NDArray[np.object_]

_BLANK: Final = ("", "nan")
_SPLITS: Final = {"": "", "train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
_VIEWS: Final = {
    "": ("", ""),
    "frontal": ("frontal", ""),
    "ap": ("frontal", "AP"),
    "pa": ("frontal", "PA"),
    "lateral": ("lateral", ""),
    "ll": ("lateral", ""),
    "rl": ("lateral", ""),
}
_SEXES: Final = {"": "", "unknown": "", "f": "F", "female": "F", "m": "M", "male": "M"}


def load(root: Path, config: DataConfig) -> Manifest:
    """Return the films of ``root / config.csv`` with the columns that ``config.columns`` names.

    Without a split column, and where its cell is blank, the split stays empty for
    :func:`noisy_student.data.splits.assign`. A film whose labels are all blank carries none: its ``labelled`` flag is
    false, so it can only be part of the pool.

    Raises:
        DataError: the table or a column is missing, or a cell has a value that is not known.
    """
    path = root / config.csv
    table, names = read_table(path), config.columns
    images = required(table, path, names.image, "data.columns.image")
    patients = required(table, path, names.patient, "data.columns.patient")
    if names.study is None:
        studies = patients + "/" + images
    else:
        studies = patients + "/" + required(table, path, names.study, "data.columns.study")
    columns: dict[str, npt.ArrayLike] = {"image": images, "patient": patients, "study": studies}
    if names.split is not None:
        texts = required(table, path, names.split, "data.columns.split", blank=True)
        columns["split"] = mapped(texts, _SPLITS, path, names.split)
    if names.view is not None:
        texts = required(table, path, names.view, "data.columns.view", blank=True)
        columns["view"] = mapped(texts, {word: view for word, (view, _) in _VIEWS.items()}, path, names.view)
        columns["projection"] = mapped(texts, {word: side for word, (_, side) in _VIEWS.items()}, path, names.view)
    elif config.views == "frontal":
        raise DataError(
            f"{path}: data.views is 'frontal', and no column says which films are",
            "Set data.columns.view, or data.views: all.",
        )
    if names.sex is not None:
        texts = required(table, path, names.sex, "data.columns.sex", blank=True)
        columns["sex"] = mapped(texts, _SEXES, path, names.sex)
    if names.age is not None:
        columns["age"] = ages(required(table, path, names.age, "data.columns.age", blank=True), path, names.age)
    found = label_columns(table, path, config.labels)
    known = ~np.isnan(np.stack(list(found.values()), axis=1)).all(axis=1)
    return manifests.build({**columns, **found, "labelled": known}, config.labels)


# -- cells, shared by the readers ----------------------------------------------------------------------------------


def read_table(path: Path) -> pd.DataFrame:
    """Return the CSV file as text, blanks as empty strings.

    Raises:
        DataError: the file is missing, empty or not a CSV table.
    """
    try:
        # As text: numbers would lose the zeros in front of an identifier, and words like NA would turn into blanks.
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing", "Set data.root to the folder that holds this table.") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a CSV table ({error})", "Save it as UTF-8 CSV with a header row.") from error


def missing_column(path: Path, column: str, there: Iterable[str], key: str) -> DataError:
    """Return the error for a table without ``column``, which the configuration ``key`` asks for."""
    return DataError(
        f"{path}: has no column '{column}'; its columns are {', '.join(there)}",
        f"Set {key} to what the table has, or add the column.",
    )


def required(table: pd.DataFrame, path: Path, column: str, key: str, *, blank: bool = False) -> Texts:
    """Return the stripped texts of a column, shape (N,).

    Raises:
        DataError: the column is missing, or a cell is blank and may not be.
    """
    if column not in table.columns:
        raise missing_column(path, column, table.columns, key)
    texts = table[column].str.strip().to_numpy(dtype=object)
    empty = texts == ""
    if not blank and empty.any():
        raise DataError(
            f"{path}, line {line(empty)}: column '{column}' is blank ({int(empty.sum())} such rows)",
            "Fill the cells or remove the rows.",
        )
    return texts


def line(wrong: npt.NDArray[np.bool_]) -> int:
    """Return the line number in the file (the header is line 1) of the first row that is true."""
    return int(np.argmax(wrong)) + 2


def mapped(texts: Texts, known: dict[str, str], path: Path, column: str) -> Texts:
    """Return ``known[text]`` per cell, upper or lower case alike.

    Raises:
        DataError: a text is not known.
    """
    codes, words = pd.factorize(texts)
    found = [known.get(str(word).lower()) for word in words]
    wrong = np.isin(codes, [code for code, value in enumerate(found) if value is None])
    if wrong.any():
        raise DataError(
            f"{path}, line {line(wrong)}: column '{column}' is '{texts[wrong][0]}'",
            f"Known values are {', '.join(word for word in known if word)}, or blank.",
        )
    return np.asarray(found, dtype=object)[codes]


def numbers(texts: Texts) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the numbers of the cells (NaN for a blank), and where a cell is neither a number nor blank."""
    codes, words = pd.factorize(texts)  # few distinct words: parsing those is 30 times faster than every cell
    blank = np.asarray([str(word).strip().lower() in _BLANK for word in words], dtype=bool)
    parsed = np.asarray([_number(str(word)) for word in words], dtype=np.float64)
    return parsed[codes], (np.isnan(parsed) & ~blank)[codes]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def ages(texts: Texts, path: Path, column: str) -> npt.NDArray[np.float64]:
    """Return the ages in years, NaN where blank.

    Raises:
        DataError: a cell is not a number from 0 to 150.
    """
    years, wrong = numbers(texts)
    wrong |= (years < 0) | (years > 150)
    if wrong.any():
        raise DataError(
            f"{path}, line {line(wrong)}: column '{column}' is '{texts[wrong][0]}'", "An age is a number of years."
        )
    return years


def label_columns(table: pd.DataFrame, path: Path, labels: tuple[str, ...]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the values of each label, float32 (N,), NaN where blank; columns are matched by name and known aliases.

    Raises:
        DataError: a label has no column, or a cell is neither blank, -1, nor a number from 0 to 1.
    """
    by_name = {canonical(str(column)): str(column) for column in table.columns}
    found = {}
    for label in labels:
        column = label if label in table.columns else by_name.get(canonical(label))
        if column is None:
            raise missing_column(path, label, table.columns, "data.labels")
        texts = table[column].to_numpy(dtype=object)
        parsed, wrong = numbers(texts)
        wrong |= ~(np.isnan(parsed) | (parsed == -1) | ((parsed >= 0) & (parsed <= 1)))
        if wrong.any():
            raise DataError(
                f"{path}, line {line(wrong)}: column '{column}' is '{texts[wrong][0]}'",
                "A label is 1, 0, -1 (uncertain), blank (not mentioned), or a number from 0 to 1.",
            )
        found[label] = parsed.astype(np.float32)
    return found
