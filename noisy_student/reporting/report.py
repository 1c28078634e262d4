"""Reports from the files of a run: ``report.json`` holds the figures, ``report.html`` draws them.

Nothing is computed here that was not measured before: a report gathers what the stages wrote, names the generation
to use and says why, and can be made again years later without a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from noisy_student.best import passes
from noisy_student.errors import NoisyStudentError
from noisy_student.reporting import page, words
from noisy_student.reporting.schema import VERSION
from noisy_student.runs import Run, read_json, write_json, write_text

CELL: Final = (
    "auroc", "ci", "ci_method", "delong_ci", "delong_method", "delong_reason", "undefined_replicates", "ap", "brier",
    "brier_parts", "log_loss", "ece", "ece_width", "ece_debiased", "operating_points", "positives", "negatives",
    "unknown", "positive_patients", "negative_patients", "calibration_reason", "reason",
)  # fmt: skip
"""The fields of a label that go into the report; curves stay in ``evaluation.json``."""
MEANS: Final = ("ap", "brier", "log_loss", "ece", "undefined_replicates", "undefined_labels", "calibration_reason")
"""Of the macro mean, beside the AUROC; ``None`` where an earlier version measured the run."""
REFERENCES: Final = ("supervised_few", "supervised_all")
_PART: Final = r"""[^\\/\s,;:'"”’()\[\]{}<>|]+"""
PATH: Final = re.compile(
    rf"""(?P<address>https?://\S*)
    |(?:file:/*(?=/)|(?<![\w.…)\]\\/~])(?=[/~\\]|[A-Za-z]:[\\/]))  # not within a/b, 1/2 or what is cut already
    (?:~[\w.-]*|[A-Za-z]:)?
    (?:[\\/]+{_PART}(?:[ ](?!~){_PART})*(?=[\\/]))*  # folders, which may have blanks in their names
    [\\/]+{_PART}[\\/]?""",
    re.VERBOSE,
)
"""An absolute path within a text, or an address of the web, which stays."""
RULE: Final = "The rule: use the latest generation that was not shown to be worse than its teacher."
LATEST: Final = (
    "The rule: every student takes its teacher's place (promotion.rule: always), so use the latest generation."
)


def write_generation(run: Run, generation: int) -> tuple[Path, Path]:
    """Return the paths of ``report.json`` and ``report.html`` of one generation, after writing both.

    Raises:
        NoisyStudentError: the generation has not been evaluated, or a file of the run is missing or incomplete.
    """
    indices = [index for index in _evaluated(run) if index <= generation]
    if generation not in indices:
        raise NoisyStudentError(
            f"{run.generation(generation) / 'evaluation.json'}: is missing",
            "Run the evaluation first: ns iterate --resume or ns evaluate.",
        )
    report = gather(run, indices, shown=generation)
    return _write(run, report, run.generation(generation))


def write_overall(run: Run) -> tuple[Path, Path]:
    """Return the paths of ``report.json`` and ``report.html`` of the whole run, after writing both.

    Raises:
        NoisyStudentError: no generation has been evaluated, or a file of the run is missing or incomplete.
    """
    indices = _evaluated(run)
    if not indices:
        raise NoisyStudentError(
            f"{run.path}: no generation has been evaluated yet", "Run ns iterate --resume, then make the report again."
        )
    return _write(run, gather(run, indices, shown=None), run.path)


def gather(run: Run, indices: Sequence[int], shown: int | None) -> dict[str, Any]:
    """Return the report of the generations ``indices``; ``shown`` is the one in detail, ``None`` takes the best."""
    config = read_json(run.path / "config.resolved.json")
    split = read_json(run.path / "split.json")
    evaluation = _evaluation(run, indices[-1])
    entries = [_entry(run, index) for index in indices]
    best, reason = choose_best(entries, config["promotion"].get("rule", "bound"))
    return {
        "schema": VERSION,
        "kind": "run" if shown is None else "generation",
        "title": run.path.resolve().name,
        "level": evaluation["level"],
        "confidence": evaluation["confidence"],
        "generations": entries,
        "shown": best if shown is None else shown,
        "best": best,
        "best_reason": reason,
        "budget": _need(split, "budget", run.path / "split.json"),
        "split": without_paths({key: value for key, value in split.items() if key != "budget"}),
        "config": without_paths(config),
        "environment": without_paths(_optional(run.path / "environment.json") or {}),
        "references": _references(run.path / "references.json"),
    }


def choose_best(entries: Sequence[Mapping[str, Any]], rule: str = "bound") -> tuple[int, str]:
    """Return the generation to use and the reason: the latest whose verdict is there and is not "worse".

    By the promotion rule "always" a student takes its teacher's place whatever its verdict.
    """
    always = rule == "always"
    said = LATEST if always else RULE
    kept = [entry for entry in entries if passes(entry["verdict"], rule)]
    if not kept:
        return int(entries[0]["index"]), f"{said} No generation has passed a comparison yet, so it is the first."
    best = kept[-1]
    index = int(best["index"])
    because = {
        "first": f"Generation {index} is the first one",
        "better": f"Generation {index} was found better than its teacher",
        "undecided": f"Generation {index} could not be told apart from its teacher",
        "unjudged": f"Generation {index} is the latest; on labelled films nothing was there to compare it by",
        "worse": f"Generation {index} is the latest, though found worse than its teacher by those that judge",
    }[best["verdict"]]
    decided = [entry["verdict"] for entry in entries if entry["verdict"] in ("better", "undecided", "worse")]
    after = [entry["index"] for entry in entries if entry["index"] > index and entry["verdict"] == "worse"]
    open_ = [entry["index"] for entry in entries if entry["verdict"] is None]
    if after:
        because += f", and every one after it ({words.listed(after)}) was found worse"
    if open_:
        because += f"; {words.listed(open_)} is not decided yet"
    if decided and "better" not in decided:
        because += ". There is no evidence that students helped: none was found better than its teacher"
    return index, f"{because}. {said}"


def table(report: Mapping[str, Any]) -> str:
    """Return the generations as a plain-text table for the terminal; ``*`` marks the one to use."""
    rows = [("gen", "role", "test macro AUROC", "valid macro", "vs last", "verdict", "best")]
    for entry in report["generations"]:
        test, valid, paired = entry["test"]["macro"], entry["valid"]["macro"], entry["paired"]
        change = paired["macro"] if paired else {"difference": None, "ci": None}
        rows.append(
            (
                str(entry["index"]),
                entry["role"],
                words.interval(test["auroc"], test["ci"]),
                words.number(valid["auroc"]),
                words.signed(change["difference"], change["ci"]),
                entry["verdict"] or words.DASH,
                "*" if entry["index"] == report["best"] else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


# -- gathering -----------------------------------------------------------------------------------------------------


def _write(run: Run, report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    json_path, html_path = folder / "report.json", folder / "report.html"
    html = page.render(run, report)
    write_json(json_path, report)
    write_text(html_path, html)
    return json_path, html_path


def _evaluated(run: Run) -> list[int]:
    return [index for index in run.generations() if (run.generation(index) / "evaluation.json").is_file()]


def _entry(run: Run, index: int) -> dict[str, Any]:
    folder = run.generation(index)
    evaluation = _evaluation(run, index)
    promotion = _optional(folder / "promotion.json")
    decision = promotion or {}
    metas = [meta for network in run.networks(index) if (meta := _optional(network / "meta.json"))]
    return {
        "index": index,
        "role": decision.get("role") or ("teacher" if index == 0 else "student"),
        "promoted": decision.get("promoted"),
        "verdict": decision.get("verdict"),
        "test": _level(evaluation, "test"),
        "valid": _level(evaluation, "valid"),
        "notes": evaluation.get("notes"),
        "levels": {
            split: {level: _macro(part.get("macro")) for level, part in levels.items()}
            for split, levels in evaluation["splits"].items()
        },
        "paired": _paired(evaluation.get("paired")),
        "paired_first": _paired(evaluation.get("paired_first")),
        "subgroups": evaluation.get("subgroups"),
        "pool": evaluation.get("pool"),
        "competition": evaluation.get("competition"),
        "pseudo": _optional(folder / "targets.json"),
        "promotion": promotion,
        "calibration": _calibration(_optional(folder / "calibration.json")),
        "uncertainty": evaluation.get("uncertainty"),
        "model": _model(metas),
        "training": _training(run, index),
    }


def _evaluation(run: Run, index: int) -> dict[str, Any]:
    path = run.generation(index) / "evaluation.json"
    evaluation = page.evaluation(run, index)
    for key in ("level", "labels", "confidence", "splits"):
        _need(evaluation, key, path)
    return evaluation


def _level(evaluation: Mapping[str, Any], split: str) -> dict[str, Any]:
    level = evaluation["splits"].get(split, {}).get(evaluation["level"])
    if level is None:
        return {"n": 0, "patients": 0, "macro": _macro({"reason": f"the run has no {split} set"}), "labels": {}}
    cells = {name: {key: cell.get(key) for key in CELL} for name, cell in level["labels"].items()}
    for name, cell in cells.items():
        before = level["labels"][name].get("before")
        cell["before"] = before and {key: value for key, value in before.items() if key != "reliability"}
        if cell["auroc"] is None:
            cell["reason"] = words.left_undefined(cell)
    return {"n": level["n"], "patients": level["patients"], "macro": _macro(level["macro"]), "labels": cells}


def _macro(macro: Mapping[str, Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = dict(macro or {})
    auroc, reason = found.get("auroc"), found.get("reason")
    if auroc is None and not reason:
        reason = "no label has both positives and negatives"
    means = {key: found.get(key) for key in MEANS}
    labels = list(found.get("labels") or [])
    return {"auroc": auroc, "ci": found.get("ci"), "labels": labels, "reason": reason} | means


def _paired(paired: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not paired:
        return None
    macro: dict[str, Any] = {"difference": None, "ci": None, "p": None, "reason": None} | dict(paired["macro"])
    if macro["difference"] is None:
        macro["reason"] = macro["reason"] or "no label is defined in both generations"
    return {"split": "test", "labels": {}} | dict(paired) | {"macro": macro}


def _references(path: Path) -> dict[str, Any] | None:
    """Return the reference arms of ``references.json`` (``None`` where there is no such file).

    Raises:
        NoisyStudentError: the file names another arm, or an arm has no AUROC between 0 and 1.
    """
    given = _optional(path)
    if given is None:
        return None
    hint = f"It may hold {words.listed(REFERENCES)}, each with auroc, ci ([low, high] or null) and source."
    if not isinstance(given, dict) or not set(given) <= set(REFERENCES):
        raise NoisyStudentError(f"{path}: holds something else than reference arms", hint)
    for name, arm in given.items():
        if arm is None:
            continue
        auroc, ci = (arm.get("auroc"), arm.get("ci")) if isinstance(arm, dict) else (None, None)
        ends = [auroc] if ci is None else [auroc, *ci] if isinstance(ci, list) and len(ci) == 2 else [None]
        known = all(isinstance(end, int | float) and 0 <= end <= 1 for end in ends)
        if not known or (ci is not None and ci[0] > ci[1]):
            raise NoisyStudentError(f"{path}: {name} has no auroc (and ci, [low, high]) between 0 and 1", hint)
    return {
        name: None
        if (arm := given.get(name)) is None
        else {"auroc": arm["auroc"], "ci": arm.get("ci"), "source": str(without_paths(arm.get("source") or "")) or None}
        for name in REFERENCES
    }


def _calibration(fitted: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the calibration by label, with the link of the loss and that of studies as far as the file has them,
    whether it holds a table by label or two lists side by side; of an ensemble that of each member.
    """
    if not fitted:
        return None
    if members := fitted.get("members"):
        return {"members": [_calibration(member) for member in members]}
    labels = fitted["labels"]
    by_label = dict(labels) if isinstance(labels, Mapping) else dict(zip(labels, fitted["platt"], strict=True))
    return {"labels": by_label} | {key: fitted[key] for key in ("link", "study") if fitted.get(key)}


def _model(metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    models = [meta.get("model") for meta in metas]
    names = [model.get("name") if isinstance(model, Mapping) else model for model in models]
    name = " + ".join(dict.fromkeys(map(str, names))) if any(names) else None
    origins = dict.fromkeys(str(meta["origin"]) for meta in metas if meta.get("origin") is not None)
    cautions = dict.fromkeys(sentence for meta in metas for sentence in meta.get("cautions", ()))
    sizes = [meta["parameters"] for meta in metas if meta.get("parameters") is not None]
    seen = [meta["images_seen"] for meta in metas if meta.get("images_seen") is not None]
    return {
        "networks": len(metas),
        "name": name,
        "origin": "; ".join(without_paths([*origins, *cautions])) or None,
        "images_seen": sum(seen) if seen else None,
        "parameters": sum(sizes) if sizes else None,
    }


def _training(run: Run, index: int) -> dict[str, Any]:
    lines = [line for line in run.read_log() if line.get("generation") == index]
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    speeds = [line["films_per_second"] for line in lines if line.get("films_per_second") is not None]
    return {
        "steps": max((int(line.get("step", 0)) for line in lines), default=0),
        "loss": losses[-1] if losses else None,
        "films_per_second": sorted(speeds)[len(speeds) // 2] if speeds else None,
    }


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def _need(mapping: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in mapping:
        raise NoisyStudentError(
            f"{path}: has no '{key}'", "It was written by another version; do its stage again with ns iterate --resume."
        )
    return mapping[key]


def without_paths(value: Any) -> Any:
    """Cut absolute paths to their last part, those inside a text too, and no address of the web: a report is passed on,
    and a path can name a person or a machine.
    """
    if isinstance(value, dict):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_paths(part) for part in value]
    if not isinstance(value, str):
        return value
    if re.match(r"(/|~|\\\\|[A-Za-z]:[\\/])", value):  # a path and nothing else, whatever signs it holds
        return _last(value)
    return PATH.sub(lambda found: found[0] if found["address"] else _last(found[0]), value)


def _last(path: str) -> str:
    return "…/" + re.split(r"[\\/]", path.rstrip("\\/"))[-1]
