"""Commands on a data set: its figures, its split, a check of its films, and decoding them into the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from noisy_student.cli import options

if TYPE_CHECKING:
    from noisy_student.config import Config

_SHOWN = 10

source = click.option(
    "--source", help="Kind of data set, in place of data.source: chexpert, nih, mimic, vindr, padchest, csv ..."
)
table = click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), help="Its table; its folder is data.root where none is set."
)


@click.group()
@options.example("ns data stats --source chexpert --csv train.csv --no-images")
def data() -> None:
    """Look at a data set, split it, check it, prepare it."""


def _load(
    config_path: Path | None, overrides: Sequence[str], source: str | None = None, csv_path: Path | None = None
) -> Config:
    """Return the configuration with the source and table of the command line.

    Raises:
        UsageError: there is a table, and the source is ``synthetic``, whose films would be made beside the table.
    """
    from noisy_student.config.load import load
    from noisy_student.errors import UsageError

    given = [f"data.source={source}"] if source else []
    if csv_path is not None:
        # What a file or --set says of the root stays: a table may lie elsewhere than the films.
        first = [] if config_path is not None else [f"data.root={csv_path.absolute().parent}"]
        given = [*first, *given, f"data.csv={csv_path.absolute()}"]
    config = load(config_path, [*given, *overrides])
    if csv_path is not None and config.data.source == "synthetic":
        raise UsageError("--csv needs --source", "Say what the table is: --source csv, chexpert, nih ...")
    return config


@data.command()
@source
@table
@options.config
@options.overrides
@click.option("--no-images", is_flag=True, help="Read the tables alone; the films need not be there.")
@options.as_json
@options.quiet
@options.example("ns data stats --source chexpert --csv CheXpert-v1.0-small/train.csv --no-images --json")
def stats(
    source: str | None, csv_path: Path | None, config_path: Path | None, overrides: tuple[str, ...], no_images: bool,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Count labels, studies, patients, views, sex and age, for each split and for all.

    For every label: films that are positive, uncertain, negative and blank, and the target mass that the policies of
    the configuration make of them.
    """
    from noisy_student.data import statistics
    from noisy_student.preparation import examine

    config = _load(config_path, overrides, source, csv_path)
    films, target, weight, missing = examine(config, images=not no_images, progress=options.show_progress(quiet))
    figures = {"source": config.data.source, **statistics.describe(films, target, weight), "missing_images": missing}
    if as_json:
        options.print_json(figures)
        return
    click.echo(statistics.as_text(figures))
    if missing:
        click.echo(f"{missing:,} films are not below {config.data.root}; with --no-images they are not looked for.")


