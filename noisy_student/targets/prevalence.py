"""How often a label is expected in the pool, and probabilities moved so that they say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta

Floats = npt.NDArray[np.float64]
EPSILON: Final = 1e-6


@dataclass(frozen=True)
class Prevalence:
    """A label's expected share of positives in the pool, with a 95 % interval where it was estimated."""

    mean: float
    ci: tuple[float, float] | None


def estimate_prevalence(positives: float, known: float, teacher_mean: float, strength: float) -> Prevalence:
    """Return the posterior of a label's prevalence after ``positives`` among ``known`` labelled films.

    The prior is Beta with mean ``teacher_mean`` and the weight of ``strength`` films: a few labelled films know a
    prevalence only to about 0.5 / sqrt(known), so the teacher's own mean over the whole pool keeps a say.
    """
    prior = float(np.clip(teacher_mean, EPSILON, 1 - EPSILON))
    a = positives + (strength + EPSILON) * prior
    b = known - positives + (strength + EPSILON) * (1 - prior)
    return Prevalence(float(a / (a + b)), (float(beta.ppf(0.025, a, b)), float(beta.ppf(0.975, a, b))))


def prior_shift(probability: Floats, prevalence: float) -> float:
    """Return the constant on the logit scale that makes ``prevalence`` the mean of the probabilities (N,).

    A constant on the logit scale is what a change of prior odds does to a calibrated posterior (Saerens et al.,
    "Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation 2002).
    """
    logits = logit(np.clip(probability, EPSILON, 1 - EPSILON))
    return float(brentq(lambda move: float(expit(logits + move).mean()) - prevalence, -40.0, 40.0, xtol=1e-9))


def moved(probability: npt.ArrayLike, shift: float) -> Floats:
    """Return probabilities, of any shape, moved by ``shift`` on the logit scale."""
    return np.asarray(expit(logit(np.clip(probability, EPSILON, 1 - EPSILON)) + shift), dtype=np.float64)
