"""Thresholds of pseudo-labels against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from noisy_student.config import SelectConfig
from noisy_student.targets.selection import HALF, Cut, best_f1, by_prevalence, choose, keep_most_confident, two_sided


def judged(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities that fit it; some of them are tied."""
    stream = np.random.default_rng(seed)
    probability = np.round(stream.beta(0.6, 1.2, count), 2)
    return (stream.random(count) < probability).astype(float), probability


def called(cut: Cut, probability: np.ndarray) -> list[int]:
    """Return 1 for likely positives, 0 for likely negatives and -1 for what is left out."""
    positive, negative = cut.sides(probability)
    assert not (positive & negative).any()
    return np.where(positive, 1, np.where(negative, 0, -1)).tolist()


# -- each side -----------------------------------------------------------------------------------------------------


def test_each_side_keeps_its_own_most_confident() -> None:
    probability = np.array([0.95, 0.6, 0.9, 0.7, 0.1, 0.4, 0.01, 0.3, 0.2, 0.45])
    kept = keep_most_confident(probability, 0.5)
    assert probability[kept].tolist() == [0.95, 0.9, 0.1, 0.01, 0.2]


def test_sides_are_those_of_the_thresholds() -> None:
    probability = np.array([0.95, 0.6, 0.9, 0.7, 0.1, 0.4, 0.01, 0.3, 0.2, 0.45])
    assert called(Cut(0.3, 0.9), probability) == [1, -1, 1, -1, 0, -1, 0, 0, 0, -1]
    kept = keep_most_confident(probability, 0.5, Cut(0.25, 0.25))
    assert probability[kept].tolist() == [0.95, 0.6, 0.9, 0.7, 0.1, 0.01]  # 4 of 7 and 2 of 3


def test_the_rare_side_is_not_drowned() -> None:
    probability = np.concatenate([np.linspace(0.001, 0.05, 990), np.linspace(0.5, 0.6, 10)])
    kept = keep_most_confident(probability, 0.1)
    assert (kept & (probability >= 0.5)).sum() == 1
    assert (kept & (probability < 0.5)).sum() == 99


@pytest.mark.parametrize(("share", "count"), [(0.07, 7), (0.55, 55), (0.551, 56), (1.0, 100), (0.001, 1)])
def test_the_share_is_rounded_up_but_not_by_the_error_of_a_float(share: float, count: int) -> None:
    assert keep_most_confident(np.linspace(0, 0.4, 100), share).sum() == count


def test_ties_go_to_the_first_film() -> None:
    assert keep_most_confident(np.array([0.2, 0.2, 0.2, 0.2]), 0.5).tolist() == [True, True, False, False]


# -- the rules -----------------------------------------------------------------------------------------------------


def test_half_leaves_nothing_out() -> None:
    assert choose(SelectConfig(), np.array([0.2]), 0.9) == HALF
    assert called(HALF, np.array([0.0, 0.49, 0.5, 1.0])) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"confidence": 0.7}, [0, 0, -1, -1, 1, 1]),
        ({"confidence": 0.7, "negative_confidence": 0.95}, [0, -1, -1, -1, 1, 1]),
        ({"confidence": 0.7, "negatives": False}, [-1, -1, -1, -1, 1, 1]),
    ],
)
def test_fixed_takes_confident_films_of_either_side(settings: dict[str, float], expected: list[int]) -> None:
    cut = choose(SelectConfig(rule="fixed", **settings), np.empty(0), 0.5)
    assert called(cut, np.array([0.02, 0.25, 0.35, 0.65, 0.72, 0.99])) == expected


@pytest.mark.parametrize("prevalence", [0.004, 0.02, 0.31, 0.999])
def test_as_many_are_positive_as_the_prevalence_says(prevalence: float) -> None:
    probability = np.random.default_rng(1).beta(0.5, 3, 500)
    positive, negative = choose(SelectConfig(rule="prevalence"), probability, prevalence).sides(probability)
    assert positive.sum() == round(500 * prevalence)
    assert (positive | negative).all()
    assert probability[positive].min() > probability[negative].max(initial=-1)


