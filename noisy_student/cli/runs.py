"""Commands on a run: the whole loop, or its stages one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noisy_student.cli import compare, options

if TYPE_CHECKING:
    from noisy_student.config import Config
    from noisy_student.runs import Run
    from noisy_student.workplace import Workplace


def default_output(config_path: Path | None) -> Path:
    """Return ``runs/<name of the config>``."""
    return Path("runs") / (config_path.stem if config_path else "demo")


@contextmanager
def _workplace(run: Run, config: Config, device: str, quiet: bool, tensorboard: bool = False) -> Iterator[Workplace]:
    """Yield the prepared run, locked, with SIGTERM turned into a stop at the next safe point."""
    from noisy_student import event_files, preparation
    from noisy_student.workplace import Workplace

    progress = options.show_progress(quiet)
    with run.lock(), options.stop_on_sigterm() as stop:
        if tensorboard:
            run.followers.append(event_files.EventFiles(run))
        cache = preparation.prepare(run, config, progress=progress, stop=stop)
        yield Workplace(run, config, cache, device, progress, stop)


@contextmanager
def _existing(
    run_path: Path, overrides: tuple[str, ...], device: str, quiet: bool, tensorboard: bool = False
) -> Iterator[Workplace]:
    from noisy_student import generations
    from noisy_student.config.load import relocate

    run, stored = generations.existing_run(run_path)
    config = relocate(stored, overrides)
    with _workplace(run, config, device, quiet, tensorboard) as work:
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
    tensorboard: bool
    device: str
    as_json: bool
    verbose: bool
    quiet: bool


def _run_options(command: options.Command) -> options.Command:
    shared = (options.config, options.overrides, options.output, options.resume, options.overwrite, options.dry_run)
    for option in reversed((*shared, options.tensorboard, options.device, options.as_json, options.verbosity)):
        command = option(command)
    return command


@contextmanager
def _opened(asked: _Request, rounds: int) -> Iterator[Workplace | None]:
    """Yield the run asked for, ready to work on; ``None`` after a dry run, which printed the plan."""
    from noisy_student import event_files, generations, training
    from noisy_student.config.load import DEMO, load
    from noisy_student.plan import describe, started
    from noisy_student.runs import Run

    config = load(asked.config_path or DEMO, asked.overrides)
    if asked.tensorboard:
        event_files.require()
    path = asked.output or default_output(asked.config_path)
    # A run that is there has read its weights, or says so when it gets to them; a dry run needs no data.
    training.check_settings(config, asked.device, weights=not asked.dry_run and not started(Run(path)))
    if asked.dry_run:
        _print_plan(describe(config, path, rounds, overwrite=asked.overwrite), asked.as_json)
        yield None
        return
    run = generations.open_run(path, config, resume=asked.resume, overwrite=asked.overwrite)
    with _workplace(run, config, asked.device, asked.quiet, asked.tensorboard) as work:
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
@click.option("--find-lr", is_flag=True, help="Only sweep the learning rate: draw the loss over it, propose a value.")
@click.option(
    "--curve",
    type=click.Path(path_type=Path),
    help="With --find-lr: where the picture goes, .svg or .png.  [default: find-lr.svg in the run]",
)
@_run_options
@options.example(
    "ns train-teacher --config configs/kermany160.yaml --set data.root=/data/kermany160 -o runs/kermany\n"
    "ns train-teacher --find-lr --curve sweep.png"
)
def train_teacher(find_lr: bool, curve: Path | None, **asked: Any) -> None:
    """Train generation 0 on the labelled films, and calibrate it on validation.

    With --find-lr nothing is trained: a short sweep from the start weights shows which optim.lr suits.
    """
    from noisy_student import generations

    request = _Request(**asked)
    if curve is not None and not find_lr:
        raise click.UsageError("--curve goes with --find-lr.")
    if curve is not None and curve.suffix.lower() not in (".svg", ".png"):
        raise click.UsageError(f"--curve {curve}: the picture is .svg or .png.")
    with _opened(request, 0) as work:
        if work is not None and find_lr:
            _find_rate(work, curve or work.run.path / "find-lr.svg", request)
        elif work is not None:
            generations.train_teacher(work, options.speaker(request.verbose))
            following = f"ns pseudo-label {work.run.path}"
            _tell(work, 0, "Generation 0 is trained and calibrated.", following, request.as_json)


def _find_rate(work: Workplace, curve: Path, request: _Request) -> None:
    from noisy_student import generations
    from noisy_student.reporting import sweep as picture

    sweep = generations.find_rate(work, options.speaker(request.verbose))
    picture.draw(sweep, curve)
    proposal = sweep.proposal()
    if request.as_json:
        found = {"run": str(work.run.path), "proposal": proposal, "curve": str(curve)}
        reason = None if proposal is not None else "the loss did not fall at any rate"
        options.print_json(found | {"reason": reason, "rates": sweep.rates, "losses": sweep.losses})
        return
    if proposal is None:
        click.echo("No rate is proposed: the loss did not fall at any.")
    else:
        click.echo(f"Proposed: --set teacher.optim.lr={proposal:.1e} (a tenth of the rate with the lowest loss).")
        click.echo("A run keeps its settings: give the new rate with --overwrite, or to a new --output.")
    click.echo(f"Curve: {curve}")


def _stage_options(command: options.Command, run: Callable[[Any], Any] = options.run_argument) -> options.Command:
    for option in (options.verbosity, options.as_json, options.device, options.overrides, run):
        command = option(command)
    return command


class _Evaluate(click.Command):
    """A command on a run, or on two tables instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        given = ctx.params
        tables = [given["truth"], given["predictions"]]
        if any(tables):
            if not all(tables):
                raise click.UsageError("--truth and --predictions go together.", ctx)
            if any(given[key] is not None for key in ("run_path", "config_path", "generation")):
                raise click.UsageError("--truth and --predictions are measured without a run or its options.", ctx)
        elif given["run_path"] is None:
            raise click.UsageError("Name a run, or two tables with --truth and --predictions.", ctx)
        return rest


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
@options.tensorboard
@_stage_options
@options.example("ns train-student runs/demo")
def train_student(
    run_path: Path,
    tensorboard: bool,
    overrides: tuple[str, ...],
    device: str,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Train the next generation on labels and pseudo-labels; a killed training goes on where it was."""
    from noisy_student import generations

    with _existing(run_path, overrides, device, quiet, tensorboard) as work:
        generation = generations.train_student(work, options.speaker(verbose))
        _tell(
            work, generation, f"Generation {generation} is trained and calibrated.", f"ns evaluate {run_path}", as_json
        )


@click.command(cls=_Evaluate)
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
@click.option("--truth", type=click.Path(path_type=Path), help="CSV with the true labels, instead of a run.")
@click.option("--predictions", type=click.Path(path_type=Path), help="CSV with a score per label, with --truth.")
@partial(
    _stage_options, run=click.argument("run_path", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
)
@options.example(
    "ns evaluate runs/demo\nns evaluate runs/chexpert --config configs/nih14.yaml --set data.root=/data/nih14\n"
    "ns evaluate --truth truth.csv --predictions scores.csv --json"
)
def evaluate(
    run_path: Path,
    config_path: Path | None,
    generation: int | None,
    calibration: Path | None,
    truth: Path | None,
    predictions: Path | None,
    overrides: tuple[str, ...],
    device: str,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Measure every trained generation on validation and test, with intervals, or any table of scores.

    With --config, measure on another data set instead (external validation): --set is then about that data set.

    With --truth and --predictions, measure any table of scores against any table of labels: rows are joined on a column
    Path, image or Study, labels by name. --set takes how: seed, and replicates, confidence, bins, stratify of
    evaluation.
    """
    from noisy_student import generations

    if truth is not None and predictions is not None:
        compare.evaluate_tables(truth, predictions, overrides, as_json)
        return
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
@click.option("--open", "opened", is_flag=True, help="Open the page over all generations in the browser.")
@options.as_json
@options.verbosity
@options.example("ns report runs/demo --open")
def report(run_path: Path, opened: bool, as_json: bool, verbose: bool, quiet: bool) -> None:
    """Write the reports from the files of a run: JSON and HTML, per generation and over all; print the table.

    Reports that are there are written again. The films are not needed.
    """
    import webbrowser

    from noisy_student import generations
    from noisy_student.workplace import Workplace

    run, config = generations.existing_run(run_path)
    with run.lock():
        work = Workplace(run, config, None)
        _finish(work, generations.make_reports(work, options.speaker(verbose and not quiet)), as_json)
    page = run.path / "report.html"
    if opened and not webbrowser.open(page.resolve().as_uri()):
        click.echo(f"No browser could be started; open {page} yourself.", err=True)


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
