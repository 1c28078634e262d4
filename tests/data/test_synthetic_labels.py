"""Labels of the phantoms: CheXpert's shares and structure on train, the plain truth on valid and test."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from chexpert_counts import PATIENTS, ROWS, STUDIES, TRAIN

from noisy_student.data.synthetic import dataset
from noisy_student.data.synthetic.cases import INDEX, OPACITIES
from noisy_student.data.synthetic.prevalence import NAMES, count_studies, draw_studies
from noisy_student.labels import OBSERVATIONS

VIEWS = {"AP": 161_590, "PA": 29_420, "LL": 32_387}
MANY = 20_000


@pytest.fixture(scope="module")
def rows() -> list[dataset.Row]:
    return list(dataset.rows_of(100, "train", range(1, MANY + 1), "chexpert"))


@pytest.fixture(scope="module")
def labels(rows: list[dataset.Row]) -> npt.NDArray[np.float64]:
    return np.array([row.labels for row in rows])


def column(table: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    return table[:, INDEX[name]]


def test_shares_of_one_uncertain_zero_and_blank_are_chexperts(labels: npt.NDArray[np.float64]) -> None:
    counts = {name: [int(np.sum(column(labels, name) == value)) for value in (1, -1, 0)] for name in OBSERVATIONS}
    for name, expected in TRAIN.items():
        blank = len(labels) - sum(counts[name])
        for number, value in zip([*counts[name], blank], [*expected, ROWS - sum(expected)], strict=True):
            aimed = value / ROWS * len(labels)
            # 20 % relative; two standard errors more, of which rows of one study and patient count as one of three.
            allowed = 0.2 * aimed + 2 * np.sqrt(3 * aimed)
            assert abs(number - aimed) <= (allowed if aimed < 500 else 0.2 * aimed), (name, number, aimed)


def test_very_rare_cells_hold_on_a_larger_draw() -> None:
    patients = np.arange(1, 120_001)
    drawn = draw_studies(101, 0, patients, np.ones_like(patients), "chexpert")
    for name, k in (("Pleural Other", 2), ("Fracture", 1), ("Support Devices", 1), ("Lung Lesion", 2)):
        share = np.mean(column(drawn.told, name) == (1, -1, 0)[k])
        # One study a patient: AP studies weigh 0.847 here and 0.747 among rows, so PA's share is put right.
        bed = np.mean(column(drawn.told, name)[drawn.bed] == (1, -1, 0)[k])
        stands = np.mean(column(drawn.told, name)[~drawn.bed] == (1, -1, 0)[k])
        assert min(bed, stands) <= share <= max(bed, stands)
        assert 0.747 * bed + 0.253 * stands == pytest.approx(TRAIN[name][k] / ROWS, rel=0.2), name


def test_no_finding_is_one_or_blank_and_goes_with_devices_alone(labels: npt.NDArray[np.float64]) -> None:
    told = column(labels, "No Finding") == 1
    assert np.isnan(column(labels, "No Finding")[~told]).all()
    others = labels[told][:, 1:-1]
    assert not ((others == 1) | (others == -1)).any()
    assert np.mean(column(labels, "Support Devices")[told] == 1) == pytest.approx(8808 / 22381, rel=0.2)


def test_findings_come_together_as_in_chexpert(labels: npt.NDArray[np.float64]) -> None:
    def given(name: str, condition: str) -> float:
        return float(np.mean(column(labels, name)[column(labels, condition) == 1] == 1))

    # Parents are not filled in by reports: 1,901 of 27,000.
    assert given("Enlarged Cardiomediastinum", "Cardiomegaly") == pytest.approx(1901 / 27000, rel=0.25)
    base = {name: float(np.mean(column(labels, name) == 1)) for name in OBSERVATIONS}
    for name, condition in (
        ("Cardiomegaly", "Edema"), ("Edema", "Cardiomegaly"), ("Atelectasis", "Pleural Effusion"),
        ("Pleural Effusion", "Edema"), ("Pleural Effusion", "Atelectasis"), ("Pleural Effusion", "Cardiomegaly"),
        ("Lung Opacity", "Pneumonia"), ("Lung Opacity", "Edema"), ("Lung Opacity", "Pleural Effusion"),
        ("Consolidation", "Pneumonia"), ("Support Devices", "Edema"), ("Support Devices", "Pleural Effusion"),
        ("Support Devices", "Pneumothorax"),
    ):  # fmt: skip
        assert given(name, condition) > 1.08 * base[name], (name, condition)
    assert given("Edema", "Pneumothorax") < 0.6 * base["Edema"]
    for child in ("Edema", "Pneumonia", "Lung Lesion"):
        assert 0.4 < given("Lung Opacity", child) < 0.85, child


def test_views_studies_and_devices_are_mixed_as_in_chexpert(
    rows: list[dataset.Row], labels: npt.NDArray[np.float64]
) -> None:
    projection = np.array([row.case.projection for row in rows])
    for view, count in VIEWS.items():
        assert np.mean(projection == view) == pytest.approx(count / ROWS, rel=0.05), view
    studies = {(row.case.patient, row.case.study) for row in rows}
    assert len({row.case.patient for row in rows}) == MANY
    assert len(studies) / MANY == pytest.approx(STUDIES / PATIENTS, rel=0.05)
    assert len(rows) / len(studies) == pytest.approx(ROWS / STUDIES, rel=0.03)
    once = np.mean([count == 1 for count in Counter(patient for patient, _ in studies).values()])
    assert once == pytest.approx(0.52, abs=0.02)
    devices = column(labels, "Support Devices") == 1
    assert np.mean(devices[projection == "AP"]) > 1.8 * np.mean(devices[projection == "PA"])
    assert np.mean([row.case.female for row in rows]) == pytest.approx(0.41, abs=0.02)
    ages = np.array([row.age for row in rows])
    assert (ages.min(), ages.max()) == (18, 90)
    assert 50 < ages.mean() < 65


def test_reports_err_on_train_and_say_the_truth_on_valid_and_test(
    rows: list[dataset.Row], labels: npt.NDArray[np.float64]
) -> None:
    severity = np.array([row.case.severity for row in rows])
    there = severity > 0
    for name in NAMES:
        if name == "Lung Opacity":  # its severity is that of a veil without a child
            continue
        told, present = column(labels, name), column(there, name)
        assert 0.9 < np.mean(present[told == 1]) < 0.99, name
        assert 0 < np.mean(present[np.isnan(told)]) < 0.04, name
    # -1 means different things: half the atelectases are there, few consolidations are (CheXpert test set).
    for name, share in (("Atelectasis", 0.54), ("Edema", 0.52), ("Pleural Effusion", 0.29), ("Consolidation", 0.03)):
        assert np.mean(column(there, name)[column(labels, name) == -1]) == pytest.approx(share, abs=0.03), name
    # What reports doubt or pass over is fainter than what they name.
    effusion, told = column(severity, "Pleural Effusion"), column(labels, "Pleural Effusion")
    plain = effusion[(told == 1) & (effusion > 0)].mean()
    assert effusion[(told == -1) & (effusion > 0)].mean() < plain - 0.1
    assert effusion[np.isnan(told) & (effusion > 0)].mean() < plain - 0.15
    present = severity[there]
    assert present.min() < 0.16
    assert present.max() > 0.99
    for split in ("valid", "test"):
        for row in dataset.rows_of(100, split, range(1, 300), "chexpert"):
            found = {name for name, value in zip(OBSERVATIONS, row.case.severity, strict=True) if value > 0}
            if "Cardiomegaly" in found:
                found.add("Enlarged Cardiomediastinum")
            if found & set(OPACITIES):
                found.add("Lung Opacity")
            if not found - {"Support Devices"}:
                found.add("No Finding")
            assert set(row.labels) <= {0.0, 1.0}
            assert {name for name, value in zip(OBSERVATIONS, row.labels, strict=True) if value} == found


def test_findings_last_from_study_to_study(rows: list[dataset.Row]) -> None:
    first = {row.case.patient: row.case for row in rows if row.case.study == 1}
    second = {row.case.patient: row.case for row in rows if row.case.study == 2}
    both = sorted(first.keys() & second.keys())
    for name in ("Cardiomegaly", "Pleural Effusion", "Support Devices"):
        a = np.array([first[patient].has(name) for patient in both])
        b = np.array([second[patient].has(name) for patient in both])
        assert np.corrcoef(a, b)[0, 1] > 0.15, name


def test_a_study_is_the_same_in_any_company() -> None:
    many = draw_studies(7, 0, np.array([5, 9, 9, 2]), np.array([1, 1, 2, 3]), "enriched")
    for k, (patient, study) in enumerate(((5, 1), (9, 1), (9, 2), (2, 3))):
        alone = draw_studies(7, 0, np.array([patient]), np.array([study]), "enriched")
        np.testing.assert_array_equal(alone.told[0], many.told[k])
        np.testing.assert_array_equal(alone.severity[0], many.severity[k])
        assert alone.bed[0] == many.bed[k]
    assert count_studies(7, 0, np.array([5, 9]), "chexpert")[1] == count_studies(7, 0, np.array([9]), "chexpert")[0]


def test_the_enriched_set_has_every_label_often_enough_and_names_parents() -> None:
    rows = list(dataset.rows_of(102, "train", range(1, 3001)))
    labels = np.array([row.labels for row in rows])
    test = np.array([row.labels for row in dataset.rows_of(102, "test", range(1, 3001))])
    for share in ((labels == 1).mean(axis=0), test.mean(axis=0)):
        assert (share > 0.06).all(), dict(zip(OBSERVATIONS, share, strict=True))
        assert (share < 0.65).all()
    assert (column(labels, "Enlarged Cardiomediastinum")[column(labels, "Cardiomegaly") == 1] == 1).all()
    for child in OPACITIES:
        assert (column(labels, "Lung Opacity")[column(labels, child) == 1] == 1).all()
    studies = Counter(patient for patient, _ in {(row.case.patient, row.case.study) for row in rows})
    assert set(studies.values()) == {1, 2, 3, 4}
    assert np.mean(np.isnan(labels)) > 0.3
    assert {-1.0, 0.0, 1.0} <= set(labels[~np.isnan(labels)])
