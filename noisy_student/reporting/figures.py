"""The figures of a page: which curves of the evaluations and of the training log are drawn, and what each one says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from noisy_student.reporting import plots, words

Captioned = list[tuple[str, Markup]]
"""Captions with their figures."""
Curves = Mapping[str, Mapping[str, Any]]
"""Labels with their measures as in ``evaluation.json``, curves included."""

LOGGED: Final = {
    "loss": "Loss",
    "lr": "Learning rate",
    "valid_auroc": "Validation macro AUROC",
    "valid_log_loss": "Validation log loss",
    "films_per_second": "Films per second",
}
"""What the training log holds and the page draws."""


def _points(report: Mapping[str, Any], split: str, label: str | None) -> list[plots.Point]:
    found: list[plots.Point] = []
    for entry in report["generations"]:
        part = entry[split]
        cell = part["macro"] if label is None else part["labels"].get(label, {"auroc": None, "ci": None})
        found.append((cell["auroc"], cell["ci"]))
    return found


def _spoken(report: Mapping[str, Any], points: list[plots.Point]) -> str:
    indices = [entry["index"] for entry in report["generations"]]
    return "; ".join(f"generation {g}: {words.interval(*point)}" for g, point in zip(indices, points, strict=True))


def references(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the reference arms that are there, by the words under which they are drawn."""
    arms = report.get("references") or {}
    names = {"supervised_few": "supervised, few labels", "supervised_all": "supervised, all labels"}
    return {title: arms[key] for key, title in names.items() if arms.get(key)}


def generations(report: Mapping[str, Any]) -> Markup | None:
    """Return macro AUROC over generations with the reference arms; ``None`` for a single generation."""
    test, valid = _points(report, "test", None), _points(report, "valid", None)
    if len(test) < 2 or all(value is None for value, _ in test + valid):
        return None
    indices = [entry["index"] for entry in report["generations"]]
    lines: list[tuple[str, plots.Point]] = [
        (title, (arm["auroc"], arm["ci"])) for title, arm in references(report).items()
    ]
    alt = f"Macro AUROC on test. {_spoken(report, test)}. On validation. {_spoken(report, valid)}."
    alt += "".join(f" {title.capitalize()}: {words.interval(*point)}." for title, point in lines)
    limits = plots.auroc_range([*test, *valid, *((value, None) for _, (value, _) in lines)])
    return plots.by_generation("macro", alt, indices, test, valid, limits, lines, small=False)


def labels(report: Mapping[str, Any]) -> Captioned:
    """Return AUROC over generations by label, all on one axis."""
    indices = [entry["index"] for entry in report["generations"]]
    if len(indices) < 2:
        return []
    names = list(report["generations"][-1]["test"]["labels"])
    points = {name: _points(report, "test", name) for name in names}
    limits = plots.auroc_range([point for row in points.values() for point in row])
    return [
        (
            name,
            plots.by_generation(
                f"g{k}", f"{name}, AUROC on test. {_spoken(report, row)}", indices, row, None, limits, (), small=True
            ),
        )
        for k, (name, row) in enumerate(points.items())
        if any(value is not None for value, _ in row)
    ]


def _marked(cell: Mapping[str, Any], x: str, y: str, *, mirrored: bool = False) -> list[plots.Mark]:
    """Return the operating points of a label that lie on a curve of rate ``y`` over rate ``x``, Youden's first."""
    found: list[plots.Mark] = []
    for key in ("youden", "sensitivity", "specificity"):
        point = (cell.get("operating_points") or {}).get(key)
        if point and point[x] is not None and point[y] is not None:
            found.append((key, 1 - point[x] if mirrored else point[x], point[y]))
    return found


def _operating(cell: Mapping[str, Any]) -> str:
    point = (cell.get("operating_points") or {}).get("youden")
    if not point or point["sensitivity"] is None or point["specificity"] is None:
        return ""
    return (
        f"; at threshold {words.number(point['threshold'])} sensitivity {words.number(point['sensitivity'], 2)} and "
        f"specificity {words.number(point['specificity'], 2)}"
    )


def roc(curves: Curves, others: Curves) -> Captioned:
    """Return the ROC curves with the operating points; those of ``others`` in grey."""
    return [
        (
            name,
            plots.roc(
                f"roc{k}",
                f"ROC curve of {name}, AUROC {words.interval(cell['auroc'], cell.get('ci'))}{_operating(cell)}",
                cell["roc"],
                others.get(name, {}).get("roc"),
                _marked(cell, "specificity", "sensitivity", mirrored=True),
            ),
        )
        for k, (name, cell) in enumerate(curves.items())
        if cell.get("roc")
    ]


def precision_recall(curves: Curves, others: Curves) -> Captioned:
    """Return the precision-recall curves with the operating points and the share of positives."""
    found = []
    for k, (name, cell) in enumerate(curves.items()):
        if not cell.get("pr"):
            continue
        share = cell["positives"] / (cell["positives"] + cell["negatives"])
        alt = (
            f"Precision-recall curve of {name}, average precision {words.number(cell['ap'])}, share of positives "
            f"{words.number(share)}"
        )
        marks = _marked(cell, "sensitivity", "ppv")
        found.append(
            (name, plots.precision_recall(f"pr{k}", alt, cell["pr"], others.get(name, {}).get("pr"), share, marks))
        )
    return found


def reliability(curves: Curves) -> Captioned:
    """Return the reliability diagrams, with that of the raw output in grey where it is on record."""
    found = []
    for k, (name, cell) in enumerate(curves.items()):
        if not cell.get("reliability") or not cell["reliability"]["count"]:
            continue
        before = cell.get("before") or {}
        alt = f"Reliability of {name}, ECE {words.number(cell.get('ece'))}"
        if before.get("reliability"):
            alt += f", before calibration {words.number(before.get('ece'))}"
        found.append((name, plots.reliability(f"rel{k}", alt, cell["reliability"], before.get("reliability"))))
    return found


def pseudo(entry: Mapping[str, Any]) -> Captioned:
    """Return the histograms of the pseudo-targets of a generation."""
    labels = entry["pseudo"]["labels"] if entry["pseudo"] else {}
    return [
        (
            name,
            plots.histogram(
                f"h{entry['index']}-{k}",
                f"Pseudo-targets of {name} from 0 to 1, mean {words.number(cell.get('pseudo_mean'))}, expected "
                f"prevalence {words.number(cell.get('prevalence'))}",
                cell["histogram"]["edges"],
                cell["histogram"]["counts"],
                cell.get("prevalence"),
            ),
        )
        for k, (name, cell) in enumerate(labels.items())
        if cell.get("histogram")
    ]


def training(log: Sequence[Mapping[str, Any]], index: int) -> Captioned:
    """Return what the training log says of a generation, one line per network."""
    found: Captioned = []
    for key, title in LOGGED.items():
        rows = [row for row in log if row.get("generation") == index and row.get(key) is not None]
        networks = [
            [row for row in rows if (row.get("fold"), row.get("member")) == which]
            for which in {(row.get("fold"), row.get("member")): 0 for row in rows}
        ]
        lines = [([row["step"] for row in of], [row[key] for row in of]) for of in networks if len(of) > 1]
        if lines:
            first, last = (words.listed([f"{ys[end]:.4g}" for _, ys in lines]) for end in (0, -1))
            svg = plots.training(f"t{index}-{key}", f"{title} of generation {index}, from {first} to {last}", lines)
            found.append((title, svg))
    return found
