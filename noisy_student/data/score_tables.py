"""Tables of truth and of scores from anywhere, read and joined: rows by film or study, labels by name.

A table names its rows in a column ``Path``, ``image`` or ``Study`` (case aside). Paths of CheXpert's form lose what
stands before ``train/``, ``valid/`` or ``test/``, and tell study and patient. Where one of two tables has a row per
study and the other a row per film, films are joined by study: scores as their mean, truth where the films agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.data.sources import cells
from noisy_student.errors import DataError
from noisy_student.labels import canonical, shared
from noisy_student.stats.evaluation import aggregate

Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.object_]
Flags = npt.NDArray[np.bool_]
Unit = Literal["image", "study"]

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "path": ("path", "image path", "filepath", "file path", "filename", "file name", "file"),
    "image": ("image", "image index", "image id", "imageid", "dicom id"),
    "study": ("study", "study id", "studyid", "studyinstanceuid"),
}
"""Kind of key -> names of its column, in the order in which columns are looked for; case and underscores aside."""
PATIENTS: Final = ("patient", "patient id", "patientid", "subject id")
"""Names of a column of patients."""
OTHERS: Final = (
    *("sex", "gender", "patient sex", "patient gender", "age", "patient age", "frontal/lateral", "ap/pa", "view"),
    *("view position", "projection", "site", "date", "split", "labelled", "index"),
)
"""Names of columns that are no labels."""

_FORM: Final = re.compile(
    r"^(?:.*/)?(?P<split>train|valid|test)/(?P<study>(?P<patient>patient\d+)/study\d+)(?:/(?P<file>[^/]+))?/?$"
)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """N rows of a table, each about a film or a study.

    Attributes:
        name: what messages call it.
        film: key of the film (N,); ``None`` where rows are about studies.
        study: key of the study (N,); ``None`` where it is not known.
        patient: the patient (N,); ``None`` where it is not known.
        origin: where key and patient come from, for people: ("column 'Path'", "the paths").
        columns: label -> its numbers (N,), NaN for a blank.
        where: names the first of the rows that are true, for messages.
    """

    name: str
    film: Texts | None
    study: Texts | None
    patient: Texts | None
    origin: tuple[str, str]
    columns: dict[str, Floats]
    where: Callable[[Flags], str]

    def __len__(self) -> int:
        """The number of rows."""
        keys = self.study if self.film is None else self.film
        assert keys is not None, "a row is about something"
        return len(keys)


@dataclass(frozen=True, eq=False)
class Joined:
    """What is true and what M models say of the same N cases, for the K labels that all have."""

    unit: Unit
    joined_on: str
    clusters: str
    """What the patients are: "column 'patient'", "the paths", or "rows" where each case counts as a patient."""
    labels: tuple[str, ...]
    """By the names of the table of truth."""
    truth: Floats
    """(N, K), 1, 0 or NaN."""
    scores: tuple[Floats, ...]
    """(N, K) per model."""
    patients: npt.NDArray[np.int64]
    only_truth: tuple[str, ...]
    only_scores: tuple[str, ...]
    surplus: int
    """Rows of the models that the truth does not have; they are left out."""


# -- reading -------------------------------------------------------------------------------------------------------


def read(path: Path) -> ScoreTable:
    """Return a CSV or Parquet file with whatever columns could be labels; what they hold is looked at when joined.

    Raises:
        DataError: the file is missing or no table, has no rows, no column that names films or studies, a blank in
            it, or rows for films and for studies.
    """
    if not path.is_file():
        raise DataError(f"{path}: is missing", "Name a CSV or Parquet file with a header row.")
    table = cells.read_table(path)
    if table.empty:
        raise DataError(f"{path}: has no rows", "Only its header is there.")
    named = {_plain(column): str(column) for column in table.columns}
    found = {kind: named[name] for kind, names in KEYS.items() for name in reversed(names) if name in named}
    if not found:
        raise DataError(
            f"{path}: no column names films or studies; its columns are {', '.join(map(str, table.columns))}",
            "Name the column Path, image or Study.",
        )
    texts = {
        kind: cells.required(table, path, column, "").str.replace("\\", "/").to_numpy(dtype=object)
        for kind, column in found.items()
    }
    where = partial(cells.place, path)
    main = next(iter(found))
    film, study, patient = _keys(texts[main], main, where)
    if main != "study" and "study" in texts:
        own = _keys(texts["study"], "study", where)[1]
        study = own if study is None else study
    column = next((named[name] for name in PATIENTS if name in named), None)
    owner = "the paths" if column is None else f"column '{column}'"
    if column is not None:
        patient = cells.required(table, path, column, "").to_numpy(dtype=object)
    taken = {*found.values(), column}
    labels = {
        str(name): table[name].to_numpy(dtype=object)
        for name in table.columns
        if name not in taken and _plain(name) not in OTHERS and not str(name).startswith("Unnamed: ")
    }
    columns = {name: _numbers(values) for name, values in labels.items()}
    return ScoreTable(str(path), film, study, patient, (f"column '{found[main]}'", owner), columns, where)


def _plain(name: object) -> str:
    return " ".join(str(name).replace("_", " ").split()).lower()


def _numbers(texts: Texts) -> Floats:
    """Return the numbers of the cells, NaN for a blank, and infinity where a cell is not a number."""
    numbers, wrong = cells.numbers(texts)
    return np.where(wrong, np.inf, numbers)


def _keys(texts: Texts, kind: str, where: Callable[[Flags], str]) -> tuple[Texts | None, Texts | None, Texts | None]:
    """Return film, study and patient (N,) that the texts of a column of ``kind`` name, as far as they do."""
    forms = [_FORM.match(text) for text in texts]
    if not all(forms):
        plain = np.array([text.removeprefix("./").rstrip("/") for text in texts], dtype=object)
        return (None, plain, None) if kind == "study" else (plain, None, None)
    parts = [form.groupdict() for form in forms if form is not None]
    of_film = np.array([part["file"] is not None for part in parts])
    if of_film.any() and not of_film.all():
        raise DataError(f"{where(~of_film)}: names a study, and other rows name films", "Make one table of each.")
    study, patient = (np.array([part[name] for part in parts], dtype=object) for name in ("study", "patient"))
    film = [f"{part['split']}/{part['study']}/{part['file']}" for part in parts]
    return (np.array(film, dtype=object) if of_film.all() else None), study, patient


# -- joining -------------------------------------------------------------------------------------------------------


def join(truth: ScoreTable, models: Sequence[ScoreTable]) -> Joined:
    """Return ``truth`` and the scores of ``models`` on the cases of ``truth``, in its order.

    Rows about films are joined by film; by study as soon as one table has a row per study. Blanks and -1 in the truth
    are unknown. A patient is that of the first table that tells patients.

    Raises:
        DataError: a case is there twice or lacks scores, no case or no label is common, a cell is not what it should
            be, or a study has two patients.
    """
    tables = [truth, *models]
    unit: Unit = "image" if all(table.film is not None for table in tables) else "study"
    for table in tables:
        _refuse_doubles(table)
        if unit == "study" and table.study is None:
            raise DataError(
                f"{table.name}: {table.origin[0]} does not tell the studies that another table names",
                "Add a column Study to it, or name films in all tables.",
            )
    names, spelt = _labels(truth, models)
    values = [_truth(truth, names), *(_scores(model, own) for model, own in zip(models, spelt, strict=True))]
    keys = [np.asarray(table.film if unit == "image" else table.study, dtype=object) for table in tables]
    cases = pd.unique(pd.Series(keys[0], dtype=object))
    index = pd.Index(cases)
    joined, surplus = [], 0
    for table, key, value in zip(tables, keys, values, strict=True):
        row = index.get_indexer(pd.Index(key))  # -1 for what the truth does not have
        surplus += int((row < 0).sum())
        _refuse_gaps(truth, table, row, keys[0], index, unit)
        if table is not truth:
            _refuse_blanks(table, value, row)
        joined.append(aggregate(value[row >= 0], row[row >= 0]))
    known = joined[0]
    known[(known > 0) & (known < 1)] = np.nan  # films of a study that disagree
    patients, clusters = _patients(tables, keys, index)
    on = {table.origin[0].lower(): table.origin[0] for table in reversed(tables)}
    ours = {canonical(name) for name in names}
    return Joined(
        unit,
        " and ".join(reversed(on.values())),
        clusters,
        names,
        known,
        tuple(joined[1:]),
        patients,
        tuple(name for name in truth.columns if name not in names),
        tuple(dict.fromkeys(name for model in models for name in model.columns if canonical(name) not in ours)),
        surplus,
    )


def _refuse_doubles(table: ScoreTable) -> None:
    keys = table.study if table.film is None else table.film
    double = pd.Series(keys, dtype=object).duplicated().to_numpy()
    if double.any():
        what = "study" if table.film is None else "film"
        raise DataError(
            f"{table.where(double)}: the {what} is there twice ({int(double.sum())} rows too many)",
            f"Keep one row per {what}." + ("" if table.film is not None else " A row per film needs a column Path."),
        )


def _labels(truth: ScoreTable, models: Sequence[ScoreTable]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the labels that all tables have, by the names of the truth, and by those of each model."""
    for table in (truth, *models):
        seen: dict[str, str] = {}
        for name in table.columns:
            if (first := seen.setdefault(canonical(name), name)) != name:
                raise DataError(
                    f"{table.name}: columns '{first}' and '{name}' mean the same label", "Rename or remove one of them."
                )
    names = tuple(truth.columns)
    for model in models:
        names = tuple(name for name, _ in shared(names, model.columns))
    if not names:
        there = "; ".join(f"{table.name} has {', '.join(table.columns) or 'none'}" for table in (truth, *models))
        raise DataError("the tables have no label in common", f"Labels are matched by name: {there}.")
    return names, [tuple(theirs for _, theirs in shared(names, model.columns)) for model in models]


