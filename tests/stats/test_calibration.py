"""Platt scaling: what it recovers, what it never does, and how it is stored."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from noisy_student.errors import DataError
from noisy_student.stats import calibration
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.stats.metrics import ece, log_loss


def draw(seed: int, films: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits (films, 1) and truth drawn from ``slope * logit + intercept``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (films, 1))
    return logits, (rng.random((films, 1)) < expit(slope * logits + intercept)).astype(float)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -2.0), (1.0, 0.0), (2.5, 1.0), (0.2, -4.0)])
def test_known_slope_and_intercept_are_recovered(slope: float, intercept: float) -> None:
    logits, truth = draw(0, 40_000, slope, intercept)
    (platt,) = calibration.fit(logits, truth, ("Edema",), [0.0]).platt
    assert platt.slope == pytest.approx(slope, rel=0.06, abs=0.05)  # 3 standard errors of the rarest case
    assert platt.intercept == pytest.approx(intercept, abs=0.1)
    assert not platt.pooled
    assert (platt.positives, platt.negatives) == (truth.sum(), (1 - truth).sum())


@pytest.mark.parametrize("films", [0, 1, 12, 300])
def test_fit_is_the_maximum_of_the_posterior(films: int) -> None:
    logits, truth = draw(films, films, 3.0, -1.0)
    x, y = logits[:, 0], truth[:, 0]

    def negative_log_posterior(point: np.ndarray) -> float:
        z = np.exp(point[0]) * x + point[1]
        return float(np.logaddexp(0, np.where(y == 1, -z, z)).sum() + 2 * point[0] ** 2 + point[1] ** 2 / 8)

    expected = minimize(
        negative_log_posterior, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    )
    slope, intercept = calibration.map_platt(x, y)
    assert [np.log(slope), intercept] == pytest.approx(expected.x, abs=1e-5)


@pytest.mark.parametrize(("slope", "intercept"), [(0.15, -2.0), (1.0, 0.0), (2.5, 1.0)])
def test_a_model_is_matched_to_what_others_say(slope: float, intercept: float) -> None:
    """What they say has noise of its own: the match is their mean at one logit, found by scipy's optimiser."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (5_000, 2)) + 0.7
    said = expit(slope * (logits - 0.7) + intercept + rng.normal(0, 0.3, logits.shape))
    first, second = calibration.match(logits, said, ("Edema", "Fracture"), [0.7, 0.7]).platt
    assert first.slope == pytest.approx(slope, rel=0.05)
    assert first.intercept == pytest.approx(intercept, rel=0.05, abs=0.02)
    assert (first.pooled, first.positives) == (False, round(said[:, 0].sum()))

    def cost(point: np.ndarray) -> float:
        z = np.exp(point[0]) * (logits[:, 1] - 0.7) + point[1]
        return (np.logaddexp(0, z) - said[:, 1] * z).sum() + (point[0] / 0.5) ** 2 / 200 + (point[1] / 2) ** 2 / 200

    best = minimize(cost, [0.0, 0.0]).x
    assert (np.log(second.slope), second.intercept) == pytest.approx(best, abs=1e-3)


def test_a_match_of_hard_probabilities_is_a_fit() -> None:
    """But for the prior, which hardly matters for so many."""
    logits, truth = draw(1, 50_000, 0.7, -1.0)
    (match,), (fit,) = (one(logits, truth, ("Edema",), [0.2]).platt for one in (calibration.match, calibration.fit))
    assert (match.slope, match.intercept) == pytest.approx((fit.slope, fit.intercept), abs=1e-3)
    assert (match.positives, match.negatives) == (fit.positives, fit.negatives)


@pytest.mark.parametrize("said", [[[0.5, 0.5]], [[1.1]], [[np.nan]]])
def test_a_match_needs_a_probability_per_logit(said: list[list[float]]) -> None:
    with pytest.raises(DataError, match="probabilities of shape"):
        calibration.match([[0.3]], said, ("Edema",), [0.0])


def test_the_shift_of_a_weighted_loss_is_taken_out() -> None:
    rng = np.random.default_rng(1)
    probability = rng.beta(0.5, 6, (30_000, 2))
    truth = (rng.random(probability.shape) < probability).astype(float)
    shift = np.log([20.0, 5.0])
    fitted = calibration.fit(logit(probability) + shift, truth, ("Fracture", "Edema"), shift)
    assert [platt.slope for platt in fitted.platt] == pytest.approx([1, 1], abs=0.06)
    assert [platt.intercept for platt in fitted.platt] == pytest.approx([0, 0], abs=0.15)
    calibrated = fitted.probability(logit(probability) + shift)
    for column in range(2):
        assert ece(truth[:, column], calibrated[:, column], 10) < 0.01
    assert ece(truth[:, 0], expit(logit(probability) + shift)[:, 0], 10) > 0.2


