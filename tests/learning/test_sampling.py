"""Class-balanced and positive-guaranteed draws: their frequencies, their guarantees, and what they depend on."""

from __future__ import annotations

import numpy as np
import pytest

from noisy_student.config import SamplerConfig
from noisy_student.errors import ConfigError
from noisy_student.learning.sampling import Sampler, Staged, odds_shift, positives, repeats, sampler
from noisy_student.targets.table import Targets

LABELS = ("common", "rare", "never")


def make_targets(pseudo: int = 0) -> Targets:
    """Return 60 labelled films, 30 of them with the common label, 3 with the rare one (one with both), and the pool."""
    count = 60 + pseudo
    target = np.zeros((count, 3), dtype=np.float32)
    target[:30, 0] = 1
    target[[5, 40, 50], 1] = 1
    target[60:] = 0.9  # what a teacher says is no label
    weight = np.ones_like(target)
    target[7, 1], weight[7, 1] = 1, 0  # not known
    images = np.array([f"film {number}" for number in range(count)], dtype=object)
    return Targets(images, LABELS, target, weight, np.arange(count) >= 60)


def make(pseudo: int = 0, *, size: int = 16, share: float = 0.5, seed: int = 3, **rule: float) -> Sampler:
    return sampler(
        make_targets(pseudo), batch_size=size, labelled_share=share, seed=seed, generation=1,
        config=SamplerConfig(**rule),
    )  # fmt: skip


def drawn(order: Sampler, steps: int) -> np.ndarray:
    return np.concatenate([order.film_numbers(step) for step in range(steps)])


# -- class-balanced ------------------------------------------------------------------------------------------------


def test_a_film_counts_by_its_rarest_label() -> None:
    positive = positives(make_targets())
    counts = positive.sum(axis=0)
    assert counts.tolist() == [30, 3, 0]
    for balance in (0.0, 0.5, 1.0):
        expected = np.ones(60)
        expected[[5, 40, 50]] = 10**balance  # 30 / 3
        np.testing.assert_allclose(repeats(positive, counts, balance), expected)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_balanced_draws_have_their_frequencies_in_every_epoch(balance: float) -> None:
    order = make(size=15, balance=balance)
    expected = np.ones(60)
    expected[[5, 40, 50]] = 10**balance
    expected *= 60 / expected.sum()
    epochs = drawn(order, 4 * 300).reshape(300, 60)  # four batches are an epoch
    found = np.stack([np.bincount(epoch, minlength=60) for epoch in epochs])
    assert (np.abs(found - expected) < 1).all()  # the floor or the ceiling
    # 300 draws of floor or ceiling: a standard error of at most 0.029, and 60 films are looked at.
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.12)
    plain = np.bincount(drawn(make(size=15), 4 * 300), minlength=60)
    assert plain.tolist() == [300] * 60


def test_balanced_epochs_are_shuffled_and_differ() -> None:
    order = make(size=60, balance=1.0)
    first, second = order.film_numbers(0), order.film_numbers(1)
    assert not np.array_equal(first, second)
    assert np.abs(np.diff(first)).mean() > 5  # copies of a film do not stand together
    places = [np.flatnonzero(order.film_numbers(step) == 40).mean() for step in range(200)]
    assert np.mean(places) == pytest.approx(29.5, abs=3)


# -- positive-guaranteed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pseudo", [0, 100])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_batch_has_the_positives_of_every_label_that_has_any(pseudo: int, count: int) -> None:
    targets, order = make_targets(pseudo), make(pseudo, positives=count)
    positive = np.zeros((len(targets.images), 3), dtype=bool)
    positive[:60] = positives(targets)
    for step in range(100):
        numbers = order.film_numbers(step)
        assert len(numbers) == 16
        assert (numbers < 60).sum() == (8 if pseudo else 16)
        assert (positive[numbers].sum(axis=0)[:2] >= count).all()
    without = [positive[make(pseudo).film_numbers(step)].sum(axis=0)[1] for step in range(100)]
    assert min(without) == 0


