"""Commands on a run: the whole loop, or its stages one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noisy_student.cli import options
from noisy_student.cli.running import Request, existing, finish, opened, run_options, stage_options, tell

if TYPE_CHECKING:
    from noisy_student.workplace import Workplace


@click.command()
@click.option("--rounds", type=click.IntRange(0), default=3, show_default=True, help="Students after generation 0.")
@run_options
@options.example(
    "ns iterate --rounds 3\n"
    "ns iterate --config configs/chexpert.yaml --set data.root=/data/CheXpert-v1.0-small --rounds 3"
)
def iterate(rounds: int, **asked: Any) -> None:
    """Train a teacher and several noisy students; report every generation.

    A finished run is extended by --resume with a larger --rounds.
    """
    from noisy_student import generations

    request = Request(**asked)
    with opened(request, rounds) as work:
        if work is not None:
            finish(work, generations.iterate(work, rounds, options.speaker(request.verbose)), request.as_json)


@click.command("train-teacher")
@click.option("--find-lr", is_flag=True, help="Only sweep the learning rate: draw the loss over it, propose a value.")
@click.option(
    "--curve",
    type=click.Path(path_type=Path),
    help="With --find-lr: where the picture goes, .svg or .png.  [default: find-lr.svg in the run]",
)
@run_options
@options.example(
    "ns train-teacher --config configs/kermany160.yaml --set data.root=/data/kermany160 -o runs/kermany\n"
    "ns train-teacher --find-lr --curve sweep.png"
)
def train_teacher(find_lr: bool, curve: Path | None, **asked: Any) -> None:
    """Train generation 0 on the labelled films, and calibrate it on validation.

    With --find-lr nothing is trained but the self-supervised start, where the configuration asks for one: a short
    sweep from the start weights shows which optim.lr suits. Of several members it is the first that is swept.
    """
    from noisy_student import generations

    request = Request(**asked)
    if curve is not None and not find_lr:
        raise click.UsageError("--curve goes with --find-lr.")
    if curve is not None and curve.suffix.lower() not in (".svg", ".png"):
        raise click.UsageError(f"--curve {curve}: the picture is .svg or .png.")
    with opened(request, 0) as work:
        if work is not None and find_lr:
            _find_rate(work, curve or work.run.path / "find-lr.svg", request)
        elif work is not None:
            generations.train_teacher(work, options.speaker(request.verbose))
            following = f"ns pseudo-label {work.run.path}"
            tell(work, 0, "Generation 0 is trained and calibrated.", following, request.as_json)


def _find_rate(work: Workplace, curve: Path, request: Request) -> None:
    from noisy_student import generations
    from noisy_student.reporting import sweep as picture

    sweep = generations.find_rate(work, options.speaker(request.verbose))
    picture.draw(sweep, curve)
    proposal, members = sweep.proposal(), work.config.phase(0).members
    if request.as_json:
        found = {"run": str(work.run.path), "proposal": proposal, "curve": str(curve), "member": 0 if members else None}
        reason = None if proposal is not None else "the loss did not fall at any rate"
        options.print_json(found | {"reason": reason, "rates": sweep.rates, "losses": sweep.losses})
        return
    if members:
        name = work.config.networks(0)[0].model.name
        click.echo(f"Swept: the first of {len(members)} members ({name}); the rate of another may be another.")
    if proposal is None:
        click.echo("No rate is proposed: the loss did not fall at any.")
    else:
        click.echo(f"Proposed: --set teacher.optim.lr={proposal:.1e} (a tenth of the rate with the lowest loss).")
        click.echo("A run keeps its settings: give the new rate with --overwrite, or to a new --output.")
    click.echo(f"Curve: {curve}")


@click.command("pseudo-label")
@stage_options
@options.example("ns pseudo-label runs/demo")
def pseudo_label(
    run_path: Path, overrides: tuple[str, ...], device: str, as_json: bool, verbose: bool, quiet: bool
) -> None:
    """Label the pool with the current teacher: targets for the next generation."""
    from noisy_student import generations

    with existing(run_path, overrides, device, quiet) as work:
        generation = generations.pseudo_label(work, options.speaker(verbose))
        tell(work, generation, f"Generation {generation} has its targets.", f"ns train-student {run_path}", as_json)


@click.command("train-student")
@options.tensorboard
@stage_options
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

    with existing(run_path, overrides, device, quiet, tensorboard) as work:
        generation = generations.train_student(work, options.speaker(verbose))
        tell(
            work, generation, f"Generation {generation} is trained and calibrated.", f"ns evaluate {run_path}", as_json
        )


@click.command()
@options.run_argument
@click.option("--open", "show", is_flag=True, help="Open the page over all generations in the browser.")
@options.as_json
@options.verbosity
@options.example("ns report runs/demo --open")
def report(run_path: Path, show: bool, as_json: bool, verbose: bool, quiet: bool) -> None:
    """Write the reports from the files of a run: JSON and HTML, per generation and over all; print the table.

    Reports that are there are written again. The films are not needed.
    """
    import webbrowser

    from noisy_student import generations
    from noisy_student.workplace import Workplace

    run, config = generations.existing_run(run_path)
    with run.lock():
        work = Workplace(run, config, None)
        finish(work, generations.make_reports(work, options.speaker(verbose and not quiet)), as_json)
    page = run.path / "report.html"
    if show and not webbrowser.open(page.resolve().as_uri()):
        click.echo(f"No browser could be started; open {page} yourself.", err=True)
