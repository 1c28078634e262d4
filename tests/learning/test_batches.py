from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch

from noisy_student.learning import batches as batches_module
from noisy_student.learning.batches import Batch, Batches, Films
from noisy_student.learning.sampling import Sampler, sampler
from noisy_student.randomness import text_id
from noisy_student.targets.table import Targets

CPU = torch.device("cpu")
LABELS = ("Edema", "Fracture")


def make_targets(labelled: int, pseudo: int) -> Targets:
    count, stream = labelled + pseudo, np.random.default_rng(1)
    marks = np.arange(count) >= labelled
    return Targets(
        np.array([f"film {number}" for number in range(count)], dtype=object),
        LABELS,
        stream.random((count, 2)).astype(np.float32),
        stream.random((count, 2)).astype(np.float32),
        marks[np.random.default_rng(2).permutation(count)],  # labelled and pseudo-labelled in no order
    )


def make_pixels(count: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, channels, 8, 8), dtype=np.uint8)


def make(labelled: int = 5, pseudo: int = 11, *, resident: bool | None = None, size: int = 6) -> Batches:
    targets = make_targets(labelled, pseudo)
    rows = np.random.default_rng(4).permutation(40)[: labelled + pseudo]
    films = Films(make_pixels(40), rows, CPU, resident=resident)
    order = sampler(targets, batch_size=size, labelled_share=0.34, seed=7, generation=1)
    return Batches(films, targets, order, np.array([2.0, 5.0], dtype=np.float32))


def assert_equal(first: Batch, second: Batch) -> None:
    for name in ("clean", "target", "weight", "pos_weight"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    np.testing.assert_array_equal(first.position, second.position)
    np.testing.assert_array_equal(first.image_id, second.image_id)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


# -- films ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_films_are_those_of_the_rows_in_the_order_asked_for(resident: bool, channels: int) -> None:
    pixels, rows = make_pixels(10, channels), np.array([9, 2, 2, 5])
    films = Films(pixels, rows, CPU, resident=resident)
    found = films.gather(np.array([3, 0, 1, 0]))
    assert len(films) == 4
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), pixels[[5, 9, 2, 9]])


def test_films_stay_on_the_device_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, rows = make_pixels(10), np.arange(10)
    needed = pixels.size / batches_module.RESIDENT_SHARE
    monkeypatch.setattr(batches_module, "_free_memory", lambda _: int(needed) + 1)
    assert Films(pixels, rows, CPU).resident
    assert Films(pixels, rows[:3], CPU).resident
    monkeypatch.setattr(batches_module, "_free_memory", lambda _: int(needed) - 1)
    assert not Films(pixels, rows, CPU).resident
    assert Films(pixels, rows, CPU, resident=True).resident


def test_the_free_memory_of_this_machine_is_less_than_all_of_it() -> None:
    import psutil

    assert 0 < batches_module._free_memory(CPU) < psutil.virtual_memory().total


# -- the order of films --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("labelled", "pseudo", "size"), [(5, 11, 6), (5, 11, 16), (13, 3, 7), (1, 1, 2), (9, 0, 4)])
def test_every_film_of_a_kind_appears_equally_often_per_epoch(labelled: int, pseudo: int, size: int) -> None:
    targets = make_targets(labelled, pseudo)
    order = sampler(targets, batch_size=size, labelled_share=0.3, seed=0, generation=0)
    drawn = [order.film_numbers(step) for step in range(labelled * max(pseudo, 1))]
    for kind, members, per_batch in (
        (slice(None, order.labelled_per_batch), np.flatnonzero(~targets.pseudo), order.labelled_per_batch),
        (slice(order.labelled_per_batch, None), np.flatnonzero(targets.pseudo), size - order.labelled_per_batch),
    ):
        sequence = np.concatenate([numbers[kind] for numbers in drawn])
        assert len(sequence) == len(drawn) * per_batch
        for start in range(0, len(sequence) - len(members) + 1, max(len(members), 1)):
            epoch = sequence[start : start + len(members)]
            np.testing.assert_array_equal(np.sort(epoch), members)


def test_epochs_kinds_generations_and_seeds_have_orders_of_their_own() -> None:
    members = np.arange(50)
    orders = [
        Sampler(members, members, 100, 50, seed, generation).film_numbers(step)
        for seed, generation, step in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    ]
    halves = [half for order in orders for half in (order[:50], order[50:])]
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(halves, 2))