def test_positives_take_turns() -> None:
    order = make(positives=1)
    rare = np.array([order.film_numbers(step)[1] for step in range(30)])
    assert [sorted(three) for three in rare.reshape(10, 3).tolist()] == [[5, 40, 50]] * 10
    assert len({tuple(three) for three in rare.reshape(10, 3).tolist()}) > 1


def test_more_positives_than_places_are_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"sampler.positives: 5 of each of 2 labels are more than the 8 labelled films"
    ):
        make(100, positives=5)
    assert make(100, positives=4).guaranteed == 8


# -- the pool ------------------------------------------------------------------------------------------------------


def pooled(balance: float, seed: int = 3) -> tuple[Targets, Sampler]:
    """Return 20 labelled films and 90 of the pool: 60 common, 3 rare, 27 of neither."""
    target, weight = np.full((110, 3), 0.1, dtype=np.float32), np.ones((110, 3), dtype=np.float32)
    target[20:80, 0] = 0.8
    target[[30, 85, 90], 1] = 0.7
    weight[90, 1] = 0  # left out for the rare label
    images = np.array([f"film {number}" for number in range(110)], dtype=object)
    targets = Targets(images, LABELS, target, weight, np.arange(110) >= 20)
    config = SamplerConfig(pool_balance=balance)
    return targets, sampler(targets, batch_size=15, labelled_share=1 / 3, seed=seed, generation=1, config=config)


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_rare_findings_of_the_pool_come_several_times(balance: float) -> None:
    _, order = pooled(balance)
    expected = np.ones(90)
    expected[[10, 65]] = 30**balance  # 60 / 2
    expected *= 90 / expected.sum()
    numbers = drawn(order, 9 * 200).reshape(200, 9, 15)[:, :, 5:].reshape(200, 90) - 20
    found = np.stack([np.bincount(epoch, minlength=90) for epoch in numbers])
    assert (np.abs(found - expected) < 1).all()
    np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.15)


def test_labelled_films_are_drawn_as_ever_beside_a_balanced_pool() -> None:
    plain, balanced = pooled(0.0)[1], pooled(1.0)[1]
    for step in range(40):
        np.testing.assert_array_equal(plain.film_numbers(step)[:5], balanced.film_numbers(step)[:5])
    assert not np.array_equal(plain.film_numbers(3)[5:], balanced.film_numbers(3)[5:])
    np.testing.assert_array_equal(pooled(1.0)[1].film_numbers(17), balanced.film_numbers(17))


@pytest.mark.parametrize("unlabelled", [False, True])
def test_films_of_the_pool_without_a_target_are_drawn_where_they_are_of_use(unlabelled: bool) -> None:
    targets, _ = pooled(0.0)
    weight = targets.weight.copy()
    weight[50:] = 0
    some = Targets(targets.images, LABELS, targets.target, weight, targets.pseudo)
    order = sampler(some, batch_size=15, labelled_share=1 / 3, seed=0, generation=1, unlabelled=unlabelled)
    numbers = drawn(order, 40)
    assert (numbers >= 50).any() == unlabelled
    assert (numbers < 20).mean() == pytest.approx(1 / 3)
    weight[20:] = 0
    none = Targets(targets.images, LABELS, targets.target, weight, targets.pseudo)
    order = sampler(none, batch_size=15, labelled_share=1 / 3, seed=0, generation=1, unlabelled=unlabelled)
    assert (drawn(order, 4) < 20).mean() == (pytest.approx(1 / 3) if unlabelled else 1)


def test_stretches_have_samplers_of_their_own() -> None:
    _, whole = pooled(0.0)
    order = Staged((whole, whole.labelled_alone()), (3, 6))
    for step in range(6):
        one = whole if step < 3 else whole.labelled_alone()
        np.testing.assert_array_equal(order.film_numbers(step), one.film_numbers(step))
        np.testing.assert_array_equal(order.positions(step), whole.positions(step))
        assert (order.film_numbers(step) < 20).sum() == (5 if step < 3 else 15)
    np.testing.assert_array_equal(order.film_numbers(9), whole.labelled_alone().film_numbers(9))


