"""Commands on a data set: decode it into the cache."""

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
