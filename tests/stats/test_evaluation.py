"""The evaluation as JSON values: its keys, its numbers, and how it says that something is not defined."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

from noisy_student.errors import ConfigError, DataError
from noisy_student.stats.evaluation import aggregate, by_study, evaluate
from noisy_student.stats.intervals import bootstrap_auroc, interval, macro

LABELS = ("Edema", "Fracture", "Atelectasis", "Pneumonia")
OPTIONS: dict[str, Any] = {"replicates": 200, "confidence": 0.95, "bins": 5, "seed": 3}


def sample() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = (rng.random((234, 4)) < 0.3).astype(float)
    probability = expit(rng.normal(size=truth.shape) + truth - 1)
    truth[:, 1] = 0.0
    truth[:, 3] = np.nan
    truth[:34, 2] = np.nan
    return truth, probability, np.arange(234) // 2


def test_evaluation_has_the_agreed_keys_and_is_json() -> None:
    result = evaluate(*sample(), LABELS, LABELS[:3], **OPTIONS)
    assert set(result) == {"n", "patients", "macro", "labels"}
    assert set(result["macro"]) == {
        *("auroc", "ci", "ap", "brier", "log_loss", "ece", "undefined_replicates", "labels", "reason"),
        *("undefined_labels", "calibration_reason"),
    }
    assert list(result["labels"]) == list(LABELS)
    for entry in result["labels"].values():
        assert set(entry) == {
            *("auroc", "ci", "ap", "brier", "log_loss", "ece", "positives", "negatives", "unknown"),
            *("reason", "roc", "reliability", "ci_method", "delong_ci", "delong_method", "delong_reason"),
            *("undefined_replicates", "ece_width", "ece_debiased", "brier_parts", "pr", "before", "operating_points"),
            *("positive_patients", "negative_patients", "calibration_reason"),
        }
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["n"], result["patients"]) == (234, 117)


def test_numbers_are_those_of_scikit_learn_and_the_bootstrap() -> None:
    truth, probability, patients = sample()
    result = evaluate(truth, probability, patients, LABELS, LABELS, **OPTIONS)
    entry = result["labels"]["Atelectasis"]
    y, p = truth[34:, 2], probability[34:, 2]
    assert entry["auroc"] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert entry["ap"] == pytest.approx(average_precision_score(y, p), abs=1e-12)
    assert (entry["positives"], entry["negatives"], entry["unknown"]) == (y.sum(), (1 - y).sum(), 34)
    assert entry["reason"] is None
    assert sum(entry["reliability"]["count"]) == 200
    assert np.trapezoid(entry["roc"]["tpr"], entry["roc"]["fpr"]) == pytest.approx(entry["auroc"], abs=0.002)
    draws = bootstrap_auroc(truth, probability, patients, 200, 3)
    assert tuple(entry["ci"]) == interval(draws[:, 2], 0.95)
    both = [result["labels"][name]["auroc"] for name in ("Edema", "Atelectasis")]
    assert result["macro"]["auroc"] == pytest.approx(np.mean(both), abs=1e-15)
    assert tuple(result["macro"]["ci"]) == interval(macro(draws, [0, 2]), 0.95)
    assert result["macro"]["labels"] == ["Edema", "Atelectasis"]


def test_what_is_not_defined_is_null_with_a_reason() -> None:
    result = evaluate(*sample(), LABELS, ("Fracture", "Pneumonia"), **OPTIONS)
    fracture, pneumonia = result["labels"]["Fracture"], result["labels"]["Pneumonia"]
    assert fracture["reason"] == "no positives among 234 films"
    assert [fracture[key] for key in ("auroc", "ci", "ap", "roc")] == [None] * 4
    assert fracture["brier"] > 0  # proper scores do not need both classes
    assert pneumonia["reason"] == pneumonia["calibration_reason"] == "no film with a known value"
    assert fracture["calibration_reason"] is None
    measures = ("auroc", "ci", "ap", "brier", "log_loss", "ece", "roc", "reliability")
    assert [pneumonia[key] for key in measures] == [None] * 8
    assert pneumonia["unknown"] == 234
    assert result["macro"] == {
        **dict.fromkeys(("auroc", "ci", "ap", "brier", "log_loss", "ece", "undefined_replicates", "undefined_labels")),
        "labels": [],
        "reason": "none of the 2 labels has both a positive and a negative film",
        "calibration_reason": "none of the 2 labels has both a positive and a negative film",
    }


def test_a_missing_interval_has_a_reason() -> None:
    truth = np.full((40, 1), np.nan)
    truth[0], truth[1] = 1, 0
    result = evaluate(truth, np.linspace(0, 1, 40)[:, None], np.arange(40), ("Edema",), ("Edema",), **OPTIONS)
    for entry, name in ((result["macro"], "Edema"), (result["labels"]["Edema"], "the finding")):
        assert entry["auroc"] == 0.0  # truly the worst order, hence a number
        assert entry["ci"] is None
        assert entry["reason"] == f"no interval: only 1 patient with {name}, 1 patient without {name}"


def test_where_no_resample_can_differ_there_is_no_interval() -> None:
    truth = np.tile((np.arange(40) < 12)[:, None], (1, 3)).astype(float)
    score = np.stack([truth[:, 0], 1 - truth[:, 0], np.full(40, 0.5)], axis=1)
    labels = ("Right", "Wrong", "Flat")
    result = evaluate(truth, score, np.arange(40), labels, labels[:2], **OPTIONS)
    separated = "no interval: the scores separate the classes completely"
    for name, auroc, why in (
        ("Right", 1.0, separated),
        ("Wrong", 0.0, separated),
        ("Flat", 0.5, "no interval: every resample gives the same figure"),
    ):
        entry = result["labels"][name]
        assert (entry["auroc"], entry["ci"], entry["reason"]) == (auroc, None, why)
        assert (entry["delong_ci"], entry["undefined_replicates"]) == (None, 0.0)
    assert [result["macro"][key] for key in ("auroc", "ci", "reason")] == [0.5, None, separated]
    # A mean with a label whose resamples do differ has an interval.
    score[:, 2] = np.random.default_rng(0).random(40)
    mixed = evaluate(truth, score, np.arange(40), labels, ("Right", "Flat"), **OPTIONS)["macro"]
    assert mixed["ci"][0] < mixed["ci"][1]
    assert mixed["reason"] is None


@pytest.mark.parametrize(
    ("value", "films", "reason"), [(1.0, 1, "no negatives among 1 film"), (0.0, 0, "no film with a known value")]
)
def test_tiny_sets_do_not_fail(value: float, films: int, reason: str) -> None:
    arrays = np.full((films, 1), value), np.full((films, 1), 0.5), np.arange(films)
    result = evaluate(*arrays, ("Edema",), ("Edema",), **OPTIONS)
    assert result["labels"]["Edema"]["reason"] == reason
    assert result["n"] == films


def test_bad_arguments_are_refused() -> None:
    truth, probability, patients = sample()
    with pytest.raises(ConfigError, match="macro label 'Edma'"):
        evaluate(truth, probability, patients, LABELS, ("Edma",), **OPTIONS)
    with pytest.raises(DataError, match="for 2 labels"):
        evaluate(truth, probability, patients, LABELS[:2], LABELS[:2], **OPTIONS)
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        evaluate(truth, probability * 5, patients, LABELS, LABELS, **OPTIONS)


def test_aggregate_means_what_is_known() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan], [5.0, 2.0], [np.nan, 7.0]])
    np.testing.assert_array_equal(aggregate(values, [9, 9, 2, 2]), [[5.0, 4.5], [2.0, np.nan]])
    np.testing.assert_array_equal(aggregate(values[:, 0], [9, 9, 2, 2]), [5.0, 2.0])


def test_by_study_averages_probability_and_keeps_truth_that_views_agree_on() -> None:
    truth = np.array([[1.0, 1.0], [1.0, np.nan], [0.0, 1.0], [0.0, 0.0], [np.nan, 0.0]])
    probability = np.array([[0.2, 0.4], [0.6, 0.8], [0.1, 0.1], [0.3, 0.5], [0.9, 0.7]])
    known, mean, patients = by_study(truth, probability, [7, 7, 3, 3, 3], [11, 11, 10, 10, 12])
    np.testing.assert_array_equal(known, [[0.0, np.nan], [1.0, 1.0], [np.nan, 0.0]])
    np.testing.assert_allclose(mean, [[0.2, 0.3], [0.4, 0.6], [0.9, 0.7]])
    np.testing.assert_array_equal(patients, [3, 7, 3])
    with pytest.raises(DataError, match="two patients"):
        by_study(truth, probability, [7, 6, 3, 3, 3], [11, 11, 10, 10, 12])
    with pytest.raises(DataError, match="studies has shape"):
        by_study(truth, probability, [7, 7, 3, 3, 3], [11])
