"""The page of a report: one self-contained HTML file, drawn from ``report.json`` and the curves of the evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from noisy_student.reporting import plots, words
from noisy_student.reporting.pictures import Pictures
from noisy_student.runs import Run, read_json


def render(run: Run, report: Mapping[str, Any]) -> str:
    """Return the HTML of ``report``; curves, histograms and pictures are read from the files of ``run``.

    Raises:
        NoisyStudentError: a file of the run is missing or not valid.
    """
    entries = {entry["index"]: entry for entry in report["generations"]}
    shown = entries[report["shown"]]
    pictures = Pictures()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            shown=shown,
            best=entries[report["best"]],
            reference=_reference(report),
            figures={
                "generations": _generations_figure(report),
                "labels": _label_figures(report),
                "roc": _roc_figures(run, report),
                "reliability": _reliability_figures(run, report),
                "pseudo": {index: _pseudo_figures(entry) for index, entry in entries.items()},
                "training": _training_figures(run, report),
            },
            axis=plots.auroc_range([(cell["auroc"], cell["ci"]) for cell in shown["test"]["labels"].values()]),
            gallery=pictures.gallery(run.generation(shown["index"])),
            augmented=pictures.augmented(_trained_in(run, shown["index"])),
            left_out=pictures.left_out,
            linked=_linked(run, report),
        )
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("noisy_student.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": words.number,
        "count": words.count,
        "percent": words.percent,
        "plural": words.plural,
        "listed": words.listed,
        "settings": _settings,
    }
    environment.globals |= {"words": words}
    return environment


def _settings(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted keys with their values as text."""
    for key, part in value.items():
        if isinstance(part, Mapping) and part:
            yield from _settings(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)


def _linked(run: Run, report: Mapping[str, Any]) -> list[int]:
    """Return the generations whose own page stands beside the page of the run."""
    if report["kind"] != "run":
        return []
    indices = [entry["index"] for entry in report["generations"]]
    return [index for index in indices if (run.generation(index) / "report.html").is_file()]


def _reference(report: Mapping[str, Any]) -> int | None:
    """Return the generation drawn in grey: the first on the page of a run, the one before on a generation's page."""
    earlier = [entry["index"] for entry in report["generations"] if entry["index"] < report["shown"]]
    if not earlier:
        return None
    return int(earlier[0] if report["kind"] == "run" else earlier[-1])


# -- figures: (label, svg) pairs; the label stands in the page as a caption ------------------------------------------

Captioned = list[tuple[str, Markup]]


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


def _generations_figure(report: Mapping[str, Any]) -> Markup | None:
    test, valid = _points(report, "test", None), _points(report, "valid", None)
    if len(test) < 2 or all(value is None for value, _ in test + valid):
        return None
    indices = [entry["index"] for entry in report["generations"]]
    alt = f"Macro AUROC on test. {_spoken(report, test)}. On validation. {_spoken(report, valid)}."
    return plots.by_generation("macro", alt, indices, test, valid, plots.auroc_range(test + valid), small=False)


def _label_figures(report: Mapping[str, Any]) -> Captioned:
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
                f"g{k}", f"{name}, AUROC on test. {_spoken(report, row)}", indices, row, None, limits, small=True
            ),
        )
        for k, (name, row) in enumerate(points.items())
        if any(value is not None for value, _ in row)
    ]


def _test_labels(run: Run, report: Mapping[str, Any], index: int) -> dict[str, Any]:
    evaluation = read_json(run.generation(index) / "evaluation.json")
    labels: dict[str, Any] = evaluation["splits"].get("test", {}).get(report["level"], {}).get("labels", {})
    return labels


def _roc_figures(run: Run, report: Mapping[str, Any]) -> Captioned:
    labels, reference = _test_labels(run, report, report["shown"]), _reference(report)
    others = {} if reference is None else _test_labels(run, report, reference)
    return [
        (
            name,
            plots.roc(
                f"roc{k}",
                f"ROC curve of {name}, AUROC {words.interval(cell['auroc'], cell.get('ci'))}",
                cell["roc"],
                others.get(name, {}).get("roc"),
            ),
        )
        for k, (name, cell) in enumerate(labels.items())
        if cell.get("roc")
    ]


def _reliability_figures(run: Run, report: Mapping[str, Any]) -> Captioned:
    return [
        (
            name,
            plots.reliability(
                f"rel{k}", f"Reliability of {name}, ECE {words.number(cell.get('ece'))}", cell["reliability"]
            ),
        )
        for k, (name, cell) in enumerate(_test_labels(run, report, report["shown"]).items())
        if cell.get("reliability") and cell["reliability"]["count"]
    ]


def _pseudo_figures(entry: Mapping[str, Any]) -> Captioned:
    labels = entry["pseudo"]["labels"] if entry["pseudo"] else {}
    return [
        (
            name,
            plots.histogram(
                f"h{entry['index']}-{k}",
                f"Pseudo-targets of {name}, mean {words.number(cell.get('pseudo_mean'))}, from 0 to 1",
                cell["histogram"]["edges"],
                cell["histogram"]["counts"],
            ),
        )
        for k, (name, cell) in enumerate(labels.items())
        if cell.get("histogram")
    ]


def _trained_in(run: Run, index: int) -> Path:
    """Return the folder of a generation's network, of the first one where it has several."""
    networks = run.networks(index)
    return networks[0].parent.parent if networks else run.generation(index)


def _training_figures(run: Run, report: Mapping[str, Any]) -> dict[int, Captioned]:
    curves = {"loss": "Loss", "valid_auroc": "Validation macro AUROC", "valid_log_loss": "Validation log loss"}
    log = run.read_log()
    found: dict[int, Captioned] = {}
    for entry in report["generations"]:
        index = entry["index"]
        found[index] = []
        for key, title in curves.items():
            rows = [row for row in log if row.get("generation") == index and row.get(key) is not None]
            networks = [
                [row for row in rows if (row.get("fold"), row.get("member")) == which]
                for which in {(row.get("fold"), row.get("member")): 0 for row in rows}
            ]
            lines = [([row["step"] for row in of], [row[key] for row in of]) for of in networks if len(of) > 1]
            if lines:
                first, last = (words.listed([words.number(ys[end]) for _, ys in lines]) for end in (0, -1))
                svg = plots.training(f"t{index}-{key}", f"{title} of generation {index}, from {first} to {last}", lines)
                found[index].append((title, svg))
    return found