def _truth(table: ScoreTable, names: Sequence[str]) -> Floats:
    values = np.stack([table.columns[name] for name in names], axis=1)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.isnan(values) | (values == -1) | ((values >= 0) & (values <= 1)))
    if wrong.any():
        k = int(np.argmax(wrong.any(axis=0)))
        raise DataError(
            f"{table.where(wrong[:, k])}: column '{names[k]}' is neither 1, 0, -1 nor blank",
            "Correct the cell; if the column is not a label, give it another name in one of the tables.",
        )
    return np.where((values == 0) | (values == 1), values, np.nan)


def _scores(table: ScoreTable, names: Sequence[str]) -> Floats:
    return np.stack([table.columns[name] for name in names], axis=1)


def _refuse_gaps(
    truth: ScoreTable, table: ScoreTable, row: npt.NDArray[np.intp], keys: Texts, index: pd.Index, unit: Unit
) -> None:
    lacking = ~np.isin(np.arange(len(index)), row)
    if not lacking.any():
        return
    many = "films" if unit == "image" else "studies"
    if lacking.all():
        raise DataError(
            f"{table.name} and {truth.name} have none of their {many} in common",
            f"{many.capitalize()} are matched by {table.origin[0]} and {truth.origin[0]}: write them alike.",
        )
    first = truth.where(np.isin(np.asarray(index.get_indexer(pd.Index(keys))), np.flatnonzero(lacking)))
    raise DataError(
        f"{table.name}: has no row for {int(lacking.sum())} of {len(index)} {many} of {truth.name} "
        f"(the first: {first})",
        "Score them too, or remove their rows from the table of truth.",
    )


