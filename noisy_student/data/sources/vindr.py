"""VinDr-CXR (Nguyen et al. 2022): several readers per film -> manifest.

``image_labels_train.csv`` has a row per film and reader (three each), ``image_labels_test.csv`` one consensus row per
film. The challenge's ``train.csv`` (a row per finding and reader) is read too. The tables name no patients: every film
counts as a patient of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import cells
from noisy_student.data.sources.files import locate
from noisy_student.errors import DataError
from noisy_student.labels import canonical

TABLES: Final = {"train": "image_labels_train.csv", "test": "image_labels_test.csv"}
"""The official tables, in the root or below ``annotations``."""

Floats = npt.NDArray[np.float32]


def tables(root: Path, config: DataConfig) -> list[Path]:
    """Return the tables that are read: ``data.csv`` alone, or train and, where it is there, test."""
    if config.csv:
        return [root / config.csv]
    folder = root / "annotations" if (root / "annotations").is_dir() else root
    found = [folder / name for name in TABLES.values()]
    return [path for path in found if path.is_file()] or found[:1]


def load(root: Path, config: DataConfig, images: bool) -> Manifest:
    """Return one row per film, with the votes of its readers as ``data.readers`` says.

    Raises:
        DataError: a table or column is missing, or a vote is neither 0 nor 1.
    """
    parts = []
    for path in tables(root, config):
        split = "test" if "test" in path.stem else "train"
        names, found = _votes(path, config.labels, config.readers)
        folders = (split, f"{split}_images", "images", ".")
        film = f"{split}/" + names + ".dicom"
        if images:
            film = locate(root, names, folders, film, by_stem=True)
        columns: dict[str, Any] = {
            "image": film,
            "patient": names,
            "study": names,
            "view": "frontal",  # the set was collected as PA films
            "projection": "PA",
            "split": split,
            "labelled": True,
        }
        parts.append(manifests.build({**columns, **found}, config.labels).frame)
    return Manifest(pd.concat(parts, ignore_index=True), config.labels)


def combine(
    votes: npt.NDArray[np.float64], readers: npt.NDArray[np.int64], rule: Literal["majority", "any", "mean"]
) -> Floats:
    """Return one value per film (N,) from how many of its ``readers`` (N,) gave a positive vote (N,).

    ``majority`` is 1 or 0, and -1 (uncertain) when the readers are equally divided; ``any`` is 1 where one reader saw
    the finding; ``mean`` is the share of readers who did, a soft target.
    """
    share = votes / readers
    if rule == "mean":
        return share.astype(np.float32)
    if rule == "any":
        return (votes > 0).astype(np.float32)
    return np.where(share == 0.5, -1, share > 0.5).astype(np.float32)


def _votes(
    path: Path, labels: tuple[str, ...], rule: Literal["majority", "any", "mean"]
) -> tuple[pd.Series[str], dict[str, Floats]]:
    """Return the names of the films of a table and their labels."""
    table = cells.read_table(path)
    names = cells.required(table, path, "image_id", "data.csv")
    film, order = pd.factorize(names)
    count = len(order)
    if "class_name" in table.columns:
        return pd.Series(order), _from_findings(table, path, film, count, labels, rule)
    readers = np.bincount(film, minlength=count)
    found = {}
    for label, value in cells.label_columns(table, path, labels).items():
        wrong = (value != 0) & (value != 1)
        if wrong.any():
            raise DataError(
                f"{cells.place(path, wrong)}: '{label}' is blank or neither 0 nor 1", "A reader's vote is 0 or 1."
            )
        found[label] = combine(np.bincount(film, weights=value, minlength=count).astype(np.float64), readers, rule)
    return pd.Series(order), found


def _from_findings(
    table: pd.DataFrame,
    path: Path,
    film: npt.NDArray[np.intp],
    count: int,
    labels: tuple[str, ...],
    rule: Literal["majority", "any", "mean"],
) -> dict[str, Floats]:
    """Return labels from rows of one finding by one reader each; a reader without a row for it said no."""
    names = cells.required(table, path, "class_name", "data.csv").map(canonical)
    reader, _ = pd.factorize(cells.required(table, path, "rad_id", "data.csv"))
    pairs = np.unique(np.stack([film, reader], axis=1), axis=0)
    readers = np.bincount(pairs[:, 0], minlength=count)
    there = set(names)
    found = {}
    for label in labels:
        if canonical(label) not in there:
            raise cells.missing_column(path, label, sorted(there), "data.labels")
        rows = (names == canonical(label)).to_numpy(dtype=bool)
        seen = np.unique(np.stack([film[rows], reader[rows]], axis=1), axis=0)
        found[label] = combine(np.bincount(seen[:, 0], minlength=count).astype(np.float64), readers, rule)
    return found
