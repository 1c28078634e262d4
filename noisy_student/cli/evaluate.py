"""Measuring: a run, a run on another data set, or any table of scores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from noisy_student.cli import compare, options
from noisy_student.cli.running import existing, stage_options, tell

if TYPE_CHECKING:
    from noisy_student.workplace import Workplace


class _Evaluate(click.Command):
    """A command on a run, or on two tables instead."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        given = ctx.params
        tables = [given["truth"], given["predictions"]]
        if any(tables):
            if not all(tables):
                raise click.UsageError("--truth and --predictions go together.", ctx)
            if any(given[key] is not None for key in ("run_path", "config_path", "generation")):
                raise click.UsageError("--truth and --predictions are measured without a run or its options.", ctx)
            for key in ("calibration", "device", "output", "overwrite"):
                if ctx.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE:
                    raise click.UsageError(f"--{key} does nothing with --truth and --predictions.", ctx)
        elif given["labels"]:
            raise click.UsageError("--labels goes with --truth and --predictions.", ctx)
        elif given["run_path"] is None:
            raise click.UsageError("Name a run, or two tables with --truth and --predictions.", ctx)
        return rest


@click.command(cls=_Evaluate)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Another data set: measure the best generation on its test films, over the labels that both have.",
)
@click.option("--generation", type=click.IntRange(0), help="With --config: this generation in place of the best.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --config: a calibration by ns recalibrate in place of the run's own.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="With --config: the file of all measures.  [default: below RUN/external, by CONFIG]",
)
@click.option("--overwrite", is_flag=True, help="With --config: replace a file of other films.")
@click.option("--truth", type=click.Path(path_type=Path), help="CSV with the true labels, instead of a run.")
@options.labels
@click.option("--predictions", type=click.Path(path_type=Path), help="CSV with a score per label, with --truth.")
@partial(
    stage_options, run=click.argument("run_path", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
)
@options.example(
    "ns evaluate runs/demo\nns evaluate runs/chexpert --config configs/nih14.yaml --set data.root=/data/nih14\n"
    "ns evaluate --truth truth.csv --predictions scores.csv --json"
)
def evaluate(
    run_path: Path,
    config_path: Path | None,
    generation: int | None,
    calibration: Path | None,
    output: Path | None,
    overwrite: bool,
    truth: Path | None,
    predictions: Path | None,
    labels: tuple[str, ...],
    overrides: tuple[str, ...],
    device: str,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Measure every trained generation on validation and test, with intervals, or any table of scores.

    The generations are printed, and per label the test figures of the best one; --json has those of all.

    With --config, measure on another data set instead (external validation): --set is then about that data set (data,
    split, targets.blank, targets.fill_parents), and how it is measured is in the run's own configuration.

    With --truth and --predictions, measure any table of scores against any table of labels: rows are joined on a column
    Path, image or Study, labels by name. A blank in the truth is unknown, as is a number between 0 and 1;
    --set targets.blank=zeros makes blanks negative, as training does by default. --set also takes how: seed, and
    replicates, confidence, bins, stratify of evaluation.
    """
    from noisy_student import generations, launch
    from noisy_student.reporting.report import gather

    if launch.processes() > 1 and (truth is not None or config_path is not None):
        raise click.UsageError("With --config or --truth this is done by one process, and several were started.")
    if truth is not None and predictions is not None:
        compare.evaluate_tables(truth, predictions, labels, overrides, as_json)
        return
    if config_path is not None:
        place = output, overwrite
        _evaluate_elsewhere(run_path, config_path, generation, calibration, place, overrides, device, as_json, quiet)
        return
    if output is not None or overwrite:
        raise click.UsageError("--output and --overwrite go with --config; a run keeps its measures in its own files.")
    if calibration is not None:
        raise click.UsageError("--calibration goes with --config; the run's own films have the run's own calibration.")
    if generation is not None:
        raise click.UsageError("--generation goes with --config; without it every generation is measured.")
    with existing(run_path, overrides, device, quiet) as work:
        count = generations.evaluate(work, options.speaker(verbose))
        _tell_measures(work, gather(work.run, range(count), None), as_json)


def _tell_measures(work: Workplace, report: dict[str, Any], as_json: bool) -> None:
    """Print the generations of a report, and the test figures of the one to use."""
    from noisy_student.reporting.report import table
    from noisy_student.reporting.words import plural

    entries, best = report["generations"], report["best"]
    if as_json:
        kept = ("index", "role", "verdict", "test", "valid", "paired", "competition")
        more = {
            "level": report["level"],
            "confidence": report["confidence"],
            "best": best,
            "generations": [{key: entry[key] for key in kept} for entry in entries],
        }
        tell(work, entries[-1]["index"], "", "", as_json, more)
        return
    test = next(entry["test"] for entry in entries if entry["index"] == best)
    unit = plural(test["n"], "study" if report["level"] == "study" else "film")
    click.echo(f"{table(report)}\n\nGeneration {best} on {unit} of {plural(test['patients'], 'test patient')}:")
    click.echo(f"{compare.figures(test)}\n")
    measured = f"{plural(len(entries), 'generation')} measured."
    tell(work, entries[-1]["index"], measured, f"ns report {work.run.path}", as_json)


def _evaluate_elsewhere(
    run_path: Path,
    config_path: Path,
    generation: int | None,
    calibration: Path | None,
    place: tuple[Path | None, bool],
    overrides: tuple[str, ...],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    from noisy_student import external, generations
    from noisy_student.reporting import words
    from noisy_student.runs import write_json
    from noisy_student.workplace import Workplace

    run, config = generations.existing_run(run_path)
    with run.lock():
        work = Workplace(run, config, None, device, options.show_progress(quiet))
        chosen = external.chosen_generation(run, generation)
        with_it = "" if calibration is None else f"-with-{calibration.stem}"
        path = place[0] or run.path / "external" / f"{config_path.stem}-gen-{chosen}{with_it}.json"
        check = partial(external.refuse_others, path, overwrite=place[1])
        found = external.evaluate(work, external.load_other(config_path, overrides), chosen, calibration, check)
        write_json(path, found)
    if as_json:
        options.print_json(found)
        return
    level = config.evaluation.level
    measures, unit = found["splits"]["test"][level], f"test {'study' if level == 'study' else 'film'}"
    click.echo(
        f"Generation {chosen} of {run_path} on {words.plural(measures['n'], unit)} of "
        f"{words.plural(measures['patients'], 'patient')} of {config_path.stem}: AUROC over "
        f"{words.plural(len(found['compared']), 'shared label')} "
        f"{words.interval(measures['macro']['auroc'], measures['macro']['ci'])}"
    )
    for pair in found["compared"]:
        cell = measures["labels"][pair["model"]]
        name = pair["model"] if pair["model"] == pair["data"] else f"{pair['model']} ({pair['data']})"
        click.echo(f"  {name:<44} {words.interval(cell['auroc'], cell['ci'])}  {cell['positives']} positive")
    for key, whose in (("only_model", "the model"), ("only_data", "the data")):
        if found[key]:
            click.echo(f"Not compared, only in {whose}: {', '.join(found[key])}")
    click.echo(f"All measures: {path}\nResearch software. Not for clinical use.")
