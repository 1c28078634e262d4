"""The choice of the films that show right and wrong answers of a generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import evaluation, scoring
from noisy_student.config import Config
from noisy_student.data import manifest
from noisy_student.runs import Run
from noisy_student.stats import operating

Floats = npt.NDArray[np.float64]

MOST_LABELS: Final = 5
"""Labels in a gallery: it is there to be looked at, and the page has room for some twenty films."""
FALLBACK: Final = 0.5
"""Probability from which a film counts as predicted positive where the judging films cannot tell one."""


def choose(run: Run, config: Config, generation: int, *, mapped: bool = True) -> tuple[dict[str, Any], list[Path]]:
    """Return the content of ``gallery.json`` and the files it was made from.

    Per label one test film of each kind of answer, the most confident one (see :func:`pick`), whatever unit the
    headline figures have; the most uncertain film (:func:`most_uncertain`); and from generation 1 on the one that
    changed most since the generation before (:func:`biggest_change`). The labels are those of the macro mean, and of
    more than five the five with most positive test films. ``thresholds`` holds the threshold of each label, the one of
    Youden in the tables of films (:func:`called_from`), and ``chosen_on`` the films that it was chosen on.

    Of an entry, ``image`` names the film by the hash of its patient and its number among the test films, ``before`` is
    the probability that the generation before gave, ``labels`` what is known and said of all labels, ``thumb`` and
    ``map`` are pictures below the generation's folder. ``film`` is the path of the manifest, which can tell a patient:
    it is for the stages that draw the pictures and belongs in no report.

    Args:
        run: the run; its predictions of validation and test films and its calibration are there.
        config: the configuration of the run.
        generation: index of the generation.
        mapped: whether the network has a feature map to draw; without one ``map`` is ``None``.
    """
    cases = evaluation.test_cases(run, config, generation)
    points = evaluation.thresholds(run, config, generation)["image"]
    judging = scoring.judging_films(config, manifest.read(run.manifest))
    earlier = scoring.probabilities(run, generation - 1, "test", cases.films) if generation else None
    frame = cases.films.frame
    entries: list[dict[str, Any]] = []
    thresholds: dict[str, float] = {}
    chosen_on: dict[str, str] = {}
    for label in shown_labels(cases.truth, config):
        k = config.data.labels.index(label)
        thresholds[label], chosen_on[label] = called_from(points[label]), points[label]["youden"].chosen_on
        truth, probability = cases.truth[:, k], cases.probability[:, k]
        rows = pick(truth, probability, thresholds[label])
        rows |= most_uncertain(truth, probability, thresholds[label])
        if earlier is not None:
            rows |= biggest_change(truth, earlier[:, k], probability)
        for kind, row in rows.items():
            name = f"{k:02d}-{kind.replace(' ', '-')}.png"
            entries.append(
                {
                    "label": label,
                    "kind": kind,
                    "image": f"{manifest.patient_hash(frame['patient'].iloc[row])}-{row}",
                    "probability": float(probability[row]),
                    "before": None if earlier is None else float(earlier[row, k]),
                    "truth": int(truth[row]),
                    "labels": _all_labels(config.data.labels, cases.truth[row], cases.probability[row]),
                    "thumb": f"thumbs/{name}",
                    "map": f"maps/{name}" if mapped else None,
                    "film": frame["image"].iloc[row],
                }
            )
    reads = [*cases.reads, run.manifest, *(scoring.predictions_path(run, generation, name) for name in judging)]
    if earlier is not None:
        before = run.generation(generation - 1)
        reads += [before / "calibration.json", before / "predictions" / "test.parquet"]
    return {"thresholds": thresholds, "chosen_on": chosen_on, "entries": entries}, reads


def _all_labels(labels: Sequence[str], truth: Floats, probability: Floats) -> dict[str, dict[str, Any]]:
    return {
        label: {"truth": None if np.isnan(truth[k]) else int(truth[k]), "probability": round(float(probability[k]), 4)}
        for k, label in enumerate(labels)
    }


def shown_labels(truth: Floats, config: Config) -> list[str]:
    """Return the labels of the macro mean, at most five: those with most positives in ``truth`` (N, K), in order."""
    names = config.macro_labels()
    positives = [(truth[:, config.data.labels.index(name)] == 1).sum() for name in names]
    most = sorted(range(len(names)), key=lambda index: -positives[index])[:MOST_LABELS]
    return [names[index] for index in sorted(most)]


def called_from(points: Mapping[str, operating.Threshold]) -> float:
    """Return the probability from which a film counts as positive: Youden's among the operating points of a label.

    It is 0.5 where there is none, because a class is missing among the films that judge a generation.
    """
    found = points["youden"].value
    return FALLBACK if found is None else found


def pick(truth: Floats, probability: Floats, threshold: float) -> dict[str, int]:
    """Return the row of the most confident answer of each kind that there is, the first one of equals.

    Most confident is the highest probability among films predicted positive and the lowest among the others.

    Args:
        truth: (N,) 1, 0 or NaN for unknown; a film of unknown truth is never picked.
        probability: (N,) in [0, 1].
        threshold: probability from which a film is predicted positive.
    """
    called = probability >= threshold
    answers = {
        "true positive": (called & (truth == 1), -probability),
        "false positive": (called & (truth == 0), -probability),
        "false negative": (~called & (truth == 1), probability),
        "true negative": (~called & (truth == 0), probability),
    }
    return _first({kind: np.where(members, order, np.inf) for kind, (members, order) in answers.items()})


def most_uncertain(truth: Floats, probability: Floats, threshold: float) -> dict[str, int]:
    """Return the row of the film whose probability is nearest to ``threshold``, the first one of equals.

    Like :func:`pick` it leaves out films of unknown truth, and is empty where there are no others.
    """
    return _first({"most uncertain": np.where(np.isnan(truth), np.inf, np.abs(probability - threshold))})


def biggest_change(truth: Floats, earlier: Floats, later: Floats) -> dict[str, int]:
    """Return the row of the film whose probability differs most between two generations, the first one of equals.

    Like :func:`pick` it leaves out films of unknown truth, and is empty where there are no others.
    """
    return _first({"biggest change": np.where(np.isnan(truth), np.inf, -np.abs(later - earlier))})


def _first(order: dict[str, Floats]) -> dict[str, int]:
    return {kind: int(np.argmin(values)) for kind, values in order.items() if (values < np.inf).any()}
