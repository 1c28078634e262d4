"""The patient bootstrap against scikit-learn on the same resamples, and what its intervals promise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from noisy_student.errors import DataError
from noisy_student.stats import intervals
from noisy_student.stats.metrics import CLIP, auroc
from noisy_student.stats.strata import strata


def sample(seed: int, films: int = 60, labels: int = 4, levels: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films with ties in the score, unknown truth, several films per patient and codes with gaps."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((films, labels)) < np.linspace(0.05, 0.7, labels)).astype(float)
    score = np.round((rng.normal(size=truth.shape) + truth) * levels / 4) / levels
    truth[:, 0] = np.arange(films) < 2  # so rare that resamples lose the class
    truth[rng.random(truth.shape) < 0.15] = np.nan
    truth[0, 0] = 1.0
    return truth, score, rng.integers(0, films // 2, films) * 3 + 5


def rows_of(counts: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Film indices of one resample, repeats included."""
    codes = np.unique(patients)
    return np.concatenate(
        [np.flatnonzero(patients == code) for code, n in zip(codes, counts, strict=True) for _ in range(n)]
    )


def resampled(patients: np.ndarray, replicates: int, seed: int) -> list[np.ndarray]:
    blocks = intervals.resample_counts(patients, replicates, seed)
    return [rows_of(counts, patients) for block in blocks for counts in block]


@pytest.mark.parametrize(("levels", "dtype_limit"), [(1, 2**24), (8, 2**24), (1000, 2**24), (8, 1)])
def test_auroc_equals_scikit_learn_on_the_same_resamples(
    levels: int, dtype_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "_EXACT_FLOAT32", dtype_limit)
    truth, score, patients = sample(levels, levels=levels)
    ours = intervals.bootstrap_auroc(truth, score, patients, 35, 3)
    assert ours.shape == (35, 4)
    undefined = 0
    for replicate, rows in enumerate(resampled(patients, 35, 3)):
        for label in range(4):
            y, s = truth[rows, label], score[rows, label]
            known = ~np.isnan(y)
            if len(np.unique(y[known])) < 2:
                undefined += 1
                assert np.isnan(ours[replicate, label])
            else:
                assert ours[replicate, label] == pytest.approx(roc_auc_score(y[known], s[known]), abs=1e-12)
    assert undefined > 0  # the rare label makes the case happen


def test_log_loss_equals_scikit_learn_on_the_same_resamples() -> None:
    truth, score, patients = sample(1)
    probability = 1 / (1 + np.exp(-9 * score))
    probability[0] = 0.0
    ours = intervals.bootstrap_log_loss(truth, probability, patients, 35, 5)
    for replicate, rows in enumerate(resampled(patients, 35, 5)):
        for label in range(4):
            known = rows[~np.isnan(truth[rows, label])]
            clipped = np.clip(probability[known, label], CLIP, 1 - CLIP)
            expected = log_loss(truth[known, label], clipped, labels=[0, 1])
            assert ours[replicate, label] == pytest.approx(expected, abs=1e-12)


def test_labels_without_films_or_classes_are_nan_in_every_replicate() -> None:
    truth, score, patients = sample(2)
    truth[:, 0], truth[:, 1] = np.nan, 0.0
    by_auroc = intervals.bootstrap_auroc(truth, score, patients, 40, 0)
    by_loss = intervals.bootstrap_log_loss(truth, np.full(truth.shape, 0.5), patients, 40, 0)
    assert np.isnan(by_auroc[:, :2]).all()
    assert np.isnan(by_loss[:, 0]).all()
    np.testing.assert_allclose(by_loss[:, 1:], np.log(2))


def test_resamples_draw_as_many_patients_as_there_are_and_are_reproducible() -> None:
    patients = sample(3)[2]
    blocks = list(intervals.resample_counts(patients, 50, 9))
    counts = np.concatenate(blocks)
    assert counts.shape == (50, np.unique(patients).size)
    assert (counts.sum(axis=1) == counts.shape[1]).all()
    assert max(len(block) for block in blocks) <= intervals.BLOCK
    np.testing.assert_array_equal(np.concatenate(list(intervals.resample_counts(patients, 20, 9))), counts[:20])
    assert (np.concatenate(list(intervals.resample_counts(patients, 50, 10))) != counts).any()
    assert len(np.unique(counts, axis=0)) == 50


def test_resampled_counts_have_the_moments_of_a_multinomial() -> None:
    counts = np.concatenate(list(intervals.resample_counts(np.arange(50), 4000, 0)))
    assert np.abs(counts.mean(axis=0) - 1).max() < 0.08  # 5 standard errors of 1 / sqrt(4000)
    assert counts.var() == pytest.approx(1 - 1 / 50, rel=0.02)


