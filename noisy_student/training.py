"""The stages that need tensors: the self-supervised start, training, prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from noisy_student import origins, preflight, preparation, promotion, scoring
from noisy_student.config import Config, FinetuneConfig, PhaseConfig
from noisy_student.config.load import config_hash
from noisy_student.data import manifest, predictions
from noisy_student.data.cache import Cache
from noisy_student.data.manifest import Manifest
from noisy_student.randomness import generator, hash_u64, text_ids
from noisy_student.runs import PRETRAINING, REFIT
from noisy_student.stats import consensus
from noisy_student.stats.sweeps import Sweep
from noisy_student.targets import folds, table
from noisy_student.targets.uncertainty import self_trained
from noisy_student.workplace import Stage, Traffic, Workplace, model_files

if TYPE_CHECKING:
    import torch

    from noisy_student.learning.batches import Films
    from noisy_student.learning.course import Task
    from noisy_student.learning.distributed import Group

Floats32 = npt.NDArray[np.float32]
_BN_FILMS, _FOLD, _MEMBER, _STUDIES = 0x424E, 0x464F4C44, 0x4D454D42, 0x535455  # separate the streams of random numbers


def pool_of(films: Manifest) -> Manifest:
    """Return the unlabelled films of the train split."""
    return manifest.select(films, split="train", labelled=False)


def _device(work: Workplace) -> torch.device:
    """Return the device to work on, after preparing the processor for it."""
    from noisy_student.learning import machine, predict

    machine.prepare(work.config.threads)
    return predict.best_device(work.device)


def _group(work: Workplace) -> Group:
    from noisy_student.learning import distributed

    return work.group or distributed.ALONE


def assist(work: Workplace, what: str, *job: Any) -> None:
    """Do the part of one of several processes in what the first one is doing: see :mod:`noisy_student.ranks`."""
    from noisy_student.learning import fit

    if what == "pretrain":
        fit.fit(work.run, _pretraining(work), stop=work.stop)
    elif what == "train":
        fit.fit(work.run, _task(work, *job)[0], stop=work.stop)
    else:
        _logits(work, *job)


def pretrain(work: Workplace, generation: int) -> Traffic:  # noqa: ARG001 - one start serves every generation
    """Learn from the films of the train split without labels; write the network from which generations start."""
    from noisy_student.learning import fit

    with _group(work).sharing("pretrain"):
        writes = fit.fit(work.run, _pretraining(work), stop=work.stop, progress=work.progress)
    return Traffic([work.run.manifest], writes)


def _pretraining(work: Workplace) -> Task:
    """Return what the self-supervised start is trained on and how."""
    from noisy_student.learning import course, models, objectives, sampling

    config, device, search = work.config, _device(work), preflight.weight_folders(work.config)
    labels, learnt = config.data.labels, config.pretrain
    films = manifest.select(manifest.read(work.run.manifest), split="train")
    images = films.frame["image"].to_numpy(dtype=object)
    unknown = np.zeros((len(images), len(labels)), dtype=np.float32)
    network = models.build(config.teacher.model, labels, config.data.channels, config.data.image_size, seed=0)
    at_once = learnt.optim.model_copy(update={"phases": (FinetuneConfig(),)})
    objective = objectives.Byol(
        network.width,
        learnt.hidden,
        learnt.width,
        momentum=learnt.optim.ema_decay,
        seed=config.seed,
    )
    return course.Task(
        generation=PRETRAINING,
        seed=config.seed,
        phase=PhaseConfig(model=config.teacher.model, noise=learnt.noise, optim=at_once),
        targets=table.Targets(images, labels, unknown, unknown, np.zeros(len(images), dtype=bool)),
        films=_on_device(work, preparation.film_rows(work.cache, films), device),
        valid_films=None,
        valid_truth=unknown[:0],
        bn_films=_bn_films(work, films, learnt.optim.bn_images, device),
        pos_weight=np.ones(len(labels), dtype=np.float32),
        macro_columns=(),
        precision=config.precision,
        compiled=config.compile,
        objective=objective,
        partners=sampling.Partners(_belonging(films, learnt.pairs), config.seed),
        search=search,
        info={"config": config_hash(config), "cache": work.cache.key}
        | origins.history(config, config.teacher, None, search=search),
        group=_group(work),
    )


def _belonging(films: Manifest, pairs: str) -> npt.NDArray[np.int64]:
    """Return a number (N,) per film, equal for films of which ``pairs`` says that they belong together."""
    if pairs == "film":
        return np.arange(len(films))
    return scoring.codes(films.frame[pairs])


def train(work: Workplace, generation: int) -> Traffic:
    """Train the networks of the generation, each on its targets table, and write their checkpoints."""
    from noisy_student.learning import fit

    reads: list[Path] = []
    writes: list[Path] = []
    for number in range(len(work.config.networks(generation))):
        with _group(work).sharing("train", generation, number):
            task, read = _task(work, generation, number)
            writes += fit.fit(work.run, task, stop=work.stop, progress=work.progress)
        reads += read
    return Traffic(list(dict.fromkeys(reads)), writes)


def network_seed(config: Config, number: int) -> int:
    """Return the seed of network ``number`` of every generation; the first member of an ensemble has the run's own.

    So an ensemble holds the network that the run would have without it.
    """
    if config.folds == 1 and number == 0:
        return config.seed
    return int(hash_u64(_FOLD if config.folds > 1 else _MEMBER, config.seed, number) >> np.uint64(1))


def fold_numbers(config: Config, generation: int) -> tuple[int | None, ...]:
    """Return the fold of each network of a generation of a cross-fitted run, ``REFIT`` for one that learns from all;
    else ``None`` alone.
    """
    if config.folds == 1:
        return (None,)
    return (*range(config.folds), *([] if config.phase(generation).refit is None else [REFIT]))


def _task(work: Workplace, generation: int, number: int) -> tuple[Task, list[Path]]:
    """Return what a network of the generation is trained on and how, and the files that say so.

    It is judged on the validation films, a cross-fitted one on its fold of the label budget, one of all folds on none.
    """
    from noisy_student.learning import course, goals

    run, config, device, search = work.run, work.config, _device(work), preflight.weight_folders(work.config)
    films = manifest.read(run.manifest)
    judging, told = manifest.select(films, split="valid"), list[Path]()
    fold = None if config.folds == 1 else fold_numbers(config, generation)[number]
    if fold is not None:
        told, budget = [run.folds], manifest.budget(films)
        judging = manifest.rows(budget, folds.read(run.folds, budget.frame["image"].to_numpy(dtype=object)) == fold)
    member = number if config.phase(generation).members else None
    phase, path = config.networks(generation)[number], run.network(generation, fold) / "targets.parquet"
    whole = table.read(run.generation(generation) / "targets.parquet")
    targets = whole if fold is None else table.read(path)
    start, reads = None, [*told, run.manifest, path, run.generation(generation) / "targets.parquet"]
    if config.starts_from_pretraining(generation, number):
        start = run.networks(PRETRAINING)[0]
    elif phase.start == "teacher":
        teachers = run.trained(promotion.teachers_of(run, generation)[-1])
        start = teachers[number % len(teachers)]
    if start is not None:
        reads.append(start / "model.safetensors")
    # Of the whole table, also where a network learns from a part of it: the calibration takes out one shift for all.
    goal = goals.goal(phase, whole)
    task = course.Task(
        generation=generation,
        fold=fold,
        member=member,
        seed=network_seed(config, number),
        phase=phase,
        targets=targets,
        films=_on_device(work, work.cache.rows([str(image) for image in targets.images]), device),
        valid_films=_on_device(work, preparation.film_rows(work.cache, judging), device) if len(judging) else None,
        valid_truth=scoring.known_truth(manifest.values(judging), config.targets.blank).astype(np.float32),
        bn_films=_bn_films(work, films, phase.optim.bn_images, device),
        pos_weight=goal.pos_weight,
        macro_columns=tuple(config.data.labels.index(name) for name in config.macro_labels()),
        precision=config.precision,
        compiled=config.compile,
        objective=goal.objective,
        start=start,
        search=search,
        info={
            "config": config_hash(config),
            "cache": work.cache.key,
            "loss": phase.loss.model_dump(mode="json"),
            "shift": goal.shift.tolist(),
            "drawn": goal.drawn.tolist(),
        }
        | origins.history(
            config,
            phase,
            start,
            () if generation == 0 else run.trained(generation - 1),
            search=search,
        ),
        group=_group(work),
    )
    return task, reads


def find_rate(work: Workplace) -> Sweep:
    """Return the learning-rate sweep of generation 0, or of its first network; nothing of it is kept."""
    from noisy_student.learning import sweep

    task, _ = _task(replace(work, group=None), 0, 0)
    return sweep.sweep(task, stop=work.stop, progress=work.progress)


def predict_networks(
    work: Workplace, generation: int, films: Manifest, pixels: Cache, title: str, only: Sequence[int] | None = None
) -> list[Floats32]:
    """Return the logits (N, K) of each network of a generation on ``films``, whose pixels are in ``pixels``.

    ``only`` names those of all that were trained to ask; :func:`said` is what the generation says. With test-time
    augmentation a network's logits are the mean over the views of a film. Several processes share the films of the
    run's own data set; others the first process predicts alone.
    """
    trained = work.run.trained(generation)
    asked = [trained.index(one) for one in work.run.networks(generation)] if only is None else list(only)
    if not len(films):
        return [np.empty((0, len(work.config.data.labels)), dtype=np.float32) for _ in asked]
    image_id = text_ids([str(image) for image in films.frame["image"]])
    job = generation, asked, preparation.film_rows(pixels, films), image_id
    if pixels is not work.decoded:
        return _logits(replace(work, group=None), *job, title, pixels)
    with _group(work).sharing("predict", *job):
        return _logits(work, *job, title)


def _logits(
    work: Workplace,
    generation: int,
    asked: Sequence[int],
    rows: npt.NDArray[np.int64],
    image_id: npt.NDArray[np.int64],
    title: str = "",
    pixels: Cache | None = None,
) -> list[Floats32]:
    """Return what the networks ``asked`` say of the films in ``rows`` of ``pixels``, of the run's where not given."""
    import torch

    from noisy_student.learning import checkpoint, course, predict
    from noisy_student.learning.batches import Films

    config, device, folders = work.config, _device(work), work.run.trained(generation)
    films = Films((pixels or work.cache).pixels, rows, device, resident=False)
    views = predict.views(config.prediction.tta, image_id, films, seed=config.seed)
    kind = "fold" if config.folds > 1 else "member"
    found = []
    for number in asked:
        network, _ = checkpoint.load(folders[number], config.data.labels)
        network.to(device).to(memory_format=torch.channels_last)
        found.append(
            predict.predict(
                network,
                films,
                autocast=course.autocaster(device, config.precision),
                views=views,
                title=title if len(asked) == 1 else f"{title} ({kind} {number})",
                progress=work.progress,
                stop=work.stop,
                group=_group(work),
            )
        )
    return found


