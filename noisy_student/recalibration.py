"""A run's calibration fitted again to the labels of a local data set; weights and the run's own files stay."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from noisy_student import external, prediction, scoring
from noisy_student.config import Config
from noisy_student.data import manifest
from noisy_student.errors import DataError
from noisy_student.stats import recalibration
from noisy_student.stats.calibration import Calibration
from noisy_student.stats.comparison import difference_json
from noisy_student.stats.recalibration import Helped
from noisy_student.targets import folds
from noisy_student.workplace import Workplace

FOLDS: Final = 5
"""Parts of the patients, each judged by the calibration that the others gave."""
FEWEST_PATIENTS: Final = 10
"""Below this many nothing can be said about whether a new calibration helps."""


def recalibrate(
    work: Workplace, local: Config, generation: int, check: external.Check = lambda _: None
) -> dict[str, Any]:
    """Return a calibration of ``generation`` for the films of ``local``, and what it does to patients it has not seen.

    The films are those of :func:`noisy_student.external.opened`, without any patient of the run, as far as that
    can be told: its own test films stay for measuring. ``calibration`` has the form of ``calibration.json``
    and rests on all local films. The figures before and after come from a cross-fit over patients: each fifth is
    judged by the calibration that the other four gave. Labels that the local data lacks keep the run's calibration
    (``only_model``), and so do those that no local film is known to have or not to have
    (``unknown``); those with few positives or negatives share one change (``pooled``).

    Args:
        work: the run; its own films are not needed.
        local: configuration of the local data set.
        generation: a calibrated generation of the run.
        check: takes the hash of the local films (``data``) first.

    Raises:
        UsageError: the generation is not trained and calibrated.
        DataError: there are no films with labels, no label that both have, fewer than 10 patients, or one class only.
    """
    run, config = work.run, work.config
    data = external.opened(work, local, generation, own_test=False)
    films_hash = data.hash()
    check(films_hash)
    films, theirs = data.films, data.with_shared_labels()
    patients = scoring.codes(films.frame["patient"])
    if len(np.unique(patients)) < FEWEST_PATIENTS:
        raise DataError(
            f"{len(np.unique(patients))} local patients have labels; a new calibration needs {FEWEST_PATIENTS} or more",
            "Label more patients, or stay with the run's own calibration.",
        )
    columns = [config.data.labels.index(ours) for ours, _ in data.pairs]
    truth = np.full((len(films), len(config.data.labels)), np.nan)
    truth[:, columns] = scoring.known_truth(manifest.values(theirs), local.targets.blank)
    if not ((truth == 1).any(axis=0) & (truth == 0).any(axis=0)).any():
        raise DataError(
            f"no label has both positive and negative films among the {len(films)} local ones",
            "Look at the labels with ns data stats, or name more of them in data.labels.",
        )
    title = f"generation {generation}: predicting {local.data.source}"
    logits = prediction.said(
        work, generation, prediction.predict_networks(work, generation, films, data.pixels, title)
    ).astype(np.float64)
    own, views = scoring.calibrations(run, generation), scoring.views(films)
    names = films.frame["patient"].to_numpy(dtype=object)
    fold = folds.deal(names, truth[:, columns] == 1, FOLDS, config.seed)
    after = recalibration.held_out(own, logits, truth, views, fold)
    levels = {
        kind: scoring.by_level(theirs, image[:, columns], local.targets.blank, study[:, columns])
        for kind, (image, study) in {"before": (own.image(logits), own.study(logits, views)), "after": after}.items()
    }
    measures, labels = config.evaluation, [ours for ours, _ in data.pairs]
    found = {
        level: recalibration.helped(
            levels["before"][level][0],
            levels["before"][level][1],
            levels["after"][level][1],
            levels["before"][level][2],
            labels,
            bins=measures.bins,
            replicates=measures.replicates,
            confidence=measures.confidence,
            seed=config.seed,
        )
        for level in levels["before"]
    }
    fitted = recalibration.recalibrated(own, logits, truth, views)
    study = fitted.fitted[0].study if measures.level == "study" else None
    local_truth = levels["before"]["image" if study is None else "study"][0]
    shown = found[measures.level]
    told = [name for k, name in enumerate(labels) if not np.isnan(local_truth[:, k]).all()]
    few = _pooled(study or fitted.fitted[0].image, told)
    return {
        "generation": generation,
        "weights": external.weights_of(run, config, generation),
        "source": local.data.source,
        "data": films_hash,
        **data.matched(config.data.labels),
        "films": len(films),
        "patients": shown.found.patients,
        "folds": FOLDS,
        "level": measures.level,
        "confidence": measures.confidence,
        "pooled": few,
        "unknown": [name for name in labels if name not in told],
        "verdict": verdict(shown),
        "sentence": sentence(shown, len(films), few),
        "levels": {
            level: {"labels": part.labels, "log_loss": difference_json(part.found.log_loss)}
            for level, part in found.items()
        },
        "calibration": fitted.to_json(),
    }


def verdict(found: Helped) -> str:
    """Return "better", "worse" or "undecided": whether the interval of the change of log loss leaves 0 out."""
    ci = found.found.log_loss.ci
    if ci is None or ci[0] <= 0 <= ci[1]:
        return "undecided"
    return "better" if ci[1] < 0 else "worse"


def sentence(found: Helped, films: int, pooled: list[str]) -> str:
    """Return in plain words what the new calibration rests on and whether it helped."""
    loss = found.found.log_loss
    text = f"The new calibration rests on {films:,} films of {found.found.patients:,} patients."
    if pooled:
        text += f" Fewer than 10 positive or negative films: {', '.join(pooled)}; such labels share one correction."
    if loss.value is None or loss.ci is None:
        return f"{text} Whether it helps cannot be said: {loss.reason}."
    change = f"{loss.value:+.3f} ({100 * found.found.confidence:.0f} % interval {loss.ci[0]:+.3f} to {loss.ci[1]:+.3f})"
    change = change.replace("-", "−")
    says = {
        "better": f"it helped: the log loss changed by {change}",
        "worse": f"it made things worse: the log loss changed by {change}. Stay with the run's own calibration",
        "undecided": f"it cannot be told apart from the run's own: the log loss changed by {change}",
    }[verdict(found)]
    return f"{text} On patients it had not seen {says}."


def _pooled(fitted: Calibration, labels: list[str]) -> list[str]:
    return [name for name, platt in zip(fitted.labels, fitted.platt, strict=True) if platt.pooled and name in labels]
