"""A folder per class (Kaggle's chest_xray, histology tiles), with or without folders per split above -> manifest."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import cells
from noisy_student.data.sources.files import FILMS, storable
from noisy_student.errors import ConfigError, DataError
from noisy_student.labels import canonical

_NAMED: Final = 10
_log = logging.getLogger(__name__)


def tables(root: Path, config: DataConfig) -> list[Path]:  # noqa: ARG001 - there are none
    """Return the root: this source has no tables."""
    return [root]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:  # noqa: ARG001 - the films are the table
    """Return the films below ``root``, in order of their paths.

    A film lies in ``<split>/<class>/...`` or ``<class>/...``; deeper folders are part of its name. Its class is
    positive and every other label negative. With ``folders.separator`` a class folder may name several labels, and a
    class of ``folders.negative`` names none. What has not the ending of a film (:data:`FILMS`), or a name that is not
    UTF-8, is left out with a warning. The patient is what the regular expression ``folders.patient`` finds in
    the path below the class folder (its first group, or all of it); without one every film is its own patient.

    Raises:
        DataError: there are no films, a class folder is neither a label nor negative, or the expression does not match.
        ConfigError: ``folders.patient`` is not a regular expression.
    """
    films = sorted(_films(root))
    if not films:
        raise DataError(
            f"{root}: has no films in class folders ({', '.join(FILMS)})",
            "Set data.root to the folder that holds the class folders, or train, valid and test.",
        )
    split, classes, names = _places(root, films)
    values = _labels(root, classes, config)
    patients = _patients(films, names, classes, split, config)
    columns: dict[str, Any] = {
        "image": films,
        "patient": patients,
        "study": [f"{patient}/{film}" for patient, film in zip(patients, films, strict=True)],
        "split": split,
        "labelled": True,
    }
    return manifests.build({**columns, **values}, config.labels)


def _films(root: Path) -> Iterator[str]:
    """Yield the paths below ``root`` of all film files; hidden ones and links to folders are passed over.

    Other files are left out and named in a warning, at the end.
    """
    others, count = [], 0
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith((".", "__MACOSX"))]
        prefix = os.path.relpath(folder, root)
        for name in names:
            path = name if prefix == "." else f"{prefix}/{name}"
            if name.startswith("."):
                continue
            count += 1
            if Path(name).suffix.lower() not in FILMS:
                others.append(path)
            elif storable(path):
                yield path
    if others:
        shown = ", ".join(path.encode(errors="backslashreplace").decode() for path in sorted(others)[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        text = "%s: %d of %d files are left out, for they have not the ending of a film (%s): %s%s"
        _log.warning(text, root, len(others), count, ", ".join(FILMS), shown, more)


def _places(root: Path, films: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the split, class folder and rest of the path of each film."""
    split, classes, names = [], [], []
    for film in films:
        parts = film.split("/")
        named = cells.SPLITS.get(parts[0].lower(), "")
        folders = parts[1:] if named else parts
        if len(folders) < 2:
            raise DataError(
                f"{root}: the film '{film}' lies in no class folder", "Move it into one, or out of data.root."
            )
        split.append(named)
        classes.append(folders[0])
        names.append("/".join(folders[1:]))
    if len({bool(name) for name in split}) > 1:
        stray = films[split.index("")]
        raise DataError(
            f"{root}: '{stray}' lies beside the folders train, valid and test, not in one of them",
            "Move it, or move the split folders away and let split.fractions make the split.",
        )
    return split, classes, names


def _labels(root: Path, classes: list[str], config: DataConfig) -> dict[str, np.typing.NDArray[np.float32]]:
    separator = config.folders.separator
    negative = {canonical(name).lower() for name in config.folders.negative}
    known = {canonical(label).lower(): label for label in config.labels}
    positive: dict[str, set[str]] = {}
    for name in dict.fromkeys(classes):
        words = [canonical(word).lower() for word in (name.split(separator) if separator else [name])]
        unknown = [word for word in words if word not in known and word not in negative]
        if unknown:
            raise DataError(
                f"{root}: the class folder '{name}' is not in data.labels ({', '.join(config.labels)})",
                "Add it to data.labels, or to data.folders.negative if it means none of them"
                + ("." if separator else "; data.folders.separator splits a name into several labels."),
            )
        positive[name] = {known[word] for word in words if word in known}
    for label in config.labels:
        if not any(label in names for names in positive.values()):
            raise DataError(
                f"{root}: no class folder is named '{label}' (there are {', '.join(sorted(positive))})",
                "Correct data.labels.",
            )
    return {label: np.asarray([label in positive[name] for name in classes], np.float32) for label in config.labels}


def _patients(
    films: list[str], names: list[str], classes: list[str], split: list[str], config: DataConfig
) -> list[str]:
    if config.folders.patient is None:
        return films
    try:
        expression = re.compile(config.folders.patient)
    except re.error as error:
        raise ConfigError(
            f"data.folders.patient: '{config.folders.patient}' is not a regular expression ({error})", "Correct it."
        ) from error
    patients = [_first(expression.search(name)) for name in names]
    missed = [film for film, patient in zip(films, patients, strict=True) if not patient]
    if missed:
        raise DataError(
            f"data.folders.patient: '{config.folders.patient}' finds no patient in {len(missed)} of {len(films)} "
            f"films, such as '{missed[0]}'",
            "Write an expression that matches every name, such as '^(.+)_[0-9]+[.]png$'.",
        )
    if config.folders.patient_per_class:
        patients = [f"{name}/{patient}" for name, patient in zip(classes, patients, strict=True)]
    if config.folders.test_apart:
        patients = [f"test/{name}" if part == "test" else name for name, part in zip(patients, split, strict=True)]
    return patients


def _first(match: re.Match[str] | None) -> str:
    """Return the first group that took part in a match, or all of it; nothing where there is no match."""
    return "" if match is None else next(part for part in (*match.groups(), match.group()) if part is not None)
