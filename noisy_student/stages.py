"""The stages of a generation: each reads files of the run, writes files of the run, and says which.

Order: targets -> fit -> predict-valid -> calibrate -> promote -> predict-pool, predict-test -> evaluate -> gallery ->
maps -> report. A stage knows nothing of the others but their files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import evaluation, illustration, preparation, promotion
from noisy_student.config import Config
from noisy_student.config.load import config_hash
from noisy_student.data import manifest, predictions
from noisy_student.data.manifest import Manifest
from noisy_student.randomness import generator
from noisy_student.reporting import report
from noisy_student.runs import read_json, write_json
from noisy_student.stats import calibration
from noisy_student.targets import table
from noisy_student.targets.pseudo import PseudoLabels, pseudo_labels
from noisy_student.targets.uncertainty import label_targets
from noisy_student.workplace import Stage, Traffic, Workplace

Floats = npt.NDArray[np.float64]
_BN_FILMS = 0x424E


def pool_of(films: Manifest) -> Manifest:
    """Return the unlabelled films of the train split."""
    return manifest.select(films, split="train", labelled=False)


# -- targets -------------------------------------------------------------------------------------------------------


def make_targets(work: Workplace, generation: int) -> Traffic:
    """Write ``targets.parquet`` and its statistics: labels for generation 0, and pseudo-labels for the pool after."""
    run, config = work.run, work.config
    labels = config.data.labels
    films = manifest.read(run.manifest)
    labelled, pool = manifest.select(films, split="train", labelled=True), pool_of(films)
    target, weight = label_targets(manifest.values(labelled), labels, config.targets)
    images = labelled.frame["image"].to_numpy(dtype=object)
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


# -- fit and predict: the stages that need tensors -----------------------------------------------------------------


def train(work: Workplace, generation: int) -> Traffic:
    """Train the generation on its targets table and write its checkpoints."""
    import torch

    from noisy_student.learning import fit, losses, predict
    from noisy_student.learning.batches import Films

    run, config = work.run, work.config
    phase = config.teacher if generation == 0 else config.student
    if config.threads:
        torch.set_num_threads(config.threads)
    device = predict.best_device(work.device)
    folder = run.generation(generation)
    targets = table.read(folder / "targets.parquet")
    films = manifest.read(run.manifest)
    valid, train_films = manifest.select(films, split="valid"), manifest.select(films, split="train")
    clean = clean_sample(train_films, phase.optim.bn_images, config.seed)
    labelled = ~targets.pseudo
    pos_weight = losses.positive_weights(targets.target[labelled], targets.weight[labelled], phase.pos_weight_cap)
    start, reads = None, [run.manifest, folder / "targets.parquet"]
    if generation > 0 and phase.start == "teacher":
        start = run.generation(promotion.teachers_of(run, generation)[-1]) / "checkpoint" / "best"
        reads.append(start / "model.safetensors")

    def on_device(chosen: npt.NDArray[np.int64]) -> Films:
        return Films(work.cache.pixels, chosen, device)

    task = fit.Task(
        generation=generation,
        seed=config.seed,
        phase=phase,
        targets=targets,
        films=on_device(work.cache.rows([str(image) for image in targets.images])),
        valid_films=on_device(preparation.film_rows(work.cache, valid)),
        valid_truth=evaluation.known_truth(manifest.values(valid), config.targets.blank).astype(np.float32),
        bn_films=on_device(preparation.film_rows(work.cache, clean)),
        pos_weight=pos_weight,
        macro_columns=tuple(config.data.labels.index(name) for name in config.macro_labels()),
        precision=config.precision,
        start=start,
        search=weight_folders(config),
        info={"config": config_hash(config), "cache": work.cache.key},
    )
    writes = fit.fit(run, task, stop=work.stop, progress=work.progress)
    return Traffic(reads, writes)


def clean_sample(films: Manifest, count: int, seed: int) -> Manifest:
    """Return ``count`` films (at least one), drawn blindly, on which BatchNorm statistics are estimated.

    A random draw matters: tables are often sorted by class, and the statistics of one class ruin a model.
    """
    order = generator(_BN_FILMS, seed).permutation(len(films))[: max(1, count)]
    return manifest.rows(films, np.isin(np.arange(len(films)), order))


def weight_folders(config: Config) -> list[Path]:
    """Return the folders in which a relative weights file is looked up, in order."""
    folders = [Path(os.environ["NS_WEIGHTS"])] if os.environ.get("NS_WEIGHTS") else []
    folders.append(Path.cwd())
    if config.data.root is not None:
        folders += [config.data.root, config.data.root.resolve().parent / "weights"]
    return folders


def check_settings(config: Config, device: str, *, weights: bool = True) -> None:
    """Check what would otherwise fail only when training gets there: both networks, their weights files, the device.

    Raises:
        ConfigError: a network is not known, or not with these settings.
        WeightsError: a weights file is not there.
        UsageError: there is no such device.
    """
    from noisy_student.learning import models, predict

    predict.best_device(device)
    for phase in (config.teacher, config.student):
        models.build(phase.model, config.data.labels, config.data.channels, config.data.image_size, seed=0)
        if weights and phase.model.weights not in ("none", "imagenet"):
            models.find_weights(phase.model.weights, weight_folders(config))


def predict_split(split: str) -> Stage:
    """Return the stage that predicts the films of ``split`` ("valid", "test" or "pool")."""

    def stage(work: Workplace, generation: int) -> Traffic:
        import torch

        from noisy_student.learning import checkpoint, fit, predict
        from noisy_student.learning.batches import Films

        run, config = work.run, work.config
        if config.threads:
            torch.set_num_threads(config.threads)
        films = manifest.read(run.manifest)
        chosen = pool_of(films) if split == "pool" else manifest.select(films, split=split)
        folder = run.generation(generation)
        best, path = folder / "checkpoint" / "best", folder / "predictions" / f"{split}.parquet"
        network, _ = checkpoint.load(best, config.data.labels)
        device = predict.best_device(work.device)
        network.to(device).to(memory_format=torch.channels_last)
        logits = np.empty((0, len(config.data.labels)), dtype=np.float32)
        if len(chosen):
            pixels = Films(work.cache.pixels, preparation.film_rows(work.cache, chosen), device, resident=False)
            logits = predict.predict(
                network,
                pixels,
                autocast=fit.autocaster(device, config.precision),
                title=f"generation {generation}: predicting {split}",
                progress=work.progress,
            )
        images = chosen.frame["image"].to_numpy(dtype=object)
        predictions.write(predictions.Predictions(images, config.data.labels, logits), path)
        return Traffic([run.manifest, best / "model.safetensors", best / "meta.json"], [path])

    return stage


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
    "fit": train,
    "predict-valid": predict_split("valid"),
    "calibrate": calibrate,
    "promote": promotion.promote,
    "predict-pool": predict_split("pool"),
    "predict-test": predict_split("test"),
    "evaluate": evaluate,
    "gallery": illustration.choose_gallery,
    "maps": illustration.draw_maps,
    "report": write_report,
}
