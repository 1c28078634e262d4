"""The controller: which stages run, in which order, and where a run stands. No tensors, no statistics of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from noisy_student import preparation, training
from noisy_student.config import Config
from noisy_student.config.load import check_same, read_snapshot
from noisy_student.errors import StoppedError, UsageError
from noisy_student.plan import started
from noisy_student.reporting import report
from noisy_student.runs import Run, read_json
from noisy_student.stages import STAGES
from noisy_student.stats.sweeps import Sweep
from noisy_student.workplace import Workplace

TRAINING: Final = ("targets", "fit", "predict-valid", "calibrate", "promote")
"""Stages that make a generation; pseudo-labels for the next one need ``predict-pool`` after them."""
MEASURING: Final = ("predict-pool", "predict-test", "evaluate", "gallery", "maps", "report")
"""Stages that measure a generation and show it."""

Say = Callable[[str], None]


def training_stages(config: Config, generation: int) -> tuple[str, ...]:
    """Return the stages that make ``generation``: before the first one the self-supervised start, if it is on."""
    pretrain = generation == 0 and config.pretrain.method != "none"
    return ("pretrain", *TRAINING) if pretrain else TRAINING


def open_run(path: Path, config: Config, *, resume: bool, overwrite: bool) -> Run:
    """Return the run at ``path``, new, resumed or replaced.

    A run that ended before its data was ready, after a wrong ``data.root`` for example, counts as new.

    Raises:
        UsageError: there is a run and neither ``resume`` nor ``overwrite``, or a directory that is not ours.
        ConfigError: the run to resume was made by another configuration.
    """
    run = Run(path)
    if overwrite and (path.exists() or path.is_symlink()):
        if path.is_symlink() or not run.exists():
            run.remove()
        with run.lock():
            pass  # a run that another process works on is not removed
        run.remove()
    elif started(run) and not resume:
        raise UsageError(
            f"{path}: there is a run already", "Add --resume to go on with it, or --overwrite to start again."
        )
    run.create()
    snapshot = path / "config.resolved.json"
    left = [file for file in (snapshot, path / "config.yaml", run.folds) if file.exists()]
    if left and not started(run):
        with run.lock():  # another process may be preparing it just now, or have done so since
            for file in left if not started(run) else []:
                file.unlink()
    if snapshot.exists():
        check_same(read_snapshot(snapshot), config, path)
    return run


def existing_run(path: Path) -> tuple[Run, Config]:
    """Return the run at ``path`` and its configuration.

    Raises:
        UsageError: there is no run, or it was never prepared.
    """
    run = Run(path)
    if not run.exists() or not run.is_complete(preparation.STAGE):
        raise UsageError(f"{path}: is not a run of noisy_student", "Start one with ns iterate or ns train-teacher.")
    return run, read_snapshot(path / "config.resolved.json")


def run_stages(
    work: Workplace, generation: int, stages: Sequence[str], say: Say = lambda _: None, *, again: bool = False
) -> bool:
    """Run those of ``stages`` that are not complete yet, all of them with ``again``; return whether there were any.

    Raises:
        StoppedError: ``work.stop()`` became true between two stages.
    """
    ran = False
    for name in stages:
        if work.run.is_complete(name, generation) and not again:
            work.run.verify(name, generation)
            continue
        if work.stop():
            raise StoppedError(
                f"stopped before stage '{name}' of generation {generation}",
                "Go on with ns iterate --resume, or with the command that was stopped.",
            )
        since = time.perf_counter()
        traffic = STAGES[name](work, generation)
        seconds = round(time.perf_counter() - since, 2)
        work.run.record(name, generation, traffic.reads, traffic.writes, {"seconds": seconds})
        say(f"generation {generation}: {name} ({seconds:.1f} s)")
        ran = True
    return ran


def iterate(work: Workplace, rounds: int, say: Say = lambda _: None) -> dict[str, Any]:
    """Run generation 0 and ``rounds`` students, going on where the run stands, and return the overall report."""
    for generation in range(rounds + 1):
        run_stages(work, generation, training_stages(work.config, generation) + MEASURING, say)
        if _plateau(work, generation):
            say(f"stopping: no better student in {work.config.promotion.patience} rounds (promotion.patience)")
            break
    return overall(work)


def overall(work: Workplace) -> dict[str, Any]:
    """Write the report over all evaluated generations and return it."""
    path, _ = report.write_overall(work.run)
    content: dict[str, Any] = read_json(path)
    return content


def trained(run: Run) -> int:
    """Return the number of generations that are trained, calibrated and compared."""
    count = 0
    while run.is_complete(TRAINING[-1], count):
        count += 1
    return count


def train_teacher(work: Workplace, say: Say = lambda _: None) -> bool:
    """Make generation 0; return whether anything was left to do."""
    return run_stages(work, 0, training_stages(work.config, 0), say)


def find_rate(work: Workplace, say: Say = lambda _: None) -> Sweep:
    """Return the learning-rate sweep of generation 0; of the run, no more than the targets table is made for it, and
    the self-supervised start where training starts from that.
    """
    stages = training_stages(work.config, 0)
    run_stages(work, 0, stages[: stages.index("fit")], say)
    return training.find_rate(work)


def pseudo_label(work: Workplace, say: Say = lambda _: None) -> int:
    """Make the targets of the next generation from the pool and return its index.

    Raises:
        UsageError: no teacher has been trained.
    """
    generation = trained(work.run)
    if generation == 0:
        raise UsageError(f"{work.run.path}: there is no teacher yet", "Run ns train-teacher first.")
    run_stages(work, generation - 1, ("predict-pool",), say)
    run_stages(work, generation, ("targets",), say)
    return generation


def train_student(work: Workplace, say: Say = lambda _: None) -> int:
    """Train the generation whose targets are made and return its index; with none open, the last one trained.

    Raises:
        UsageError: no pseudo-labels have been made.
    """
    generation = trained(work.run)
    if generation == 0 or not work.run.is_complete("targets", generation):
        if generation > 1:
            return generation - 1
        raise UsageError(f"{work.run.path}: there are no pseudo-labels to train on", "Run ns pseudo-label first.")
    run_stages(work, generation, TRAINING, say)
    return generation


def evaluate(work: Workplace, say: Say = lambda _: None) -> int:
    """Measure every trained generation that is not measured yet and return how many there are.

    Raises:
        UsageError: nothing has been trained.
    """
    count = trained(work.run)
    if count == 0:
        raise UsageError(f"{work.run.path}: nothing has been trained yet", "Run ns train-teacher first.")
    for generation in range(count):
        run_stages(work, generation, MEASURING[:-1], say)
    return count


def make_reports(work: Workplace, say: Say = lambda _: None) -> dict[str, Any]:
    """Write the reports of all measured generations, also those that are there, and return the overall one.

    Raises:
        UsageError: nothing has been measured.
    """
    measured = [g for g in range(trained(work.run)) if work.run.is_complete(MEASURING[-2], g)]
    if not measured:
        raise UsageError(f"{work.run.path}: nothing has been evaluated yet", "Run ns evaluate first.")
    for generation in measured:
        run_stages(work, generation, ("report",), say, again=True)
    return overall(work)


def _plateau(work: Workplace, generation: int) -> bool:
    patience = work.config.promotion.patience
    if not patience or generation < patience:
        return False
    latest = range(generation - patience + 1, generation + 1)
    verdicts = [read_json(work.run.generation(g) / "promotion.json")["verdict"] for g in latest]
    return "better" not in verdicts and "first" not in verdicts
