"""One small module per data set: its tables -> the manifest."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import (
    chexpert,
    chexpert_plus,
    csv_table,
    dicom,
    folders,
    mimic,
    nih,
    padchest,
    vindr,
)
from noisy_student.errors import DataError

Reader = Callable[[Path, DataConfig, bool], Manifest]
"""Takes the root, the settings, and whether to look for film files; returns the films."""

_MODULES: Final = {
    "chexpert": chexpert,
    "synthetic": chexpert,
    "chexpert_plus": chexpert_plus,
    "nih": nih,
    "mimic": mimic,
    "vindr": vindr,
    "padchest": padchest,
    "folders": folders,
    "dicom": dicom,
    "csv": csv_table,
}
_log = logging.getLogger(__name__)


def is_there(config: DataConfig, root: Path) -> bool:
    """Return whether all tables that the source reads are in ``root``."""
    return all(path.exists() for path in _MODULES[config.source].tables(root, config))


def load(config: DataConfig, *, images: bool = True) -> Manifest:
    """Return the checked manifest of the configured data set.

    ``split`` is as the data set has it (empty where it has none); ``labelled`` says that a film carries labels.
    :func:`noisy_student.data.splits.assign` then chooses the labelled set. The synthetic set is read like CheXpert
    and has to be in ``config.root``.

    Args:
        config: the settings.
        images: false needs the tables alone: films are then where the data set's own layout has them.

    Raises:
        DataError: the folder or a table is missing, or its content cannot be used.
    """
    root = config.root
    if root is None or not root.is_dir():
        raise DataError(f"data.root: {root or 'no folder given'} is not a folder", "Set data.root to the data set.")
    source = _MODULES[config.source]
    reader: Reader = source.load
    manifest = reader(root, config, images)
    if config.views == "frontal":
        manifest = manifests.rows(manifest, manifest.frame["view"].to_numpy() == "frontal")
    if images and config.missing == "leave_out":
        found = there(root, manifest)
        if not found.all():
            _log.warning("%d of %d films are not below %s and are left out", (~found).sum(), len(found), root)
        manifest = manifests.rows(manifest, found)
    try:
        manifests.check(manifest)
    except DataError as error:  # of the films of all tables together
        tables = ", ".join(str(path) for path in source.tables(root, config) if path.exists()) or str(root)
        raise DataError(f"{tables}: {error.message.removeprefix('manifest: ')}", error.hint) from error
    return manifest


def there(root: Path, manifest: Manifest) -> npt.NDArray[np.bool_]:
    """Return which films (N,) have a file; every folder is listed once."""
    images = manifest.frame["image"]
    folders_of = images.str.rpartition("/")[0]
    listed: set[str] = set()
    for folder in folders_of.unique():
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                # A link to nothing is how git-annex leaves a film that was not fetched.
                names = [entry.name for entry in entries if not entry.is_symlink() or os.path.exists(entry.path)]  # noqa: PTH110
            listed |= {f"{folder}/{name}" if folder else name for name in names}
    return np.asarray(images.isin(listed), dtype=bool)
