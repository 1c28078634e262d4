"""A teacher's calibrated probabilities to soft targets for the pool: mean over views, alignment, selection, weight.

Soft targets from an un-noised teacher after Xie et al., "Self-training with Noisy Student improves ImageNet
classification", CVPR 2020; prevalence-matched selection per label in the spirit of CAP (Xie et al., NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta

from noisy_student.config import PseudoConfig

Floats = npt.NDArray[np.float64]
EPSILON = 1e-6


@dataclass(frozen=True)
class Prevalence:
    """A label's expected share of positives in the pool, with a 95 % interval where it was estimated."""

    mean: float
    ci: tuple[float, float] | None


@dataclass(frozen=True)
class PseudoLabels:
    """Targets and weights (N, K) for the pool, and what was done to each label (one entry per label)."""

    target: Floats
    weight: Floats
    teacher_mean: tuple[float, ...]
    prevalence: tuple[Prevalence | None, ...]


def study_mean(probability: Floats, studies: Sequence[str]) -> Floats:
    """Return (N, K) probabilities in which every film has the mean of its study's films."""
    _, code = np.unique(np.asarray(studies, dtype=str), return_inverse=True)
    count = np.bincount(code)
    sums = np.stack([np.bincount(code, column) for column in probability.T], axis=1)
    return np.asarray((sums / count[:, None])[code], dtype=np.float64)


def estimate_prevalence(positives: float, known: float, teacher_mean: float, strength: float) -> Prevalence:
    """Return the posterior of a label's prevalence after ``positives`` among ``known`` labelled films.

    The prior is Beta with mean ``teacher_mean`` and the weight of ``strength`` films: a few labelled films know a
    prevalence only to about 0.5 / sqrt(known), so the teacher's own mean over the whole pool keeps a say.
    """
    prior = float(np.clip(teacher_mean, EPSILON, 1 - EPSILON))
    a = positives + strength * prior + EPSILON
    b = known - positives + strength * (1 - prior) + EPSILON
    return Prevalence(float(a / (a + b)), (float(beta.ppf(0.025, a, b)), float(beta.ppf(0.975, a, b))))


def align(probability: Floats, prevalence: float) -> Floats:
    """Return probabilities (N,) moved by one constant on the logit scale so that their mean is ``prevalence``.

    A constant on the logit scale is what a change of prior odds does to a calibrated posterior (Saerens et al.,
    "Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation 2002).
    """
    logits = logit(np.clip(probability, EPSILON, 1 - EPSILON))
    shift = brentq(lambda move: float(expit(logits + move).mean()) - prevalence, -40.0, 40.0, xtol=1e-9)
    return np.asarray(expit(logits + shift), dtype=np.float64)


def keep_most_confident(probability: Floats, share: float) -> npt.NDArray[np.bool_]:
    """Return a mask (N,) of the ``share`` most confident likely positives and likely negatives, each side apart.

    Each side is cut by its own rank, so that the rare side of a label is not drowned by the common one.
    """
    keep = np.ones(len(probability), dtype=bool)
    for side in (probability >= 0.5, probability < 0.5):
        members = np.flatnonzero(side)
        wanted = int(np.ceil(share * len(members) - 1e-9))  # 0.07 * 100 is a little above 7
        order = np.argsort(-np.abs(probability[members] - 0.5), kind="stable")
        keep[members[order[wanted:]]] = False
    return keep


def pseudo_labels(
    probability: Floats,
    studies: Sequence[str],
    labels: Sequence[str],
    counts: Sequence[tuple[float, float]],
    config: PseudoConfig,
) -> PseudoLabels:
    """Return soft targets and weights for the pool.

    Args:
        probability: calibrated probabilities (N, K) of the teacher (or the mean of several).
        studies: study of each film; all views of a study get the study's mean.
        labels: names of the K labels.
        counts: per label the (positives, known) among the labelled films, by target mass.
        config: the settings.
    """
    averaged = study_mean(np.asarray(probability, dtype=np.float64), studies)
    target, weight = np.zeros_like(averaged), np.zeros_like(averaged)
    prevalence: list[Prevalence | None] = []
    for k, (label, (positives, known)) in enumerate(zip(labels, counts, strict=True)):
        column = averaged[:, k]
        expected = None
        if config.align and len(column):
            if label in config.prevalence:
                expected = Prevalence(config.prevalence[label], None)
            else:
                expected = estimate_prevalence(positives, known, float(column.mean()), config.prior_strength)
            column = align(column, expected.mean)
        prevalence.append(expected)
        confidence = np.abs(2 * column - 1) ** config.weight_power
        kept = keep_most_confident(column, config.keep_share)
        if config.labels.get(label, True):
            weight[:, k] = np.where(kept, confidence, 0.0)
        target[:, k] = np.round(column) if config.hard else column
    means = averaged.mean(axis=0) if len(averaged) else np.full(len(labels), np.nan)
    return PseudoLabels(target, weight, tuple(float(value) for value in means), tuple(prevalence))


def mean_of(made: Sequence[PseudoLabels]) -> PseudoLabels:
    """Return the mean of several teachers' pseudo-labels of the same films; intervals are averaged too."""
    expected: list[Prevalence | None] = []
    for column in zip(*(one.prevalence for one in made), strict=True):
        found = [one for one in column if one is not None]
        cis = [one.ci for one in found if one.ci is not None]
        ci = (float(np.mean([low for low, _ in cis])), float(np.mean([high for _, high in cis]))) if cis else None
        expected.append(Prevalence(float(np.mean([one.mean for one in found])), ci) if found else None)
    return PseudoLabels(
        np.mean([one.target for one in made], axis=0),
        np.mean([one.weight for one in made], axis=0),
        tuple(float(value) for value in np.mean([one.teacher_mean for one in made], axis=0)),
        tuple(expected),
    )
