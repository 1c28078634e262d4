"""CheXpert (Irvin et al. 2019) and sets in its layout -> manifest.

``train.csv``, ``valid.csv`` and, where there is one, a test table lie in the root. Columns are matched by name, the
part of a path before ``train/``, ``valid/`` or ``test/`` is dropped, so the full set, the small one and the mirrors
without a root folder read alike. A row of a test table may stand for a study: it is joined to the study's films.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import cells
from noisy_student.errors import DataError

TABLES: Final = {"train": "train.csv", "valid": "valid.csv"}
"""Official tables by split."""
TEST_TABLES: Final = ("test.csv", "test_labels.csv", "groundtruth.csv")
"""Names of the test table, in the order in which they are looked for."""

_STUDY: Final = r"^(?:.*/)?(?P<folder>(?P<split>train|valid|test)/(?P<study>(?P<patient>patient\d{5,})/study\d+))"
_FILM: Final = _STUDY + r"/(?P<file>view\d+_(?P<view>frontal|lateral)\.(?:jpg|jpeg|png))$"
_FILE: Final = r"^view\d+_(?:frontal|lateral)\.(?:jpg|jpeg|png)$"
PROJECTIONS: Final = {"": "", "nan": "", "ap": "AP", "pa": "PA", "ll": "LL", "rl": "RL"}
"""Words of the column ``AP/PA``."""


@dataclass(frozen=True, eq=False)
class Paths:
    """Parts of the paths of N films: text columns image, split, patient, study, view (``None`` where not of the form),
    and the row of the table (N,) that each film takes its labels from."""

    parts: pd.DataFrame
    source: npt.NDArray[np.int64]


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the tables that have to be there."""
    return [root / config.csv] if config.csv else [root / name for name in TABLES.values()]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:
    """Return the films of the tables in ``root``, train first, then valid, then test; or those of ``config.csv`` alone.

    Sex, age and projection are unknown where a table lacks their columns.

    Args:
        root: folder of the tables and of ``train/``, ``valid/`` and ``test/``.
        config: the settings.
        images: false reads the tables alone; a study row of a test table then stands for one film.

    Raises:
        DataError: a table or column is missing, no table has rows, a path is not of CheXpert's form, a cell has an
            unknown value, or a study of the test table has no films.
    """
    found = [(path, "") for path in tables(root, config)]
    if not config.csv:
        found = [(path, split) for (path, _), split in zip(found, TABLES, strict=True)]
        test = _test_table(root, config.labels)
        found += [(test, "test")] if test is not None else []
    parts = [_load_table(root, path, split, config.labels, images) for path, split in found]
    if not any(map(len, parts)):
        names = ", ".join(str(path) for path, _ in found)
        raise DataError(f"{names}: has no rows", "Check data.root and the tables: only their headers are there.")
    if len(parts) == 1:
        return parts[0]
    return Manifest(pd.concat([part.frame for part in parts], ignore_index=True), config.labels)


def split_paths(paths: Any) -> pd.DataFrame:
    """Return image, split, patient, study, view of film paths (N,), all ``None`` where a path is not of the form."""
    return _extract(paths, _FILM).assign(image=lambda parts: parts["folder"] + "/" + parts["file"])


def _extract(paths: Any, pattern: str) -> pd.DataFrame:
    # Arrow's regular expressions: pandas calls Python's once per row, which takes a second on the official table.
    found = pc.extract_regex(pa.array(paths, type=pa.string()), pattern=pattern)
    names = [found.type.field(place).name for place in range(found.type.num_fields)]
    return pd.DataFrame({name: pc.struct_field(found, name).to_pandas() for name in names})


def _test_table(root: Path, labels: tuple[str, ...]) -> Path | None:
    """Return the first test table that has all labels, else the first there is, else None."""
    there = [root / name for name in TEST_TABLES if (root / name).is_file()]
    for path in there:
        try:
            cells.label_columns(cells.read_table(path).iloc[:0], path, labels)
        except DataError:
            continue
        return path
    return there[0] if there else None


