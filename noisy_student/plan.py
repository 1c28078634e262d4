"""What a run would do, for ``--dry-run``: sizes, steps and memory, from the tables alone, without writing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noisy_student.config import Config
from noisy_student.config.load import check_same, config_hash, read_snapshot
from noisy_student.data import manifest, sources, splits
from noisy_student.preparation import data_root
from noisy_student.runs import Run
from noisy_student.targets.uncertainty import label_targets


def describe(config: Config, output: Path, rounds: int, *, overwrite: bool = False) -> dict[str, Any]:
    """Return the plan of a run as key -> value; without the data, what is known without it.

    Raises:
        DataError: the tables are there and wrong.
        ConfigError: the run at ``output`` was made by another configuration.
    """
    run = Run(output)
    if not overwrite and (output / "config.resolved.json").exists() and run.exists():
        check_same(read_snapshot(output / "config.resolved.json"), config, output)
    root = data_root(config.data)
    phases = [config.phase(generation) for generation in range(rounds + 1)]
    learnt = config.pretrain
    steps = sum(phase.optim.steps * config.folds for phase in phases)
    seen = sum(phase.optim.steps * phase.optim.batch_size * config.folds for phase in phases)
    if learnt.method != "none":
        steps += learnt.optim.steps
        seen += 2 * learnt.optim.steps * learnt.optim.batch_size
    state = "new" if not run.exists() else "is replaced" if overwrite else "exists: needs --resume or --overwrite"
    plan: dict[str, Any] = {
        "output": f"{output} ({state})",
        "config": config_hash(config),
        "data": f"{config.data.source} at {root}",
        "labels": ", ".join(config.data.labels),
        "generations": f"{rounds + 1} (a teacher and {rounds} student{'' if rounds == 1 else 's'})",
        "teacher": _network(config.teacher.model.name, config.teacher.model.weights),
        "student": _network(config.student.model.name, config.student.model.weights),
        "steps": f"{steps:,} in all, {seen:,} films seen",
    }
    if not sources.is_there(config.data, root):
        missing = "is made when the run starts" if config.data.source == "synthetic" else "is not there"
        return plan | {"films": f"unknown: the data set {missing}"}
    films = sources.load(config.data.model_copy(update={"root": root}))
    chosen, split = splits.assign(films, config.split)
    labelled = manifest.select(chosen, split="train", labelled=True)
    target, weight = label_targets(
        manifest.values(labelled), config.data.labels, config.targets, labelled.frame["image"].tolist()
    )
    splits.check_classes(target, weight, config.data.labels)
    size = len(films) * config.data.channels * config.data.image_size**2
    counts = {
        name: f"{part['images']:,} films of {part['patients']:,} patients" for name, part in split["counts"].items()
    }
    return plan | counts | {"decoded_films": f"{size / 1e6:,.0f} MB on disk, as much in memory where they fit"}


def _network(name: str, weights: str) -> str:
    return name if weights == "none" else f"{name} from {'ImageNet' if weights == 'imagenet' else weights}"
