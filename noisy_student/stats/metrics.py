"""Measures of one label: discrimination (AUROC, average precision), calibration (ECE, reliability) and proper scores.

Shapes: ``truth``, ``score``, ``probability`` and ``weight`` are (N,). ``truth`` holds 1, 0 and NaN for unknown; unknown
films are left out, and so are films of weight 0. What is not defined is NaN, never 0 or 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noisy_student.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss, so that one film costs at most 16.1."""


@dataclass(frozen=True)
class Reliability:
    """The points of a reliability diagram, one per bin that holds films, in order of probability."""

    mean_probability: Floats
    """Mean predicted probability of the bin."""
    frequency: Floats
    """Share of the bin that is positive."""
    count: Floats
    """Films in the bin (sum of weights)."""


def checked(truth: npt.ArrayLike, score: npt.ArrayLike, patients: npt.ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return ``truth`` and ``score`` as float64 arrays after checking that they can be measured.

    Raises:
        DataError: shapes differ, ``truth`` is not 0, 1 or NaN, or ``score`` is NaN where the truth is known.
    """
    truth, score = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if truth.shape != score.shape:
        raise DataError(
            f"truth has shape {truth.shape} and score {score.shape}", "Give one score per film and label of the truth."
        )
    if patients is not None and np.shape(patients) != truth.shape[:1]:
        raise DataError(
            f"patients has shape {np.shape(patients)} for {truth.shape[0]} films", "Give one patient code per film."
        )
    unknown = np.isnan(truth)
    other = truth[~unknown & (truth != 0) & (truth != 1)]
    if other.size:
        raise DataError(
            f"truth holds {other[0]:g}, which is not 0, 1 or NaN (unknown)",
            "Turn uncertain values (-1) into NaN before measuring.",
        )
    if np.isnan(score[~unknown]).any():
        raise DataError("score is NaN for a film whose truth is known", "Look for a model that diverged.")
    return truth, score


def _known(truth: npt.ArrayLike, score: npt.ArrayLike, weight: npt.ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Return truth, score and weight of the films that count."""
    truth, score = checked(truth, score)
    weights = np.ones_like(truth) if weight is None else np.asarray(weight, dtype=np.float64)
    if weights.shape != truth.shape or not (np.isfinite(weights) & (weights >= 0)).all():
        raise DataError("weight must be one number >= 0 per film", "Check the weights.")
    keep = ~np.isnan(truth) & (weights > 0)
    return truth[keep], score[keep], weights[keep]


def _tied(truth: Floats, score: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Return the weight of positives and of negatives at each distinct score, highest score first."""
    levels, level = np.unique(score, return_inverse=True)
    positive: Floats = np.bincount(level, weight * truth, minlength=levels.size).astype(np.float64)
    negative: Floats = np.bincount(level, weight * (1 - truth), minlength=levels.size).astype(np.float64)
    return positive[::-1], negative[::-1]


def auroc(truth: npt.ArrayLike, score: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    NaN unless both classes are present.
    """
    positive, negative = _tied(*_known(truth, score, weight))
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return float("nan")
    # A level's positives beat all negatives of lower levels and tie with their own.
    beaten = negative.sum() - np.cumsum(negative) + negative / 2
    return float(positive @ beaten / pairs)


def average_precision(truth: npt.ArrayLike, score: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the average precision, the sum over thresholds of (recall step) x precision, without interpolation.

    NaN unless both classes are present.
    """
    positive, negative = _tied(*_known(truth, score, weight))
    if positive.sum() == 0 or negative.sum() == 0:
        return float("nan")
    hits = np.cumsum(positive)
    precision = hits / (hits + np.cumsum(negative))
    return float(positive @ precision / hits[-1])


def brier(truth: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the mean squared distance of probability and truth (Brier 1950), in [0, 1]; NaN without a known film."""
    truth, probability, weight = _known(truth, probability, weight)
    return _mean(np.square(probability - truth), weight)


def log_loss(truth: npt.ArrayLike, probability: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Return the mean cross-entropy in nats, probabilities clipped by :data:`CLIP`; NaN without a known film."""
    truth, probability, weight = _known(truth, probability, weight)
    return _mean(cross_entropy(truth, probability), weight)


def cross_entropy(truth: npt.ArrayLike, probability: npt.ArrayLike) -> Floats:
    """Return the cross-entropy of each film in nats, same shape as ``truth``; NaN where the truth is unknown."""
    truth = np.asarray(truth, dtype=np.float64)
    clipped = np.clip(np.asarray(probability, dtype=np.float64), CLIP, 1 - CLIP)
    loss: Floats = -(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped))
    return loss


def _mean(values: Floats, weight: Floats) -> float:
    return float(values @ weight / weight.sum()) if values.size else float("nan")


def reliability(
    truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int, weight: npt.ArrayLike | None = None
) -> Reliability:
    """Return the reliability diagram over at most ``bins`` bins of about equal mass.

    Films of one probability share a bin, so that the result does not depend on the order of films; with many ties
    there are fewer bins.
    """
    truth, probability, weight = _known(truth, probability, weight)
    if not truth.size:
        return Reliability(np.empty(0), np.empty(0), np.empty(0))
    _, level = np.unique(probability, return_inverse=True)
    mass = np.bincount(level, weight)
    middle = (np.cumsum(mass) - mass / 2) / mass.sum()
    _, chosen = np.unique(np.floor(middle * bins)[level], return_inverse=True)
    count: Floats = np.bincount(chosen, weight).astype(np.float64)
    return Reliability(
        mean_probability=np.bincount(chosen, weight * probability) / count,
        frequency=np.bincount(chosen, weight * truth) / count,
        count=count,
    )


def ece(truth: npt.ArrayLike, probability: npt.ArrayLike, bins: int, weight: npt.ArrayLike | None = None) -> float:
    """Return the expected calibration error over bins of equal mass (Nixon et al. 2019), in [0, 1].

    It is the mean over films of |mean probability - frequency| of their bin; NaN without a known film.
    """
    diagram = reliability(truth, probability, bins, weight)
    return _mean(np.abs(diagram.mean_probability - diagram.frequency), diagram.count)


def roc_curve(
    truth: npt.ArrayLike, score: npt.ArrayLike, max_points: int = 200, weight: npt.ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Return false and true positive rates from (0, 0) to (1, 1), at most ``max_points`` of them.

    A longer curve is thinned to points that lie on it; with 200 points the area changes by less than 0.002. Both are
    empty unless both classes are present.
    """
    positive, negative = _tied(*_known(truth, score, weight))
    if positive.sum() == 0 or negative.sum() == 0:
        return np.empty(0), np.empty(0)
    tpr = np.concatenate([[0.0], np.cumsum(positive) / positive.sum()])
    fpr = np.concatenate([[0.0], np.cumsum(negative) / negative.sum()])
    fpr[-1] = tpr[-1] = 1.0
    corner = np.ones(fpr.size, dtype=bool)
    steps_x, steps_y = np.diff(fpr), np.diff(tpr)
    # A point between two steps of one direction (both up or both right) adds nothing to the drawing.
    corner[1:-1] = ~(((steps_x[1:] == 0) & (steps_x[:-1] == 0)) | ((steps_y[1:] == 0) & (steps_y[:-1] == 0)))
    fpr, tpr = fpr[corner], tpr[corner]
    if fpr.size <= max_points:
        return fpr, tpr
    # Even steps along fpr + tpr, shifted by a golden-ratio sequence: plain even steps can fall in step with a regular
    # staircase and then cut every corner on the same side.
    shift = (np.arange(max_points) * 0.6180339887498949) % 1 - 0.5
    length = 2 * (np.arange(max_points) + 0.5 * shift) / (max_points - 1)
    length[0], length[-1] = 0.0, 2.0
    return np.interp(length, fpr + tpr, fpr), np.interp(length, fpr + tpr, tpr)


def precision_recall_curve(truth: npt.ArrayLike, score: npt.ArrayLike, max_points: int = 200) -> tuple[Floats, Floats]:
    """Return recall, rising from the highest threshold to 1, and precision, at most ``max_points`` of them.

    The points are those of thresholds that recall another positive; of a longer curve, those nearest to even steps of
    recall. Both are empty unless both classes are present.
    """
    positive, negative = _tied(*_known(truth, score, None))
    if positive.sum() == 0 or negative.sum() == 0:
        return np.empty(0), np.empty(0)
    hits = np.cumsum(positive)
    precision = hits / (hits + np.cumsum(negative))
    step = positive > 0
    recall, precision = hits[step] / hits[-1], precision[step]
    if recall.size > max_points:
        kept = np.unique(np.searchsorted(recall, np.linspace(recall[0], 1, max_points)).clip(max=recall.size - 1))
        recall, precision = recall[kept], precision[kept]
    return recall, precision
