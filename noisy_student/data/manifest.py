"""The one table: a row per film with its patient, study, view, split, labelled flag and labels.

A label is NaN (unknown or not mentioned), -1 (uncertain), 0, 1, or a soft value between 0 and 1. Everything behind
this table is the same for every data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from noisy_student import runs
from noisy_student.errors import DataError

TEXT: Final = ("image", "patient", "study", "view", "projection", "sex", "site", "date")
"""Text columns; an unknown value is the empty string."""
COLUMNS: Final = (*TEXT, "age", "split", "labelled")
"""The columns before the labels, in order."""
SPLITS: Final = ("train", "valid", "test")
VALUES: Final[dict[str, tuple[str, ...]]] = {
    "view": ("frontal", "lateral", ""),
    "projection": ("AP", "PA", "LL", "RL", ""),
    "sex": ("F", "M", ""),
    "split": (*SPLITS, ""),
}
"""Allowed values of the closed columns. An empty split waits for :func:`noisy_student.data.splits.assign`."""

_FORMAT: Final = "1"
_OUTSIDE = r"^/|^[A-Za-z]:|\\|//|(?:^|/)\.{1,2}(?:/|$)"


@dataclass(frozen=True, eq=False)
class Manifest:
    """A table of N films and K labels.

    Attributes:
        frame: columns :data:`COLUMNS` and then one float32 column per label; the index is 0 ... N-1.
        labels: the K labels in the order of their columns.
    """

    frame: pd.DataFrame
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frame)


def build(columns: dict[str, Any], labels: tuple[str, ...]) -> Manifest:
    """Return a manifest with the columns in order and of the right type; missing optional ones are unknown.

    Args:
        columns: at least image, patient, study and every label; equal lengths.
        labels: names of the labels, in order.

    Raises:
        DataError: a label bears the name of a fixed column, or is named twice.
    """
    clash = sorted(set(labels) & set(COLUMNS)) + sorted({name for name in labels if labels.count(name) > 1})
    if clash:
        raise DataError(
            f"data.labels: '{clash[0]}' is the name of another column of the manifest",
            "Rename the column in the table and in data.labels.",
        )
    count = len(columns["image"])
    index = pd.RangeIndex(count)
    table: dict[str, Any] = {}
    for name in COLUMNS:
        kind: Any = {"age": "float64", "labelled": "bool"}.get(name, "str")
        value = columns.get(name, {"age": np.nan, "labelled": False}.get(name, ""))
        if isinstance(value, str | bool | float):
            table[name] = pd.Series(value, index=index, dtype=kind)  # one value for all
        else:
            table[name] = pd.Series(getattr(value, "array", value), index=index).astype(kind)
    table |= {name: np.asarray(columns[name], dtype=np.float32) for name in labels}
    return Manifest(pd.DataFrame(table, index=index), labels)


def values(manifest: Manifest) -> npt.NDArray[np.float32]:
    """Return the labels as a float32 matrix of shape (N, K)."""
    return manifest.frame[list(manifest.labels)].to_numpy(dtype=np.float32).reshape(len(manifest), len(manifest.labels))


def replace(manifest: Manifest, **columns: Any) -> Manifest:
    """Return a copy of the manifest with whole fixed columns replaced."""
    return Manifest(manifest.frame.assign(**columns), manifest.labels)


def with_values(manifest: Manifest, matrix: npt.NDArray[np.float32]) -> Manifest:
    """Return a copy of the manifest with the labels (N, K) of ``matrix``."""
    columns = {name: matrix[:, k] for k, name in enumerate(manifest.labels)}
    return Manifest(manifest.frame.assign(**columns), manifest.labels)


def pool(manifest: Manifest) -> Manifest:
    """Return the unlabelled films of the train split."""
    return select(manifest, split="train", labelled=False)


def budget(manifest: Manifest) -> Manifest:
    """Return the label budget: the labelled films of the train split and the validation films."""
    frame = manifest.frame
    return rows(manifest, (((frame["split"] == "train") & frame["labelled"]) | (frame["split"] == "valid")).to_numpy())


def rows(manifest: Manifest, keep: npt.NDArray[np.bool_]) -> Manifest:
    """Return the rows where ``keep`` (N,) is true, numbered from 0."""
    return Manifest(manifest.frame.loc[keep].reset_index(drop=True), manifest.labels)


def select(manifest: Manifest, split: str | None = None, labelled: bool | None = None) -> Manifest:
    """Return the rows of one split, of one state of the labelled flag, or of both, numbered from 0."""
    keep = np.ones(len(manifest), dtype=bool)
    if split is not None:
        keep &= manifest.frame["split"].to_numpy() == split
    if labelled is not None:
        keep &= manifest.frame["labelled"].to_numpy() == labelled
    return rows(manifest, keep)


def patient_hash(patient: str) -> str:
    """Return 8 hexadecimal digits that stand for a patient in messages and reports (keyed BLAKE2b).

    The key is ``$NS_PATIENT_KEY``. Without it a fixed key is used: the identifier does not appear, but whoever has a
    list of identifiers can find it again by hashing them all.
    """
    key = os.environ.get("NS_PATIENT_KEY", "noisy_student").encode()
    return hashlib.blake2b(patient.encode(), key=hashlib.sha256(key).digest(), digest_size=4).hexdigest()


def check(manifest: Manifest) -> None:
    """Check the table.

    Raises:
        DataError: the table is empty, lacks a column, names an image twice or outside the root, has a value that is
            not allowed, a study with two patients, or a patient in two splits.
    """
    frame = manifest.frame
    expected = (*COLUMNS, *manifest.labels)
    if tuple(frame.columns) != expected:
        raise DataError(
            f"manifest: the columns are {', '.join(map(str, frame.columns))}; expected {', '.join(expected)}",
            "Make the manifest with a source of noisy_student.data.sources.",
        )
    if frame.empty:
        raise DataError("manifest: has no rows", "Check data.root, data.views and the tables of the data set.")
    _check_images(frame["image"])
    for column, allowed in VALUES.items():
        wrong = ~frame[column].isin(allowed).to_numpy()
        if wrong.any():
            image, value = frame.loc[wrong, ["image", column]].iloc[0]
            known = ", ".join(repr(name) for name in allowed)
            raise DataError(f"{image}: {column} is '{value}'", f"Known values are {known}.")
    matrix = values(manifest)
    with np.errstate(invalid="ignore"):
        wrong_labels = ~(np.isnan(matrix) | (matrix == -1) | ((matrix >= 0) & (matrix <= 1)))
    if wrong_labels.any():
        row, column_index = np.argwhere(wrong_labels)[0]
        raise DataError(
            f"{frame['image'].iloc[row]}: '{manifest.labels[column_index]}' is {matrix[row, column_index]:g}",
            "A label is blank, -1 (uncertain), or a number from 0 to 1.",
        )
    _check_owner(frame, "study", "patient", "Name studies so that two patients never share one.")
    _check_owner(
        frame[frame["split"] != ""],
        "patient",
        "split",
        "Move all films of a patient to one split; else the test set leaks.",
    )


def _check_images(images: pd.Series[str]) -> None:
    """Raise for a path that is empty, outside the root, or there twice."""
    outside = images.str.contains(_OUTSIDE, regex=True).to_numpy(dtype=bool) | (images == "").to_numpy()
    if outside.any():
        raise DataError(
            f"manifest: the path '{images[outside].iloc[0]}' (one of {int(outside.sum())}) is not below data.root",
            "Write paths relative to data.root, with '/' and without '.' or '..'.",
        )
    double = images.duplicated().to_numpy()
    if double.any():
        raise DataError(
            f"manifest: the image '{images[double].iloc[0]}' is listed twice ({int(double.sum())} rows too many)",
            "Keep one row per image.",
        )


def _check_owner(frame: pd.DataFrame, member: str, owner: str, hint: str) -> None:
    """Raise unless each value of column ``member`` goes with one value of column ``owner``; name members by hash."""
    pairs = frame[[member, owner]].drop_duplicates()
    double = pairs[member].duplicated()
    if double.any():
        names = sorted(set(pairs.loc[double, member]))
        examples = ", ".join(patient_hash(name) for name in names[:3])
        count = f"1 {member} has" if len(names) == 1 else f"{len(names)} of column '{member}' have"
        raise DataError(f"manifest: {count} more than one {owner} (hashed: {examples})", hint)


# -- files ---------------------------------------------------------------------------------------------------------


def write(manifest: Manifest, path: Path) -> None:
    """Write the manifest to a parquet file, atomically; equal tables give equal bytes.

    Raises:
        StorageError: the disk is full or not writable.
    """
    frame = manifest.frame
    kinds = {**dict.fromkeys(COLUMNS, pa.string()), "age": pa.float64(), "labelled": pa.bool_()}
    schema = pa.schema(
        [pa.field(name, kinds.get(name, pa.float32())) for name in (*COLUMNS, *manifest.labels)],
        metadata={"noisy_student.format": _FORMAT, "noisy_student.labels": json.dumps(manifest.labels)},
    )
    # from_pandas=False keeps NaN a NaN: a null would come back the same, but not with the same bytes.
    arrays = [pa.array(frame[field.name].to_numpy(), type=field.type, from_pandas=False) for field in schema]
    with runs.atomic(path) as temporary:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary, compression="zstd")


def read(path: Path) -> Manifest:
    """Return the manifest that :func:`write` wrote to ``path``.

    Raises:
        DataError: the file is missing, damaged, or not a manifest.
    """
    hint = "Run the stage that writes it again."
    try:
        table = pq.read_table(path)
        labels = tuple(json.loads(table.schema.metadata[b"noisy_student.labels"]))
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing", hint) from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({error})", hint) from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: is not a manifest (no list of labels in it)", hint) from error
    return build({name: table[name].to_pandas() for name in table.column_names}, labels)


def seal(manifest: Manifest) -> tuple[Manifest, Manifest]:
    """Return what training may see, and the sealed rows.

    The first has every row, with the labels of the pool (train films that are not labelled) and of the test films set
    to NaN. The second has the rows of the pool and of the test films with their labels; evaluation alone reads it.
    """
    split = manifest.frame["split"].to_numpy()
    hidden = (split == "test") | ((split == "train") & ~manifest.frame["labelled"].to_numpy())
    frame = manifest.frame.copy()
    for name in manifest.labels:
        frame[name] = frame[name].mask(hidden)
    return Manifest(frame, manifest.labels), rows(manifest, hidden)
