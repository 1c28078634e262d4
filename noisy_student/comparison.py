"""Figures of tables and runs: one table of scores against a table of truth, or several models side by side, paired."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import evaluation, external, preparation
from noisy_student.config import Config
from noisy_student.config.load import read_snapshot, with_measures
from noisy_student.data import score_joins, score_tables
from noisy_student.data.score_joins import Blank, Joined
from noisy_student.data.score_tables import ScoreTable
from noisy_student.errors import ConfigError, DataError, UsageError
from noisy_student.labels import COMPETITION, canonical, is_known
from noisy_student.runs import Run
from noisy_student.stats import delong
from noisy_student.stats.comparison import Comparison, compare_models, comparison_json
from noisy_student.stats.evaluation import evaluate
from noisy_student.stats.power import holm
from noisy_student.stats.strata import strata

Floats = npt.NDArray[np.float64]

TABLES: Final = Config.model_validate({"targets": {"blank": "ignore"}})
"""How tables are measured unless somebody says otherwise: a table of truth is filled where something is known."""
ROUNDING: Final = 1e-6
"""How far outside [0, 1] a probability may be; float32 sigmoids and printed decimals are."""
ONLY_RANKING: Final = (
    "scores outside [0, 1] rank cases and are no probabilities: Brier score, log loss and calibration errors are left "
    "out for"
)
CURVES: Final = ("roc", "pr", "reliability", "before", "operating_points")
"""What a run's evaluation holds beside figures; the files of a run keep it, a table on the screen has no use for it."""


