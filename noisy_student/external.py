"""External validation: a model of a run on the films of another data set, over the labels that both have."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisy_student import evaluation, preparation, training
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

    Films are decoded as the model was trained to see them. Probabilities are those of the run's own calibration, which
    nothing is fitted to again: what is off on the other data set shows in Brier score and ECE. ``compared`` names each
    label in both data sets' words; ``only_model`` and ``only_data`` are the labels left out.

    Args:
        work: the run; its own films are not needed.
        other: configuration of the other data set.
        generation: a calibrated generation of the run.

    Raises:
        UsageError: the generation is not trained and calibrated.
        DataError: there are no test films, or no label that both have.
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
    source = preparation.open_source(other.data.model_copy(update=seen_as), progress=work.progress)
    readable = preparation.with_parents(manifest.rows(source.manifest, source.cache.ok), other)
    films, _ = splits.assign(readable, other.split)
    test = manifest.select(films, split="test")
    if not len(test):
        raise DataError("the other data set has no test films", "Give it a test split, or set split.fractions.")
    title = f"generation {generation}: predicting {other.data.source}"
    logits = np.mean(training.predict_networks(work, generation, test, source.cache, title), axis=0)
    calibration = Calibration.from_json(read_json(run.generation(generation) / "calibration.json"))
    columns = [config.data.labels.index(ours) for ours, _ in pairs]
    probability = calibration.probability(logits)[:, columns]
    labels, theirs = [ours for ours, _ in pairs], tuple(name for _, name in pairs)
    levels = evaluation.by_level(Manifest(test.frame, theirs), probability, other.targets.blank)
    return {
        "generation": generation,
        "source": other.data.source,
        "compared": [{"model": ours, "data": name} for ours, name in pairs],
        "only_model": [name for name in config.data.labels if name not in labels],
        "only_data": [name for name in other.data.labels if name not in theirs],
        "confidence": config.evaluation.confidence,
        "splits": {"test": evaluation.measured(levels, labels, labels, config)},
    }
