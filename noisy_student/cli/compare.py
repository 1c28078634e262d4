"""The command that puts models side by side, and how figures of tables are printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noisy_student.cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHOWN = 10


@click.command()
@click.argument("entries", metavar="RUN_OR_CSV...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--truth", type=click.Path(path_type=Path), help="CSV with the true labels; needed with tables of scores."
)
@options.labels
@options.overrides
@options.as_json
@options.example(
    "ns compare runs/few runs/many\nns compare first.csv second.csv --truth truth.csv\n"
    "ns compare runs/demo other.csv --truth truth.csv --json"
)
def compare(
    entries: tuple[Path, ...], truth: Path | None, labels: tuple[str, ...], overrides: tuple[str, ...], as_json: bool
) -> None:
    """Put runs (their best generations) and tables of scores side by side on the same test cases.

    AUROC with intervals of each, and the difference of each to the first one on the same resamples of patients, with
    p-values adjusted by Holm. --set takes how it is measured: seed, and replicates, confidence, stratify and
    smallest_difference of evaluation; with --truth also targets.blank, what a blank in it is.
    """
    from noisy_student import comparison

    if labels and truth is None:
        raise click.UsageError("--labels goes with --truth; runs are compared on the labels that all have.")
    found = comparison.compare(entries, truth, overrides, labels)
    if as_json:
        options.print_json(found)
        return
    click.echo(cases(found))
    click.echo(_table(found))
    for difference in found["differences"]:
        click.echo(f"\n{_said(difference, found['confidence'])}")
    tell_notes(found, (("not_in_all", f"not in all {'runs' if truth is None else 'tables'}"),))


def evaluate_tables(
    truth: Path, predictions: Path, labels: tuple[str, ...], overrides: tuple[str, ...], as_json: bool
) -> None:
    """Measure a table of scores against a table of truth and print the figures."""
    from noisy_student import comparison
    from noisy_student.config.load import with_measures
    from noisy_student.reporting import words

    comparison.refuse(overrides, "evaluation.smallest_difference", "one table of scores is compared with no other")
    config = with_measures(comparison.TABLES, overrides)
    found = comparison.evaluate_tables(truth, predictions, config, labels=labels)
    if as_json:
        options.print_json(found)
        return
    click.echo(cases(found))
    click.echo(figures(found))
    if (five := found["competition"]) is not None:
        click.echo(f"CheXpert's five labels: {words.interval(five['auroc'], five['ci'])}")
    tell_notes(found, (("only_truth", "only in the truth"), ("only_predictions", "only in the predictions")))


def figures(found: Mapping[str, Any]) -> str:
    """Return the measures of ``labels`` and ``macro`` as a table, and below it why one of them is not there."""
    from noisy_student.reporting import words

    rows = [("", "AUROC", "AP", "Brier", "positive", "negative", "unknown")]
    for name, entry in (*found["labels"].items(), ("macro", found["macro"])):
        measures = (
            words.interval(entry["auroc"], entry["ci"]),
            words.number(entry["ap"]),
            words.number(entry["brier"]),
        )
        counts = (entry.get(key) for key in ("positives", "negatives", "unknown"))
        rows.append((name, *measures, *("" if count is None else f"{count:,}" for count in counts)))
    return "\n".join([_aligned(rows), *_reasons(found)])


def _reasons(found: Mapping[str, Any]) -> list[str]:
    """Return why a figure of ``labels`` and ``macro`` or its interval is not there, a line each."""
    entries = (*found["labels"].items(), ("macro", found["macro"]))
    return [f"{name}: {entry['reason']}" for name, entry in entries if entry["reason"]]


def cases(found: Mapping[str, Any]) -> str:
    """Return how many cases were measured, and how they were joined and resampled."""
    from noisy_student.reporting import words

    unit = words.plural(found["n"], "study" if found["unit"] == "study" else "film")
    whose = "each taken as a patient" if found["clusters"] == "rows" else f"patients from {found['clusters']}"
    return (
        f"{unit} of {words.plural(found['patients'], 'patient')}, joined on {found['joined_on']}; "
        f"{whose}; {words.percent(found['confidence'])} intervals"
    )


def tell_notes(found: Mapping[str, Any], left_out: Sequence[tuple[str, str]]) -> None:
    """Print what was left out; ``left_out``: keys of lists of labels, and why those are not there."""
    for key, why in left_out:
        if found[key]:
            more = len(found[key]) - _SHOWN
            rest = f" and {more} more" if more > 0 else ""
            click.echo(f"Not compared, {why}: {', '.join(found[key][:_SHOWN])}{rest}")
    for note in found["notes"]:
        click.echo(f"Note: {note}")


def _table(found: Mapping[str, Any]) -> str:
    from noisy_student.reporting import words

    models = found["models"]
    heads = [
        model["name"] if model["generation"] is None else f"{model['name']} (generation {model['generation']})"
        for model in models
    ]
    rows = [("", *heads)]
    for label in models[0]["labels"]:
        cells = [model["labels"][label] for model in models]
        rows.append((label, *(words.interval(cell["auroc"], cell["ci"]) for cell in cells)))
    rows.append(("macro", *(words.interval(model["macro"]["auroc"], model["macro"]["ci"]) for model in models)))
    # Most reasons are of the truth, and so the same of all models; that scores separate the classes is of one.
    reasons = [_reasons(model) for model in models]
    shared = [line for line in reasons[0] if all(line in lines for lines in reasons)]
    own = [
        f"{head}, {line}" for head, lines in zip(heads, reasons, strict=True) for line in lines if line not in shared
    ]
    return "\n".join([_aligned(rows), *shared, *own])


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _said(difference: Mapping[str, Any], confidence: float) -> str:
    """Return a comparison in words: the macro mean, then the labels that differ after Holm's adjustment."""
    from noisy_student.reporting import words

    macro, model, first = difference["macro"], difference["model"], difference["against"]
    sentence = macro["sentence"]
    text = (
        f"{model} is {sentence} than {first}" if sentence in ("better", "worse") else f"{model} and {first} {sentence}"
    )
    text += f".\n  Macro AUROC {words.signed(macro['difference'], macro['ci'])}"
    if macro["p"] is not None:
        text += f", p {words.number(macro['p_holm'])} after Holm"
    for word in ("better", "worse"):
        names = [name for name, one in difference["labels"].items() if one["sentence"] == word]
        text += f"\n  {word.capitalize()} on {words.listed(names)}." if names else ""
    for name, one in difference["labels"].items():
        # Where too few patients forbid a word, and not where the difference is unclear.
        if one["sentence"].startswith(("cannot be compared: ", "cannot be told apart: ")):
            text += f"\n  {name}: {one['sentence']}."
    if all(one["sentence"] not in ("better", "worse") for one in difference["labels"].values()):
        text += f"\n  No label differs at {words.percent(confidence)} after adjustment for their number."
    return text
