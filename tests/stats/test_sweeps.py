from __future__ import annotations

import numpy as np
import pytest

from noisy_student.stats.sweeps import WINDOW, Sweep, smoothed

RATES = tuple(float(rate) for rate in np.geomspace(1e-6, 1, 100))


def sweep(losses: np.ndarray, noise: float = 0.0, seed: int = 0) -> Sweep:
    values = losses + noise * np.random.default_rng(seed).normal(size=len(losses))
    return Sweep(RATES[: len(losses)], tuple(values.tolist()))


def valley(lowest: float) -> np.ndarray:
    """A loss that is lowest at the rate ``lowest``, and rises faster than it fell."""
    distance = np.log10(RATES) - np.log10(lowest)
    return 0.7 - 0.4 * np.exp(-np.where(distance < 0, distance**2 / 2, 4 * distance**2))


def test_the_running_mean_is_cut_at_the_ends() -> None:
    values = np.arange(20.0) ** 2
    found = smoothed(values)
    assert found[0] == values[: WINDOW // 2 + 1].mean()
    assert found[10] == values[10 - WINDOW // 2 : 11 + WINDOW // 2].mean()
    assert found[-1] == values[-(WINDOW // 2) - 1 :].mean()


@pytest.mark.parametrize("lowest", [1e-4, 3e-3, 3e-2])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_proposal_is_a_tenth_of_the_rate_with_the_lowest_loss(lowest: float, noise: float) -> None:
    proposal = sweep(valley(lowest), noise).proposal()
    assert proposal is not None
    # The mean over nine steps (half a decade) of a lopsided valley lies to its flat side; noise moves it as much again.
    assert abs(np.log10(proposal) - np.log10(lowest / 10)) < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_does_not_fall_proposes_nothing(seed: int) -> None:
    rising = 0.7 + np.linspace(0, 1, 100) ** 2
    assert sweep(rising).proposal() is None
    assert sweep(rising, 0.02, seed).proposal() is None
    assert sweep(np.full(5, 0.7)).proposal() is None  # exploded at once
