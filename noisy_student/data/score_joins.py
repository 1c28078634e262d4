"""Tables of truth and of scores joined: rows by film or study, labels by name.

Where one of two tables has a row per study and the other a row per film, films are joined by study: scores as their
mean, truth where the films agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.data.score_tables import Flags, Floats, ScoreTable, Texts, Unit
from noisy_student.errors import DataError
from noisy_student.labels import canonical, shared
from noisy_student.stats.evaluation import aggregate

Blank = Literal["ignore", "zeros"]

_SHOWN: Final = 60


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
    """Labels of the truth that no model has."""
    only_scores: tuple[str, ...]
    """Labels of the models that the truth does not have."""
    not_in_all: tuple[str, ...]
    """Labels of any table that some table does not have: those above, and what the truth shares with some models."""
    surplus: int
    """Rows of the models that the truth does not have; they are left out."""
    soft: dict[str, int]
    """Label -> cells of truth between 0 and 1, which count as unknown; labels without such cells are left out."""


def join(
    truth: ScoreTable, models: Sequence[ScoreTable], *, blank: Blank = "ignore", only: Sequence[str] = ()
) -> Joined:
    """Return ``truth`` and the scores of ``models`` on the cases of ``truth``, in its order.

    Rows about films are joined by film; by study as soon as one table has a row per study. Of tables with several
    columns that name films, the one is taken that has most in common with the other table. In the truth -1 and numbers
    between 0 and 1 are unknown. A patient is that of the first table with a column of patients, else of the first whose
    paths tell patients; where none does, every case counts as one.

    Args:
        truth: what is known.
        models: what is predicted.
        blank: what a blank in the truth is: unknown ("ignore"), or 0 ("zeros").
        only: the labels to take; empty takes all that the tables have in common.

    Raises:
        DataError: a case is there twice or lacks scores, no case or no label is common, a cell is not what it should
            be, or a study has two patients.
    """
    tables = [truth, *models]
    unit: Unit = "image" if all(table.film is not None for table in tables) else "study"
    kinds = ["study"] * len(tables) if unit == "study" else _kinds(truth, models)
    for table, kind in zip(tables, kinds, strict=True):
        _refuse_doubles(table, next(iter(table.films), "study") if unit == "study" else kind)
        if unit == "study" and table.study is None:
            raise DataError(
                f"{table.name}: {table.origin[next(iter(table.films))]} does not tell the studies that another table "
                "names",
                table.odd or "Add a column Study to it, or name films in all tables.",
            )
    names, spelt = _labels(truth, models, only)
    values = [_truth(truth, names, blank), *(_scores(model, own) for model, own in zip(models, spelt, strict=True))]
    keys = [table.key(kind) for table, kind in zip(tables, kinds, strict=True)]
    cases = pd.unique(pd.Series(keys[0], dtype=object))
    index = pd.Index(cases)
    joined: list[Floats] = []
    surplus = 0
    for table, kind, key, value in zip(tables, kinds, keys, values, strict=True):
        row = index.get_indexer(pd.Index(key))  # -1 for what the truth does not have
        surplus += int((row < 0).sum())
        if table is not truth:
            _refuse_gaps((truth, kinds[0]), (table, kind), row, index)
            _refuse_blanks(table, spelt[len(joined) - 1], value, row)
        joined.append(aggregate(value[row >= 0], row[row >= 0]))
    known = joined[0]
    known[(known > 0) & (known < 1)] = np.nan  # films of a study that disagree
    patients, clusters = _patients(tables, keys, index)
    origins = [table.origin[kind] for table, kind in zip(tables, kinds, strict=True)]
    on = {origin.lower(): origin for origin in reversed(origins)}
    only_truth, only_scores, not_in_all = _unshared(truth, models)
    return Joined(
        unit,
        " and ".join(reversed(on.values())),
        clusters,
        names,
        known,
        tuple(joined[1:]),
        patients,
        only_truth,
        only_scores,
        not_in_all,
        surplus,
        _soft(truth, names),
    )


def _kinds(truth: ScoreTable, models: Sequence[ScoreTable]) -> list[str]:
    """Return the kind of key of each table by which most films of each model are there."""

    def common(kind: str, model: ScoreTable) -> tuple[int, str]:
        own = set(truth.films[kind])
        # The first of equal ones: max keeps it.
        return max(
            ((len(own.intersection(keys)), name) for name, keys in model.films.items()), key=lambda pair: pair[0]
        )

    found = {kind: [common(kind, model) for model in models] for kind in truth.films}
    best = max(found, key=lambda kind: min((count for count, _ in found[kind]), default=0))
    return [best, *(name for _, name in found[best])]


def _refuse_doubles(table: ScoreTable, kind: str) -> None:
    double = pd.Series(table.key(kind), dtype=object).duplicated().to_numpy()
    if double.any():
        what = "study" if kind == "study" else "film"
        raise DataError(
            f"{table.where(double)}: {table.origin[kind]} has a {what} twice ({int(double.sum())} rows too many)",
            f"Keep one row per {what}." + ("" if kind != "study" else " A row per film needs a column Path."),
        )


def _labels(
    truth: ScoreTable, models: Sequence[ScoreTable], only: Sequence[str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
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
    if only:
        ours = {canonical(name): name for name in names}
        missing = [name for name in only if canonical(name) not in ours]
        if missing:
            raise DataError(f"the tables have no label '{missing[0]}' in common", f"They have {', '.join(names)}.")
        names = tuple(dict.fromkeys(ours[canonical(name)] for name in only))
    return names, [tuple(theirs for _, theirs in shared(names, model.columns)) for model in models]


def _unshared(truth: ScoreTable, models: Sequence[ScoreTable]) -> tuple[tuple[str, ...], ...]:
    """Return the labels of the truth alone, of models alone, and all that some table lacks."""
    ours, *theirs = [{canonical(name) for name in table.columns} for table in (truth, *models)]
    names: dict[str, str] = {}
    for table in (truth, *models):
        for name in table.columns:
            names.setdefault(canonical(name), name)
    return (
        tuple(name for name in truth.columns if not any(canonical(name) in own for own in theirs)),
        tuple(dict.fromkeys(name for model in models for name in model.columns if canonical(name) not in ours)),
        tuple(name for key, name in names.items() if not all(key in own for own in (ours, *theirs))),
    )


def _truth(table: ScoreTable, names: Sequence[str], blank: Blank) -> Floats:
    values = np.stack([table.columns[name] for name in names], axis=1)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.isnan(values) | (values == -1) | ((values >= 0) & (values <= 1)))
    if wrong.any():
        k = int(np.argmax(wrong.any(axis=0)))
        raise DataError(
            f"{table.where(wrong[:, k])}: column '{names[k]}' is {table.said(names[k], wrong[:, k])}, which is neither "
            "1, 0, -1 nor blank",
            "Correct the cell; if the column is not a label, give it another name in one of the tables.",
        )
    if blank == "zeros":
        values = np.nan_to_num(values, nan=0.0)
    return np.where((values == 0) | (values == 1), values, np.nan)


def _soft(table: ScoreTable, names: Sequence[str]) -> dict[str, int]:
    counts = {name: int(((table.columns[name] > 0) & (table.columns[name] < 1)).sum()) for name in names}
    return {name: count for name, count in counts.items() if count}


def _scores(table: ScoreTable, names: Sequence[str]) -> Floats:
    return np.stack([table.columns[name] for name in names], axis=1)


def _refuse_gaps(
    truth: tuple[ScoreTable, str], model: tuple[ScoreTable, str], row: npt.NDArray[np.intp], index: pd.Index
) -> None:
    lacking = ~np.isin(np.arange(len(index)), row)
    if not lacking.any():
        return
    (table, kind), (true, its) = model, truth
    many = "studies" if kind == "study" else "films"
    odd = " ".join(filter(None, (true.odd, table.odd)))
    if lacking.all():
        here, there = (f"{one.origin[key]} of {one.name} ({_form(one.key(key))})" for one, key in (model, truth))
        hint = f"{many.capitalize()} are matched by {here} and {there}: write them alike."
        raise DataError(f"{table.name} and {true.name} have none of their {many} in common", f"{hint} {odd}".strip())
    rows = np.asarray(index.get_indexer(pd.Index(true.key(its))))
    raise DataError(
        f"{table.name}: has no row for {int(lacking.sum())} of {len(index)} {many} of {true.name} "
        f"(the first: {true.where(np.isin(rows, np.flatnonzero(lacking)))})",
        f"Score them too, or remove their rows from the table of truth. {odd}".strip(),
    )


def _form(keys: Texts) -> str:
    """Return the form of the first key, its digits as ``#``: a message names no patient."""
    form = re.sub(r"\d", "#", str(keys[0]))
    return f"such as {form}" if len(form) <= _SHOWN else f"such as …{form[-_SHOWN:]}"


