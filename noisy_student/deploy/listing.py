"""The films that a user names: files, folders, globs and tables, as one sequence that is read as it is needed."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from noisy_student.data.score_tables import KEYS, plain
from noisy_student.data.sources import dicom
from noisy_student.data.sources.cells import refuse_other_separators
from noisy_student.data.sources.files import FILMS, begins_like_dicom
from noisy_student.data.streaming import Named
from noisy_student.errors import DataError

ENDINGS: Final = tuple(dict.fromkeys((*dicom.ENDINGS, *FILMS)))
"""Endings of the files of a folder that are taken for films; of those without one, what begins like DICOM."""
TABLES: Final = (".csv", ".tsv")


def films(asked: Sequence[str]) -> Iterator[Named]:
    """Yield the films that ``asked`` names, in a stable order, each as (what to call it, the path of its file).

    An entry is a film, a folder (all films below it, but for folders that are links), a glob, or a table with a column
    of paths. Films of a table are called as they are there; a relative path is looked for beside the table, then beside
    the table's folder (CheXpert's tables name their own folder), then in the working folder. A film that is not there
    is yielded as well: it is for the decoder to say so. A film named twice comes twice. In memory are the names of one
    folder at a time.

    Raises:
        DataError: a glob matches nothing, or a table is missing or has no column of paths.
    """
    for entry in asked:
        path = Path(entry)
        if path.is_dir():
            yield from _below(entry)
        elif path.suffix.lower() in TABLES and (path.exists() or not glob.has_magic(entry)):
            yield from _of_table(path)
        elif glob.has_magic(entry) and not path.exists():
            found = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
            if not found:
                raise DataError(f"{entry}: matches no file", "Check the pattern; a quoted one is expanded by ns.")
            for name in found:
                if os.path.isdir(name):  # noqa: PTH112 - one call a film
                    yield from _below(name)
                elif os.path.splitext(name)[1].lower() in TABLES:  # noqa: PTH122
                    yield from _of_table(Path(name))
                else:
                    yield name, name
        else:
            yield entry, entry


def count(asked: Sequence[str]) -> int:
    """Return how many films ``asked`` names.

    Raises:
        DataError: none, or what :func:`films` raises.
    """
    number = sum(1 for _ in films(asked))
    if not number:
        raise DataError(
            f"{', '.join(asked)}: there are no films there", f"Films end in {', '.join(ENDINGS)}, or are DICOM files."
        )
    return number


def _below(folder: str) -> Iterator[Named]:
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            path = f"{place.rstrip('/')}/{name}"
            if not name.startswith(".") and _is_film(path):
                yield path, path


def _is_film(path: str) -> bool:
    ending = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a Path per film costs more than the call
    if ending in ENDINGS:
        return True
    # Files of a PACS are often named by numbers with dots.
    return (not ending or ending[1:].isdigit()) and begins_like_dicom(path)


def _of_table(path: Path) -> Iterator[Named]:
    if not path.is_file():
        raise DataError(f"{path}: is missing", "Check the name of the table; a film is named by its own file.")
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        rows = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        header = next(rows, [])
        if header:
            refuse_other_separators(path, header)
        column = _column(header)
        if column is None:
            raise DataError(
                f"{path}: has no column of paths (it has {', '.join(header) or 'no columns'})",
                "Name the column of the films path or image.",
            )
        folder = path.absolute().parent
        places = [folder, folder.parent, Path()]
        for row in rows:
            if len(row) > column and row[column].strip():
                yield row[column], _found(row[column].strip(), places)


def _column(header: Sequence[str]) -> int | None:
    known = [plain(name) for name in header]
    wanted = (*KEYS["path"], *KEYS["image"])
    return next((known.index(name) for name in wanted if name in known), 0 if len(header) == 1 else None)


def _found(name: str, places: Sequence[Path]) -> str:
    if os.path.isabs(name):  # noqa: PTH117
        return name
    candidates = [os.path.join(place, name) for place in places]  # noqa: PTH118
    return next((one for one in candidates if os.path.isfile(one)), candidates[0])  # noqa: PTH113
