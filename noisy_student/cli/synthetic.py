"""The command that makes the synthetic data set and its contact sheets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from noisy_student.cli import options

_PNG = click.Path(path_type=Path)


@click.command()
@click.argument("out", type=click.Path(path_type=Path), required=False)
@options.overrides
@click.option("--preview", type=_PNG, help="Write a contact sheet of films as they come to this PNG.")
@click.option("--findings", type=_PNG, help="Write each observation alone at three severities to this PNG.")
@click.option("--overwrite", is_flag=True, help="Delete the set in OUT first (only a folder that ns synthetic made).")
@options.as_json
@options.verbosity
@options.example("ns synthetic phantoms --set train_patients=200\nns synthetic --preview sheet.png")
def synthetic(
    out: Path | None, overrides: tuple[str, ...], preview: Path | None, findings: Path | None, overwrite: bool,
    as_json: bool, verbose: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write a synthetic chest X-ray data set in CheXpert's layout to the folder OUT.

    The keys of --set are those of the section data.synthetic.
    """
    from noisy_student.config.load import load
    from noisy_student.data import synthetic as phantoms
    from noisy_student.errors import DataError, UsageError

    config = load(None, [f"data.synthetic.{override}" for override in overrides]).data.synthetic
    if out is None and preview is None and findings is None:
        raise UsageError("ns synthetic: nothing to write", "Name a folder, or a picture with --preview.")
    for picture in (preview, findings):
        if picture is not None and picture.is_dir():
            raise UsageError(f"{picture}: is a directory", f"Name a picture, such as {picture / 'sheet.png'}.")
    made: dict[str, Any] = {}
    size = {"size": config.size} if "size" in config.model_fields_set else {}  # else one that a person can look at
    with options.hint_on_failure("Choose another place."):
        if preview is not None:
            phantoms.contact_sheet(preview, **size, seed=config.seed, prevalence=config.prevalence)
            made["preview"] = str(preview)
        if findings is not None:
            phantoms.findings_sheet(findings, **size, seed=config.seed)
            made["findings"] = str(findings)
        if out is not None:
            if overwrite:
                _remove(out)
            try:
                phantoms.write_dataset(out, config, progress=options.show_progress(quiet))
            except DataError as error:
                more = ", or --overwrite to make the films again" if "other settings" in error.message else ""
                raise DataError(error.message, f"Choose an empty or new folder{more}.") from error
            made |= {"folder": str(out), "films": _count(out)}
    if as_json:
        options.print_json(made)
    else:
        if preview is not None:
            click.echo(f"A contact sheet is in {preview}")
        if findings is not None:
            click.echo(f"The observations are in {findings}")
        if out is not None:
            films = ", ".join(f"{split}.csv ({count:,})" for split, count in made["films"].items())
            click.echo(f"Synthetic films are in {out}: {films}")
    if verbose:
        click.echo(f"generator version {phantoms.VERSION}, {config.model_dump_json()}", err=True)


def _count(root: Path) -> dict[str, int]:
    """Return the number of films in each table."""
    from noisy_student.data.synthetic.cases import SPLITS

    return {split: len((root / f"{split}.csv").read_text(encoding="utf-8").splitlines()) - 1 for split in SPLITS}


def _remove(root: Path) -> None:
    """Delete the synthetic set in ``root``, whole or half made; a folder that is empty or not there is left.

    Raises:
        UsageError: the path is a symbolic link, or holds something that ``ns synthetic`` did not write.
    """
    import shutil

    from noisy_student.data.synthetic.cases import SPLITS
    from noisy_student.data.synthetic.dataset import COMPLETE, STARTED
    from noisy_student.errors import UsageError
    from noisy_student.runs import storage_errors

    if root.is_symlink():
        raise UsageError(f"{root}: is a symbolic link, which --overwrite does not follow", "Name its target.")
    if not root.is_dir():
        return  # nothing, or a file, which write_dataset refuses
    found = {entry.name for entry in root.iterdir()}
    if not found:
        return
    if not found & {COMPLETE, STARTED}:
        raise UsageError(
            f"{root}: was not made by ns synthetic, so --overwrite leaves it alone",
            "Choose another folder, or remove this one yourself.",
        )
    foreign = sorted(found - {COMPLETE, STARTED, *SPLITS, *(f"{split}.csv" for split in SPLITS)})
    if foreign:
        raise UsageError(
            f"{root}: holds {foreign[0]}, which ns synthetic did not write, so --overwrite leaves it alone",
            "Move it elsewhere, or choose another folder.",
        )
    # Renamed first: a deletion that is killed half way must not leave half a set in its place.
    place = root.absolute()
    doomed = place.with_name(f".{place.name}.removed-{os.getpid()}")
    with storage_errors(root):
        place.rename(doomed)
        shutil.rmtree(doomed)
