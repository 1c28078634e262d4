from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noisy_student.targets.table import Targets, concatenate, read, write


def make(count: int = 3, labels: tuple[str, ...] = ("Edema", "Pleural Effusion"), *, pseudo: bool = False) -> Targets:
    stream = np.random.default_rng(count)
    shape = (count, len(labels))
    return Targets(
        np.array([f"p{number}/film {number}.jpg" for number in range(count)], dtype=object),
        labels,
        stream.random(shape).astype(np.float32),
        stream.choice([0.0, 0.25, 1.0], shape).astype(np.float32),
        np.full(count, pseudo),
    )


def assert_equal(first: Targets, second: Targets) -> None:
    assert first.labels == second.labels
    for name in ("images", "target", "weight", "pseudo"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert getattr(first, name).dtype == getattr(second, name).dtype


def test_a_table_comes_back_as_it_was_written_and_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "gen-0" / "targets.parquet"
    targets = concatenate(make(3), make(2, pseudo=True))
    write(targets, path)
    back = read(path)
    assert_equal(back, targets)
    back.target[0, 0] = 0.5
    back.pseudo[0] = True


def test_the_file_is_readable_without_us(tmp_path: Path) -> None:
    targets = make(2)
    write(targets, tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame.columns) == [
        "image", "pseudo", "target:Edema", "weight:Edema", "target:Pleural Effusion", "weight:Pleural Effusion",
    ]  # fmt: skip
    np.testing.assert_array_equal(frame["weight:Pleural Effusion"], targets.weight[:, 1])


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    write(make(), tmp_path / "a")
    write(make(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_empty_table_keeps_its_labels(tmp_path: Path) -> None:
    write(make(0), tmp_path / "t.parquet")
    back = read(tmp_path / "t.parquet")
    assert back.labels == ("Edema", "Pleural Effusion")
    assert back.target.shape == (0, 2)
    assert_equal(concatenate(back, make()), make())


def test_concatenate_keeps_the_order_and_refuses_other_labels() -> None:
    joined = concatenate(make(2), make(3, pseudo=True))
    assert joined.pseudo.tolist() == [False, False, True, True, True]
    np.testing.assert_array_equal(joined.target[2:], make(3).target)
    with pytest.raises(AssertionError):
        concatenate(make(2), make(2, labels=("Edema", "Fracture")))


@pytest.mark.parametrize(
    ("name", "value"),
    [("target", -0.1), ("target", 1.1), ("target", np.nan), ("weight", -1.0), ("weight", np.inf), ("weight", np.nan)],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    good = make()
    arrays = {"target": good.target.copy(), "weight": good.weight.copy()}
    arrays[name][1, 1] = value
    with pytest.raises(AssertionError):
        Targets(good.images, good.labels, arrays["target"], arrays["weight"], good.pseudo)


def test_shapes_must_fit() -> None:
    good = make()
    with pytest.raises(AssertionError):
        Targets(good.images, good.labels, good.target, good.weight[:2], good.pseudo)
    with pytest.raises(AssertionError):
        Targets(good.images, good.labels, good.target, good.weight, good.pseudo[:2])
