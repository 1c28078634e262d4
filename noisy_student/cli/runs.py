"""Commands on a run: the whole loop, or its stages one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noisy_student.cli import options

if TYPE_CHECKING:
    from noisy_student.config import Config
    from noisy_student.runs import Run
    from noisy_student.workplace import Workplace


def default_output(config_path: Path | None) -> Path:
    """Return ``runs/<name of the config>``."""
    return Path("runs") / (config_path.stem if config_path else "demo")


@contextmanager
def _workplace(run: Run, config: Config, device: str, quiet: bool) -> Iterator[Workplace]:
    """Yield the prepared run, locked, with SIGTERM turned into a stop at the next safe point."""
    from noisy_student import preparation
    from noisy_student.workplace import Workplace

    progress = options.show_progress(quiet)
    with run.lock(), options.stop_on_sigterm() as stop:
        cache = preparation.prepare(run, config, progress=progress, stop=stop)
        yield Workplace(run, config, cache, device, progress, stop)


@contextmanager
def _existing(run_path: Path, overrides: tuple[str, ...], device: str, quiet: bool) -> Iterator[Workplace]:
    from noisy_student import generations
    from noisy_student.config.load import relocate

    run, stored = generations.existing_run(run_path)
    config = relocate(stored, overrides)
    with _workplace(run, config, device, quiet) as work:
        yield work


def _finish(work: Workplace, report: dict[str, Any], as_json: bool) -> None:
    from noisy_student.reporting.report import table

    if as_json:
        options.print_json(report)
        return
    click.echo(table(report))
    click.echo(f"\nBest: generation {report['best']}. Report: {work.run.path / 'report.html'}")
    click.echo("Research software. Not for clinical use.")


@dataclass(frozen=True)
class _Request:
    """What a user asked of a command that starts or resumes a run."""

    config_path: Path | None
    overrides: tuple[str, ...]
    output: Path | None
    resume: bool
    overwrite: bool
    dry_run: bool
    device: str
    as_json: bool
    verbose: bool
    quiet: bool


def _run_options(command: options.Command) -> options.Command:
    shared = (options.config, options.overrides, options.output, options.resume, options.overwrite, options.dry_run)
    for option in reversed((*shared, options.device, options.as_json, options.verbosity)):
        command = option(command)
    return command


@contextmanager
def _opened(asked: _Request, rounds: int) -> Iterator[Workplace | None]:
    """Yield the run asked for, ready to work on; ``None`` after a dry run, which printed the plan."""
    from noisy_student import generations, training
    from noisy_student.config.load import DEMO, load
    from noisy_student.plan import describe, started
    from noisy_student.runs import Run

    config = load(asked.config_path or DEMO, asked.overrides)
    path = asked.output or default_output(asked.config_path)
    # A run that is there has read its weights, or says so when it gets to them; a dry run needs no data.
    training.check_settings(config, asked.device, weights=not asked.dry_run and not started(Run(path)))
    if asked.dry_run:
        _print_plan(describe(config, path, rounds, overwrite=asked.overwrite), asked.as_json)
        yield None
        return
    run = generations.open_run(path, config, resume=asked.resume, overwrite=asked.overwrite)
    with _workplace(run, config, asked.device, asked.quiet) as work:
        yield work


@click.command()
@click.option("--rounds", type=click.IntRange(0), default=3, show_default=True, help="Students after generation 0.")
@_run_options
@options.example(
    "ns iterate --rounds 3\n"
    "ns iterate --config configs/chexpert.yaml --set data.root=/data/CheXpert-v1.0-small --rounds 3"
)
def iterate(rounds: int, **asked: Any) -> None:
    """Train a teacher and several noisy students; report every generation.

    A finished run is extended by --resume with a larger --rounds.
    """
    from noisy_student import generations

    request = _Request(**asked)
    with _opened(request, rounds) as work:
        if work is not None:
            _finish(work, generations.iterate(work, rounds, options.speaker(request.verbose)), request.as_json)


@click.command("train-teacher")
@_run_options
@options.example("ns train-teacher --config configs/kermany160.yaml --set data.root=/data/kermany160 -o runs/kermany")
def train_teacher(**asked: Any) -> None:
    """Train generation 0 on the labelled films, and calibrate it on validation."""
    from noisy_student import generations

    request = _Request(**asked)
    with _opened(request, 0) as work:
        if work is not None:
            generations.train_teacher(work, options.speaker(request.verbose))
            following = f"ns pseudo-label {work.run.path}"
            _tell(work, 0, "Generation 0 is trained and calibrated.", following, request.as_json)


def _stage_options(command: options.Command) -> options.Command:
    for option in (options.verbosity, options.as_json, options.device, options.overrides, options.run_argument):
        command = option(command)
    return command


@click.command("pseudo-label")
@_stage_options
@options.example("ns pseudo-label runs/demo")
def pseudo_label(
    run_path: Path, overrides: tuple[str, ...], device: str, as_json: bool, verbose: bool, quiet: bool
) -> None:
    """Label the pool with the current teacher: soft targets for the next generation."""
    from noisy_student import generations

    with _existing(run_path, overrides, device, quiet) as work:
        generation = generations.pseudo_label(work, options.speaker(verbose))
        _tell(work, generation, f"Generation {generation} has its targets.", f"ns train-student {run_path}", as_json)


@click.command("train-student")
@_stage_options
@options.example("ns train-student runs/demo")
def train_student(
    run_path: Path, overrides: tuple[str, ...], device: str, as_json: bool, verbose: bool, quiet: bool
) -> None:
    """Train the next generation on labels and pseudo-labels; a killed training goes on where it was."""
    from noisy_student import generations

    with _existing(run_path, overrides, device, quiet) as work:
        generation = generations.train_student(work, options.speaker(verbose))
        _tell(
            work, generation, f"Generation {generation} is trained and calibrated.", f"ns evaluate {run_path}", as_json
        )


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Another data set: measure the best generation on its test films, over the labels that both have.",
)
@click.option("--generation", type=click.IntRange(0), help="With --config: this generation in place of the best.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --config: a calibration by ns recalibrate in place of the run's own.",
)
@_stage_options
@options.example(
    "ns evaluate runs/demo\nns evaluate runs/chexpert --config configs/nih14.yaml --set data.root=/data/nih14"
)
def evaluate(
    run_path: Path,
    config_path: Path | None,
    generation: int | None,
    calibration: Path | None,
    overrides: tuple[str, ...],
    device: str,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Measure every trained generation on validation and test, with intervals.

    With --config, measure on another data set instead (external validation): --set is then about that data set.
    """
    from noisy_student import generations

    if config_path is not None:
        _evaluate_elsewhere(run_path, config_path, generation, calibration, overrides, device, as_json, quiet)
        return
    if calibration is not None:
        raise click.UsageError("--calibration goes with --config; the run's own films have the run's own calibration.")
    if generation is not None:
        raise click.UsageError("--generation goes with --config; without it every generation is measured.")
    with _existing(run_path, overrides, device, quiet) as work:
        count = generations.evaluate(work, options.speaker(verbose))
        _tell(work, count - 1, f"{count} generation(s) measured.", f"ns report {run_path}", as_json)


