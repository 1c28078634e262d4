"""From a loss's logits to log-odds: what a loss does to the probabilities behind its best logits is undone, if known.

A loss that charges l1(z) for a positive and l0(z) for a negative has its least mean cost, over films that are positive
with probability p, where p l1'(z) + (1 - p) l0'(z) = 0, so log(p / (1 - p)) = log l0'(z) - log(-l1'(z)): the link of a
proper composite loss (Reid and Williamson, "Composite binary losses", JMLR 2010). It is z itself for cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

from noisy_student.stats.metrics import Floats

RARE: Final = 6.0
"""Log-odds beyond which smoothed targets, and negatives that are free, tell no probabilities apart."""
NEAR: Final = 0.1
"""How near, in log-odds, to the largest that a loss can tell apart its logits are still believed."""


@dataclass(frozen=True)
class Link:
    """What the loss of a model does to log-odds; ``identity`` where that is nothing, or not known."""

    name: str = "identity"
    """``identity``, ``focal`` or ``asymmetric``."""
    gamma_positive: float = 0.0
    gamma_negative: float = 0.0
    free: float = 0.0
    """Of the asymmetric loss: the probability up to which negatives are free."""
    odds: float = 0.0
    """Log of what positives weigh over what negatives weigh."""
    smoothing: float = 0.0
    """Label smoothing of the targets."""

    @classmethod
    def of_loss(cls, loss: Mapping[str, Any]) -> Link:
        """Return the link of a loss from its settings, the table ``loss`` of a phase."""
        name, smoothing = loss["name"], loss["smoothing"]
        if name == "focal":
            odds = 0.0 if loss["alpha"] is None else float(logit(loss["alpha"]))
            return cls("focal", loss["gamma"], loss["gamma"], odds=odds, smoothing=smoothing)
        if name == "asymmetric":
            gammas = loss["gamma_positive"], loss["gamma_negative"]
            return cls("asymmetric", *gammas, free=loss["shift"], smoothing=smoothing)
        return cls() if name == "auc_margin" else cls(smoothing=smoothing)

    def log_odds(self, logits: npt.ArrayLike) -> Floats:
        """Return the log-odds behind ``logits`` of any shape: finite and never falling."""
        z: Floats = np.asarray(logits, dtype=np.float64)
        if self.free:
            z = _continued(self._focusing, z, *corners(self))
        elif self.name != "identity":
            z = self._focusing(z)
        z = z - self.odds
        if self.smoothing:
            end = float(logit(self.smoothing / 2 + (1 - self.smoothing) * expit(-RARE)))
            z = _continued(self._unsmoothed, z, end, -end)
        return z

    def _focusing(self, z: Floats) -> Floats:
        """Return log l0'(p) - log(-l1'(p)) at p = sigmoid(z); Charoenphakdee et al., CVPR 2021, for the focal loss."""
        g1, g0 = self.gamma_positive, self.gamma_negative
        positive: Floats = (1 - g1) * np.logaddexp(0, z) + _log_sum(g1, -z)
        if not self.free:
            negative: Floats = (1 - g0) * np.logaddexp(0, -z) + _log_sum(g0, z)
        else:
            over = expit(z) - self.free  # above 0 between the corners
            negative = (g0 - 1) * np.log(over) + np.log(over / (1 - over) - g0 * np.log1p(-over))
        return negative - positive

    def _unsmoothed(self, z: Floats) -> Floats:
        """Return the log-odds of (q - s / 2) / (1 - s) at q = sigmoid(z), s being the smoothing."""
        half = self.smoothing / 2
        log_odds: Floats = np.log(expit(z) - half) - np.log(expit(-z) - half)
        return log_odds


IDENTITY: Final = Link()


def _log_sum(gamma: float, z: Floats) -> Floats:
    """Return log(gamma * softplus(z) + e^z)."""
    if not gamma:
        return z
    # softplus(z) is e^z within rounding far below 0, where its logarithm would be that of 0.
    log_softplus = np.where(z < -30, z, np.log(np.logaddexp(0, np.maximum(z, -30))))
    return np.logaddexp(math.log(gamma) + log_softplus, z)


def _continued(function: Callable[[Floats], Floats], z: Floats, low: float, high: float) -> Floats:
    """Return ``function(z)`` between ``low`` and ``high``, and beyond them lines of slope 1, which keep every order."""
    inside = np.clip(z, low, high)
    return function(inside) + (z - inside)


@lru_cache(maxsize=64)
def corners(link: Link) -> tuple[float, float]:
    """Return the logits between which an asymmetric loss with free negatives tells probabilities apart.

    Below the first, films are negative with odds of e^-RARE or less (or free, the loss does not say how rare); above
    the second, they are within NEAR of the largest log-odds that it can tell apart.
    """

    def at(z: float) -> float:
        return float(link._focusing(np.asarray(z)))

    lowest, highest = float(logit(link.free)) + 1e-9, 30.0
    low = lowest if at(lowest) > -RARE else brentq(lambda z: at(z) + RARE, lowest, highest)
    top = at(highest)
    return float(low), float(brentq(lambda z: at(z) - top + NEAR, low, highest))