def said(work: Workplace, generation: int, logits: Sequence[Floats32]) -> Floats32:
    """Return the logits (C, N, K) to calibrate, from those of every network (N, K): each member's, else their mean."""
    if work.config.phase(generation).members:
        return np.stack(logits)
    mean: Floats32 = np.mean(logits, axis=0, dtype=np.float32)
    return mean[None]


def predict_split(split: str) -> Stage:
    """Return the stage that predicts the films of ``split`` ("valid", "test" or "pool").

    A cross-fitted generation says the mean of its networks' logits, or what the one says that learnt from all folds,
    except of its own label budget: there every film is predicted by the network that was trained without its patient,
    and "valid" writes the labelled films too. What each network says of the pool is kept: it teaches the network of the
    same fold.

    Where a teacher's word stands for uncertain labels, "valid" writes the labelled films too. Of an ensemble the logits
    of every member are kept. Where several networks said something of the pool or the test
    films, their spread is written beside; that of the validation films waits for the calibration.
    """

    def stage(work: Workplace, generation: int) -> Traffic:
        run, config, films = work.run, work.config, manifest.read(work.run.manifest)
        title = f"generation {generation}: predicting {split}"
        crossed, refit = config.folds > 1, config.phase(generation).refit is not None
        asked = run.trained(generation) if crossed and split in ("valid", "pool") else run.networks(generation)
        reads = [run.manifest, *(path for network in asked for path in model_files(network))]
        writes: list[Path] = []

        def write(folder: Path, name: str, chosen: Manifest, logits: Floats32, members: Floats32 | None = None) -> None:
            images = chosen.frame["image"].to_numpy(dtype=object)
            writes.append(folder / "predictions" / f"{name}.parquet")
            predictions.write(predictions.Predictions(images, config.data.labels, logits, members), writes[-1])

        folder = run.generation(generation)
        if split == "valid" and crossed:
            reads.append(run.folds)
            for name, chosen in scoring.judging_films(config, films).items():
                write(folder, name, chosen, _out_of_fold(work, generation, chosen, title))
            return Traffic(reads, writes)
        chosen = pool_of(films) if split == "pool" else manifest.select(films, split=split)
        everyone = range(len(asked)) if split == "pool" and crossed else None
        found = predict_networks(work, generation, chosen, work.cache, title, everyone)
        if everyone is not None:
            for number in range(config.folds):
                write(run.network(generation, number), split, chosen, found[number])
            found = found[-1:] if refit else found
        several = bool(config.phase(generation).members)
        members = said(work, generation, found) if several else None
        write(folder, split, chosen, np.mean(found, axis=0, dtype=np.float32), members)
        if split == "valid" and self_trained(config.data.labels, config.targets).any():
            labelled = manifest.select(films, split="train", labelled=True)
            own = predict_networks(work, generation, labelled, work.cache, title)
            members = said(work, generation, own) if several else None
            write(folder, "labelled", labelled, np.mean(own, axis=0, dtype=np.float32), members)
        if split != "valid" and len(found) > 1:
            reads.append(folder / "calibration.json")
            spread = consensus.spread(scoring.calibrations(run, generation).each(np.stack(found)))
            images = chosen.frame["image"].to_numpy(dtype=object)
            writes.append(predictions.spread_path(folder / "predictions" / f"{split}.parquet"))
            predictions.write_spread(images, config.data.labels, spread, writes[-1])
        return Traffic(reads, writes)

    return stage