def _load_table(root: Path, path: Path, split: str, labels: tuple[str, ...], images: bool) -> Manifest:
    if not path.is_file():
        below = sorted(child.parent.name for child in root.glob(f"*/{path.name}"))
        hint = "Set data.root to the folder that holds train.csv and valid.csv of CheXpert."
        raise DataError(f"{path}: is missing", f"Set data.root to {root / below[0]}." if below else hint)
    table = cells.read_table(path)
    named = {column.strip().lower().replace("_", " "): column for column in table.columns}
    rows = named.get("path") or named.get("study")  # groundtruth.csv names studies, under that head
    if rows is None:
        raise cells.missing_column(path, "Path", table.columns, "data.source")
    found = cells.label_columns(table, path, labels)
    films = _films(root, path, table[rows].str.strip(), split in ("test", ""), images)
    columns: dict[str, Any] = {name: films.parts[name] for name in ("image", "patient", "study", "view")}
    columns |= {"split": split or films.parts["split"], "labelled": True}
    if "sex" in named:
        columns["sex"] = cells.mapped(table[named["sex"]], cells.SEXES, path, named["sex"])[films.source]
    if "ap/pa" in named:
        columns["projection"] = cells.mapped(table[named["ap/pa"]], PROJECTIONS, path, named["ap/pa"])[films.source]
    if "age" in named:
        columns["age"] = cells.ages(table[named["age"]], path, named["age"])[films.source]
    return manifests.build({**columns, **{label: value[films.source] for label, value in found.items()}}, labels)


def _films(root: Path, path: Path, paths: pd.Series[str], studies: bool, images: bool) -> Paths:
    """Return the films of a table; where ``studies`` are allowed, a row may name one and gives each of its films."""
    parts = split_paths(paths)
    films = parts["file"].notna().to_numpy(dtype=bool)
    rows = np.arange(len(paths))
    if films.all():
        return Paths(parts, rows)
    whole = _extract(paths.str.rstrip("/"), _STUDY + "$")
    wrong = ~films & whole["split"].ne("test").to_numpy(dtype=bool)
    if not studies or wrong.any():
        raise _no_match(path, wrong if studies else ~films)
    records, source = [parts[films]], [rows[films]]
    for row in np.flatnonzero(~films):
        study = {name: str(whole[name].iloc[row]) for name in ("folder", "split", "study", "patient")}
        names = _films_in(root / study["folder"], path, rows == row) if images else [""]
        records.append(
            pd.DataFrame(
                {
                    "image": [f"{study['folder']}/{name}".rstrip("/") for name in names],
                    "view": [name.split("_")[1].split(".")[0] if name else "" for name in names],
                }
            ).assign(split=study["split"], study=study["study"], patient=study["patient"])
        )
        source.append(np.full(len(names), row))
    where = np.concatenate(source)
    order = np.argsort(where, kind="stable")
    return Paths(pd.concat(records, ignore_index=True).iloc[order].reset_index(drop=True), where[order])


def _no_match(path: Path, wrong: npt.NDArray[np.bool_]) -> DataError:
    # The path itself would put a patient's identifier into the message; the line finds it.
    return DataError(
        f"{cells.place(path, wrong)}: Path is not of the form .../patient00001/study1/view1_frontal.jpg below "
        f"train/, valid/ or test/ ({int(wrong.sum())} such rows)",
        "Correct the rows, or use data.source: csv for a table of another form.",
    )


def _films_in(folder: Path, path: Path, row: npt.NDArray[np.bool_]) -> list[str]:
    names = pd.Series(sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else [], dtype="str")
    films = list(names[names.str.match(_FILE)])
    if not films:
        raise DataError(
            f"{cells.place(path, row)}: the study's folder has no films (view*_frontal.jpg, view*_lateral.jpg)",
            "Unpack the test films below data.root, or remove the row.",
        )
    return films
