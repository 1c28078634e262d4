from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from noisy_student.config import TargetsConfig
from noisy_student.labels import OBSERVATIONS, PARENTS
from noisy_student.targets.uncertainty import fill_parents, fill_uncertain, label_targets, self_trained

VALUES = np.array([[1.0], [0.0], [-1.0], [np.nan], [0.3]], dtype=np.float32)
UNCERTAIN = {"ignore": (0.0, 0.0), "zeros": (0.0, 1.0), "ones": (1.0, 1.0)}
BLANK = {"ignore": (0.0, 0.0), "zeros": (0.0, 1.0)}
CELLS = st.sampled_from([1.0, 0.0, -1.0, float("nan"), 0.25, 0.5, 0.75])


@pytest.mark.parametrize(("uncertain", "blank"), list(itertools.product(UNCERTAIN, BLANK)))
def test_the_policies_for_uncertain_and_blank_labels(uncertain: str, blank: str) -> None:
    target, weight = label_targets(VALUES, ["Fracture"], TargetsConfig(uncertain=uncertain, blank=blank))
    assert target.dtype == weight.dtype == np.float32
    expected = [(1.0, 1.0), (0.0, 1.0), UNCERTAIN[uncertain], BLANK[blank], (np.float32(0.3), 1.0)]
    assert list(zip(target[:, 0].tolist(), weight[:, 0].tolist(), strict=True)) == [
        (float(t), float(w)) for t, w in expected
    ]


def test_a_label_may_have_a_policy_of_its_own() -> None:
    values = np.full((1, 3), -1, dtype=np.float32)
    config = TargetsConfig(uncertain="zeros", uncertain_by_label={"Edema": "ones", "Fracture": "ignore"})
    target, weight = label_targets(values, ["Edema", "Cardiomegaly", "Fracture"], config)
    assert target.tolist() == [[1, 0, 0]]
    assert weight.tolist() == [[1, 1, 0]]


def test_the_policy_of_the_literature_is_ones_for_atelectasis_and_edema_alone() -> None:
    values = np.full((1, len(OBSERVATIONS)), -1, dtype=np.float32)
    target, weight = label_targets(values, OBSERVATIONS, TargetsConfig())
    ones = {label for label, value in zip(OBSERVATIONS, target[0], strict=True) if value == 1}
    assert ones == {"Atelectasis", "Edema"}
    assert weight.min() == 1
    one, known = label_targets(values[:, :1], ["Edema"], TargetsConfig(uncertain_by_label={"Edema": "ignore"}))
    assert (one.item(), known.item()) == (0, 0)


def test_the_labels_themselves_are_left_alone() -> None:
    values = VALUES.copy()
    label_targets(values, ["Edema"], TargetsConfig())
    fill_parents(values, ["Enlarged Cardiomediastinum"])
    np.testing.assert_array_equal(values, VALUES)


# -- smoothed policies, and a blank between negative and unknown ---------------------------------------------------


@pytest.mark.parametrize(("policy", "low", "high"), [("smooth_ones", 0.55, 0.85), ("smooth_zeros", 0.0, 0.3)])
def test_smoothed_targets_are_uniform_in_the_range_of_pham(policy: str, low: float, high: float) -> None:
    count = 20_000
    values = np.full((count, 2), -1, dtype=np.float32)
    config = TargetsConfig(uncertain_by_label={"Edema": policy, "Fracture": policy})
    target, weight = label_targets(values, ["Edema", "Fracture"], config, [f"{n}.jpg" for n in range(count)])
    assert (weight == 1).all()
    assert np.float32(low) <= target.min() < low + 0.01
    assert high - 0.01 < target.max() <= np.float32(high)
    # Mean and deviation of a uniform draw, to five standard errors.
    error = (high - low) / math.sqrt(12 * count)
    np.testing.assert_allclose(target.mean(axis=0), (low + high) / 2, atol=5 * error)
    np.testing.assert_allclose(target.std(axis=0), (high - low) / math.sqrt(12), rtol=0.02)
    assert abs(np.corrcoef(target.T)[0, 1]) < 5 / math.sqrt(count), "two labels share their draws"


def test_a_film_has_the_same_smoothed_target_in_every_table() -> None:
    names = [f"train/{n}.png" for n in range(50)]
    values = np.full((50, 1), -1, dtype=np.float32)
    config = TargetsConfig(uncertain="smooth_ones")
    target, _ = label_targets(values, ["Edema"], config, names)
    some, _ = label_targets(values[:7], ["Edema"], config, names[::-1][:7])
    np.testing.assert_array_equal(some, target[::-1][:7])
    other, _ = label_targets(values, ["Edema"], TargetsConfig(uncertain="smooth_ones", smooth_seed=1), names)
    assert (other != target).all()


def test_smoothing_without_the_films_names_is_refused() -> None:
    config = TargetsConfig(uncertain="smooth_zeros")
    with pytest.raises(ValueError, match="smooth_zeros of 'Edema' draws from the paths"):
        label_targets(VALUES, ["Edema"], config)


