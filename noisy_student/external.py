"""External validation: a model of a run on the films of another data set, over the labels that both have."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from noisy_student import evaluation, measures, prediction, preparation, scoring
from noisy_student.best import best_generation
from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.data import manifest, near_duplicates, splits
from noisy_student.data.cache import Cache
from noisy_student.data.decode import decode
from noisy_student.data.manifest import Manifest
from noisy_student.errors import ConfigError, DataError, NoisyStudentError, UsageError
from noisy_student.labels import shared
from noisy_student.runs import Run, file_hash, read_json, text_hash
from noisy_student.stats.consensus import Consensus
from noisy_student.workplace import Workplace

_COMPARED: Final = 32
"""Films that are looked at to tell a copy of the run's data from a data set that is laid out alike."""

_ABOUT_DATA: Final = (("data",), ("split",), ("targets", "blank"), ("targets", "fill_parents"))
"""Sections and keys that say what another data set is."""


def chosen_generation(run: Run, asked: int | None = None) -> int:
    """Return the generation that was ``asked`` for, or else the best one (:func:`noisy_student.best.best_generation`).

    Where none has been judged yet, that is the last one that was calibrated.

    Raises:
        UsageError: nothing has been trained.
    """
    if asked is not None:
        return asked
    best = best_generation(run)
    if best is not None:
        return best
    ready = [number for number in run.generations() if run.is_complete("calibrate", number)]
    if not ready:
        raise UsageError(f"{run.path}: nothing has been trained yet", "Run ns train-teacher first.")
    return ready[-1]


