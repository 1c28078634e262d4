from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import integrate
from sklearn.metrics import r2_score

from noisy_student.config import PseudoConfig
from noisy_student.targets.prevalence import estimate_prevalence, moved, prior_shift
from noisy_student.targets.pseudo import Judged, PseudoLabels, mean_of, pseudo_labels, resolution, sharpened, study_mean
from noisy_student.targets.selection import keep_most_confident


def aligned(probability: np.ndarray, prevalence: float) -> np.ndarray:
    return moved(probability, prior_shift(probability, prevalence))


def draw(count: int, columns: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(0.5, 2.0, (count, columns))


def make(
    probability: np.ndarray,
    studies: list[str] | None = None,
    generation: int = 1,
    judged: Judged | None = None,
    **config: object,
) -> PseudoLabels:
    labels = ["Edema", "Fracture", "Pneumonia"][: probability.shape[1]]
    names = [str(number) for number in range(len(probability))] if studies is None else studies
    counts = [(10.0, 40.0)] * len(labels)
    return pseudo_labels(probability, names, labels, counts, PseudoConfig(**config), generation, judged)


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
    assert aligned(draw(50)[:, 0], found.mean).mean() == pytest.approx(found.mean, rel=1e-6)


# -- alignment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prevalence", [1e-4, 0.03, 0.2, 0.5, 0.97])
def test_aligned_probabilities_have_the_prevalence_as_mean_and_keep_their_order(prevalence: float) -> None:
    before = draw(400)[:, 0]
    after = aligned(before, prevalence)
    assert after.mean() == pytest.approx(prevalence, rel=1e-6)
    rank = np.argsort(before)
    assert (np.diff(after[rank]) >= 0).all()
    assert (np.diff(after[rank][before[rank] > 1e-6]) > 0).all()  # below 1e-6 all are as good as 0


def test_alignment_multiplies_all_odds_by_one_factor() -> None:
    before = np.clip(draw(100)[:, 0], 0.001, 0.999)
    after = aligned(before, 0.4)
    factors = after / (1 - after) / (before / (1 - before))
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)


def test_alignment_moves_nothing_where_the_mean_is_right() -> None:
    before = np.clip(draw(100)[:, 0], 0.001, 0.999)
    np.testing.assert_allclose(aligned(before, float(before.mean())), before, atol=1e-7)


def test_alignment_copes_with_probabilities_of_0_and_1() -> None:
    after = aligned(np.array([0.0, 0.0, 1.0]), 0.5)
    assert after.mean() == pytest.approx(0.5, rel=1e-6)
    assert after[0] == after[1] < after[2]


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
        np.testing.assert_allclose(found.target[:, k], aligned(averaged[:, k], expected), atol=1e-7)
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


# -- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.25, 0.5, 3.0])
def test_sharpening_is_that_of_mixmatch(temperature: float) -> None:
    p = np.clip(draw(50)[:, 0], 0.01, 0.99)
    powers = p ** (1 / temperature), (1 - p) ** (1 / temperature)
    np.testing.assert_allclose(sharpened(p, temperature), powers[0] / (powers[0] + powers[1]), rtol=1e-9)
    soft, sharp = make(p[:, None], align=False), make(p[:, None], align=False, temperature=temperature)
    np.testing.assert_allclose(sharp.target[:, 0], sharpened(p, temperature))
    np.testing.assert_array_equal(sharp.weight, soft.weight)  # how sure the teacher was does not change


def test_a_target_may_weigh_the_probability_that_it_is_right() -> None:
    probability = draw(60, 2)
    found = make(probability, align=False, weight="right")
    np.testing.assert_allclose(found.weight, np.maximum(probability, 1 - probability))
    low = make(probability, align=False, hard=True, weight="right", select={"rule": "prevalence"})
    np.testing.assert_allclose(low.weight, np.where(low.target == 1, probability, 1 - probability))


