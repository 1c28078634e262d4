"""Calibration errors and the parts of the Brier score, against scikit-learn, sums by hand and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from noisy_student.errors import DataError
from noisy_student.stats import metrics, reliability


def sample(seed: int, films: int = 400, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.8, 2, size=films)
    truth = (rng.random(films) < probability**0.7).astype(float)
    return truth, probability if levels is None else np.round(probability * levels) / levels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [None, 10, 40])
def test_equal_width_bins_are_those_of_scikit_learn(seed: int, levels: int | None) -> None:
    truth, probability = sample(seed, levels=levels)
    found = reliability.diagram_of_equal_width(truth, probability, 10)
    frequency, mean = calibration_curve(truth, probability, n_bins=10, strategy="uniform")
    np.testing.assert_allclose(found.frequency, frequency, atol=1e-12)
    np.testing.assert_allclose(found.mean_probability, mean, atol=1e-12)
    assert found.count.sum() == truth.size
    by_hand = np.abs(frequency - mean) @ found.count / truth.size
    assert reliability.ece_width(truth, probability, 10) == pytest.approx(by_hand, abs=1e-12)


def bins_of(probability: np.ndarray, bins: int) -> np.ndarray:
    """The equal-mass bin of each film when no two probabilities are equal."""
    rank = np.argsort(np.argsort(probability))
    return np.floor((rank + 0.5) / probability.size * bins).astype(int)


@pytest.mark.parametrize("seed", range(4))
def test_the_parts_add_up_to_the_brier_score_and_are_those_of_stephenson(seed: int) -> None:
    truth, probability = sample(seed)
    parts = reliability.brier_parts(truth, probability, 10)
    total = parts.reliability - parts.resolution + parts.uncertainty
    assert total == pytest.approx(metrics.brier(truth, probability), abs=1e-12)
    base, weights = truth.mean(), []
    calibration = resolution = within = together = 0.0
    for index in range(10):
        own = bins_of(probability, 10) == index
        p, y = probability[own], truth[own]
        weights.append(own.mean())
        calibration += own.mean() * (p.mean() - y.mean()) ** 2
        resolution += own.mean() * (y.mean() - base) ** 2
        within += own.mean() * p.var()
        together += 2 * own.mean() * ((p - p.mean()) * (y - y.mean())).mean()
    assert sum(weights) == pytest.approx(1)
    assert parts.reliability == pytest.approx(calibration, abs=1e-12)
    assert parts.uncertainty == pytest.approx(base * (1 - base), abs=1e-12)
    assert parts.resolution == pytest.approx(resolution - within + together, abs=1e-12)


def test_with_one_probability_per_bin_the_parts_are_murphys() -> None:
    truth, probability = sample(7, levels=4)
    parts = reliability.brier_parts(truth, probability, 1000)
    base = truth.mean()
    expected = sum(
        (probability == level).mean() * (truth[probability == level].mean() - base) ** 2
        for level in np.unique(probability)
    )
    assert parts.resolution == pytest.approx(expected, abs=1e-12)


def test_the_debiased_error_is_the_error_less_what_redrawn_frequencies_add() -> None:
    truth, probability = sample(3)
    diagram = metrics.reliability(truth, probability, 8)
    rng = np.random.default_rng(0)
    spread = np.sqrt(diagram.frequency * (1 - diagram.frequency) / diagram.count)
    drawn = diagram.frequency + spread * rng.normal(size=(400_000, spread.size))
    error = metrics.ece(truth, probability, 8)
    again = (np.abs(drawn - diagram.mean_probability) @ diagram.count / truth.size).mean()
    assert again > error
    expected = error - (again - error)
    assert reliability.ece_debiased(truth, probability, 8) == pytest.approx(expected, abs=2e-4)  # 400,000 draws


def test_a_calibrated_model_has_less_error_without_the_bias_and_a_wrong_one_keeps_it() -> None:
    rng = np.random.default_rng(5)
    plain, debiased, wrong = [], [], []
    for _ in range(200):
        probability = rng.beta(1, 3, size=300)
        truth = (rng.random(300) < probability).astype(float)
        plain.append(metrics.ece(truth, probability, 10))
        debiased.append(reliability.ece_debiased(truth, probability, 10))
        off = (rng.random(300) < np.clip(probability + 0.15, 0, 1)).astype(float)
        wrong.append(reliability.ece_debiased(off, probability, 10))
    assert np.mean(debiased) < 0.6 * np.mean(plain)
    assert np.mean(wrong) == pytest.approx(0.15, abs=0.01)


def test_what_is_not_defined_is_nan_and_unknown_films_are_left_out() -> None:
    truth, probability = sample(4)
    nothing = np.full(5, np.nan)
    for measure in (reliability.ece_width, reliability.ece_debiased):
        assert np.isnan(measure(nothing, probability[:5], 10))
        more = measure(np.append(truth, np.nan), np.append(probability, 0.99), 10)
        assert more == measure(truth, probability, 10)
        assert measure(np.zeros(5), np.zeros(5), 10) == 0.0
    assert np.isnan(reliability.brier_parts(nothing, probability[:5], 10).resolution)
    assert reliability.brier_parts(np.append(truth, np.nan), np.append(probability, 0.9), 10) == (
        reliability.brier_parts(truth, probability, 10)
    )
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        reliability.ece_width([0.0, 1.0], [0.2, 1.2], 10)
