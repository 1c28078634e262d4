from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chisquare

from noisy_student.randomness import generator, hash_u64, text_id, text_ids, uniform

MASK = 2**64 - 1


def splitmix(value: int) -> int:
    """SplitMix64 in whole numbers of Python."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_the_mixing_function_is_splitmix64() -> None:
    # First output of SplitMix64 from state 0, as published with the reference code.
    assert splitmix(0) == 0xE220A8397B1DCDAF
    for coordinates in [(0,), (5,), (1, 2, 3), (MASK, 7), (-1, 7), (2**70 + 1,)]:
        state = 0
        for coordinate in coordinates:
            state = splitmix(state ^ splitmix(coordinate & MASK))
        assert int(hash_u64(*coordinates)) == state


def test_arrays_broadcast_and_equal_single_numbers() -> None:
    rows, columns = np.array([[0], [-3]]), np.array([5, 6, 7])
    grid = hash_u64(9, rows, columns)
    assert grid.shape == (2, 3)
    for i, row in enumerate(rows[:, 0]):
        for j, column in enumerate(columns):
            assert grid[i, j] == hash_u64(9, int(row), int(column))


def test_order_of_coordinates_and_each_of_them_matters() -> None:
    values = {int(hash_u64(*c)) for c in [(1, 2), (2, 1), (1, 3), (2, 2), (1, 2, 0), (0, 1, 2)]}
    assert len(values) == 6


def test_uniform_fills_the_unit_interval_evenly_and_without_correlation() -> None:
    drawn = uniform(0, np.arange(50_000))
    assert 0 <= drawn.min() < 1e-3
    assert 1 - 1e-3 < drawn.max() < 1
    assert chisquare(np.histogram(drawn, 50, (0, 1))[0]).pvalue > 1e-4
    # Neighbouring positions, and the same positions under another seed: |r| of independent draws is below 4 / sqrt(N).
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / np.sqrt(50_000)
    assert abs(np.corrcoef(drawn, uniform(1, np.arange(50_000)))[0, 1]) < 4 / np.sqrt(50_000)


def test_a_generator_depends_on_its_coordinates_alone() -> None:
    first = generator(3, 4).random(5)
    np.random.default_rng(0).random(100)
    np.testing.assert_array_equal(generator(3, 4).random(5), first)
    assert not np.array_equal(generator(4, 3).random(5), first)


def test_text_ids_are_stable_and_not_negative() -> None:
    digest = hashlib.blake2b(b"patient00001/study1/view1.jpg", digest_size=8).digest()
    assert text_id("patient00001/study1/view1.jpg") == int.from_bytes(digest, "little") >> 1
    names = [f"film {number}" for number in range(500)]
    ids = text_ids(names)
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert len(set(ids.tolist())) == 500
    assert ids[7] == text_id("film 7")
    assert text_ids([]).shape == (0,)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_other_processes_draw_the_same_whatever_their_hash_seed(hash_seed: str) -> None:
    code = "from noisy_student.randomness import *; print(int(hash_u64(1, text_id('a'))), generator(7).integers(1000))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(int(hash_u64(1, text_id("a")))), str(generator(7).integers(1000))]
