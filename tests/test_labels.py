from __future__ import annotations

import pytest

from noisy_student.errors import ConfigError, DataError, DivergedError, NoisyStudentError, StoppedError, UsageError
from noisy_student.labels import ALIASES, COMPETITION, OBSERVATIONS, canonical


def test_the_observations_are_those_of_chexpert_in_its_order() -> None:
    assert len(OBSERVATIONS) == len(set(OBSERVATIONS)) == 14
    assert OBSERVATIONS[0] == "No Finding"
    assert OBSERVATIONS[5:9] == ("Edema", "Consolidation", "Pneumonia", "Atelectasis")
    assert OBSERVATIONS[-1] == "Support Devices"
    assert set(COMPETITION) < set(OBSERVATIONS)
    assert set(ALIASES.values()) < set(OBSERVATIONS)


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("Edema", "Edema"),
        ("edema", "Edema"),
        (" Pleural_Effusion ", "Pleural Effusion"),
        ("pleural other", "Pleural Other"),
        ("Effusion", "Pleural Effusion"),
        ("Pleural_Thickening", "Pleural Other"),
        ("Airspace Opacity", "Lung Opacity"),
        ("Airspace_Opacity", "Lung Opacity"),
        ("Hernia", "Hernia"),
        (" Some_Thing ", "Some_Thing"),
    ],
)
def test_canonical_names(given: str, ours: str) -> None:
    assert canonical(given) == ours


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
