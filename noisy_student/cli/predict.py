"""``ns predict``: a trained model on films of any place."""

from __future__ import annotations

from pathlib import Path

import click

from noisy_student.cli import options

BAD_FILMS = 3
"""Exit code where films could not be read."""


@click.command()
@options.run_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The CSV to write."
)
@click.option("--generation", type=click.IntRange(0), help="This generation of a run in place of its best.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A calibration by ns recalibrate in place of the run's own.",
)
@click.option("--maps", type=click.Path(path_type=Path, file_okay=False), help="Draw activation maps into this folder.")
@click.option("--overwrite", is_flag=True, help="Replace the CSV; begin anew where a call was interrupted.")
@options.device
@options.as_json
@options.quiet
@options.example(
    "ns predict runs/chexpert films/ -o scores.csv\n"
    "ns predict exported/chexpert 'ward/*.dcm' more.csv -o scores.csv --maps maps"
)
def predict(
    run_path: Path,
    images: tuple[str, ...],
    output: Path,
    generation: int | None,
    calibration: Path | None,
    maps: Path | None,
    overwrite: bool,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score films with a trained model: calibrated probabilities, decisions, uncertainty, as a CSV.

    RUN is a run or a folder by ns export. IMAGES are files (JPEG, PNG, TIFF, DICOM ...), folders, globs, or CSVs with a
    column of paths. Films that cannot be read are skipped, listed in NAME.bad.csv, and make the exit code 3. The same
    command goes on after an interruption. A warning says when films are far from those the model was trained on.
    """
    from noisy_student import api

    progress = options.show_progress(quiet)
    with options.stop_on_sigterm() as stop, options.hint_on_failure("Choose another --output."):
        model = api.load(run_path, generation=generation, calibration=calibration, device=device)
        written = api.predict(model, images, output, maps=maps, overwrite=overwrite, progress=progress, stop=stop)
    for warning in filter(None, (written.unknown, written.warning())):
        click.echo(f"ns: warning: {warning}", err=True)
    if written.bad:
        click.echo(f"ns: {written.bad} films could not be read and are not in {output}: {written.bad_list}", err=True)
    if as_json:
        about = {"model": model.recipe.name, "generation": model.recipe.generation, "networks": len(model.networks)}
        options.print_json(written.to_json() | about | {"labels": list(model.labels)})
    elif not quiet:
        click.echo(
            f"{written.scored} films scored by generation {model.recipe.generation} of {model.recipe.name}: {output}"
        )
        click.echo("Research software. Not for clinical use.")
    if written.bad:
        click.get_current_context().exit(BAD_FILMS)
