"""Splits that say on which films an arm is measured: development films, or one fold of all patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import preparation
from noisy_student.config import Config
from noisy_student.data import manifest, split_files, splits
from noisy_student.data.manifest import Manifest
from noisy_student.errors import ConfigError
from noisy_student.randomness import text_id, text_ids, uniform

DEVELOPMENT_SHARE: Final = 0.3
"""Share of the train patients on which trials are measured, in place of the test films."""


def write_development(config: Config, path: Path) -> None:
    """Write a split for trials: without the test films, and with part of the train patients in their place.

    Who they are depends neither on the seed nor on who is labelled, so all trials are measured on the same films.

    Raises:
        ConfigError: the split is a file, which cannot be drawn anew.
    """
    if config.split.file is not None:
        raise ConfigError("split.file: trials draw a split of their own", "Leave it out where trials are made.")
    films = preparation.examine(config, images=False)[0]
    if (films.frame["split"] == "").all() or config.split.sites or config.split.dates:
        films = splits.assign(films, config.split.model_copy(update={"seed": 0}))[0]
    rest = manifest.rows(films, (films.frame["split"] != "test").to_numpy())
    split = rest.frame["split"].to_numpy(dtype=object).copy()
    draw = uniform(text_id("benchmark.development"), text_ids(rest.frame["patient"].astype(str).tolist()))
    split[(split == "train") & (draw < DEVELOPMENT_SHARE)] = "test"
    _write(config, rest, split, path)


def write_fold(config: Config, number: int, count: int, path: Path) -> None:
    """Write a split whose test films are those of fold ``number`` of ``count`` folds of all patients, the rest train.

    Who is in which fold depends neither on the seed nor on who is labelled; the folds of one ``count`` have every film
    once. Validation films come from train patients (``split.validation: carve``).

    Raises:
        ConfigError: the split is a file, or its validation films would come from a split that is no more.
    """
    if config.split.file is not None or config.split.validation != "carve":
        raise ConfigError("split: folds are drawn anew and have no validation split", "Use validation: carve.")
    films = preparation.examine(config, images=False)[0]
    order = uniform(text_id("benchmark.folds"), text_ids(films.frame["patient"].astype(str).tolist()))
    rank = np.unique(order, return_inverse=True)[1]
    _write(config, films, np.where(rank % count == number, "test", "train").astype(object), path)


def _write(config: Config, films: Manifest, split: npt.NDArray[Any], path: Path) -> None:
    drawn = config.split.model_copy(update={"sites": {}, "dates": {}})
    path.parent.mkdir(parents=True, exist_ok=True)
    split_files.write(*splits.assign(manifest.replace(films, split=split), drawn), path)
