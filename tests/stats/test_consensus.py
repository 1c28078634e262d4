"""What several networks say together: against values by hand, scipy and a loop over films."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import entropy

from noisy_student.errors import DataError
from noisy_student.stats import calibration, consensus
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.stats.consensus import Consensus, Fitted, Spread, Views
from noisy_student.stats.evaluation import aggregate

LABELS = ("Edema", "Fracture")
STUDY = np.array([4, 4, 4, 1, 1, 7])
FRONTAL = np.array([True, False, True, False, False, True])
VIEWS = Views(STUDY, FRONTAL)


def platt(slope: float, intercept: float, shift: float = 0.0) -> Platt:
    return Platt(shift, slope, intercept, False, 10, 10)


def calibrated(*pairs: tuple[float, float]) -> Calibration:
    return Calibration(LABELS, tuple(platt(*pair) for pair in pairs))


IMAGE = calibrated((1.0, 0.0), (2.0, -1.0))
STUDIES = calibrated((1.5, 0.25), (0.5, 0.0))


def logits(networks: int, films: int = len(STUDY)) -> np.ndarray:
    return np.random.default_rng(networks).normal(size=(networks, films, len(LABELS)))


# -- views of a study ------------------------------------------------------------------------------------------------


def test_the_views_of_a_study_become_one_by_mean_maximum_or_frontal_first() -> None:
    values = np.array([[1.0, 6.0], [5.0, -2.0], [3.0, 0.0], [7.0, 1.0], [-1.0, 2.0], [9.0, 9.0]])
    expected = {
        "mean": [[3.0, 1.5], [3.0, 4 / 3], [9.0, 9.0]],
        "max": [[7.0, 2.0], [5.0, 6.0], [9.0, 9.0]],
        "frontal": [[3.0, 1.5], [2.0, 3.0], [9.0, 9.0]],  # study 1 has laterals alone
    }
    for how, rows in expected.items():
        np.testing.assert_allclose(VIEWS.aggregate(values, how), rows)  # type: ignore[arg-type]


def test_what_is_not_known_is_left_out_of_every_aggregation() -> None:
    values = np.array([[np.nan], [2.0], [np.nan], [np.nan], [np.nan], [1.0]])
    np.testing.assert_array_equal(VIEWS.aggregate(values, "max"), [[np.nan], [2.0], [1.0]])
    np.testing.assert_array_equal(VIEWS.aggregate(values, "frontal"), [[np.nan], [np.nan], [1.0]])


def test_frontal_first_asks_which_views_are_frontal() -> None:
    with pytest.raises(DataError, match="not known which views are frontal"):
        aggregate(np.zeros((3, 1)), [0, 0, 1], "frontal")
    with pytest.raises(DataError, match="not known which views are frontal"):
        aggregate(np.zeros((3, 1)), [0, 0, 1], "frontal", [True])


# -- calibrations ----------------------------------------------------------------------------------------------------


def test_one_calibration_is_that_of_the_logits() -> None:
    said = logits(1)
    one = Consensus((Fitted(IMAGE),))
    np.testing.assert_array_equal(one.image(said), IMAGE.probability(said[0]))
    expected = aggregate(IMAGE.probability(said[0]), STUDY)
    np.testing.assert_array_equal(one.study(said, VIEWS), expected)  # a run of before studies were calibrated


def test_members_are_calibrated_one_by_one_and_their_probabilities_averaged() -> None:
    said = logits(2)
    both = Consensus((Fitted(IMAGE, STUDIES, "max"), Fitted(STUDIES, IMAGE, "max")))
    first, second = expit(said[0] * [1, 2] + [0, -1]), expit(said[1] * [1.5, 0.5] + [0.25, 0])
    np.testing.assert_allclose(both.image(said), (first + second) / 2)
    for row, study in enumerate((1, 4, 7)):
        most = said[:, study == STUDY].max(axis=1)
        expected = (expit(most[0] * [1.5, 0.5] + [0.25, 0]) + expit(most[1] * [1, 2] + [0, -1])) / 2
        np.testing.assert_allclose(both.study(said, VIEWS)[row], expected)
    assert np.abs(both.image(said) - expit((said[0] + said[1]) / 2)).max() > 0.01


def test_networks_with_one_calibration_share_it() -> None:
    said = logits(3)
    shared = Consensus((Fitted(IMAGE),))
    np.testing.assert_array_equal(shared.each(said), [IMAGE.probability(one) for one in said])
    with pytest.raises(DataError, match=r"logits have shape \(3, 6, 2\) for 1 calibrated networks"):
        shared.image(said)
    with pytest.raises(DataError, match="for 2 calibrated networks"):
        Consensus((Fitted(IMAGE), Fitted(IMAGE))).each(said)


def test_calibrations_come_back_from_json() -> None:
    one = Consensus((Fitted(IMAGE, STUDIES, "frontal"),))
    assert one.to_json() == IMAGE.to_json() | {"study": {"aggregation": "frontal"} | STUDIES.to_json()}
    several = Consensus((Fitted(IMAGE, STUDIES, "max"), Fitted(STUDIES, IMAGE, "max")))
    old = Consensus((Fitted(IMAGE),))
    for made in (one, several, old):
        assert Consensus.from_json(made.to_json()) == made
    assert old.to_json() == IMAGE.to_json()
    with pytest.raises(DataError, match=r"study\.aggregation is 'median'"):
        Consensus.from_json(IMAGE.to_json() | {"study": {"aggregation": "median"} | STUDIES.to_json()})


@pytest.mark.parametrize("how", ["mean", "max", "frontal"])
def test_studies_are_calibrated_after_their_views_are_one(how: str) -> None:
    rng = np.random.default_rng(3)
    study = np.repeat(np.arange(300), 2)
    views = Views(study, rng.random(600) < 0.5)
    truth = np.repeat((rng.random((300, 2)) < 0.4).astype(float), 2, axis=0)
    truth[0, 0] = np.nan  # the other view of the study knows
    said = (truth * 2 - 1 + rng.normal(size=truth.shape))[None]
    said[np.isnan(said)] = 0.5
    shift = np.array([0.3, 0.0])
    calibrate = partial(calibration.fit, labels=LABELS, shift=shift)
    made = consensus.fit(said, truth, views, how, [calibrate])  # type: ignore[arg-type]
    (fitted,) = made.fitted
    assert fitted.image == calibration.fit(said[0], truth, LABELS, shift)
    rows = views.aggregate(said[0], how)  # type: ignore[arg-type]
    assert fitted.study == calibration.fit(rows, np.nan_to_num(truth[::2], nan=truth[1, 0]), LABELS, shift)
    # Calibrated on these very studies, the mean probability is the frequency (up to the weak prior).
    np.testing.assert_allclose(made.study(said, views).mean(axis=0), truth[1::2].mean(axis=0), atol=0.01)


# -- spread ----------------------------------------------------------------------------------------------------------


def test_the_spread_is_the_standard_deviation_and_the_mutual_information() -> None:
    probability = expit(logits(4))
    found = consensus.spread(probability)
    np.testing.assert_allclose(found.sd, np.std(probability, axis=0, ddof=1))
    both = np.stack([probability, 1 - probability])  # (2, M, N, K)
    expected = entropy(both.mean(axis=1), axis=0) - entropy(both, axis=0).mean(axis=0)
    np.testing.assert_allclose(found.mutual_information, expected, atol=1e-12)


def test_networks_that_agree_have_no_spread_and_one_network_has_none_to_tell() -> None:
    same = np.repeat(expit(logits(1)), 3, axis=0)
    assert np.abs(consensus.spread(same).sd).max() < 1e-12
    assert consensus.spread(same).mutual_information.max() < 1e-12
    assert np.isnan(consensus.spread(same[:1]).sd).all()
    assert np.isnan(consensus.spread(same[:1]).mutual_information).all()
    sure = np.array([[[0.0]], [[1.0]]])  # sure, and of opposite minds
    assert consensus.spread(sure).mutual_information[0, 0] == pytest.approx(np.log(2))


def test_the_summary_tells_whether_disputed_films_are_the_uncertain_ones() -> None:
    sd = np.array([[0.3, 0.1], [0.1, 0.1], [0.2, 0.1], [0.0, 0.1]])
    truth = np.array([[1, np.nan], [1, np.nan], [0, np.nan], [0, np.nan]])
    probability = np.array([[0.4, 0.5], [0.9, 0.5], [0.6, 0.5], [0.2, 0.5]])
    found = consensus.summary(Spread(sd, sd / 10), truth, probability, LABELS)
    assert found is not None
    assert found["Edema"]["sd"] == pytest.approx(0.15)
    assert found["Edema"]["sd_p90"] == pytest.approx(np.quantile(sd[:, 0], 0.9))
    assert found["Edema"]["mutual_information"] == pytest.approx(0.015)
    assert found["Edema"]["brier_agreed"] == pytest.approx((0.1**2 + 0.2**2) / 2)
    assert found["Edema"]["brier_disputed"] == pytest.approx((0.6**2 + 0.6**2) / 2)
    assert found["Fracture"]["brier_agreed"] is None
    nothing = np.full((4, 2), np.nan)
    assert consensus.summary(Spread(nothing, nothing), truth, probability, LABELS) is None
