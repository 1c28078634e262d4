"""A calibration moved by local labels, and whether it helped: judged on patients it was not fitted to.

The new calibration starts from the run's own. Platt's slope and intercept are fitted to what the run's calibration says
of the local films (its log-odds), with the same priors: "no change" is where they are centred, a few films move a label
little and many move it where they say. Both steps together are one Platt of the network's logits again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student.stats import calibration, metrics
from noisy_student.stats.calibration import Calibration
from noisy_student.stats.consensus import Consensus, Views
from noisy_student.stats.evaluation import agreed
from noisy_student.stats.intervals import PairedComparison, compare
from noisy_student.stats.metrics import Floats, Ints

MEASURES: Final = ("brier", "log_loss", "ece")


def moved(own: Calibration, logits: npt.ArrayLike, truth: npt.ArrayLike) -> Calibration:
    """Return ``own`` moved by the ``truth`` (N, K; 1, 0, NaN) of local films with ``logits`` (N, K).

    Labels without a known film stay as they are. Of labels with fewer than 10 positives or negatives the change is that
    of all labels with a known film together (``pooled``).

    Raises:
        DataError: shapes do not fit together, or a logit is not finite.
    """
    truth = np.asarray(truth, dtype=np.float64)
    log_odds = own.log_odds(logits)
    known = np.flatnonzero((~np.isnan(truth)).any(axis=0))
    names = [own.labels[k] for k in known]
    change = calibration.fit(log_odds[:, known], truth[:, known], names, np.zeros(len(known)))
    platts = list(own.platt)
    for k, new in zip(known, change.platt, strict=True):
        before = own.platt[k]
        platts[k] = replace(
            before,
            slope=new.slope * before.slope,
            intercept=new.slope * before.intercept + new.intercept,
            pooled=new.pooled,
            positives=new.positives,
            negatives=new.negatives,
        )
    return replace(own, platt=tuple(platts))


def recalibrated(own: Consensus, logits: Floats, truth: Floats, views: Views) -> Consensus:
    """Return every calibration of ``own``, per film and per study, moved by the local films.

    Args:
        own: the calibrations of the run.
        logits: (C, N, K), for each of the C calibrations.
        truth: (N, K) 1, 0 or NaN.
        views: the studies of the films.
    """
    of_study = agreed(truth, views.study)
    fitted = []
    for one, said in zip(own.fitted, logits, strict=True):
        study = one.study and moved(one.study, views.aggregate(said, one.aggregation), of_study)
        fitted.append(replace(one, image=moved(one.image, said, truth), study=study))
    return Consensus(tuple(fitted))


def held_out(own: Consensus, logits: Floats, truth: Floats, views: Views, fold: Ints) -> tuple[Floats, Floats]:
    """Return what the new calibration says of each film (N, K) and of each study (S, K) that it has not seen.

    Films of ``fold`` (N,) k are judged by the calibration that was fitted to all others; a study is in one fold.
    """
    _, first = np.unique(views.study, return_index=True)
    image, study = own.image(logits), own.study(logits, views)
    for number in np.unique(fold):
        rest = fold != number
        fitted = recalibrated(own, logits[:, rest], truth[rest], Views(views.study[rest], views.frontal[rest]))
        image[~rest] = fitted.image(logits)[~rest]
        study[~rest[first]] = fitted.study(logits, views)[~rest[first]]
    return image, study


@dataclass(frozen=True, eq=False)
class Helped:
    """Before and after on the same held-out films: measures per label, and the comparison over all labels."""

    labels: dict[str, dict[str, Any]]
    found: PairedComparison


def helped(
    truth: Floats,
    before: Floats,
    after: Floats,
    patients: Ints,
    labels: Sequence[str],
    *,
    bins: int,
    replicates: int,
    confidence: float,
    seed: int,
) -> Helped:
    """Return Brier score, log loss and ECE of each label before and after, and the change of the mean log loss.

    ``truth`` and the two probabilities are (N, K); a measure without a known film is None.
    """
    entries: dict[str, dict[str, Any]] = {}
    for k, label in enumerate(labels):
        entries[label] = {
            "positives": int((truth[:, k] == 1).sum()),
            "negatives": int((truth[:, k] == 0).sum()),
            "before": _measured(truth[:, k], before[:, k], bins),
            "after": _measured(truth[:, k], after[:, k], bins),
        }
    found = compare(
        truth,
        before,
        after,
        patients,
        range(len(labels)),
        replicates,
        seed,
        confidence,
        probability_a=before,
        probability_b=after,
        names=labels,
    )
    return Helped(entries, found)


def _measured(truth: Floats, probability: Floats, bins: int) -> dict[str, float | None]:
    values = (
        metrics.brier(truth, probability),
        metrics.log_loss(truth, probability),
        metrics.ece(truth, probability, bins),
    )
    return {name: None if np.isnan(value) else value for name, value in zip(MEASURES, values, strict=True)}
