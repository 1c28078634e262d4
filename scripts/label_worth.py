#!/usr/bin/env python
"""What the films without labels are worth, in labels: the label budget at which supervised training is as good.

few, supervised training on the whole label budget, is measured with larger and larger budgets on the test films of the
cell kermany160-52. An arm of that cell is worth as many labels as few needs for the same mean macro AUROC, between two
budgets by the logarithm of their size. Lines are kept in ``docs/results/label-worth.jsonl`` and not made twice; without
--data nothing is run, and the table is made from the lines that are there.

    python scripts/label_worth.py --data DIR
    python scripts/label_worth.py --plot docs/pictures/label-worth.svg

DIR has the folder kermany160.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import matrix
import measuring
import numpy as np
import numpy.typing as npt
import results

Floats = npt.NDArray[np.float64]

CELL: Final = "kermany160-52"
ARMS: Final = ("ours", "mean_teacher", "fixmatch")
"""The arms of the cell that are told in labels."""
NAME: Final = "label-worth"
STEPS: Final[Mapping[int, int]] = {208: 600, 416: 600, 832: 600}
"""Steps of few by label budget, chosen on development films."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean macro AUROC of few, (B,), and its replicates, (R, B), at rising label ``budgets``."""

    budgets: Sequence[int]
    area: Floats
    draws: Floats

    def worth(self, area: float, draws: Floats) -> tuple[float, float, float]:
        """Return the label budget at which few has ``area``, and its 95 % interval over the replicates (R,) that have
        an area of the arm and of every budget; without any the ends are NaN.

        The curve is taken as rising: a budget is worth no less than a smaller one. What lies outside it is the
        smallest or the largest budget, which is then a bound: :meth:`told` marks it.
        """
        defined = ~(np.isnan(draws) | np.isnan(self.draws).any(axis=1))
        pairs = zip(self.draws[defined], draws[defined], strict=True)
        drawn = [_budget(self.budgets, curve, value) for curve, value in pairs]
        low, high = np.quantile(drawn, (0.025, 0.975)) if drawn else (np.nan, np.nan)
        return _budget(self.budgets, self.area, area), float(low), float(high)

    def told(self, budget: float) -> str:
        """Return a budget of :meth:`worth` in words, one that is only a bound as "<= 104" or ">= 832"."""
        if np.isnan(budget):
            return "–"
        bound = "<= " if budget <= self.budgets[0] else ">= " if budget >= self.budgets[-1] else ""
        return f"{bound}{budget:,.0f}"


def _budget(budgets: Sequence[int], curve: Floats, area: float) -> float:
    rising = np.maximum.accumulate(curve)
    place = int(np.searchsorted(rising, area))  # the first budget that is as good
    if place in (0, len(rising)):
        return float(budgets[min(place, len(rising) - 1)])
    share = (area - rising[place - 1]) / (rising[place] - rising[place - 1])
    return float(budgets[place - 1] ** (1 - share) * budgets[place] ** share)


def first_films() -> tuple[int, int]:
    """Return how many labelled and how many validation films the cell has."""
    split = matrix.CELLS[CELL].configuration().split
    assert isinstance(split.labelled_images, int)
    assert isinstance(split.valid_images, int)
    return split.labelled_images, split.valid_images


def budgets() -> tuple[int, ...]:
    """Return the label budgets of the curve: that of the cell, then the larger ones."""
    return sum(first_films()), *STEPS


def cell_of(budget: int) -> matrix.Cell:
    """Return the cell of few with this label budget: the validation films stay as many as they are."""
    labelled = budget - first_films()[1]
    first = matrix.CELLS[CELL]
    settings = (f"split.labelled_images={labelled}",)
    return replace(first, few_steps=STEPS[budget], settings=settings, arms=("few",))


def run(given: argparse.Namespace) -> None:
    """Run what is missing, one budget and seed after another."""
    for budget in STEPS:
        cell = cell_of(budget)
        output = ["--output", str(given.output / NAME)]
        call = [*cell.call(NAME, given.data, cell.arms, cell.seeds), *output]
        subprocess.run([sys.executable, str(matrix.HERE / "benchmark_methods.py"), *call], check=True)