def test_that_a_target_is_right_is_as_probable_as_it_is_after_alignment() -> None:
    """The teacher's odds are a third of what they should be; the known prevalence sets them right."""
    right = np.linspace(0.05, 0.9, 60)[:, None]
    said = right / (right + 3 * (1 - right))
    settings: dict[str, Any] = {"weight": "right", "prevalence": {"Edema": float(right.mean())}}
    found = make(said, **settings)
    np.testing.assert_allclose(found.target, right, rtol=1e-6)
    np.testing.assert_allclose(found.weight, np.maximum(right, 1 - right), rtol=1e-6)
    sharp = make(said, temperature=0.5, **settings)
    np.testing.assert_array_equal(sharp.weight, found.weight)
    low = make(said, hard=True, select={"rule": "fixed", "confidence": 0.7, "negative_confidence": 0.6}, **settings)
    taken = np.where(right >= 0.7, right, np.where(right <= 0.4, 1 - right, 0))
    np.testing.assert_allclose(low.weight, taken, rtol=1e-6)


def test_a_label_may_weigh_what_the_teacher_knows_of_it() -> None:
    """The coefficient of determination of labels that are drawn with these probabilities."""
    probability = draw(100_000, 2)
    probability[:, 1] = 0.1 + probability[:, 1] / 50
    truth = np.random.default_rng(1).random(probability.shape) < probability
    found = make(probability, align=False, weight="resolution", weight_power=0.5)
    for column, share in enumerate(found.weight[0]):
        assert share == pytest.approx(r2_score(truth[:, column], probability[:, column]), abs=0.01)
    assert found.weight[0, 0] > 0.25 > 0.01 > found.weight[0, 1] > 0
    assert (found.weight == found.weight[0]).all()
    assert [resolution(np.array(values)) for values in ([], [0.3, 0.3], [0.0, 0.0], [0.0, 1.0])] == [0, 0, 0, 1]


def test_pseudo_targets_may_weigh_less_than_labels() -> None:
    probability = draw(50, 2)
    whole, tenth = make(probability), make(probability, loss_weight=0.1)
    assert tenth.weight == pytest.approx(whole.weight / 10)
    assert whole.weight.max() > 0.5
    assert (tenth.target == whole.target).all()


def test_hard_targets_are_cut_where_the_rule_says() -> None:
    probability = draw(100)
    found = make(
        probability, align=False, hard=True, prevalence={"Edema": 0.37}, select={"rule": "prevalence"}, weight_power=0
    )
    assert found.target.sum() == 37
    assert found.taken == ((37, 63),)
    assert found.cuts[0].high == np.sort(probability[:, 0])[63]


def test_as_many_films_are_taken_as_positive_as_the_labels_say_not_the_teacher() -> None:
    """10 of 40 labels are positive, so a quarter of the pool is, the most probable films."""
    probability = draw(200)
    assert probability.mean() < 0.23
    found = make(probability, align=False, hard=True, prior_strength=0, select={"rule": "prevalence"}, weight_power=0)
    assert set(np.flatnonzero(found.target)) == set(np.argsort(probability[:, 0])[-50:])
    assert found.taken == ((50, 150),)


def test_what_a_rule_leaves_out_weighs_nothing_and_is_counted() -> None:
    probability = draw(200)
    found = make(probability, align=False, select={"rule": "fixed", "confidence": 0.8}, weight_power=0)
    positive, negative = probability[:, 0] >= 0.8, probability[:, 0] <= 1 - 0.8
    assert 0 < positive.sum() < negative.sum() < 200
    np.testing.assert_array_equal(found.weight[:, 0] > 0, positive | negative)
    assert found.taken == ((positive.sum(), negative.sum()),)
    np.testing.assert_array_equal(found.target, probability)  # the targets stay soft
    ups = make(probability, align=False, select={"rule": "fixed", "confidence": 0.8, "negatives": False})
    np.testing.assert_array_equal(ups.weight[:, 0] > 0, positive)


