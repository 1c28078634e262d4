"""The evaluation of a generation: predictions, calibration and labels to ``evaluation.json``.

This is the only module that opens the sealed labels of test and pool. Test is measured once per generation, for the
report; the pool's labels serve one diagnostic, the true quality of the pseudo-labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student import measures, scoring
from noisy_student.config import Config
from noisy_student.data import manifest, predictions
from noisy_student.data.manifest import Manifest
from noisy_student.labels import COMPETITION
from noisy_student.measures import Levels, Points
from noisy_student.runs import Run, read_json
from noisy_student.stats import consensus, metrics
from noisy_student.targets import table

Floats = npt.NDArray[np.float64]

POOL_NOTE = (
    "Diagnostic only: the sealed labels of the pool were opened after the fact. "
    "Nothing in training, calibration or promotion has seen them."
)
VALID_NOTE = (
    "Calibration and thresholds were fitted to these films: Brier score, log loss, calibration errors and operating "
    "points tend to look better here than on films that took no part in that."
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


def test_levels(run: Run, config: Config, generation: int) -> tuple[Manifest, Levels]:
    """Return the test films, and what is known and what ``generation`` says of them and of their studies."""
    films = manifest.select(manifest.read(run.sealed), split="test")
    return films, scoring.scores_of(run, generation, "test", films).levels(config.targets.blank)


def evaluate_generation(run: Run, config: Config, generation: int) -> tuple[dict[str, Any], list[Path]]:
    """Return the content of ``evaluation.json`` and the files it was made from.

    Splits ``valid`` and ``test``, each per film and per study; the differences to the generation before and to the
    first on the same test patients; subgroups of the test films; the five competition labels where the data set has
    them; the pool diagnostic; how far the networks of an ensemble differ.
    """
    labels, macro_labels = config.data.labels, config.macro_labels()
    seen, sealed = manifest.read(run.manifest), manifest.read(run.sealed)
    folder = run.generation(generation)
    reads = [run.manifest, run.sealed, *scoring.calibration_files(run, generation), folder / "targets.parquet"]
    parts = {"valid", "test", "pool", *scoring.judging_films(config, seen)}
    reads += [folder / "predictions" / f"{split}.parquet" for split in sorted(parts)]
    level, blank = config.evaluation.level, config.targets.blank
    result: dict[str, Any] = {
        "generation": generation,
        "level": level,
        "labels": list(labels),
        "macro_labels": list(macro_labels),
        "confidence": config.evaluation.confidence,
        "splits": {},
        "notes": {"valid": VALID_NOTE},
        "paired": None,
        "paired_first": None,
        "subgroups": None,
        "competition": None,
        "pool": None,
        "uncertainty": {"networks": 1, "reason": consensus.ONE_NETWORK, "splits": {}},
    }
    films = {"valid": manifest.select(seen, split="valid"), "test": manifest.select(sealed, split="test")}
    points = thresholds(run, config, generation)
    scores = {split: scoring.scores_of(run, generation, split, chosen) for split, chosen in films.items()}
    arrays = {split: said.levels(blank) for split, said in scores.items()}
    for split, said in scores.items():
        before = said.uncalibrated(blank, config.evaluation.aggregation)
        result["splits"][split] = measures.measured(arrays[split], labels, macro_labels, config, before, points)
    if (networks := len(run.networks(generation))) > 1:
        result["uncertainty"], more = _uncertainty(run, generation, films, arrays, networks, labels)
        reads += more
    if set(COMPETITION) <= set(labels):
        result["competition"] = measures.competition(*arrays["test"]["study"], config)
    earlier = sorted({0, generation - 1}) if generation > 0 else []
    if earlier:
        others = [scoring.scores_of(run, index, "test", films["test"]).levels(blank) for index in earlier]
        reads += [
            run.generation(index) / name
            for index in earlier
            for name in ("calibration.json", "predictions/test.parquet")
        ]
        compared = measures.paired(*arrays["test"][level], [of[level][1] for of in others], config, earlier)
        result["paired"] = compared[-1]
        result["paired_first"] = compared[0] if len(compared) > 1 else None
    result["subgroups"] = measures.subgroups(
        films["test"], lambda _, keep: scores["test"].rows(keep).levels(blank), labels, macro_labels, config
    )
    result["pool"] = _pool(run, generation, manifest.select(sealed, split="train"), config)
    reads += [scoring.predictions_path(run, teacher, "pool") for teacher in _teachers(run, generation)]
    return result, reads


def thresholds(
    run: Run, config: Config, generation: int, fitted: consensus.Consensus | None = None
) -> dict[str, Points]:
    """Return the operating points per level ("image", "study") and label, chosen on the judging films alone; with
    ``fitted`` in the probabilities of that calibration in place of the run's own. (Where networks of folds judge for
    another one, ``fitted`` is of that one, and the thresholds are those of their own probabilities.)
    """
    parts = scoring.judging_films(config, manifest.read(run.manifest))
    scores = [scoring.scores_of(run, generation, name, part) for name, part in parts.items()]
    if fitted is not None and not scoring.judges_calibration(run, generation).is_file():
        scores = [replace(said, fitted=fitted) for said in scores]
    return measures.thresholds([said.levels(config.targets.blank) for said in scores], config)


def _uncertainty(
    run: Run,
    generation: int,
    films: dict[str, Manifest],
    arrays: dict[str, Levels],
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


def _defined(truth: Floats, score: Floats) -> float | None:
    """Return the AUROC, which leaves unknown labels out; ``None`` where there is none."""
    area = metrics.auroc(truth, score)
    return None if np.isnan(area) else area


def _known(truth: Floats, score: Floats) -> tuple[Floats, Floats]:
    known = ~np.isnan(truth)
    return truth[known], score[known]


def _teachers(run: Run, generation: int) -> list[int]:
    """Return the generations that taught ``generation`` and whose predictions of the pool are there."""
    path = run.generation(generation) / "targets.json"
    told = read_json(path).get("teachers", []) if path.is_file() else []
    return [teacher for teacher in told if scoring.predictions_path(run, teacher, "pool").is_file()]


def _pool(run: Run, generation: int, pool: Manifest, config: Config) -> dict[str, Any] | None:
    """Return the true quality of the pseudo-targets this generation was trained on; ``None`` where it had none.

    A rule that selects films makes the AUROC of what it took another figure in every generation; that of the teachers'
    word on the whole pool is the same one, and the share of right targets on either side says what was confirmed.
    """
    targets = table.read(run.generation(generation) / "targets.parquet")
    if not (targets.pseudo & (targets.weight > 0).any(axis=1)).any():
        return None
    row = {image: number for number, image in enumerate(pool.frame["image"])}
    order = np.array([row[image] for image in targets.images[targets.pseudo]])
    films = Manifest(pool.frame.iloc[order].reset_index(drop=True), pool.labels)
    truth = scoring.known_truth(manifest.values(films), config.targets.blank)
    teachers = [scoring.teaching(run, config, teacher, films) for teacher in _teachers(run, generation)]
    said = np.mean(teachers, axis=0) if teachers else None
    target = targets.target[targets.pseudo].astype(np.float64)
    used = targets.weight[targets.pseudo] > 0
    found: dict[str, Any] = {}
    for k, label in enumerate(targets.labels):
        known, score = _known(truth[used[:, k], k], target[used[:, k], k])
        area, positive = _defined(known, score), score >= 0.5
        found[label] = {
            "auroc": area,
            "teachers_auroc": None if said is None else _defined(truth[:, k], said[:, k]),
            "right_positives": float(known[positive].mean()) if positive.any() else None,
            "right_negatives": float(1 - known[~positive].mean()) if not positive.all() else None,
            "brier": metrics.brier(known, score) if len(known) else None,
            "pseudo_share": float(score.mean()) if len(known) else None,
            "true_share": float(known.mean()) if len(known) else None,
            "positives": int(known.sum()),
            "negatives": int(len(known) - known.sum()),
            "reason": "the films used have one class only, or no known label" if area is None else None,
        }
    macro: dict[str, float | None] = {}
    for key in ("auroc", "teachers_auroc"):
        areas = [found[name][key] for name in config.macro_labels() if found[name][key] is not None]
        macro[key] = float(np.mean(areas)) if areas else None
    return {"note": POOL_NOTE, "labels": found, "macro": macro}