def test_a_blank_may_count_for_less_than_a_negative() -> None:
    target, weight = label_targets(VALUES, ["Fracture"], TargetsConfig(blank_weight=0.25))
    assert target[:, 0].tolist()[:4] == [1, 0, 0, 0]
    assert weight[:, 0].tolist() == [1, 1, 1, 0.25, 1]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"blank": "ignore", "blank_weight": 0.5}, "blank_weight: does nothing with blank: ignore"),
        ({"smooth_ones": (0.9, 0.5)}, "smooth_ones: give two numbers from 0 to 1"),
        ({"smooth_zeros": (0.0, 1.5)}, "smooth_zeros: give two numbers from 0 to 1"),
        ({"uncertain": "twos"}, "uncertain"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TargetsConfig(**settings_)


def by_hand(value: float, policy: str, config: TargetsConfig) -> tuple[tuple[float, float], float]:
    """The range a target may lie in and its weight, one cell at a time."""
    if math.isnan(value):
        return (0, 0), 0 if config.blank == "ignore" else config.blank_weight
    if value != -1:
        return (value, value), 1
    ranges = {
        "ignore": (0, 0), "zeros": (0, 0), "ones": (1, 1), "smooth_zeros": config.smooth_zeros,
        "smooth_ones": config.smooth_ones, "selftrained": (0, 0),
    }  # fmt: skip
    return ranges[policy], 0 if policy in ("ignore", "selftrained") else 1


POLICIES = ("ignore", "zeros", "ones", "smooth_zeros", "smooth_ones", "selftrained")


@settings(deadline=None, max_examples=80)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8),
    policies=st.tuples(*[st.sampled_from(POLICIES)] * 3),
    blank=st.sampled_from([("ignore", 1.0), ("zeros", 1.0), ("zeros", 0.3)]),
)
def test_policies_equal_a_brute_force_version(
    rows: list[tuple[float, float, float]], policies: tuple[str, str, str], blank: tuple[str, float]
) -> None:
    labels = ("Edema", "Fracture", "Pneumonia")
    config = TargetsConfig(
        uncertain_by_label=dict(zip(labels, policies, strict=True)), blank=blank[0], blank_weight=blank[1]
    )
    values = np.array(rows, dtype=np.float32)
    target, weight = label_targets(values, labels, config, [f"{n}" for n in range(len(rows))])
    assert ((target >= 0) & (target <= 1)).all()
    for row, k in itertools.product(range(len(rows)), range(3)):
        (low, high), expected = by_hand(rows[row][k], policies[k], config)
        assert np.float32(low) <= target[row, k] <= np.float32(high)
        assert weight[row, k] == np.float32(expected)


def test_a_teacher_fills_in_what_is_uncertain_and_nothing_else() -> None:
    labels = ("Edema", "Fracture", "Pneumonia")
    config = TargetsConfig(uncertain="selftrained", uncertain_by_label={"Fracture": "ones"}, blank_weight=0.3)
    values = np.array([[-1, -1, 1], [0, -1, -1], [np.nan, 1, 0.4]], dtype=np.float32)
    target, weight = label_targets(values, labels, config)
    assert (weight[0, 0], weight[1, 2]) == (0, 0)  # generation 0 ignores them
    said = np.full((3, 3), 0.7) + np.arange(3) / 10
    filled, weighed = fill_uncertain(values, target, weight, said, self_trained(labels, config))
    np.testing.assert_allclose(filled, [[0.7, 1, 1], [0, 1, 0.9], [0, 1, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(weighed, [[1, 1, 1], [1, 1, 1], [0.3, 1, 1]])


# -- parents ---------------------------------------------------------------------------------------------------------


def parent_by_hand(own: float, children: list[float]) -> float:
    known = [child for child in children if not math.isnan(child) and child != -1]
    highest = max([0.0, *known])
    if highest == 1:
        return 1.0
    if highest > 0 and own != -1 and (math.isnan(own) or own < highest):
        return highest
    if math.isnan(own) and -1 in children:
        return -1.0
    return own


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(st.tuples(*[CELLS] * 8), min_size=1, max_size=6), order=st.permutations(range(8)))
def test_parents_equal_a_brute_force_version(rows: list[tuple[float, ...]], order: list[int]) -> None:
    names = [name for parent, children in PARENTS.items() for name in (parent, *children)]
    labels = [names[place] for place in order]
    values = np.array(rows, dtype=np.float32)
    filled = fill_parents(values, labels)
    for row, cells in enumerate(rows):
        of = dict(zip(labels, cells, strict=True))
        for k, label in enumerate(labels):
            expected = of[label]
            if label in PARENTS:
                expected = parent_by_hand(of[label], [of[child] for child in PARENTS[label]])
            np.testing.assert_array_equal(filled[row, k], np.float32(expected))


def test_a_parent_without_children_among_the_labels_stays_as_it_is() -> None:
    values = np.array([[np.nan, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(fill_parents(values, ["Enlarged Cardiomediastinum", "Fracture"]), values)
    np.testing.assert_array_equal(fill_parents(values, ["Fracture", "Cardiomegaly"]), values)
    assert fill_parents(values, ["enlarged_cardiomediastinum", "Cardiomegaly"]).tolist() == [[1, 1]]
