"""Which pseudo-targets of a label take part: two thresholds, and the share of either side that is kept.

A film is a likely positive from the upper threshold on and a likely negative up to the lower one; what lies between
has no part. Where both are the same number nothing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.config import SelectConfig

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """A label's thresholds; ``None`` where no film is on that side, with a reason where that was not asked for."""

    low: float | None
    high: float | None
    reason: str | None = None

    def sides(self, probability: Floats) -> tuple[Flags, Flags]:
        """Return which films (N,) are likely positives and which are likely negatives."""
        nobody = np.zeros(len(probability), dtype=bool)
        positive = nobody if self.high is None else probability >= self.high
        negative = nobody if self.low is None else (probability <= self.low) & ~positive
        return positive, negative


HALF: Final = Cut(0.5, 0.5)


def choose(
    config: SelectConfig, probability: Floats, prevalence: float, judged: tuple[Floats, Floats] | None = None
) -> Cut:
    """Return the thresholds of a label.

    Args:
        config: the rule.
        probability: (N,) of the pool, on the scale on which the thresholds are.
        prevalence: expected share of positives.
        judged: (M,) truth (1, 0 or NaN) and probability of the judging films, on the same scale, for the rules that
            are fitted to them.
    """
    if config.rule == "half":
        cut = HALF
    elif config.rule == "fixed":
        negative = config.confidence if config.negative_confidence is None else config.negative_confidence
        cut = Cut(1 - negative, config.confidence)
    elif config.rule == "prevalence":
        cut = by_prevalence(probability, prevalence)
    else:
        assert judged is not None, "the rule is fitted to the judging films"
        known = ~np.isnan(judged[0])
        truth, said = judged[0][known], judged[1][known]
        cut = best_f1(truth, said) if config.rule == "f1" else two_sided(truth, said, config.precision)
    return cut if config.negatives else Cut(None, cut.high, cut.reason)


def by_prevalence(probability: Floats, prevalence: float) -> Cut:
    """Return the threshold above which as many of the films (N,) are as ``prevalence`` says; ties are above it.

    Xie et al., "Class-distribution-aware pseudo-labeling for semi-supervised multi-label learning", NeurIPS 2023.
    """
    count = round(prevalence * len(probability))
    if not count:
        return Cut(1.0, None, "fewer than one film is expected to be positive")
    threshold = float(np.sort(probability)[len(probability) - count])
    return Cut(threshold, threshold)


def best_f1(truth: Floats, probability: Floats) -> Cut:
    """Return the threshold, one of the probabilities (M,), with the best F1 for ``truth`` (M,), 1 or 0.

    Of several that are as good it is the highest.
    """
    positives = truth.sum()
    if not positives:
        return Cut(None, None, "none of the judging films is positive")
    levels, hits, called = _from_above(truth, probability)
    threshold = float(levels[np.argmax(2 * hits / (called + positives))])  # F1 = 2 TP / (2 TP + FP + FN)
    return Cut(threshold, threshold)


def two_sided(truth: Floats, probability: Floats, precision: float) -> Cut:
    """Return the lowest threshold from which on, and the highest up to which, ``precision`` of the films are right.

    The lower one stays below 1/2, and the higher one does not: of a rare finding almost all films are negative, and
    without that limit those would be too of which the teacher says the contrary; so with a common one. After "DiCaP:
    Distribution-calibrated pseudo-labeling for semi-supervised multi-label learning" (arXiv 2511.20225, 2025), whose
    two thresholds part what is confident from what is ambiguous; there the ambiguous films take another way, here they
    are left out.

    Args:
        truth: (M,), 1 or 0.
        probability: (M,).
        precision: the share of right ones that is asked for on each side.
    """
    levels, hits, called = _from_above(truth, probability)
    enough = levels[(hits >= precision * called - 1e-9) & (levels >= 0.5)]
    high = float(enough[-1]) if len(enough) else None
    below, missed, under = _from_above(1 - truth, -probability)
    enough = -below[(missed >= precision * under - 1e-9) & (-below < 0.5)]
    low = float(enough[-1]) if len(enough) else None
    lacking = [name for name, side in (("positives", high), ("negatives", low)) if side is None]
    reason = f"no threshold makes {precision:g} of the {' or of the '.join(lacking)} right" if lacking else None
    return Cut(low, high, reason)


def _from_above(truth: Floats, probability: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the distinct probabilities, highest first, and the positives and the films from each of them on."""
    levels, place = np.unique(probability, return_inverse=True)
    hits = np.bincount(place, truth, minlength=len(levels))[::-1].cumsum()
    called = np.bincount(place, minlength=len(levels))[::-1].cumsum()
    return levels[::-1], hits.astype(np.float64), called.astype(np.float64)


def keep_most_confident(probability: Floats, share: float, cut: Cut = HALF) -> Flags:
    """Return a mask (N,) of the ``share`` most confident likely positives and likely negatives, each side apart.

    Each side is cut by its own rank, so that the rare side of a label is not drowned by the common one.
    """
    keep = np.zeros(len(probability), dtype=bool)
    for side, doubt in zip(cut.sides(probability), (-probability, probability), strict=True):
        members = np.flatnonzero(side)
        wanted = int(np.ceil(share * len(members) - 1e-9))  # 0.07 * 100 is a little above 7
        keep[members[np.argsort(doubt[members], kind="stable")[:wanted]]] = True
    return keep
