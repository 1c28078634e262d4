"""The stages that train networks: the self-supervised start, and those of a generation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from noisy_student import origins, prediction, preflight, preparation, promotion, scoring
from noisy_student.config import Config, FinetuneConfig, PhaseConfig
from noisy_student.config.load import config_hash
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.randomness import generator, hash_u64
from noisy_student.runs import PRETRAINING, REFIT, atomic, read_json
from noisy_student.stats.sweeps import Sweep
from noisy_student.targets import folds, table
from noisy_student.targets.table import Targets
from noisy_student.workplace import Traffic, Workplace, device_of, group_of, model_files

if TYPE_CHECKING:
    import torch

    from noisy_student.learning.batches import Films
    from noisy_student.learning.course import Task

Floats32 = npt.NDArray[np.float32]
_BN_FILMS, _FOLD, _MEMBER = 0x424E, 0x464F4C44, 0x4D454D42  # separate the streams of random numbers


def assist(work: Workplace, what: str, *job: Any) -> None:
    """Do the part of one of several processes in what the first one is doing: see :mod:`noisy_student.ranks`."""
    from noisy_student.learning import fit

    if what == "pretrain":
        fit.fit(work.run, _pretraining(work), stop=work.stop)
    elif what == "train":
        fit.fit(work.run, _task(work, *job)[0], stop=work.stop)
    else:
        prediction.logits(work, *job)


def pretrain(work: Workplace, generation: int) -> Traffic:  # noqa: ARG001 - one start serves every generation
    """Learn from the films of the train split without labels; write the network from which generations start."""
    from noisy_student.learning import fit

    with group_of(work).sharing("pretrain"):
        writes = fit.fit(work.run, _pretraining(work), stop=work.stop, progress=work.progress)
    return Traffic([work.run.manifest], writes)


def _pretraining(work: Workplace) -> Task:
    """Return what the self-supervised start is trained on and how."""
    from noisy_student.learning import course, models, objectives, sampling

    config, device, search = work.config, device_of(work), preflight.weight_folders(work.config)
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
        group=group_of(work),
    )


def _belonging(films: Manifest, pairs: str) -> npt.NDArray[np.int64]:
    """Return a number (N,) per film, equal for films of which ``pairs`` says that they belong together."""
    if pairs == "film":
        return np.arange(len(films))
    return scoring.codes(films.frame[pairs])


def train(work: Workplace, generation: int) -> Traffic:
    """Train the networks of the generation, each on its targets table, and write their checkpoints.

    Those that stay (``Config.stays``) are copied from the generation before.
    """
    from noisy_student.learning import fit

    reads: list[Path] = []
    writes: list[Path] = []
    for number in range(len(work.config.networks(generation))):
        if work.config.stays(generation, number):
            kept = model_files(work.run.trained(generation - 1)[number])
            reads += kept
            writes += _copied(kept, work.run.network(generation, number) / "checkpoint" / "best")
            continue
        with group_of(work).sharing("train", generation, number):
            task, read = _task(work, generation, number)
            writes += fit.fit(work.run, task, stop=work.stop, progress=work.progress)
        reads += read
    return Traffic(list(dict.fromkeys(reads)), writes)


def _copied(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copy ``files`` into ``folder`` and return the copies."""
    for file in files:
        with atomic(folder / file.name) as temporary:
            shutil.copyfile(file, temporary)
    return [folder / file.name for file in files]


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

    run, config, device, search = work.run, work.config, device_of(work), preflight.weight_folders(work.config)
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
    if not config.uses_pool(generation, number):  # beside others that do; an epoch is of the films that it sees
        targets = targets.rows(~targets.pseudo)
    start, reads = None, [*told, run.manifest, path, run.generation(generation) / "targets.parquet"]
    if config.starts_from_pretraining(generation, number):
        start = run.networks(PRETRAINING)[0]
    elif phase.start == "teacher":
        teachers = run.trained(promotion.teachers_of(run, generation)[-1])
        start = teachers[number % len(teachers)]
    if start is not None:
        reads.append(start / "model.safetensors")
    # Of the whole table, also where a network learns from a part of it: the calibration takes out one shift for all.
    prevalence = None
    if phase.consistency.on:
        statistics = path.with_suffix(".json")
        prevalence = expected_prevalence(config, phase, whole, statistics)
        reads += [statistics] if phase.consistency.prevalence == "teacher" else []
    goal = goals.goal(phase, whole, prevalence, phase.stretches(len(targets.images))[-1].stop)
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
        group=group_of(work),
    )
    return task, reads


def expected_prevalence(
    config: Config, phase: PhaseConfig, targets: Targets, statistics: Path
) -> npt.NDArray[np.float64]:
    """Return the share of positives (K,) that a consistency term expects of the pool; NaN where nothing is known of it.

    ``pseudo.prevalence`` where it has the label, else what ``phase.consistency.prevalence`` says: the share among the
    labelled films of ``targets``, or the mean of what the teachers say of the pool by ``statistics`` (targets.json).
    """
    from noisy_student.learning import goals

    expected = goals.share_of_positives(targets)
    if phase.consistency.prevalence == "teacher":
        said = read_json(statistics)["labels"]
        expected = np.array([said[label]["teacher_mean"] for label in targets.labels], dtype=np.float64)  # None: NaN
    for label, known in config.pseudo.prevalence.items():
        expected[targets.labels.index(label)] = known
    return expected


def find_rate(work: Workplace) -> Sweep:
    """Return the learning-rate sweep of generation 0, or of its first network; nothing of it is kept."""
    from noisy_student.learning import sweep

    task, _ = _task(replace(work, group=None), 0, 0)
    return sweep.sweep(task, stop=work.stop, progress=work.progress)


def _on_device(work: Workplace, rows: npt.NDArray[np.int64], device: torch.device) -> Films:
    from noisy_student.learning.batches import Films

    return Films(work.cache.pixels, rows, device)


def _bn_films(work: Workplace, films: Manifest, count: int, device: torch.device) -> Films:
    """Return the clean films on which BatchNorm statistics are estimated: of the whole train split, without labels."""
    clean = clean_sample(manifest.select(films, split="train"), count, work.config.seed)
    return _on_device(work, preparation.film_rows(work.cache, clean), device)


def clean_sample(films: Manifest, count: int, seed: int) -> Manifest:
    """Return ``count`` films (at least one), drawn blindly, on which BatchNorm statistics are estimated.

    A random draw matters: tables are often sorted by class, and the statistics of one class ruin a model. They come in
    the order of the table.
    """
    order = generator(_BN_FILMS, seed).permutation(len(films))[: max(1, count)]
    return manifest.rows(films, np.isin(np.arange(len(films)), order))