def test_strata_keep_their_size() -> None:
    patients = np.array([4, 4, 1, 2, 3, 3, 9, 8])
    strata = np.array([1, 1, 0, 0, 1, 1, 0, 1])
    counts = np.concatenate(list(intervals.resample_counts(patients, 40, 0, strata)))
    first = np.array([0, 0, 1, 1, 1, 0])  # of patients 1, 2, 3, 4, 8, 9
    assert (counts[:, first == 1].sum(axis=1) == 3).all()
    assert (counts[:, first == 0].sum(axis=1) == 3).all()
    with pytest.raises(DataError, match="two strata"):
        intervals.resample_counts(patients, 4, 0, np.array([1, 0, 0, 0, 1, 1, 0, 1]))
    with pytest.raises(DataError, match="stratify has shape"):
        intervals.resample_counts(patients, 4, 0, strata[:3])


def test_clustered_patients_give_wider_intervals_than_independent_films() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat((rng.random((60, 1)) < 0.4).astype(float), 5, axis=0)
    score = np.repeat(rng.normal(size=(60, 1)), 5, axis=0) + truth
    clustered = intervals.bootstrap_auroc(truth, score, np.repeat(np.arange(60), 5), 600, 0)
    independent = intervals.bootstrap_auroc(truth, score, np.arange(300), 600, 0)
    assert clustered.std() == pytest.approx(np.sqrt(5) * independent.std(), rel=0.15)


def test_interval_covers_the_true_auroc_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    true_auroc = 0.7602  # two unit Gaussians one apart: Phi(1 / sqrt(2))
    hits = 0
    for trial in range(150):
        truth = (np.arange(120) % 2).astype(float)[:, None]
        score = rng.normal(size=(120, 1)) + truth
        ci = intervals.interval(intervals.bootstrap_auroc(truth, score, np.arange(120), 200, trial)[:, 0], 0.9)
        assert ci is not None
        hits += ci[0] <= true_auroc <= ci[1]
    assert 0.82 <= hits / 150 <= 0.98  # 0.9 with a binomial standard error of 0.024


@pytest.mark.slow
@pytest.mark.parametrize("stratified", [False, True])
def test_intervals_over_patients_with_several_films_cover_the_true_auroc(stratified: bool) -> None:
    rng = np.random.default_rng(3)
    true_auroc = 0.7181  # one apart, with a variance of 1 per film and 0.5 per patient: Phi(1 / sqrt(3))
    patients, hits, trials = np.arange(360) // 3, 0, 400
    for trial in range(trials):
        truth = (rng.random((360, 1)) < 0.3).astype(float)
        score = rng.normal(size=truth.shape) + truth + rng.normal(scale=np.sqrt(0.5), size=(120, 1)).repeat(3, axis=0)
        keep = strata(truth, patients) if stratified else None
        ci = intervals.interval(intervals.bootstrap_auroc(truth, score, patients, 400, trial, keep)[:, 0], 0.95)
        assert ci is not None
        hits += ci[0] <= true_auroc <= ci[1]
    assert 0.91 <= hits / trials <= 0.98  # 0.95 with a binomial standard error of 0.011


def test_several_parts_share_their_resamples() -> None:
    truth, score, patients = sample(4)
    first, second = intervals.bootstrap_aurocs([(truth, score, patients), (truth, -score, patients)], 40, 2)
    np.testing.assert_array_equal(first, intervals.bootstrap_auroc(truth, score, patients, 40, 2))
    np.testing.assert_allclose((first + second)[~np.isnan(first)], 1)
    np.testing.assert_array_equal(np.isnan(first), np.isnan(second))
    early, late = patients < np.median(patients), patients >= np.median(patients)
    halves = intervals.bootstrap_aurocs([(truth[k], score[k], patients[k]) for k in (early, late)], 40, 2)
    masked = [np.where(keep[:, None], truth, np.nan) for keep in (early, late)]
    for half, part in zip(halves, masked, strict=True):
        np.testing.assert_array_equal(half, intervals.bootstrap_auroc(part, score, patients, 40, 2))


def test_interval_is_a_percentile_interval_and_needs_half_of_the_replicates() -> None:
    values = np.arange(101) / 100
    assert intervals.interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert intervals.interval(np.concatenate([values, np.full(101, np.nan)]), 0.9) == pytest.approx((0.05, 0.95))
    assert intervals.interval(np.concatenate([values, np.full(102, np.nan)]), 0.9) is None
    assert intervals.interval(np.empty(0), 0.9) is None


