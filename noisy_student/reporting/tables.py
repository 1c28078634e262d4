"""The tables of a page as data: what stands in each cell, what it sorts by, and why a figure is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from noisy_student.reporting import plots, words

POINTS: Final = {
    "youden": "Youden: the largest sensitivity + specificity",
    "sensitivity": "Fixed sensitivity",
    "specificity": "Fixed specificity",
}
"""The operating points and how they were chosen."""
COLUMNS: Final = {"sex": "Sex", "age": "Age", "view": "View", "projection": "Projection (AP/PA)", "site": "Site"}


@dataclass(frozen=True)
class Cell:
    """One cell: ``text``, a ``note`` in small type after it, and the ``key`` it sorts by (``None`` goes last)."""

    text: str
    note: str = ""
    key: float | str | None = None
    interval: tuple[float, tuple[float, float] | None] | None = None
    """A value and its interval, drawn as a line under the text."""


@dataclass(frozen=True)
class Column:
    """Head of a column; ``number`` columns stand to the right and sort from the largest."""

    title: str
    number: bool = True


@dataclass(frozen=True)
class Row:
    """One row: its heading, with a link and a tag where it has them, and its cells."""

    head: Cell
    cells: tuple[Cell, ...]
    link: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a name for those who cannot see it; ``axis`` is the range of its intervals."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    axis: tuple[float, float] | None = None
    sortable: bool = True
    narrow: bool = False
    foot: Row | None = None
    """A row below the others, which stays there when they are sorted."""

    def at(self, interval: tuple[float, tuple[float, float] | None]) -> tuple[float, tuple[float, float] | None]:
        """Return where a value and the ends of its interval stand on the axis, from 0 to 100."""
        assert self.axis is not None
        low, high = self.axis
        place = [100 * (value - low) / (high - low) for value in (interval[0], *(interval[1] or ()))]
        return place[0], (place[1], place[2]) if len(place) == 3 else None


def number(value: float | None, why: str | None = None, digits: int = 3) -> Cell:
    """Return a cell with a measure, or with a dash and ``why`` it is undefined."""
    return Cell(words.number(value, digits), (why or "") if value is None else "", value)


def amount(value: float | None) -> Cell:
    """Return a cell with a count."""
    return Cell(words.count(value), key=value)


def text(value: str, note: str = "") -> Cell:
    """Return a cell with words."""
    return Cell(value, note, value.lower())


def auroc(cell: Mapping[str, Any]) -> Cell:
    """Return a cell with an AUROC and its interval, drawn too, and the reason where one of them is undefined."""
    value, ci = cell["auroc"], cell["ci"]
    why = (cell.get("reason") or "") if value is None or ci is None else ""
    drawn = None if value is None else (value, None if ci is None else (ci[0], ci[1]))
    return Cell(words.interval(value, ci), why, value, drawn)


def difference(cell: Mapping[str, Any], note: str = "") -> Cell:
    """Return a cell with a difference and its interval, and the reason where it is undefined."""
    value, ci = cell["difference"], cell.get("ci")
    why = (cell.get("reason") or "") if value is None or ci is None else ""
    return Cell(words.signed(value, ci), why or (note if value is not None else ""), value)


def plain(cell: Cell) -> Cell:
    """Return the cell without its drawn interval."""
    return replace(cell, interval=None)


def heads(*titles: str) -> tuple[Column, ...]:
    """Return columns from their titles; one that ends in ``:`` holds words."""
    return tuple(Column(title.removesuffix(":"), not title.endswith(":")) for title in titles)


def generations(report: Mapping[str, Any], linked: Sequence[int]) -> Table:
    """Return the generations side by side."""
    rows = []
    for entry in report["generations"]:
        index, cells = entry["index"], [text(entry["role"]), plain(auroc(entry["test"]["macro"]))]
        cells.append(plain(auroc(entry["valid"]["macro"])))
        for key in ("paired", "paired_first"):
            paired = entry[key]
            cells.append(difference(paired["macro"], f"against {paired['against']}") if paired else Cell(words.DASH))
        cells.append(text(words.verdict_words(entry)))
        link = f"gen-{index}/report.html" if index in linked else ""
        rows.append(Row(Cell(str(index), key=index), tuple(cells), link, "use this" if index == report["best"] else ""))
    columns = heads(
        "Generation:", "Role:", "Test macro AUROC", "Validation macro AUROC", "Change on test", "Since the first",
        "Verdict:",
    )  # fmt: skip
    return Table("Generations", columns, tuple(rows), sortable=False)


def has_points(entry: Mapping[str, Any]) -> bool:
    """Return whether operating points of a generation are on record."""
    return any(cell["operating_points"] for cell in entry["test"]["labels"].values())


def labels(entry: Mapping[str, Any], axis: tuple[float, float]) -> Table:
    """Return the main measures by label on the test set."""
    used = entry["test"]["macro"]["labels"]
    pointed = has_points(entry)
    rows = []
    for name, cell in entry["test"]["labels"].items():
        point = (cell["operating_points"] or {}).get("youden") or {}
        measures = [number(cell["ap"]), *([number(point.get("f1"))] if pointed else [])]
        measures += [number(cell[key], cell["calibration_reason"]) for key in ("brier", "log_loss", "ece")]
        notes = ("" if name in used else "not in the macro mean", words.rare(cell))
        head = text(name, "; ".join(filter(None, notes)))
        rows.append(Row(head, (auroc(cell), *measures, amount(cell["positives"]), amount(cell["negatives"]))))
    columns = heads(
        "Label:", "AUROC", "AP", *(["F1"] if pointed else []), "Brier", "Log loss", "ECE", "Positive", "Negative"
    )
    macro = entry["test"]["macro"]
    means = [number(macro["ap"]), *([Cell("")] if pointed else [])]
    means += [number(macro[key], macro["calibration_reason"]) for key in ("brier", "log_loss", "ece")]
    foot = Row(text("Macro mean", f"of {words.plural(len(used), 'label')}"), (auroc(macro), *means, Cell(""), Cell("")))
    return Table("Measures by label", columns, tuple(rows), axis, foot=foot)


def more_measures(entry: Mapping[str, Any]) -> Table | None:
    """Return how the intervals were made, and the parts of the Brier score; ``None`` where no label has them."""
    rows = []
    for name, cell in entry["test"]["labels"].items():
        if not cell["ci_method"]:
            continue
        ci, parts, before = cell["delong_ci"], cell["brier_parts"] or {}, cell["before"] or {}
        drawn = f"{words.number(ci[0])}–{words.number(ci[1])}" if ci else words.DASH
        cells = [Cell(drawn, "" if ci else cell["delong_reason"] or "", ci and ci[0])]
        cells.append(Cell(words.percent(cell["undefined_replicates"]), key=cell["undefined_replicates"]))
        cells += [number(cell[key]) for key in ("ece_width", "ece_debiased")]
        cells += [number(parts.get(key)) for key in ("reliability", "resolution", "uncertainty")]
        cells += [number(before.get(key)) for key in ("brier", "log_loss", "ece")]
        rows.append(Row(text(name), tuple(cells)))
    columns = heads(
        "Label:", "DeLong interval", "Resamples of one class", "ECE, equal width", "ECE, debiased", "Reliability",
        "Resolution", "Uncertainty", "Brier before", "Log loss before", "ECE before",
    )  # fmt: skip
    return Table("More measures by label", columns, tuple(rows)) if rows else None


def operating_points(entry: Mapping[str, Any]) -> list[tuple[str, str, Table]]:
    """Return per operating point its name, what it aims at, and counts and rates by label."""
    found = []
    for key, title in POINTS.items():
        rows, aims = [], set()
        for name, cell in entry["test"]["labels"].items():
            point = (cell["operating_points"] or {}).get(key)
            if not point:
                continue
            ci, why = point.get("ci") or {}, point.get("reason") or ""
            if point.get("target") is not None:
                aims.add(words.percent(point["target"]))
            cells = [number(point["threshold"], why)]
            cells += [Cell(words.interval(point[rate], ci.get(rate), 2), key=point[rate])
                      for rate in ("sensitivity", "specificity")]  # fmt: skip
            known = cell["positives"] + cell["negatives"]
            share = cell["positives"] / known if known else None
            cells.append(Cell(words.DASH if share is None else words.percent(round(share, 3)), key=share))
            cells += [number(point[rate], digits=2) for rate in ("ppv", "npv", "f1")]
            cells += [amount(point[count]) for count in ("tp", "fp", "fn", "tn")]
            rows.append(Row(text(name, words.rare(cell)), tuple(cells)))
        columns = heads(
            "Label:", "Threshold", "Sensitivity", "Specificity", "Positives", "PPV", "NPV", "F1",
            "True positive", "False positive", "False negative", "True negative",
        )  # fmt: skip
        if rows:
            aim = f" of {words.listed(sorted(aims))}" if aims else ""
            found.append((key, title + aim, Table(f"Operating point, {title.lower()}{aim}", columns, tuple(rows))))
    return found


def comparison(paired: Mapping[str, Any]) -> Table:
    """Return the paired differences by label."""
    told = any(cell.get("sentence") for cell in paired["labels"].values())
    adjusted = any("p_holm" in cell for cell in paired["labels"].values())
    rows = []
    for name, cell in paired["labels"].items():
        cells = [difference(cell), number(cell.get("p"))]
        cells += [number(cell.get("p_holm"))] if adjusted else []
        cells += [text(cell.get("sentence") or "")] if told else []
        rows.append(Row(text(name), tuple(cells)))
    columns = heads(
        "Label:", "Change of AUROC", "p", *(["p after Holm"] if adjusted else []), *(["In words:"] if told else [])
    )
    return Table(f"Change by label since generation {paired['against']}", columns, tuple(rows))


def pseudo(entry: Mapping[str, Any]) -> Table:
    """Return what a student was taught, by label; the thresholds where films were cut elsewhere than at 1/2."""
    rows = []
    cuts = [cell.get("thresholds") or {} for cell in entry["pseudo"]["labels"].values()]
    told = any(cut and (cut["low"], cut["high"]) != (0.5, 0.5) for cut in cuts)
    for name, cell in entry["pseudo"]["labels"].items():
        get = cell.get
        cells = [amount(get(f"labelled_{key}")) for key in ("positives", "negatives", "ignored")]
        cells.append(number(get("teacher_mean")))
        cells.append(Cell(words.interval(get("prevalence"), get("prevalence_ci")), key=get("prevalence")))
        cells.append(number(get("pseudo_mean")))
        cells += [amount(get("pseudo_kept")), amount(get("pseudo_weight")), number(get("changed"))]
        if told:
            cut = get("thresholds") or {}
            cells += [number(cut.get("low")), number(cut.get("high"))]
        rows.append(Row(text(name), tuple(cells)))
    columns = heads(
        "Label:", "Labelled +", "Labelled −", "Ignored", "Teacher’s mean", "Expected prevalence", "Share taught",
        "Films kept", "Total weight", "Change", *(["Negative up to", "Positive from"] if told else []),
    )  # fmt: skip
    return Table(f"Pseudo-labels of generation {entry['index']}", columns, tuple(rows))


def quality(entry: Mapping[str, Any]) -> Table:
    """Return the true quality of a student's pseudo-labels, by label."""
    rows = []
    for name, cell in entry["pool"].get("labels", {}).items():
        area = cell.get("auroc")
        cells = [number(area, None if area is not None else words.left_undefined(cell))]
        keys = ("teachers_auroc", "brier", "pseudo_share", "true_share", "right_positives", "right_negatives")
        cells += [number(cell.get(key)) for key in keys]
        cells += [amount(cell.get(key)) for key in ("positives", "negatives")]
        rows.append(Row(text(name), tuple(cells)))
    columns = heads(
        "Label:", "AUROC", "Teachers’ AUROC", "Brier", "Share taught", "True share", "Positives right",
        "Negatives right", "Positive", "Negative",
    )  # fmt: skip
    return Table(f"Quality of pseudo-labels of generation {entry['index']}", columns, tuple(rows))


