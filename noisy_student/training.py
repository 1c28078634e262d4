"""The stages that need tensors: the self-supervised start, training, prediction."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from noisy_student import evaluation, preparation, promotion
from noisy_student.config import Config, PhaseConfig
from noisy_student.config.load import config_hash
from noisy_student.data import manifest, predictions
from noisy_student.data.cache import Cache
from noisy_student.data.manifest import Manifest
from noisy_student.randomness import generator
from noisy_student.runs import PRETRAINING
from noisy_student.targets import table
from noisy_student.workplace import Stage, Traffic, Workplace

if TYPE_CHECKING:
    import torch

Floats32 = npt.NDArray[np.float32]
_BN_FILMS: Final = 0x424E


def pool_of(films: Manifest) -> Manifest:
    """Return the unlabelled films of the train split."""
    return manifest.select(films, split="train", labelled=False)


def _device(work: Workplace) -> torch.device:
    """Return the device to work on, after setting the number of threads."""
    import torch

    from noisy_student.learning import predict

    if work.config.threads:
        torch.set_num_threads(work.config.threads)
    return predict.best_device(work.device)


def pretrain(work: Workplace, generation: int) -> Traffic:  # noqa: ARG001 - one start serves every generation
    """Learn from the films of the train split without labels; write the network from which generations start."""
    from noisy_student.learning import fit, models, objectives
    from noisy_student.learning.batches import Films

    run, config, device = work.run, work.config, _device(work)
    labels, learnt = config.data.labels, config.pretrain
    films = manifest.select(manifest.read(run.manifest), split="train")
    images = films.frame["image"].to_numpy(dtype=object)
    pixels = Films(work.cache.pixels, preparation.film_rows(work.cache, films), device)
    clean = clean_sample(films, learnt.optim.bn_images, config.seed)
    unknown = np.zeros((len(images), len(labels)), dtype=np.float32)
    network = models.build(config.teacher.model, labels, config.data.channels, config.data.image_size, seed=0)
    objective = objectives.Byol(
        network.classifier.in_features,
        learnt.hidden,
        learnt.width,
        momentum=learnt.optim.ema_decay,
        seed=config.seed,
    )
    task = fit.Task(
        generation=PRETRAINING,
        seed=config.seed,
        phase=PhaseConfig(model=config.teacher.model, noise=learnt.noise, optim=learnt.optim),
        targets=table.Targets(images, labels, unknown, unknown, np.zeros(len(images), dtype=bool)),
        films=pixels,
        valid_films=None,
        valid_truth=unknown[:0],
        bn_films=Films(work.cache.pixels, preparation.film_rows(work.cache, clean), device),
        pos_weight=np.ones(len(labels), dtype=np.float32),
        macro_columns=(),
        precision=config.precision,
        objective=objective,
        views=2,
        search=weight_folders(config),
        info={"config": config_hash(config), "cache": work.cache.key},
    )
    return Traffic([run.manifest], fit.fit(run, task, stop=work.stop, progress=work.progress))


def train(work: Workplace, generation: int) -> Traffic:
    """Train the generation on its targets table and write its checkpoints."""
    from noisy_student.learning import fit, losses
    from noisy_student.learning.batches import Films

    run, config, device = work.run, work.config, _device(work)
    phase, folder = config.phase(generation), run.generation(generation)
    targets = table.read(folder / "targets.parquet")
    films = manifest.read(run.manifest)
    valid, train_films = manifest.select(films, split="valid"), manifest.select(films, split="train")
    clean = clean_sample(train_films, phase.optim.bn_images, config.seed)
    labelled = ~targets.pseudo
    start, reads = None, [run.manifest, folder / "targets.parquet"]
    if config.starts_from_pretraining(generation):
        start = run.generation(PRETRAINING) / "checkpoint" / "best"
    elif phase.start == "teacher":
        start = run.generation(promotion.teachers_of(run, generation)[-1]) / "checkpoint" / "best"
    if start is not None:
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
        pos_weight=losses.positive_weights(targets.target[labelled], targets.weight[labelled], phase.pos_weight_cap),
        macro_columns=tuple(config.data.labels.index(name) for name in config.macro_labels()),
        precision=config.precision,
        start=start,
        search=weight_folders(config),
        info={"config": config_hash(config), "cache": work.cache.key},
    )
    return Traffic(reads, fit.fit(run, task, stop=work.stop, progress=work.progress))


def predict_films(work: Workplace, generation: int, films: Manifest, pixels: Cache, title: str) -> Floats32:
    """Return the logits (N, K) of a generation's best model on ``films``, whose pixels are in ``pixels``."""
    import torch

    from noisy_student.learning import checkpoint, fit, predict
    from noisy_student.learning.batches import Films

    run, config, device = work.run, work.config, _device(work)
    network, _ = checkpoint.load(run.generation(generation) / "checkpoint" / "best", config.data.labels)
    network.to(device).to(memory_format=torch.channels_last)
    if not len(films):
        return np.empty((0, len(config.data.labels)), dtype=np.float32)
    return predict.predict(
        network,
        Films(pixels.pixels, preparation.film_rows(pixels, films), device, resident=False),
        autocast=fit.autocaster(device, config.precision),
        title=title,
        progress=work.progress,
    )


def predict_split(split: str) -> Stage:
    """Return the stage that predicts the films of ``split`` ("valid", "test" or "pool")."""

    def stage(work: Workplace, generation: int) -> Traffic:
        run, labels = work.run, work.config.data.labels
        films = manifest.read(run.manifest)
        chosen = pool_of(films) if split == "pool" else manifest.select(films, split=split)
        folder = run.generation(generation)
        best, path = folder / "checkpoint" / "best", folder / "predictions" / f"{split}.parquet"
        logits = predict_films(work, generation, chosen, work.cache, f"generation {generation}: predicting {split}")
        images = chosen.frame["image"].to_numpy(dtype=object)
        predictions.write(predictions.Predictions(images, labels, logits), path)
        return Traffic([run.manifest, best / "model.safetensors", best / "meta.json"], [path])

    return stage


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
    """Check what would otherwise fail only when training gets there: the networks, their weights files, the device.

    Raises:
        ConfigError: a network is not known, or not with these settings.
        WeightsError: a weights file is not there.
        UsageError: there is no such device.
    """
    from noisy_student.learning import models, predict

    predict.best_device(device)
    for phase in config.phases().values():
        models.build(phase.model, config.data.labels, config.data.channels, config.data.image_size, seed=0)
        if weights and phase.model.weights not in ("none", "imagenet"):
            models.find_weights(phase.model.weights, weight_folders(config))
