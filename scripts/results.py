"""Results that are kept: one line of JSON per finished arm, and what several seeds of it say together.

A line holds an arm's test AUROCs and those of its bootstrap replicates. Every arm and seed on the same test films draws
the same patients in replicate r, so the lines are enough for paired intervals, without the scores of single films.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import scoring
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.runs import text_hash
from noisy_student.stats.intervals import bootstrap_auroc, macro

Floats = npt.NDArray[np.float64]
REPLICATES: Final = 1000
LEAST_DENOMINATOR: Final = 0.02
"""Below this lower bound of all - few a ratio says nothing, and none is given."""


def measured(test: Manifest, scores: Floats, macro_labels: Sequence[str], blank: str) -> dict[str, Any]:
    """Return what a line keeps of the ``scores`` (N, K) of the films of ``test``."""
    truth = scoring.known_truth(manifest.values(test), blank)
    patients = scoring.codes(test.frame["patient"])
    columns = [test.labels.index(name) for name in macro_labels]
    labels = {
        name: scoring.area(manifest.values(test)[:, k], scores[:, k], blank) for k, name in enumerate(test.labels)
    }
    draws = macro(bootstrap_auroc(truth, scores, patients, REPLICATES, 0), columns)
    return {
        "auroc": round(float(np.mean([labels[name] for name in macro_labels])), 6),
        "labels": {name: None if np.isnan(area) else round(area, 6) for name, area in labels.items()},
        "test": text_hash(json.dumps([np.nan_to_num(truth, nan=-1).tolist(), patients.tolist()])),
        "replicates": [round(float(value), 5) for value in draws],
    }


def revision() -> str:
    """Return the revision of the code, with a plus where files differ from it; "unknown" outside a repository."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the file at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, allow_nan=False) + "\n")


def read(path: Path, recipe: Mapping[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the lines of ``recipe`` by (arm, seed), the latest of each; none where there is no file."""
    if not path.is_file():
        return {}
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return {(line["arm"], line["seed"]): line for line in lines if line["recipe"] == dict(recipe)}


def summarise(lines: Mapping[tuple[str, int], Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return AUROCs, means, deviations and intervals of the arms that are there for all ``seeds``.

    Intervals (95 %) resample seeds and patients, crossed and the same for all arms. Gap closed is
    (ours - few) / (all - few), the ratio of means over seeds; null where the lower bound of its denominator is below
    0.02, or an arm is missing.
    """
    arms = [arm for arm in dict.fromkeys(arm for arm, _ in lines) if all((arm, seed) in lines for seed in seeds)]
    if len({lines[arm, seed]["test"] for arm in arms for seed in seeds}) > 1:
        raise SystemExit("results: the lines are of different test films")
    area = {arm: np.array([lines[arm, seed]["auroc"] for seed in seeds]) for arm in arms}
    picked = np.random.default_rng(0).integers(0, len(seeds), (REPLICATES, len(seeds)))
    rows = np.arange(REPLICATES)[:, None]
    mean = {
        arm: np.stack([lines[arm, seed]["replicates"] for seed in seeds], axis=1)[rows, picked].mean(axis=1)
        for arm in arms
    }
    found: dict[str, Any] = {
        "seeds": list(seeds),
        "arms": {
            arm: {
                "auroc": area[arm].tolist(),
                "mean": float(area[arm].mean()),
                "sd": float(area[arm].std(ddof=1)) if len(seeds) > 1 else None,
                "ci": _interval(mean[arm]),
                "ours_minus": None if arm == "ours" or "ours" not in arms else _interval(mean["ours"] - mean[arm]),
            }
            for arm in arms
        },
        "gap_closed": None,
        "gap_closed_ci": None,
    }
    if {"few", "ours", "all"} <= set(arms):
        centre = {arm: float(area[arm].mean()) for arm in arms}
        low = float(np.quantile(mean["all"] - mean["few"], 0.025))
        found["all_minus_few_lower_bound"] = low
        if low >= LEAST_DENOMINATOR:
            found["gap_closed"] = (centre["ours"] - centre["few"]) / (centre["all"] - centre["few"])
            found["gap_closed_ci"] = _interval((mean["ours"] - mean["few"]) / (mean["all"] - mean["few"]))
    return found


def _interval(values: Floats) -> list[float]:
    return [float(np.quantile(values, q)) for q in (0.025, 0.975)]
