"""Results that are kept: one line of JSON per finished arm, and what several seeds of it say together.

A line holds an arm's test AUROCs and those of its bootstrap replicates. Every arm and seed on the same test films draws
the same patients in replicate r, so the lines are enough for paired intervals, without the scores of single films.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml
from scipy import stats

from noisy_student import scoring
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError
from noisy_student.runs import text_hash
from noisy_student.stats.intervals import bootstrap_auroc

Floats = npt.NDArray[np.float64]
Lines = dict[tuple[str, int], dict[str, Any]]
"""Lines by (arm, seed)."""
REPLICATES: Final = 1000
LEAST_DENOMINATOR: Final = 0.02
"""Below this lower bound of all - few a ratio says nothing, and none is given."""


def check_test_films(test: Manifest, macro_labels: Sequence[str], blank: str) -> None:
    """Check, before an arm is trained, that :func:`measured` can make a line of the films of ``test``.

    Raises:
        DataError: a label of the macro mean has no positive or no negative film there.
    """
    truth = scoring.known_truth(manifest.values(test), blank)
    for name in macro_labels:
        known = truth[:, test.labels.index(name)]
        for word, value in (("positive", 1), ("negative", 0)):
            if not (known == value).any():
                raise DataError(
                    f"{name}: none of the {len(test)} test films is {word}, so the macro AUROC is not defined",
                    "Take a larger test set, or leave the label out of evaluation.macro_labels.",
                )


def measured(
    test: Manifest, scores: Floats, macro_labels: Sequence[str], blank: str, *, by_label: bool = False
) -> dict[str, Any]:
    """Return what a line keeps of the ``scores`` (N, K) of the films of ``test``; ``by_label`` more: replicates of each
    label, for :func:`labels`.
    """
    truth = scoring.known_truth(manifest.values(test), blank)
    patients = scoring.codes(test.frame["patient"])
    columns = [test.labels.index(name) for name in macro_labels]
    labels = {
        name: scoring.area(manifest.values(test)[:, k], scores[:, k], blank) for k, name in enumerate(test.labels)
    }
    # A resample without a label is none of the mean over all of them.
    draws = bootstrap_auroc(truth, scores, patients, REPLICATES, 0)
    line = {
        "auroc": round(float(np.mean([labels[name] for name in macro_labels])), 6),
        "labels": {name: None if np.isnan(area) else round(area, 6) for name, area in labels.items()},
        "test": text_hash(json.dumps([np.nan_to_num(truth, nan=-1).tolist(), patients.tolist()])),
        "replicates": _rounded(draws[:, columns].mean(axis=1), 5),
    }
    if by_label:
        line["label_replicates"] = {name: _rounded(draws[:, k], 4) for k, name in enumerate(test.labels)}
    return line


def _rounded(values: Floats, digits: int) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), digits) for value in values]


def recipe_key(config: Path, without: Sequence[str] = ()) -> str:
    """Return a hash of what the configuration file says, comments apart and ``without`` these sections or keys
    ("teacher.refit"); a section of which nothing is left is none.
    """
    kept = yaml.safe_load(config.read_text(encoding="utf-8"))
    for path in without:
        kept = _left_out(kept, path.split("."))
    return text_hash(json.dumps(kept, sort_keys=True, default=str))  # YAML has dates, which JSON does not know


def _left_out(said: Any, path: Sequence[str]) -> dict[Any, Any]:
    """Return the section ``said`` without what ``path`` leads to; numbers are keys too (generations)."""
    kept = {}
    for key, value in dict(said or {}).items():
        if str(key) != path[0]:
            kept[key] = value
        elif len(path) > 1 and (rest := _left_out(value, path[1:])):
            kept[key] = rest
    return kept


def revision(folder: Path = Path(__file__).parent) -> str:
    """Return the revision of the code, with a plus where files differ from it, kept lines aside; "unknown" outside a
    repository.
    """

    def git(*told: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *told], capture_output=True, text=True, check=False, cwd=folder)

    name = git("rev-parse", "--short", "HEAD").stdout.strip()
    if not name:
        return "unknown"
    differs = git("diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)docs/results").returncode
    return f"{name}+" if differs else name


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the file at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as stream:  # in one go: several processes may add lines
        stream.write(f"{json.dumps(line, allow_nan=False)}\n".encode())


def read(path: Path, recipe: Mapping[str, Any]) -> Lines:
    """Return the lines of ``recipe`` by (arm, seed), the latest of each; none where there is no file."""
    if not path.is_file():
        return {}
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return {(line["arm"], line["seed"]): line for line in lines if line["recipe"] == dict(recipe)}


def trials(path: Path) -> str:
    """Return, as a table of Markdown, how many trials each arm had in a log of trials, and its best one.

    A trial is a recipe; its figure is the mean over the seeds that it was tried with.
    """
    logged: dict[str, dict[str, list[float]]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        tried = logged.setdefault(line["arm"], {})
        tried.setdefault(json.dumps(line["recipe"], sort_keys=True), []).append(line["auroc"])
    lines = ["| arm | trials | best macro AUROC | seeds | its settings |", "|---|---|---|---|---|"]
    for arm, tried in logged.items():
        best = max(tried, key=lambda recipe: float(np.mean(tried[recipe])))
        recipe = json.loads(best)
        settings = ", ".join([*recipe["set"], *recipe.get("settings", []), *recipe.get("own", [])]) or "–"
        lines.append(f"| {arm} | {len(tried)} | {np.mean(tried[best]):.4f} | {len(tried[best])} | {settings} |")
    return "\n".join(lines)


def drawn(
    lines: Mapping[tuple[str, int], Mapping[str, Any]], arms: Sequence[str], seeds: Sequence[int]
) -> dict[str, Floats]:
    """Return the replicates (R,) of each arm, each the mean over seeds drawn again, spread as by :func:`_widening`: the
    same draw for all arms.

    Ends the script where arms of one seed were measured on different test films.
    """
    if any(len({lines[arm, seed]["test"] for arm in arms}) > 1 for seed in seeds):
        raise SystemExit("results: the lines are of different test films")
    return {arm: _over_seeds([lines[arm, seed]["replicates"] for seed in seeds]) for arm in arms}


def _over_seeds(replicates: Sequence[Sequence[float | None]]) -> Floats:
    """Return the mean (R,) of as many seeds' replicates, drawn with replacement, the same draw at every call.

    How far a draw of seeds is from all of them is multiplied by :func:`_widening`; what patients do is left as it is.
    """
    values = np.array(replicates, dtype=np.float64).T
    count = values.shape[1]
    picked = np.random.default_rng(0).integers(0, count, (REPLICATES, count))
    every: Floats = values.mean(axis=1)
    drawn: Floats = values[np.arange(REPLICATES)[:, None], picked].mean(axis=1)
    return every + _widening(count) * (drawn - every)


def _widening(count: int) -> float:
    """Return the factor that makes a percentile interval over ``count`` seeds as wide as one by Student's t.

    A mean of n values drawn again shows (n - 1) / n of the variance and a normal quantile in place of t's: over three
    seeds an interval of 95 % covers 75 % (Hesterberg, The American Statistician 2015: expanded percentile intervals).
    """
    if count == 1:
        return 1.0
    return float(stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975) * np.sqrt(count / (count - 1)))


def summarise(lines: Mapping[tuple[str, int], Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """Return AUROCs, means, deviations and intervals of the arms that are there for all ``seeds``.

    Intervals (95 %) resample seeds and patients, crossed and the same for all arms; where every seed has test films of
    its own (folds), seeds and the patients within them; what seeds do is spread as Student's t, and ends
    outside of [0, 1], for a difference [-1, 1], are set to its ends. Gap closed of an arm is (arm - few) / (all - few),
    the ratio of means over seeds; null where the lower bound of its denominator is below 0.02, or few or all is
    missing. Films seen and seconds are means over seeds; those of runs that were interrupted are not known (``None``)
    and left out.
    """
    arms = [arm for arm in dict.fromkeys(arm for arm, _ in lines) if all((arm, seed) in lines for seed in seeds)]
    if len({lines[arm, seed]["test"] for arm in arms for seed in seeds}) not in (0, 1, len(seeds)):
        raise SystemExit("results: the lines are of different test films")
    area = {arm: np.array([lines[arm, seed]["auroc"] for seed in seeds]) for arm in arms}
    spent = {arm: [s for seed in seeds if (s := lines[arm, seed]["seconds"]) is not None] for arm in arms}
    mean = drawn(lines, arms, seeds)
    found: dict[str, Any] = {
        "seeds": list(seeds),
        "arms": {
            arm: {
                "auroc": area[arm].tolist(),
                "mean": float(area[arm].mean()),
                "sd": float(area[arm].std(ddof=1)) if len(seeds) > 1 else None,
                "ci": _interval(mean[arm], 0, 1),
                "ours_minus": None
                if arm == "ours" or "ours" not in arms
                else _interval(mean["ours"] - mean[arm], -1, 1),
                "gap_closed": None,
                "gap_closed_ci": None,
                "images_seen": float(np.mean([lines[arm, seed]["about"]["images_seen"] for seed in seeds])),
                "seconds": float(np.mean(spent[arm])) if spent[arm] else None,
            }
            for arm in arms
        },
        "gap_closed": None,
        "gap_closed_ci": None,
    }
    if {"few", "all"} <= set(arms):
        low = float(np.nanquantile(mean["all"] - mean["few"], 0.025))
        found["all_minus_few_lower_bound"] = low
        if low >= LEAST_DENOMINATOR:
            whole = float(area["all"].mean() - area["few"].mean())
            for arm in arms:
                found["arms"][arm]["gap_closed"] = float(area[arm].mean() - area["few"].mean()) / whole
                closed = (mean[arm] - mean["few"]) / (mean["all"] - mean["few"])
                found["arms"][arm]["gap_closed_ci"] = _interval(closed)
            if "ours" in arms:
                found |= {key: found["arms"]["ours"][key] for key in ("gap_closed", "gap_closed_ci")}
    return found


def labels(lines: Mapping[tuple[str, int], Mapping[str, Any]], arm: str, against: str, seeds: Sequence[int]) -> str:
    """Return, as a table of Markdown, an arm minus another label by label; intervals as in :func:`summarise`.

    Empty where the lines have no replicates of labels.
    """
    told = [f"| label | {against} | {arm} | difference (95 % interval) |", "|---|---|---|---|"]
    found = label_pairs(lines, arm, against, seeds)
    for name, both in found.items():
        told.append(f"| {name} | {both.theirs:.3f} | {both.ours:.3f} | {both} |" if both else f"| {name} | – | – | – |")
    return "\n".join(told) if found else ""


class Pair(NamedTuple):
    """AUROC of two arms, means over seeds, and the 95 % interval of their difference."""

    ours: float
    theirs: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """How far the first is above the second."""
        return self.ours - self.theirs

    def __str__(self) -> str:
        """Return the difference and its interval in words."""
        return f"{self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f})".replace("-", "−")


def label_pairs(
    lines: Mapping[tuple[str, int], Mapping[str, Any]], arm: str, against: str, seeds: Sequence[int]
) -> dict[str, Pair | None]:
    """Return an arm beside another label by label, ``None`` for a label without an AUROC in one of the lines; empty
    where the lines have no replicates of labels. Intervals are as in :func:`summarise`.
    """
    pairs = [(lines.get((arm, seed), {}), lines.get((against, seed), {})) for seed in seeds]
    if not all("label_replicates" in line for both in pairs for line in both):
        return {}
    found: dict[str, Pair | None] = {}
    for name in pairs[0][0]["labels"] if pairs else ():
        if any(line["labels"][name] is None for both in pairs for line in both):
            found[name] = None
            continue
        means = [float(np.mean([both[side]["labels"][name] for both in pairs])) for side in (0, 1)]
        draws = [_over_seeds([both[side]["label_replicates"][name] for both in pairs]) for side in (0, 1)]
        low, high = _interval(draws[0] - draws[1], -1, 1)
        found[name] = Pair(means[0], means[1], low, high)
    return found


def generations(lines: Mapping[tuple[str, int], Mapping[str, Any]], arm: str, seeds: Sequence[int]) -> str:
    """Return, as a table of Markdown, the generations of an arm: means over ``seeds`` of their test measures, how far
    the worst seed lies from generations 0 and 1, and the AUROC of the pseudo-labels it was taught by.

    Empty where the arm is no `ns iterate`, or its lines do not say.
    """
    values = measures(lines, arm, seeds)
    if not values:
        return ""
    area = values["auroc"]
    count = area.shape[1]
    head = "| generation | macro AUROC | worst seed minus generation 0 | minus generation 1 | log loss | Brier "
    rows = [head + "| debiased ECE | AUROC of its pseudo-labels |", "|---|---|---|---|---|---|---|---|"]
    for number in range(count):
        worst = [f"{(area[:, number] - area[:, other]).min():+.4f}" if other < number else "–" for other in (0, 1)]
        means = [f"{values[key][:, number].mean():.4f}" for key in ("log_loss", "brier", "ece_debiased")]
        pseudo = f"{values['pseudo_auroc'][:, number].mean():.4f}" if number else "–"
        cells = [f"{number}", f"{area[:, number].mean():.4f}", *worst, *means, pseudo]
        rows.append(f"| {' | '.join(cells)} |".replace("-", "−"))
    return "\n".join(rows)


def measures(lines: Mapping[tuple[str, int], Mapping[str, Any]], arm: str, seeds: Sequence[int]) -> dict[str, Floats]:
    """Return the measures (S, G) of the generations of an arm that all S seeds have; empty where a line has none."""
    told = [lines.get((arm, seed), {}).get("about", {}).get("measures") for seed in seeds]
    if not told or not all(told):
        return {}
    count = min(len(of_seed) for of_seed in told)
    return {
        key: np.array([[one[key] for one in of_seed[:count]] for of_seed in told], dtype=np.float64)
        for key in ("auroc", "log_loss", "brier", "ece_debiased", "pseudo_auroc")
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the arms of :func:`summarise` as a table of Markdown; what is not defined is a dash."""
    head = "| arm | macro AUROC | SD over seeds | 95 % interval | ours minus it | gap closed | films seen | minutes |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]

    def range_of(values: Sequence[float] | None, digits: int, sign: str = "") -> str:
        return "–" if values is None else " to ".join(f"{value:{sign}.{digits}f}" for value in values)

    for name, arm in found["arms"].items():
        closed = "–"
        if arm["gap_closed"] is not None:
            closed = f"{arm['gap_closed']:.2f} ({range_of(arm['gap_closed_ci'], 2)})"
        cells = [
            name,
            f"{arm['mean']:.4f}",
            "–" if arm["sd"] is None else f"{arm['sd']:.4f}",
            range_of(arm["ci"], 4),
            range_of(arm["ours_minus"], 4, "+"),
            closed,
            f"{arm['images_seen']:,.0f}",
            "–" if arm["seconds"] is None else f"{arm['seconds'] / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |".replace("-", "−"))
    return "\n".join(lines)


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw the arms of :func:`summarise` to an SVG: every seed, the mean and its interval."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = list(found["arms"])[::-1]
    figure = Figure(figsize=(6, 0.5 * len(names) + 1), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for place, name in enumerate(names):
        arm = found["arms"][name]
        axes.plot(arm["ci"], [place, place], color="#31688e", linewidth=2)
        axes.plot(arm["auroc"], [place] * len(arm["auroc"]), "o", color="#9fb8c9", markersize=4)
        axes.plot([arm["mean"]], [place], "D", color="#31688e", markersize=6)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"macro AUROC: seeds {', '.join(map(str, found['seeds']))}, their mean and its 95 % interval")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _interval(values: Floats, least: float = -np.inf, most: float = np.inf) -> list[float]:
    return [float(np.clip(np.nanquantile(values, q), least, most)) for q in (0.025, 0.975)]
