"""A plausible finished run of three generations, written file by file the way the stages write it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from noisy_student.labels import OBSERVATIONS
from noisy_student.runs import Run, read_json, write_json

LABELS = tuple(OBSERVATIONS)
POINTS = ("youden", "sensitivity", "specificity")
VERDICTS = ("first", "better", "undecided")
PREVALENCE = dict(
    zip(LABELS, (0.1, 0.12, 0.2, 0.4, 0.05, 0.25, 0.12, 0.06, 0.2, 0.1, 0.35, 0.04, 0.03, 0.5), strict=True)
)


def make_run(
    path: Path, generations: int = 3, labels: tuple[str, ...] = LABELS, verdicts=VERDICTS, test_images: int = 600
) -> Run:
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
            "targets": {"uncertain": "literature", "uncertain_by_label": {"Edema": "ignore"}, "blank": "zeros"},
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
            "unreadable": 2,
            "quarantine": [
                {"patient": "0a1b2c3d", "reason": "the film: cannot be decoded (broken data stream)"},
                {"patient": "4e5f6a7b", "reason": "the film: is missing"},
            ],
        },
    )
    arms = {"supervised_few": (0.79, "tuned on the label budget"), "supervised_all": (0.91, "all labels")}
    write_json(
        path / "references.json",
        {
            name: {"auroc": area, "ci": [area - 0.02, area + 0.02], "source": source}
            for name, (area, source) in arms.items()
        },
    )
    for generation in range(generations):
        make_generation(run, generation, labels, verdicts[generation], test_images)
    return run


def make_generation(
    run: Run, index: int, labels: tuple[str, ...] = LABELS, verdict: str = "better", test_images: int = 600
) -> None:
    """Write the files of generation ``index``."""
    folder = run.generation(index)
    rng = np.random.default_rng(index)
    for step in range(1, 301):
        run.log(generation=index, step=step, loss=float(0.2 + 0.5 * np.exp(-step / 60) + rng.normal(0, 0.02)), lr=1e-3)
        if step % 50 == 0:
            auroc, loss = float(0.85 - 0.3 * np.exp(-step / 60)), float(0.3 + 0.3 * np.exp(-step / 80))
            run.log(generation=index, step=step, valid_auroc=auroc, valid_log_loss=loss, films_per_second=812.0)
    splits = {split: level(labels, split, index, test_images) for split in ("valid", "test")}
    write_json(
        folder / "evaluation.json",
        {
            "generation": index,
            "level": "image",
            "labels": list(labels),
            "macro_labels": list(labels),
            "confidence": 0.95,
            "splits": {split: {"image": part, "study": part} for split, part in splits.items()},
            "notes": {"valid": "Fitted to these films."},
            "paired": None if index == 0 else paired(labels, index),
            "paired_first": paired(labels, index, against=0) if index > 1 else None,
            "subgroups": subgroups(labels),
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
            "log_loss": score | {"difference": -0.012, "ci": [-0.02, -0.004], "lower": -0.018, "upper": -0.006}
            if student
            else None,
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


def make_ensemble(run: Run, index: int, networks: int = 2) -> None:
    """Make generation ``index`` an ensemble of focal losses whose sampler drew positives of Edema more often."""
    folder = run.generation(index)
    plain = read_json(folder / "calibration.json")
    members = []
    for network in range(networks):
        entries = {
            name: entry | {"slope": 0.9 + network, "drawn": 0.7 if name == "Edema" else 0.0}
            for name, entry in zip(plain["labels"], plain["platt"], strict=True)
        }
        link = {
            "name": "focal",
            "gamma_positive": 2.0,
            "gamma_negative": 2.0,
            "free": 0.0,
            "odds": 0.0,
            "smoothing": 0.1,
        }
        of_study = {name: entry | {"slope": 3.5 + network} for name, entry in entries.items()}
        study = {"aggregation": "max", "labels": of_study, "link": link}
        members.append({"labels": entries, "link": link, "study": study})
        meta = {"model": {"name": "small_resnet"}, "origin": "none", "images_seen": 19_200}
        write_json(run.network(index, member=network) / "checkpoint" / "best" / "meta.json", meta)
    shutil.rmtree(folder / "checkpoint")
    write_json(folder / "calibration.json", {"members": members})


def level(labels: tuple[str, ...], split: str, index: int, test_images: int = 600) -> dict[str, Any]:
    """Return the measures of simulated predictions; better with every generation."""
    n, patients = (300, 150) if split == "valid" else (test_images, test_images * 5 // 6)
    rng = np.random.default_rng([7, split == "test"])
    cells = {}
    for name in labels:
        prevalence = PREVALENCE.get(name, 0.2)
        truth = (rng.random(n) < prevalence).astype(int)
        if name == "Fracture" and split == "valid":
            truth[:] = 0
        logit = np.log(prevalence / (1 - prevalence)) + truth * (1.1 + 0.25 * index) + rng.normal(0, 0.9, n)
        cells[name] = cell(truth, 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-2 * logit - 0.5)))
    known = [name for name in labels if cells[name]["auroc"] is not None]
    mean = float(np.mean([cells[name]["auroc"] for name in known]))
    macro = {"auroc": mean, "ci": [mean - 0.021, mean + 0.019], "labels": known, "reason": None}
    for key in ("ap", "brier", "log_loss", "ece"):
        macro[key] = float(np.mean([cells[name][key] for name in known]))
    macro |= {"undefined_replicates": 0.004, "undefined_labels": known[-1:], "calibration_reason": None}
    return {"n": n, "patients": patients, "macro": macro, "labels": cells}


def cell(truth: np.ndarray, probability: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Return the measures of one label, undefined without positives; ``before`` is the probability uncalibrated."""
    positives = int(truth.sum())
    counts = {
        "positives": positives,
        "negatives": int(len(truth) - positives),
        "unknown": 0,
        "calibration_reason": None,
    }
    counts |= {f"{kind}_patients": counts[f"{kind}s"] // 2 for kind in ("positive", "negative")}
    method = {
        "ci_method": "bootstrap over patients",
        "delong_method": "Obuchowski",
        "delong_reason": None if positives else "no positives",
        "undefined_replicates": 0.0 if positives else 1.0,
    }
    if positives == 0:
        undefined = dict.fromkeys(
            ("auroc", "ci", "ap", "roc", "pr", "delong_ci", "ece_width", "ece_debiased", "brier_parts", "before")
        )
        why = "no positives"
        nothing = dict.fromkeys((*point(truth, probability, 0.5, None), "ci")) | {"reason": why}
        return undefined | method | {
            "brier": 0.004, "log_loss": 0.04, "ece": 0.03, "reason": why, "reliability": None,
            "operating_points": {name: dict(nothing) for name in POINTS}, **counts
        }  # fmt: skip
    ranked = truth[np.argsort(-probability)]
    tpr = np.concatenate([[0], np.cumsum(ranked) / positives])
    fpr = np.concatenate([[0], np.cumsum(1 - ranked) / (len(truth) - positives)])
    auroc = float(np.sum(np.diff(fpr) * tpr[1:]))
    precision = np.cumsum(ranked) / np.arange(1, len(truth) + 1)
    half = 1.2 * float(np.sqrt(auroc * (1 - auroc) / positives))
    ci = [max(0.0, auroc - half), min(1.0, auroc + half * 0.8)]
    share = positives / len(truth)
    thresholds = dict(zip(POINTS, (share, share / 2, share * 2), strict=True))
    targets = dict(zip(POINTS, (None, 0.9, 0.9), strict=True))
    return counts | method | calibrated(truth, probability) | {
        "auroc": auroc,
        "ci": ci,
        "delong_ci": [ci[0] + 0.001, ci[1] - 0.001],
        "ap": float(precision[ranked == 1].mean()),
        "brier_parts": {"reliability": 0.002, "resolution": 0.04, "uncertainty": share * (1 - share)},
        "ece_width": 0.031,
        "ece_debiased": 0.012,
        "before": calibrated(truth, before),
        "operating_points": {name: point(truth, probability, thresholds[name], targets[name]) for name in POINTS},
        "reason": None,
        "roc": {"fpr": thinned(fpr), "tpr": thinned(tpr)},
        "pr": {"recall": thinned(np.cumsum(ranked) / positives), "precision": thinned(precision)},
    }  # fmt: skip


def thinned(values: np.ndarray, most: int = 600) -> list[float]:
    """Return a curve at no more than ``most`` of its points, as an evaluation stores it."""
    return values[np.unique(np.linspace(0, len(values) - 1, most).astype(int))].tolist()


def calibrated(truth: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    """Return the measures that look at the probabilities themselves."""
    bins = np.array_split(np.argsort(probability), 10)
    likelihood = np.where(truth == 1, probability, 1 - probability)
    return {
        "brier": float(np.mean((probability - truth) ** 2)),
        "log_loss": float(-np.log(likelihood).mean()),
        "ece": float(np.mean([abs(probability[rows].mean() - truth[rows].mean()) for rows in bins])),
        "reliability": {
            "probability": [float(probability[rows].mean()) for rows in bins],
            "frequency": [float(truth[rows].mean()) for rows in bins],
            "count": [len(rows) for rows in bins],
        },
    }


def point(truth: np.ndarray, probability: np.ndarray, threshold: float, target: float | None) -> dict[str, Any]:
    """Return counts and rates at a threshold."""
    called = probability >= threshold
    tp, fp = int((called & (truth == 1)).sum()), int((called & (truth == 0)).sum())
    fn, tn = int((~called & (truth == 1)).sum()), int((~called & (truth == 0)).sum())
    rates = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp), "npv": (tn, tn + fn)}
    shares = {name: part / whole if whole else None for name, (part, whole) in rates.items()}
    return {
        "threshold": threshold, "chosen_on": "validation", "target": target,
        "tp": tp, "fp": fp, "fn": fn, "tn": tn, **shares, "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
        "ci": {name: [max(0, v - 0.06), min(1, v + 0.05)] if (v := shares[name]) is not None else None
               for name in ("sensitivity", "specificity")},
        "reason": None,
    }  # fmt: skip


