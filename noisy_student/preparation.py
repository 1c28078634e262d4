"""The stage before generation 0: data set to manifest, cache, labelled set, sealed labels."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import __version__
from noisy_student.config import Config, DataConfig
from noisy_student.config.load import config_hash, resolved, to_yaml
from noisy_student.data import cache, manifest, sources, splits, synthetic
from noisy_student.data.cache import Cache
from noisy_student.data.decode import DecodeSettings
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError
from noisy_student.runs import Run, read_json, text_hash, write_json, write_text
from noisy_student.targets.uncertainty import label_targets

STAGE: Final = "prepare"
_PACKAGES: Final = (
    "torch", "torchvision", "kornia", "numpy", "pandas", "scipy", "scikit-learn", "pillow", "pyarrow"
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set ready for use: its films as a manifest without split, and their pixels."""

    manifest: Manifest
    cache: Cache


def cache_folder(config: DataConfig) -> Path:
    """Return the folder of decoded films: ``data.cache_dir``, else ``$NS_CACHE``, else ``~/.cache/noisy_student``."""
    return config.cache_dir or cache.default_folder()


def data_root(config: DataConfig) -> Path:
    """Return the folder of the data set; that of the synthetic set depends on its settings where none is given."""
    if config.root is not None:
        return config.root
    name = text_hash(f"{synthetic.VERSION} {config.synthetic.model_dump_json()}")
    return cache_folder(config) / f"synthetic-{name}"


def open_source(config: DataConfig, *, progress: bool = False) -> Source:
    """Return the manifest and the cache of the configured data set, making what is missing.

    Raises:
        DataError: a table or film is missing or wrong, or too many films are unreadable.
    """
    root = data_root(config)
    if config.source == "synthetic":
        synthetic.write_dataset(root, config.synthetic, progress=progress)
    films = sources.load(config.model_copy(update={"root": root}))
    decoded = cache.build(
        root,
        tuple(films.frame["image"]),
        DecodeSettings(config.image_size, config.channels),
        cache_folder(config) / "films",
        workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        max_bad_share=config.max_bad_share,
        progress=progress,
    )
    return Source(films, decoded)


def prepare(run: Run, config: Config, *, progress: bool = False) -> Cache:
    """Make the run's manifest, sealed labels and split (once), and return the cache of its films.

    Raises:
        DataError: a split is empty, a label of the labelled films has one class only, or the data is wrong.
    """
    source = open_source(config.data, progress=progress)
    if run.is_complete(STAGE):
        run.verify(STAGE)
        return source.cache
    readable = manifest.rows(source.manifest, source.cache.ok)
    films, split = splits.assign(readable, config.split)
    manifest.check(films)
    labelled = manifest.select(films, split="train", labelled=True)
    target, weight = label_targets(manifest.values(labelled), config.data.labels, config.targets)
    splits.check_classes(target, weight, config.data.labels)
    seen, sealed = manifest.seal(films)
    manifest.write(seen, run.manifest)
    manifest.write(sealed, run.sealed)
    write_json(run.path / "split.json", split | {"unreadable": int((~source.cache.ok).sum())})
    write_text(run.path / "config.yaml", to_yaml(config))
    write_json(run.path / "config.resolved.json", resolved(config))
    write_json(run.path / "environment.json", environment())
    names = ("split.json", "config.yaml", "config.resolved.json", "environment.json")
    writes = [run.manifest, run.sealed, *(run.path / name for name in names)]
    run.record(STAGE, None, [], writes, {"config": config_hash(config), "cache": source.cache.key})
    return source.cache


def environment() -> dict[str, Any]:
    """Return versions and the kind of machine; no host, user or environment variables."""
    versions: dict[str, Any] = {"noisy_student": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        versions[name] = metadata.version(name)
    return versions | {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}


def stored_split(run: Run) -> dict[str, Any]:
    """Return the content of the run's ``split.json``."""
    split: dict[str, Any] = read_json(run.path / "split.json")
    return split


def film_rows(decoded: Cache, films: Manifest) -> npt.NDArray[np.int64]:
    """Return the positions (N,) of the manifest's films in the cache.

    Raises:
        DataError: a film is not in the cache, or has become unreadable since the run was prepared.
    """
    if not len(films):
        raise DataError("there are no films to read", "Check the split: it is empty.")
    return decoded.rows(list(films.frame["image"]))