def subgroups(entry: Mapping[str, Any]) -> list[tuple[str, str, Table, Table]]:
    """Return per column its title, a sentence on the gap, macro AUROC by group, and AUROC by label and group."""
    found = []
    for column, part in (entry["subgroups"] or {"columns": {}})["columns"].items():
        title, groups, rows = COLUMNS.get(column, column), part["groups"], []
        areas = [(group["macro"]["auroc"], group["macro"]["ci"]) for group in groups]
        large = sum(not group["small"] and group["macro"]["auroc"] is not None for group in groups)
        for group in groups:
            head = text(group["group"], "small group" if group["small"] else "")
            rows.append(Row(head, (amount(group["n"]), amount(group["patients"]), auroc(group["macro"]))))
        main = Table(
            f"Macro AUROC by {title.lower()}", heads(f"{title}:", "Cases", "Patients", "Macro AUROC"), tuple(rows),
            plots.auroc_range(areas), narrow=True,
        )  # fmt: skip
        names = list(groups[0]["labels"]) if groups else []
        nothing = {"auroc": None, "ci": None, "reason": "not measured"}
        by_label = tuple(
            Row(text(name), tuple(plain(auroc(group["labels"].get(name, nothing))) for group in groups))
            for name in names
        )
        columns = heads("Label:", *(group["group"] for group in groups))
        found.append(
            (
                title,
                words.gap(part["gap"], large),
                main,
                Table(f"AUROC by label and {title.lower()}", columns, by_label),
            )
        )
    return found


