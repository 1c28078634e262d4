"""The page of a report: one self-contained HTML file, from ``report.json`` and the curves of the evaluations."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from noisy_student.reporting import calibrations, figures, learned, plots, tables, words
from noisy_student.reporting.pictures import Pictures
from noisy_student.runs import Run, read_json


def render(run: Run, report: Mapping[str, Any]) -> str:
    """Return the HTML of ``report``; curves, histograms and pictures are read from the files of ``run``.

    Raises:
        NoisyStudentError: a file of the run is missing or not valid.
    """
    entries = {entry["index"]: entry for entry in report["generations"]}
    shown, reference = entries[report["shown"]], _reference(report)
    detailed = list(entries) if report["kind"] == "run" else [shown["index"]]
    curves, others = (_test_labels(run, report, index) for index in (shown["index"], reference))
    log, pictures = run.read_log(), Pictures()
    axis = plots.auroc_range([(cell["auroc"], cell["ci"]) for cell in shown["test"]["labels"].values()])
    script = _script()
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            shown=shown,
            reference=reference,
            figures={
                "generations": figures.generations(report),
                "labels": figures.labels(report),
                "roc": figures.roc(curves, others),
                "pr": figures.precision_recall(curves, others),
                "reliability": figures.reliability(curves),
                "pseudo": {index: figures.pseudo(entries[index]) for index in detailed},
                "training": {index: figures.training(log, index) for index in detailed},
            },
            before=any(cell.get("before") for cell in curves.values()),
            axis=axis,
            gallery=_by_question(pictures.gallery(run.generation(shown["index"])), shown["index"]),
            augmented=pictures.augmented(_trained_in(run, shown["index"])),
            left_out=pictures.left_out,
            linked=_linked(run, report),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


@cache
def _script() -> str:
    """Return the script of the page, as it stands between its tags: the policy of the page allows its hash alone."""
    return "\n" + (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")


def _by_question(films: list[dict[str, Any]], index: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the films of the gallery under what they are there to show, in the order in which a person asks."""
    questions = {
        "Most confident and right": ("true positive", "true negative"),
        "Most confident and wrong": ("false positive", "false negative"),
        "Most uncertain": ("most uncertain",),
        f"Biggest change since generation {index - 1}": ("biggest change",),
    }
    sorted_in = {title: [film for film in films if film["kind"] in kinds] for title, kinds in questions.items()}
    return [(title, found) for title, found in sorted_in.items() if found]


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
    environment.globals |= {"words": words, "learned": learned, "tables": tables, "calibrations": calibrations}
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


def _test_labels(run: Run, report: Mapping[str, Any], index: int | None) -> dict[str, Any]:
    """Return the measures of the test labels of a generation, curves included; nothing for ``None``."""
    if index is None:
        return {}
    level = evaluation(run, index)["splits"].get("test", {}).get(report["level"], {})
    labels: dict[str, Any] = level.get("labels", {})
    return labels


def evaluation(run: Run, index: int) -> dict[str, Any]:
    """Return the ``evaluation.json`` of a generation, not to be changed: it is read once while it stays as it is.

    Raises:
        NoisyStudentError: the file is missing or not JSON.
    """
    path = run.generation(index) / "evaluation.json"
    found = path.stat() if path.is_file() else None
    return _parsed(path, found and (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=16)
def _parsed(path: Path, _: tuple[int, int, int] | None) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path)
    return content


def _trained_in(run: Run, index: int) -> Path:
    """Return the folder of a generation's network, of the first one where it has several."""
    networks = run.networks(index)
    return networks[0].parent.parent if networks else run.generation(index)
