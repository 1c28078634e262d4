"""Logits to probabilities: what the loss and the sampler are known to do is undone, then Platt scaling per label.

A loss that weighs positives by ``w`` multiplies the odds of its optimum by ``w``, so its logits are too high by
``log(w)`` (the "shift"); one that focuses bends them (the "link"); a sampler that draws positives more often raises
their odds (what is "drawn"). What is left is a slope and an intercept on the log-odds (Platt 1999), fitted by maximum
a posteriori: log(slope) ~ N(0, 0.5) says that networks are off by a factor of e**0.5 = 1.6 or so in confidence,
intercept ~ N(0, 2) leaves the level nearly free. Ten films barely move the slope, a thousand set it. The slope is
exp(something), so it is positive and the order of films never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from noisy_student.errors import DataError
from noisy_student.stats.links import IDENTITY, Link
from noisy_student.stats.metrics import Floats, checked

LOG_SLOPE_SD: Final = 0.5
"""Standard deviation of the prior of log(slope), around 0."""
INTERCEPT_SD: Final = 2.0
"""Standard deviation of the prior of the intercept, around 0, in logits."""
MIN_COUNT: Final = 10
"""A label with fewer positives or negatives takes slope and intercept of all labels together."""

_PRECISION = np.array([LOG_SLOPE_SD**-2, INTERCEPT_SD**-2])


@dataclass(frozen=True)
class Platt:
    """Calibration of one label: ``log-odds = slope * (link(logit - shift) - drawn) + intercept``."""

    shift: float
    """log(pos_weight) of the loss the model was trained with, or what it took off logits; 0 without either."""
    slope: float
    intercept: float
    pooled: bool
    """Whether slope and intercept come from all labels together, for lack of films of this one."""
    positives: int
    negatives: int
    drawn: float = 0.0
    """By how much the sampler raised the log-odds."""


@dataclass(frozen=True)
class Calibration:
    """One :class:`Platt` per label, in the order of the model's outputs."""

    labels: tuple[str, ...]
    platt: tuple[Platt, ...]
    link: Link = IDENTITY
    """What the loss did to log-odds, the same for all labels."""

    def log_odds(self, logits: npt.ArrayLike) -> Floats:
        """Return calibrated log-odds (N, K) of ``logits`` (N, K).

        Raises:
            DataError: the number of columns is not that of the labels.
        """
        values = np.asarray(logits, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            raise DataError(
                f"logits have shape {values.shape}, the calibration has {len(self.labels)} labels",
                "Use the calibration that was fitted for this model.",
            )
        shift, drawn, slope, intercept = (
            np.array([getattr(platt, name) for platt in self.platt])
            for name in ("shift", "drawn", "slope", "intercept")
        )
        result: Floats = slope * (self.link.log_odds(values - shift) - drawn) + intercept
        return result

    def probability(self, logits: npt.ArrayLike) -> Floats:
        """Return calibrated probabilities (N, K) of ``logits`` (N, K).

        Raises:
            DataError: the number of columns is not that of the labels.
        """
        result: Floats = expit(self.log_odds(logits))
        return result

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as values for JSON: ``{"labels": {NAME: {"shift", "slope", ...}}, "link": {...}}``."""
        entries = {label: asdict(platt) for label, platt in zip(self.labels, self.platt, strict=True)}
        return {"labels": entries, "link": asdict(self.link)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Calibration:
        """Return the calibration that :meth:`to_json` wrote.

        Raises:
            DataError: a key is missing or unknown.
        """
        try:
            entries = value["labels"]
            return cls(
                tuple(entries), tuple(Platt(**entry) for entry in entries.values()), Link(**value.get("link", {}))
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise DataError(f"calibration cannot be read: {error}", "Fit it again (stage calibrate).") from error


def fit(
    logits: npt.ArrayLike,
    truth: npt.ArrayLike,
    labels: Sequence[str],
    shift: npt.ArrayLike,
    min_count: int = MIN_COUNT,
    *,
    link: Link = IDENTITY,
    drawn: npt.ArrayLike | None = None,
) -> Calibration:
    """Return the calibration of ``logits`` (N, K) to ``truth`` (N, K; 1, 0, NaN unknown) for ``labels`` (K names).

    ``shift`` (K,) is log(pos_weight) per label, ``link`` what else the loss did, and ``drawn`` (K,) by how much the
    sampler raised the log-odds. Labels with fewer than ``min_count`` positives or negatives take slope
    and intercept of one fit to all labels together; without any film that is the identity.

    Raises:
        DataError: shapes do not fit together, the truth is not 0, 1 or NaN, or a logit is not finite.
    """
    truth, logits = checked(truth, logits)
    return _fitted(logits, truth, labels, shift, min_count, link, drawn, 1.0)


def match(
    logits: npt.ArrayLike,
    probability: npt.ArrayLike,
    labels: Sequence[str],
    shift: npt.ArrayLike,
    *,
    link: Link = IDENTITY,
    drawn: npt.ArrayLike | None = None,
) -> Calibration:
    """Return the calibration of ``logits`` (N, K) to the ``probability`` (N, K) that others give to each film.

    As :func:`fit`, with the least cross-entropy to those probabilities in place of a truth. If they are calibrated, so
    is the result, on average over the films of one logit; it is as sure as they are, and no surer where it knows more.
    The prior counts a hundredth: probabilities say more than as many draws. The counts of a label are sums of
    probabilities.

    Raises:
        DataError: as :func:`fit`; a probability is not in [0, 1].
    """
    values, said = np.asarray(logits, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    if said.shape != values.shape or not ((said >= 0) & (said <= 1)).all():
        raise DataError(
            f"probabilities of shape {said.shape} for logits of shape {values.shape}, or some are not in [0, 1]",
            "Give one probability per logit.",
        )
    return _fitted(values, said, labels, shift, MIN_COUNT, link, drawn, 0.01)


def _fitted(
    logits: Floats,
    truth: Floats,
    labels: Sequence[str],
    shift: npt.ArrayLike,
    min_count: int,
    link: Link,
    drawn: npt.ArrayLike | None,
    trust: float,
) -> Calibration:
    shifts = np.asarray(shift, dtype=np.float64)
    raised = np.zeros(len(labels)) if drawn is None else np.asarray(drawn, dtype=np.float64)
    if truth.ndim != 2 or truth.shape[1] != len(labels) or shifts.shape != (len(labels),):
        raise DataError(
            f"logits {logits.shape} and shift {shifts.shape} do not fit {len(labels)} labels",
            "Give one column and one shift per label.",
        )
    if not np.isfinite(shifts).all():
        raise DataError("shift is not finite", "A pos_weight must be above 0 and finite.")
    log_odds = link.log_odds(logits - shifts) - raised
    known = ~np.isnan(truth)
    if not np.isfinite(log_odds[known]).all():
        raise DataError("logits hold an infinite value", "Look for a model that diverged.")
    shared = map_platt(log_odds[known], truth[known], trust)
    entries = []
    for column in range(len(labels)):
        seen = known[:, column]
        positives = round(float(truth[seen, column].sum()))
        negatives = int(seen.sum()) - positives
        pooled = min(positives, negatives) < min_count
        slope, intercept = shared if pooled else map_platt(log_odds[seen, column], truth[seen, column], trust)
        own = float(shifts[column]), slope, intercept, pooled, positives, negatives, float(raised[column])
        entries.append(Platt(*own))
    return Calibration(tuple(labels), tuple(entries), link)


def map_platt(log_odds: Floats, truth: Floats, trust: float = 1.0) -> tuple[float, float]:
    """Return slope and intercept that maximise the posterior of ``truth`` (N,) in [0, 1] given ``log_odds`` (N,).

    Fisher scoring on (log slope, intercept), each step halved until the posterior does not fall. ``trust`` is how much
    the log of the prior counts.
    """
    point, precision = np.zeros(2), trust * _PRECISION
    cost = _cost(point, log_odds, truth, precision)
    for _ in range(100):
        slope = np.exp(point[0])
        probability = expit(slope * log_odds + point[1])
        jacobian = np.stack([slope * log_odds, np.ones_like(log_odds)], axis=1)  # (N, 2)
        gradient = jacobian.T @ (probability - truth) + precision * point
        information = (jacobian * (probability * (1 - probability))[:, None]).T @ jacobian + np.diag(precision)
        step = -np.linalg.solve(information, gradient)
        step /= max(1.0, float(np.abs(step).max()))  # far from the optimum the quadratic model holds for about a unit
        while (candidate := _cost(point + step, log_odds, truth, precision)) > cost and np.abs(step).max() > 1e-12:
            step /= 2
        if candidate > cost or np.abs(step).max() <= 1e-10:
            break
        point, cost = point + step, candidate
    return float(np.exp(point[0])), float(point[1])


def _cost(point: Floats, log_odds: Floats, truth: Floats, precision: Floats) -> float:
    """Return the negative log posterior of ``point`` (log slope, intercept), up to a constant."""
    z = np.exp(point[0]) * log_odds + point[1]
    return float((np.logaddexp(0, z) - truth * z).sum() + (precision * point**2).sum() / 2)
