from __future__ import annotations

import itertools

import numpy as np
import pytest

from noisy_student.config import TargetsConfig
from noisy_student.labels import OBSERVATIONS
from noisy_student.targets.uncertainty import label_targets

VALUES = np.array([[1.0], [0.0], [-1.0], [np.nan], [0.3]], dtype=np.float32)
UNCERTAIN = {"ignore": (0.0, 0.0), "zeros": (0.0, 1.0), "ones": (1.0, 1.0)}
BLANK = {"ignore": (0.0, 0.0), "zeros": (0.0, 1.0)}


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
    np.testing.assert_array_equal(values, VALUES)
