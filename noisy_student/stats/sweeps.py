"""The learning-rate sweep read: where the loss was lowest, and the rate that this suggests.

Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3: the rate rises with every step of
a short training; the loss falls, stays and explodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.stats.metrics import Floats

WINDOW: Final = 9
"""Steps over which the losses are averaged: batches differ by more than neighbouring rates do."""
SHARE: Final = 10
"""The rate proposed is the one of the lowest loss divided by this: there the loss still falls, and clearly."""


@dataclass(frozen=True)
class Sweep:
    """A sweep: the loss of each step before it was made, at the rate with which it was made."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    def smooth(self) -> Floats:
        """Return the losses (N,) averaged over the :data:`WINDOW` steps around each; fewer at the ends."""
        return smoothed(self.losses)

    def proposal(self) -> float | None:
        """Return the rate proposed, ``None`` where the loss has not fallen by more than batches differ."""
        if len(self.losses) < WINDOW:
            return None
        curve = self.smooth()
        lowest = int(np.argmin(curve))
        noise = float(np.std(np.asarray(self.losses[:WINDOW]) - curve[:WINDOW])) / WINDOW**0.5
        fell = float(curve[0] - curve[lowest]) > 2 * noise
        return self.rates[lowest] / SHARE if fell and lowest > 0 else None


def smoothed(values: npt.ArrayLike) -> Floats:
    """Return the running mean (N,) of ``values`` over :data:`WINDOW` places, cut at the ends."""
    given = np.asarray(values, dtype=np.float64)
    half = WINDOW // 2
    return np.array([given[max(0, place - half) : place + half + 1].mean() for place in range(len(given))])
