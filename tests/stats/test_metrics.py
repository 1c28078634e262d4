"""Measures of one label against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from noisy_student.errors import DataError
from noisy_student.stats import metrics


def sample(seed: int, films: int = 300, levels: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(films) < 0.3).astype(float)
    probability = 1 / (1 + np.exp(-(rng.normal(size=films) + truth)))
    if levels is not None:
        probability = np.round(probability * levels) / levels
    return truth, probability, rng.gamma(1.0, size=films)


@pytest.mark.parametrize("levels", [None, 3, 20])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_measures_equal_scikit_learn(seed: int, weighted: bool, levels: int | None) -> None:
    truth, probability, gamma = sample(seed, levels=levels)
    weight = gamma if weighted else None
    clipped = np.clip(probability, metrics.CLIP, 1 - metrics.CLIP)
    for ours, theirs in [
        (metrics.auroc(truth, probability, weight), sk.roc_auc_score(truth, probability, sample_weight=weight)),
        (
            metrics.average_precision(truth, probability, weight),
            sk.average_precision_score(truth, probability, sample_weight=weight),
        ),
        (metrics.brier(truth, probability, weight), sk.brier_score_loss(truth, probability, sample_weight=weight)),
        (metrics.log_loss(truth, probability, weight), sk.log_loss(truth, clipped, sample_weight=weight)),
    ]:
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    truth, score, _ = sample(7, films=60, levels=5)
    pairs = np.sign(score[truth == 1][:, None] - score[truth == 0]) / 2 + 0.5
    assert metrics.auroc(truth, score) == pytest.approx(pairs.mean(), abs=1e-14)
    assert metrics.auroc(truth, np.zeros(60)) == 0.5
    assert metrics.auroc(truth, np.where(truth == 1, np.inf, -np.inf)) == 1.0


@pytest.mark.parametrize("levels", [None, 3, 20])
def test_curves_run_through_the_points_of_scikit_learn(levels: int | None) -> None:
    truth, probability, _ = sample(3, levels=levels)
    recall, precision = metrics.precision_recall_curve(truth, probability, max_points=1000)
    their_precision, their_recall, _ = sk.precision_recall_curve(truth, probability)
    theirs = {(round(r, 12), round(p, 12)) for p, r in zip(their_precision, their_recall, strict=True)}
    ours = [(round(r, 12), round(p, 12)) for r, p in zip(recall, precision, strict=True)]
    assert set(ours) <= theirs
    # The sum over the steps of recall is the average precision.
    area = float(np.diff(recall, prepend=0) @ precision)
    assert area == pytest.approx(sk.average_precision_score(truth, probability), abs=1e-12)
    fpr, tpr = metrics.roc_curve(truth, probability, max_points=1000)
    their_fpr, their_tpr, _ = sk.roc_curve(truth, probability)
    np.testing.assert_allclose(np.interp(their_fpr, fpr, tpr).max(), their_tpr.max())
    assert np.trapezoid(tpr, fpr) == pytest.approx(sk.roc_auc_score(truth, probability), abs=1e-12)


def test_a_long_precision_recall_curve_is_thinned_to_its_own_points() -> None:
    truth, probability, _ = sample(4, films=4000)
    recall, precision = metrics.precision_recall_curve(truth, probability, max_points=1_000_000)
    thin_recall, thin_precision = metrics.precision_recall_curve(truth, probability)
    assert 150 < len(thin_recall) <= 200 < len(recall)
    place = np.searchsorted(recall, thin_recall)
    np.testing.assert_array_equal(recall[place], thin_recall)
    np.testing.assert_array_equal(precision[place], thin_precision)
    assert thin_recall[-1] == 1
    assert np.trapezoid(thin_precision, thin_recall) == pytest.approx(np.trapezoid(precision, recall), abs=0.003)
    for one_class in (np.zeros(5), np.full(5, np.nan), np.ones(5)):
        assert [part.size for part in metrics.precision_recall_curve(one_class, np.arange(5))] == [0, 0]


def test_unknown_and_weightless_films_are_left_out() -> None:
    truth, probability, weight = sample(1)
    more_truth = np.concatenate([truth, [np.nan, np.nan, 1.0]])
    more_probability = np.concatenate([probability, [0.9, np.nan, 0.01]])
    more_weight = np.concatenate([weight, [5.0, 5.0, 0.0]])
    for measure in (metrics.auroc, metrics.average_precision, metrics.brier, metrics.log_loss):
        assert measure(more_truth, more_probability, more_weight) == measure(truth, probability, weight)
    assert metrics.ece(more_truth, more_probability, 10, more_weight) == metrics.ece(truth, probability, 10, weight)


def test_weights_that_are_whole_numbers_equal_repeated_films() -> None:
    truth, probability, _ = sample(2, levels=12)
    times = np.random.default_rng(0).integers(0, 4, truth.size)
    repeated = np.repeat(truth, times), np.repeat(probability, times)
    for measure in (metrics.auroc, metrics.average_precision, metrics.brier, metrics.log_loss):
        assert measure(truth, probability, times) == pytest.approx(measure(*repeated), abs=1e-12)
    assert metrics.ece(truth, probability, 6, times) == pytest.approx(metrics.ece(*repeated, 6), abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_one_class_has_no_ranking(value: float) -> None:
    truth, score = np.full(9, value), np.linspace(0, 1, 9)
    assert np.isnan(metrics.auroc(truth, score))
    assert np.isnan(metrics.average_precision(truth, score))
    assert metrics.roc_curve(truth, score)[0].size == 0


def test_one_class_has_a_proper_score_and_nothing_known_has_none() -> None:
    zeros = np.zeros(4)
    assert metrics.brier(zeros, np.full(4, 0.5)) == 0.25
    assert metrics.log_loss(zeros, np.full(4, 0.5)) == pytest.approx(np.log(2))
    unknown = np.full(4, np.nan)
    assert np.isnan(
        [metrics.brier(unknown, zeros), metrics.log_loss(unknown, zeros), metrics.ece(unknown, zeros, 5)]
    ).all()
    assert metrics.reliability(unknown, zeros, 5).count.size == 0


def test_log_loss_of_certain_and_wrong_is_clipped() -> None:
    assert metrics.log_loss([1.0], [0.0]) == pytest.approx(-np.log(metrics.CLIP))
    assert metrics.log_loss([0.0], [1.0]) == pytest.approx(-np.log(metrics.CLIP))


def test_reliability_bins_hold_equal_mass_and_sum_up() -> None:
    truth, probability, _ = sample(3, films=1000)
    diagram = metrics.reliability(truth, probability, 10)
    np.testing.assert_array_equal(diagram.count, np.full(10, 100))
    order = np.argsort(probability)
    np.testing.assert_allclose(diagram.mean_probability, probability[order].reshape(10, 100).mean(axis=1))
    np.testing.assert_allclose(diagram.frequency, truth[order].reshape(10, 100).mean(axis=1))
    by_hand = np.abs(diagram.mean_probability - diagram.frequency).mean()
    assert metrics.ece(truth, probability, 10) == pytest.approx(by_hand, abs=1e-14)


def test_reliability_keeps_ties_together_whatever_the_order() -> None:
    truth, probability = np.array([1.0, 0, 1, 0, 1, 1]), np.array([0.2, 0.2, 0.2, 0.2, 0.2, 0.9])
    diagram = metrics.reliability(truth, probability, 3)
    np.testing.assert_array_equal(diagram.count, [5, 1])
    np.testing.assert_allclose(diagram.frequency, [0.6, 1.0])
    assert metrics.ece(truth[::-1], probability[::-1], 3) == metrics.ece(truth, probability, 3)
    assert metrics.ece(truth, probability, 3) == pytest.approx((5 * 0.4 + 0.1) / 6)


def test_calibrated_probabilities_have_small_ece_and_shifted_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(20_000)
    truth = (rng.random(20_000) < probability).astype(float)
    assert metrics.ece(truth, probability, 10) < 0.02
    assert metrics.ece(truth, probability**3, 10) == pytest.approx(0.25, abs=0.02)  # E[p - p^3] = 1/4


def area(fpr: np.ndarray, tpr: np.ndarray) -> float:
    return float(np.trapezoid(tpr, fpr))


@pytest.mark.parametrize("films", [50, 1000, 20_000])
@pytest.mark.parametrize("levels", [None, 7])
def test_roc_curve_keeps_ends_and_area(films: int, levels: int | None) -> None:
    truth, score, weight = sample(films, films=films, levels=levels)
    for chosen in (None, weight):
        fpr, tpr = metrics.roc_curve(truth, score, 200, chosen)
        assert fpr.size <= 200
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
        assert (np.diff(fpr) >= 0).all()
        assert (np.diff(tpr) >= 0).all()
        assert area(fpr, tpr) == pytest.approx(metrics.auroc(truth, score, chosen), abs=0.002)


@pytest.mark.parametrize("steps", [199, 200, 398, 995])
def test_roc_curve_of_a_regular_staircase_keeps_its_area(steps: int) -> None:
    # As many stairs as points is the case in which even steps would cut every corner on one side.
    truth = np.tile([1.0, 0.0], steps)
    fpr, tpr = metrics.roc_curve(truth, -np.arange(truth.size))
    assert fpr.size == 200
    assert area(fpr, tpr) == pytest.approx(metrics.auroc(truth, -np.arange(truth.size)), abs=0.002)


def test_short_roc_curve_equals_scikit_learn() -> None:
    truth, score, _ = sample(4, films=80, levels=30)
    expected = sk.roc_curve(truth, score, drop_intermediate=False)
    fpr, tpr = metrics.roc_curve(truth, score)
    np.testing.assert_allclose(np.interp(expected[0] + expected[1], fpr + tpr, tpr), expected[1], atol=1e-12)
    assert area(fpr, tpr) == pytest.approx(metrics.auroc(truth, score), abs=1e-12)


@pytest.mark.parametrize(
    ("truth", "score", "weight", "message"),
    [
        ([1.0, -1.0], [0.1, 0.2], None, "truth holds -1"),
        ([1.0, 0.0], [0.1], None, "shape"),
        ([1.0, 0.0], [np.nan, 0.2], None, "score is NaN"),
        ([1.0, 0.0], [0.1, 0.2], [1.0, -1.0], "weight"),
        ([1.0, 0.0], [0.1, 0.2], [1.0], "weight"),
    ],
)
def test_bad_arrays_are_refused(
    truth: list[float], score: list[float], weight: list[float] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        metrics.auroc(truth, score, weight)
