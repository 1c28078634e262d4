"""What a run would do, for ``--dry-run``: sizes, steps and memory, from the tables alone, without writing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noisy_student.config import Config, PhaseConfig
from noisy_student.config.load import check_same, config_hash, read_snapshot
from noisy_student.data import sources
from noisy_student.preparation import STAGE, Sizes, assigned, check_train, check_views, data_root
from noisy_student.runs import Run


def started(run: Run) -> bool:
    """Return whether there is a run to resume: its data was prepared, or it has generations.

    A run directory without either was left by a run that ended before its data was ready, and counts as new.
    """
    return run.exists() and (run.is_complete(STAGE) or bool(run.generations()))


def describe(config: Config, output: Path, rounds: int, *, overwrite: bool = False) -> dict[str, Any]:
    """Return the plan of a run as key -> value; without the data, what is known without it.

    Raises:
        DataError: the tables are there and wrong.
        ConfigError: the run at ``output`` was made by another configuration.
    """
    run = Run(output)
    if not overwrite and (output / "config.resolved.json").exists() and started(run):
        check_same(read_snapshot(output / "config.resolved.json"), config, output)
    root = data_root(config.data)
    state = "new" if not started(run) else "is replaced" if overwrite else "exists: needs --resume or --overwrite"
    plan: dict[str, Any] = {
        "output": f"{output} ({state})",
        "config": config_hash(config),
        "data": f"{config.data.source} at {root}",
        "labels": ", ".join(config.data.labels),
        "generations": f"{rounds + 1} (a teacher and {rounds} student{'' if rounds == 1 else 's'})",
        "teacher": _network(config, 0),
        "student": _students(config, rounds),
        "steps": _steps(amount(config, rounds)),
    }
    trainings = [(generation, config.trainings(generation)) for generation in range(rounds + 1)]
    staged = [f"generation {g}: {_staged(p)}" for g, those in trainings for p in those.values() if len(p.phases()) > 1]
    if staged:
        plan["phases"] = "; ".join(dict.fromkeys(staged))
    unused = [str(generation) for generation in sorted(config.generations) if generation > rounds]
    if unused:
        plan["not_used"] = f"generations.{', generations.'.join(unused)}: the last generation is {rounds} (--rounds)"
    if not sources.is_there(config.data, root):
        missing = "is made when the run starts" if config.data.source == "synthetic" else "is not there"
        return plan | {"films": f"unknown: the data set {missing}"}
    films = sources.load(config.data.model_copy(update={"root": root}))
    check_views(films, config)
    chosen, split = assigned(films, config)
    found = check_train(chosen, config)
    size = len(films) * config.data.channels * config.data.image_size**2
    counts = {
        name: f"{part['images']:,} films of {part['patients']:,} patients" for name, part in split["counts"].items()
    }
    plan["steps"] = _steps(amount(config, rounds, found))
    return plan | counts | {"decoded_films": f"{size / 1e6:,.0f} MB on disk, as much in memory where they fit"}


def amount(config: Config, rounds: int, films: Sizes | None = None) -> tuple[int, int] | None:
    """Return the steps of all trainings and the films that they see, both views of a self-supervised start counted;
    ``None`` where that depends on the ``films`` and they are not known.
    """
    steps = seen = 0
    for generation in range(rounds + 1):
        for number, phase in config.trainings(generation).items():
            own = phase.total_steps(None if films is None else films.seen(config, generation, number))
            if own is None:
                return None
            steps += own
            seen += own * phase.optim.batch_size
    learnt = config.pretrain
    if learnt.method != "none":
        steps += learnt.optim.steps
        seen += 2 * learnt.optim.steps * learnt.optim.batch_size
    return steps, seen


def _steps(found: tuple[int, int] | None) -> str:
    if found is None:
        return "depend on the films, which are not there yet (phases in epochs)"
    steps, seen = found
    return f"{steps:,} in all, {seen:,} films seen"


def _staged(phase: PhaseConfig) -> str:
    """Return what learns one after the other: ``head 30 steps, then all for the rest``."""
    parts = []
    for part in phase.phases():
        what = part.trainable if isinstance(part.trainable, str) else f"head and {part.trainable} block(s)"
        what += " on labelled films" if part.films == "labelled" else ""
        what += "" if part.noise else " without noise"
        long = f"{part.epochs:g} epochs" if part.epochs else f"{part.steps:,} steps" if part.steps else "for the rest"
        parts.append(f"{what} {long}")
    return ", then ".join(parts)


def _students(config: Config, rounds: int) -> str:
    """Return the networks of the students, one where they are all alike, else each with its generations."""
    if rounds == 0:
        return "none"
    networks: dict[str, list[str]] = {}
    for generation in range(1, rounds + 1):
        networks.setdefault(_network(config, generation), []).append(str(generation))
    if len(networks) == 1:
        return next(iter(networks))
    return "; ".join(f"{network} ({', '.join(which)})" for network, which in networks.items())


def _network(config: Config, generation: int) -> str:
    if config.phase(generation).members:
        return " + ".join(_member(config, generation, number) for number in range(len(config.networks(generation))))
    alone = _member(config, generation, 0)
    if config.phase(generation).refit is None:
        return alone
    whole = _member(config, generation, config.folds)
    if config.stays(generation, 0):
        return f"{whole} on all folds; the networks of the folds stay"
    return f"{alone}, and {'one' if whole == alone else whole} on all folds"


def _member(config: Config, generation: int, number: int) -> str:
    phase = config.networks(generation)[number]
    if phase.start == "teacher":
        return f"{phase.model.name} from its teacher"
    if config.starts_from_pretraining(generation, number):
        return f"{phase.model.name} from the self-supervised start"
    weights = phase.model.weights
    start = {"none": "", "imagenet": " from ImageNet"}.get(weights, f" from {weights}")
    return phase.model.name + start
