"""Numbers and findings as text: three decimals, intervals, and the sentences a report opens with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

RARE: Final = 30
"""Positives below which the page warns of a label's figures."""
DASH: Final = "–"
"""What stands where a figure is undefined; the reason is written beside it."""


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` decimals and a true minus sign, or a dash for ``None``."""
    if value is None:
        return DASH
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def count(value: float | None) -> str:
    """Return a count with thousands separators (one decimal where it is not whole), or a dash for ``None``."""
    if value is None:
        return DASH
    return f"{round(value):,}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"


def interval(value: float | None, ci: Sequence[float] | None, digits: int = 3) -> str:
    """Return ``0.912 (0.887–0.934)``; without an interval the value alone, a dash where it is undefined."""
    if value is None or ci is None:
        return number(value, digits)
    # An en dash before a minus sign is unreadable, so an interval that reaches below zero is spelt out.
    between = " to " if ci[0] < 0 else "–"
    return f"{number(value, digits)} ({number(ci[0], digits)}{between}{number(ci[1], digits)})"


def signed(value: float | None, ci: Sequence[float] | None = None, digits: int = 3) -> str:
    """Return a difference with its sign: ``+0.012 (−0.003 to +0.027)``."""

    def one(part: float) -> str:
        text = number(part, digits)
        return text if text.startswith("−") or float(text.replace(",", "")) == 0 else f"+{text}"

    if value is None:
        return DASH
    return one(value) if ci is None else f"{one(value)} ({one(ci[0])} to {one(ci[1])})"


def bounded(found: Mapping[str, Any], confidence: float | None) -> str:
    """Return a difference of a decision with the one-sided bounds that decide, the nearer one where it has a sign."""
    value, low, high = found["difference"], found.get("lower"), found.get("upper")
    if low is None or high is None:
        return signed(value, found.get("ci"))

    def one(bound: float) -> str:  # a bound that decides is not rounded to 0
        return signed(bound, digits=next((digits for digits in range(3, 8) if round(bound, digits)), 3))

    sure = f" with {percent(confidence)} confidence" if confidence is not None else ""
    if low > 0 or high < 0:
        return f"{signed(value)} ({f'at least {one(low)}' if low > 0 else f'at most {one(high)}'}{sure})"
    return f"{signed(value)} (at least {one(low)} and at most {one(high)}{sure and f', each{sure}'})"


def percent(share: float | None) -> str:
    """Return a share as per cent, with at most two decimals: ``95 %``."""
    return DASH if share is None else f"{round(share * 100, 2):g}\N{NO-BREAK SPACE}%"


def plural(amount: float, noun: str) -> str:
    """Return ``1 film``, ``5,232 films``, ``2 studies``."""
    if amount == 1:
        return f"1 {noun}"
    return f"{count(amount)} {noun.removesuffix('y') + 'ies' if noun.endswith('y') else noun + 's'}"


def listed(names: Sequence[object]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    parts = [str(name) for name in names]
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def films_of_patients(part: Mapping[str, Any]) -> str:
    """Return ``400 films of 200 patients`` from ``{"images": 400, "patients": 200}``."""
    return f"{plural(part['images'], 'film')} of {plural(part['patients'], 'patient')}"


def how_good(report: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Return the sentences on the macro AUROC of ``entry`` on the test set."""
    test = entry["test"]
    macro = test["macro"]
    if macro["auroc"] is None:
        return f"The macro AUROC of generation {entry['index']} on the test set is undefined: {macro['reason']}."
    unit = "study" if report["level"] == "study" else "film"
    held = f"{plural(test['n'], unit)} of {plural(test['patients'], 'patient')}"
    text = _against_guessing(macro["ci"])
    text += (
        f"Generation {entry['index']} reaches a macro AUROC of {interval(macro['auroc'], macro['ci'])} on the test "
        f"set of {held}"
    )
    if macro["ci"]:
        text += f", with the {percent(report['confidence'])} interval in brackets."
    else:
        text += f", {macro['reason'] or 'without interval'}."
    left_out = [name for name in test["labels"] if name not in macro["labels"]]
    text += f" It is the mean over {plural(len(macro['labels']), 'label')}"
    text += f"; {listed(left_out)} {'is' if len(left_out) == 1 else 'are'} not part of it." if left_out else "."
    return text


def _against_guessing(ci: Sequence[float] | None) -> str:
    """Return how an interval of an AUROC stands to 0.5, the one of guessing, as a sentence."""
    if ci is None or ci[0] == ci[1]:  # no width: an earlier version gave it where no resample can differ
        return ""
    if ci[0] > 0.5:
        return "Better than guessing. "
    if ci[1] < 0.5:
        return "Worse than guessing: the interval lies below 0.5, as if labels or answers were turned round. "
    return "No better than guessing, as far as can be told: the interval holds 0.5. "


def resamples(macro: Mapping[str, Any]) -> str:
    """Return the sentence on resamples in which a label of the macro mean has one class only; empty where none is."""
    share, names = macro["undefined_replicates"], macro["undefined_labels"]
    if not share or not macro["ci"]:
        return ""
    said = percent(round(share, 3)) if share >= 0.0005 else "less than 0.1\N{NO-BREAK SPACE}%"
    text = f"Of the resampled sets of patients, {said} lack positives or negatives of "
    if names is None:
        return f"{text}some label; the macro interval, by an earlier version, has the mean over the other labels there."
    return f"{text}{listed(names)}; the macro interval leaves them out."


def rare(cell: Mapping[str, Any]) -> str:
    """Return ``few positives`` or ``few negatives`` for a label with fewer than :data:`RARE`, else nothing."""
    for kind in ("positives", "negatives"):
        if 0 < cell[kind] < RARE:
            return f"few {kind}"
    return ""


def verdict_words(entry: Mapping[str, Any]) -> str:
    """Return a verdict in a few plain words."""
    return {
        "first": "first",
        "better": "better",
        "undecided": "undecided",
        "unjudged": "not judged",
        "worse": "worse, rejected",
        None: "not decided yet",
    }[entry["verdict"]]


def better_than_last(entry: Mapping[str, Any], level: str) -> str:
    """Return the sentences on how ``entry`` compares with the generation or generations that taught it."""
    lead = {
        "first": "This is the first generation, so there is nothing to compare it with.",
        "better": "Yes.",
        "undecided": "Undecided.",
        "unjudged": "Not judged.",
        "worse": "No.",
        None: "This has not been decided yet.",
    }[entry["verdict"]]
    decision = entry["promotion"]
    if decision and entry["verdict"] != "first" and decision.get("sentence"):
        lead += f" {decision['sentence']}"
    return f"{lead} {on_test(entry, level)}".strip()


def on_test(entry: Mapping[str, Any], level: str) -> str:
    """Return the paired comparisons of ``entry`` with the generation before and the first one as sentences.

    Empty where there are none.
    """
    return " ".join(_paired(entry, entry[key], level) for key in ("paired", "paired_first") if entry.get(key))


def _paired(entry: Mapping[str, Any], paired: Mapping[str, Any], level: str) -> str:
    macro = paired["macro"]
    text = f"On the same {paired['split']} {'studies' if level == 'study' else 'films'}, "
    text += f"generation {entry['index']} against generation {paired['against']}: "
    if macro["difference"] is None:
        return f"{text}the difference is undefined: {macro.get('reason')}."
    change = f"macro AUROC {signed(macro['difference'], macro.get('ci'))}"
    if said := macro.get("sentence"):
        return f"{text}{str(said).rstrip('.')}; {change}."
    if not macro.get("ci"):
        return f"{text}{change}."
    low, high = macro["ci"]
    return f"{text}{change}, an interval that {'leaves out' if low > 0 or high < 0 else 'includes'} zero."


def left_undefined(cell: Mapping[str, Any]) -> str:
    """Return why the AUROC of a cell is undefined: the reason on record, or what the counts say."""
    if cell.get("reason"):
        return str(cell["reason"])
    if cell.get("positives") == 0:
        return "no positives"
    return "no negatives" if cell.get("negatives") == 0 else "no reason on record"


def answer(film: Mapping[str, Any]) -> str:
    """Return what was said of a film of the gallery, and what its label says where the kind does not tell."""
    text = f"{film['kind']}, probability {number(film['probability'])}"
    if film["kind"] in ("most uncertain", "biggest change"):
        if film["kind"] == "biggest change" and film.get("before") is not None:
            text += f" after {number(film['before'])}"
        text += f", labelled {'positive' if film['truth'] else 'negative'}"
    return text


def chosen_on(entry: Mapping[str, Any]) -> str:
    """Return on which films the thresholds of the operating points were chosen."""
    points = (point for cell in entry["test"]["labels"].values() for point in (cell["operating_points"] or {}).values())
    names = {str(point["chosen_on"]) for point in points if point and point.get("chosen_on")}
    return listed(sorted(names)) if names else "the films that judge a generation"


def gap(found: Mapping[str, Any] | None, groups: int) -> str:
    """Return the sentence on the largest gap between ``groups`` groups that are not small, and why there is none."""
    if not found:
        return ""
    if found["difference"] is None:
        return f"No gap can be given: {found.get('reason')}."
    named = f", {listed(found['between'])}," if found.get("between") else ""
    who = f"The two groups{named}" if groups == 2 else f"The two furthest apart of {groups} groups{named}"
    text = f"{who} differ by {signed(found['difference'], found.get('ci'))} in macro AUROC"
    if not found.get("ci"):
        text += f" (no interval{': ' + found['reason'] if found.get('reason') else ''})"
    return f"{text}; some gap is expected by chance, and this is no test."


def uncertain_policy(label: str, targets: Mapping[str, Any]) -> str:
    """Return what an uncertain (-1) entry of ``label`` became under the settings ``targets``."""
    policy = targets.get("uncertain_by_label", {}).get(label, targets.get("uncertain"))
    low, high = targets.get("smooth_ones" if policy == "smooth_ones" else "smooth_zeros") or (0.0, 1.0)
    return {
        "ignore": "no target",
        "zeros": "negative",
        "ones": "positive",
        "smooth_zeros": f"a number from {low:g} to {high:g}",
        "smooth_ones": f"a number from {low:g} to {high:g}",
        "literature": "positive for Atelectasis and Edema, else negative",
        "selftrained": "no target for the first teacher, then the teacher's probability",
    }.get(str(policy), str(policy))


def blank_policy(targets: Mapping[str, Any]) -> str:
    """Return what an entry that was left blank became under the settings ``targets``."""
    if targets.get("blank") == "ignore":
        return "no target"
    weight = targets.get("blank_weight", 1)
    return "negative" if weight == 1 else f"negative, with weight {weight:g}"


def commands(report: Mapping[str, Any]) -> list[str]:
    """Return the command lines that make the run and its report again, from the folder that holds the run."""
    folder = shlex.quote(report["title"])
    students = max(entry["index"] for entry in report["generations"])
    again = shlex.quote(f"{report['title']}-again")
    return [
        f"ns iterate --config {folder}/config.yaml --rounds {students} --output {again}",
        f"ns report {folder}",
    ]


def limits(report: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    """Return what the figures of ``entry`` cannot tell, in sentences, the gravest first."""
    test, budget = entry["test"], report["budget"]
    found = []
    if report["config"].get("data", {}).get("source") == "synthetic":
        found.append("The films were drawn by a program; nothing here carries over to patients.")
    found.append(
        f"Test films ({plural(test['patients'], 'patient')}) come from the same source as the training films. At "
        "another hospital, on other machines or with another share of sick patients the figures will differ."
    )
    found.append(
        "Truth is what the labels say. Labels read from reports by a program, or by one reader, have errors of their "
        "own, which no interval here includes."
    )
    crossed = report["config"].get("folds", 1) > 1
    rest = plural(
        *((budget["patients"], "labelled patient") if crossed else (budget["valid_patients"], "validation patient"))
    )
    found.append(
        f"Thresholds and calibration rest on {rest}; predictive values "
        "(PPV, NPV) hold for the share of positives in this test set alone."
    )
    undefined = [name for name, cell in test["labels"].items() if cell["auroc"] is None]
    if undefined:
        found.append(
            f"Nothing can be said of {listed(undefined)}: {'it has' if len(undefined) == 1 else 'they have'} no AUROC."
        )
    rare = [name for name, cell in test["labels"].items() if 0 < cell["positives"] < RARE]
    if rare:
        found.append(
            f"Fewer than {RARE} positives in the test set: {listed(rare)}. Their figures are little more than a hint, "
            "and their intervals are narrower than they should be."
        )
    columns = (entry["subgroups"] or {"columns": {}})["columns"]
    small = [
        f"{column} {group['group']}" for column, part in columns.items() for group in part["groups"] if group["small"]
    ]
    if small:
        found.append(f"Small groups, too few to judge: {listed(small)}.")
    if not columns:
        found.append("No subgroup was measured, so nothing is known of differences between sexes, ages or views.")
    found.append(
        "An interval says how much chance plays in the choice of test patients, not what another training would give."
    )
    return found


def called_positive(threshold: float | None) -> str:
    """Return ``called positive from 0.124 on`` for a label's threshold, empty where it is not on record."""
    return "" if threshold is None else f"called positive from {number(threshold)} on"


def gallery_thresholds(films: Sequence[Mapping[str, Any]], level: str) -> str:
    """Return the sentences on the thresholds from which the films of a gallery are called positive."""
    text = "A film is called positive from the threshold in its caption on"
    places = sorted({film["chosen_on"] for film in films if film["chosen_on"]})
    if not places:
        unsaid = "" if all(film["threshold"] is not None for film in films) else " (0.5 where it names none)"
        return f"{text}{unsaid}. An earlier version chose it, not as in the tables on this page."
    text += f": Youden’s, chosen on {listed(places)}, "
    text += "of films, as the tables by study have thresholds of studies" if level == "study" else "as in the tables"
    if any(film["threshold"] == 0.5 for film in films):
        text += "; 0.5 where these films lack positives or negatives"
    return f"{text}."