def load_other(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of another data set for :func:`evaluate` and ``ns recalibrate``.

    Raises:
        ConfigError: it cannot be read, or an override is about something else than films and their labels.
    """
    other = load(path, overrides)
    for override in overrides:
        keys = tuple(override.partition("=")[0].strip().split("."))
        if not any(keys[: len(told)] == told for told in _ABOUT_DATA):
            raise ConfigError(
                f"--set {override}: does nothing where a run meets another data set; how it is measured is in the "
                "run's own configuration",
                f"Set one of {', '.join('.'.join(told) for told in _ABOUT_DATA)}.",
            )
    return other


Check = Callable[[str], None]
"""Takes the hash of the films before anything is predicted, and raises where they must not be used."""


def refuse_others(path: Path, data: str, *, overwrite: bool = False) -> None:
    """Refuse to replace the file at ``path`` with one of the films of hash ``data``, unless it is of the same films.

    Raises:
        UsageError: it is of others, of a version that did not say, or no result of ours, and not ``overwrite``.
    """
    if overwrite or not path.exists():
        return
    with contextlib.suppress(NoisyStudentError, KeyError, TypeError):  # another kind of file
        if read_json(path)["data"] == data:
            return
    raise UsageError(
        f"{path}: is there already, and not known to be of the same films",
        "Name another file with -o, or add --overwrite.",
    )


@dataclass(frozen=True, eq=False)
class Opened:
    """Labelled films of another data set, their pixels, and the labels that both have: (the model's, the data's)."""

    films: Manifest
    pixels: Cache
    pairs: tuple[tuple[str, str], ...]

    def matched(self, labels: tuple[str, ...]) -> dict[str, Any]:
        """Return which labels are compared and which only the model (of ``labels``) or only the data has."""
        ours, theirs = [name for name, _ in self.pairs], [name for _, name in self.pairs]
        return {
            "compared": [{"model": one, "data": other} for one, other in self.pairs],
            "only_model": [name for name in labels if name not in ours],
            "only_data": [name for name in self.films.labels if name not in theirs],
        }

    def hash(self) -> str:
        """Return a hash of the films by name, patient, study and labels, whatever their order and wherever they lie."""
        told = self.films.frame[["image", "patient", "study", *self.films.labels]]
        return text_hash(told.sort_values("image").to_csv(index=False))

    def with_shared_labels(self) -> Manifest:
        """Return the films with the labels that both have, in the data's names."""
        return Manifest(self.films.frame, tuple(name for _, name in self.pairs))


def evaluate(
    work: Workplace,
    other: Config,
    generation: int,
    calibration: Path | None = None,
    check: Check = lambda _: None,
) -> dict[str, Any]:
    """Return the measures of ``generation`` on the test films of ``other``, per film and per study.

    Probabilities are those of the run's own calibration, which nothing is fitted to again: what is off on the other
    data set shows in Brier score and ECE. Operating points are those that were chosen on the run's own films, with
    ``calibration`` in its probabilities, so that films are called positive as without it.
    ``compared`` names each label in both data sets' words; ``only_model`` and ``only_data`` are the labels left out;
    ``data`` is the hash of the films, which ``check`` takes first.
    ``calibration`` is a file of ``ns recalibrate`` to use in place of the run's own; the other arguments and errors are
    those of :func:`opened`.

    Raises:
        UsageError: the file is of other networks, or is no calibration.
    """
    run, config = work.run, work.config
    data = opened(work, other, generation)
    films_hash = data.hash()
    check(films_hash)
    title = f"generation {generation}: predicting {other.data.source}"
    logits = prediction.said(
        work, generation, prediction.predict_networks(work, generation, data.films, data.pixels, title)
    )
    fitted = scoring.calibrations(run, generation)
    if calibration is not None:
        fitted = refitted(calibration, generation, weights_of(run, config, generation))
    labels = [ours for ours, _ in data.pairs]
    columns = tuple(config.data.labels.index(name) for name in labels)
    blank, said = other.targets.blank, np.asarray(logits, dtype=np.float64)
    scores = scoring.Scores(data.with_shared_labels(), said, fitted, columns)
    before = scores.uncalibrated(blank, config.evaluation.aggregation)
    points = evaluation.thresholds(run, config, generation, None if calibration is None else fitted)
    return {
        "generation": generation,
        "source": other.data.source,
        "data": films_hash,
        "calibration": None if calibration is None else calibration.name,
        **data.matched(config.data.labels),
        "confidence": config.evaluation.confidence,
        "splits": {"test": measures.measured(scores.levels(blank), labels, labels, config, before, points)},
        "subgroups": measures.subgroups(
            scores.films, lambda _, keep: scores.rows(keep).levels(blank), labels, labels, config
        ),
    }


def weights_of(run: Run, config: Config, generation: int) -> str:
    """Return a hash of all that the networks' own words depend on: their weights and how films are decoded."""
    hashes = [file_hash(folder / "model.safetensors") for folder in run.networks(generation)]
    return text_hash(f"{hashes} {preparation.decode_settings(config.data)}")


def refitted(path: Path, generation: int, weights: str) -> Consensus:
    """Return the calibration of a file of ``ns recalibrate``; ``weights`` is what :func:`weights_of` says.

    Raises:
        UsageError: the file is of other networks, or is no calibration.
    """
    try:
        found = read_json(path)
        # A calibration of other networks, or of other labels, would give numbers like any.
        if found["generation"] == generation and found["weights"] == weights:
            return Consensus.from_json(found["calibration"])
    except (NoisyStudentError, ValueError, KeyError, TypeError, AttributeError):  # another kind of file
        pass
    raise UsageError(
        f"{path}: is no calibration of generation {generation} of this run by ns recalibrate",
        "Name a file of the run's folder recalibrated/, and its generation with --generation.",
    )


def opened(work: Workplace, other: Config, generation: int, *, own_test: bool = True) -> Opened:
    """Return the test films of ``other``, decoded as ``generation`` was trained to see them.

    The films are those of :func:`noisy_student.data.splits.films_to_measure`: the official test set, or all films of a
    data set without splits. Patients whom the run trained on or validated with are left out: those of films at the
    same path in the folder of the run's own data, and, in another folder, at the same path and of the same patient
    (a copy).

    Films are decoded as the model was trained to see them: size, channels and fit are the run's. ``window`` says how
    the values of films of more than 8 bits become grey, which differs from one collection to the next, so it is the
    other data set's where that sets one, and the run's where it does not.

    Args:
        work: the run; its own films are not needed.
        other: configuration of the other data set.
        generation: a calibrated generation of the run.
        own_test: whether patients of the run's own test set may be among them.

    Raises:
        UsageError: the generation is not trained and calibrated.
        DataError: there are no test films with labels, or no label that both have.
    """
    run, config = work.run, work.config
    if not run.is_complete("calibrate", generation):
        raise UsageError(
            f"{run.path}: generation {generation} is not trained and calibrated",
            f"Choose among {', '.join(map(str, run.generations()))}, or finish it with ns iterate --resume.",
        )
    pairs = shared(config.data.labels, other.data.labels)
    if not pairs:
        raise DataError(
            "the model and the data set have no label in common",
            f"The model has {', '.join(config.data.labels)}; data.labels names {', '.join(other.data.labels)}.",
        )
    seen_as = {key: getattr(config.data, key) for key in ("image_size", "channels", "fit")}
    seen_as["window"] = other.data.window or config.data.window
    source = preparation.open_source(other.data.model_copy(update=seen_as), progress=work.progress, stop=work.stop)
    readable = preparation.with_parents(manifest.rows(source.manifest, source.cache.ok), other)
    test = splits.films_to_measure(readable, other.split, other.data.max_bad_share)
    test = _not_seen(work, other, test, source.cache, own_test)
    return Opened(test, source.cache, pairs)


def _not_seen(work: Workplace, other: Config, films: Manifest, pixels: Cache, own_test: bool) -> Manifest:
    """Return the films without the patients of the run's train and validation films, and without those of its test
    films unless ``own_test``.

    In the run's own folder a film is known by its path, and a patient by name too where the table is the run's own or
    calls the patients of the films that both have by the same names. Elsewhere a film is the run's where path and
    patient are: the folder may be a copy. Other data sets can be laid out alike (every CheXpert has a patient00001), so
    where the run's films are still there some of them are compared.

    Raises:
        DataError: no film is left.
    """
    own = manifest.read(work.run.manifest).frame
    patient, key = films.frame["patient"], ["image"]
    if preparation.data_root(other.data).resolve() != preparation.data_root(work.config.data).resolve():
        key = ["image", "patient"]
    known = pd.MultiIndex.from_frame(films.frame[key]).isin(pd.MultiIndex.from_frame(own[key]))
    if len(key) == 2 and not _are_copies(work.config, films.frame["image"][known].tolist(), pixels):
        return films
    seen = own if not own_test else own[own["split"] != "test"]
    used = patient[pd.MultiIndex.from_frame(films.frame[key]).isin(pd.MultiIndex.from_frame(seen[key]))]
    if len(key) == 1 and _same_names(work.config, other, own, films.frame):
        used = pd.concat([used, seen["patient"]])
    left = manifest.rows(films, (~patient.isin(used)).to_numpy())
    if not len(left):
        raise DataError(
            f"{preparation.data_root(other.data)}: the run was trained on or validated with all of the test films"
            + ("" if own_test else ", or is measured on them"),
            "Name another data set, or measure the run's own test films with ns evaluate without --config.",
        )
    return left


def _same_names(config: Config, other: Config, own: pd.DataFrame, films: pd.DataFrame) -> bool:
    """Return whether a patient's name means the same patient in two tables of one folder."""
    tables = [(data.source, data.csv) for data in (config.data, other.data)]
    both = films[["image", "patient"]].merge(own[["image", "patient"]], on="image")
    return tables[0] == tables[1] or (len(both) > 0 and bool((both["patient_x"] == both["patient_y"]).all()))


def _are_copies(config: Config, images: list[str], pixels: Cache) -> bool:
    """Return whether most of ``images`` show in ``pixels`` what they show in the run's own folder, where it has them.

    Up to :data:`_COMPARED` films are looked at; where none can be, they count as copies.
    """
    root, settings = preparation.data_root(config.data), preparation.decode_settings(config.data)
    ours, names = [], []
    for image in images[:: max(1, len(images) // _COMPARED)][:_COMPARED]:
        with contextlib.suppress(DataError):  # no longer there, or damaged
            ours.append(near_duplicates.thumbnail(decode(root / image, settings)))
            names.append(image)
    if not names:
        return True
    theirs = [near_duplicates.thumbnail(pixels.pixels[row]) for row in pixels.rows(names)]
    pairs, _ = near_duplicates.find(np.stack([*ours, *theirs]))
    return 2 * int((pairs[:, 1] - pairs[:, 0] == len(names)).sum()) > len(names)
