"""The evaluation of a generation: predictions, calibration and labels to ``evaluation.json``.

This is the only module that opens the sealed labels of test and pool. Test is measured once per generation, for the
report, and read again where runs are compared; the pool's labels serve one diagnostic, the true quality of the
pseudo-labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from noisy_student import measures
from noisy_student.config import Config
from noisy_student.data import manifest, predictions
from noisy_student.data.manifest import Manifest
from noisy_student.labels import COMPETITION
from noisy_student.measures import Levels, Points
from noisy_student.runs import Run, read_json
from noisy_student.stats import metrics
from noisy_student.stats.calibration import Calibration
from noisy_student.stats.evaluation import by_study
from noisy_student.targets import table

Floats = npt.NDArray[np.float64]

POOL_NOTE = (
    "Diagnostic only: the sealed labels of the pool were opened after the fact. "
    "Nothing in training, calibration or promotion has seen them."
)


def known_truth(values: npt.NDArray[np.float32], blank: str) -> Floats:
    """Return labels as 1, 0 or NaN; uncertain (-1) and soft values are unknown to an evaluation.

    ``blank`` is the policy ``targets.blank``. Where a report that does not mention a finding counts as negative in
    training ("zeros"), it must count so here too: the films that mention one are mostly positive, and calibration or
    prevalence measured on those alone would be far too high.
    """
    truth = values.astype(np.float64)
    if blank == "zeros":
        truth[np.isnan(truth)] = 0
    truth[(truth != 0) & (truth != 1)] = np.nan
    return truth


def area(values: npt.NDArray[np.float32], score: Floats, blank: str) -> float:
    """Return the AUROC of ``score`` (N,) for labels ``values`` (N,); unknown labels are left out."""
    return metrics.auroc(*_known(known_truth(values[:, None], blank)[:, 0], score))


def codes(names: Any) -> npt.NDArray[np.int64]:
    """Return an integer code per name, equal for equal names."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def probabilities(run: Run, generation: int, split: str, films: Manifest, fold: int | None = None) -> Floats:
    """Return the calibrated probabilities (N, K) of a generation on the films of ``split``; of one network of it with
    ``fold``.
    """
    path = run.network(generation, fold) / "predictions" / f"{split}.parquet"
    stored = predictions.read(path, films.frame["image"].to_numpy(dtype=object))
    fitted = Calibration.from_json(read_json(run.generation(generation) / "calibration.json"))
    return fitted.probability(stored.logits)


def judging_films(config: Config, films: Manifest) -> dict[str, Manifest]:
    """Return the films, by name of their predictions, that judge a generation: validation, and the labelled films where
    a cross-fitted run predicts them out of fold.
    """
    chosen = {"valid": manifest.select(films, split="valid")}
    if config.folds > 1:
        chosen["labelled"] = manifest.select(films, split="train", labelled=True)
    return chosen


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
    truth = known_truth(manifest.values(films), config.targets.blank)
    probability = probabilities(run, generation, "test", films)
    return Cases(
        films, truth, probability, (run.sealed, folder / "predictions" / "test.parquet", folder / "calibration.json")
    )


def test_levels(run: Run, config: Config, generation: int) -> tuple[Manifest, Levels]:
    """Return the test films, and what is known and what ``generation`` says of them and of their studies."""
    films = manifest.select(manifest.read(run.sealed), split="test")
    return films, _levels(run, generation, "test", films, config.targets.blank)


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
    parts = {"valid", "test", "pool", *judging_films(config, seen)}
    reads += [folder / "predictions" / f"{split}.parquet" for split in sorted(parts)]
    level, blank = config.evaluation.level, config.targets.blank
    result: dict[str, Any] = {
        "generation": generation,
        "level": level,
        "labels": list(labels),
        "macro_labels": list(macro_labels),
        "confidence": config.evaluation.confidence,
        "splits": {},
        "paired": None,
        "paired_first": None,
        "subgroups": None,
        "competition": None,
        "pool": None,
    }
    films = {"valid": manifest.select(seen, split="valid"), "test": manifest.select(sealed, split="test")}
    points = thresholds(run, config, generation)
    arrays: dict[str, Levels] = {}
    for split, chosen in films.items():
        arrays[split] = _levels(run, generation, split, chosen, blank)
        before = by_level(chosen, uncalibrated(run, generation, split, chosen), blank)
        result["splits"][split] = measures.measured(arrays[split], labels, macro_labels, config, before, points)
    if set(COMPETITION) <= set(labels):
        result["competition"] = measures.competition(*arrays["test"]["study"], config)
    earlier = sorted({0, generation - 1}) if generation > 0 else []
    if earlier:
        scores = [_levels(run, before, "test", films["test"], blank)[level][1] for before in earlier]
        reads += [
            run.generation(before) / name
            for before in earlier
            for name in ("calibration.json", "predictions/test.parquet")
        ]
        compared = measures.paired(*arrays["test"][level], scores, config, earlier)
        result["paired"] = compared[-1]
        result["paired_first"] = compared[0] if len(compared) > 1 else None
    test = probabilities(run, generation, "test", films["test"])
    result["subgroups"] = measures.subgroups(
        films["test"], lambda own, keep: by_level(own, test[keep], blank), labels, macro_labels, config
    )
    result["pool"] = _pool(run, generation, manifest.select(sealed, split="train"), config)
    return result, reads


def uncalibrated(run: Run, generation: int, split: str, films: Manifest) -> Floats:
    """Return the sigmoid (N, K) of the raw logits of a generation on the films of ``split``."""
    path = run.generation(generation) / "predictions" / f"{split}.parquet"
    stored = predictions.read(path, films.frame["image"].to_numpy(dtype=object))
    raw: Floats = expit(stored.logits.astype(np.float64))
    return raw


def thresholds(run: Run, config: Config, generation: int) -> dict[str, Points]:
    """Return the operating points per level ("image", "study") and label, chosen on the judging films alone."""
    parts = judging_films(config, manifest.read(run.manifest))
    levels = [_levels(run, generation, name, part, config.targets.blank) for name, part in parts.items()]
    return measures.thresholds(levels, config)


def by_level(
    films: Manifest, probability: Floats, blank: str
) -> dict[str, tuple[Floats, Floats, npt.NDArray[np.int64]]]:
    """Return truth (N, K), probability (N, K) and patient codes (N,) per "image", and the same per "study"."""
    truth, patients = known_truth(manifest.values(films), blank), codes(films.frame["patient"])
    return {
        "image": (truth, probability, patients),
        "study": by_study(truth, probability, patients, codes(films.frame["study"])),
    }


def _levels(run: Run, generation: int, split: str, films: Manifest, blank: str) -> Levels:
    return by_level(films, probabilities(run, generation, split, films), blank)


def _known(truth: Floats, score: Floats) -> tuple[Floats, Floats]:
    known = ~np.isnan(truth)
    return truth[known], score[known]


def _pool(run: Run, generation: int, pool: Manifest, config: Config) -> dict[str, Any] | None:
    """Return the true quality of the pseudo-targets this generation was trained on; ``None`` for generation 0."""
    targets = table.read(run.generation(generation) / "targets.parquet")
    if not targets.pseudo.any():
        return None
    row = {image: number for number, image in enumerate(pool.frame["image"])}
    order = np.array([row[image] for image in targets.images[targets.pseudo]])
    truth = known_truth(manifest.values(pool), config.targets.blank)[order]
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
