"""External validation: a model of a run on the films of another data set, over the labels that both have."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from noisy_student import evaluation, measures, preparation, training
from noisy_student.config import Config
from noisy_student.data import manifest, splits
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError, UsageError
from noisy_student.labels import shared
from noisy_student.runs import Run, read_json
from noisy_student.stats.calibration import Calibration
from noisy_student.workplace import Workplace


def best_generation(run: Run) -> int:
    """Return the generation that the run's report names best; the last calibrated one where there is no report yet.

    Raises:
        UsageError: nothing has been trained.
    """
    if (run.path / "report.json").is_file():
        best: int = read_json(run.path / "report.json")["best"]
        return best
    ready = [number for number in run.generations() if run.is_complete("calibrate", number)]
    if not ready:
        raise UsageError(f"{run.path}: nothing has been trained yet", "Run ns train-teacher first.")
    return ready[-1]


def evaluate(work: Workplace, other: Config, generation: int) -> dict[str, Any]:
    """Return the measures of ``generation`` on the test films of ``other``, per film and per study.

    The films are those of :func:`noisy_student.data.splits.films_to_measure`: the official test set, or all films of a
    data set without splits. Where the other data set lies in the folder of the run's own, patients whom the run trained
    on or validated with are left out.

    Films are decoded as the model was trained to see them: size, channels and fit are the run's. ``window`` says how
    the values of films of more than 8 bits become grey, which differs from one collection to the next, so it is the
    other data set's where that sets one, and the run's where it does not.

    Probabilities are those of the run's own calibration, which nothing is fitted to again: what is off on the other
    data set shows in Brier score and ECE. Operating points keep the thresholds that were chosen on the run's own films.
    ``compared`` names each label in both data sets' words; ``only_model`` and
    ``only_data`` are the labels left out.

    Args:
        work: the run; its own films are not needed.
        other: configuration of the other data set.
        generation: a calibrated generation of the run.

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
    test = _not_seen(work, other, splits.films_to_measure(readable, other.split, other.data.max_bad_share))
    title = f"generation {generation}: predicting {other.data.source}"
    logits = np.mean(training.predict_networks(work, generation, test, source.cache, title), axis=0)
    calibration = Calibration.from_json(read_json(run.generation(generation) / "calibration.json"))
    columns = [config.data.labels.index(ours) for ours, _ in pairs]
    probability = calibration.probability(logits)[:, columns]
    labels, theirs = [ours for ours, _ in pairs], tuple(name for _, name in pairs)
    films, blank = Manifest(test.frame, theirs), other.targets.blank
    levels = evaluation.by_level(films, probability, blank)
    before = evaluation.by_level(films, expit(np.asarray(logits, dtype=np.float64)[:, columns]), blank)
    points = evaluation.thresholds(run, config, generation)
    return {
        "generation": generation,
        "source": other.data.source,
        "compared": [{"model": ours, "data": name} for ours, name in pairs],
        "only_model": [name for name in config.data.labels if name not in labels],
        "only_data": [name for name in other.data.labels if name not in theirs],
        "confidence": config.evaluation.confidence,
        "splits": {"test": measures.measured(levels, labels, labels, config, before, points)},
        "subgroups": measures.subgroups(
            films, lambda own, keep: evaluation.by_level(own, probability[keep], blank), labels, labels, config
        ),
    }


def _not_seen(work: Workplace, other: Config, films: Manifest) -> Manifest:
    """Return the films without the patients of the run's train and validation films, where both share a folder.

    Raises:
        DataError: no film is left.
    """
    if preparation.data_root(other.data).resolve() != preparation.data_root(work.config.data).resolve():
        return films
    own = manifest.read(work.run.manifest).frame
    patient = films.frame["patient"]
    used = patient[films.frame["image"].isin(own["image"][own["split"] != "test"])]
    left = manifest.rows(films, (~patient.isin(used)).to_numpy())
    if not len(left):
        raise DataError(
            f"{preparation.data_root(other.data)}: the run was trained on or validated with all of the test films",
            "Name another data set, or measure the run's own test films with ns evaluate without --config.",
        )
    return left