def test_fewer_than_one_expected_positive_is_none() -> None:
    cut = by_prevalence(np.linspace(0, 1, 100), 0.004)
    assert called(cut, np.linspace(0, 1, 100)) == [0] * 100
    assert cut.reason == "fewer than one film is expected to be positive"


@pytest.mark.parametrize("seed", range(8))
def test_the_threshold_with_the_best_f1_is_that_of_scikit_learn(seed: int) -> None:
    truth, probability = judged(seed=seed)
    found = {t: f1_score(truth, probability >= t) for t in np.unique(probability)}
    best = max(value for value in found.values())
    cut = best_f1(truth, probability)
    assert cut.high == cut.low
    assert cut.high == max(t for t, value in found.items() if value == pytest.approx(best, abs=1e-12))


def test_unknown_films_do_not_judge() -> None:
    truth, probability = judged()
    rule = SelectConfig(rule="f1")
    more = np.concatenate([truth, [np.nan] * 20]), np.concatenate([probability, np.linspace(0, 1, 20)])
    assert choose(rule, probability, 0.5, more) == choose(rule, probability, 0.5, (truth, probability))


def test_without_a_positive_there_is_no_f1_and_nothing_is_taken() -> None:
    cut = best_f1(np.zeros(5), np.linspace(0, 1, 5))
    assert cut == Cut(None, None, "none of the judging films is positive")
    assert called(cut, np.array([0.1, 0.9])) == [-1, -1]


@pytest.mark.parametrize("precision", [0.6, 0.75, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_two_thresholds_are_the_widest_that_are_right_often_enough(seed: int, precision: float) -> None:
    truth, probability = judged(seed=seed)
    levels = np.unique(probability)
    high = [t for t in levels if truth[probability >= t].mean() >= precision - 1e-12 and t >= 0.5]
    low = [t for t in levels if (1 - truth)[probability <= t].mean() >= precision - 1e-12 and t < 0.5]
    cut = two_sided(truth, probability, precision)
    assert cut.high == (min(high) if high else None)
    assert cut.low == (max(low) if low else None)
    assert (cut.reason is None) == bool(high and low)


def test_a_side_that_is_never_right_enough_is_left_out_and_said() -> None:
    cut = two_sided(np.array([0.0, 0, 1, 0]), np.array([0.1, 0.2, 0.6, 0.9]), 0.9)
    assert (cut.low, cut.high) == (0.2, None)
    assert cut.reason == "no threshold makes 0.9 of the positives right"


def test_a_common_label_does_not_make_positives_of_films_that_the_teacher_calls_negative() -> None:
    stream = np.random.default_rng(0)
    probability = stream.random(2000)
    truth = (stream.random(2000) < 0.25 + 0.75 * probability).astype(float)  # seven in ten are positive
    cut = two_sided(truth, probability, 0.6)
    assert truth.mean() > 0.6
    assert cut.low is not None
    assert cut.high is not None
    assert cut.low < 0.5 <= cut.high < 0.51


def test_a_rare_label_does_not_make_negatives_of_films_that_the_teacher_calls_positive() -> None:
    truth, probability = np.zeros(100), np.linspace(0, 0.8, 100)
    truth[97] = 1  # 99 of 100 are negative wherever the line is drawn
    cut = two_sided(truth, probability, 0.9)
    assert cut.high is None
    assert cut.low is not None
    assert 0.48 < cut.low < 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confidence": 0.8}, "confidence: does nothing with rule: half; it is a setting of fixed"),
        ({"rule": "f1", "precision": 0.8}, "precision: does nothing with rule: f1; it is a setting of two_sided"),
        ({"rule": "prevalence", "negative_confidence": 0.8}, "negative_confidence: does nothing with rule"),
    ],
)
def test_settings_of_other_rules_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectConfig(**settings)
