"""The calibration of a generation on its page: the formula, with what the loss and the sampler did, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noisy_student.reporting import tables, words


def by_network(entry: Mapping[str, Any], level: str) -> list[tuple[str, str, tables.Table]]:
    """Return per calibrated network its title (empty for a single one), its formula in words, and its numbers by label.

    At level ``study`` they are those of studies, where the run has them.
    """
    fitted = entry["calibration"] or {}
    each = fitted.get("members") or ([fitted] if fitted.get("labels") else [])
    found = []
    for place, one in enumerate(each, 1):
        of_study = one.get("study") if level == "study" else None
        used = of_study or one
        drawn = any(cell.get("drawn") for cell in used["labels"].values())
        rows = []
        for name, cell in used["labels"].items():
            cells = [
                tables.number(cell.get(key)) for key in ("shift", *(["drawn"] if drawn else []), "slope", "intercept")
            ]
            cells.append(tables.text("together" if cell.get("pooled") else "alone"))
            cells += [tables.amount(cell.get(key)) for key in ("positives", "negatives")]
            rows.append(tables.Row(tables.text(name), tuple(cells)))
        columns = tables.heads(
            "Label:", "Shift", *(["Drawn"] if drawn else []), "Slope", "Intercept", "Fitted:", "Positive", "Negative"
        )
        title = f"Network {place} of {len(each)}" if len(each) > 1 else ""
        terms = formula(link(used.get("link")), drawn, of_study and of_study["aggregation"])
        if len(each) == 1 and entry["model"]["networks"] > 1:
            terms.append(f"A logit is the mean over the {entry['model']['networks']} networks.")
        if level == "study" and not of_study:
            terms.append("These are films: an earlier version calibrated them alone, and a study has their mean.")
        name = f"Calibration, {title.lower()}" if title else "Calibration"
        found.append((title, " ".join(terms), tables.Table(name, columns, tuple(rows))))
    return found


def link(found: Mapping[str, Any] | None) -> str:
    """Return what the loss of a model did to log-odds, as the calibration has it (``link``); empty for nothing."""
    get = (found or {}).get
    parts = []
    if get("name") == "focal":
        parts.append(f"focal loss (γ = {get('gamma_positive'):g})")
    elif get("name") == "asymmetric":
        gammas = f"γ = {get('gamma_positive'):g} for positives and {get('gamma_negative'):g} for negatives"
        free = f", negatives free up to {get('free'):g}" if get("free") else ""
        parts.append(f"asymmetric loss ({gammas}{free})")
    if get("odds"):
        parts.append(f"weight of positives (log {words.number(get('odds'))})")
    if get("smoothing"):
        parts.append(f"label smoothing of {get('smoothing'):g}")
    return words.listed(parts)


def formula(loss: str, drawn: bool, aggregation: str | None) -> list[str]:
    """Return the formula of a calibration and the sentences on its terms.

    ``loss`` is what the loss did (:func:`link`), ``drawn`` whether the sampler raised the odds of a label, and
    ``aggregation`` how the films of a study became one logit, ``None`` for single films.
    """
    inner = "link(logit − shift)" if loss else "logit − shift"
    inner = f"{inner} − drawn" if drawn else inner
    found = [f"probability = 1 / (1 + exp(−(slope × ({inner}) + intercept)))."]
    if aggregation is not None:
        taken = {"mean": "the mean", "max": "the largest", "frontal": "the mean of the frontal ones"}[aggregation]
        found.append(f"Studies: the logit is {taken} of the logits of a study’s films.")
    found.append("The shift takes out the class weight of the loss.")
    if loss:
        found.append(f"The link takes out what else the loss did to log-odds: {loss}.")
    if drawn:
        found.append("Drawn: by how much the sampler, which draws positives more often, raised the log-odds.")
    found.append("Labels with few positives or negatives share one slope and intercept.")
    return found
