"""What the networks of a run learned from and who judged them, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noisy_student.reporting.words import films_of_patients, listed, number, percent


def _what_judges_do(config: Mapping[str, Any], students: Sequence[int]) -> str:
    """Return how the sentence on the networks that judge a refit ends."""
    changes = {str(generation): changed for generation, changed in config.get("generations", {}).items()}
    usual = config.get("student", {}).get("judges")
    judges = {changes.get(str(index), {}).get("judges", usual) for index in students}
    if judges == {"stay"}:
        return "; they are the same in every generation."
    return "." if config.get("promotion", {}).get("rule") == "always" else ", and decided whether it teaches."


def trained_on(report: Mapping[str, Any]) -> str:
    """Return the sentences on what the generations learned from and what that cost in labels."""
    budget, counts = report["budget"], report["split"].get("counts", {})
    labelled = {"images": budget["labelled_images"], "patients": budget["labelled_patients"]}
    text = f"{films_of_patients(labelled)} with labels."
    students = [entry["index"] for entry in report["generations"] if entry["role"] == "student"]
    if students and "pool" in counts:
        who = f"Generation{'s' if len(students) > 1 else ''} {listed(students)}"
        text += f" {who} also learned from {films_of_patients(counts['pool'])} whose labels were not used."
    valid = {"images": budget["valid_images"], "patients": budget["valid_patients"]}
    text += f" A further {films_of_patients(valid)} with labels served as validation set."
    folds = report["config"].get("folds", 1)
    if folds > 1 and _refitted(report):
        text += (
            f" Every generation is one network that learned from all these labelled patients. {folds} others, each "
            "trained without a part of them and judged on that part alone, gave its calibration and thresholds"
        )
        text += _what_judges_do(report["config"], students)
    elif folds > 1:
        text += (
            f" Every generation is the mean of {folds} networks, each trained without a part of all these labelled "
            "patients and judged on that part alone."
        )
    elif ensembles := _ensembles(report["generations"]):
        text += f" {ensembles}, which learned from the same films and differ in seed or architecture."
    text += f" The label budget is both together: {films_of_patients(budget)}."
    return text


def pseudo_labels(report: Mapping[str, Any]) -> str:
    """Return the sentences on how a teacher's probabilities become what its students are taught of the pool."""
    config = report["config"].get("pseudo", {})
    temperature = config.get("temperature", 1)
    soft = "soft" if temperature == 1 else "sharpened" if temperature < 1 else "flattened"
    kind = "targets of 0 and 1" if config.get("hard") else f"{soft} targets"
    moved = ", their mean moved to the expected prevalence," if config.get("align", True) else ""
    text = f"A teacher's calibrated probabilities{moved} become {kind} for the films without labels"
    text += f"{_cut(config)}. {_weights(config)}"
    if report["config"].get("folds", 1) > 1 and not _refitted(report):
        text += " Each network was taught by those that had not seen the same labelled patients; the figures are means."
    return text


def _cut(config: Mapping[str, Any]) -> str:
    """Return where likely positives end and what is left out, as the end of a sentence."""
    select = config.get("select", {})
    rule, parts = select.get("rule", "half"), []
    if rule == "fixed":
        high, low = select["confidence"], 1 - (select.get("negative_confidence") or select["confidence"])
        parts.append(f"from {number(high, 2)} on and up to {number(low, 2)}, and what lies between is left out")
    elif rule == "two_sided":
        right = percent(select["precision"])
        parts.append(f"where {right} of the judging films are as they say, and what lies between is left out")
    elif config.get("hard"):
        cut = {
            "prevalence": "of each label the most probable films are positive, as many as the expected prevalence says",
            "f1": "cut where F1 is best on the judging films",
        }
        parts.append(cut.get(rule, "cut at one half"))
    if config.get("pool_share") or config.get("keep_share", 1) < 1:
        parts.append("of either side only the most confident are taken")
    if not select.get("negatives", True):
        parts.append("likely negatives are left out")
    return f": {'; '.join(parts)}" if parts else ""


def _weights(config: Mapping[str, Any]) -> str:
    """Return the sentence on what a pseudo-label weighs."""
    weight = config.get("weight", "confidence")
    alike = weight == "confidence" and not config.get("weight_power", 0.5)
    text = {
        "right": "Each weighs the probability that it is right",
        "resolution": "Those of a finding weigh more, the better the teacher tells it from its prevalence",
    }.get(weight, "All weigh alike" if alike else "The least certain weigh least")
    share = config.get("loss_weight", 1)
    return f"{text}." if share == 1 else f"{text}, {'' if alike else 'at most '}{share:g} of what a label weighs."


def judges(report: Mapping[str, Any]) -> str:
    """Return the sentence on who is measured on validation, empty where it is the generation itself."""
    if report["config"].get("folds", 1) < 2:
        return ""
    who, other = (" of the folds", ", not by the one that speaks on test") if _refitted(report) else ("", "")
    return f"On validation every film is judged by networks{who} that have not learned from it{other}."


def _refitted(report: Mapping[str, Any]) -> bool:
    """Return whether one network that learned from all folds says what a generation says."""
    return report["config"].get("teacher", {}).get("refit") is not None


def _ensembles(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return which of the generations are the mean of how many networks, empty where each is one network."""
    sizes: dict[int, list[int]] = {}
    for entry in entries:
        if (networks := entry["model"]["networks"]) > 1:
            sizes.setdefault(networks, []).append(entry["index"])
    if len(sizes) == 1 and sum(map(len, sizes.values())) == len(entries) > 1:
        return f"Every generation is an ensemble, the mean of {next(iter(sizes))} networks"
    return ", ".join(
        f"{'G' if place == 0 else 'g'}eneration{'s' if len(indices) > 1 else ''} {listed(indices)} "
        f"{'are ensembles' if len(indices) > 1 else 'is an ensemble'}, the mean of {networks} networks"
        for place, (networks, indices) in enumerate(sizes.items())
    )


def networks(report: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Return how many networks share a generation and what each learned from; empty for a single one."""
    if (several := entry["model"]["networks"]) < 2:
        return ""
    if report["config"].get("folds", 1) > 1:
        return f" of each of {several} networks, every one without a part of the labelled patients,"
    return f" of each of {several} networks, every one with all labelled patients,"