def split(report: Mapping[str, Any]) -> Table:
    """Return how many films and patients each part of the data has, and what it serves for."""
    purpose = {
        "labelled": "training, with labels", "pool": "training, without labels", "valid": "calibration and promotion",
        "test": "this report alone",
    }  # fmt: skip
    parts = [
        ({"valid": "validation"}.get(name, name), part, purpose.get(name, ""), "")
        for name, part in report["split"].get("counts", {}).items()
    ]
    parts.append(("label budget", report["budget"], "labelled and validation together", "all labels used"))
    rows = tuple(
        Row(text(name), (amount(part["images"]), amount(part["patients"]), text(use)), tag=tag)
        for name, part, use, tag in parts
    )
    return Table("Split", heads("Part:", "Films", "Patients", "Used for:"), rows, sortable=False, narrow=True)


def quarantine(report: Mapping[str, Any]) -> Table | None:
    """Return the films that could not be read, as far as they are on record."""
    listed = report["split"].get("quarantine") or []
    rows = tuple(Row(text(film["patient"]), (text(film["reason"]),)) for film in listed)
    return Table("Unreadable films", heads("Patient (hash):", "Reason:"), rows, narrow=True) if rows else None


def policies(report: Mapping[str, Any]) -> Table | None:
    """Return by label what an uncertain and a blank entry became; ``None`` where the configuration does not say."""
    targets = report["config"].get("targets")
    if not targets:
        return None
    blank = words.blank_policy(targets)
    rows = tuple(
        Row(text(name), (text(words.uncertain_policy(name, targets)), text(blank)))
        for name in report["config"]["data"]["labels"]
    )
    return Table("Policies for -1 and blanks", heads("Label:", "−1 (uncertain):", "Blank:"), rows, narrow=True)


def film(labels: Mapping[str, Mapping[str, Any]], name: str) -> Table:
    """Return what is known and said of one film of the gallery, by label."""
    known = {1: "positive", 0: "negative", None: "unknown"}
    rows = tuple(
        Row(text(label), (text(known[cell["truth"]]), number(cell["probability"]))) for label, cell in labels.items()
    )
    return Table(name, heads("Label:", "Label says:", "Probability"), rows, sortable=False)
