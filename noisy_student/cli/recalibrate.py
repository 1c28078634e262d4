"""``ns recalibrate``: a new calibration for a local data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from noisy_student.cli import options


@click.command()
@options.run_argument
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The local data set, with labels; --set is about it.",
)
@click.option("--generation", type=click.IntRange(0), help="This generation in place of the best.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file.  [default: below RUN/recalibrated, by CONFIG]"
)
@click.option("--overwrite", is_flag=True, help="Replace a file of other films.")
@options.overrides
@options.device
@options.as_json
@options.verbosity
@options.example("ns recalibrate runs/chexpert --config configs/nih14.yaml --set data.root=/data/nih14")
def recalibrate(
    run_path: Path,
    config_path: Path,
    generation: int | None,
    output: Path | None,
    overwrite: bool,
    overrides: tuple[str, ...],
    device: str,
    as_json: bool,
    verbose: bool,  # noqa: ARG001 - one of the two words of options.verbosity
    quiet: bool,
) -> None:
    """Fit a new calibration to local labels; weights and the run's own calibration stay.

    It is written to the run's folder recalibrated/ or to -o, with Brier score, log loss and ECE before and after on
    patients that it was not fitted to; a file of other films is replaced only with --overwrite.
    ns evaluate RUN --config OTHER --calibration FILE measures with it.
    """
    from noisy_student import external, generations, recalibration
    from noisy_student.runs import write_json
    from noisy_student.workplace import Workplace

    run, config = generations.existing_run(run_path)
    with run.lock():
        work = Workplace(run, config, None, device, options.show_progress(quiet))
        chosen = external.chosen_generation(run, generation)
        path = output or run.path / "recalibrated" / f"{config_path.stem}-gen-{chosen}.json"
        check = partial(external.refuse_others, path, overwrite=overwrite)
        found = recalibration.recalibrate(work, external.load_other(config_path, overrides), chosen, check)
        write_json(path, found)
    if as_json:
        options.print_json(found)
        return
    click.echo(f"Generation {chosen} of {run_path} on {config_path.stem}. {found['sentence']}")
    unit = "films" if found["level"] == "image" else "studies"
    click.echo(f"  {f'before -> after, on {unit}':<44} Brier            log loss         ECE")
    for name, entry in found["levels"][found["level"]]["labels"].items():
        cells = (_change(entry["before"][key], entry["after"][key]) for key in ("brier", "log_loss", "ece"))
        click.echo(f"  {name:<44} {'   '.join(cells)}   {entry['positives']} positive")
    if found["only_model"]:
        click.echo(f"Not in the data, calibrated as before: {', '.join(found['only_model'])}")
    if found["unknown"]:
        click.echo(f"Known of no local film, calibrated as before: {', '.join(found['unknown'])}")
    click.echo(f"Written: {path}\nResearch software. Not for clinical use.")


def _change(before: float | None, after: float | None) -> str:
    return f"{'–':<14}" if before is None or after is None else f"{before:.3f} -> {after:.3f}"