def subgroups(labels: tuple[str, ...]) -> dict[str, Any]:
    """Return AUROC by sex and age band; the youngest are few."""

    def group(name: str, n: int, auroc: float | None) -> dict[str, Any]:
        ci = None if auroc is None else [auroc - 0.03, auroc + 0.03]
        area = {"auroc": auroc, "ci": ci, "reason": "no label has both classes" if auroc is None else None}
        cells = {label: area | {"positives": n // 5, "negatives": n - n // 5} for label in labels}
        return {"group": name, "n": n, "patients": n - 3, "small": n < 50, "macro": area, "labels": cells}

    def column(groups: list[dict[str, Any]]) -> dict[str, Any]:
        known = [one for one in groups if not one["small"]]
        between = [known[0]["group"], known[1]["group"]]
        return {"groups": groups, "gap": {"difference": 0.02, "ci": [-0.01, 0.05], "between": between, "reason": None}}

    sexes = [group("F", 280, 0.84), group("M", 320, 0.86)]
    ages = [
        group("under 20", 20, None),
        group("20-39", 180, 0.88),
        group("40-59", 220, 0.85),
        group("60 and over", 180, 0.82),
    ]
    return {"columns": {"sex": column(sexes), "age": column(ages)}, "smallest": 50}


def paired(labels: tuple[str, ...], index: int, against: int | None = None) -> dict[str, Any]:
    """Return a comparison with the generation before, or with the one named."""
    ci = [0.011, 0.041] if index == 1 or against == 0 else [-0.004, 0.021]
    told = (
        "better"
        if ci[0] > 0
        else "cannot be told apart with 500 patients; a difference of 0.009 would need about 2,100 patients"
    )
    found = {"difference": sum(ci) / 2, "ci": ci, "lower": ci[0], "upper": ci[1], "p": 0.02, "reason": None}
    cells = {name: found | {"p_holm": 0.28, "sentence": told} for name in labels}
    against = index - 1 if against is None else against
    return {"against": against, "split": "test", "macro": found | {"sentence": told}, "labels": cells}


def pool(labels: tuple[str, ...]) -> dict[str, Any]:
    """Return the diagnostic on the pool's withheld labels."""
    cells = {
        name: {
            "auroc": 0.84,
            "teachers_auroc": 0.82,
            "brier": 0.09,
            "pseudo_share": 0.21,
            "true_share": 0.2,
            "right_positives": 0.71,
            "right_negatives": 0.94,
            "positives": 520,
            "negatives": 2080,
        }
        for name in labels
    }
    note = "The withheld labels of the pool, read after training for this diagnostic alone."
    return {"note": note, "labels": cells, "macro": {"auroc": 0.84, "teachers_auroc": 0.82}}


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


def make_older(run: Run) -> None:
    """Take out of the run what earlier versions did not write."""
    (run.path / "references.json").unlink(missing_ok=True)
    for index in run.generations():
        path = run.generation(index) / "evaluation.json"
        evaluation = read_json(path)
        for key in ("paired_first", "subgroups", "notes"):
            del evaluation[key]
        for part in evaluation["splits"].values():
            for level in part.values():
                for key in (
                    "ap",
                    "brier",
                    "log_loss",
                    "ece",
                    "undefined_replicates",
                    "undefined_labels",
                    "calibration_reason",
                ):
                    del level["macro"][key]
                for cell in level["labels"].values():
                    for key in (
                        "ci_method",
                        "delong_ci",
                        "delong_method",
                        "delong_reason",
                        "undefined_replicates",
                        "ece_width",
                        "ece_debiased",
                        "brier_parts",
                        "pr",
                        "before",
                        "operating_points",
                        "positive_patients",
                        "negative_patients",
                        "calibration_reason",
                    ):
                        del cell[key]
        write_json(path, evaluation)


def add_pictures(run: Run, index: int, size: int = 96) -> None:
    """Write a gallery of simple grey pictures, some with a map, and a picture of augmented films."""
    folder = run.generation(index)
    y, x = np.mgrid[0:size, 0:size] / size
    kinds = ("true positive", "false positive", "false negative", "true negative", "most uncertain", "biggest change")
    entries = []
    for k in range(8):
        grey = 120 + 100 * np.cos(3 * (x - 0.5) + k) * np.sin(3 * y)
        for name in ("thumbs", "maps"):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / name / f"{k}.png")
        entries.append(
            {
                "label": LABELS[k],
                "kind": kinds[k % 6],
                "image": f"patient0{k}/study1/view1_frontal.jpg",
                "probability": 0.9 - k / 10,
                "before": None if index == 0 else 0.4,
                "truth": int(k % 4 in (0, 2)),
                "labels": {
                    name: {"truth": (n + k) % 3 if (n + k) % 3 < 2 else None, "probability": 0.02 * n}
                    for n, name in enumerate(LABELS)
                },
                "thumb": f"thumbs/{k}.png",
                "map": f"maps/{k}.png" if k % 2 == 0 else None,
            }
        )
    thresholds = {name: PREVALENCE[name] for name in LABELS}
    chosen_on = dict.fromkeys(LABELS, "validation")
    write_json(folder / "gallery.json", {"thresholds": thresholds, "chosen_on": chosen_on, "entries": entries})
    Image.fromarray(np.tile(grey.clip(0, 255).astype(np.uint8), (2, 6))).save(folder / "augmented.png")
