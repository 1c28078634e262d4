"""Operating points: thresholds chosen on one set of films, and what they do on another.

A film is called positive from the threshold on (``probability >= threshold``). Shapes: ``truth``, ``probability`` and
``patients`` are (N,); ``truth`` holds 1, 0 and NaN for unknown, which is left out. Undefined is None with a reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from noisy_student.stats.metrics import Floats, checked

KINDS: Final = ("youden", "sensitivity", "specificity")
"""How a threshold is chosen: largest Youden index, at least a sensitivity, at least a specificity."""


@dataclass(frozen=True)
class Threshold:
    """A threshold, where it comes from, and why there is none."""

    value: float | None
    chosen_on: str
    target: float | None
    """The sensitivity or specificity it was to reach; None for the Youden index."""
    reason: str | None


@dataclass(frozen=True)
class Counts:
    """The confusion of one label at one threshold, in films."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def sensitivity(self) -> float | None:
        """Share of the positives that are called positive."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float | None:
        """Share of the negatives that are called negative."""
        return _share(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> float | None:
        """Share of the films called positive that are (precision)."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> float | None:
        """Share of the films called negative that are."""
        return _share(self.tn, self.tn + self.fn)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of sensitivity and PPV; None where no film is positive or called so."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def youden(truth: npt.ArrayLike, probability: npt.ArrayLike) -> float | None:
    """Return the probability with the largest sensitivity + specificity - 1 (Youden 1950), the highest of equals.

    None where a class is missing.
    """
    found = _called(truth, probability)
    if found is None:
        return None
    levels, hits, alarms = found
    # Multiplied out, so that equal indices are equal whole numbers.
    return float(levels[np.argmax(hits * alarms[-1] - alarms * hits[-1])])


def at_sensitivity(truth: npt.ArrayLike, probability: npt.ArrayLike, target: float) -> float | None:
    """Return the highest probability whose sensitivity is at least ``target``; None where a class is missing."""
    found = _called(truth, probability)
    if found is None:
        return None
    levels, hits, _ = found
    return float(levels[np.argmax(hits / hits[-1] >= target)])  # levels fall, so the first one is the highest


def at_specificity(truth: npt.ArrayLike, probability: npt.ArrayLike, target: float) -> float | None:
    """Return the lowest probability whose specificity is at least ``target``.

    None where a class is missing, and where more than ``1 - target`` of the negatives share the highest probability.
    """
    found = _called(truth, probability)
    if found is None:
        return None
    levels, _, alarms = found
    reached = np.flatnonzero((alarms[-1] - alarms) / alarms[-1] >= target)
    return float(levels[reached[-1]]) if reached.size else None


def _called(truth: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[Floats, Floats, Floats] | None:
    """Return the distinct probabilities, highest first, and how many positives and negatives are called from each on.

    None where a class is missing.
    """
    truth, probability = checked(truth, probability)
    known = ~np.isnan(truth)
    levels, level = np.unique(probability[known], return_inverse=True)
    hits: Floats = np.cumsum(np.bincount(level, truth[known], minlength=levels.size)[::-1], dtype=np.float64)
    alarms: Floats = np.cumsum(np.bincount(level, 1 - truth[known], minlength=levels.size)[::-1], dtype=np.float64)
    return (levels[::-1], hits, alarms) if levels.size and hits[-1] and alarms[-1] else None


def choose(
    truth: npt.ArrayLike, probability: npt.ArrayLike, chosen_on: str, sensitivity: float, specificity: float
) -> dict[str, Threshold]:
    """Return the threshold of each of :data:`KINDS`, chosen on these films, which ``chosen_on`` names."""
    values = {
        "youden": youden(truth, probability),
        "sensitivity": at_sensitivity(truth, probability, sensitivity),
        "specificity": at_specificity(truth, probability, specificity),
    }
    targets = {"youden": None, "sensitivity": sensitivity, "specificity": specificity}
    one_class = f"no threshold: the films it is chosen on ({chosen_on}) do not hold both classes"
    tied = f"no threshold reaches a specificity of {specificity:g} on {chosen_on}"
    return {
        kind: Threshold(
            value,
            chosen_on,
            targets[kind],
            None if value is not None else one_class if values["youden"] is None else tied,
        )
        for kind, value in values.items()
    }


def count(truth: npt.ArrayLike, probability: npt.ArrayLike, threshold: float) -> Counts:
    """Return how many films are rightly and wrongly called at ``threshold``."""
    truth, probability = checked(truth, probability)
    called = probability >= threshold
    return Counts(*(int(cell.sum()) for cell in _cells(truth, called)))


def _cells(truth: Floats, called: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], ...]:
    return called & (truth == 1), called & (truth == 0), ~called & (truth == 1), ~called & (truth == 0)