def _refuse_blanks(table: ScoreTable, values: Floats, row: npt.NDArray[np.intp]) -> None:
    wrong: Flags = ~np.isfinite(values) & (row >= 0)[:, None]
    if wrong.any():
        rows: Flags = np.asarray(wrong.any(axis=1))
        raise DataError(
            f"{table.where(rows)}: a score is not a finite number ({int(rows.sum())} such rows)",
            "Give every row a number for every label that both tables have.",
        )


def _patients(
    tables: Sequence[ScoreTable], keys: Sequence[Texts], index: pd.Index
) -> tuple[npt.NDArray[np.int64], str]:
    # A column says more than a path, whichever table has it.
    telling = sorted(
        ((table.origin[1] == "the paths", place) for place, table in enumerate(tables) if table.patient is not None),
    )
    if not telling:
        return np.arange(len(index)), "rows"
    table, key = tables[telling[0][1]], keys[telling[0][1]]
    row = np.asarray(index.get_indexer(pd.Index(key)))
    # In the order of their names, so that resamples do not depend on the order of rows.
    code = np.unique(np.asarray(table.patient)[row >= 0].astype(str), return_inverse=True)[1].astype(np.int64)
    row = row[row >= 0]
    patients = np.zeros(len(index), dtype=np.int64)
    patients[row] = code
    double = patients[row] != code
    if double.any():
        raise DataError(f"{table.name}: a study has rows of two patients", "Make studies unique across patients.")
    return patients, table.origin[1]


def of_cases(
    name: str, unit: Unit, keys: Sequence[Texts], patient: Texts, labels: Sequence[str], values: Floats
) -> ScoreTable:
    """Return a table of cases that are at hand: ``keys`` are films and their studies, or studies alone."""
    film, study = (keys[0], keys[1]) if unit == "image" else (None, keys[0])
    columns = {label: values[:, k].astype(np.float64) for k, label in enumerate(labels)}
    table = ScoreTable(name, film, study, patient, ("the manifest", "the manifest"), columns, lambda _: name)
    if film is None:
        return table
    own, of_study, _ = _keys(film, "image", table.where)  # as a table of the same films would name them
    return replace(table, film=own, study=of_study if of_study is not None else study)
