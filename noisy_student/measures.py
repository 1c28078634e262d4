"""What is measured of arrays as a configuration asks: figures per level, subgroups, comparisons, operating points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student.config import Config
from noisy_student.data import groups, manifest
from noisy_student.data.manifest import Manifest
from noisy_student.labels import COMPETITION
from noisy_student.stats import metrics, operating, support
from noisy_student.stats.comparison import compare_models, comparison_json
from noisy_student.stats.evaluation import bounds, evaluate
from noisy_student.stats.intervals import bootstrap_auroc
from noisy_student.stats.operating import Threshold
from noisy_student.stats.strata import strata
from noisy_student.stats.subgroups import Group, measure_groups

Floats = npt.NDArray[np.float64]
Levels = dict[str, tuple[Floats, Floats, npt.NDArray[np.int64]]]
"""Truth (N, K), probability (N, K) and patient codes (N,) per "image" and per "study"."""
Points = dict[str, dict[str, Threshold]]
"""Label -> kind of operating point -> threshold."""


def measured(
    levels: Levels,
    labels: Sequence[str],
    macro_labels: Sequence[str],
    config: Config,
    before: Levels | None = None,
    points: Mapping[str, Points] | None = None,
) -> dict[str, Any]:
    """Return the measures of each level ("image", "study") of (truth, probability, patients), as ``config`` asks.

    ``before`` are the same films before calibration, ``points`` the thresholds per level and label.
    """
    measures = config.evaluation
    return {
        level: evaluate(
            *arrays,
            labels,
            macro_labels,
            replicates=measures.replicates,
            confidence=measures.confidence,
            bins=measures.bins,
            seed=config.seed,
            stratify=measures.stratify,
            before=None if before is None else before[level][1],
            points=None if points is None else points[level],
        )
        for level, arrays in levels.items()
    }


def thresholds(judging: Sequence[Levels], config: Config) -> dict[str, Points]:
    """Return the operating points per level and label, chosen on the films of all of ``judging`` together."""
    measures = config.evaluation
    where = "validation" if config.folds == 1 else "validation and labelled films, out of fold"
    found: dict[str, Points] = {}
    for level in ("image", "study"):
        truth, probability = (np.concatenate([part[level][index] for part in judging]) for index in (0, 1))
        found[level] = {
            label: operating.choose(
                truth[:, k], probability[:, k], where, measures.target_sensitivity, measures.target_specificity
            )
            for k, label in enumerate(config.data.labels)
        }
    return found


def subgroups(
    films: Manifest,
    levels_of: Callable[[Manifest, npt.NDArray[np.bool_]], Levels],
    labels: Sequence[str],
    macro_labels: Sequence[str],
    config: Config,
) -> dict[str, Any] | None:
    """Return AUROC by sex, age band, view, projection and site, as far as the manifest knows them; ``None`` otherwise.

    ``levels_of`` takes a part of ``films`` and which (N,) they are. At level ``study`` a group's studies are made of
    its own films: those of ``lateral`` are of lateral films alone.
    """
    measures = config.evaluation
    members = groups.of_films(films, measures.age_bands)
    if not members:
        return None
    everyone = np.unique(films.frame["patient"].to_numpy(dtype=str))

    def group(name: str, keep: npt.NDArray[np.bool_]) -> Group:
        own = manifest.rows(films, keep)
        truth, score, patients = levels_of(own, keep)[measures.level]
        # Codes of a part of the films are places among its own patients.
        names = np.unique(own.frame["patient"].to_numpy(dtype=str))
        return Group(name, truth, score, np.searchsorted(everyone, names)[patients])

    return measure_groups(
        {column: [group(name, keep) for name, keep in parts.items()] for column, parts in members.items()},
        labels,
        macro_labels,
        smallest=measures.subgroup_patients,
        replicates=measures.replicates,
        confidence=measures.confidence,
        seed=config.seed,
        stratify=measures.stratify,
    )


def competition(
    truth: Floats, probability: Floats, patients: npt.NDArray[np.int64], config: Config
) -> dict[str, Any] | None:
    """Return the mean AUROC over the five competition labels, ``None`` where one of them is undefined."""
    columns = [config.data.labels.index(name) for name in COMPETITION]
    areas = np.array([metrics.auroc(truth[:, k], probability[:, k]) for k in columns])
    if np.isnan(areas).any():
        return None
    draws = bootstrap_auroc(
        truth[:, columns],
        probability[:, columns],
        patients,
        config.evaluation.replicates,
        config.seed,
        strata(truth[:, columns], patients) if config.evaluation.stratify else None,
    )
    classes = support.of_classes(truth[:, columns], patients)
    said = bounds(draws, classes, COMPETITION, config.evaluation.confidence)
    return {"auroc": float(areas.mean()), "labels": list(COMPETITION), **said}


def paired(
    truth: Floats,
    later: Floats,
    patients: npt.NDArray[np.int64],
    earlier: Sequence[Floats],
    config: Config,
    against: Sequence[int],
) -> list[dict[str, Any]]:
    """Return the difference of a generation to each of the ``earlier`` ones, which are those of ``against``."""
    measures, labels = config.evaluation, config.data.labels
    found = compare_models(
        truth,
        [*earlier, later],
        [(index, len(earlier)) for index in range(len(earlier))],
        patients,
        [labels.index(name) for name in config.macro_labels()],
        replicates=measures.replicates,
        seed=config.seed,
        confidence=measures.confidence,
        stratify=strata(truth, patients) if measures.stratify else None,
        names=labels,
    )
    return [
        {
            "against": index,
            "split": "test",
            **comparison_json(one, labels, measures.smallest_difference, measures.confidence),
        }
        for index, one in zip(against, found, strict=True)
    ]