def _evaluate_elsewhere(
    run_path: Path,
    config_path: Path,
    generation: int | None,
    calibration: Path | None,
    overrides: tuple[str, ...],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from noisy_student import external, generations
    from noisy_student.config.load import load
    from noisy_student.reporting import words
    from noisy_student.runs import write_json
    from noisy_student.workplace import Workplace

    run, config = generations.existing_run(run_path)
    with run.lock():
        work = Workplace(run, config, None, device, options.show_progress(quiet))
        chosen = external.best_generation(run) if generation is None else generation
        found = external.evaluate(work, load(config_path, overrides), chosen, calibration)
        with_it = "" if calibration is None else f"-with-{calibration.stem}"
        path = run.path / "external" / f"{config_path.stem}-gen-{chosen}{with_it}.json"
        write_json(path, found)
    if as_json:
        options.print_json(found)
        return
    measures = found["splits"]["test"][config.evaluation.level]
    click.echo(
        f"Generation {chosen} of {run_path} on {measures['n']:,} test films of {measures['patients']:,} patients of "
        f"{config_path.stem}: AUROC over {words.plural(len(found['compared']), 'shared label')} "
        f"{words.interval(measures['macro']['auroc'], measures['macro']['ci'])}"
    )
    for pair in found["compared"]:
        cell = measures["labels"][pair["model"]]
        name = pair["model"] if pair["model"] == pair["data"] else f"{pair['model']} ({pair['data']})"
        click.echo(f"  {name:<44} {words.interval(cell['auroc'], cell['ci'])}  {cell['positives']} positive")
    for key, whose in (("only_model", "the model"), ("only_data", "the data")):
        if found[key]:
            click.echo(f"Not compared, only in {whose}: {', '.join(found[key])}")
    click.echo(f"All measures: {path}\nResearch software. Not for clinical use.")


@click.command()
@options.run_argument
@options.as_json
@options.verbosity
@options.example("ns report runs/demo")
def report(run_path: Path, as_json: bool, verbose: bool, quiet: bool) -> None:
    """Write the reports from the files of a run: JSON and HTML, per generation and over all; print the table.

    The films are not needed.
    """
    from noisy_student import generations
    from noisy_student.workplace import Workplace

    run, config = generations.existing_run(run_path)
    with run.lock():
        work = Workplace(run, config, None)
        _finish(work, generations.make_reports(work, options.speaker(verbose and not quiet)), as_json)


def _tell(work: Workplace, generation: int, sentence: str, following: str, as_json: bool) -> None:
    if as_json:
        options.print_json(
            {
                "run": str(work.run.path),
                "generation": generation,
                "complete": [name for name in _stage_names() if work.run.is_complete(name, generation)],
            }
        )
        return
    click.echo(f"{sentence} Next: {following}")


def _stage_names() -> tuple[str, ...]:
    from noisy_student.generations import MEASURING, TRAINING

    return TRAINING + MEASURING


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        options.print_json(plan)
        return
    width = max(len(key) for key in plan)
    for key, value in plan.items():
        click.echo(f"{key.replace('_', ' '):<{width}}  {value}")
