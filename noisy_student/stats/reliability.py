"""Calibration error in its other forms, and the parts of the Brier score.

Shapes as in :mod:`noisy_student.stats.metrics`: ``truth`` (N,) holds 1, 0 and NaN for unknown, which is left out. What
is not defined is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from noisy_student.errors import DataError
from noisy_student.stats.metrics import Floats, Reliability, checked, reliability


@dataclass(frozen=True)
class BrierParts:
    """The Brier score as ``reliability - resolution + uncertainty``, exactly."""

    reliability: float
    """Mean squared distance of probability and frequency of a bin; 0 is calibrated."""
    resolution: float
    """How far the frequencies of the bins, and the order within them, leave the base rate; larger is better."""
    uncertainty: float
    """Variance of the truth: the Brier score of whoever always says the base rate."""


def brier_parts(truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int) -> BrierParts:
    """Return Murphy's (1973) decomposition of the Brier score over bins of equal mass; NaN without a known film.

    Probabilities differ within a bin, so that the classical three terms do not add up to the score. The resolution is
    the generalised one of Stephenson, Coelho and Jolliffe (2008, Weather and Forecasting 23): what is left within the
    bins, twice the covariance of probability and truth less the variance of the probability, belongs to it.
    """
    truth, probability = _known(truth, probability)
    diagram = reliability(truth, probability, bins)
    if not truth.size:
        return BrierParts(*[float("nan")] * 3)
    weight = diagram.count / diagram.count.sum()
    base = float(truth.mean())
    uncertainty = base * (1 - base)
    calibration = float(weight @ np.square(diagram.mean_probability - diagram.frequency))
    score = float(np.square(probability - truth).mean())
    # Resolution is what is left: written out, it is the sum over bins of the terms above.
    return BrierParts(calibration, calibration + uncertainty - score, uncertainty)


def diagram_of_equal_width(truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int) -> Reliability:
    """Return the reliability diagram over ``bins`` bins of equal width, without the empty ones.

    A probability on the border of two bins belongs to the lower one, as in scikit-learn's ``calibration_curve``.

    Raises:
        DataError: a probability is outside [0, 1].
    """
    truth, probability = _known(truth, probability)
    if (probability < 0).any() or (probability > 1).any():
        raise DataError("probability holds values outside [0, 1]", "Calibrate the logits first.")
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    members = np.searchsorted(edges, probability)
    count = np.bincount(members, minlength=bins).astype(np.float64)
    used = count > 0
    sums = [np.bincount(members, values, minlength=bins)[used] / count[used] for values in (probability, truth)]
    return Reliability(sums[0], sums[1], count[used])


def ece_width(truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int) -> float:
    """Return the expected calibration error over bins of equal width (Naeini et al. 2015); NaN without a known film.

    Raises:
        DataError: a probability is outside [0, 1].
    """
    return _error(diagram_of_equal_width(truth, probability, bins))


def ece_debiased(truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int) -> float:
    """Return the expected calibration error over bins of equal mass less its bias; NaN without a known film.

    A calibrated model has an ECE above 0, because frequencies of finite bins are noisy. The bias is that of Kumar,
    Liang and Ma (2019, "Verified uncertainty calibration"; the parametric form in their released code for the absolute
    error, ``normal_debiased_ce``): the error expected when the frequency of each bin is drawn once more from
    a normal distribution around what was seen, less the error seen. Their sampling is replaced by the mean
    of the folded normal distribution. Never below 0. Films are taken as independent.
    """
    diagram = reliability(truth, probability, bins)
    error = _error(diagram)
    if np.isnan(error):
        return error
    gap = np.abs(diagram.mean_probability - diagram.frequency)
    spread = np.sqrt(diagram.frequency * (1 - diagram.frequency) / diagram.count)
    ratio = np.divide(gap, spread, out=np.full_like(gap, np.inf), where=spread > 0)
    expected = spread * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (1 - 2 * ndtr(-ratio))
    return max(0.0, float(2 * error - diagram.count @ expected / diagram.count.sum()))


def _error(diagram: Reliability) -> float:
    if not diagram.count.size:
        return float("nan")
    return float(np.abs(diagram.mean_probability - diagram.frequency) @ diagram.count / diagram.count.sum())


def _known(truth: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[Floats, Floats]:
    truth, probability = checked(truth, probability)
    known = ~np.isnan(truth)
    return truth[known], probability[known]
