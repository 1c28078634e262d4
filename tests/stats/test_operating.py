"""Operating points: thresholds by search over all of them, rates of scikit-learn, intervals of a share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from noisy_student.stats import operating
from noisy_student.stats.operating import Threshold


def sample(seed: int, films: int = 200, levels: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(films) < 0.3).astype(float)
    probability = np.round(1 / (1 + np.exp(-(rng.normal(size=films) + truth - 1))) * levels) / levels
    truth[rng.random(films) < 0.1] = np.nan
    return truth, probability


def rates(truth: np.ndarray, probability: np.ndarray, threshold: float) -> tuple[float, float]:
    called = probability >= threshold
    return called[truth == 1].mean(), (~called)[truth == 0].mean()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([3, 20, 1000]), st.sampled_from([0.5, 0.8, 0.9, 1.0]), st.integers(5, 60)
)
def test_thresholds_are_those_that_a_search_over_all_films_finds(
    seed: int, levels: int, target: float, films: int
) -> None:
    truth, probability = sample(seed, films, levels)
    truth[:2] = [1, 0]
    found = {level: rates(truth, probability, level) for level in np.unique(probability[~np.isnan(truth)])}
    best = operating.youden(truth, probability)
    largest = max(sensitivity + specificity for sensitivity, specificity in found.values())
    assert best is not None
    assert sum(found[best]) == pytest.approx(largest, abs=1e-12)
    assert all(sum(found[level]) < largest - 1e-12 for level in found if level > best)
    enough = [level for level, (sensitivity, _) in found.items() if sensitivity >= target]
    assert operating.at_sensitivity(truth, probability, target) == max(enough)
    enough = [level for level, (_, specificity) in found.items() if specificity >= target]
    assert operating.at_specificity(truth, probability, target) == (min(enough) if enough else None)


def test_thresholds_are_chosen_on_some_films_and_measured_on_others() -> None:
    chosen_on, probability = sample(0)
    chosen = operating.choose(chosen_on, probability, "validation", 0.8, 0.7)
    truth, other = sample(1)
    known = ~np.isnan(truth)
    assert set(chosen) == set(operating.KINDS)
    assert [chosen[kind].target for kind in operating.KINDS] == [None, 0.8, 0.7]
    for threshold in chosen.values():
        assert threshold.value is not None
        found = operating.measure(truth, other, np.arange(truth.size), threshold, 0.95)
        called = other[known] >= threshold.value
        tn, fp, fn, tp = sk.confusion_matrix(truth[known], called).ravel()
        assert [found[name] for name in ("tp", "fp", "fn", "tn")] == [tp, fp, fn, tn]
        assert found["sensitivity"] == pytest.approx(sk.recall_score(truth[known], called), abs=1e-12)
        assert found["specificity"] == pytest.approx(sk.recall_score(truth[known], called, pos_label=0), abs=1e-12)
        assert found["ppv"] == pytest.approx(sk.precision_score(truth[known], called), abs=1e-12)
        assert found["npv"] == pytest.approx(sk.precision_score(truth[known], called, pos_label=0), abs=1e-12)
        assert found["f1"] == pytest.approx(sk.f1_score(truth[known], called), abs=1e-12)
        assert (found["chosen_on"], found["reason"]) == ("validation", None)
        for name in ("sensitivity", "specificity"):
            assert found["ci"][name][0] < found[name] < found["ci"][name][1]


def test_what_is_not_defined_is_none_with_a_reason() -> None:
    chosen = operating.choose([0.0, 0, np.nan], [0.1, 0.2, 0.9], "validation", 0.9, 0.9)
    for threshold in chosen.values():
        assert threshold.value is None
        assert threshold.reason == "no threshold: the films it is chosen on (validation) do not hold both classes"
        found = operating.measure([1.0, 0], [0.3, 0.4], [0, 1], threshold, 0.95)
        assert [found[name] for name in ("threshold", "tp", "fn", "sensitivity", "ppv", "f1")] == [None] * 6
        assert found["ci"] == {"sensitivity": None, "specificity": None}
        assert found["reason"] == threshold.reason
    assert operating.choose([], [], "validation", 0.9, 0.9)["youden"].value is None
    tied = operating.choose([1.0, 0, 0], [0.9, 0.9, 0.1], "validation", 0.9, 0.9)
    assert tied["specificity"].reason == "no threshold reaches a specificity of 0.9 on validation"
    assert tied["sensitivity"].value == tied["youden"].value == 0.9
    one_class = operating.measure([0.0, 0], [0.3, 0.4], [0, 1], Threshold(0.9, "validation", None, None), 0.95)
    assert (one_class["sensitivity"], one_class["ppv"], one_class["f1"]) == (None, None, None)
    assert (one_class["specificity"], one_class["npv"]) == (1.0, 1.0)
    assert one_class["reason"] == "no film is positive; no film is called positive"
    none = operating.measure([np.nan], [0.3], [0], Threshold(0.9, "validation", None, None), 0.95)
    assert (none["sensitivity"], none["specificity"], none["npv"]) == (None, None, None)


def test_the_interval_of_independent_films_is_wilsons() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81/263 and 1/29, 95 %
    for hits, films, expected in ((81, 263, (0.2553, 0.3662)), (1, 29, (0.0061, 0.1718))):
        found = operating.clustered_interval(np.arange(films) < hits, np.arange(films), 0.95)
        assert found == pytest.approx(expected, abs=5e-5)
    assert operating.clustered_interval([], [], 0.95) is None


def test_films_of_one_patient_count_less_and_copies_nothing() -> None:
    rng = np.random.default_rng(0)
    hits = rng.random(80) < 0.7
    once = operating.clustered_interval(hits, np.arange(80), 0.95)
    copied = operating.clustered_interval(np.repeat(hits, 4), np.repeat(np.arange(80), 4), 0.95)
    assert once is not None
    assert copied is not None
    assert copied[1] - copied[0] == pytest.approx(once[1] - once[0], rel=0.02)
    perfect = operating.clustered_interval(np.ones(40), np.repeat(np.arange(10), 4), 0.95)
    of_ten = operating.clustered_interval(np.ones(10), np.arange(10), 0.95)
    assert perfect == of_ten
    assert of_ten is not None
    assert of_ten[0] < 0.8
    assert of_ten[1] == 1.0


@pytest.mark.slow
def test_the_interval_of_a_share_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    hits, trials = 0, 800
    for _ in range(trials):
        own = rng.beta(4.5, 0.5, size=60)  # a sensitivity of 0.9 that differs from patient to patient
        found = operating.clustered_interval((rng.random((60, 3)) < own[:, None]).ravel(), np.arange(180) // 3, 0.95)
        assert found is not None
        hits += found[0] <= 0.9 <= found[1]
    assert 0.92 <= hits / trials <= 0.98
