"""The evaluation of a generation: predictions, calibration and labels to ``evaluation.json``.

This is the only module that opens the sealed labels of test and pool. Test is measured once per generation, for the
report; the pool's labels serve one diagnostic, the true quality of the pseudo-labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student import scoring
from noisy_student.config import Config
from noisy_student.data import groups, manifest, predictions
from noisy_student.data.manifest import Manifest
from noisy_student.labels import COMPETITION
from noisy_student.runs import Run
from noisy_student.stats import consensus, metrics, operating
from noisy_student.stats.comparison import compare_models, comparison_json
from noisy_student.stats.evaluation import evaluate
from noisy_student.stats.intervals import bootstrap_auroc, interval, macro
from noisy_student.stats.operating import Threshold
from noisy_student.stats.strata import strata
from noisy_student.stats.subgroups import Group, measure_groups
from noisy_student.targets import table

Floats = npt.NDArray[np.float64]
Points = dict[str, dict[str, Threshold]]
"""Label -> kind of operating point -> threshold."""

POOL_NOTE = (
    "Diagnostic only: the sealed labels of the pool were opened after the fact. "
    "Nothing in training, calibration or promotion has seen them."
)


@dataclass(frozen=True, eq=False)
class Cases:
    """Test films with truth (N, K), 1, 0 or NaN, and calibrated probability (N, K), and the files they came from."""

    films: Manifest
    truth: Floats
    probability: Floats
    reads: tuple[Path, ...]


def test_cases(run: Run, config: Config, generation: int) -> Cases:
    """Return the test films with what is known and what ``generation`` says of them, for the examples of a report."""
    folder = run.generation(generation)
    films = manifest.select(manifest.read(run.sealed), split="test")
    truth = scoring.known_truth(manifest.values(films), config.targets.blank)
    probability = scoring.probabilities(run, generation, "test", films)
    return Cases(
        films, truth, probability, (run.sealed, folder / "predictions" / "test.parquet", folder / "calibration.json")
    )


def evaluate_generation(run: Run, config: Config, generation: int) -> tuple[dict[str, Any], list[Path]]:
    """Return the content of ``evaluation.json`` and the files it was made from.

    Splits ``valid`` and ``test``, each per film and per study; the differences to the generation before and to the
    first on the same test patients; subgroups of the test films; the five competition labels where the data set has
    them; the pool diagnostic.
    """
    labels, macro_labels = config.data.labels, config.macro_labels()
    seen, sealed = manifest.read(run.manifest), manifest.read(run.sealed)
    folder = run.generation(generation)
    reads = [run.manifest, run.sealed, folder / "calibration.json", folder / "targets.parquet"]
    parts = {"valid", "test", "pool", *judging_files(config)}
    reads += [folder / "predictions" / f"{split}.parquet" for split in sorted(parts)]
    measures, blank = config.evaluation, config.targets.blank
    result: dict[str, Any] = {
        "generation": generation,
        "level": measures.level,
        "labels": list(labels),
        "macro_labels": list(macro_labels),
        "confidence": measures.confidence,
        "splits": {},
        "paired": None,
        "paired_first": None,
        "subgroups": None,
        "competition": None,
        "pool": None,
        "uncertainty": {"networks": 1, "reason": consensus.ONE_NETWORK, "splits": {}},
    }
    films = {"valid": manifest.select(seen, split="valid"), "test": manifest.select(sealed, split="test")}
    points = thresholds(run, config, generation)
    arrays: dict[str, scoring.Levels] = {}
    for split, chosen in films.items():
        scores = scoring.scores_of(run, generation, split, chosen)
        arrays[split] = scores.levels(blank)
        before = scores.uncalibrated(blank, measures.aggregation)
        result["splits"][split] = measured(arrays[split], labels, macro_labels, config, before, points)
    if (networks := len(run.networks(generation))) > 1:
        result["uncertainty"], more = _uncertainty(run, generation, films, arrays, networks, labels)
        reads += more
    if set(COMPETITION) <= set(labels):
        result["competition"] = _competition(*arrays["test"]["study"], config)
    earlier = sorted({0, generation - 1}) if generation > 0 else []
    if earlier:
        others = [
            scoring.scores_of(run, index, "test", films["test"]).levels(blank)[measures.level][1] for index in earlier
        ]
        reads += [
            run.generation(index) / name
            for index in earlier
            for name in ("calibration.json", "predictions/test.parquet")
        ]
        compared = _paired(arrays["test"][measures.level], others, config, earlier)
        result["paired"] = compared[-1]
        result["paired_first"] = compared[0] if len(compared) > 1 else None
    test = scoring.scores_of(run, generation, "test", films["test"])
    result["subgroups"] = subgroups(test, labels, macro_labels, config, blank)
    result["pool"] = _pool(run, generation, manifest.select(sealed, split="train"), config)
    return result, reads


def judging_files(config: Config) -> tuple[str, ...]:
    """Return the names of the predictions that judge a generation."""
    return ("valid", "labelled") if config.folds > 1 else ("valid",)


def thresholds(run: Run, config: Config, generation: int) -> dict[str, Points]:
    """Return the operating points per level ("image", "study") and label, chosen on the judging films alone."""
    parts = scoring.judging_films(config, manifest.read(run.manifest))
    blank, measures = config.targets.blank, config.evaluation
    levels = [scoring.scores_of(run, generation, name, part).levels(blank) for name, part in parts.items()]
    where = "validation" if config.folds == 1 else "validation and labelled films, out of fold"
    found: dict[str, Points] = {}
    for level in ("image", "study"):
        truth, probability = (np.concatenate([part[level][index] for part in levels]) for index in (0, 1))
        found[level] = {
            label: operating.choose(
                truth[:, k], probability[:, k], where, measures.target_sensitivity, measures.target_specificity
            )
            for k, label in enumerate(config.data.labels)
        }
    return found


def measured(
    levels: scoring.Levels,
    labels: Sequence[str],
    macro_labels: Sequence[str],
    config: Config,
    before: scoring.Levels | None = None,
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


def subgroups(
    scores: scoring.Scores, labels: Sequence[str], macro_labels: Sequence[str], config: Config, blank: str
) -> dict[str, Any] | None:
    """Return AUROC by sex, age band, view, projection and site, as far as the manifest knows them; ``None`` otherwise.

    At level ``study`` a group's studies are made of its own films: those of ``lateral`` have lateral films alone.
    """
    measures, films = config.evaluation, scores.films
    members = groups.of_films(films, measures.age_bands)
    if not members:
        return None
    everyone = np.unique(films.frame["patient"].to_numpy(dtype=str))

    def group(name: str, keep: npt.NDArray[np.bool_]) -> Group:
        own = scores.rows(keep)
        truth, score, patients = own.levels(blank)[measures.level]
        # Codes of a part of the films are places among its own patients.
        names = np.unique(own.films.frame["patient"].to_numpy(dtype=str))
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


def _uncertainty(
    run: Run,
    generation: int,
    films: dict[str, Manifest],
    arrays: dict[str, scoring.Levels],
    networks: int,
    labels: tuple[str, ...],
) -> tuple[dict[str, Any], list[Path]]:
    """Return how far the networks of a generation differ on the films of each split, and the files that say so."""
    splits, reads = {}, []
    for split, chosen in films.items():
        path = predictions.spread_path(scoring.predictions_path(run, generation, split))
        reads += [path] if path.is_file() else []
        truth, probability, _ = arrays[split]["image"]
        splits[split] = consensus.summary(
            predictions.read_spread(path, scoring.images(chosen), labels), truth, probability, labels
        )
    found = {split: entries for split, entries in splits.items() if entries is not None}
    reason = None if found else "no spread is stored with the predictions"
    return {"networks": networks, "reason": reason, "splits": found}, reads


def _competition(
    truth: Floats, probability: Floats, patients: npt.NDArray[np.int64], config: Config
) -> dict[str, Any] | None:
    columns = [config.data.labels.index(name) for name in COMPETITION]
    areas = np.array([metrics.auroc(*_known(truth[:, k], probability[:, k])) for k in columns])
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
    bounds = interval(macro(draws, list(range(len(columns)))), config.evaluation.confidence)
    return {"auroc": float(areas.mean()), "ci": bounds and list(bounds), "labels": list(COMPETITION)}


def _known(truth: Floats, score: Floats) -> tuple[Floats, Floats]:
    known = ~np.isnan(truth)
    return truth[known], score[known]


def _paired(
    later: tuple[Floats, Floats, npt.NDArray[np.int64]],
    earlier: Sequence[Floats],
    config: Config,
    against: Sequence[int],
) -> list[dict[str, Any]]:
    """Return the difference of a generation (truth, probability, patients) to the probabilities of earlier ones."""
    measures, labels = config.evaluation, config.data.labels
    truth, probability, patients = later
    models = list(earlier)
    found = compare_models(
        truth,
        [*models, probability],
        [(index, len(models)) for index in range(len(models))],
        patients,
        [labels.index(name) for name in config.macro_labels()],
        replicates=measures.replicates,
        seed=config.seed,
        confidence=measures.confidence,
        stratify=strata(truth, patients) if measures.stratify else None,
    )
    return [
        {
            "against": index,
            "split": "test",
            **comparison_json(one, labels, measures.smallest_difference, measures.confidence),
        }
        for index, one in zip(against, found, strict=True)
    ]


def _pool(run: Run, generation: int, pool: Manifest, config: Config) -> dict[str, Any] | None:
    """Return the true quality of the pseudo-targets this generation was trained on; ``None`` for generation 0."""
    targets = table.read(run.generation(generation) / "targets.parquet")
    if not targets.pseudo.any():
        return None
    row = {image: number for number, image in enumerate(pool.frame["image"])}
    order = np.array([row[image] for image in targets.images[targets.pseudo]])
    truth = scoring.known_truth(manifest.values(pool), config.targets.blank)[order]
    target = targets.target[targets.pseudo].astype(np.float64)
    used = targets.weight[targets.pseudo] > 0
    found: dict[str, Any] = {}
    for k, label in enumerate(targets.labels):
        known, score = _known(truth[used[:, k], k], target[used[:, k], k])
        area = metrics.auroc(known, score)
        found[label] = {
            "auroc": None if np.isnan(area) else area,
            "brier": metrics.brier(known, score) if len(known) else None,
            "pseudo_share": float(score.mean()) if len(known) else None,
            "true_share": float(known.mean()) if len(known) else None,
            "positives": int(known.sum()),
            "negatives": int(len(known) - known.sum()),
            "reason": "the films used have one class only, or no known label" if np.isnan(area) else None,
        }
    areas = [found[name]["auroc"] for name in config.macro_labels() if found[name]["auroc"] is not None]
    return {"note": POOL_NOTE, "labels": found, "macro": {"auroc": float(np.mean(areas)) if areas else None}}
