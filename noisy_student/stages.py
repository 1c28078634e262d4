"""The stages of a generation: each reads files of the run, writes files of the run, and says which.

Order: pretrain (before generation 0, where it is asked for), targets -> fit -> predict-valid -> calibrate -> promote ->
predict-pool, predict-test -> evaluate -> gallery -> maps -> report. A stage knows of the others only their files.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student import evaluation, illustration, promotion, scoring, training
from noisy_student.data import manifest, predictions
from noisy_student.reporting import report
from noisy_student.runs import read_json, write_json
from noisy_student.stats import calibration, consensus
from noisy_student.stats.links import Link
from noisy_student.targets import folds, table
from noisy_student.targets.pseudo import PseudoLabels, mean_of, pseudo_labels
from noisy_student.targets.uncertainty import label_targets
from noisy_student.workplace import Stage, Traffic, Workplace

Floats = npt.NDArray[np.float64]


# -- targets -------------------------------------------------------------------------------------------------------


def make_targets(work: Workplace, generation: int) -> Traffic:
    """Write ``targets.parquet`` and its statistics: labels for generation 0, and pseudo-labels for the pool after.

    In a cross-fitted run every network has a table of its own, without its fold of the label budget and with what the
    networks of the same fold say of the pool, so that nothing of the fold's labels reaches it. The generation's table
    is their mean then.
    """
    run, config = work.run, work.config
    labels, folder = config.data.labels, run.generation(generation)
    films = manifest.read(run.manifest)
    pool, teachers = training.pool_of(films), promotion.teachers_of(run, generation)
    crossed = config.folds > 1
    labelled = manifest.budget(films) if crossed else manifest.select(films, split="train", labelled=True)
    images = labelled.frame["image"].to_numpy(dtype=object)
    target, weight = label_targets(manifest.values(labelled), labels, config.targets, images.tolist())
    known = table.Targets(images, labels, target, weight, np.zeros(len(images), dtype=bool))
    reads, writes = [run.manifest], [folder / "targets.parquet", folder / "targets.json"]
    lessons: list[PseudoLabels] = []
    if crossed:
        reads.append(run.folds)
        fold = folds.read(run.folds, images)
    for number in range(config.folds):
        own = known.rows(fold != number) if crossed else known
        if teachers and len(pool):
            of = number if crossed else None
            probability = np.mean([scoring.teaching(run, config, g, pool, of) for g in teachers], axis=0)
            reads += [run.network(teacher, of) / "predictions" / "pool.parquet" for teacher in teachers]
            positives, total = (own.target * own.weight).sum(axis=0), own.weight.sum(axis=0)
            counts = [(float(p), float(n)) for p, n in zip(positives, total, strict=True)]
            lessons.append(pseudo_labels(probability, list(pool.frame["study"]), labels, counts, config.pseudo))
        if crossed:
            writes.append(run.network(generation, number) / "targets.parquet")
            table.write(_with_pool(own, pool, lessons[-1] if lessons else None), writes[-1])
    made, earlier = mean_of(lessons) if lessons else None, None
    if made is not None:
        reads += [run.generation(teacher) / "calibration.json" for teacher in teachers]
        reads.append(run.generation(generation - 1) / "promotion.json")
        if generation > 1:
            last = run.generation(generation - 1) / "targets.parquet"
            earlier = table.read(last)
            reads.append(last)
    targets = _with_pool(known, pool, made)
    table.write(targets, folder / "targets.parquet")
    write_json(folder / "targets.json", _target_statistics(targets, made, earlier, teachers))
    return Traffic(reads, writes)


def _with_pool(known: table.Targets, pool: manifest.Manifest, made: PseudoLabels | None) -> table.Targets:
    """Return the table of the labelled films, with the pseudo-labels of the pool where there are any."""
    if made is None:
        return known
    images = pool.frame["image"].to_numpy(dtype=object)
    target, weight = made.target.astype(np.float32), made.weight.astype(np.float32)
    pseudo = table.Targets(images, known.labels, target, weight, np.ones(len(images), dtype=bool))
    return table.concatenate(known, pseudo)


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
    """Fit the calibrations on validation, and on labelled films out of fold where there are any; write them.

    Members of an ensemble are calibrated one by one, and how far they differ on the validation films is written too.
    """
    run, config, labels = work.run, work.config, work.config.data.labels
    folder, films = run.generation(generation), manifest.read(run.manifest)
    judged = scoring.judging_films(config, films)
    # The networks of a cross-fitted generation share their loss and its shift, and are calibrated as one.
    models = [path / "meta.json" for path in run.networks(generation)[: 1 if config.folds > 1 else None]]
    reads = [run.manifest, *models]
    found = []
    for name, part in judged.items():
        reads.append(folder / "predictions" / f"{name}.parquet")
        found.append(predictions.read(reads[-1], part.frame["image"].to_numpy(dtype=object)))
    together = manifest.Manifest(pd.concat([part.frame for part in judged.values()], ignore_index=True), labels)
    learnt = [read_json(model) for model in models]
    fitted = consensus.fit(
        np.concatenate([stored.each for stored in found], axis=1),
        scoring.known_truth(manifest.values(together), config.targets.blank),
        scoring.views(together),
        config.evaluation.aggregation,
        [
            partial(
                calibration.fit, labels=labels, shift=one["shift"], link=Link.of_loss(one["loss"]), drawn=one["drawn"]
            )
            for one in learnt
        ],
    )
    writes = [folder / "calibration.json"]
    write_json(writes[0], fitted.to_json())
    if found[0].members is not None:
        writes.append(predictions.spread_path(folder / "predictions" / "valid.parquet"))
        spread = consensus.spread(fitted.each(found[0].each))
        predictions.write_spread(found[0].images, labels, spread, writes[-1])
    return Traffic(reads, writes)


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
