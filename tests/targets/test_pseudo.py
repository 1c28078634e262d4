from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from noisy_student.config import PseudoConfig
from noisy_student.targets.pseudo import (
    PseudoLabels,
    align,
    estimate_prevalence,
    keep_most_confident,
    pseudo_labels,
    study_mean,
)


def draw(count: int, columns: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(0.5, 2.0, (count, columns))


def make(probability: np.ndarray, studies: list[str] | None = None, **config: object) -> PseudoLabels:
    labels = ["Edema", "Fracture", "Pneumonia"][: probability.shape[1]]
    names = [str(number) for number in range(len(probability))] if studies is None else studies
    return pseudo_labels(probability, names, labels, [(10.0, 40.0)] * len(labels), PseudoConfig(**config))


# -- study mean ----------------------------------------------------------------------------------------------------


def test_every_film_of_a_study_gets_the_mean_of_its_films() -> None:
    probability = draw(6, 2)
    studies = ["b", "a", "b", "c", "b", "a"]
    expected = [np.mean([probability[j] for j in range(6) if studies[j] == name], axis=0) for name in studies]
    np.testing.assert_allclose(study_mean(probability, studies), expected, rtol=1e-12)


# -- prevalence ----------------------------------------------------------------------------------------------------


def test_the_prevalence_is_the_mean_of_the_beta_posterior() -> None:
    # Beta(50 * 0.2, 50 * 0.8) and 6 positives of 20 films: Beta(16, 54), whose mean is 16 / 70.
    found = estimate_prevalence(6, 20, 0.2, 50)
    assert found.mean == pytest.approx(16 / 70, abs=1e-6)

    def density(p: float) -> float:
        return p**15 * (1 - p) ** 53

    whole = integrate.quad(density, 0, 1, epsabs=0)[0]
    assert found.ci is not None
    for bound, tail in zip(found.ci, (0.025, 0.975), strict=True):
        assert integrate.quad(density, 0, bound, epsabs=0)[0] / whole == pytest.approx(tail, abs=1e-6)


def test_labels_win_over_the_teacher_as_they_grow_and_without_a_prior() -> None:
    assert estimate_prevalence(600, 2000, 0.05, 50).mean == pytest.approx(0.3, abs=0.01)
    assert estimate_prevalence(3, 10, 0.9, 0).mean == pytest.approx(0.3, abs=1e-6)
    assert estimate_prevalence(0, 0, 0.2, 50).mean == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize(("positives", "teacher", "strength"), [(0, 0.0, 50), (20, 1.0, 50), (0, 0.0, 0), (20, 1.0, 0)])
def test_the_prevalence_never_reaches_0_or_1(positives: float, teacher: float, strength: float) -> None:
    found = estimate_prevalence(positives, 20, teacher, strength)
    assert 0 < found.mean < 1
    assert align(draw(50)[:, 0], found.mean).mean() == pytest.approx(found.mean, rel=1e-6)


# -- alignment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prevalence", [1e-4, 0.03, 0.2, 0.5, 0.97])
def test_aligned_probabilities_have_the_prevalence_as_mean_and_keep_their_order(prevalence: float) -> None:
    before = draw(400)[:, 0]
    after = align(before, prevalence)
    assert after.mean() == pytest.approx(prevalence, rel=1e-6)
    rank = np.argsort(before)
    assert (np.diff(after[rank]) >= 0).all()
    assert (np.diff(after[rank][before[rank] > 1e-6]) > 0).all()  # below 1e-6 all are as good as 0


def test_alignment_multiplies_all_odds_by_one_factor() -> None:
    before = np.clip(draw(100)[:, 0], 0.001, 0.999)
    after = align(before, 0.4)
    factors = after / (1 - after) / (before / (1 - before))
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)


def test_alignment_moves_nothing_where_the_mean_is_right() -> None:
    before = np.clip(draw(100)[:, 0], 0.001, 0.999)
    np.testing.assert_allclose(align(before, float(before.mean())), before, atol=1e-7)


def test_alignment_copes_with_probabilities_of_0_and_1() -> None:
    after = align(np.array([0.0, 0.0, 1.0]), 0.5)
    assert after.mean() == pytest.approx(0.5, rel=1e-6)
    assert after[0] == after[1] < after[2]


# -- selection -----------------------------------------------------------------------------------------------------