@data.command()
@source
@table
@options.config
@options.overrides
@click.option("--seed", "seeds", type=click.IntRange(min=0), multiple=True, help="Seed of the draws; repeatable.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Split file (.parquet), with the seed added if several."
)
@click.option("--overwrite", is_flag=True, help="Replace a split that is there (only a file ns made).")
@options.as_json
@options.quiet
@options.example(
    "ns data split --config configs/chexpert-1pct.yaml --set data.root=/data/CheXpert-v1.0-small "
    "--seed 0 --seed 1 -o split.parquet"
)
def split(
    source: str | None, csv_path: Path | None, config_path: Path | None, overrides: tuple[str, ...],
    seeds: tuple[int, ...], output: Path | None, overwrite: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Draw the labelled set, pool, validation and test by patient, and write them to a file.

    The file bears its own hash, and split.file=FILE makes any later run use it. Without -o the split is only shown.
    The tables are enough; where the films are there too, they are named as a run names them.
    """
    from noisy_student.data import split_files
    from noisy_student.preparation import write_splits

    config = _load(config_path, overrides, source, csv_path)
    seeds = seeds or (config.split.seed,)
    for place in [] if output is None else split_files.places(output, seeds):
        split_files.check_place(place, overwrite=overwrite)
    with options.hint_on_failure("Choose another --output."):
        made = write_splits(config, seeds, output, progress=options.show_progress(quiet))
    if as_json:
        options.print_json(made)
        return
    for entry in made:
        click.echo(f"seed {entry['seed']}, hash {entry['hash'][:16]}" + (f", {entry['path']}" if output else ""))
        for part, count in entry["counts"].items():
            click.echo(f"  {part:<10}{count['images']:>9,} films of {count['patients']:>7,} patients")
        click.echo(
            f"  {'budget':<10}{entry['budget']['images']:>9,} films of {entry['budget']['patients']:>7,} patients"
        )
        click.echo(f"  left out  {entry['dropped']:>9,} films")
        positives = ", ".join(f"{label} {count:,}" for label, count in entry["labelled_positives"].items())
        click.echo(f"  positive among the labelled: {positives}")
        for problem in entry["problems"]:
            click.echo(f"  {problem}: a run stops here")


@data.command()
@source
@table
@options.config
@options.overrides
@options.as_json
@options.verbosity
@options.example("ns data check --config configs/chexpert.yaml --set data.root=/data/CheXpert-v1.0-small")
def check(
    source: str | None, csv_path: Path | None, config_path: Path | None, overrides: tuple[str, ...], as_json: bool,
    verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Read every film once and name what is wrong with it.

    Missing and unreadable films, tiny, constant, saturated and long ones, and films that are there twice; twice in
    different splits is leakage. Exits with 3 when films are missing or unreadable, or splits leak.
    """
    from noisy_student.data.check import SERIOUS
    from noisy_student.preparation import check_films

    found = check_films(_load(config_path, overrides, source, csv_path), progress=options.show_progress(quiet))
    if as_json:
        options.print_json(found)
    else:
        click.echo(f"{found['images']:,} films looked at")
        if found["split_problem"]:
            click.echo(
                f"The split cannot be made, so films are filed as the data set has them: {found['split_problem']}"
            )
        for kind, count in found["problems"].items():
            click.echo(f"{kind}: {count:,}")
            named = [entry for entry in found["films"] if entry["problem"] == kind]
            for entry in named if verbose else named[:_SHOWN]:
                click.echo(f"  {entry['image']}: {entry['detail']}")
        count = len(found["duplicates"])
        click.echo(f"groups of equal or nearly equal films: {count:,}, across splits: {found['leakage']:,}")
        for group in found["duplicates"] if verbose else found["duplicates"][:_SHOWN]:
            where = " and ".join(name or "no split" for name in group["splits"])
            where = f"leak between {where}" if group["leakage"] else where if len(group["splits"]) > 1 else "same split"
            click.echo(f"  {', '.join(group['images'])}: {group['kind']}, {where}")
    if found["leakage"] or any(found["problems"].get(kind) for kind in SERIOUS):
        raise click.exceptions.Exit(3)


@data.command()
@source
@table
@options.config
@options.overrides
@options.as_json
@options.verbosity
@options.example("ns data prepare --config configs/chexpert.yaml --set data.root=/data/CheXpert-v1.0-small")
def prepare(
    source: str | None, csv_path: Path | None, config_path: Path | None, overrides: tuple[str, ...], as_json: bool,
    verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Read the tables, decode every film into the cache, and say what was unreadable.

    A killed build goes on where it was; a second call is quick.
    """
    from noisy_student.preparation import open_source

    config = _load(config_path, overrides, source, csv_path)
    ready = open_source(config.data, progress=options.show_progress(quiet))
    bad, frame, folder = ready.cache.bad(), ready.manifest.frame, ready.cache.folder
    if as_json:
        options.print_json(
            {
                "films": len(frame),
                "patients": int(frame["patient"].nunique()),
                "unreadable": [{"image": image, "reason": reason} for image, reason in bad],
                "cache": str(folder),
            }
        )
        return
    click.echo(f"{len(frame):,} films of {frame['patient'].nunique():,} patients are in {folder}")
    if bad:
        click.echo(f"{len(bad)} unreadable, left out (all in {folder / 'quarantine.csv'}):")
        for image, reason in bad if verbose else bad[:5]:
            click.echo(f"  {image}: {reason}")
