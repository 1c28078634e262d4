"""A plausible finished run of three generations, written file by file the way the stages write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from noisy_student.labels import OBSERVATIONS
from noisy_student.runs import Run, write_json

LABELS = tuple(OBSERVATIONS)
VERDICTS = ("first", "better", "undecided")
PREVALENCE = dict(
    zip(LABELS, (0.1, 0.12, 0.2, 0.4, 0.05, 0.25, 0.12, 0.06, 0.2, 0.1, 0.35, 0.04, 0.03, 0.5), strict=True)
)


def make_run(path: Path, generations: int = 3, labels: tuple[str, ...] = LABELS, verdicts=VERDICTS) -> Run:
    """Return a run with ``generations`` evaluated generations; Fracture has no positives on validation."""
    run = Run(path)
    run.create()
    write_json(
        path / "config.resolved.json",
        {
            "seed": 0,
            "data": {"source": "synthetic", "root": "/home/someone/films", "labels": list(labels)},
            "evaluation": {"level": "image", "macro_labels": []},
            "promotion": {"confidence": 0.9},
            "teacher": {"model": {"name": "small_resnet"}},
        },
    )
    write_json(path / "environment.json", {"noisy_student": "0.1.0", "python": "3.11.9", "cuda": None})
    write_json(
        path / "split.json",
        {
            "seed": 0,
            "counts": {
                "labelled": {"images": 400, "patients": 200},
                "pool": {"images": 2600, "patients": 1300},
                "valid": {"images": 300, "patients": 150},
                "test": {"images": 600, "patients": 500},
            },
            "budget": {
                "images": 700,
                "patients": 350,
                "labelled_images": 400,
                "labelled_patients": 200,
                "valid_images": 300,
                "valid_patients": 150,
            },
            "dropped": 3,
            "hash": "9f2c41d07be35a68",
        },
    )
    for generation in range(generations):
        make_generation(run, generation, labels, verdicts[generation])
    return run


def make_generation(run: Run, index: int, labels: tuple[str, ...] = LABELS, verdict: str = "better") -> None:
    """Write the files of generation ``index``."""
    folder = run.generation(index)
    rng = np.random.default_rng(index)
    for step in range(1, 301):
        run.log(generation=index, step=step, loss=float(0.2 + 0.5 * np.exp(-step / 60) + rng.normal(0, 0.02)), lr=1e-3)
        if step % 50 == 0:
            auroc, loss = float(0.85 - 0.3 * np.exp(-step / 60)), float(0.3 + 0.3 * np.exp(-step / 80))
            run.log(generation=index, step=step, valid_auroc=auroc, valid_log_loss=loss, films_per_second=812.0)
    splits = {split: level(labels, split, index) for split in ("valid", "test")}
    write_json(
        folder / "evaluation.json",
        {
            "generation": index,
            "level": "image",
            "labels": list(labels),
            "macro_labels": list(labels),
            "confidence": 0.95,
            "splits": {split: {"image": part, "study": part} for split, part in splits.items()},
            "paired": None if index == 0 else paired(labels, index),
            "pool": None if index == 0 else pool(labels),
            "competition": {"auroc": 0.861 + index / 100, "ci": [0.84 + index / 100, 0.88 + index / 100], "labels": []},
        },
    )
    student = index > 0
    score = {"difference": 0.021, "ci": [0.004, 0.038], "lower": 0.008, "upper": 0.034, "p": 0.01, "reason": None}
    write_json(
        folder / "promotion.json",
        {
            "generation": index,
            "role": "student" if student else "teacher",
            "verdict": verdict,
            "promoted": verdict != "worse",
            "against": index - 1 if student else None,
            "teachers": [index] if verdict != "undecided" else list(range(index + 1)),
            "auroc": score if student else None,
            "log_loss": score | {"difference": -0.012, "ci": [-0.02, -0.004]} if student else None,
            "sentence": f"On 150 validation patients generation {index} was compared with generation {index - 1}."
            if student
            else "Generation 0 is the first teacher: there is nothing to compare it with.",
        },
    )
    write_json(folder / "targets.json", targets(labels, student, index))
    platt = {"shift": 1.2, "slope": 0.93, "intercept": -0.08, "pooled": False, "positives": 40, "negatives": 260}
    entries = [platt | {"pooled": name == "Fracture"} for name in labels]
    write_json(folder / "calibration.json", {"labels": list(labels), "platt": entries})
    write_json(
        folder / "checkpoint" / "best" / "meta.json",
        {"model": {"name": "small_resnet"}, "origin": "none", "images_seen": 19_200},
    )


def level(labels: tuple[str, ...], split: str, index: int) -> dict[str, Any]:
    """Return the measures of simulated predictions; better with every generation."""
    n, patients = (300, 150) if split == "valid" else (600, 500)
    rng = np.random.default_rng([7, split == "test"])
    cells = {}
    for name in labels:
        prevalence = PREVALENCE.get(name, 0.2)
        truth = (rng.random(n) < prevalence).astype(int)
        if name == "Fracture" and split == "valid":
            truth[:] = 0
        logit = np.log(prevalence / (1 - prevalence)) + truth * (1.1 + 0.25 * index) + rng.normal(0, 0.9, n)
        cells[name] = cell(truth, 1 / (1 + np.exp(-logit)))
    known = [name for name in labels if cells[name]["auroc"] is not None]
    mean = float(np.mean([cells[name]["auroc"] for name in known]))
    macro = {"auroc": mean, "ci": [mean - 0.021, mean + 0.019], "labels": known, "reason": None}
    return {"n": n, "patients": patients, "macro": macro, "labels": cells}


def cell(truth: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    """Return the measures of one label, undefined without positives."""
    positives = int(truth.sum())
    counts = {"positives": positives, "negatives": int(len(truth) - positives), "unknown": 0}
    if positives == 0:
        undefined = dict.fromkeys(("auroc", "ci", "ap", "roc"))
        return undefined | {
            "brier": 0.004, "log_loss": 0.04, "ece": 0.03, "reason": "no positives", "reliability": None, **counts
        }  # fmt: skip
    ranked = truth[np.argsort(-probability)]
    tpr = np.concatenate([[0], np.cumsum(ranked) / positives])
    fpr = np.concatenate([[0], np.cumsum(1 - ranked) / (len(truth) - positives)])
    auroc = float(np.sum(np.diff(fpr) * tpr[1:]))
    precision = np.cumsum(ranked) / np.arange(1, len(truth) + 1)
    likelihood = np.where(truth == 1, probability, 1 - probability)
    half = 1.2 * float(np.sqrt(auroc * (1 - auroc) / positives))
    bins = np.array_split(np.argsort(probability), 10)
    return counts | {
        "auroc": auroc,
        "ci": [max(0.0, auroc - half), min(1.0, auroc + half * 0.8)],
        "ap": float(precision[ranked == 1].mean()),
        "brier": float(np.mean((probability - truth) ** 2)),
        "log_loss": float(-np.log(likelihood).mean()),
        "ece": float(np.mean([abs(probability[rows].mean() - truth[rows].mean()) for rows in bins])),
        "reason": None,
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "reliability": {
            "probability": [float(probability[rows].mean()) for rows in bins],
            "frequency": [float(truth[rows].mean()) for rows in bins],
            "count": [len(rows) for rows in bins],
        },
    }


def paired(labels: tuple[str, ...], index: int) -> dict[str, Any]:
    """Return a comparison with the generation before."""
    ci = [0.011, 0.041] if index == 1 else [-0.004, 0.021]
    macro = {"difference": sum(ci) / 2, "ci": ci, "p": 0.02, "reason": None}
    cells = {name: {"difference": 0.01, "ci": [-0.01, 0.03]} for name in labels}
    return {"against": index - 1, "split": "test", "macro": macro, "labels": cells}


def pool(labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the diagnostic on the pool's withheld labels."""
    cells = {
        name: {
            "auroc": 0.84,
            "brier": 0.09,
            "pseudo_share": 0.21,
            "true_share": 0.2,
            "positives": 520,
            "negatives": 2080,
        }
        for name in labels
    }
    note = "The withheld labels of the pool, read after training for this diagnostic alone."
    return {"note": note, "labels": cells, "macro": {"auroc": 0.84}}