def test_the_shift_alone_repairs_labels_that_cannot_be_fitted() -> None:
    shift = np.log([8.0])
    fitted = calibration.fit(np.empty((0, 1)), np.empty((0, 1)), ("Edema",), shift)
    assert fitted.probability(logit([[0.3]]) + shift)[0, 0] == pytest.approx(0.3)


def test_without_films_the_calibration_is_the_identity() -> None:
    fitted = calibration.fit(np.empty((0, 2)), np.empty((0, 2)), ("A", "B"), [0.0, 0.0])
    assert fitted.platt == (Platt(0.0, 1.0, 0.0, True, 0, 0),) * 2
    logits = np.array([[-3.0, 0.5]])
    np.testing.assert_allclose(fitted.probability(logits), expit(logits))


def test_scarce_labels_take_the_pooled_fit() -> None:
    logits, truth = (np.tile(values, (1, 3)) for values in draw(2, 4000, 0.5, -1.0))
    truth[9:, 1] = np.nan
    truth[:9, 1] = 1.0
    rare = np.flatnonzero(truth[:, 2] == 1)
    truth[rare[9:], 2] = np.nan
    fitted = calibration.fit(logits, truth, ("A", "B", "C"), [0.0, 0.0, 0.0])
    a, b, c = fitted.platt
    assert (a.pooled, b.pooled, c.pooled) == (False, True, True)
    assert (b.positives, b.negatives, c.positives) == (9, 0, 9)
    assert (b.slope, b.intercept) == (c.slope, c.intercept)
    known = ~np.isnan(truth)
    assert (b.slope, b.intercept) == calibration.map_platt(logits[known], truth[known])
    assert not calibration.fit(logits, truth, ("A", "B", "C"), [0.0, 0.0, 0.0], min_count=9).platt[2].pooled


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_class_and_separable_labels_stay_finite(value: float) -> None:
    logits = np.linspace(-80, 80, 50)[:, None]
    one = calibration.fit(logits, np.full((50, 1), value), ("A",), [0.0])
    separable = calibration.fit(logits, (logits > 0) == (value == 1), ("A",), [0.0])  # in order, or upside down
    for fitted in (one, separable):
        assert np.isfinite([fitted.platt[0].slope, fitted.platt[0].intercept]).all()
        assert fitted.platt[0].slope > 0
        assert np.isfinite(fitted.probability(logits)).all()
    assert one.platt[0].pooled
    assert not separable.platt[0].pooled


@pytest.mark.parametrize("seed", range(4))
def test_ranking_is_never_flipped(seed: int) -> None:
    logits, truth = draw(seed, 400, -2.0, 0.5)  # a model that is upside down
    calibrated = calibration.fit(logits, truth, ("A",), [1.0]).log_odds(logits)
    np.testing.assert_array_equal(np.argsort(calibrated[:, 0]), np.argsort(logits[:, 0]))


def test_few_films_are_held_near_the_identity_and_calibration_lowers_the_loss() -> None:
    logits, truth = draw(5, 60, 0.3, -1.0)
    few = calibration.fit(logits, truth, ("A",), [0.0])
    new_logits, new_truth = draw(6, 20_000, 0.3, -1.0)
    assert 0.25 < few.platt[0].slope < 0.9
    before, after = (log_loss(new_truth[:, 0], p[:, 0]) for p in (expit(new_logits), few.probability(new_logits)))
    assert after < before - 0.05


def test_json_round_trip() -> None:
    logits, truth = draw(7, 200, 1.5, 0.2)
    fitted = calibration.fit(logits, truth, ("Pleural Effusion",), [0.7])
    assert Calibration.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False))) == fitted


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"labels": ["A"]},
        {"labels": {"A": {"shift": 0.0}}},
        {"labels": {"A": {"shift": 0.0, "gain": 1.0}}},
    ],
)
def test_broken_json_is_refused(broken: dict) -> None:
    with pytest.raises(DataError, match="calibration"):
        Calibration.from_json(broken)


def test_bad_arrays_are_refused() -> None:
    logits, truth = draw(8, 20, 1.0, 0.0)
    with pytest.raises(DataError, match="do not fit 2 labels"):
        calibration.fit(logits, truth, ("A", "B"), [0.0, 0.0])
    with pytest.raises(DataError, match="shift is not finite"):
        calibration.fit(logits, truth, ("A",), [-np.inf])
    with pytest.raises(DataError, match="infinite"):
        calibration.fit(np.full_like(logits, np.inf), truth, ("A",), [0.0])
    with pytest.raises(DataError, match="calibration has 1 labels"):
        calibration.fit(logits, truth, ("A",), [0.0]).probability(np.zeros((3, 2)))