def measure(
    truth: npt.ArrayLike, probability: npt.ArrayLike, patients: npt.ArrayLike, chosen: Threshold, confidence: float
) -> dict[str, Any]:
    """Return counts, rates and intervals at a threshold as they stand in ``evaluation.json``.

    Rates that are undefined are None; ``reason`` says why.
    """
    entry: dict[str, Any] = {"threshold": chosen.value, "chosen_on": chosen.chosen_on, "target": chosen.target}
    if chosen.value is None:
        nothing = dict.fromkeys(("tp", "fp", "fn", "tn", "sensitivity", "specificity", "ppv", "npv", "f1"))
        return entry | nothing | {"ci": {"sensitivity": None, "specificity": None}, "reason": chosen.reason}
    truth, probability = checked(truth, probability, patients)
    found = count(truth, probability, chosen.value)
    rates = {name: getattr(found, name) for name in ("sensitivity", "specificity", "ppv", "npv", "f1")}
    right = (probability >= chosen.value) == (truth == 1)
    codes = np.asarray(patients)
    bounds = {
        name: clustered_interval(right[truth == value], codes[truth == value], confidence)
        for name, value in (("sensitivity", 1), ("specificity", 0))
    }
    lacking = {
        "sensitivity": "no film is positive",
        "specificity": "no film is negative",
        "ppv": "no film is called positive",
        "npv": "no film is called negative",
    }
    reasons = [reason for name, reason in lacking.items() if rates[name] is None]
    return {
        **entry,
        **{name: getattr(found, name) for name in ("tp", "fp", "fn", "tn")},
        **rates,
        "ci": {name: None if bound is None else list(bound) for name, bound in bounds.items()},
        "reason": "; ".join(reasons) or None,
    }


def clustered_interval(hits: npt.ArrayLike, patients: npt.ArrayLike, confidence: float) -> tuple[float, float] | None:
    """Return the interval of the share of ``hits`` (N,), films of a patient being alike; None without a film.

    It is Wilson's (1927) with the effective number of films of Rao and Scott (1992): the films divided by how much
    clustering inflates the variance of the share, never more than there are. Where all films agree, nothing tells
    the inflation, and patients are counted in place of films.
    """
    hits = np.asarray(hits, dtype=np.float64)
    if not hits.size:
        return None
    codes = np.unique(np.asarray(patients), return_inverse=True)[1]
    share, films, clusters = float(hits.mean()), hits.size, int(codes.max()) + 1
    effective = float(clusters)
    if 0 < share < 1 and 1 < clusters < films:
        residual = np.bincount(codes, hits - share)
        variance = clusters / (clusters - 1) * float(residual @ residual) / films**2
        effective = min(float(films), share * (1 - share) / variance) if variance > 0 else float(films)
    z = float(ndtri((1 + confidence) / 2))
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    # At a share of 0 or 1 one bound is that share exactly, but for rounding.
    return max(0.0, centre - half) if share else 0.0, min(1.0, centre + half) if share < 1 else 1.0