@pytest.mark.parametrize("rule", ["f1", "two_sided"])
def test_thresholds_of_the_judging_films_mean_the_same_after_alignment(rule: str) -> None:
    """A film that the teacher says of what it says of a judging film is on the same side, aligned or not."""
    pool, stream = draw(300), np.random.default_rng(4)
    said = np.round(stream.random((80, 1)), 3)
    judged = Judged((stream.random((80, 1)) < said).astype(float), said)
    before = make(pool, judged=judged, align=False, select={"rule": rule}, weight_power=0)
    after = make(pool, judged=judged, prevalence={"Edema": 0.5}, select={"rule": rule}, weight_power=0)
    assert 0 < before.weight.sum() <= 300
    differing = (before.weight > 0) != (after.weight > 0)
    if rule == "f1":
        assert not differing.any()
    else:  # the limit of 1/2 for negatives is on the scale of the targets
        assert before.cuts[0].high is not None
        assert not differing[pool >= before.cuts[0].high].any()
    assert before.taken[0][0] == after.taken[0][0]


def test_a_curriculum_takes_more_of_either_side_from_generation_to_generation() -> None:
    probability = draw(100)
    kept = [make(probability, generation=g, pool_share=(0.3, 0.6, 1.0)).weight[:, 0] > 0 for g in (1, 2, 3, 4)]
    by_share = [make(probability, keep_share=share).weight[:, 0] > 0 for share in (0.3, 0.6, 1.0, 1.0)]
    np.testing.assert_array_equal(kept, by_share)
    assert (kept[0] <= kept[1]).all()  # what was used stays in use where the teacher stays sure of it
    assert kept[0].sum() < kept[1].sum() < kept[2].sum()


def test_several_teachers_average_thresholds_and_counts() -> None:
    probability = draw(100)
    first = make(probability, align=False, select={"rule": "prevalence"}, prevalence={"Edema": 0.2})
    second = make(probability, align=False, select={"rule": "prevalence"}, prevalence={"Edema": 0.4})
    both = mean_of([first, second])
    assert both.taken == ((30, 70),)
    assert first.cuts[0].high is not None
    assert second.cuts[0].high is not None
    assert both.cuts[0].high == pytest.approx((first.cuts[0].high + second.cuts[0].high) / 2)


def test_a_teacher_that_leaves_a_film_out_does_not_call_it_negative() -> None:
    """Three teachers of whom one alone is sure of the first film, and none of the second."""
    probability = np.array([[[0.95], [0.6]], [[0.85], [0.7]], [[0.8], [0.2]]])
    select = {"rule": "fixed", "confidence": 0.9}
    made = [make(one, align=False, hard=True, select=select, weight_power=0) for one in probability]
    both = mean_of(made)
    np.testing.assert_allclose(both.weight[:, 0], [1 / 3, 0])
    assert both.target[0, 0] == 1


def test_without_a_prior_and_a_label_the_teacher_s_own_mean_is_expected() -> None:
    assert estimate_prevalence(0, 0, 0.05, 0).mean == pytest.approx(0.05)


def test_a_label_that_is_off_says_why_nothing_is_taken() -> None:
    found = make(draw(20), labels={"Edema": False})
    assert found.taken == ((0, 0),)
    assert found.cuts[0].reason == "pseudo.labels switches this label off"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": "right", "weight_power": 1}, "weight_power: does nothing with weight: right"),
        ({"weight": "resolution", "weight_power": 0}, "weight_power: does nothing with weight: resolution"),
        ({"hard": True, "temperature": 0.5}, "temperature: does nothing with hard: true"),
        ({"hard": True, "select": {"rule": "f1"}}, "weight: confidence is a film's distance from 1/2"),
        ({"hard": True, "select": {"rule": "prevalence"}}, "with hard: true use weight: right or weight_power: 0"),
        ({"align": False, "prior_strength": 9}, "prior_strength: does nothing with align: false"),
        ({"pool_share": (0.5, 1), "keep_share": 0.5}, "keep_share: pool_share takes its place"),
        ({"pool_share": (0.5, 0.3)}, "pool_share: the shares of a curriculum rise"),
        ({"pool_share": (0.5, 1), "select": {"rule": "fixed"}}, "pool_share: select.rule: fixed says itself"),
        ({"keep_share": 0.5, "select": {"rule": "two_sided"}}, "keep_share: select.rule: two_sided says itself"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PseudoConfig(**settings)
