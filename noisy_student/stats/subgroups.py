"""AUROC in groups of films (sex, age, view, site), and the gap between the best and the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noisy_student.stats import support
from noisy_student.stats.evaluation import bounds, undefined_reason
from noisy_student.stats.intervals import auroc_columns, bootstrap_aurocs, macro
from noisy_student.stats.metrics import Floats, Ints
from noisy_student.stats.strata import strata


@dataclass(frozen=True, eq=False)
class Group:
    """Cases that share a property: truth (N, K), scores (N, K), and patient codes (N,) common to all groups."""

    name: str
    truth: Floats
    score: Floats
    patients: Ints

    def __len__(self) -> int:
        """The number of patients."""
        return int(np.unique(self.patients).size)


def measure_groups(
    columns: Mapping[str, Sequence[Group]],
    labels: Sequence[str],
    macro_labels: Sequence[str],
    *,
    smallest: int,
    replicates: int,
    confidence: float,
    seed: int,
    stratify: bool = False,
) -> dict[str, Any]:
    """Return ``subgroups`` of ``evaluation.json``: per column its groups with AUROC and interval, and the gap.

    Groups of fewer than ``smallest`` patients are marked ``small`` and take no part in the gap: the macro AUROC of the
    best group minus that of the worst, over the macro labels that all groups of the gap have. Patients are resampled
    once for all groups, as one patient can have films in two. The two groups are chosen for being furthest apart, so
    that with many groups a gap above 0 is expected. ``stratify`` resamples within strata of all films (:func:`strata`).
    """
    every = [group for groups in columns.values() for group in groups]
    parts = [(group.truth, group.score, group.patients) for group in every]
    keep = None
    if stratify:
        keep = strata(np.concatenate([part[0] for part in parts]), np.concatenate([part[2] for part in parts]))
    draws = iter(bootstrap_aurocs(parts, replicates, seed, keep))
    wanted = [list(labels).index(name) for name in macro_labels]
    found: dict[str, Any] = {}
    for column, groups in columns.items():
        areas = [auroc_columns(group.truth, group.score) for group in groups]
        own = [next(draws) for _ in groups]
        found[column] = {
            "groups": [
                _group(group, area, drawn, labels, wanted, smallest, confidence)
                for group, area, drawn in zip(groups, areas, own, strict=True)
            ],
            "gap": _gap(
                [triple for triple in zip(groups, areas, own, strict=True) if len(triple[0]) >= smallest],
                labels,
                wanted,
                smallest,
                confidence,
            ),
        }
    return {"columns": found, "smallest": smallest}


def _group(
    group: Group,
    areas: Floats,
    draws: Floats,
    labels: Sequence[str],
    wanted: Sequence[int],
    smallest: int,
    confidence: float,
) -> dict[str, Any]:
    used = [k for k in wanted if not np.isnan(areas[k])]
    classes = support.of_classes(group.truth, group.patients)
    entries = {}
    for k, name in enumerate(labels):
        positives, negatives = int((group.truth[:, k] == 1).sum()), int((group.truth[:, k] == 0).sum())
        undefined = undefined_reason(positives, negatives)
        figure = _figure(float(areas[k]), draws[:, [k]], classes[[k]], [support.THE_FINDING], confidence, undefined)
        del figure["undefined_labels"]
        entries[name] = {**figure, "positives": positives, "negatives": negatives}
    reason = None if used else f"none of the {len(wanted)} labels has both a positive and a negative film"
    return {
        "group": group.name,
        "n": len(group.truth),
        "patients": len(group),
        "small": len(group) < smallest,
        "macro": _figure(
            float(macro(areas, used)), draws[:, used], classes[used], [labels[k] for k in used], confidence, reason
        ),
        "labels": entries,
    }


def _figure(
    value: float, draws: Floats, classes: Ints, names: Sequence[str], confidence: float, reason: str | None
) -> dict[str, Any]:
    if reason is not None:
        return {"auroc": None, "ci": None, "undefined_replicates": None, "undefined_labels": None, "reason": reason}
    return {"auroc": value, **bounds(draws, classes, names, confidence)}


def _gap(
    groups: Sequence[tuple[Group, Floats, Floats]],
    labels: Sequence[str],
    wanted: Sequence[int],
    smallest: int,
    confidence: float,
) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(
        ("difference", "ci", "between", "undefined_replicates", "undefined_labels")
    ) | {"labels": []}
    if len(groups) < 2:
        return nothing | {"reason": f"fewer than two groups have {smallest} patients"}
    used = [k for k in wanted if all(not np.isnan(areas[k]) for _, areas, _ in groups)]
    if not used:
        return nothing | {"reason": "no label has both a positive and a negative film in every group"}
    means = [float(areas[used].mean()) for _, areas, _ in groups]
    best, worst = int(np.argmax(means)), len(means) - 1 - int(np.argmin(means[::-1]))  # two groups, equal or not
    first, second = groups[best], groups[worst]
    names = [labels[k] for k in used]
    classes = np.minimum(*(support.of_classes(group.truth[:, used], group.patients) for group, _, _ in (first, second)))
    return {
        "difference": means[best] - means[worst],
        "between": [first[0].name, second[0].name],
        "labels": names,
        **bounds(first[2][:, used] - second[2][:, used], classes, names, confidence, gap=True),
    }