def test_each_side_keeps_its_own_most_confident() -> None:
    probability = np.array([0.95, 0.6, 0.9, 0.7, 0.1, 0.4, 0.01, 0.3, 0.2, 0.45])
    kept = keep_most_confident(probability, 0.5)
    assert probability[kept].tolist() == [0.95, 0.9, 0.1, 0.01, 0.2]


def test_the_rare_side_is_not_drowned() -> None:
    probability = np.concatenate([np.linspace(0.001, 0.05, 990), np.linspace(0.5, 0.6, 10)])
    kept = keep_most_confident(probability, 0.1)
    assert (kept & (probability >= 0.5)).sum() == 1
    assert (kept & (probability < 0.5)).sum() == 99


@pytest.mark.parametrize(("share", "count"), [(0.07, 7), (0.55, 55), (0.551, 56), (1.0, 100), (0.001, 1)])
def test_the_share_is_rounded_up_but_not_by_the_error_of_a_float(share: float, count: int) -> None:
    assert keep_most_confident(np.linspace(0, 0.4, 100), share).sum() == count


def test_ties_go_to_the_first_film() -> None:
    assert keep_most_confident(np.array([0.2, 0.2, 0.2, 0.2]), 0.5).tolist() == [True, True, False, False]


# -- all together --------------------------------------------------------------------------------------------------


def test_targets_are_aligned_study_means_weighted_by_confidence() -> None:
    probability, studies = draw(60, 2), [str(number // 2) for number in range(60)]
    found = make(probability, studies, weight_power=0.7, prior_strength=30)
    averaged = study_mean(probability, studies)
    for k in range(2):
        mean = averaged[:, k].mean()
        expected = (10 + 30 * mean) / 70
        assert found.teacher_mean[k] == pytest.approx(mean)
        prevalence = found.prevalence[k]
        assert prevalence is not None
        assert prevalence.mean == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(found.target[:, k], align(averaged[:, k], expected), atol=1e-7)
    np.testing.assert_allclose(found.weight, np.abs(2 * found.target - 1) ** 0.7, rtol=1e-9)


def test_a_known_prevalence_is_taken_as_it_is() -> None:
    found = make(draw(80, 2), prevalence={"Fracture": 0.31})
    assert found.target[:, 1].mean() == pytest.approx(0.31, rel=1e-6)
    assert found.prevalence[1] is not None
    assert (found.prevalence[1].mean, found.prevalence[1].ci) == (0.31, None)
    assert found.prevalence[0] is not None
    assert found.prevalence[0].ci is not None


def test_without_alignment_the_teacher_is_taken_at_its_word() -> None:
    probability = draw(30, 2)
    found = make(probability, align=False)
    np.testing.assert_array_equal(found.target, probability)
    assert found.prevalence == (None, None)


def test_hard_targets_are_0_or_1_and_weigh_by_the_soft_ones() -> None:
    probability = draw(50)
    found = make(probability, align=False, hard=True, weight_power=1.0)
    np.testing.assert_array_equal(found.target, (probability > 0.5).astype(float))
    np.testing.assert_allclose(found.weight, np.abs(2 * probability - 1))


def test_power_0_trusts_all_alike_even_a_coin_toss() -> None:
    assert make(np.array([[0.5], [0.9]]), align=False, weight_power=0.0).weight.tolist() == [[1.0], [1.0]]


def test_films_that_are_not_kept_weigh_nothing() -> None:
    found = make(draw(100), keep_share=0.2)
    kept = keep_most_confident(found.target[:, 0], 0.2)
    assert 0 < kept.sum() < 100
    np.testing.assert_array_equal(found.weight[:, 0] > 0, kept)


def test_a_label_can_be_switched_off() -> None:
    found = make(draw(20, 3), labels={"Fracture": False, "Edema": True})
    assert found.weight[:, 1].max() == 0
    assert found.weight[:, [0, 2]].min() > 0


def test_an_empty_pool_gives_an_empty_table() -> None:
    found = make(np.empty((0, 2)))
    assert found.target.shape == found.weight.shape == (0, 2)
    assert found.prevalence == (None, None)
    assert np.isnan(found.teacher_mean).all()


def test_counts_must_be_given_for_every_label() -> None:
    with pytest.raises(ValueError, match="zip"):
        pseudo_labels(draw(3, 2), ["a", "b", "c"], ["Edema", "Fracture"], [(1, 2)], PseudoConfig())
