"""Splits by patient: determinism, budgets, and every way to ask for the impossible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisy_student.config import SplitConfig
from noisy_student.data import manifest as manifests
from noisy_student.data import splits
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError


def make(sizes: dict[str, list[int]], **changes: Any) -> Manifest:
    """A manifest with, per split, patients with the given numbers of films; one label, known everywhere."""
    rows = [
        (f"{split or 'none'}/{number:03d}/{film}.png", f"{split or 'none'}{number:03d}", split)
        for split, counts in sizes.items()
        for number, count in enumerate(counts)
        for film in range(count)
    ]
    columns: dict[str, Any] = {
        "image": [row[0] for row in rows],
        "patient": [row[1] for row in rows],
        "study": [row[1] for row in rows],
        "split": [row[2] for row in rows],
        "labelled": [True] * len(rows),
        "A": [index % 2 for index in range(len(rows))],
    }
    return manifests.build({**columns, **changes}, ("A",))


def official(train: int = 40) -> Manifest:
    return make({"train": [1 + number % 4 for number in range(train)], "valid": [2] * 8, "test": [1] * 6})


def images(manifest: Manifest, part: str) -> set[str]:
    return set(manifest.frame["image"][splits.parts(manifest)[part]])


def patients(manifest: Manifest, part: str) -> set[str]:
    return set(manifest.frame["patient"][splits.parts(manifest)[part]])


def test_without_a_budget_all_of_train_is_labelled() -> None:
    manifest, summary = splits.assign(official(), SplitConfig(labelled_fraction=1.0))
    assert summary["counts"] == {
        "labelled": {"images": 100, "patients": 40},
        "pool": {"images": 0, "patients": 0},
        "valid": {"images": 16, "patients": 8},
        "test": {"images": 6, "patients": 6},
    }
    assert summary["dropped"] == 0
    assert not manifest.frame["labelled"][manifest.frame["split"] != "train"].any()


@pytest.mark.parametrize("budget", [{"labelled_patients": 7}, {"labelled_fraction": 7 / 40}, {"labelled_images": 17}])
@pytest.mark.parametrize("validation", ["official", "carve"])
def test_parts_are_disjoint_by_patient_and_add_up(budget: dict[str, Any], validation: Any) -> None:
    before = official()
    copy = before.frame.copy()
    manifest, summary = splits.assign(before, SplitConfig(**budget, validation=validation))
    pd.testing.assert_frame_equal(before.frame, copy)
    found = [patients(manifest, part) for part in splits.PARTS]
    assert sum(map(len, found)) == len(set().union(*found))
    assert sum(summary["counts"][part]["images"] for part in splits.PARTS) == len(manifest)
    assert len(manifest) + summary["dropped"] == len(before)
    for part in splits.PARTS:
        assert summary["counts"][part] == {
            "images": len(images(manifest, part)),
            "patients": len(patients(manifest, part)),
        }
    labelled, valid = summary["counts"]["labelled"], summary["counts"]["valid"]
    assert summary["budget"] == {
        "images": labelled["images"] + valid["images"],
        "patients": labelled["patients"] + valid["patients"],
        "labelled_images": labelled["images"],
        "labelled_patients": labelled["patients"],
        "valid_images": valid["images"],
        "valid_patients": valid["patients"],
    }


@pytest.mark.parametrize(("fraction", "expected"), [(0.001, 1), (0.25, 10), (1.0, 40)])
def test_a_fraction_is_of_patients_and_at_least_one(fraction: float, expected: int) -> None:
    _, summary = splits.assign(official(), SplitConfig(labelled_fraction=fraction))
    assert summary["counts"]["labelled"]["patients"] == expected
    assert summary["counts"]["pool"]["patients"] == 40 - expected


@pytest.mark.parametrize("seed", range(5))
def test_labelled_images_is_exact_and_the_surplus_is_nowhere(seed: int) -> None:
    before = official()
    manifest, summary = splits.assign(before, SplitConfig(labelled_images=17, seed=seed))
    assert summary["counts"]["labelled"]["images"] == 17
    whole = before.frame[before.frame["patient"].isin(patients(manifest, "labelled"))]
    missing = set(whole["image"]) - images(manifest, "labelled")
    assert len(missing) == summary["dropped"] < 4
    assert missing.isdisjoint(manifest.frame["image"])
    assert len({name.rsplit("/", 1)[0] for name in missing}) <= 1


def test_the_same_seed_gives_the_same_split_whatever_the_order_of_rows() -> None:
    before = official()
    shuffled = Manifest(before.frame.sample(frac=1, random_state=3).reset_index(drop=True), before.labels)
    config = SplitConfig(labelled_images=17, validation="carve", valid_images=9)
    first, one = splits.assign(before, config)
    second, two = splits.assign(shuffled, config)
    assert one == two
    pd.testing.assert_frame_equal(
        first.frame.sort_values("image", ignore_index=True), second.frame.sort_values("image", ignore_index=True)
    )
    _, other = splits.assign(before, config.model_copy(update={"seed": 1}))
    assert other["hash"] != one["hash"]
    assert other["seed"] == 1


def test_a_larger_budget_keeps_the_patients_of_a_smaller_one() -> None:
    small, _ = splits.assign(official(), SplitConfig(labelled_patients=5))
    large, _ = splits.assign(official(), SplitConfig(labelled_patients=9))
    assert patients(small, "labelled") < patients(large, "labelled")


def test_the_hash_is_of_image_split_and_flag() -> None:
    before = official()
    _, one = splits.assign(before, SplitConfig(labelled_patients=5))
    _, two = splits.assign(manifests.replace(before, sex="F"), SplitConfig(labelled_patients=5))
    _, three = splits.assign(before, SplitConfig(labelled_patients=6))
    assert one["hash"] == two["hash"] != three["hash"]
    assert len(one["hash"]) == 64


def test_carve_takes_as_many_patients_and_leaves_out_the_official_set() -> None:
    before = official()
    manifest, summary = splits.assign(before, SplitConfig(labelled_patients=6, validation="carve"))
    assert len(patients(manifest, "valid")) == 6
    assert all(name.startswith("train") for name in patients(manifest, "valid"))
    assert images(manifest, "test") == images(before, "test")
    assert images(before, "valid").isdisjoint(manifest.frame["image"])
    assert summary["dropped"] == 16


def test_carve_turns_the_official_validation_into_the_test_set_where_there_is_none() -> None:
    before = make({"train": [2] * 20, "valid": [3] * 4})
    manifest, summary = splits.assign(before, SplitConfig(labelled_images=5, validation="carve"))
    assert images(manifest, "test") == images(before, "valid")
    assert summary["counts"]["valid"]["patients"] == summary["counts"]["labelled"]["patients"] == 3


def test_valid_images_cuts_and_leaves_out_the_rest() -> None:
    before = official()
    manifest, summary = splits.assign(before, SplitConfig(labelled_patients=5, valid_images=7))
    assert summary["counts"]["valid"] == {"images": 7, "patients": 4}
    assert summary["dropped"] == 9
    assert images(manifest, "pool") | images(manifest, "labelled") == images(before, "labelled")


def test_empty_splits_are_filled_by_patient() -> None:
    before = make({"": [1 + number % 3 for number in range(50)]})
    manifest, summary = splits.assign(before, SplitConfig(fractions=(0.5, 0.2, 0.3), labelled_patients=5))
    counts = {part: value["patients"] for part, value in summary["counts"].items()}
    assert counts == {"labelled": 5, "pool": 20, "valid": 10, "test": 15}
    assert len(manifest) == len(before)


def test_films_without_labels_are_pool_and_never_drawn() -> None:
    before = make({"train": [2] * 10, "valid": [2] * 3, "test": [2] * 3, "": [2] * 5})
    blank = before.frame["split"].isin([""]) | before.frame["patient"].isin(["train001", "valid001"])
    label = np.where(blank, np.nan, before.frame["A"])
    before = Manifest(before.frame.assign(A=label.astype(np.float32), labelled=~blank.to_numpy()), ("A",))
    manifest, summary = splits.assign(before, SplitConfig(labelled_fraction=1.0))
    assert patients(manifest, "pool") == {"train001", *(f"none00{number}" for number in range(5))}
    assert summary["counts"]["labelled"]["patients"] == 9
    assert patients(manifest, "valid") == {"valid000", "valid002"}
    assert summary["dropped"] == 2


def test_a_film_that_says_it_carries_labels_counts_though_all_are_blank() -> None:
    before = make({"train": [1] * 4, "valid": [1], "test": [1]}, A=[np.nan] * 6)
    _, summary = splits.assign(before, SplitConfig(labelled_fraction=1.0))
    assert summary["counts"]["labelled"]["images"] == 4


def test_a_carved_patient_leaves_no_film_in_the_pool() -> None:
    before = make({"train": [2] * 4, "test": [1]})
    label = before.frame["A"].copy()
    label[before.frame["image"].str.endswith("1.png")] = np.nan
    before = Manifest(before.frame.assign(A=label, labelled=label.notna()), ("A",))
    manifest, summary = splits.assign(before, SplitConfig(labelled_patients=2, validation="carve"))
    assert patients(manifest, "valid").isdisjoint(patients(manifest, "pool"))
    assert summary["dropped"] == 2
    manifests.check(manifest)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"valid": [1], "test": [1]}, "the train split is empty"),
        ({"train": [1], "test": [1]}, "the valid split is empty"),
        ({"train": [1], "valid": [1]}, "the test split is empty"),
    ],
)
def test_an_empty_split_is_named_with_a_fix(sizes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        splits.assign(make(sizes), SplitConfig(labelled_fraction=1.0))
    assert "split." in caught.value.hint


def test_a_train_split_without_labels_is_an_error() -> None:
    before = make({"train": [1] * 3, "valid": [1], "test": [1]})
    nothing = np.array([np.nan] * 3 + [0, 1], dtype=np.float32)
    before = Manifest(before.frame.assign(A=nothing, labelled=False), ("A",))
    for config in (SplitConfig(labelled_fraction=1.0), SplitConfig(labelled_fraction=0.5)):
        with pytest.raises(DataError, match="the labelled set is empty"):
            splits.assign(before, config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"labelled_patients": 41}, "split.labelled_patients: 41 are asked for, and train has 40"),
        ({"labelled_images": 101}, "split.labelled_images: 101 are asked for, and there are 100"),
        ({"labelled_fraction": 1.0, "valid_images": 17}, "split.valid_images: 17 are asked for, and there are 16"),
        ({"labelled_patients": 21, "validation": "carve"}, "carve needs 21 labelled and 21 validation patients"),
        ({"labelled_fraction": 1.0, "validation": "carve"}, "carve needs 40 labelled"),
    ],
)
def test_more_than_there_is_is_an_error(config: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        splits.assign(official(), SplitConfig(**config))


def test_a_patient_in_two_splits_is_an_error() -> None:
    before = make({"train": [2] * 3, "valid": [1], "test": [1]})
    split = before.frame["split"].tolist()
    split[0] = "test"
    with pytest.raises(DataError, match="more than one split"):
        splits.assign(manifests.replace(before, split=split), SplitConfig(labelled_fraction=1.0))


def test_check_classes_names_every_label_with_one_class() -> None:
    target = np.array([[1, 1, 0, 0.7], [0, 1, 0, 0.2], [1, 0, 1, 0.9]])
    weight = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1]], dtype=float)
    splits.check_classes(target[:, [0, 3]], weight[:, [0, 3]], ("A", "D"))
    with pytest.raises(DataError, match="'B' has only positive targets; 'C' has only negative targets") as caught:
        splits.check_classes(target, weight, ("A", "B", "C", "D"))
    assert "split.seed" in caught.value.hint
    with pytest.raises(DataError, match="'A' has no known targets"):
        splits.check_classes(target[:, :1], weight[:, :1] * 0, ("A",))
