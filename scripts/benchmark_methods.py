#!/usr/bin/env python
"""Label efficiency: ours against its rivals on the same films, labels, network, weights file and seeds.

- few: supervised on the whole label budget (labelled and validation films) with the teacher's recipe;
- few_ensemble (where asked for): the mean of six such networks;
- frozen: logistic regression on the features of the start weights, on the label budget;
- pseudo: `ns iterate` whose students learn without noise;
- mean_teacher, fixmatch: one network, or the members of student, on the label budget and the pool, with a consistency
  term;
- ours: `ns iterate` with the configuration, its best generation;
- all: supervised on every label of the train split;
- hard, single, unpretrained, unaligned (where asked for): ours with hard targets, one network, no self-supervised
  start, pseudo-labels that keep the teacher's own share of positives. With pseudo they leave out one component each;
- any other name that --own gives settings: ours with those settings.
A self-supervised start of the configuration is made by the arms that are `ns iterate` (but unpretrained); the others
start from its weights file. mean_teacher, fixmatch and all see as many films as all trainings of ours together; every
line says how many. A self-supervised start and a generation 0 that several arms would make alike are made by the first
of them and taken over by the others, whose seconds are then without them.

Gap closed of an arm = (arm - few) / (all - few), the ratio of means over seeds of the test macro AUROC.
Every finished arm becomes a line of --results and is not run again, so the matrix can be made in parts; what belongs
together has the same --set, --own, --rounds and --few-steps, and says the same in those parts of the configuration file
that the arm takes something from: other pseudo-labels in ours leave the lines of its rivals as they are.
With --folds N a seed's test films are those of one of N folds of all patients.
With --trials FILE nothing is measured on test films: a part of the train patients takes their place, and every trial of
every method becomes a line of FILE.

    python scripts/benchmark_methods.py --root DIR --rounds 1 --few-steps 150 --own 'pseudo:student.refit={}'
    python scripts/benchmark_methods.py --root DIR --trials trials.jsonl --arms few --own few:teacher.optim.lr=3e-4
    python scripts/benchmark_methods.py --root DIR --arms ours third --own third:student.optim.labelled_share=0.33
    python scripts/benchmark_methods.py --quick --output DIR
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import arms
import measured_on
import measuring
import numpy as np
import pandas as pd
import results
import sharing
from PIL import Image

from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.data import synthetic
from noisy_student.runs import text_hash

QUICK: Final = """
threads: 1
data: {source: csv, root: films, labels: [A, B], image_size: 32}
split: {labelled_images: 12, valid_images: 12}
teacher: &phase {optim: {steps: 4, batch_size: 8, bn_images: 8}}
student: *phase
evaluation: {replicates: 100}
"""


REVISION: Final = results.revision()
"""Of the code that runs, which is read now: a commit may come while it does."""
BY_LABEL: Final = ("ours", "few")
"""The arms that are compared label by label."""


def make_quick(folder: Path) -> Path:
    """Write made-up films with a bright or a dark patch, and a configuration for them; return its path."""
    films, draw, rows = folder / "films", np.random.default_rng(0), []
    films.mkdir(parents=True, exist_ok=True)
    for number in range(160):
        a, b = number % 2, number // 4 % 2
        pixels = draw.integers(0, 120, (32, 32), dtype=np.uint8)
        pixels[8:24, 8:16] += np.uint8(100 * a)
        pixels[8:24, 16:24] += np.uint8(100 * b)
        Image.fromarray(pixels).save(films / f"{number}.png")
        split = ("train", "train", "train", "valid", "test")[number // 8 % 5]
        rows.append({"image": f"{number}.png", "patient": f"p{number // 2}", "split": split, "A": a, "B": b})
    pd.DataFrame(rows).to_csv(films / "labels.csv", index=False)
    path = folder / "quick.yaml"
    path.write_text(QUICK, encoding="utf-8")
    return path


def config_of(arm: str, seed: int, given: argparse.Namespace) -> Config:
    """Return the configuration of an arm; with a split of its own where trials or folds are asked for."""
    shared = [f"data.root={given.root}", f"seed={seed}", f"split.seed={seed}", *given.set]
    if given.trials is not None or given.folds is not None:
        base = load(given.config, shared)  # what decides who is in which split
        drawn = text_hash(
            json.dumps([given.folds, base.data.model_dump(mode="json"), base.split.model_dump(mode="json")])
        )
        split = given.output / f"split-{seed}-{drawn[:8]}.parquet"
        if not split.is_file() and given.trials is not None:
            measured_on.write_development(base, split)
        elif not split.is_file():
            measured_on.write_fold(base, seed, given.folds, split)
        shared.append(f"split.file={split}")
    return checked(arm, given, shared)


def configured(arm: str, given: argparse.Namespace, shared: Sequence[str]) -> Config:
    """Return the configuration of an arm: ``shared`` settings, those of the arm, and those given for it alone."""
    return load(given.config, [*shared, *arms.SETTINGS.get(arm, ()), *own(arm, given)])


def checked(arm: str, given: argparse.Namespace, shared: Sequence[str]) -> Config:
    """Return the configuration of an arm, as :func:`configured`.

    Raises:
        ConfigError: see :func:`arms.check`.
    """
    config = configured(arm, given, shared)
    arms.check(arm, load(given.config, shared), config)
    return config


def own(arm: str, given: argparse.Namespace) -> list[str]:
    """Return the settings that were given for this arm alone."""
    return [text.removeprefix(f"{arm}:") for text in given.own if text.startswith(f"{arm}:")]


def recipe_of(arm: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return what makes two lines of an arm comparable: of the configuration what the arm takes from it."""
    config = configured(arm, given, given.set)
    recipe = {
        "config": results.recipe_key(given.config, without=arms.unread(arm, config, given.rounds)),
        "set": given.set,
        "rounds": given.rounds,
        "few_steps": given.few_steps,
    }
    if (films := arms.budget(arm, config, given.rounds)) is not None:
        recipe["budget"] = films
    if arm in arms.SETTINGS:
        recipe["settings"] = list(arms.SETTINGS[arm])
    if own(arm, given):
        recipe["own"] = own(arm, given)
    if config.data.source == "synthetic":
        recipe["phantoms"] = synthetic.VERSION
    if given.folds is not None:
        recipe["films"] = f"folds of {given.folds}"
    return recipe | ({"films": "development"} if given.trials is not None else {})


