"""The stage before generation 0: data set to manifest, cache, labelled set, sealed labels."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import __version__
from noisy_student.config import Config, DataConfig
from noisy_student.config.load import config_hash, resolved, to_yaml
from noisy_student.data import cache, check, manifest, sources, split_files, splits
from noisy_student.data.cache import Cache
from noisy_student.data.decode import DecodeSettings
from noisy_student.data.manifest import Manifest
from noisy_student.errors import ConfigError, DataError
from noisy_student.runs import Run, read_json, text_hash, write_json, write_text
from noisy_student.targets import folds
from noisy_student.targets.uncertainty import fill_parents, label_targets

Floats = npt.NDArray[np.float32]

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
    from noisy_student.data.synthetic import VERSION  # here, because it brings SciPy: half a second for a table

    name = text_hash(f"{VERSION} {config.synthetic.model_dump_json()}")
    return cache_folder(config) / f"synthetic-{name}"


def decode_settings(config: DataConfig) -> DecodeSettings:
    """Return what the pixels of the configured data set depend on."""
    return DecodeSettings(config.image_size, config.channels, config.fit, config.window)


def open_source(config: DataConfig, *, progress: bool = False, stop: Callable[[], bool] = lambda: False) -> Source:
    """Return the manifest and the cache of the configured data set, making what is missing.

    Raises:
        DataError: a table or film is missing or wrong, or too many films are unreadable.
        StoppedError: ``stop()`` became true while films were being decoded.
    """
    films = _films(config, progress=progress)
    decoded = cache.build(
        data_root(config),
        tuple(films.frame["image"]),
        decode_settings(config),
        cache_folder(config) / "films",
        workers=workers(),
        max_bad_share=config.max_bad_share,
        progress=progress,
        stop=stop,
    )
    return Source(films, decoded)


def _films(config: DataConfig, *, images: bool = True, progress: bool = False) -> Manifest:
    """Return the films of the data set, after making the synthetic one where it is not there."""
    root = data_root(config)
    if config.source == "synthetic":
        from noisy_student.data import synthetic

        synthetic.write_dataset(root, config.synthetic, progress=progress)
    return sources.load(config.model_copy(update={"root": root}), images=images)


def workers() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_parents(films: Manifest, config: Config) -> Manifest:
    """Return the films with parents filled from their children, where ``targets.fill_parents`` asks for it.

    Filled before anything else sees the labels, so that training, validation and test agree on what they mean.
    """
    if not config.targets.fill_parents:
        return films
    return manifest.with_values(films, fill_parents(manifest.values(films), films.labels))


def assigned(films: Manifest, config: Config) -> tuple[Manifest, dict[str, Any]]:
    """Return the films that the split of the configuration takes, parents filled, and what it did; see
    :func:`noisy_student.data.splits.assign`.
    """
    return splits.assign(with_parents(films, config), config.split, config.data.max_bad_share)


def examine(config: Config, *, images: bool, progress: bool = False) -> tuple[Manifest, Floats, Floats, int | None]:
    """Return the films of the data set, their targets and weights (N, K), and how many of the films are not there.

    The last is ``None`` where ``images`` is false: then only the tables are read. Nothing is decoded or written, but
    the synthetic set is made where it is not there yet.

    Raises:
        DataError: a table is missing or wrong.
    """
    films = with_parents(_films(config.data, images=images, progress=progress), config)
    target, weight = label_targets(manifest.values(films), films.labels, config.targets, films.frame["image"].tolist())
    missing = int((~sources.there(data_root(config.data), films)).sum()) if images else None
    return films, target, weight, missing


def write_splits(
    config: Config, seeds: Sequence[int], output: Path | None, *, progress: bool = False
) -> list[dict[str, Any]]:
    """Return what the split of each seed holds, after writing it to ``output`` (``None`` writes nothing).

    Several seeds go to ``NAME-0.parquet``, ``NAME-1.parquet`` and so on. To the summary of
    :func:`noisy_student.data.splits.assign` each entry adds ``path``, ``labelled_positives`` (films by label) and
    ``problems`` (labels of which the labelled films show one class only).

    Raises:
        DataError: a table is wrong, or the split cannot be made.
    """
    try:  # where the films are there, under the names that a run will have them
        found = _films(config.data, images=True, progress=progress)
    except DataError:
        found = _films(config.data, images=False, progress=progress)
    films = with_parents(found, config)
    made = []
    places: Sequence[Path | None] = [None] * len(seeds) if output is None else split_files.places(output, seeds)
    for seed, path in zip(seeds, places, strict=True):
        asked = config.split.model_copy(update={"seed": seed})
        chosen, summary = splits.assign(films, asked, config.data.max_bad_share)
        if path is not None:
            split_files.write(chosen, summary, path)
        labelled = manifest.select(chosen, split="train", labelled=True)
        values = manifest.values(labelled)
        target, weight = label_targets(values, films.labels, config.targets, labelled.frame["image"].tolist())
        positives = {name: int((values[:, k] == 1).sum()) for k, name in enumerate(films.labels)}
        problems = splits.one_class(target, weight, films.labels)
        more = {"path": path and str(path), "labelled_positives": positives, "problems": problems}
        made.append(summary | more)
    return made


def check_films(config: Config, *, progress: bool = False) -> dict[str, Any]:
    """Return what is wrong with the films of the data set; see :func:`noisy_student.data.check.check`.

    Films are filed under the split of the configuration, and under the data set's own where that cannot be made:
    ``split_problem`` says why then, and is ``None`` else.

    Raises:
        DataError: a table is missing or wrong, or ``split.file`` is.
    """
    films, problem = _films(config.data, progress=progress), None
    try:
        whole, _ = assigned(films, config)
    except DataError as error:
        if config.split.file is not None:
            raise
        split, problem = films.frame["split"], error.message
    else:
        chosen = whole.frame.set_index("image")["split"]
        split = films.frame["image"].map(chosen).fillna(check.LEFT_OUT)
    films = manifest.replace(films, split=split)
    return {"split_problem": problem} | check.check(
        films,
        data_root(config.data),
        config.data.image_size,
        window=config.data.window,
        workers=workers(),
        progress=progress,
    )


def check_views(films: Manifest, config: Config) -> None:
    """Raise :class:`DataError` where frontal views come first and no film is known to be one."""
    if config.evaluation.aggregation == "frontal" and not (films.frame["view"] == "frontal").any():
        raise DataError(
            "evaluation.aggregation: frontal, and of no film of the data set is it known that it is frontal",
            "Use mean or max, or say which column holds the view (data.columns.view).",
        )


@dataclass(frozen=True)
class Sizes:
    """How many films there are to learn from: labelled ones of train, the label budget, the pool, and each fold."""

    labelled: int
    budget: int
    pool: int
    folds: tuple[int, ...] = ()

    def seen(self, config: Config, generation: int, number: int) -> int:
        """Return how many films network ``number`` of ``generation`` learns from."""
        kept_from_it = self.folds[number] if number < len(self.folds) else 0
        known = self.budget - kept_from_it if self.folds else self.labelled
        return known + (self.pool if config.uses_pool(generation, number) else 0)


def sizes(films: Manifest, config: Config) -> Sizes:
    """Return how many of ``films``, which have a split, there are to learn from.

    Raises:
        DataError: there are fewer patients with labels than folds.
    """
    fold = _dealt(films, config)[1] if config.folds > 1 else np.zeros(0, dtype=np.int64)
    labelled = manifest.select(films, split="train", labelled=True)
    dealt = tuple(int(count) for count in np.bincount(fold))
    return Sizes(len(labelled), len(manifest.budget(films)), len(manifest.pool(films)), dealt)


def _dealt(films: Manifest, config: Config) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Return the films (N,) of the label budget and the fold (N,) of each."""
    budget = manifest.budget(films)
    images, patients = (budget.frame[name].to_numpy(dtype=object) for name in ("image", "patient"))
    return images, folds.deal(patients, manifest.values(budget) == 1, config.folds, config.split.seed)


