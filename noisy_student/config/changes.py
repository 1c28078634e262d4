"""What a generation or a member does differently, laid over the settings that it shares with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noisy_student.config import consistency, loss


def laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``, tables merged key by key."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = laid_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def changed(phase: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a phase with ``changes`` laid over them.

    Settings of ``phase`` that belong to a choice which ``changes`` make anew are left to their defaults: those of
    another loss, the class weights of ``weighted_bce``, the width of a hidden head, the blocks of ``initialise:
    lowest``, those of another consistency term and of its alignment, and the steps where new phases say how long they
    take.
    """
    gone: set[tuple[str, str]] = set()
    if _differ(phase, changes, "loss", "name"):
        gone |= {("loss", key) for key in loss.USED_BY} | {("pos_weight_cap", "")}
    if _differ(phase, changes, "model", "head"):
        gone.add(("model", "head_hidden"))
    if _differ(phase, changes, "model", "initialise"):
        gone.add(("model", "pretrained_blocks"))
    if _differ(phase, changes, "consistency", "method"):
        gone |= {("consistency", key) for key in consistency.USED_BY}
        if changes["consistency"]["method"] == "none":
            gone |= {("consistency", key) for key in consistency.SHARED}
    if _differ(phase, changes, "consistency", "align"):
        gone |= {("consistency", key) for key in ("align_by", "prevalence", "momentum")}
    if _differ(phase, changes, "consistency", "align_by"):
        gone.add(("consistency", "momentum"))
    if _differ(phase, changes, "optim", "phases") and _all_have_lengths(changes["optim"]["phases"]):
        gone.add(("optim", "steps"))
    kept = {
        section: {key: value for key, value in content.items() if (section, key) not in gone}
        if isinstance(content, dict)
        else content
        for section, content in phase.items()
        if (section, "") not in gone
    }
    return laid_over(kept, changes)


def _differ(phase: Mapping[str, Any], changes: Mapping[str, Any], section: str, key: str) -> bool:
    given = changes.get(section)
    return isinstance(given, dict) and key in given and given[key] != phase[section][key]


def _all_have_lengths(phases: Any) -> bool:
    return (
        isinstance(phases, list | tuple)
        and bool(phases)
        and all(isinstance(part, dict) and (part.get("steps") or part.get("epochs")) for part in phases)
    )
