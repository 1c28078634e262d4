#!/usr/bin/env python
"""The whole benchmark of methods: every cell, what each of them says, and the figures over all of them.

A cell is a data set with a label budget. Its arms are run by ``benchmark_methods.py``, one process for each cell and
seed, and its lines are kept in ``docs/results/CELL.jsonl``, so the matrix can be made in parts and by several
processes at once. Without --data nothing is run, and the tables are made from the lines that are there.

    python scripts/matrix.py --data DIR --jobs 2
    python scripts/matrix.py --data DIR --jobs 2 --cells kermany160-variants --arms ours ablation
    python scripts/matrix.py --data DIR --jobs 2 --cells kermany160-variants --arms findings --seeds 0 1 2
    python scripts/matrix.py --plots docs/pictures

DIR has the folders kermany160 and nih1000; synthetic films are made in folders of --output. Cells that need a GPU run
where --cells names them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import arms
import benchmark_methods
import measuring
import numpy as np
import results

from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.data.synthetic import dataset

HERE: Final = Path(__file__).parent
ROUNDS: Final = 3
RIVALS: Final = ("few_ensemble", *(arm for arm in arms.MATRIX if arm not in ("ours", "all")))
SMALL: Final = ("few", "mean_teacher", "fixmatch", "ours", "all")
"""The arms of a small cell: ours, both ends of the gap, and two rivals, to be the best two of the first cell."""
ABLATION: Final[Mapping[str, Sequence[str]]] = {
    "no term": ("student.refit.consistency={}",),
    "term alone": ("pseudo.loss_weight=1.0e-6",),
    "published alignment": (
        "student.refit.consistency={method: fixmatch, source: average, ramp: 0}",
        "pseudo.align=true",
    ),
    "no folds": (  # one network, taught by half of the budget and judged by the other
        "folds=1",
        "teacher.refit=null",
        "student.refit=null",
        "student.judges=learn",
        "student.start=weights",
        "student.model.dropout=0.5",
        "student.noise.mixup.probability=0",
        "student.consistency={method: fixmatch, source: average, ramp: 0, prevalence: teacher, align_by: shift}",
        "student.optim.steps=825",  # for as many films
    ),
    "all blocks pretrained": (
        "teacher.model.initialise=pretrained",
        "teacher.model.pretrained_blocks=null",
        "student.model.initialise=pretrained",
        "student.model.pretrained_blocks=null",
    ),
}
"""Ours without one of its components. What students are worth is the difference of the generations of any cell."""
FINDINGS: Final[Mapping[str, Sequence[str]]] = {
    "soft": ("pseudo.hard=false", "pseudo.select={}"),
    "weak teacher": ("teacher.refit={optim: {steps: 40}}",),
    "tenth of the pool": ("split.pool_fraction=0.1",),
    "half labelled": ("student.refit.optim.labelled_share=0.5",),
    "balanced pool": ("student.sampler.pool_balance=1",),
    "from the teacher": ("student.refit.start=teacher",),
    "pool, then labels": (
        "student.refit.optim.labelled_share=0.02",  # one of 64
        "student.refit.optim.phases=[{trainable: all}, {trainable: all, films: labelled, steps: 8}]",
    ),
}
"""Ours with other settings: seven of the eight findings of Xie et al. (CVPR 2020). The eighth is tried on synthetic
films (arms "larger student" and "anew"), because there are weights of one network alone to start from on real ones."""
VARIANTS: Final = {**ABLATION, **FINDINGS}
ONE_STUDENT: Final = ("generations={}", "student.optim.steps=600")
"""Variants are compared after one student, for two fifths of the films that three students see."""


@dataclass(frozen=True)
class Cell:
    """A data set with a label budget, and how it is run."""

    config: str
    data: str
    """Folder of the data set."""
    few_steps: int
    settings: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    arms: Sequence[str] = SMALL
    folds: int | None = None
    own: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Settings of single arms: the best recipe of its trials, where that is not the arm's usual one."""
    rounds: int = ROUNDS
    """Students of ours."""
    gpu: bool = False
    """Whether it would take days without a GPU; such cells are run where they are named alone."""

    @property
    def path(self) -> Path:
        """The configuration file."""
        return HERE.parent / "configs" / self.config

    def configuration(self) -> Config:
        """Return the configuration of ours."""
        return load(self.path, self.settings)

    def call(self, name: str, data: Path, names: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return the arguments of ``benchmark_methods.py`` for the cell called ``name``."""
        told = ["--config", str(self.path), "--root", str(data / self.data)]
        told += ["--rounds", str(self.rounds), "--few-steps", str(self.few_steps), "--results", str(place(name))]
        for setting in ("threads=1", *self.settings):
            told += ["--set", setting]
        for arm in names:
            for setting in self.own.get(arm, ()):
                told += ["--own", f"{arm}:{setting}"]
        told += [] if self.folds is None else ["--folds", str(self.folds)]
        return [*told, "--arms", *names, "--seeds", *map(str, seeds)]

    def lines(self, name: str, names: Sequence[str]) -> results.Lines:
        """Return the kept lines of these arms of the cell called ``name``."""
        return benchmark_methods.kept(benchmark_methods.arguments(self.call(name, Path(), names, self.seeds)))


KERMANY: Final[Mapping[str, Sequence[str]]] = {
    # Lee 2013: a supervised teacher, and students that see the pool and no noise, for as many films as ours.
    "pseudo": ("student.refit={}",),
}
SIX: Final = ("folds=6", "student.optim.steps=150")
"""Six networks in place of the demo's three, each of which learns from five sixths of the labels; as many films."""
MEMBERS: Final = (
    *("folds=1", "student.optim.steps=150", "student.optim.labelled_share=0.5"),
    *(f"{phase}.{arms.SIX_MEMBERS}" for phase in ("teacher", "student")),
)
"""The same of the rivals of one phase: their networks share as many films, and half of a batch has labels."""
MIRRORED: Final = ("teacher.noise.flip.probability=0.5", "student.noise.flip.probability=0.5")
"""Mirror images, for arms that are better with them (docs/experiments.md)."""
EARLIER: Final = (*MIRRORED, "pseudo.hard=false", "pseudo.select.rule=half", "pseudo.prior_strength=50")
"""The demo's noise and its soft targets, when the lines of these arms were made."""
FIXMATCH: Final = ("student.consistency={method: fixmatch, ramp: 0, weight: 0.3}",)
PHANTOMS: Final[Mapping[str, Sequence[str]]] = {
    "ours": SIX,
    "pseudo": SIX,
    "mean_teacher": MEMBERS,
    "fixmatch": (*MEMBERS, *FIXMATCH),
    "all": MIRRORED,
    # A larger network cannot go on from its teacher, so it is one of two students that begin anew, in three networks.
    "larger student": ("student.model.name=resnet18", "student.start=weights", *EARLIER),
    "anew": ("student.start=weights", *EARLIER),
}
SHORTER: Final = ("generations={1: {optim: {steps: 150}}, 2: {optim: {steps: 300}}}", "student.optim.steps=540")
"""Half as many steps, so that the matrix takes less of a night: 82,560 films in all in place of 149,440."""
SHORTEST: Final = ("generations={1: {optim: {steps: 50}}, 2: {optim: {steps: 100}}}", "student.optim.steps=180")
"""A third of that, where all films are a few hundred: a network that sees them all for longer learns them by heart."""
NIH: Final = "[Atelectasis, Edema, Effusion, Infiltration, Pneumonia]"
"""The findings that 30 films and more of each third of the patients show."""
CELLS: Final = {
    "kermany160-52": Cell("kermany160.yaml", "kermany160", 150, seeds=range(5), arms=arms.MATRIX, own=KERMANY),
    "synthetic-2": Cell(
        "demo.yaml",
        "synthetic",
        600,
        ("data.synthetic.train_patients=2400", "split.labelled_patients=45", "split.valid_images=19"),
        seeds=range(5),
        arms=("few", "few_ensemble", *arms.MATRIX[1:]),  # ours is six networks here
        own=PHANTOMS,
    ),
    "kermany160-26": Cell("kermany160.yaml", "kermany160", 150, ("split.labelled_images=26", "split.valid_images=26")),
    "kermany160-260": Cell("kermany160.yaml", "kermany160", 300, ("split.labelled_images=260", *SHORTER)),
    "synthetic-5": Cell(
        "demo.yaml",
        "synthetic",
        1200,
        ("data.synthetic.train_patients=2400", "split.labelled_patients=112", "split.valid_images=48"),
        arms=("few", "few_ensemble", "pseudo", *SMALL[1:]),  # the best rivals of synthetic-2 too
        own={**PHANTOMS, "few": MIRRORED},
    ),
    "nih1000-20": Cell(
        "kermany160.yaml",
        "nih1000",
        300,
        (
            "data.source=nih",
            "data.csv=null",
            f"data.labels={NIH}",
            f"evaluation.macro_labels={NIH}",
            "split.labelled_images=null",
            "split.labelled_fraction=0.2",
            "split.validation=carve",
            "split.carve_share=0.5",
            "split.valid_images=null",
            *SHORTEST,
        ),
        folds=3,
    ),
    "synthetic-224": Cell(  # 20,000 films, and a network of the size that is used in practice
        "demo.yaml",
        "synthetic-224",
        600,
        (
            "data.synthetic.train_patients=9800",
            "data.synthetic.size=224",
            "data.image_size=224",
            "split.labelled_patients=184",
            "split.valid_images=78",
            "folds=1",
            "teacher.model.name=densenet121",
            "student.model.name=densenet121",
            "student.optim.steps=200",
        ),
        seeds=(0,),
        own={"fixmatch": FIXMATCH, "all": MIRRORED},
        gpu=True,
    ),
    "kermany160-variants": Cell(
        "kermany160.yaml",
        "kermany160",
        150,
        ONE_STUDENT,
        seeds=range(5),
        arms=("ours", *VARIANTS),
        own=VARIANTS,
        rounds=1,
    ),
}
USUAL: Final = [name for name, cell in CELLS.items() if not cell.gpu]


def place(name: str) -> Path:
    """Return where the lines of a cell are kept."""
    return HERE.parent / "docs" / "results" / f"{name}.jsonl"


def run(given: argparse.Namespace) -> None:
    """Run what is missing of the cells, ``--jobs`` processes at a time; end the script where one of them failed."""
    calls = []
    for name in given.cells:
        cell = CELLS[name]
        names = asked(cell, given.arms)
        there = cell.lines(name, names)
        films = cell.configuration().data
        data = given.output if films.source == "synthetic" else given.data
        if films.source == "synthetic":  # before several processes want them
            dataset.write_dataset(data / cell.data, films.synthetic)
        for seed in (seed for seed in seeds_of(cell, given) if any((arm, seed) not in there for arm in names)):
            output = ["--output", str(given.output / name)]
            calls.append([*cell.call(name, data, names, [seed]), *output])

    def one(call: Sequence[str]) -> int:
        return subprocess.run([sys.executable, str(HERE / "benchmark_methods.py"), *call], check=False).returncode

    with ThreadPoolExecutor(given.jobs) as pool:
        failed = sum(code != 0 for code in pool.map(one, calls))
    if failed:
        raise SystemExit(f"matrix: {failed} of {len(calls)} processes failed")


def seeds_of(cell: Cell, given: argparse.Namespace) -> list[int]:
    """Return the seeds to run: those of the cell, or of them those given."""
    return [seed for seed in cell.seeds if given.seeds is None or seed in given.seeds]


def asked(cell: Cell, names: Sequence[str] | None) -> list[str]:
    """Return the arms to run: those of the cell, or those given; "ablation" and "findings" are several."""
    groups = {"ablation": ABLATION, "findings": FINDINGS}
    return list(cell.arms) if names is None else [arm for name in names for arm in groups.get(name, (name,))]


# -- tables --------------------------------------------------------------------------------------------------------


def figures(cells: Mapping[str, tuple[results.Lines, Mapping[str, Any]]]) -> str:
    """Return the figures over all cells as a table of Markdown."""
    rows = ["| figure | must | goal | reached |", "|---|---|---|---|"]
    for name, must, goal in (
        ("kermany160-52", "0.75, lower bound above 0.5", "0.95"),
        ("kermany160-26", "0.6", "0.85"),
        ("synthetic-2", "0.3", "0.7"),
    ):
        found = cells[name][1] if name in cells else {}
        rows.append(f"| gap closed, {name} | {must} | {goal} | {_closed(found)} |")
    for name, (lines, found) in cells.items():
        pairs = results.label_pairs(lines, "ours", "few", found["seeds"])
        known = {label: pair for label, pair in pairs.items() if pair is not None}
        if known:
            worst = min(known, key=lambda label: known[label].difference)
            rows.append(f"| {name}: ours minus few, worst label | not below −0.010 | | {worst} {known[worst]} |")
    margins = {name: margin for name, (_, found) in cells.items() if (margin := _margin(found)) is not None}
    told = ", ".join(f"{name} {both} over {rival}" for name, (both, rival) in margins.items())
    mean = f"; mean {np.mean([both.difference for both, _ in margins.values()]):+.4f}" if margins else "–"
    rows.append(f"| ours minus the best rival | mean above 0, none at −0.010 or below | every cell | {told}{mean} |")
    for name, (lines, found) in cells.items():
        rows += [f"| {name}: {row} |" for row in _generations(lines, found["seeds"])]
    return "\n".join(rows).replace(" -0", " −0").replace("(-0", "(−0")


def _closed(found: Mapping[str, Any]) -> str:
    if found.get("gap_closed") is None:
        return "–"
    low, high = found["gap_closed_ci"]
    return f"{found['gap_closed']:.2f} ({low:.2f} to {high:.2f})"


def _margin(found: Mapping[str, Any]) -> tuple[results.Pair, str] | None:
    """Return ours beside the best rival on the same budget, and which that is."""
    told = found.get("arms", {})
    rivals = [arm for arm in RIVALS if arm in told]
    if "ours" not in told or len(rivals) < 2:
        return None
    best = max(rivals, key=lambda arm: told[arm]["mean"])
    return results.Pair(told["ours"]["mean"], told[best]["mean"], *told[best]["ours_minus"]), best


def _generations(lines: results.Lines, seeds: Sequence[int]) -> list[str]:
    values = results.measures(lines, "ours", seeds)
    if not values or values["auroc"].shape[1] <= ROUNDS:
        return []
    late = values["auroc"][:, ROUNDS] - values["auroc"][:, 1]
    ece = values["ece_debiased"][:, -1].mean()
    changes = {key: (values[key][:, -1] - values[key][:, 0]).mean() for key in ("log_loss", "brier")}
    third = f"{late.mean():+.4f}, by seed {late.min():+.4f} to {late.max():+.4f}"
    calibrated = f"log loss {changes['log_loss']:+.4f}, Brier {changes['brier']:+.4f}, debiased ECE {ece:.3f}"
    return [
        f"third generation minus first | no seed at −0.005 or below, mean above 0 | every seed | {third}",
        f"last student minus teacher | not worse | better, debiased ECE below 0.05 | {calibrated}",
    ]


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets; without it nothing is run")
    parser.add_argument("--output", type=Path, default=Path("runs/matrix"), help="folder of the runs")
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=USUAL, help="[default: all without a GPU]")
    parser.add_argument("--arms", nargs="+", help="in place of the cell's: arms, ablation, findings")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the cell's seeds these alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--plots", type=Path, help="draw every cell to an SVG in this folder")
    return parser.parse_args()


def main() -> None:
    """Run what is missing where data are given, then print the tables."""
    given = arguments()
    if given.data is not None:
        run(given)
    cells = {}
    for name in given.cells:
        cell = CELLS[name]
        names = asked(cell, given.arms)
        lines = cell.lines(name, list(dict.fromkeys((*names, "few", "ours", "all"))))
        seeds = [seed for seed in seeds_of(cell, given) if all((arm, seed) in lines for arm in names)]
        if not seeds:
            missing = [arm for arm in names if all((arm, seed) not in lines for seed in seeds_of(cell, given))]
            print(f"## {name}\n\nNo seed has all arms; without any line: {', '.join(missing) or 'none of them'}.\n")
            continue
        found = results.summarise(lines, seeds)
        cells[name] = lines, found
        more = results.labels(lines, *benchmark_methods.BY_LABEL, seeds), results.generations(lines, "ours", seeds)
        print(f"## {name}, seeds {', '.join(map(str, seeds))}\n\n{results.table(found)}\n")
        print("".join(f"{text}\n\n" for text in more if text), end="")
        if given.plots is not None:
            results.plot(found, given.plots / f"{name}.svg")
    print(figures(cells))


if __name__ == "__main__":
    with measuring.plainly():
        main()
