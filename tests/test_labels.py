from __future__ import annotations

import pytest

from noisy_student.errors import ConfigError, DataError, DivergedError, NoisyStudentError, StoppedError, UsageError
from noisy_student.labels import (
    ALIASES,
    COMPETITION,
    NIH,
    OBSERVATIONS,
    PADCHEST,
    PARENTS,
    SPELLINGS,
    UNIONS,
    VINDR,
    canonical,
    shared,
)


def test_the_observations_are_those_of_chexpert_in_its_order() -> None:
    assert len(OBSERVATIONS) == len(set(OBSERVATIONS)) == 14
    assert OBSERVATIONS[0] == "No Finding"
    assert OBSERVATIONS[5:9] == ("Edema", "Consolidation", "Pneumonia", "Atelectasis")
    assert OBSERVATIONS[-1] == "Support Devices"
    assert set(COMPETITION) < set(OBSERVATIONS)
    assert set(ALIASES.values()) <= {*OBSERVATIONS, *NIH, *VINDR, *PADCHEST}


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("Edema", "Edema"),
        ("edema", "Edema"),
        (" Pleural_Effusion ", "Pleural Effusion"),
        ("pleural other", "Pleural Other"),
        ("Effusion", "Pleural Effusion"),
        ("Pleural_Thickening", "Pleural Thickening"),
        ("pleural thickening", "Pleural Thickening"),
        ("Nodule/Mass", "Lung Lesion"),
        ("Pulmonary fibrosis", "Fibrosis"),
        ("Other diseases", "Other Disease"),
        ("Other disease", "Other Disease"),
        ("pulmonary  edema", "Edema"),
        ("normal", "No Finding"),
        ("ILD", "ILD"),
        ("Airspace Opacity", "Lung Opacity"),
        ("Airspace_Opacity", "Lung Opacity"),
        ("hernia", "Hernia"),
        (" Some_Thing ", "Some_Thing"),
    ],
)
def test_canonical_names(given: str, ours: str) -> None:
    assert canonical(given) == ours


@pytest.mark.parametrize("dataset", SPELLINGS)
def test_every_name_of_a_data_set_leads_back_to_ours(dataset: str) -> None:
    assert {ours: canonical(theirs) for ours, theirs in SPELLINGS[dataset].items()} == {
        ours: ours for ours in SPELLINGS[dataset]
    }


def test_the_data_sets_write_names_as_their_tables_have_them() -> None:
    assert set(SPELLINGS["nih"].values()) == {
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
        "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax", "No Finding",
    }  # fmt: skip
    assert list(SPELLINGS["vindr"].values()) == [
        "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation",
        "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst",
        "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
        "Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis",
        "Other diseases", "No finding",
    ]  # fmt: skip
    assert len(SPELLINGS["torchxrayvision"]) == 18


def test_a_name_means_itself_and_parents_and_unions_are_labels() -> None:
    every = {*OBSERVATIONS, *NIH, *VINDR, *PADCHEST}
    assert {name: canonical(name) for name in every} == {name: name for name in every}
    for parent, children in (*PARENTS.items(), *UNIONS.items()):
        assert {parent, *children} <= every


def test_shared_labels_pair_the_names_of_two_sets() -> None:
    pairs = shared(OBSERVATIONS, SPELLINGS["nih"].values())
    assert ("Pleural Effusion", "Effusion") in pairs
    assert [ours for ours, _ in pairs] == [
        "No Finding", "Cardiomegaly", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax",
        "Pleural Effusion",
    ]  # fmt: skip
    assert shared(["Scoliosis", "A"], ["a", "scoliosis"]) == ()


def test_errors_carry_the_exit_code_of_the_command_line() -> None:
    codes = {NoisyStudentError: 1, UsageError: 2, ConfigError: 2, DataError: 3, DivergedError: 4, StoppedError: 75}
    assert {kind: kind.exit_code for kind in codes} == codes


def test_an_error_shows_its_hint_below_the_message() -> None:
    assert str(DataError("a.csv: is empty", "Fill it.")) == "a.csv: is empty\nFill it."
    assert str(DataError("a.csv: is empty")) == "a.csv: is empty"


def test_an_error_keeps_its_hint_across_a_process_border() -> None:
    import pickle

    copy = pickle.loads(pickle.dumps(DataError("what", "how")))
    assert (type(copy), copy.message, copy.hint) == (DataError, "what", "how")
