"""Paired comparisons of many labels, Holm's adjustment, and what a comparison says in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from noisy_student.stats import intervals, power
from noisy_student.stats.comparison import compare_models, comparison_json
from noisy_student.stats.intervals import Difference
from noisy_student.stats.strata import strata

SETTINGS = {"replicates": 200, "seed": 3, "confidence": 0.95}


def models(gain: float = 0.5) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(4)
    truth = (rng.random((300, 3)) < 0.4).astype(float)
    truth[:, 2] = 0.0
    truth[:50, 1] = np.nan
    shared = rng.normal(size=truth.shape) + truth
    return truth, [shared, shared + gain * truth, rng.normal(size=truth.shape)], np.arange(300) // 2


@pytest.mark.parametrize("columns", [[0], [0, 1, 2]])
def test_it_says_what_one_comparison_at_a_time_says(columns: list[int]) -> None:
    truth, scores, patients = models()
    found = compare_models(truth, scores, [(0, 1), (0, 2)], patients, columns, **SETTINGS)
    for (a, b), comparison in zip([(0, 1), (0, 2)], found, strict=True):
        arrays = (truth, scores[a], scores[b], patients)
        assert comparison.macro == intervals.compare(*arrays, columns, 200, 3, 0.95).auroc
        for k, one in enumerate(comparison.labels):
            assert one == intervals.compare(*arrays, [k], 200, 3, 0.95).auroc
        assert comparison.patients == (150, 125, 150)
        assert comparison.macro_patients == 150


def test_strata_change_the_resamples_and_not_the_difference() -> None:
    truth, scores, patients = models(0.1)
    plain = compare_models(truth, scores[:2], [(0, 1)], patients, [0, 1], **SETTINGS)[0].macro
    keep = strata(truth, patients)
    kept = compare_models(truth, scores[:2], [(0, 1)], patients, [0, 1], **SETTINGS, stratify=keep)[0].macro
    assert kept.value == plain.value
    assert kept.ci != plain.ci


def test_the_words_follow_the_interval_and_for_labels_the_adjusted_p_value() -> None:
    truth, scores, patients = models(0.5)
    found = compare_models(truth, scores, [(0, 1), (1, 0), (0, 0)], patients, [0, 1], **SETTINGS)
    names = ("Edema", "Atelectasis", "Fracture")
    better, worse, same = (comparison_json(one, names, 0.01, 0.95) for one in found)
    assert better["macro"]["sentence"] == better["labels"]["Edema"]["sentence"] == "better"
    assert worse["macro"]["sentence"] == "worse"
    assert (
        same["macro"]["sentence"]
        == "cannot be told apart with 150 patients; the difference is the same in every resample"
    )
    fracture = better["labels"]["Fracture"]
    assert fracture["sentence"] == "cannot be compared: no label has both a positive and a negative film"
    assert (fracture["p"], fracture["p_holm"]) == (None, None)
    # The smallest p of 200 resamples is 2 / 201; over two defined labels it is doubled.
    assert better["labels"]["Edema"]["p_holm"] == pytest.approx(4 / 201)
    few = comparison_json(found[0], names, 0.01, 0.985)
    assert few["labels"]["Edema"]["sentence"].startswith("cannot be told apart with 150 patients; a difference of 0.01")


def test_two_models_that_both_separate_the_classes_are_not_said_to_order_the_cases_alike() -> None:
    truth = np.array([0.0] * 6 + [1.0] * 6)[:, None]
    rising = np.arange(12.0)[:, None]
    other = rising[[*range(5, -1, -1), *range(11, 5, -1)]]
    found = compare_models(truth, [rising, other], [(0, 1)], np.arange(12), [0], **SETTINGS)[0]
    said = comparison_json(found, ("Edema",), 0.01, 0.95)["macro"]["sentence"]
    assert said == "cannot be told apart with 12 patients; the difference is the same in every resample"


def test_the_sentence_names_the_patients_a_difference_would_need() -> None:
    unclear = Difference(0.004, (-0.004, 0.012), -0.003, 0.011, 0.3, None, sd=0.004)
    # 500 * ((1.960 + 0.842) * 0.004 / 0.01)**2 = 628
    assert power.patients_needed(500, 0.004, 0.01, 0.95) == 628
    expected = "cannot be told apart with 500 patients; a difference of 0.01 would need about 630 patients"
    assert power.sentence(unclear, 500, 0.01, 0.95) == expected
    assert "a difference of 0.002 would need about 16,000" in power.sentence(unclear, 500, 0.002, 0.95)
    assert "with 1 patient;" in power.sentence(unclear, 1, 0.01, 0.95)
    clear = Difference(0.02, (0.01, 0.03), 0.012, 0.028, 0.001, None, sd=0.005)
    assert power.sentence(clear, 500, 0.01, 0.95) == "better"
    assert power.sentence(clear, 500, 0.01, 0.95, 0.2).startswith("cannot be told apart")
    undefined = Difference(None, None, None, None, None, "no label has both classes")
    assert power.sentence(undefined, 500, 0.01, 0.95) == "cannot be compared: no label has both classes"


@given(
    st.floats(1e-4, 0.1),
    st.floats(1e-3, 0.1),
    st.integers(20, 5000),
    st.sampled_from([0.9, 0.95, 0.99]),
    st.sampled_from([1, 5, 14]),
)
def test_with_so_many_patients_the_test_finds_the_difference_four_times_in_five(
    sd: float, difference: float, patients: int, confidence: float, tests: int
) -> None:
    needed = power.patients_needed(patients, sd, difference, confidence, tests=tests)
    found = []
    for count in (needed - 1, needed):
        shifted = difference / (sd * np.sqrt(patients / max(count, 1)))
        # By Holm one of several tests passes at least where its p times their number does.
        found.append(norm.sf(norm.isf((1 - confidence) / (2 * tests)) - shifted))
    assert found[1] >= 0.8 - 1e-9
    assert needed == 2 or found[0] < 0.8


def test_the_patients_a_label_would_need_are_those_after_the_adjustment_for_all_labels() -> None:
    # 500 * ((2.914 + 0.842) * 0.004 / 0.01)**2 = 1,129 for the first of 14 labels, 628 for one alone
    assert power.patients_needed(500, 0.004, 0.01, 0.95, tests=14) == 1129
    truth, scores, patients = models()
    like = scores[0] + 0.1 * np.random.default_rng(9).normal(size=truth.shape)
    found = compare_models(truth, [scores[0], like], [(0, 1)], patients, [0, 1], **SETTINGS)[0]
    names = ("Edema", "Atelectasis", "Fracture")
    said = comparison_json(found, names, 0.001, 0.95)
    edema, before = found.labels[0], "cannot be told apart with 150 patients; a difference of 0.001 would need about "
    assert edema.sd is not None
    needed = power.patients_needed(150, edema.sd, 0.001, 0.95, tests=2)  # Fracture has one class and no test
    assert said["labels"]["Edema"]["sentence"] == f"{before}{round(needed, -3):,} patients"
    assert round(power.patients_needed(150, edema.sd, 0.001, 0.95), -3) < round(needed, -3)
    assert said["macro"]["sentence"] == power.sentence(found.macro, 150, 0.001, 0.95)
    # The macro mean, where it is one of three comparisons.
    one_of_three = comparison_json(found, names, 0.001, 0.95, 1.0, 3)["macro"]["sentence"]
    assert one_of_three == power.sentence(found.macro, 150, 0.001, 0.95, tests=3) != said["macro"]["sentence"]


@pytest.mark.slow
def test_the_spread_of_a_difference_falls_with_the_root_of_the_patients() -> None:
    rng = np.random.default_rng(0)

    def spread(count: int) -> float:
        found = []
        for trial in range(20):
            truth = (rng.random((count, 1)) < 0.4).astype(float)
            shared = rng.normal(size=truth.shape) + truth
            a, b = (shared + 0.5 * rng.normal(size=truth.shape) for _ in range(2))
            found.append(intervals.compare(truth, a, b, np.arange(count), [0], 200, trial, 0.95).auroc.sd)
        return float(np.mean([sd for sd in found if sd is not None]))

    assert spread(200) / spread(1800) == pytest.approx(3, rel=0.12)


def brute_holm(values: list[float]) -> list[float]:
    """The smallest level at which the step-down procedure rejects each hypothesis."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    found = [0.0] * len(values)
    for place, index in enumerate(order):
        found[index] = min(1.0, max((len(values) - earlier) * values[order[earlier]] for earlier in range(place + 1)))
    return found


def test_a_difference_that_is_the_same_in_every_resample_names_no_patients() -> None:
    draws = np.full((300, 1), 0.1)
    found = intervals.difference(0.1, np.zeros_like(draws), draws, 0.95, "undefined")
    assert (np.std(draws) > 0, found.sd) == (True, 0.0)
    said = power.sentence(found, 40, 0.01, 0.95, 0.2)
    assert said == "cannot be told apart with 40 patients; the difference is the same in every resample"


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=14))
def test_holm_equals_the_step_down_procedure(values: list[float | None]) -> None:
    found = power.holm({str(place): value for place, value in enumerate(values)})
    tested = [value for value in values if value is not None]
    assert [value for value in found.values() if value is not None] == pytest.approx(brute_holm(tested))
    assert list(found) == [str(place) for place in range(len(values))]
    assert [value is None for value in found.values()] == [value is None for value in values]


def test_holm_equals_a_published_example() -> None:
    # Holm 1979 on p = .01, .02, .03, .04: R's p.adjust gives .04, .06, .06, .06
    found = power.holm({"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.02})
    assert found == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.06})
