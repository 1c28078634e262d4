"""Labels to targets: policies for uncertain (-1) and blank labels, and parents filled from their children.

U-Ignore, U-Zeros, U-Ones and U-SelfTrained after Irvin et al., "CheXpert", AAAI 2019, section 3; label smoothing of the
uncertain ones after Pham et al., "Interpreting chest X-rays via CNNs that exploit hierarchical disease dependencies and
uncertainty labels", Neurocomputing 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.config import TargetsConfig
from noisy_student.labels import PARENTS, canonical
from noisy_student.randomness import text_id, text_ids, uniform

Floats = npt.NDArray[np.float32]

ONES: Final = ("Atelectasis", "Edema")
"""Labels whose -1 the literature counts as positive."""
_PURPOSE: Final = text_id("targets.smooth")


def policy_of(label: str, config: TargetsConfig) -> str:
    """Return what -1 becomes for ``label``: ``ignore``, ``zeros``, ``ones``, ``smooth_zeros``, ``smooth_ones`` or
    ``selftrained``.
    """
    policy = config.uncertain_by_label.get(label, config.uncertain)
    if policy == "literature":
        return "ones" if canonical(label) in ONES else "zeros"
    return policy


def label_targets(
    values: Floats, labels: Sequence[str], config: TargetsConfig, images: Sequence[str] | None = None
) -> tuple[Floats, Floats]:
    """Return targets in [0, 1] and weights from 0 to 1, both (N, K), for label ``values`` (N, K).

    Args:
        values: 1, 0, -1 (uncertain), NaN (not mentioned), or a soft label in (0, 1).
        labels: names of the K columns.
        config: the policies.
        images: path of each film (N,); the smoothed policies draw from it, so that a film has the same target in every
            table it is part of.

    Raises:
        ValueError: a policy is smoothed and ``images`` is not given.
    """
    blank = np.isnan(values)
    target = np.where(blank, np.float32(0), values).astype(np.float32)
    weight = np.ones_like(target)
    weight[blank] = 0 if config.blank == "ignore" else config.blank_weight
    smooth = any(policy_of(label, config).startswith("smooth") for label in labels)
    names = text_ids(images) if smooth and images is not None else None
    for k, label in enumerate(labels):
        rows = np.flatnonzero(values[:, k] == -1)
        policy = policy_of(label, config)
        if policy.startswith("smooth"):
            low, high = config.smooth_ones if policy == "smooth_ones" else config.smooth_zeros
            if names is None:
                raise ValueError(f"the policy {policy} of '{label}' draws from the paths of the films: pass images")
            draw = uniform(config.smooth_seed, _PURPOSE, text_id(label), names[rows])
            # Rounding to float32 may step over the end of the range.
            target[rows, k] = np.clip(low + (high - low) * draw, np.float32(low), np.float32(high))
        else:
            target[rows, k] = 1 if policy == "ones" else 0
        if policy in ("ignore", "selftrained"):  # what a teacher says is filled in where there is one
            weight[rows, k] = 0
    return target, weight


def self_trained(labels: Sequence[str], config: TargetsConfig) -> npt.NDArray[np.bool_]:
    """Return which of the labels (K,) have the policy ``selftrained``."""
    return np.array([policy_of(label, config) == "selftrained" for label in labels], dtype=bool)


def fill_uncertain(
    values: Floats, target: Floats, weight: Floats, said: npt.NDArray[np.float64], taught: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Return targets and weights (N, K) in which a teacher's probability stands for the -1 of the labels ``taught``.

    U-SelfTrained (Irvin et al. 2019): a network that ignores -1 relabels them, each with its probability and the
    weight of any other label.

    Args:
        values: labels (N, K) as in :func:`label_targets`.
        target: what that function made of them.
        weight: and their weights.
        said: the teacher's probabilities (N, K).
        taught: (K,).
    """
    rows = (values == -1) & taught
    return np.where(rows, said, target).astype(np.float32), np.where(rows, np.float32(1), weight)


def fill_parents(values: Floats, labels: Sequence[str]) -> Floats:
    """Return the label ``values`` (N, K) with every parent at least as positive as its children.

    A parent becomes 1 where a child is 1, whatever it said itself: a large heart is an enlarged mediastinum. With
    soft children it becomes the largest of them, if that is more than it had. A blank parent of an uncertain child
    becomes uncertain. Labels that are not among ``labels`` are not looked at.
    """
    filled = values.copy()
    places = {canonical(name): k for k, name in enumerate(labels)}
    for parent, children in PARENTS.items():
        columns = [places[child] for child in children if child in places]
        if parent not in places or not columns:
            continue
        own, below = filled[:, places[parent]], values[:, columns]
        highest = np.where(below >= 0, below, 0).max(axis=1)
        raised = (highest == 1) | ((highest > 0) & (np.isnan(own) | ((own >= 0) & (own < highest))))
        uncertain = (below == -1).any(axis=1) & np.isnan(own) & ~raised
        filled[:, places[parent]] = np.where(raised, highest, np.where(uncertain, -1, own))
    return filled
