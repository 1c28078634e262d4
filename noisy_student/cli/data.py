"""Commands on data: make the synthetic set, decode a data set into the cache."""

from __future__ import annotations

from pathlib import Path

import click

from noisy_student.cli import options


@click.group()
@options.example("ns data prepare --config configs/chexpert.yaml --set data.root=/data/CheXpert-v1.0-small")
def data() -> None:
    """Prepare a data set."""


@data.command()
@options.config
@options.overrides
@options.as_json
@options.verbosity
@options.example("ns data prepare --config configs/chexpert.yaml --set data.root=/data/CheXpert-v1.0-small")
def prepare(config_path: Path | None, overrides: tuple[str, ...], as_json: bool, verbose: bool, quiet: bool) -> None:
    """Read the tables, decode every film into the cache, and say what was unreadable.

    A killed build goes on where it was; a second call is quick.
    """
    from noisy_student.config.load import load
    from noisy_student.preparation import open_source

    source = open_source(load(config_path, overrides).data, progress=options.show_progress(quiet))
    bad = source.cache.bad()
    frame = source.manifest.frame
    if as_json:
        options.print_json(
            {
                "films": len(frame),
                "patients": int(frame["patient"].nunique()),
                "unreadable": [{"image": image, "reason": reason} for image, reason in bad],
                "cache": str(source.cache.folder),
            }
        )
        return
    click.echo(f"{len(frame):,} films of {frame['patient'].nunique():,} patients are in {source.cache.folder}")
    if bad:
        click.echo(f"{len(bad)} unreadable, left out (all in {source.cache.folder / 'quarantine.csv'}):")
        for image, reason in bad if verbose else bad[:5]:
            click.echo(f"  {image}: {reason}")


@click.command()
@click.argument("out", type=click.Path(path_type=Path), required=False)
@options.overrides
@click.option("--preview", type=click.Path(path_type=Path), help="Write a contact sheet of phantoms to this PNG.")
@options.verbosity
@options.example("ns synthetic phantoms --set train_patients=200\nns synthetic --preview sheet.png")
def synthetic(out: Path | None, overrides: tuple[str, ...], preview: Path | None, verbose: bool, quiet: bool) -> None:
    """Write a synthetic chest X-ray data set in CheXpert's layout to the folder OUT.

    The keys of --set are those of the section data.synthetic.
    """
    from noisy_student.config.load import load
    from noisy_student.data import synthetic as phantoms
    from noisy_student.errors import UsageError

    config = load(None, [f"data.synthetic.{override}" for override in overrides]).data.synthetic
    if out is None and preview is None:
        raise UsageError("ns synthetic: nothing to write", "Name a folder, or a picture with --preview.")
    if preview is not None:
        phantoms.contact_sheet(preview)
        click.echo(f"A contact sheet is in {preview}")
    if out is not None:
        phantoms.write_dataset(out, config, progress=options.show_progress(quiet))
        click.echo(f"Synthetic films are in {out}: train.csv, valid.csv, test.csv")
    if verbose:
        click.echo(f"generator version {phantoms.VERSION}, {config.model_dump_json()}", err=True)
