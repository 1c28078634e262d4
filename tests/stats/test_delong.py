"""DeLong's and Obuchowski's variances against sums over all pairs, and what their intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from noisy_student.errors import DataError
from noisy_student.stats import delong


def sample(seed: int, cases: int = 80, levels: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth with unknown cases, two scores with ties, and patients of one to several cases of both classes."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(cases) < 0.4).astype(float)
    scores = np.round((rng.normal(size=(2, cases)) + truth) * levels / 4)
    truth[rng.random(cases) < 0.1] = np.nan
    return truth, scores, rng.integers(0, cases // 2, cases) * 7 + 3


def pairwise_placements(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of negatives below each positive, and of positives above each negative, pair by pair."""
    positive, negative = scores[:, truth == 1], scores[:, truth == 0]
    kernel = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    return kernel.mean(axis=2), kernel.mean(axis=1)


def brute_delong(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    ten, one = pairwise_placements(truth, scores)
    return np.cov(ten) / ten.shape[1] + np.cov(one) / one.shape[1]


def brute_clustered(truth: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Obuchowski (1997), equations 3 to 7, cluster by cluster."""
    ten, one = pairwise_placements(truth, scores)
    area = ten.mean(axis=1)
    known = ~np.isnan(truth)
    clusters = np.unique(patients[known])
    own_ten, own_one = patients[truth == 1], patients[truth == 0]
    count_ten, count_one = np.unique(own_ten).size, np.unique(own_one).size
    found = np.zeros((2, 2))
    for r in range(2):
        for s in range(2):
            s10 = s01 = s11 = s11_turned = 0.0
            for cluster in clusters:
                mine, yours = own_ten == cluster, own_one == cluster
                x = [ten[m][mine].sum() - mine.sum() * area[m] for m in range(2)]
                y = [one[m][yours].sum() - yours.sum() * area[m] for m in range(2)]
                s10 += x[r] * x[s]
                s01 += y[r] * y[s]
                s11 += x[r] * y[s]
                s11_turned += x[s] * y[r]
            m, n, total = len(own_ten), len(own_one), len(clusters)
            s10 *= count_ten / ((count_ten - 1) * m)
            s01 *= count_one / ((count_one - 1) * n)
            s11, s11_turned = s11 * total / (total - 1), s11_turned * total / (total - 1)
            found[r, s] = s10 / m + s01 / n + (s11 + s11_turned) / (m * n)
    return found


@pytest.mark.parametrize("levels", [1, 6, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_delong_equals_the_sum_over_all_pairs(seed: int, levels: int) -> None:
    truth, scores, _ = sample(seed, levels=levels)
    found = delong.delong(truth, scores)
    known = ~np.isnan(truth)
    for area, score in zip(found.auroc, scores, strict=True):
        assert area == pytest.approx(roc_auc_score(truth[known], score[known]), abs=1e-12)
    np.testing.assert_allclose(found.covariance, brute_delong(truth, scores), atol=1e-14)
    assert (found.method, found.reason) == ("DeLong", None)


@pytest.mark.parametrize("levels", [1, 6, 10_000])
@pytest.mark.parametrize("seed", range(3))
def test_the_clustered_form_equals_obuchowskis_sums(seed: int, levels: int) -> None:
    truth, scores, patients = sample(seed, levels=levels)
    assert np.unique(patients).size < patients.size - 10
    found = delong.clustered(truth, scores, patients)
    np.testing.assert_allclose(found.covariance, brute_clustered(truth, scores, patients), atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_the_clustered_form_is_delongs_where_every_patient_has_one_case(seed: int) -> None:
    truth, scores, _ = sample(seed)
    one_each = np.arange(truth.size)[::-1]
    found, plain = delong.clustered(truth, scores, one_each), delong.delong(truth, scores, one_each)
    np.testing.assert_allclose(found.covariance, plain.covariance, rtol=1e-12)


def test_delong_refuses_patients_with_several_cases_and_the_clustered_form_is_taken() -> None:
    truth, scores, patients = sample(0)
    with pytest.raises(DataError, match="a patient has several") as caught:
        delong.delong(truth, scores, patients)
    assert "Obuchowski" in caught.value.hint
    assert delong.areas(truth, scores, patients).method == "Obuchowski (clustered)"
    unknown = np.where(np.arange(truth.size) % 2 == 0, truth, np.nan)
    paired = np.arange(truth.size) // 2  # the second case of each patient is unknown, so it does not count
    assert delong.areas(unknown, scores, paired).method == "DeLong"


def test_repeated_cases_widen_the_clustered_interval_alone() -> None:
    truth, scores, _ = sample(1, cases=60)
    once = delong.interval(truth, scores[0], np.arange(60), 0.95)
    thrice = delong.interval(np.tile(truth, 3), np.tile(scores[0], 3), np.tile(np.arange(60), 3), 0.95)
    assert once.ci is not None
    assert thrice.ci is not None
    assert thrice.value == pytest.approx(once.value)
    # Copies say nothing new; what is left is the small-sample factor of patients with one class.
    assert thrice.ci[1] - thrice.ci[0] == pytest.approx(once.ci[1] - once.ci[0], rel=0.01)
    fooled = delong.interval(np.tile(truth, 3), np.tile(scores[0], 3), np.arange(180), 0.95)
    assert fooled.ci is not None
    assert fooled.ci[1] - fooled.ci[0] < 0.7 * (once.ci[1] - once.ci[0])


def test_intervals_are_normal_on_the_logit_scale_and_differences_on_their_own() -> None:
    truth, scores, patients = sample(2)
    covariance = brute_clustered(truth, scores, patients)
    one = delong.interval(truth, scores[1], patients, 0.9)
    assert one.value is not None
    half = norm.ppf(0.95) * np.sqrt(covariance[1, 1]) / (one.value * (1 - one.value))
    odds = np.log(one.value / (1 - one.value))
    assert one.ci == pytest.approx((1 / (1 + np.exp(half - odds)), 1 / (1 + np.exp(-half - odds))))
    found = delong.difference(truth, scores[0], scores[1], patients, 0.9)
    sd = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert found.value is not None
    assert found.p_value == pytest.approx(2 * norm.sf(abs(found.value) / sd))
    assert found.ci == pytest.approx((found.value - norm.ppf(0.95) * sd, found.value + norm.ppf(0.95) * sd))
    turned = delong.difference(truth, scores[1], scores[0], patients, 0.9)
    assert turned.value == pytest.approx(-found.value)
    assert turned.p_value == pytest.approx(found.p_value)


def test_what_is_not_defined_says_why() -> None:
    truth, score = np.array([1.0, 0, 0, 0, np.nan]), np.array([0.5, 0.1, 0.7, 0.2, 0.3])
    codes = np.arange(5)
    single = delong.interval(truth, score, codes, 0.95)
    assert single.value == pytest.approx(2 / 3)
    assert (single.ci, single.reason) == (None, "all positive cases are of one patient")
    nothing = delong.interval(np.zeros(5), score, codes, 0.95)
    assert (nothing.value, nothing.ci, nothing.reason) == (None, None, "no positive cases")
    complete = delong.interval([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], np.arange(4), 0.95)
    assert (complete.value, complete.ci) == (1.0, None)
    assert complete.reason == "the scores separate the classes completely"
    same = delong.difference([0, 1, 0, 1], [1, 2, 3, 4], [1, 2, 3, 4], np.arange(4), 0.95)
    assert (same.value, same.ci, same.p_value) == (0.0, None, 1.0)
    same_auroc = "the two scores have the same AUROC, and their difference varies too little to be estimated"
    assert same.reason == same_auroc
    # Both separate the classes and order the cases of a class otherwise.
    apart = delong.difference([0, 0, 1, 1], [1, 2, 3, 4], [2, 1, 4, 3], np.arange(4), 0.95)
    assert (apart.value, apart.ci, apart.p_value, apart.reason) == (0.0, None, 1.0, same_auroc)
    flat = delong.interval([0, 1, 0, 1], [0.5] * 4, np.arange(4), 0.95)
    assert (flat.value, flat.ci, flat.reason) == (0.5, None, "the scores are all the same")
    turned = delong.difference([0, 1, 0, 1], [4, 1, 3, 2], [1, 3, 2, 4], np.arange(4), 0.95)
    assert (turned.value, turned.p_value) == (1.0, None)
    assert turned.reason == "the two scores differ by as much whichever cases are looked at"
    flat = delong.difference([0, 1, 0, 1], [0.5] * 4, [1, 3, 2, 4], np.arange(4), 0.95)
    assert (flat.value, flat.reason) == (0.5, "the variance is too small to be estimated")
    # One positive of many lies below one negative: the scores are not all the same, whatever the variance.
    truth = np.arange(20000) >= 10000
    nearly = np.arange(20000.0)
    nearly[[9999, 10000]] = nearly[[10000, 9999]]
    found = delong.interval(truth, nearly, np.arange(20000), 0.95)
    assert found.value == pytest.approx(1 - 1e-8, abs=1e-12)
    assert (found.ci, found.reason) == (None, "the variance is too small to be estimated")
    nothing = delong.difference(truth, np.arange(20000.0), nearly, np.arange(20000), 0.95)
    assert (nothing.ci, nothing.p_value, nothing.reason) == (None, None, "the variance is too small to be estimated")
    with pytest.raises(DataError, match="score is NaN"):
        delong.interval([0.0, 1.0], [np.nan, 1.0], [0, 1], 0.95)


@pytest.mark.slow
def test_both_intervals_cover_the_true_area_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    true_area = norm.cdf(1 / np.sqrt(2 * 1.5))  # unit noise per case and half a unit per patient
    hits = {"one case": 0, "three cases": 0, "three cases, taken as independent": 0}
    trials = 600
    for _ in range(trials):
        truth = rng.random((150, 3)) < 0.4
        score = rng.normal(size=(150, 3)) + truth + rng.normal(scale=np.sqrt(0.5), size=(150, 1))
        patients = np.repeat(np.arange(150), 3)
        flat = truth.ravel().astype(float), score.ravel()
        shared = truth[:, :1].repeat(3, axis=1), score
        cases = {
            "one case": (truth[:, 0].astype(float), score[:, 0], np.arange(150)),
            "three cases": (*flat, patients),
            "three cases, taken as independent": (
                shared[0].ravel().astype(float),
                (score + 2 * rng.normal(size=(150, 1))).ravel(),
                np.arange(450),
            ),
        }
        for name, arrays in cases.items():
            ci = delong.interval(*arrays, 0.95).ci
            assert ci is not None
            area = true_area if name != "three cases, taken as independent" else norm.cdf(1 / np.sqrt(2 * 5.5))
            hits[name] += ci[0] <= area <= ci[1]
    # 0.95 with a binomial standard error of 0.009
    assert 0.92 <= hits["one case"] / trials <= 0.98
    assert 0.92 <= hits["three cases"] / trials <= 0.98
    assert hits["three cases, taken as independent"] / trials < 0.9


@pytest.mark.slow
def test_the_test_of_two_equal_models_is_as_often_wrong_as_it_says() -> None:
    rng = np.random.default_rng(1)
    wrong, trials = 0, 600
    for _ in range(trials):
        truth = (rng.random((100, 2)) < 0.4).astype(float)
        shared = rng.normal(size=(100, 2)) + truth + rng.normal(size=(100, 1))
        a, b = (shared + 0.6 * rng.normal(size=shared.shape) for _ in range(2))
        p_value = delong.difference(truth.ravel(), a.ravel(), b.ravel(), np.repeat(np.arange(100), 2), 0.95).p_value
        assert p_value is not None
        wrong += p_value < 0.05
    assert 0.025 <= wrong / trials <= 0.08