def targets(labels: tuple[str, ...], student: bool, index: int) -> dict[str, Any]:
    """Return the summary of a generation's targets."""
    edges = [k / 20 for k in range(21)]
    counts = [int(1200 * np.exp(-k / 2) + 12 * (k > 14)) for k in range(20)]
    cells = {
        name: {
            "labelled_positives": 400 * PREVALENCE.get(name, 0.2),
            "labelled_negatives": 400 * (1 - PREVALENCE.get(name, 0.2)),
            "labelled_ignored": 12,
            "teacher_mean": 0.22 if student else None,
            "prevalence": 0.2 if student else None,
            "prevalence_ci": [0.16, 0.25] if student else None,
            "pseudo_mean": 0.2 if student else None,
            "pseudo_kept": 2600 if student else 0,
            "pseudo_weight": 1830.4 if student else 0.0,
            "histogram": {"edges": edges, "counts": counts} if student else None,
            "changed": 0.043 if index > 1 else None,
        }
        for name in labels
    }
    teachers = [index - 1] if student else []
    return {"labelled": 400, "pseudo": 2600 if student else 0, "teachers": teachers, "labels": cells}


def add_pictures(run: Run, index: int, size: int = 96) -> None:
    """Write a gallery of simple grey pictures, some with a map, and a picture of augmented films."""
    folder = run.generation(index)
    y, x = np.mgrid[0:size, 0:size] / size
    kinds = ("true positive", "false positive", "false negative", "true negative")
    entries = []
    for k in range(8):
        grey = 120 + 100 * np.cos(3 * (x - 0.5) + k) * np.sin(3 * y)
        for name in ("thumbs", "maps"):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / name / f"{k}.png")
        entries.append(
            {
                "label": LABELS[k],
                "kind": kinds[k % 4],
                "image": f"patient0{k}/study1/view1_frontal.jpg",
                "probability": 0.9 - k / 10,
                "truth": int(k % 4 in (0, 2)),
                "thumb": f"thumbs/{k}.png",
                "map": f"maps/{k}.png" if k % 2 == 0 else None,
            }
        )
    write_json(folder / "gallery.json", {"entries": entries})
    Image.fromarray(np.tile(grey.clip(0, 255).astype(np.uint8), (2, 6))).save(folder / "augmented.png")
