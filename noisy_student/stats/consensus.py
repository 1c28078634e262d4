"""What the networks of a generation say together: calibrated probabilities per film and per study, and their spread.

A network is calibrated twice on the same films: film by film, and study by study after the logits of a study's views
have become one. Members of an ensemble are calibrated one by one, because networks of two architectures mean different
things by the same logit, and the mean of their probabilities is what they say. The networks of a cross-fitted run are
of one recipe and have each a part of the films to be judged on; the mean of their logits is calibrated once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from noisy_student.errors import DataError
from noisy_student.stats import metrics
from noisy_student.stats.calibration import Calibration
from noisy_student.stats.evaluation import Aggregation, aggregate, agreed
from noisy_student.stats.metrics import Floats, Ints

Calibrator = Callable[[Floats, Floats], Calibration]
"""Takes logits and truth (N, K) to a calibration."""

ONE_NETWORK = "one network says the same as itself: a spread needs several"


@dataclass(frozen=True, eq=False)
class Views:
    """Study (N,) of each film, as codes, and whether it is ``frontal`` (N,)."""

    study: Ints
    frontal: npt.NDArray[np.bool_]

    def aggregate(self, values: npt.ArrayLike, how: Aggregation) -> Floats:
        """Return one row (S, K) of ``values`` (N, K) per study, studies in the order of their codes."""
        return aggregate(values, self.study, how, self.frontal)


@dataclass(frozen=True)
class Fitted:
    """The calibration of one network, or of the mean of several: per film, and per study after aggregation.

    ``study`` is ``None`` in runs of before there was one: a study then has the mean of its films' probabilities.
    """

    image: Calibration
    study: Calibration | None = None
    aggregation: Aggregation = "mean"

    def by_study(self, logits: npt.ArrayLike, views: Views) -> Floats:
        """Return calibrated probabilities (S, K) per study of ``logits`` (N, K) per film."""
        if self.study is None:
            return views.aggregate(self.image.probability(logits), "mean")
        return self.study.probability(views.aggregate(logits, self.aggregation))

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON values: ``{"labels": ..., "study": {"aggregation", "labels"}}``."""
        study = {} if self.study is None else {"study": {"aggregation": self.aggregation} | self.study.to_json()}
        return self.image.to_json() | study

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Fitted:
        """Return the calibration that :meth:`to_json` wrote.

        Raises:
            DataError: a key is missing or unknown.
        """
        image = Calibration.from_json(value)
        if (study := value.get("study")) is None:
            return cls(image)
        if study.get("aggregation") not in get_args(Aggregation):
            raise DataError(
                f"calibration cannot be read: study.aggregation is {study.get('aggregation')!r}",
                "Fit it again (stage calibrate).",
            )
        return cls(image, Calibration.from_json(study), study["aggregation"])