def measured() -> tuple[results.Lines, list[int]]:
    """Return the lines of few by budget (arms named by :func:`few_at`) and of the cell's other arms, and the seeds
    that all of them have.
    """
    first = matrix.CELLS[CELL]
    lines = first.lines(CELL, ("few", *ARMS, "all"))
    lines = {(few_at(budgets()[0]) if arm == "few" else arm, seed): line for (arm, seed), line in lines.items()}
    for budget in STEPS:
        lines |= {(few_at(budget), seed): line for (_, seed), line in cell_of(budget).lines(NAME, ("few",)).items()}
    arms = [*map(few_at, budgets()), *ARMS, "all"]
    return lines, [seed for seed in first.seeds if all((arm, seed) in lines for arm in arms)]


def few_at(budget: int) -> str:
    """Return what few is called with a label budget."""
    return f"few, {budget:,} labels"


def curve_of(lines: results.Lines, seeds: Sequence[int]) -> Curve:
    """Return the curve of few."""
    arms = [few_at(budget) for budget in budgets()]
    area = np.array([np.mean([lines[arm, seed]["auroc"] for seed in seeds]) for arm in arms])
    draws = results.drawn(lines, arms, seeds)
    return Curve(budgets(), area, np.column_stack([draws[arm] for arm in arms]))


def table(lines: results.Lines, seeds: Sequence[int]) -> str:
    """Return the arms and what they are worth as a table of Markdown."""
    curve, found = curve_of(lines, seeds), results.summarise(lines, seeds)
    draws = results.drawn(lines, ARMS, seeds)
    rows = ["| arm | macro AUROC | SD over seeds | 95 % interval | worth in labels |", "|---|---|---|---|---|"]
    for arm in (*map(few_at, curve.budgets), *ARMS, "all"):
        told = found["arms"][arm]
        worth = "–"
        if arm in ARMS:
            worth = "{} ({} to {})".format(*map(curve.told, curve.worth(told["mean"], draws[arm])))
        low, high = told["ci"]
        spread = "–" if told["sd"] is None else f"{told['sd']:.4f}"
        rows.append(f"| {arm} | {told['mean']:.4f} | {spread} | {low:.3f} to {high:.3f} | {worth} |")
    return "\n".join(rows)


def plot(lines: results.Lines, seeds: Sequence[int], path: Path) -> None:
    """Draw few over the label budget, and the arms at the budget of the cell with a line to what they are worth."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    curve, found = curve_of(lines, seeds), results.summarise(lines, seeds)
    draws = results.drawn(lines, ARMS, seeds)
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    band = np.nanquantile(curve.draws, (0.025, 0.975), axis=0)
    axes.fill_between(curve.budgets, *band, color="#dfe7ec", label="its 95 % interval")
    axes.plot(curve.budgets, curve.area, "o-", color="#5b7b8c", label="few: supervised, labels alone")
    for arm, colour, mark in zip(ARMS, ("#31688e", "#b5651d", "#8a8a3a"), "Dsv", strict=True):
        area = found["arms"][arm]["mean"]
        worth = curve.worth(area, draws[arm])[0]
        axes.plot([curve.budgets[0], worth], [area, area], ":", color=colour)
        told = f"{arm.replace('_', ' ')}: as {curve.told(worth)} labels"
        axes.plot(curve.budgets[:1], [area], mark, color=colour, label=told)
    axes.axhline(found["arms"]["all"]["mean"], color="#999999", linewidth=1, label="all: every label")
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.budgets, [f"{budget:,}" for budget in curve.budgets])
    axes.minorticks_off()
    axes.set_xlabel("label budget (labelled and validation films)")
    axes.set_ylabel(f"test macro AUROC, mean over {len(seeds)} seeds")
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Run what is missing where data are given, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets; without it nothing is run")
    parser.add_argument("--output", type=Path, default=Path("runs/matrix"), help="folder of the runs")
    parser.add_argument("--plot", type=Path, help="draw the curve to this SVG")
    given = parser.parse_args()
    if given.data is not None:
        run(given)
    lines, seeds = measured()
    if not seeds:
        raise SystemExit(f"label_worth: no seed has all lines of {CELL} (matrix.py) and {NAME} (--data DIR); run them")
    print(table(lines, seeds))
    if given.plot is not None:
        plot(lines, seeds, given.plot)


if __name__ == "__main__":
    with measuring.plainly():
        main()