def run_arm(arm: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return the line of an arm: its measures, what it did, and how long it took."""
    recipe, start = recipe_of(arm, given), time.perf_counter()
    config = config_of(arm, seed, given)
    runs = given.output / REVISION  # what another revision began, it may have done otherwise
    folder = runs / f"{arm.replace(' ', '-')}-{seed}-{text_hash(json.dumps(recipe))[:8]}"
    resumed = folder.exists()
    bench = arms.prepared(folder, config, given.rounds, given.few_steps)
    asked = config.macro_labels(), config.targets.blank
    results.check_test_films(bench.test, *asked)
    make = arms.ARMS.get(arm, arms.iterated)
    taken = sharing.take_over(bench.work.run, config, runs) if make is arms.iterated else []
    outcome = make(bench)
    measures = results.measured(bench.test, outcome.scores, *asked, by_label=arm in BY_LABEL and given.trials is None)
    head = {"arm": arm, "seed": seed, "recipe": recipe, "revision": REVISION, "device": arms.device()}
    about = outcome.about | ({"taken_over": taken} if taken else {})
    seconds = None if resumed else round(time.perf_counter() - start)
    return head | {"seconds": seconds, "about": about} | measures


def kept(given: argparse.Namespace) -> results.Lines:
    """Return the lines that are there for the arms that were asked for, each of its own recipe."""
    lines: results.Lines = {}
    for arm in given.arms:
        found = results.read(given.results, recipe_of(arm, given))
        lines |= {key: line for key, line in found.items() if key[0] == arm}
    return lines


def arguments(told: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what ``told``, or the command line, asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--config", type=Path, default=Path("configs/kermany160.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="for every arm")
    parser.add_argument("--own", action="append", default=[], metavar="ARM:A.B=VALUE", help="for one arm, or a new one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", metavar="ARM", default=list(arms.MATRIX))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few-steps", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark_methods"), help="folder of the runs")
    parser.add_argument("--results", type=Path, help="[default: docs/results/<name of the configuration>.jsonl]")
    parser.add_argument("--trials", type=Path, help="measure on development films and log to this file")
    parser.add_argument("--folds", type=int, metavar="N", help="test on folds of the patients: seed k on fold k")
    parser.add_argument("--plot", type=Path, help="draw the arms to this SVG")
    parser.add_argument("--quick", action="store_true", help="a tiny matrix on made-up films, into --output")
    given = parser.parse_args(told)
    if given.quick:
        given.config, given.root = make_quick(given.output), given.output / "films"
        given.rounds, given.few_steps, given.seeds = 1, 4, [0, 1]
        given.results = given.results or given.output / "results.jsonl"
    if given.root is None:
        parser.error("--root is missing: the folder of the data set (or --quick)")
    if given.folds is not None and (given.trials is not None or max(given.seeds) >= given.folds):
        parser.error("--folds: goes without --trials, and with more folds than the largest seed")
    named = [text.partition(":")[0] for text in given.own]
    if wrong := [arm for arm in given.arms if arm not in (*arms.ARMS, *named)]:
        parser.error(
            f"--arms {wrong[0]}: is none of {', '.join(arms.ARMS)}, and no --own '{wrong[0]}:A.B=VALUE' makes it"
        )
    if wrong := [arm for arm in named if arm not in (*arms.ARMS, *given.arms)]:
        parser.error(f"--own {wrong[0]}: is none of {', '.join(arms.ARMS)}, nor of the arms to run")
    given.results = given.trials or given.results or Path("docs/results") / f"{given.config.stem}.jsonl"
    return given


def main() -> None:
    """Run what is missing, then print the table and the figures."""
    given = arguments()
    for arm in given.arms:  # before the first of them takes its time
        checked(arm, given, given.set)
    for seed in given.seeds:
        for arm in given.arms:
            if (arm, seed) in kept(given):
                continue
            line = run_arm(arm, seed, given)
            results.append(given.results, line)
            print(f"{arm} seed {seed}: {line['auroc']:.4f} {line['about']}", flush=True)
    lines = kept(given)
    found = results.summarise(lines, given.seeds)
    print(results.table(found))
    more = results.labels(lines, *BY_LABEL, given.seeds), results.generations(lines, "ours", given.seeds)
    for text in filter(None, more):
        print(f"\n{text}")
    if given.trials is not None:
        print(results.trials(given.trials))
    if given.plot is not None:
        results.plot(found, given.plot)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with measuring.plainly():
        main()