# -- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [{"balance": 1.0}, {"positives": 2}, {"balance": 0.5, "positives": 1}])
def test_draws_depend_on_seed_generation_and_step_alone(rule: dict[str, float]) -> None:
    numbers = [make(100, **rule).film_numbers(step) for step in range(30)]
    fresh = make(100, **rule)
    for step in (29, 0, 11, 11):
        np.testing.assert_array_equal(fresh.film_numbers(step), numbers[step])
    assert not np.array_equal(make(100, seed=4, **rule).film_numbers(0), numbers[0])
    other = Sampler(**{**vars(fresh), "generation": 2})
    assert not np.array_equal(other.film_numbers(0), numbers[0])


def test_pseudo_labelled_films_are_drawn_as_ever() -> None:
    plain, ruled = make(100), make(100, balance=1.0, positives=2)
    assert plain.labelled_per_batch == ruled.labelled_per_batch == 8
    for step in range(40):
        np.testing.assert_array_equal(plain.film_numbers(step)[8:], ruled.film_numbers(step)[8:])


def test_without_a_rule_the_order_is_what_it_was() -> None:
    """Settings that are off leave the permutations of which the golden trace is made."""
    order = sampler(make_targets(), batch_size=6, labelled_share=1, seed=0, generation=0)
    bare = Sampler(np.arange(60), np.empty(0, dtype=np.int64), 6, 6, 0, 0)
    assert order.share is None
    for step in range(20):
        np.testing.assert_array_equal(order.film_numbers(step), bare.film_numbers(step))


# -- what they do to the odds --------------------------------------------------------------------------------------


def test_the_shift_is_how_much_more_often_a_film_is_drawn_with_the_label() -> None:
    targets = make_targets()
    assert odds_shift(targets, make(), 0.0).tolist() == [0, 0, 0]
    balanced = odds_shift(targets, make(balance=1.0), 1.0)
    # With the rare label every film would count 10, without it 1; with the common one no more than before.
    np.testing.assert_allclose(balanced, [0, np.log(10), 0])
    sure = odds_shift(targets, make(positives=2), 0.0)
    # 12 of 16 places are free: 12 / 60 a film; a common film has 2 / 30 more and a rare one 2 / 3.
    base = 12 / 60
    common = (base + 2 / 30 + 3 / 60 * 2 / 3) / (base + 3 / 60 * 2 / 3)
    rare = (base + 2 / 3 + 29 / 59 * 2 / 30) / (base + 29 / 59 * 2 / 30)  # of film 7 the rare one is not known
    np.testing.assert_allclose(sure, [np.log(common), np.log(rare), 0])


def test_the_shift_is_that_of_the_films_whose_label_is_known() -> None:
    target, weight = np.zeros((240, 3), dtype=np.float32), np.ones((240, 3), dtype=np.float32)
    target[:10, 1] = target[:40, 2] = target[40:140, 0] = 1
    weight[40:, 1] = 0  # known of 40 films alone, which are drawn more often for another label
    images = np.array([f"film {number}" for number in range(240)], dtype=object)
    targets = Targets(images, LABELS, target, weight, np.zeros(240, dtype=bool))
    rule = SamplerConfig(positives=2)
    order = sampler(targets, batch_size=16, labelled_share=1, seed=0, generation=0, config=rule)
    drawn = np.bincount(np.concatenate([order.film_numbers(step) for step in range(240)]), minlength=240)
    among_batches, among_films = drawn[:10].sum() / drawn[10:40].sum(), 10 / 30
    assert odds_shift(targets, order, 0.0)[1] == pytest.approx(np.log(among_batches / among_films))
    weight[10:40, 1] = 0  # no film is known to be without it
    one_sided = Targets(images, LABELS, target, weight, targets.pseudo)
    assert odds_shift(one_sided, order, 0.0)[1] == 0