def _out_of_fold(work: Workplace, generation: int, films: Manifest, title: str) -> Floats32:
    """Return the logits (N, K) of ``films``, each of the network that was trained without its patient."""
    fold = folds.read(work.run.folds, films.frame["image"].to_numpy(dtype=object))
    logits = np.empty((len(films), len(work.config.data.labels)), dtype=np.float32)
    for number in range(work.config.folds):
        own = fold == number
        logits[own] = predict_networks(work, generation, manifest.rows(films, own), work.cache, title, [number])[0]
    return logits


def _on_device(work: Workplace, rows: npt.NDArray[np.int64], device: torch.device) -> Films:
    from noisy_student.learning.batches import Films

    return Films(work.cache.pixels, rows, device)


def _bn_films(work: Workplace, films: Manifest, count: int, device: torch.device) -> Films:
    """Return the clean films on which BatchNorm statistics are estimated: of the whole train split, without labels."""
    clean = clean_sample(manifest.select(films, split="train"), count, work.config.seed)
    return _on_device(work, preparation.film_rows(work.cache, clean), device)


def whole_studies(films: Manifest, count: int, seed: int) -> Manifest:
    """Return all films of studies that are drawn blindly until their films are ``count`` or more; all where fewer."""
    study = scoring.codes(films.frame["study"])
    size = np.bincount(study)
    order = generator(_STUDIES, seed).permutation(len(size))
    before = np.cumsum(size[order]) - size[order]
    return manifest.rows(films, np.isin(study, order[before < count]))


def clean_sample(films: Manifest, count: int, seed: int) -> Manifest:
    """Return ``count`` films (at least one), drawn blindly, on which BatchNorm statistics are estimated.

    A random draw matters: tables are often sorted by class, and the statistics of one class ruin a model.
    """
    order = generator(_BN_FILMS, seed).permutation(len(films))[: max(1, count)]
    return manifest.rows(films, np.isin(np.arange(len(films)), order))
