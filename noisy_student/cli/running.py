"""What commands on a run share: opening it, the options they have in common, and what they say at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
def workplace(run: Run, config: Config, device: str, quiet: bool, tensorboard: bool = False) -> Iterator[Workplace]:
    """Yield the prepared run, locked, with SIGTERM turned into a stop at the next safe point.

    Where several processes were started together, this is the first one, and the others share its work.
    """
    from noisy_student import event_files, launch, preparation, ranks
    from noisy_student.workplace import Workplace

    progress = options.show_progress(quiet)
    with run.lock(), options.stop_on_sigterm() as stop:
        ranks.check_batches(config, launch.processes())
        if tensorboard:
            run.followers.append(event_files.EventFiles(run))
        cache = preparation.prepare(run, config, progress=progress, stop=stop)
        with ranks.leading(Workplace(run, config, cache, device, progress, stop)) as work:
            yield work


def _follow(device: str, nothing: bool = False) -> None:
    """In one of several processes that is not the first, do its part until the first one ends, and exit.

    ``nothing``: there is no part to do.
    """
    from noisy_student import launch

    if launch.rank() > 0:
        if nothing:
            raise click.exceptions.Exit(0)
        from noisy_student import ranks

        raise click.exceptions.Exit(ranks.follow(device, options.stop_on_sigterm))


@contextmanager
def existing(
    run_path: Path, overrides: tuple[str, ...], device: str, quiet: bool, tensorboard: bool = False
) -> Iterator[Workplace]:
    """Yield the run at ``run_path`` under its own configuration, ready to work on."""
    from noisy_student import generations
    from noisy_student.config.load import relocate

    _follow(device)
    run, stored = generations.existing_run(run_path)
    config = relocate(stored, overrides)
    with workplace(run, config, device, quiet, tensorboard) as work:
        yield work


def finish(work: Workplace, report: dict[str, Any], as_json: bool) -> None:
    """Print the generations of a report and where it is."""
    from noisy_student.reporting.report import table

    if as_json:
        options.print_json(report)
        return
    click.echo(table(report))
    click.echo(f"\nBest: generation {report['best']}. Report: {work.run.path / 'report.html'}")
    click.echo("Research software. Not for clinical use.")


@dataclass(frozen=True)
class Request:
    """What a user asked of a command that starts or resumes a run."""

    config_path: Path | None
    overrides: tuple[str, ...]
    output: Path | None
    resume: bool
    overwrite: bool
    dry_run: bool
    tensorboard: bool
    device: str
    as_json: bool
    verbose: bool
    quiet: bool


def run_options(command: options.Command) -> options.Command:
    """Return the command with the options of :class:`Request`."""
    shared = (options.config, options.overrides, options.output, options.resume, options.overwrite, options.dry_run)
    for option in reversed((*shared, options.tensorboard, options.device, options.as_json, options.verbosity)):
        command = option(command)
    return command


@contextmanager
def opened(asked: Request, rounds: int) -> Iterator[Workplace | None]:
    """Yield the run asked for, ready to work on; ``None`` after a dry run, which printed the plan."""
    from noisy_student import event_files, generations, preflight
    from noisy_student.config.load import DEMO, load
    from noisy_student.plan import describe, started
    from noisy_student.runs import Run

    _follow(asked.device, asked.dry_run)
    config = load(asked.config_path or DEMO, asked.overrides)
    if asked.tensorboard:
        event_files.require()
    path = asked.output or default_output(asked.config_path)
    # A run that is there has read its weights, or says so when it gets to them; a dry run needs no data.
    preflight.check_settings(config, asked.device, weights=not asked.dry_run and not started(Run(path)))
    if asked.dry_run:
        _print_plan(describe(config, path, rounds, overwrite=asked.overwrite), asked.as_json)
        yield None
        return
    run = generations.open_run(path, config, resume=asked.resume, overwrite=asked.overwrite)
    with workplace(run, config, asked.device, asked.quiet, asked.tensorboard) as work:
        yield work


def stage_options(command: options.Command, run: Callable[[Any], Any] = options.run_argument) -> options.Command:
    """Return the command with what a stage of a run asks for; ``run`` adds the argument that names the run."""
    for option in (options.verbosity, options.as_json, options.device, options.overrides, run):
        command = option(command)
    return command


def tell(
    work: Workplace,
    generation: int,
    sentence: str,
    following: str,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print what has been done and what comes next; as JSON with ``more`` keys."""
    if as_json:
        options.print_json(
            {
                "run": str(work.run.path),
                "generation": generation,
                "complete": [name for name in _stage_names() if work.run.is_complete(name, generation)],
                **(more or {}),
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