def _refuse_blanks(table: ScoreTable, names: Sequence[str], values: Floats, row: npt.NDArray[np.intp]) -> None:
    wrong: Flags = ~np.isfinite(values) & (row >= 0)[:, None]
    if wrong.any():
        k = int(np.argmax(wrong.any(axis=0)))
        raise DataError(
            f"{table.where(wrong[:, k])}: column '{names[k]}' is {table.said(names[k], wrong[:, k])}, and a score is a "
            f"finite number ({int(wrong.any(axis=1).sum())} such rows)",
            "Give every row a number for every label that both tables have.",
        )


def _patients(
    tables: Sequence[ScoreTable], keys: Sequence[Texts], index: pd.Index
) -> tuple[npt.NDArray[np.int64], str]:
    # A column says more than a path, whichever table has it.
    telling = sorted(
        (
            (table.origin["patient"] == "the paths", place)
            for place, table in enumerate(tables)
            if table.patient is not None
        ),
    )
    # In the order of their names, so that resamples do not depend on the order of rows.
    if not telling:
        return np.unique(index.to_numpy().astype(str), return_inverse=True)[1].astype(np.int64), "rows"
    table, key = tables[telling[0][1]], keys[telling[0][1]]
    row = np.asarray(index.get_indexer(pd.Index(key)))
    code = np.unique(np.asarray(table.patient)[row >= 0].astype(str), return_inverse=True)[1].astype(np.int64)
    row = row[row >= 0]
    patients = np.zeros(len(index), dtype=np.int64)
    patients[row] = code
    double = patients[row] != code
    if double.any():
        raise DataError(f"{table.name}: a study has rows of two patients", "Make studies unique across patients.")
    return patients, table.origin["patient"]
