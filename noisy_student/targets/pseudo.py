"""A teacher's calibrated probabilities to targets for the pool: mean over views, alignment, selection, weight.

Soft targets from an un-noised teacher after Xie et al., "Self-training with Noisy Student improves ImageNet
classification", CVPR 2020; what else there is, with its sources, is in docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from noisy_student.config import PseudoConfig
from noisy_student.targets.prevalence import EPSILON, Prevalence, estimate_prevalence, moved, prior_shift
from noisy_student.targets.selection import Cut, choose, keep_most_confident

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PseudoLabels:
    """Targets and weights (N, K) for the pool, and what was done to each label (one entry per label)."""

    target: Floats
    weight: Floats
    teacher_mean: tuple[float, ...]
    prevalence: tuple[Prevalence | None, ...]
    cuts: tuple[Cut, ...]
    """Thresholds, on the scale of the targets before they are rounded or sharpened."""
    taken: tuple[tuple[float, float], ...]
    """How many films take part as likely positives and as likely negatives."""


@dataclass(frozen=True, eq=False)
class Judged:
    """The judging films: truth (M, K), 1, 0 or NaN, and what the teacher says of them, (M, K)."""

    truth: Floats
    probability: Floats


def study_mean(probability: Floats, studies: Sequence[str]) -> Floats:
    """Return (N, K) probabilities in which every film has the mean of its study's films."""
    _, code = np.unique(np.asarray(studies, dtype=str), return_inverse=True)
    count = np.bincount(code)
    sums = np.stack([np.bincount(code, column) for column in probability.T], axis=1)
    return np.asarray((sums / count[:, None])[code], dtype=np.float64)


def sharpened(probability: Floats, temperature: float) -> Floats:
    """Return probabilities whose log-odds are divided by ``temperature``.

    For two classes that is p^(1/T) / (p^(1/T) + (1 - p)^(1/T)), the sharpening of Berthelot et al., "MixMatch: A
    holistic approach to semi-supervised learning", NeurIPS 2019.
    """
    if temperature == 1:
        return probability
    return np.asarray(expit(logit(np.clip(probability, EPSILON, 1 - EPSILON)) / temperature), dtype=np.float64)


def resolution(probability: Floats) -> float:
    """Return the share of a label's variance that calibrated probabilities (N,) of it explain: 0 where all are the
    same, 1 where all are 0 or 1.

    The resolution over the uncertainty of the Brier score (Murphy, "A new vector partition of the probability score",
    Journal of Applied Meteorology 1973), which for calibrated probabilities is their variance over that of the label.
    """
    mean = float(probability.mean()) if len(probability) else 0.0
    return float(probability.var() / (mean * (1 - mean))) if 0 < mean < 1 else 0.0


def pseudo_labels(
    probability: Floats,
    studies: Sequence[str],
    labels: Sequence[str],
    counts: Sequence[tuple[float, float]],
    config: PseudoConfig,
    generation: int = 1,
    judged: Judged | None = None,
) -> PseudoLabels:
    """Return targets and weights for the pool.

    Args:
        probability: calibrated probabilities (N, K) of the teacher (or the mean of several).
        studies: study of each film; all views of a study get the study's mean.
        labels: names of the K labels.
        counts: per label the (positives, known) among the labelled films, by target mass.
        config: the settings.
        generation: the generation that learns from them, on which the share of the pool can depend.
        judged: the judging films, which the rules ``f1`` and ``two_sided`` need.
    """
    averaged = study_mean(np.asarray(probability, dtype=np.float64), studies)
    target, weight = np.zeros_like(averaged), np.zeros_like(averaged)
    prevalence: list[Prevalence | None] = []
    cuts, taken = list[Cut](), list[tuple[float, float]]()
    for k, (label, (positives, known)) in enumerate(zip(labels, counts, strict=True)):
        column, shift = averaged[:, k], 0.0
        expected, own = None, None
        if len(column):
            if label in config.prevalence:
                own = Prevalence(config.prevalence[label], None)
            else:
                own = estimate_prevalence(positives, known, float(column.mean()), config.prior_strength)
        if config.align and own is not None:
            expected, shift = own, prior_shift(column, own.mean)
            column = moved(column, shift)
        prevalence.append(expected)
        # The judging films are moved as the pool is, so that a threshold means the same for both.
        said = None if judged is None else (judged.truth[:, k], moved(judged.probability[:, k], shift))
        cut = choose(config.select, column, own.mean if own is not None else 0.0, said)
        positive, negative = cut.sides(column)
        kept = keep_most_confident(column, config.kept(generation), cut)
        if config.weight == "right":
            confidence = np.where(positive, column, 1 - column)
        elif config.weight == "resolution":
            confidence = np.full(len(column), resolution(column))
        else:
            confidence = np.abs(2 * column - 1) ** config.weight_power
        if config.labels.get(label, True):
            weight[:, k] = config.loss_weight * np.where(kept, confidence, 0.0)
        else:
            kept, cut = np.zeros_like(kept), Cut(None, None, "pseudo.labels switches this label off")
        cuts.append(cut)
        taken.append((float((positive & kept).sum()), float((negative & kept).sum())))
        target[:, k] = positive if config.hard else sharpened(column, config.temperature)
    means = averaged.mean(axis=0) if len(averaged) else np.full(len(labels), np.nan)
    return PseudoLabels(
        target, weight, tuple(float(value) for value in means), tuple(prevalence), tuple(cuts), tuple(taken)
    )


def mean_of(made: Sequence[PseudoLabels]) -> PseudoLabels:
    """Return the mean of several teachers' pseudo-labels of the same films, of their intervals and thresholds too.

    A target is the mean of those that weigh something, by weight: one that a teacher leaves out is none of 0.
    """
    weights = np.stack([one.weight for one in made])
    weigh = np.where(weights.any(axis=0), weights, 1.0)
    expected: list[Prevalence | None] = []
    for column in zip(*(one.prevalence for one in made), strict=True):
        found = [one for one in column if one is not None]
        cis = [one.ci for one in found if one.ci is not None]
        ci = (float(np.mean([low for low, _ in cis])), float(np.mean([high for _, high in cis]))) if cis else None
        expected.append(Prevalence(float(np.mean([one.mean for one in found])), ci) if found else None)
    cuts = [_mean_cut(column) for column in zip(*(one.cuts for one in made), strict=True)]
    taken = np.mean([one.taken for one in made], axis=0)
    return PseudoLabels(
        np.average([one.target for one in made], axis=0, weights=weigh),
        weights.mean(axis=0),
        tuple(float(value) for value in np.mean([one.teacher_mean for one in made], axis=0)),
        tuple(expected),
        tuple(cuts),
        tuple((float(positive), float(negative)) for positive, negative in taken),
    )


def _mean_cut(cuts: Sequence[Cut]) -> Cut:
    low = [cut.low for cut in cuts if cut.low is not None]
    high = [cut.high for cut in cuts if cut.high is not None]
    reason = next((cut.reason for cut in cuts if cut.reason is not None), None)
    return Cut(float(np.mean(low)) if low else None, float(np.mean(high)) if high else None, reason)
