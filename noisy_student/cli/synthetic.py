"""The command that makes the synthetic data set and its contact sheets."""

from __future__ import annotations

from pathlib import Path

import click

from noisy_student.cli import options

_PNG = click.Path(path_type=Path)


@click.command()
@click.argument("out", type=click.Path(path_type=Path), required=False)
@options.overrides
@click.option("--preview", type=_PNG, help="Write a contact sheet of films as they come to this PNG.")
@click.option("--findings", type=_PNG, help="Write each observation alone at three severities to this PNG.")
@options.verbosity
@options.example("ns synthetic phantoms --set train_patients=200\nns synthetic --preview sheet.png")
def synthetic(
    out: Path | None,
    overrides: tuple[str, ...],
    preview: Path | None,
    findings: Path | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Write a synthetic chest X-ray data set in CheXpert's layout to the folder OUT.

    The keys of --set are those of the section data.synthetic.
    """
    from noisy_student.config.load import load
    from noisy_student.data import synthetic as phantoms
    from noisy_student.errors import UsageError

    config = load(None, [f"data.synthetic.{override}" for override in overrides]).data.synthetic
    if out is None and preview is None and findings is None:
        raise UsageError("ns synthetic: nothing to write", "Name a folder, or a picture with --preview.")
    if preview is not None:
        phantoms.contact_sheet(preview, seed=config.seed, prevalence=config.prevalence)
        click.echo(f"A contact sheet is in {preview}")
    if findings is not None:
        phantoms.findings_sheet(findings, seed=config.seed)
        click.echo(f"The observations are in {findings}")
    if out is not None:
        phantoms.write_dataset(out, config, progress=options.show_progress(quiet))
        click.echo(f"Synthetic films are in {out}: train.csv, valid.csv, test.csv")
    if verbose:
        click.echo(f"generator version {phantoms.VERSION}, {config.model_dump_json()}", err=True)
