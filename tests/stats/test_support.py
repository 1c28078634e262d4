"""Figures that few patients carry: one meaning per macro interval, no interval and no word from a single patient."""

from __future__ import annotations

import numpy as np
import pytest

from noisy_student.stats import intervals, support
from noisy_student.stats.comparison import compare_models, comparison_json
from noisy_student.stats.evaluation import evaluate
from noisy_student.stats.subgroups import Group, measure_groups

LABELS = ("Edema", "Atelectasis", "Pneumonia", "Lung Lesion")
OPTIONS = {"replicates": 400, "confidence": 0.95, "seed": 1}
FILMS = 400


def rare(positives: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Three common labels that are read well and one of ``positives`` that is read badly; a patient per film."""
    rng = np.random.default_rng(7)
    truth = (rng.random((FILMS, 4)) < 0.4).astype(float)
    truth[:, 3] = np.arange(FILMS) < positives
    score = rng.normal(size=truth.shape) + 1.5 * truth
    score[:positives, 3] = np.linspace(-1.2, -0.8, positives) + gain  # below most of the others
    return truth, 1 / (1 + np.exp(-score))


def test_patients_are_counted_by_class_as_by_hand() -> None:
    truth = np.array([[1, 0], [1, np.nan], [0, 0], [np.nan, 1], [1, np.nan]], dtype=float)
    # Patient 5 has films of both classes of the first label.
    np.testing.assert_array_equal(support.of_classes(truth, [5, 5, 5, 6, 7]), [[2, 1], [1, 1]])
    assert support.of_classes(np.empty((0, 2)), []).tolist() == [[0, 0], [0, 0]]


def test_which_classes_lack_patients_is_said_worst_first() -> None:
    counts = np.array([[9, 9], [3, 9], [9, 1]])
    assert support.lacking(counts, LABELS, 5) == "only 1 patient without Pneumonia, 3 patients with Atelectasis"
    assert support.lacking(counts, LABELS, 1) is None
    assert str(support.lacking(np.zeros((4, 2), dtype=int), LABELS, 2)).endswith(" and 5 more")


def test_a_macro_interval_is_of_the_resamples_that_have_every_label() -> None:
    truth, probability = rare(2)
    macro = evaluate(truth, probability, np.arange(FILMS), LABELS, LABELS, bins=5, **OPTIONS)["macro"]
    draws = intervals.bootstrap_auroc(truth, probability, np.arange(FILMS), 400, 1)
    whole = draws[~np.isnan(draws).any(axis=1)].mean(axis=1)
    assert macro["ci"] == pytest.approx(np.quantile(whole, [0.025, 0.975]))
    assert macro["undefined_replicates"] == (400 - len(whole)) / 400
    assert macro["undefined_replicates"] == pytest.approx(np.exp(-2), abs=0.06)
    assert macro["undefined_labels"] == ["Lung Lesion"]
    # The mean of the three others is far above: resamples without the rare label would have drawn the interval up.
    assert macro["ci"][1] < np.nanmean(draws[:, :3], axis=1).min()


def test_a_macro_interval_that_most_resamples_lack_names_the_labels() -> None:
    rng = np.random.default_rng(0)

    truth = np.concatenate([np.eye(10), np.eye(10), np.zeros((380, 10))])
    found = evaluate(
        truth, rng.random(truth.shape), np.arange(400), tuple("abcdefghij"), tuple("abcdefghij"), bins=5, **OPTIONS
    )
    macro = found["macro"]
    assert (macro["auroc"] is None, macro["ci"]) == (False, None)
    share = macro["undefined_replicates"]
    assert share == pytest.approx(1 - (1 - np.exp(-2)) ** 10, abs=0.06)
    first = ", ".join(macro["undefined_labels"][:3])
    assert (
        macro["reason"]
        == f"no interval: {100 * share:.0f} % of the resamples have one class only of {first} and 7 more"
    )
    assert all(found["labels"][name]["ci"] is not None for name in "abcdefghij")


def test_a_lone_patient_of_a_class_gives_no_interval() -> None:
    truth, probability = rare(1)
    found = evaluate(truth, probability, np.arange(FILMS), LABELS, LABELS, bins=5, **OPTIONS)
    lesion = found["labels"]["Lung Lesion"]
    assert (lesion["ci"], lesion["reason"]) == (None, "no interval: only 1 patient with the finding")
    assert (lesion["positive_patients"], lesion["negative_patients"]) == (1, 399)
    assert (found["macro"]["ci"], found["macro"]["reason"]) == (None, "no interval: only 1 patient with Lung Lesion")
    assert found["labels"]["Edema"]["ci"] is not None
    # Films of one patient are no more than one patient.
    many = evaluate(truth[:80], probability[:80], np.zeros(80, int), LABELS, LABELS[:1], bins=5, **OPTIONS)
    assert many["labels"]["Edema"]["ci"] is None


def compared(positives: int, patients: np.ndarray | None = None) -> dict:
    (truth, first), (_, second) = rare(positives), rare(positives, 4.0)
    owners = np.arange(FILMS) if patients is None else patients
    (found,) = compare_models(truth, [first, second], [(0, 1)], owners, range(4), names=LABELS, **OPTIONS)
    return comparison_json(found, LABELS, 0.01, 0.95)


@pytest.mark.parametrize(
    ("positives", "said"),
    [
        (1, "cannot be compared: no interval, only 1 patient with {}"),
        (4, "cannot be told apart: only 4 patients with {}"),
        (5, "better"),
    ],
)
def test_better_takes_patients_of_both_classes(positives: int, said: str) -> None:
    found = compared(positives)
    assert found["labels"]["Lung Lesion"]["difference"] > 0.5
    assert found["labels"]["Lung Lesion"]["sentence"] == said.format("the finding")
    assert found["macro"]["sentence"] == said.format("Lung Lesion")
    assert (found["macro"]["p"] is None) == (found["labels"]["Lung Lesion"]["ci"] is None) == (positives == 1)


def test_two_models_on_films_of_one_patient_are_not_told_apart() -> None:
    found = compared(40, np.zeros(FILMS, dtype=int))
    for one in (found["macro"], *found["labels"].values()):
        assert [one[key] for key in ("ci", "lower", "upper", "p")] == [None] * 4
        assert one["sentence"].startswith("cannot be compared: no interval, only 1 patient with")


def test_paired_resamples_without_a_label_are_left_out() -> None:
    (truth, first), (_, second) = rare(2), rare(2, 0.6)
    found = intervals.compare(truth, first, second, np.arange(FILMS), range(4), 400, 1, 0.95).auroc
    draws = [intervals.bootstrap_auroc(truth, score, np.arange(FILMS), 400, 1) for score in (first, second)]
    whole = (draws[1] - draws[0])[~np.isnan(draws[0]).any(axis=1)].mean(axis=1)
    assert found.ci == pytest.approx(np.quantile(whole, [0.025, 0.975]))
    assert found.undefined == (400 - len(whole)) / 400
    assert found.undefined_labels == ("label 3",)


def test_groups_and_their_gap_follow_the_same_rules() -> None:
    truth, probability = rare(3)
    owners = np.arange(FILMS)
    groups = [
        Group(name, truth[rows], probability[rows], owners[rows])
        for name, rows in (("a", owners % 2 == 0), ("b", owners % 2 == 1))
    ]
    site = measure_groups({"site": groups}, LABELS, LABELS, smallest=30, **OPTIONS)["columns"]["site"]
    a, b = site["groups"]
    assert a["macro"]["undefined_labels"] == ["Lung Lesion"]  # 2 of the 3 are of a
    assert a["macro"]["ci"] is not None
    assert b["macro"]["reason"] == site["gap"]["reason"] == "no interval: only 1 patient with Lung Lesion"
    assert (b["macro"]["ci"], site["gap"]["ci"]) == (None, None)
    assert b["labels"]["Lung Lesion"]["ci"] is None