@dataclass(frozen=True)
class Consensus:
    """One :class:`Fitted` per member of an ensemble; a single one for one network or the mean of several logits.

    ``logits`` are (C, N, K) below, one (N, K) for each of the C calibrations.
    """

    fitted: tuple[Fitted, ...]

    def each(self, logits: npt.ArrayLike) -> Floats:
        """Return the calibrated probability (M, N, K) of every network for its ``logits`` (M, N, K).

        Where there is one calibration, it is that of all M networks.

        Raises:
            DataError: there are several calibrations and another number of networks.
        """
        values = np.asarray(logits, dtype=np.float64)
        fitted = self.fitted * len(values) if len(self.fitted) == 1 else self.fitted
        self._check(values, len(fitted))
        return np.stack([one.image.probability(said) for one, said in zip(fitted, values, strict=True)])

    def image(self, logits: npt.ArrayLike) -> Floats:
        """Return the probability (N, K) of each film: the mean over the calibrated members."""
        values = np.asarray(logits, dtype=np.float64)
        self._check(values, len(self.fitted))
        mean: Floats = self.each(values).mean(axis=0)
        return mean

    def study(self, logits: npt.ArrayLike, views: Views) -> Floats:
        """Return the probability (S, K) of each study, calibrated after its views were aggregated."""
        values = np.asarray(logits, dtype=np.float64)
        self._check(values, len(self.fitted))
        mean: Floats = np.mean(
            [one.by_study(said, views) for one, said in zip(self.fitted, values, strict=True)], axis=0
        )
        return mean

    @staticmethod
    def _check(values: Floats, networks: int) -> None:
        if values.ndim != 3 or len(values) != networks:
            raise DataError(
                f"logits have shape {values.shape} for {networks} calibrated networks",
                "Predict with the networks that were calibrated: ns iterate --resume.",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the calibrations as JSON values: one as it is, several as ``{"members": [...]}``."""
        each = [one.to_json() for one in self.fitted]
        return each[0] if len(each) == 1 else {"members": each}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Consensus:
        """Return the calibrations that :meth:`to_json` wrote.

        Raises:
            DataError: a key is missing or unknown.
        """
        return cls(tuple(Fitted.from_json(one) for one in value.get("members", [value])))


def fit(
    logits: npt.ArrayLike, truth: Floats, views: Views, how: Aggregation, calibrators: Sequence[Calibrator]
) -> Consensus:
    """Return the calibrations of ``logits`` (C, N, K) to ``truth`` (N, K; 1, 0, NaN), per film and per study.

    ``calibrators`` has one function per network, because networks differ in the shift of their loss.
    """
    of_study = agreed(truth, views.study)
    fitted = []
    for said, calibrate in zip(np.asarray(logits, dtype=np.float64), calibrators, strict=True):
        fitted.append(Fitted(calibrate(said, truth), calibrate(views.aggregate(said, how), of_study), how))
    return Consensus(tuple(fitted))


# -- spread --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Spread:
    """How far networks differ over each film and label, both (N, K); NaN where one network alone was asked."""

    sd: Floats
    """Standard deviation of their probabilities (n - 1 below the line: they are a sample of what training gives)."""
    mutual_information: Floats
    """In nats: entropy of the mean probability less the mean entropy, at most log(2) (Houlsby et al. 2011; for
    ensembles Lakshminarayanan et al. 2017). It is high where networks are sure and contradict each other."""


def spread(probability: npt.ArrayLike) -> Spread:
    """Return how far the probabilities (M, N, K) of M networks differ; NaN everywhere for one network."""
    values = np.asarray(probability, dtype=np.float64)
    if len(values) < 2:
        nothing = np.full(values.shape[1:], np.nan)
        return Spread(nothing, nothing)
    mean = values.mean(axis=0)
    information = _entropy(mean) - _entropy(values).mean(axis=0)
    return Spread(values.std(axis=0, ddof=1), np.maximum(information, 0.0))  # rounding can leave -1e-17


def _entropy(probability: Floats) -> Floats:
    result: Floats = entr(probability) + entr(1 - probability)
    return result


def summary(found: Spread, truth: Floats, probability: Floats, labels: Sequence[str]) -> dict[str, Any] | None:
    """Return the spread of each label in numbers for ``evaluation.json``; ``None`` where there is no spread.

    ``brier_agreed`` and ``brier_disputed`` are the Brier scores of the half of the films with the smaller spread and of
    the other half, ties by order: the second is the larger one where the spread tells uncertain films apart.
    """
    if not len(found.sd) or np.isnan(found.sd).all():
        return None
    entries = {}
    for k, label in enumerate(labels):
        order = np.argsort(found.sd[:, k], kind="stable")
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        scores = [metrics.brier(truth[half, k], probability[half, k]) for half in halves]
        entries[label] = {
            "sd": float(found.sd[:, k].mean()),
            "sd_p90": float(np.quantile(found.sd[:, k], 0.9)),
            "mutual_information": float(found.mutual_information[:, k].mean()),
            "brier_agreed": None if np.isnan(scores[0]) else scores[0],
            "brier_disputed": None if np.isnan(scores[1]) else scores[1],
        }
    return entries
