"""The link of a loss against the probabilities for which a logit is the best, found by brute force."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from noisy_student.config import LossConfig
from noisy_student.stats import calibration
from noisy_student.stats.calibration import Calibration
from noisy_student.stats.links import RARE, Link

PROBABILITIES = np.array([0.004, 0.02, 0.1, 0.3, 0.5, 0.8, 0.95])
SETTINGS = {
    "bce": {},
    "smoothed": {"smoothing": 0.1},
    "focal 2": {"name": "focal"},
    "focal 0.5": {"name": "focal", "gamma": 0.5},
    "focal 0": {"name": "focal", "gamma": 0.0, "alpha": 0.25},
    "focal, weighed and smoothed": {"name": "focal", "alpha": 0.8, "smoothing": 0.05},
    "asymmetric without free negatives": {"name": "asymmetric", "gamma_positive": 1.0, "shift": 0.0},
    "asymmetric": {"name": "asymmetric"},
    "asymmetric, smoothed": {"name": "asymmetric", "gamma_negative": 2.0, "smoothing": 0.02},
    "asymmetric without focusing": {"name": "asymmetric", "gamma_negative": 0.0},
}


def charges(loss: LossConfig, z: float) -> tuple[float, float]:
    """Return what a positive and a negative cost at the logit z, written out."""
    p = expit(z)
    positive, negative = -np.log(p), -np.log1p(-p)
    if loss.name == "focal":
        weights = (1.0, 1.0) if loss.alpha is None else (loss.alpha, 1 - loss.alpha)
        return weights[0] * (1 - p) ** loss.gamma * positive, weights[1] * p**loss.gamma * negative
    if loss.name == "asymmetric":
        q = max(p - loss.shift, 0.0)
        free = 0.0 if q == 0 else q**loss.gamma_negative * -np.log1p(-q)
        return (1 - p) ** loss.gamma_positive * positive, free
    return positive, negative


def best_logit(loss: LossConfig, probability: float) -> float:
    soft = probability * (1 - loss.smoothing) + loss.smoothing / 2

    def cost(z: float) -> float:
        positive, negative = charges(loss, z)
        return float(soft * positive + (1 - soft) * negative)

    grid = np.linspace(-12, 12, 2401)
    near = grid[int(np.argmin([cost(z) for z in grid]))]
    return float(minimize_scalar(cost, bounds=(near - 0.02, near + 0.02), method="bounded", options={"xatol": 1e-9}).x)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_gives_back_the_probability_for_which_a_logit_is_the_best(name: str) -> None:
    loss = LossConfig(**SETTINGS[name])
    link = Link.of_loss(loss.model_dump(mode="json"))
    known = PROBABILITIES
    if loss.name == "asymmetric" and loss.shift:
        known = known[known < 0.9]  # free negatives: no logit is the best for what is nearly always positive
    if name == "asymmetric without focusing":
        known = known[known > 0.06]  # nor, with a kink at the end of what is free, for what is rarer than that
    found = expit(link.log_odds([best_logit(loss, probability) for probability in known]))
    np.testing.assert_allclose(found, known, rtol=2e-3)  # a minimum is found within the root of the rounding


@pytest.mark.parametrize("name", SETTINGS)
def test_it_keeps_the_order_of_films_and_stays_finite(name: str) -> None:
    link = Link.of_loss(LossConfig(**SETTINGS[name]).model_dump(mode="json"))
    z = np.linspace(-25, 25, 5001)
    assert (np.diff(link.log_odds(z)) > 0).all()
    extreme = link.log_odds([-1e4, -700.0, 0.0, 700.0, 1e4])
    assert np.isfinite(extreme).all()
    assert (np.diff(extreme) > 0).all()


def test_cross_entropy_and_the_auc_margin_have_nothing_to_undo() -> None:
    for loss in (
        LossConfig(),
        LossConfig(name="bce"),
        LossConfig(name="logit_adjusted"),
        LossConfig(name="auc_margin"),
    ):
        link = Link.of_loss(loss.model_dump(mode="json"))
        assert link == Link()
        np.testing.assert_array_equal(link.log_odds([-3.0, 0.5]), [-3.0, 0.5])


def test_smoothed_targets_tell_no_probabilities_apart_beyond_their_ends() -> None:
    link = Link(smoothing=0.2)
    end = logit(0.1 + 0.8 * expit(-RARE))
    assert link.log_odds(end) == pytest.approx(-RARE)
    assert link.log_odds([end - 2, -end + 3]) == pytest.approx([-RARE - 2, RARE + 3])


def test_a_calibration_keeps_the_link_and_what_was_drawn() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((400, 2)) < 0.3).astype(float)
    link = Link("focal", 2.0, 2.0, smoothing=0.1)
    fitted = calibration.fit(rng.normal(size=(400, 2)), truth, ("A", "B"), [0.5, 0.0], link=link, drawn=[0.0, 1.5])
    stored = json.loads(json.dumps(fitted.to_json(), allow_nan=False))
    assert stored["link"] == asdict(link)
    assert [stored["labels"][name]["drawn"] for name in "AB"] == [0.0, 1.5]
    assert Calibration.from_json(stored) == fitted


def test_what_a_sampler_drew_is_taken_out_after_the_link() -> None:
    link = Link("focal", 2.0, 2.0, smoothing=0.1)
    empty = np.empty((0, 1))
    fitted = calibration.fit(empty, empty, ("A",), [0.3], link=link, drawn=[1.2])  # no films: slope 1, intercept 0
    assert fitted.log_odds([[0.8]])[0, 0] == pytest.approx(float(link.log_odds(0.5)) - 1.2)
