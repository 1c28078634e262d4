"""What the networks of a run learned from and who judged them, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noisy_student.reporting.words import films_of_patients, listed


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