def check_train(films: Manifest, config: Config) -> Sizes:
    """Check that the train split of ``films``, which have one, can teach what the configuration asks for, and return
    how many there are to learn from.

    Raises:
        ConfigError: pairs of films are asked for, and no two films belong together; or lengths in epochs leave no steps
            for a phase without one.
        DataError: a label of the labelled films has one class only, or fewer patients than folds have labels.
    """
    pairs = "film" if config.pretrain.method == "none" else config.pretrain.pairs
    if pairs != "film" and manifest.select(films, split="train").frame[pairs].is_unique:
        raise ConfigError(
            f"pretrain.pairs: every film of the train split is of another {pairs}, so that there are no pairs",
            "Use pretrain.pairs: film, or name the column that says what belongs together (data.columns).",
        )
    labelled = manifest.select(films, split="train", labelled=True)
    images = labelled.frame["image"].tolist()
    target, weight = label_targets(manifest.values(labelled), config.data.labels, config.targets, images)
    splits.check_classes(target, weight, config.data.labels)
    found = sizes(films, config)
    for generation in config.phases():
        for number, phase in config.trainings(generation).items():
            phase.stretches(found.seen(config, generation, number))
    return found


def prepare(run: Run, config: Config, *, progress: bool = False, stop: Callable[[], bool] = lambda: False) -> Cache:
    """Make the run's manifest, sealed labels and split (once), and return the cache of its films.

    Raises:
        ConfigError: what :func:`check_train` says.
        DataError: a split is empty, a label of the labelled films has one class only, or the data is wrong.
        StoppedError: ``stop()`` became true while films were being decoded.
    """
    source = open_source(config.data, progress=progress, stop=stop)
    if run.is_complete(STAGE):
        run.verify(STAGE)
        return source.cache
    readable = manifest.rows(source.manifest, source.cache.ok)
    check_views(readable, config)
    films, split = assigned(readable, config)
    check_train(films, config)
    seen, sealed = manifest.seal(films)
    manifest.write(seen, run.manifest)
    manifest.write(sealed, run.sealed)
    left_out = {"unreadable": int((~source.cache.ok).sum()), "quarantine": _quarantine(source)}
    write_json(run.path / "split.json", split | left_out)
    write_text(run.path / "config.yaml", to_yaml(config))
    write_json(run.path / "config.resolved.json", resolved(config))
    write_json(run.path / "environment.json", environment())
    names = ("split.json", "config.yaml", "config.resolved.json", "environment.json")
    writes = [run.manifest, run.sealed, *(run.path / name for name in names)]
    if config.folds > 1:
        folds.write(*_dealt(seen, config), run.folds)
        writes.append(run.folds)
    run.record(STAGE, None, [], writes, {"config": config_hash(config), "cache": source.cache.key})
    return source.cache


def _quarantine(source: Source) -> list[dict[str, str]]:
    """Return the patient (as a hash) and the reason of the unreadable films, of the first hundred where there are more.

    The films' paths can name patients; they are in ``quarantine.csv`` of the cache, which stays where the data is.
    """
    bad = dict(source.cache.quarantine[:100])
    frame = source.manifest.frame
    rows = frame[frame["image"].isin(list(bad))] if bad else frame.iloc[:0]
    patients = dict(zip(rows["image"], rows["patient"], strict=True))
    return [
        {"patient": manifest.patient_hash(str(patients[image])), "reason": reason}
        for image, reason in bad.items()
        if image in patients
    ]


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
