"""Tables of truth and of scores from anywhere, as they are read: what their rows are about, and their columns.

A table names its rows in a column ``Path``, ``image`` or ``Study`` (case aside). Paths of CheXpert's form lose what
stands before ``train/``, ``valid/`` or ``test/``, and tell study and patient.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.data.sources import cells
from noisy_student.errors import DataError

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
        films: kind of key ("path", "image") -> key of the film (N,); none where rows are about studies.
        study: key of the study (N,); ``None`` where it is not known.
        patient: the patient (N,); ``None`` where it is not known.
        origin: kind of key ("path", "image", "study", "patient") -> where it comes from, for people: "column 'Path'".
        columns: label -> its numbers (N,), NaN for a blank, infinite where the cell is no number.
        where: names the first of the rows that are true, for messages.
        cells: label -> its texts (N,), for messages.
        odd: which row keeps the paths of all others from being understood; empty where none does.
    """

    name: str
    films: dict[str, Texts]
    study: Texts | None
    patient: Texts | None
    origin: dict[str, str]
    columns: dict[str, Floats]
    where: Callable[[Flags], str]
    cells: dict[str, Texts]
    odd: str = ""

    @property
    def film(self) -> Texts | None:
        """The first of the keys of films, ``None`` where rows are about studies."""
        return next(iter(self.films.values()), None)

    def key(self, kind: str) -> Texts:
        """Return the key (N,) of ``kind``, one that the table has."""
        found = self.study if kind == "study" else self.films[kind]
        assert found is not None, "a kind that was chosen is there"
        return found

    def said(self, label: str, wrong: Flags) -> str:
        """Return what the first cell of ``label`` that is ``wrong`` (N,) holds, in words: "blank" or its text."""
        text = str(self.cells[label][int(np.argmax(wrong))]).strip()
        return f"'{text[:40]}'" if text else "blank"


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
    named = {plain(column): str(column) for column in table.columns}
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
    films: dict[str, Texts] = {}
    study = patient = None
    origin, odd = {"patient": "the paths"}, ""
    for kind, column in found.items():
        film, of_study, owner = _keys(texts[kind], kind, where)
        if film is not None:
            films[kind], origin[kind] = film, f"column '{column}'"
        if study is None and of_study is not None:
            study, origin["study"] = of_study, f"column '{column}'"
        patient = owner if patient is None else patient
        odd = odd or _odd(texts[kind], column, where)
    own = next((named[name] for name in PATIENTS if name in named), None)
    if own is not None:
        patient = cells.required(table, path, own, "").to_numpy(dtype=object)
        origin["patient"] = f"column '{own}'"
    labels = _label_cells(table, path, {*found.values(), own})
    columns = {name: _numbers(values) for name, values in labels.items()}
    return ScoreTable(str(path), films, study, patient, origin, columns, where, labels, odd)


def _label_cells(table: pd.DataFrame, path: Path, taken: Collection[str | None]) -> dict[str, Texts]:
    """Return the cells of the columns that could be labels, by their names without blanks around them."""
    found: dict[str, Texts] = {}
    for column in table.columns:
        name = str(column).strip()
        if column in taken or plain(name) in OTHERS or name.startswith("Unnamed: "):
            continue
        if name in found:
            raise DataError(f"{path}: has two columns '{name}'", "Rename or remove one of them; blanks do not count.")
        found[name] = table[column].to_numpy(dtype=object)
    return found


def _odd(texts: Texts, column: str, where: Callable[[Flags], str]) -> str:
    """Return which row of a column of CheXpert's paths is of another form, as a sentence; empty where none is."""
    wrong = np.array([_FORM.match(text) is None for text in texts], dtype=bool)
    if not wrong.any() or wrong.all():
        return ""
    return (
        f"{where(wrong)}: column '{column}' is not of the form of others (train/patient1/study1), so that none of its "
        f"paths is shortened ({int(wrong.sum())} such rows)."
    )


def plain(name: object) -> str:
    """Return the name of a column in lower case, its words, which blanks and underscores part, one space apart."""
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


def of_cases(
    name: str, unit: Unit, keys: Sequence[Texts], patient: Texts, labels: Sequence[str], values: Floats
) -> ScoreTable:
    """Return a table of cases that are at hand: ``keys`` are films and their studies, or studies alone."""
    films, study = ({"image": keys[0]}, keys[1]) if unit == "image" else ({}, keys[0])
    columns = {label: values[:, k].astype(np.float64) for k, label in enumerate(labels)}
    texts = {label: numbers.astype(object) for label, numbers in columns.items()}
    origin = dict.fromkeys(("image", "study", "patient"), "the manifest")
    table = ScoreTable(name, films, study, patient, origin, columns, lambda _: name, texts)
    if not films:
        return table
    own, of_study, _ = _keys(films["image"], "image", table.where)  # as a table of the same films would name them
    assert own is not None, "a manifest names films"
    return replace(table, films={"image": own}, study=of_study if of_study is not None else study)
