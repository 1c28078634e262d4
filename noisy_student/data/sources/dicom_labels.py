"""Labels of DICOM films from a table, joined by file, instance or study; identifiers in the table are never said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.config import DataConfig
from noisy_student.data.sources import cells
from noisy_student.errors import DataError

Rows = npt.NDArray[np.int64]

_AMBIGUOUS: Final = -2
_log = logging.getLogger(__name__)


def join(
    path: Path, names: Sequence[str], config: DataConfig, hashed: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """Return the columns of the manifest that a table adds to N films: labels, ``labelled``, split, sex, age and site.

    Split, sex, age and site are read where the table has the columns of ``data.columns``. A film that no row is about
    carries no labels; a row that no film belongs to is passed over and counted in a warning.

    Args:
        path: the table.
        names: what the table knows each film by (N,): its path, or the hash of its instance or study.
        config: the settings.
        hashed: turns the table's cells into such hashes; ``None`` where they name files.

    Raises:
        DataError: a column is missing, two rows are about the same film, a file name fits several films, no row fits
            any, or a cell has a value that is not known.
    """
    table, columns = cells.read_table(path), config.columns
    keys = cells.required(table, path, config.dicom.column, "data.dicom.column")
    rows = _by_file(path, keys, names) if hashed is None else _by_hash(path, keys.map(hashed), names)
    unused = len(table) - len(set(rows[rows >= 0].tolist()))
    if unused == len(table):
        raise DataError(
            f"{path}: no row of column '{config.dicom.column}' fits a film (data.dicom.join is {config.dicom.join})",
            "Set data.dicom.join and data.dicom.column to how the table names films.",
        )
    if unused:
        _log.warning("%s: %d of %d rows fit no film", path, unused, len(table))
    found: dict[str, Any] = {
        label: _taken(value, rows, np.nan).astype(np.float32)
        for label, value in cells.label_columns(table, path, config.labels).items()
    }
    more: dict[str, Any] = {"labelled": cells.known(found)}
    for key, name, known in (("split", columns.split, cells.SPLITS), ("sex", columns.sex, cells.SEXES)):
        if name is not None and (name in table.columns or key == "sex"):
            texts = cells.required(table, path, name, f"data.columns.{key}", blank=True)
            more[key] = _taken(cells.mapped(texts, known, path, name), rows, "")
    if columns.age is not None:
        texts = cells.required(table, path, columns.age, "data.columns.age", blank=True)
        more["age"] = _taken(cells.ages(texts, path, columns.age), rows, np.nan)
    if columns.site is not None:
        texts = cells.required(table, path, columns.site, "data.columns.site", blank=True)
        more["site"] = _taken(texts.to_numpy(dtype=object), rows, "")
    return {**found, **more}


def _taken(values: npt.NDArray[Any], rows: Rows, otherwise: Any) -> npt.NDArray[Any]:
    """Return the value of each film's row (N,), ``otherwise`` for a film without one."""
    return np.where(rows >= 0, values[np.maximum(rows, 0)], otherwise)


def _by_file(path: Path, keys: pd.Series[str], names: Sequence[str]) -> Rows:
    """Return the row of each film (N,), -1 without one; a cell is a path or a name, with or without the ending."""
    # A whole path is worth more than a name, and a name more than one without its ending.
    levels: tuple[dict[str, int], ...] = ({}, {}, {}, {})
    for film, name in enumerate(names):
        whole = PurePosixPath(name)
        for level, way in zip(levels, (name, str(whole.with_suffix("")), whole.name, whole.stem), strict=True):
            level[way] = _AMBIGUOUS if way in level else film
    rows = np.full(len(names), -1, dtype=np.int64)
    for row, key in enumerate(keys):
        asked = key.replace("\\", "/").removeprefix("./")
        film = next((level[asked] for level in levels if asked in level), -1)
        if film == _AMBIGUOUS:
            raise DataError(
                f"{_place(path, row)}: column '{keys.name}' fits more than one film",
                "Write the path below data.root in place of the name.",
            )
        if film >= 0 and rows[film] >= 0:
            raise _double(path, int(rows[film]), row)
        if film >= 0:
            rows[film] = row
    return rows


def _by_hash(path: Path, keys: pd.Series[str], names: Sequence[str]) -> Rows:
    """Return the row of each film (N,), -1 without one."""
    row_of: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key in row_of:
            raise _double(path, row_of[key], row)
        row_of[key] = row
    return np.asarray([row_of.get(name, -1) for name in names], dtype=np.int64)


def _double(path: Path, first: int, second: int) -> DataError:
    other = _place(path, second).removeprefix(f"{path}, ")
    return DataError(
        f"{_place(path, first)} and {other}: are about the same films", "Keep one row, or correct data.dicom.join."
    )


def _place(path: Path, row: int) -> str:
    return cells.place(path, np.arange(row + 1) == row)
