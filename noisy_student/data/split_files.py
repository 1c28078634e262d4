"""A split in a file of its own, with a hash: written once, used by any number of runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noisy_student import runs
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError, UsageError

_KEY: Final = b"noisy_student.split"


def digest(manifest: Manifest) -> str:
    """Return the SHA-256 of image, split and labelled flag of every film, in the order of the images."""
    frame = manifest.frame
    image = pa.array(frame["image"], type=pa.string())
    order = pc.sort_indices(image)
    flag = pa.array(frame["labelled"]).cast(pa.int8()).cast(pa.string())
    lines = pc.binary_join_element_wise(image, pa.array(frame["split"], type=pa.string()), flag, "\t").take(order)
    return hashlib.sha256("".join(f"{line}\n" for line in lines.to_pylist()).encode()).hexdigest()


def stored_hash(path: Path) -> str | None:
    """Return the hash that the split file at ``path`` bears; ``None`` where there is no such file."""
    try:
        summary = json.loads(pq.read_schema(path).metadata[_KEY])
    except (OSError, KeyError, TypeError, ValueError):  # what is wrong with it is said where it is used
        return None
    return str(summary.get("hash"))


def places(output: Path, seeds: Sequence[int]) -> list[Path]:
    """Return where the split of each seed goes: ``output`` itself, or NAME-SEED.parquet where there are several."""
    if len(seeds) == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{seed}{output.suffix}") for seed in seeds]


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise unless a split may be written to ``path``: a new file, or with ``overwrite`` a split in place of another.

    Raises:
        UsageError: the name does not end in ``.parquet``, or there is something else than a split, or a split.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a directory", "Name a file that ends in .parquet.")
    if path.suffix != ".parquet":
        raise UsageError(f"{path}: a split is a Parquet file", "Choose a name that ends in .parquet.")
    if not path.exists():
        return
    if not _is_split(path):
        raise UsageError(
            f"{path}: is not a split written by ns data split, so it is left alone", "Choose another name."
        )
    if not overwrite:
        raise UsageError(f"{path}: there is a split already", "Add --overwrite to replace it, or choose another name.")


def _is_split(path: Path) -> bool:
    try:
        return _KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowInvalid):
        return False


def write(manifest: Manifest, summary: dict[str, Any], path: Path) -> None:
    """Write the split of ``manifest`` as Parquet (image, split, labelled), with its summary and hash in the file.

    Raises:
        UsageError: there is another file at ``path``, or it does not end in ``.parquet``.
        StorageError: the disk is full or not writable.
    """
    check_place(path, overwrite=True)
    frame = manifest.frame.sort_values("image", kind="stable")
    table = pa.table(
        {
            "image": pa.array(frame["image"], pa.string()),
            "split": pa.array(frame["split"], pa.string()),
            "labelled": pa.array(frame["labelled"].to_numpy(dtype=bool)),
        }
    ).replace_schema_metadata({_KEY: json.dumps(summary)})
    with runs.atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def apply(manifest: Manifest, path: Path, missing_share: float) -> tuple[Manifest, dict[str, Any]]:
    """Return the films of ``manifest`` that the split file names, with its splits and flags, and its summary.

    Args:
        manifest: films of the data set, all of them.
        path: the file.
        missing_share: share of the file's films that the data set may lack (unreadable ones have no row).

    Raises:
        DataError: the file is missing, was changed, or was made for other films.
    """
    hint = "Write it again with ns data split."
    try:
        table = pq.read_table(path)
        summary: dict[str, Any] = json.loads(table.schema.metadata[_KEY])
        rows = Manifest(table.select(["image", "split", "labelled"]).to_pandas(), ())
    except FileNotFoundError as error:
        raise DataError(f"split.file: {path} is missing", "Make it with ns data split, or correct the path.") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"split.file: {path} cannot be read ({error})", hint) from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"split.file: {path} is not a split written by ns data split", hint) from error
    if digest(rows) != summary.get("hash"):
        raise DataError(f"split.file: {path} was changed after it was written: its hash does not fit", hint)
    place = pd.Index(rows.frame["image"]).get_indexer(manifest.frame["image"])
    keep = place >= 0
    lost = len(rows) - int(keep.sum())
    if lost > missing_share * len(rows):
        raise DataError(
            f"split.file: {path} names {lost} films of {len(rows)} that the data set does not have",
            "Use the data set it was made for (source, root, views), or make a new split.",
        )
    split = rows.frame["split"].to_numpy(dtype=object)[place]
    flag = rows.frame["labelled"].to_numpy(dtype=bool)[place]
    chosen = manifests.rows(manifests.replace(manifest, split=split, labelled=flag), np.asarray(keep))
    return chosen, summary | {"missing": lost}
