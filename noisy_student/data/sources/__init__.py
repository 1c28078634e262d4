"""One small module per data set: its tables -> the manifest."""

from __future__ import annotations

from noisy_student.config import DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.data.sources import chexpert, csv_table
from noisy_student.errors import DataError

_READERS = {"chexpert": chexpert.load, "synthetic": chexpert.load, "csv": csv_table.load}


def load(config: DataConfig) -> Manifest:
    """Return the checked manifest of the configured data set.

    ``split`` is as the data set has it (empty where it has none); ``labelled`` says that a film carries labels.
    :func:`noisy_student.data.splits.assign` then chooses the labelled set. The synthetic set is read like CheXpert
    and has to be in ``config.root``.

    Raises:
        DataError: the folder or a table is missing, or its content cannot be used.
    """
    root = config.root
    if root is None or not root.is_dir():
        raise DataError(f"data.root: {root or 'no folder given'} is not a folder", "Set data.root to the data set.")
    manifest = _READERS[config.source](root, config)
    if config.views == "frontal":
        manifest = manifests.rows(manifest, manifest.frame["view"].to_numpy() == "frontal")
    manifests.check(manifest)
    return manifest
