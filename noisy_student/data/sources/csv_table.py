"""Any CSV or Parquet table with a row per film -> manifest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from noisy_student.config import ColumnsConfig, DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import cells
from noisy_student.errors import DataError

_SPLIT: Final = ColumnsConfig().split
_VIEWS: Final = {
    "": ("", ""),
    "frontal": ("frontal", ""),
    "ap": ("frontal", "AP"),
    "pa": ("frontal", "PA"),
    "lateral": ("lateral", ""),
    "ll": ("lateral", ""),
    "rl": ("lateral", ""),
}
_PROJECTIONS: Final = {"": "", "nan": "", "ap": "AP", "pa": "PA", "ll": "LL", "rl": "RL"}


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the table that is read."""
    assert config.csv is not None, "the configuration gives this source a name"
    return [root / config.csv]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:  # noqa: ARG001 - the table says where films are
    """Return the films of the table with the columns that ``config.columns`` names.

    Without a split column, and where its cell is blank, the split stays empty for
    :func:`noisy_student.data.splits.assign`; a table may do without the column of the default name. A film whose
    labels are all blank carries none: its ``labelled`` flag is false, so it can only be part of the pool.

    Raises:
        DataError: the table or a column is missing, or a cell has a value that is not known.
    """
    (path,) = tables(root, config)
    table, names = cells.read_table(path), config.columns
    films = cells.required(table, path, names.image, "data.columns.image")
    patients = cells.required(table, path, names.patient, "data.columns.patient")
    if names.study is None:
        studies = patients + "/" + films
    else:
        studies = patients + "/" + cells.required(table, path, names.study, "data.columns.study")
    columns: dict[str, Any] = {"image": films, "patient": patients, "study": studies}

    def optional(key: str, name: str) -> Any:
        return cells.required(table, path, name, f"data.columns.{key}", blank=True)

    if names.split is not None and (names.split != _SPLIT or _means_split(table.columns)):
        columns["split"] = cells.mapped(optional("split", names.split), cells.SPLITS, path, names.split)
    if names.view is not None:
        texts = optional("view", names.view)
        columns["view"] = cells.mapped(texts, {word: view for word, (view, _) in _VIEWS.items()}, path, names.view)
        columns["projection"] = cells.mapped(
            texts, {word: side for word, (_, side) in _VIEWS.items()}, path, names.view
        )
    elif config.views == "frontal":
        raise DataError(
            f"{path}: data.views is 'frontal', and no column says which films are",
            "Set data.columns.view, or data.views: all.",
        )
    if names.projection is not None:
        texts = optional("projection", names.projection)
        columns["projection"] = cells.mapped(texts, _PROJECTIONS, path, names.projection)
    if names.sex is not None:
        columns["sex"] = cells.mapped(optional("sex", names.sex), cells.SEXES, path, names.sex)
    if names.age is not None:
        columns["age"] = cells.ages(optional("age", names.age), path, names.age)
    if names.site is not None:
        columns["site"] = optional("site", names.site)
    if names.date is not None:
        columns["date"] = cells.dates(optional("date", names.date), path, names.date)
    found = cells.label_columns(table, path, config.labels)
    return manifests.build({**columns, **found, "labelled": cells.known(found)}, config.labels)


def _means_split(columns: Iterable[str]) -> bool:
    """Return whether a column has the default name, or only differs in case or blanks: then it must not be ignored."""
    return any(column.strip().lower() == _SPLIT for column in columns)
