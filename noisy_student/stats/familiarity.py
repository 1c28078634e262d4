"""How far something is from what a model has seen: a Mahalanobis distance, and from where on it is far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.stats.metrics import Floats

FAR: Final = 0.995
"""Share of held-out films like those of training that are nearer than the limit."""
FEWEST: Final = 20
"""Below this many films there is no telling what is usual."""


@dataclass(frozen=True, eq=False)
class Familiar:
    """The mean (D,) and ``whitening`` (D, D) of what was seen; from ``limit`` on a distance is far."""

    mean: Floats
    whitening: Floats
    limit: float

    def distance(self, values: npt.ArrayLike) -> Floats:
        """Return the Mahalanobis distance (N,) of ``values`` (N, D)."""
        away = (np.asarray(values, dtype=np.float64) - self.mean) @ self.whitening
        found: Floats = np.sqrt(np.square(away).sum(axis=1))
        return found

    def far(self, values: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Return which (N,) of ``values`` (N, D) are far; those that are not finite are."""
        return ~(self.distance(values) <= self.limit)


def familiar(values: npt.ArrayLike) -> Familiar | None:
    """Return what is usual among ``values`` (N, D); ``None`` where there are fewer than 20.

    Mean and covariance are of two thirds of the rows, the limit is a quantile of the others' distances: those of rows
    that the covariance was fitted to are too small, by far where D is not small beside N. The covariance is that of
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004), of columns divided
    by their standard deviation. Rows have to be in no order.
    """
    seen = np.asarray(values, dtype=np.float64)
    if len(seen) < FEWEST:
        return None
    fitted, held = seen[: 2 * len(seen) // 3], seen[2 * len(seen) // 3 :]
    mean, deviation = fitted.mean(axis=0), fitted.std(axis=0)
    # A column that never moved: any change is unusual, as far as the others show what a small change is.
    deviation = np.maximum(deviation, 1e-6 * max(float(deviation.max()), 1e-6))
    level, vectors = np.linalg.eigh(ledoit_wolf((fitted - mean) / deviation))
    whitening = vectors / np.sqrt(np.maximum(level, 1e-12)) / deviation[:, None]
    found = Familiar(mean, whitening, np.inf)
    return Familiar(mean, whitening, float(np.quantile(found.distance(held), FAR)))


def ledoit_wolf(centred: Floats) -> Floats:
    """Return the shrunk covariance (D, D) of ``centred`` (N, D), whose columns have mean 0."""
    count, width = centred.shape
    covariance: Floats = centred.T @ centred / count
    level = float(np.trace(covariance)) / width
    spread = float(np.square(covariance).sum()) - width * level**2
    noise = (
        float(np.square(np.square(centred).sum(axis=1)).sum()) / count - float(np.square(covariance).sum())
    ) / count
    share = 1.0 if spread <= 0 else min(1.0, max(0.0, noise / spread))
    shrunk: Floats = (1 - share) * covariance + share * level * np.eye(width)
    return shrunk