def evaluate_tables(truth: Path, predictions: Path, config: Config, *, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return the measures of a table of scores against a table of truth, over the labels that both have.

    ``labels`` and ``macro`` as in ``evaluation.json``, without curves; ``unit``, ``joined_on`` and ``clusters`` say
    what was joined and resampled, ``notes`` what was left out, in words.

    Args:
        truth: table of truth; see :mod:`noisy_student.data.score_tables`.
        predictions: table of scores.
        config: replicates, confidence, bins, strata and seed are used, and what a blank in the truth is
            (``targets.blank``): unknown ("ignore"), or negative ("zeros").
        labels: the labels to measure; empty takes all that both have.

    Raises:
        DataError: the tables cannot be read or joined.
    """
    table = score_tables.read(predictions)
    blank = config.targets.blank
    joined = score_joins.join(score_tables.read(truth), [table], blank=blank, only=labels)
    cells = {canonical(name): values[np.isfinite(values)] for name, values in table.columns.items()}
    ranking = [
        name
        for name in joined.labels
        if ((cells[canonical(name)] < -ROUNDING) | (cells[canonical(name)] > 1 + ROUNDING)).any()
    ]
    (score,) = joined.scores
    score = np.where([name in ranking for name in joined.labels], score, score.clip(0, 1))
    found = _measured(joined, score, config, ranking)
    notes = [f"{ONLY_RANKING} {', '.join(ranking)}"] if ranking else []
    return {
        **_about(joined, config),
        "blank": blank,
        "macro": found["macro"],
        "labels": found["labels"],
        "competition": _competition(joined, score, config),
        "notes": notes + _left_out(joined),
    }


def compare(
    entries: Sequence[Path], truth: Path | None, overrides: Sequence[str] = (), labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Return several models side by side on the same cases: figures of each, and differences to the first, paired.

    An entry is a run, which is there with its best generation on its test films, or a table of scores. Without
    ``truth`` all are runs of the same test films, measured at the level of the first one's configuration.

    ``not_in_all`` are the labels that one of them, or the truth, does not have: they are left out.
    ``differences`` hold the paired bootstrap; per label also ``delong``, the closed form (DeLong, or Obuchowski's where
    a patient has several cases). ``p_holm`` is Holm's adjustment over the labels of a comparison, and for the macro
    mean over the comparisons. ``labels`` are the ones to measure; empty takes all that every entry has.

    Raises:
        UsageError: fewer than two entries, a table without ``truth``, a run without a trained generation, or an
            override that is about nothing that is compared.
        DataError: tables cannot be read or joined, or runs have other test films.
    """
    if len(entries) < 2:
        raise UsageError("there is nothing to compare with", "Name at least two runs or tables of scores.")
    for entry in entries:
        if not entry.exists():
            raise DataError(f"{entry}: is missing", "Name a run directory, or a CSV or Parquet file of scores.")
    runs = {entry: _run(entry) for entry in entries if entry.is_dir()}
    tables = [entry for entry in entries if entry not in runs]
    if truth is None and tables:
        raise UsageError(f"{tables[0]}: says nothing of what is true", "Add --truth with the table of true labels.")
    refuse(overrides, "evaluation.bins", "no figure of a comparison is of bins")
    stored = next((config for _, config in runs.values()), TABLES)
    config = with_measures(stored, [one for one in overrides if not _is_blank(one)])
    blank = blank_of(overrides)
    if truth is None and any(map(_is_blank, overrides)):
        raise UsageError(
            "--set targets.blank does nothing where runs are compared on their own test films",
            "Leave it out: what a run made of blanks stays.",
        )
    found = {entry: _cases(*run, config.evaluation.level) for entry, run in runs.items()}
    models = [found[entry][1] if entry in found else score_tables.read(entry) for entry in entries]
    if truth is None:
        first = found[entries[0]][0]
        _refuse_other_films(models)
        joined = score_joins.join(first, models, only=labels)
    else:
        joined = score_joins.join(score_tables.read(truth), models, blank=blank, only=labels)
    names = _names(entries)
    generations = {entry: external.chosen_generation(run) for entry, (run, _) in runs.items()}
    return {
        **_about(joined, config),
        "not_in_all": list(joined.not_in_all),
        "models": [
            {
                "name": name,
                "generation": generations.get(entry),
                **_figures(_measured(joined, score, config, joined.labels)),
            }
            for name, entry, score in zip(names, entries, joined.scores, strict=True)
        ],
        "differences": _differences(joined, names, config),
        "notes": _left_out(joined),
    }


def blank_of(overrides: Sequence[str]) -> Blank:
    """Return what a blank of a table of truth is: what ``--set targets.blank`` says, else unknown ("ignore").

    Raises:
        ConfigError: it says something else, or an override is about nothing that is measured.
    """
    return with_measures(TABLES, overrides).targets.blank


def refuse(overrides: Sequence[str], key: str, why: str) -> None:
    """Refuse ``key`` among ``overrides``.

    Raises:
        ConfigError: it is there.
    """
    for override in overrides:
        if override.partition("=")[0].strip() == key:
            raise ConfigError(f"--set {override}: does nothing here: {why}", "Leave it out.")


# -- parts ---------------------------------------------------------------------------------------------------------


def _is_blank(override: str) -> bool:
    return override.partition("=")[0].strip() == "targets.blank"


def _run(path: Path) -> tuple[Run, Config]:
    run = Run(path)
    if not run.exists() or not run.is_complete(preparation.STAGE):
        raise UsageError(f"{path}: is not a run of noisy_student", "Name a run directory, or a table of scores.")
    return run, read_snapshot(path / "config.resolved.json")


def _cases(run: Run, config: Config, level: str) -> tuple[ScoreTable, ScoreTable]:
    """Return truth and probabilities of a run's best generation on its test films, per film or per study."""
    films, levels = evaluation.test_levels(run, config, external.chosen_generation(run))
    truth, probability, _ = levels[level]
    frame, name = films.frame, str(run.path)
    keys = [frame["study"].to_numpy(dtype=object)]
    patients = frame["patient"].to_numpy(dtype=object)
    if level == "image":
        keys = [frame["image"].to_numpy(dtype=object), *keys]
    else:
        # The levels have their studies in the order of their names.
        keys[0], first = np.unique(keys[0].astype(str), return_index=True)
        patients = patients[first]
    unit: score_tables.Unit = "image" if level == "image" else "study"
    made = [
        score_tables.of_cases(name, unit, keys, patients, config.data.labels, value) for value in (truth, probability)
    ]
    return made[0], made[1]


def _refuse_other_films(models: Sequence[ScoreTable]) -> None:
    own = [set(model.study if model.film is None else model.film) for model in models]  # type: ignore[arg-type]
    for model, keys in zip(models, own, strict=True):
        if keys != own[0]:
            raise DataError(
                f"{model.name}: its test films are not those of {models[0].name} "
                f"({len(keys & own[0])} of {len(own[0])} in common)",
                "Compare runs of one data set and one split, or give predictions as tables with --truth.",
            )


def _names(entries: Sequence[Path]) -> list[str]:
    """Return short names: the last part of each path, all of it where two would be alike."""
    short = [entry.stem if entry.suffix else entry.name for entry in entries]
    return [name if short.count(name) == 1 else str(entry) for name, entry in zip(short, entries, strict=True)]


def _about(joined: Joined, config: Config) -> dict[str, Any]:
    return {
        "unit": joined.unit,
        "n": len(joined.truth),
        "patients": int(np.unique(joined.patients).size),
        "joined_on": joined.joined_on,
        "clusters": joined.clusters,
        "confidence": config.evaluation.confidence,
        "only_truth": list(joined.only_truth),
        "only_predictions": list(joined.only_scores),
        "surplus": joined.surplus,
    }


def _left_out(joined: Joined) -> list[str]:
    notes = []
    if joined.surplus:
        notes.append(f"rows of scores without truth, left out: {joined.surplus:,}")
    if joined.soft:
        counts = ", ".join(f"{name} {count:,}" for name, count in joined.soft.items())
        notes.append(f"cells of truth between 0 and 1, which count as unknown: {counts}")
    strange = [name for name in joined.labels if not is_known(name)]
    if 0 < len(strange) < len(joined.labels):
        notes.append(
            f"names that are no known findings, measured because all tables have them: {', '.join(strange)} "
            "(--labels names the ones to take)"
        )
    if joined.clusters == "rows":
        notes.append("no column and no path tells patients: every row counts as a patient of its own")
    return notes


def _measured(joined: Joined, score: Floats, config: Config, ranking: Collection[str]) -> dict[str, Any]:
    measures = config.evaluation
    found = evaluate(
        joined.truth,
        score,
        joined.patients,
        joined.labels,
        _macro_labels(joined, config),
        replicates=measures.replicates,
        confidence=measures.confidence,
        bins=measures.bins,
        seed=config.seed,
        stratify=measures.stratify,
        ranking=ranking,
    )
    for entry in found["labels"].values():
        for key in CURVES:
            del entry[key]
    return found


def _macro_labels(joined: Joined, config: Config) -> list[str]:
    """Return the labels of the macro mean: those of the configuration that all have, all labels where it names none."""
    wanted = {canonical(name) for name in config.evaluation.macro_labels}
    return [name for name in joined.labels if canonical(name) in wanted] or list(joined.labels)


def _competition(joined: Joined, score: Floats, config: Config) -> dict[str, Any] | None:
    """Return the mean over the five competition labels, ``None`` where one of them is not there or undefined."""
    ours = [canonical(name) for name in joined.labels]
    if not set(COMPETITION) <= set(ours):
        return None
    columns = [ours.index(name) for name in COMPETITION]
    part = Joined(**{**vars(joined), "labels": COMPETITION, "truth": joined.truth[:, columns]})
    macro = _measured(part, score[:, columns], config, COMPETITION)["macro"]
    if len(macro["labels"]) < len(COMPETITION):
        return None
    kept = ("auroc", "ci", "labels", "undefined_replicates", "undefined_labels", "reason")
    return {key: macro[key] for key in kept}


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    kept = (
        "auroc", "ci", "undefined_replicates", "ap", "positives", "negatives", "unknown", "reason", "delong_ci",
        "delong_method", "delong_reason",
    )  # fmt: skip
    means = ("auroc", "ci", "ap", "labels", "undefined_replicates", "undefined_labels", "reason")
    macro = {key: found["macro"][key] for key in means}
    return {
        "macro": macro,
        "labels": {name: {key: entry[key] for key in kept} for name, entry in found["labels"].items()},
    }


def _differences(joined: Joined, names: Sequence[str], config: Config) -> list[dict[str, Any]]:
    """Return what stands under ``differences``: each model minus the first."""
    measures = config.evaluation
    compared = compare_models(
        joined.truth,
        joined.scores,
        [(0, index) for index in range(1, len(names))],
        joined.patients,
        [joined.labels.index(name) for name in _macro_labels(joined, config)],
        replicates=measures.replicates,
        seed=config.seed,
        confidence=measures.confidence,
        stratify=strata(joined.truth, joined.patients) if measures.stratify else None,
        names=joined.labels,
    )
    adjusted = holm({str(index): found.macro.p_value for index, found in enumerate(compared, start=1)})
    tests = sum(value is not None for value in adjusted.values())
    return [
        _one_difference(joined, index, found, adjusted[str(index)], tests, names, config)
        for index, found in enumerate(compared, start=1)
    ]


def _one_difference(
    joined: Joined,
    index: int,
    found: Comparison,
    p_holm: float | None,
    tests: int,
    names: Sequence[str],
    config: Config,
) -> dict[str, Any]:
    measures = config.evaluation
    said = comparison_json(
        found,
        joined.labels,
        measures.smallest_difference,
        measures.confidence,
        p_holm if tests > 1 else None,
        max(1, tests),
    )
    for k, name in enumerate(joined.labels):
        closed = delong.difference(
            joined.truth[:, k], joined.scores[0][:, k], joined.scores[index][:, k], joined.patients, measures.confidence
        )
        said["labels"][name]["delong"] = {
            "ci": None if closed.ci is None else list(closed.ci),
            "p": closed.p_value,
            "method": closed.method,
            "reason": closed.reason,
        }
    macro = {**said["macro"], "p_holm": p_holm}
    return {"model": names[index], "against": names[0], "macro": macro, "labels": said["labels"]}
