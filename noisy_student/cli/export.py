"""``ns export``: a trained model as a folder of its own."""

from __future__ import annotations

from pathlib import Path

import click

from noisy_student.cli import options


@click.command()
@options.run_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option("--generation", type=click.IntRange(0), help="This generation in place of the best.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A calibration by ns recalibrate in place of the run's own.",
)
@click.option("--overwrite", is_flag=True, help="Replace the folder (only one that ns export made).")
@options.as_json
@options.quiet
@options.example("ns export runs/chexpert -o exported/chexpert")
def export(
    run_path: Path,
    output: Path,
    generation: int | None,
    calibration: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a trained model to a folder that stands alone: weights, card, calibration, ONNX.

    It has the form of a Hugging Face repository (README.md, config.json, model.safetensors); ns predict and
    noisy_student.load take it as they take a run. model.onnx needs the extra onnx; without it the rest is written.
    """
    from noisy_student import preparation
    from noisy_student.deploy.export import export as write

    with options.stop_on_sigterm() as stop, options.hint_on_failure("Choose another --output."):
        made = write(
            run_path,
            output,
            generation=generation,
            calibration=calibration,
            overwrite=overwrite,
            workers=max(1, preparation.workers() - 1),
            progress=options.show_progress(quiet),
            stop=stop,
        )
    for remark in made.remarks:
        click.echo(f"ns: warning: {remark}", err=True)
    if as_json:
        options.print_json(
            {
                "folder": str(made.folder),
                "generation": made.generation,
                "files": list(made.files),
                "onnx_difference": made.difference,
                "remarks": list(made.remarks),
            }
        )
        return
    click.echo(f"Generation {made.generation} of {run_path} is in {made.folder}: {', '.join(made.files)}")
    if made.difference is not None:
        click.echo(f"model.onnx and PyTorch agree within {made.difference:.1e} in probability.")
    click.echo("Research software. Not for clinical use.")