def test_an_order_does_not_depend_on_what_was_asked_before() -> None:
    members = np.arange(30)
    fresh = Sampler(members, members[:7], 8, 3, 5, 2)
    numbers = [fresh.film_numbers(step) for step in range(40)]
    for step in (39, 0, 17, 17, 3):
        again = Sampler(members, members[:7], 8, 3, 5, 2)
        np.testing.assert_array_equal(again.film_numbers(step), numbers[step])


@pytest.mark.parametrize(
    ("labelled", "pseudo", "size", "share", "per_batch"),
    [
        (5, 11, 64, 0.25, 16),
        (5, 11, 10, 0.25, 2),
        (5, 11, 10, 0.01, 1),
        (5, 11, 10, 1.0, 9),
        (5, 0, 10, 0.25, 10),
        (0, 11, 10, 0.25, 0),
    ],
)
def test_the_labelled_share_of_a_batch(labelled: int, pseudo: int, size: int, share: float, per_batch: int) -> None:
    targets = make_targets(labelled, pseudo)
    order = sampler(targets, batch_size=size, labelled_share=share, seed=0, generation=0)
    assert order.labelled_per_batch == per_batch
    numbers = order.film_numbers(3)
    assert len(numbers) == size
    assert (~targets.pseudo[numbers]).sum() == per_batch


def test_positions_number_the_whole_sample_sequence() -> None:
    order = make().order
    np.testing.assert_array_equal(np.concatenate([order.positions(step) for step in range(5)]), np.arange(30))


# -- batches -------------------------------------------------------------------------------------------------------


def test_a_batch_holds_what_belongs_to_its_films() -> None:
    batches, targets = make(resident=True), make_targets(5, 11)
    rows = np.random.default_rng(4).permutation(40)[:16]
    for step in (0, 9):
        batch, numbers = batches.at(step), batches.order.film_numbers(step)
        np.testing.assert_array_equal(batch.clean.numpy(), make_pixels(40)[rows[numbers]])
        np.testing.assert_array_equal(batch.target.numpy(), targets.target[numbers])
        np.testing.assert_array_equal(batch.weight.numpy(), targets.weight[numbers])
        assert batch.image_id.tolist() == [text_id(f"film {number}") for number in numbers]
        assert batch.pos_weight.tolist() == [[1, 1] if targets.pseudo[number] else [2, 5] for number in numbers]
        assert batch.pos_weight.dtype == torch.float32


def test_resident_and_streamed_batches_are_the_same_bit_for_bit() -> None:
    resident, streamed = make(resident=True).stream(0, 12), make(resident=False).stream(0, 12)
    count = 0
    for first, second in zip(resident, streamed, strict=True):
        assert_equal(first, second)
        count += 1
    assert count == 12


@pytest.mark.parametrize("resident", [True, False])
def test_starting_at_any_step_gives_the_tail(resident: bool) -> None:
    whole = list(make(resident=resident).stream(0, 9))
    for start in (1, 4, 8):
        tail = list(make(resident=resident).stream(start, 9))
        for first, second in zip(whole[start:], tail, strict=True):
            assert_equal(first, second)
    assert list(make(resident=resident).stream(9, 9)) == []


def test_an_error_of_the_worker_reaches_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = make(resident=False)
    gather, calls = batches.films.gather, itertools.count()

    def broken(index: np.ndarray) -> torch.Tensor:
        if next(calls) == 2:
            raise OSError("the disk is gone")
        return gather(index)

    monkeypatch.setattr(batches.films, "gather", broken)
    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(batches.stream(0, 10))  # extend takes what came before the error
    assert len(seen) == 2
    assert workers() == []


def test_leaving_a_stream_ends_its_thread() -> None:
    stream = make(resident=False).stream(0, 10_000)
    next(stream)
    assert len(workers()) == 1
    stream.close()
    assert workers() == []


def test_a_stream_that_was_read_to_its_end_leaves_no_thread() -> None:
    assert len(list(make(resident=False).stream(0, 5))) == 5
    assert workers() == []


def test_films_and_targets_must_be_the_same_films() -> None:
    batches = make()
    with pytest.raises(AssertionError):
        Batches(batches.films, make_targets(3, 3), batches.order, np.ones(2, dtype=np.float32))
