"""The stage that says what a generation is trained on: labels, and what the teachers say of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student import promotion, scoring, training
from noisy_student.config import Config
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.runs import REFIT, Run, write_json
from noisy_student.targets import folds, table
from noisy_student.targets.pseudo import Judged, PseudoLabels, mean_of, pseudo_labels, study_mean
from noisy_student.targets.uncertainty import fill_uncertain, label_targets, self_trained
from noisy_student.workplace import Traffic, Workplace

Floats = npt.NDArray[np.float64]


def make_targets(work: Workplace, generation: int) -> Traffic:
    """Write ``targets.parquet`` and its statistics: labels for generation 0, and pseudo-labels for the pool after.

    In a cross-fitted run every network has a table of its own, without its fold of the label budget and with what the
    networks of the same fold say of the pool, so that nothing of the fold's labels reaches it. The generation's table
    is their mean then, or that of the network which learns from all folds and is taught what the teachers say.
    """
    run, config = work.run, work.config
    labels, folder = config.data.labels, run.generation(generation)
    films = manifest.read(run.manifest)
    pool, teachers = manifest.pool(films), promotion.teachers_of(run, generation)
    crossed = config.folds > 1
    labelled = manifest.budget(films) if crossed else manifest.select(films, split="train", labelled=True)
    reads, writes = [run.manifest], [folder / "targets.parquet", folder / "targets.json"]
    known, more = _known(run, config, labelled, teachers)
    reads += more
    lessons: list[PseudoLabels] = []
    judging = None
    # Films of the pool without a target: of use to an objective that compares views of a film.
    shown = pool if config.uses_pool(generation) else manifest.rows(pool, np.zeros(len(pool), dtype=bool))
    if teachers and len(pool) and config.pseudo.select.judged:
        judging = _judging(run, config, films, teachers)
        reads += judging.reads
    if crossed:
        reads.append(run.folds)
        fold = folds.read(run.folds, known.images)
    everyone = enumerate(training.fold_numbers(config, generation))
    for number in (fold for place, fold in everyone if not config.stays(generation, place)):
        own = known if number is None else known.rows(fold != number)
        if teachers and len(pool):
            of = None if number == REFIT else number
            probability = np.mean([scoring.teaching(run, config, g, pool, of) for g in teachers], axis=0)
            reads += [scoring.predictions_path(run, teacher, "pool", of) for teacher in teachers]
            positives, total = (own.target * own.weight).sum(axis=0), own.weight.sum(axis=0)
            counts = [(float(p), float(n)) for p, n in zip(positives, total, strict=True)]
            lessons.append(
                pseudo_labels(
                    probability,
                    list(pool.frame["study"]),
                    labels,
                    counts,
                    config.pseudo,
                    generation,
                    None if judging is None else judging.without(of),
                )
            )
        if number is not None:
            lesson = lessons[-1] if lessons else None
            own, place = _with_pool(own, shown, lesson), run.network(generation, number)
            table.write(own, place / "targets.parquet")
            write_json(place / "targets.json", _statistics(own, lesson, None, teachers))
            writes += [place / "targets.parquet", place / "targets.json"]
    refit = config.phase(generation).refit is not None
    made, earlier = (lessons[-1] if refit else mean_of(lessons)) if lessons else None, None
    if made is not None:
        reads += [path for teacher in teachers for path in scoring.calibration_files(run, teacher)]
        reads.append(run.generation(generation - 1) / "promotion.json")
        if generation > 1:
            last = run.generation(generation - 1) / "targets.parquet"
            earlier = table.read(last)
            reads.append(last)
    targets = _with_pool(known, shown, made)
    table.write(targets, folder / "targets.parquet")
    write_json(folder / "targets.json", _statistics(targets, made, earlier, teachers))
    return Traffic(list(dict.fromkeys(reads)), writes)


def _known(run: Run, config: Config, labelled: Manifest, teachers: Sequence[int]) -> tuple[table.Targets, list[Path]]:
    """Return the targets of the labelled films, and the files of teachers that say what their uncertain labels are.

    In a cross-fitted run a teacher's word on a film is that of its network which has not learnt from the patient; one
    network has seen its labelled films, with the uncertain labels ignored.
    """
    labels, values = config.data.labels, manifest.values(labelled)
    images = labelled.frame["image"].to_numpy(dtype=object)
    target, weight = label_targets(values, labels, config.targets, images.tolist())
    taught, reads = self_trained(labels, config.targets), []
    if teachers and ((values == -1) & taught).any():
        said = np.empty(values.shape)
        for name in ("valid", "labelled"):
            rows = (labelled.frame["split"] == ("valid" if name == "valid" else "train")).to_numpy(dtype=bool)
            if rows.any():
                part = manifest.rows(labelled, rows)
                said[rows] = np.mean([scoring.teaching(run, config, g, part, split=name) for g in teachers], axis=0)
                reads += [scoring.predictions_path(run, g, name) for g in teachers]
        reads += [path for g in teachers for path in scoring.calibration_files(run, g)]
        target, weight = fill_uncertain(values, target, weight, said, taught)
    return table.Targets(images, labels, target, weight, np.zeros(len(images), dtype=bool)), reads


@dataclass(frozen=True, eq=False)
class _Judging:
    """The judging films and what the teachers say of them, (M, K), none of it by a network that has learnt them."""

    truth: Floats
    probability: Floats
    fold: npt.NDArray[np.int64] | None
    reads: list[Path]

    def without(self, fold: int | None) -> Judged:
        """Return the films but those of ``fold``, whose labels are kept from the network that they judge."""
        keep = np.ones(len(self.truth), dtype=bool) if fold is None or self.fold is None else self.fold != fold
        return Judged(self.truth[keep], self.probability[keep])


def _judging(run: Run, config: Config, films: Manifest, teachers: Sequence[int]) -> _Judging:
    parts = scoring.judging_films(config, films)
    # The mean of a study's films, as it is taken of the pool: a mean of two views is on another scale than one view.
    said = [
        study_mean(
            np.mean([scoring.teaching(run, config, g, part, split=name) for g in teachers], axis=0),
            list(part.frame["study"]),
        )
        for name, part in parts.items()
    ]
    truth = [scoring.known_truth(manifest.values(part), config.targets.blank) for part in parts.values()]
    images = np.concatenate([scoring.images(part) for part in parts.values()])
    return _Judging(
        np.concatenate(truth),
        np.concatenate(said),
        folds.read(run.folds, images) if config.folds > 1 else None,
        [scoring.predictions_path(run, g, name) for g in teachers for name in parts],
    )


def _with_pool(known: table.Targets, pool: Manifest, made: PseudoLabels | None) -> table.Targets:
    """Return the table of the labelled films and of the pool, whose targets weigh nothing where none were made."""
    images = pool.frame["image"].to_numpy(dtype=object)
    if made is None:
        target = weight = np.zeros((len(images), len(known.labels)), dtype=np.float32)
    else:
        target, weight = made.target.astype(np.float32), made.weight.astype(np.float32)
    pseudo = table.Targets(images, known.labels, target, weight, np.ones(len(images), dtype=bool))
    return table.concatenate(known, pseudo)


def _statistics(
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
            "thresholds": None,
            "taken": None,
            "histogram": None,
            "changed": None,
        }
        if made is not None:
            expected, cut, (positives, negatives) = made.prevalence[k], made.cuts[k], made.taken[k]
            counts = np.histogram(target[pseudo], edges)[0]
            entry |= {
                "teacher_mean": made.teacher_mean[k],
                "prevalence": expected and expected.mean,
                "prevalence_ci": list(expected.ci) if expected and expected.ci else None,
                "pseudo_mean": float(target[pseudo].mean()),
                "thresholds": {"low": cut.low, "high": cut.high, "reason": cut.reason},
                "taken": {
                    "positives": positives,
                    "negatives": negatives,
                    "left_out": float(pseudo.sum()) - positives - negatives,
                },
                "histogram": {"edges": [round(float(e), 3) for e in edges], "counts": [int(c) for c in counts]},
            }
            if earlier is not None:
                entry["changed"] = float(np.abs(target[pseudo] - earlier.target[earlier.pseudo, k]).mean())
        entries[label] = entry
    return {
        "labelled": int(labelled.sum()),
        "pseudo": int(pseudo.sum()) if made is not None else 0,
        "unlabelled": int((targets.weight[pseudo] == 0).all(axis=1).sum()),
        "teachers": teachers,
        "labels": entries,
    }
