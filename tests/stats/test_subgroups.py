"""Figures by group: counts, gaps, small groups, shared patients, and strata for rare findings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from noisy_student.stats import intervals
from noisy_student.stats.strata import strata
from noisy_student.stats.subgroups import Group, measure_groups

LABELS = ("Edema", "Atelectasis", "Fracture")
SETTINGS = {"smallest": 30, "replicates": 200, "confidence": 0.95, "seed": 1}


def films(seed: int = 0, count: int = 240) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((count, 3)) < 0.4).astype(float)
    truth[:, 2] = 0
    return truth, rng.normal(size=truth.shape) + truth, np.arange(count) // 2


def grouped(keep: dict[str, np.ndarray], **harder: float) -> list[Group]:
    truth, score, patients = films()
    noise = np.random.default_rng(1).normal(size=score.shape)
    return [
        Group(name, truth[rows], (score + harder.get(name, 0) * noise)[rows], patients[rows])
        for name, rows in keep.items()
    ]


def parts() -> dict[str, np.ndarray]:
    place = np.arange(240) // 2
    return {"A": place % 5 < 2, "B": (place % 5 == 2) | (place % 5 == 3), "C": (place % 5 == 4) & (place < 60)}


def test_figures_are_those_of_the_groups_own_films() -> None:
    found = measure_groups({"site": grouped(parts(), B=3)}, LABELS, LABELS, **SETTINGS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["smallest"] == 30
    truth, score, _ = films()
    for entry, rows in zip(found["columns"]["site"]["groups"], parts().values(), strict=True):
        assert (entry["n"], entry["patients"]) == (rows.sum(), rows.sum() // 2)
        assert entry["small"] == (rows.sum() // 2 < 30)
        if entry["group"] != "B":
            for k, name in enumerate(LABELS[:2]):
                cell = entry["labels"][name]
                assert cell["auroc"] == pytest.approx(roc_auc_score(truth[rows, k], score[rows, k]), abs=1e-12)
                assert cell["ci"][0] < cell["auroc"] < cell["ci"][1]
                assert cell["positives"] + cell["negatives"] == rows.sum()
        both = [entry["labels"][name]["auroc"] for name in LABELS[:2]]
        assert entry["macro"]["auroc"] == pytest.approx(np.mean(both))
        fracture = entry["labels"]["Fracture"]
        assert (fracture["auroc"], fracture["ci"]) == (None, None)
        assert fracture["reason"] == f"no positives among {rows.sum()} films"


def test_the_gap_is_between_the_best_and_the_worst_that_are_not_small() -> None:
    found = measure_groups({"site": grouped(parts(), B=3, C=-9)}, LABELS, LABELS, **SETTINGS)["columns"]["site"]
    a, b, c = found["groups"]
    assert [entry["small"] for entry in (a, b, c)] == [False, False, True]
    gap = found["gap"]
    assert gap["between"] == ["A", "B"]
    assert gap["difference"] == pytest.approx(a["macro"]["auroc"] - b["macro"]["auroc"])
    assert gap["labels"] == ["Edema", "Atelectasis"]
    assert 0 < gap["ci"][0] < gap["difference"] < gap["ci"][1]


def test_patients_in_two_groups_are_resampled_together() -> None:
    truth, score, patients = films()
    first, second = np.arange(240) % 2 == 0, np.arange(240) % 2 == 1
    same = score.copy()
    truth[second], same[second] = truth[first], score[first]  # both views of a patient say the same
    groups = [Group(name, truth[rows], same[rows], patients[rows]) for name, rows in (("f", first), ("l", second))]
    gap = measure_groups({"view": groups}, LABELS, LABELS, **SETTINGS)["columns"]["view"]["gap"]
    assert (gap["difference"], gap["ci"]) == (0.0, [0.0, 0.0])
    assert sorted(gap["between"]) == ["f", "l"]


def test_a_gap_that_cannot_be_says_why() -> None:
    one = measure_groups({"sex": grouped(parts())[:1]}, LABELS, LABELS, **SETTINGS)["columns"]["sex"]["gap"]
    assert (one["difference"], one["ci"], one["between"]) == (None, None, None)
    assert one["reason"] == "fewer than two groups have 30 patients"
    none = measure_groups({"sex": grouped(parts())}, LABELS, LABELS[2:], **SETTINGS)["columns"]["sex"]
    assert none["gap"]["reason"] == "no label has both a positive and a negative film in every group"
    assert none["groups"][0]["macro"]["reason"] == "none of the 1 labels has both a positive and a negative film"


def test_strata_are_the_rarest_finding_of_a_patient() -> None:
    truth = np.zeros((42, 3))
    truth[:30, 0] = 1  # patients 0 ... 14
    truth[10:32, 1] = 1  # patients 5 ... 15
    truth[[1, 39], 2] = 1  # two patients: too few
    found = strata(truth, np.arange(42) // 2, smallest=10)
    np.testing.assert_array_equal(found[0::2], found[1::2])
    by_patient = found[0::2]
    assert (by_patient[5:16] == by_patient[5]).all()  # the rarer of the two large findings
    assert (by_patient[16:] == 0).all()
    assert (by_patient[:5] == 0).all()  # five are left of the most frequent one
    assert strata(truth, np.arange(42) // 2, smallest=2)[0] != strata(truth, np.arange(42) // 2, smallest=2)[2]
    assert strata(np.empty((0, 3)), np.empty(0)).size == 0


def test_few_patients_who_are_left_over_are_drawn_with_the_largest_stratum() -> None:
    truth = np.zeros((200, 2))
    truth[:199, 0], truth[199, 1] = 1, 1
    assert np.unique(strata(truth, np.arange(200))).size == 1
    truth[:, 1] = np.arange(200) < 30
    truth[190:, 0] = 0  # 30 patients with the second finding, 160 with the first alone, 10 with none
    assert np.unique(strata(truth, np.arange(200)), return_counts=True)[1].tolist() == [10, 30, 160]
    truth[190, 0] = 1
    found = strata(truth, np.arange(200))
    assert np.unique(found, return_counts=True)[1].tolist() == [30, 170]
    assert found[199] == found[100]
    assert np.unique(strata(np.zeros((5, 2)), np.arange(5))).tolist() == [0]


def test_stratified_resamples_do_not_lose_a_rare_finding() -> None:
    rng = np.random.default_rng(0)
    truth = (np.arange(400) < 12).astype(float)[:, None]
    score = rng.normal(size=truth.shape) + truth
    patients = np.arange(400)
    keep = strata(truth, patients)
    counts = np.concatenate(list(intervals.resample_counts(patients, 64, 0, keep)))
    assert (counts[:, :12].sum(axis=1) == 12).all()
    kept = intervals.bootstrap_auroc(truth, score, patients, 400, 0, keep)
    assert not np.isnan(kept).any()
    few = intervals.bootstrap_auroc(truth[:300:60], score[:300:60], patients[:300:60], 400, 0)
    assert np.isnan(few).any()


def test_groups_are_stratified_when_asked() -> None:
    groups = {"site": grouped(parts())}
    plain = measure_groups(groups, LABELS, LABELS, **SETTINGS)
    kept = measure_groups(groups, LABELS, LABELS, **SETTINGS, stratify=True)
    first, second = (found["columns"]["site"]["groups"][0]["macro"] for found in (plain, kept))
    assert first["auroc"] == second["auroc"]
    assert first["ci"] != second["ci"]
