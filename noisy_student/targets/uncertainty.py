"""Policies for uncertain (-1) and blank labels.

U-Ignore, U-Zeros and U-Ones after Irvin et al., "CheXpert", AAAI 2019, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.config import TargetsConfig

Floats = npt.NDArray[np.float32]

ONES: Final = ("Atelectasis", "Edema")
"""Labels whose -1 the literature counts as positive."""


def label_targets(values: Floats, labels: Sequence[str], config: TargetsConfig) -> tuple[Floats, Floats]:
    """Return targets in [0, 1] and weights (0 or 1), both (N, K), for label ``values`` (N, K).

    Args:
        values: 1, 0, -1 (uncertain), NaN (not mentioned), or a soft label in (0, 1).
        labels: names of the K columns.
        config: the policies.
    """
    target = np.nan_to_num(values, nan=0.0).astype(np.float32)
    weight = np.ones_like(target)
    if config.blank == "ignore":
        weight[np.isnan(values)] = 0
    for k, label in enumerate(labels):
        uncertain = values[:, k] == -1
        policy = config.uncertain_by_label.get(label, config.uncertain)
        if policy == "literature":
            policy = "ones" if label in ONES else "zeros"
        target[uncertain, k] = 1.0 if policy == "ones" else 0.0
        if policy == "ignore":
            weight[uncertain, k] = 0
    return target, weight
