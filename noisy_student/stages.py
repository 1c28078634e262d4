"""The stages of a generation: each reads files of the run, writes files of the run, and says which.

Order: pretrain (before generation 0, where it is asked for), targets -> fit -> predict-valid -> calibrate -> promote ->
predict-pool, predict-test -> evaluate -> gallery -> maps -> report. A stage knows of the others only their files.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import evaluation, illustration, promotion, training
from noisy_student.data import manifest, predictions
from noisy_student.reporting import report
from noisy_student.runs import read_json, write_json
from noisy_student.stats import calibration
from noisy_student.targets import table
from noisy_student.targets.pseudo import PseudoLabels, pseudo_labels
from noisy_student.targets.uncertainty import label_targets
from noisy_student.workplace import Stage, Traffic, Workplace

Floats = npt.NDArray[np.float64]


# -- targets -------------------------------------------------------------------------------------------------------


def make_targets(work: Workplace, generation: int) -> Traffic:
    """Write ``targets.parquet`` and its statistics: labels for generation 0, and pseudo-labels for the pool after."""
    run, config = work.run, work.config
    labels = config.data.labels
    films = manifest.read(run.manifest)
    labelled, pool = manifest.select(films, split="train", labelled=True), training.pool_of(films)
    images = labelled.frame["image"].to_numpy(dtype=object)
    target, weight = label_targets(manifest.values(labelled), labels, config.targets, images.tolist())
    targets = table.Targets(images, labels, target, weight, np.zeros(len(images), dtype=bool))
    reads, teachers, made, earlier = [run.manifest], promotion.teachers_of(run, generation), None, None
    if teachers and len(pool):
        probability = np.mean([evaluation.probabilities(run, g, "pool", pool) for g in teachers], axis=0)
        positives, known = (target * weight).sum(axis=0), weight.sum(axis=0)
        counts = [(float(p), float(n)) for p, n in zip(positives, known, strict=True)]
        made = pseudo_labels(probability, list(pool.frame["study"]), labels, counts, config.pseudo)
        pool_images = pool.frame["image"].to_numpy(dtype=object)
        marks = np.ones(len(pool_images), dtype=bool)
        pseudo = table.Targets(
            pool_images, labels, made.target.astype(np.float32), made.weight.astype(np.float32), marks
        )
        targets = table.concatenate(targets, pseudo)
        for teacher in teachers:
            reads += [run.generation(teacher) / name for name in ("predictions/pool.parquet", "calibration.json")]
        reads.append(run.generation(generation - 1) / "promotion.json")
        if generation > 1:
            last = run.generation(generation - 1) / "targets.parquet"
            earlier = table.read(last)
            reads.append(last)
    folder = run.generation(generation)
    table.write(targets, folder / "targets.parquet")
    write_json(folder / "targets.json", _target_statistics(targets, made, earlier, teachers))
    return Traffic(reads, [folder / "targets.parquet", folder / "targets.json"])


def _target_statistics(
    targets: table.Targets, made: PseudoLabels | None, earlier: table.Targets | None, teachers: list[int]
) -> dict[str, Any]:
    labelled, pseudo = ~targets.pseudo, targets.pseudo
    edges = np.linspace(0, 1, 21)
    entries: dict[str, Any] = {}
    for k, label in enumerate(targets.labels):
        target, weight = targets.target[:, k].astype(np.float64), targets.weight[:, k].astype(np.float64)
        entry: dict[str, Any] = {
            "labelled_positives": float((target * weight)[labelled].sum()),
            "labelled_negatives": float(((1 - target) * weight)[labelled].sum()),
            "labelled_ignored": int((weight[labelled] == 0).sum()),
            "teacher_mean": None,
            "prevalence": None,
            "prevalence_ci": None,
            "pseudo_mean": None,
            "pseudo_kept": int((weight[pseudo] > 0).sum()),
            "pseudo_weight": float(weight[pseudo].sum()),
            "histogram": None,
            "changed": None,
        }
        if made is not None:
            expected = made.prevalence[k]
            counts = np.histogram(target[pseudo], edges)[0]
            entry |= {
                "teacher_mean": made.teacher_mean[k],
                "prevalence": expected and expected.mean,
                "prevalence_ci": list(expected.ci) if expected and expected.ci else None,
                "pseudo_mean": float(target[pseudo].mean()),
                "histogram": {"edges": [round(float(e), 3) for e in edges], "counts": [int(c) for c in counts]},
            }
            if earlier is not None:
                entry["changed"] = float(np.abs(target[pseudo] - earlier.target[earlier.pseudo, k]).mean())
        entries[label] = entry
    return {"labelled": int(labelled.sum()), "pseudo": int(pseudo.sum()), "teachers": teachers, "labels": entries}


# -- judgement -----------------------------------------------------------------------------------------------------


def calibrate(work: Workplace, generation: int) -> Traffic:
    """Fit the calibration on validation and write ``calibration.json``."""
    run, labels = work.run, work.config.data.labels
    folder = run.generation(generation)
    valid = manifest.select(manifest.read(run.manifest), split="valid")
    path = folder / "predictions" / "valid.parquet"
    stored = predictions.read(path, valid.frame["image"].to_numpy(dtype=object))
    meta = read_json(folder / "checkpoint" / "best" / "meta.json")
    # A student's labelled films are a part of its batches, so its shift is not known and is left to Platt.
    alone = not table.read(folder / "targets.parquet").pseudo.any()
    shift = np.log(np.asarray(meta["pos_weight"])) if alone else np.zeros(len(labels))
    truth = evaluation.known_truth(manifest.values(valid), work.config.targets.blank)
    fitted = calibration.fit(stored.logits, truth, labels, shift)
    write_json(folder / "calibration.json", fitted.to_json())
    reads = [run.manifest, path, folder / "checkpoint" / "best" / "meta.json", folder / "targets.parquet"]
    return Traffic(reads, [folder / "calibration.json"])


def evaluate(work: Workplace, generation: int) -> Traffic:
    """Write ``evaluation.json``."""
    content, reads = evaluation.evaluate_generation(work.run, work.config, generation)
    path = work.run.generation(generation) / "evaluation.json"
    write_json(path, content)
    return Traffic(reads, [path])


def write_report(work: Workplace, generation: int) -> Traffic:
    """Write the report of the generation."""
    folder = work.run.generation(generation)
    writes = report.write_generation(work.run, generation)
    return Traffic([folder / "evaluation.json", folder / "promotion.json"], list(writes))


STAGES: Final[dict[str, Stage]] = {
    "targets": make_targets,
    "pretrain": training.pretrain,
    "fit": training.train,
    "predict-valid": training.predict_split("valid"),
    "calibrate": calibrate,
    "promote": promotion.promote,
    "predict-pool": training.predict_split("pool"),
    "predict-test": training.predict_split("test"),
    "evaluate": evaluate,
    "gallery": illustration.choose_gallery,
    "maps": illustration.draw_maps,
    "report": write_report,
}