def test_macro_leaves_undefined_labels_out() -> None:
    values = np.array([[0.8, np.nan, 0.6, 0.1], [np.nan, np.nan, 0.7, 0.1], [np.nan, np.nan, np.nan, 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(intervals.macro(values, [0, 1, 2]), [0.7, 0.7, np.nan])
    assert intervals.macro(values[0], [0, 3]) == pytest.approx(0.45)
    assert np.isnan(intervals.macro(values[0], []))


def paired_models(gain: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    truth = (rng.random((500, 3)) < 0.4).astype(float)
    truth[:, 2] = 0.0  # one class: has to stay out
    shared = rng.normal(size=truth.shape)
    return truth, shared + truth, shared + (1 + gain) * truth, np.arange(500) // 2


def test_compare_finds_a_better_model() -> None:
    truth, a, b, patients = paired_models(0.5)
    result = intervals.compare(truth, a, b, patients, [0, 1, 2], 400, 0, 0.9)
    expected = np.mean([auroc(truth[:, k], b[:, k]) - auroc(truth[:, k], a[:, k]) for k in (0, 1)])
    difference = result.auroc
    assert difference.value == pytest.approx(expected)
    assert difference.ci is not None
    assert difference.lower is not None
    assert difference.upper is not None
    assert 0 < difference.ci[0] < difference.lower < expected < difference.upper < difference.ci[1]
    assert difference.p_value == pytest.approx(2 / 401)
    assert difference.reason is None
    assert result.log_loss.value is None
    assert result.log_loss.reason == "no probabilities were given"
    assert (result.confidence, result.replicates, result.patients) == (0.9, 400, 250)


def test_compare_is_paired() -> None:
    truth, a, b, patients = paired_models(0.02)
    result = intervals.compare(truth, a, b, patients, [0, 1], 400, 0, 0.95).auroc
    single = intervals.interval(intervals.macro(intervals.bootstrap_auroc(truth, a, patients, 400, 0), [0, 1]), 0.95)
    assert result.ci is not None
    assert single is not None
    assert result.ci[1] - result.ci[0] < 0.1 * (single[1] - single[0])


def test_compare_of_a_model_with_itself_finds_nothing_and_swapping_turns_the_sign() -> None:
    truth, a, b, patients = paired_models(0.1)
    same = intervals.compare(truth, a, a, patients, [0, 1], 100, 0, 0.9).auroc
    assert (same.value, same.ci, same.p_value) == (0.0, (0.0, 0.0), 1.0)
    forward = intervals.compare(truth, a, b, patients, [0, 1], 100, 0, 0.9).auroc
    backward = intervals.compare(truth, b, a, patients, [0, 1], 100, 0, 0.9).auroc
    assert forward.value == -backward.value  # type: ignore[operator]
    assert forward.lower == pytest.approx(-backward.upper)  # type: ignore[operator]
    assert forward.p_value == backward.p_value


def test_compare_with_probabilities_measures_log_loss_of_one_class_labels_too() -> None:
    truth, a, b, patients = paired_models(0.5)
    pa, pb = 1 / (1 + np.exp(1 - a)), 1 / (1 + np.exp(1 - b))
    result = intervals.compare(truth, a, b, patients, [0, 2], 100, 0, 0.9, probability_a=pa, probability_b=pb).log_loss
    expected = np.mean(
        [
            log_loss(truth[:, k], pb[:, k], labels=[0, 1]) - log_loss(truth[:, k], pa[:, k], labels=[0, 1])
            for k in (0, 2)
        ]
    )
    assert result.value == pytest.approx(expected, abs=1e-12)
    assert expected < 0
    assert result.upper is not None
    assert result.upper < 0
    with pytest.raises(DataError, match="only one of two"):
        intervals.compare(truth, a, b, patients, [0], 100, 0, 0.9, probability_a=pa)


def test_compare_says_why_it_cannot() -> None:
    truth, a, b, patients = paired_models(0.5)
    nothing = intervals.compare(truth, a, b, patients, [2], 50, 0, 0.9).auroc
    assert nothing == intervals.Difference(
        None, None, None, None, None, "no label has both a positive and a negative film"
    )
    one = np.full((40, 1), np.nan)
    one[0], one[1] = 1, 0  # both classes in a resample with probability 0.4
    rare = intervals.compare(one, a[:40, :1], b[:40, :1], np.arange(40), [0], 200, 0, 0.9).auroc
    assert rare.value is not None
    assert rare.ci is None
    assert rare.p_value is None
    assert rare.reason is not None
    assert rare.reason == "no interval, only 1 patient with label 0, 1 patient without label 0"
    assert rare.undefined is not None
    assert rare.undefined > 0.5


def test_bad_arrays_are_refused() -> None:
    truth, score, patients = sample(0)
    with pytest.raises(DataError, match="patients has shape"):
        intervals.bootstrap_auroc(truth, score, patients[:-1], 10, 0)
    with pytest.raises(DataError, match="no films"):
        intervals.bootstrap_log_loss(np.empty((0, 2)), np.empty((0, 2)), np.empty(0, dtype=int), 10, 0)
