from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from noisy_student import promotion
from noisy_student.config import Config, PromotionConfig
from noisy_student.config.load import load
from noisy_student.data import manifest, predictions
from noisy_student.errors import NoisyStudentError
from noisy_student.runs import Run, read_json, write_json
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.stats.intervals import Difference, PairedComparison, compare
from noisy_student.workplace import Workplace

UP = Difference(0.021, (0.002, 0.04), 0.006, 0.036, 0.02, None)
DOWN = Difference(-0.021, (-0.04, -0.002), -0.036, -0.006, 0.02, None)
UNCLEAR = Difference(0.004, (-0.02, 0.03), -0.015, 0.024, 0.7, None)
UNDEFINED = Difference(None, None, None, None, None, "no label has both classes")


def comparison(auroc: Difference, log_loss: Difference) -> PairedComparison:
    return PairedComparison(auroc, log_loss, confidence=0.9, replicates=200, patients=150)


@pytest.mark.parametrize(
    ("auroc", "log_loss", "expected"),
    [
        # A higher AUROC is better, a higher log loss is worse.
        (UP, UNCLEAR, "better"),
        (UP, DOWN, "better"),
        (UNCLEAR, DOWN, "better"),
        (DOWN, UNCLEAR, "worse"),
        (DOWN, UP, "worse"),
        (UNCLEAR, UP, "worse"),
        (UNCLEAR, UNCLEAR, "undecided"),
        (UP, UP, "undecided"),  # ranks better and is less honest: the two contradict each other
        (DOWN, DOWN, "undecided"),
        (UNDEFINED, UNDEFINED, "undecided"),
        (UNDEFINED, DOWN, "better"),
        (DOWN, UNDEFINED, "worse"),
    ],
)
def test_verdict(auroc: Difference, log_loss: Difference, expected: str) -> None:
    assert promotion.verdict(comparison(auroc, log_loss)) == expected


def test_a_bound_that_touches_zero_decides_nothing() -> None:
    touching = Difference(0.01, (-0.01, 0.03), 0.0, 0.02, 0.1, None)
    assert promotion.verdict(comparison(touching, UNCLEAR)) == "undecided"
    assert promotion.verdict(comparison(UNCLEAR, touching)) == "undecided"


@pytest.mark.parametrize(
    ("auroc", "undecided", "following", "promoted"),
    [
        (UP, "mean", [3], True),
        (UP, "student", [3], True),
        (DOWN, "mean", [0, 2], False),
        (DOWN, "student", [0, 2], False),
        (UNCLEAR, "mean", [0, 2, 3], True),
        (UNCLEAR, "student", [3], True),
        (UNCLEAR, "teacher", [0, 2], False),
        (UP, "teacher", [3], True),
    ],
)
def test_who_teaches_next(auroc: Difference, undecided: str, following: list[int], promoted: bool) -> None:
    found = promotion.decision(3, [0, 2], comparison(auroc, UNCLEAR), PromotionConfig(undecided=undecided))
    assert found["teachers"] == following
    assert found["promoted"] is promoted
    assert found["against"] == [0, 2]
    assert (found["generation"], found["role"]) == (3, "student")


@pytest.mark.parametrize(
    ("measure", "auroc", "log_loss", "expected"),
    [
        ("auroc", UP, UP, "better"),  # its probabilities are worse, and nobody asks
        ("log_loss", UP, UP, "worse"),
        ("both", UP, UP, "undecided"),
        ("auroc", UNCLEAR, DOWN, "undecided"),
        ("log_loss", UNCLEAR, DOWN, "better"),
        ("log_loss", DOWN, UNDEFINED, "undecided"),
    ],
)
def test_the_measure_that_decides(measure: str, auroc: Difference, log_loss: Difference, expected: str) -> None:
    config = PromotionConfig(measure=measure)
    assert promotion.verdict(comparison(auroc, log_loss), config) == expected
    sentence = promotion.decision(1, [0], comparison(auroc, log_loss), config)["sentence"]
    assert (f"is {expected}, by {'macro AUROC' if measure == 'auroc' else 'log loss'}, than" in sentence) == (
        expected != "undecided"
    )


@pytest.mark.parametrize(
    ("measure", "auroc", "log_loss", "expected"),
    [
        ("both", UNCLEAR, DOWN, "better"),
        ("auroc", UNCLEAR, UNCLEAR, "better"),  # +0.004, wherever its bounds are
        ("log_loss", UNCLEAR, UNCLEAR, "worse"),
        ("both", UNCLEAR, UNCLEAR, "undecided"),  # the two contradict each other
        ("both", UNDEFINED, UNDEFINED, "undecided"),
    ],
)
def test_estimates_decide_where_they_are_to(
    measure: str, auroc: Difference, log_loss: Difference, expected: str
) -> None:
    config = PromotionConfig(rule="estimate", measure=measure)
    assert promotion.verdict(comparison(auroc, log_loss), config) == expected


@pytest.mark.parametrize(("auroc", "word"), [(UP, "better"), (DOWN, "worse"), (UNCLEAR, "undecided")])
def test_every_student_teaches_next_where_that_is_the_rule(auroc: Difference, word: str) -> None:
    found = promotion.decision(3, [0, 2], comparison(auroc, UNCLEAR), PromotionConfig(rule="always"))
    assert (found["verdict"], found["teachers"], found["promoted"]) == (word, [3], True)
    assert "next to teach: generation 3." in found["sentence"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "always", "undecided": "student"}, "undecided: does nothing with rule: always"),
        ({"rule": "estimate", "confidence": 0.8}, "confidence: does nothing with rule: estimate"),
    ],
)
def test_settings_without_an_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromotionConfig(**settings)


def test_a_single_teacher_is_a_number() -> None:
    assert promotion.decision(1, [0], comparison(UP, DOWN))["against"] == 0


@pytest.mark.parametrize(
    ("auroc", "log_loss", "sentence"),
    [
        (
            UP,
            DOWN,
            "On 150 validation patients generation 3 is better, by macro AUROC and log loss, than the mean of "
            "generations 0, 2 (macro AUROC +0.021, log loss −0.021); next to teach: generation 3.",
        ),
        (
            DOWN,
            UNDEFINED,
            "On 150 validation patients generation 3 is worse, by macro AUROC, than the mean of generations 0, 2 "
            "(macro AUROC −0.021); next to teach: the mean of generations 0, 2.",
        ),
        (
            UNDEFINED,
            UNDEFINED,
            "On 150 validation patients generation 3 cannot be told apart from the mean of generations 0, 2; "
            "next to teach: the mean of generations 0, 2, 3. "
            "The macro AUROC is undefined, no label has both classes: nothing is left to decide by.",
        ),
        (
            UNDEFINED,
            DOWN,
            "On 150 validation patients generation 3 is better, by log loss, than the mean of generations 0, 2 "
            "(log loss −0.021); next to teach: generation 3. "
            "The macro AUROC is undefined, no label has both classes: the log loss alone decides.",
        ),
    ],
)
def test_the_sentence_names_patients_generations_and_numbers(
    auroc: Difference, log_loss: Difference, sentence: str
) -> None:
    assert promotion.decision(3, [0, 2], comparison(auroc, log_loss))["sentence"] == sentence


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({"rule": "estimate"}, "no label has both classes: the log loss alone decides."),
        ({"measure": "auroc"}, "no label has both classes: nothing is left to decide by."),
        ({"measure": "log_loss"}, "next to teach: generation 1."),  # nobody asked for the AUROC
    ],
)
def test_an_undefined_auroc_is_told_where_it_was_to_decide(settings: dict[str, Any], last: str) -> None:
    said = promotion.decision(1, [0], comparison(UNDEFINED, DOWN), PromotionConfig(**settings))["sentence"]
    assert said.endswith(last)


def test_figures_are_written_with_their_intervals_and_undefined_ones_as_null_with_a_reason(tmp_path: Path) -> None:
    found = promotion.decision(1, [0], comparison(UP, UNDEFINED))
    assert found["auroc"] == {
        "difference": 0.021, "ci": [0.002, 0.04], "lower": 0.006, "upper": 0.036, "p": 0.02, "reason": None,
        "undefined_replicates": None, "undefined_labels": [],
    }  # fmt: skip
    assert found["log_loss"] == dict.fromkeys(
        ("difference", "ci", "lower", "upper", "p", "undefined_replicates", "undefined_labels")
    ) | {"reason": "no label has both classes"}
    write_json(tmp_path / "promotion.json", found)
    assert read_json(tmp_path / "promotion.json") == found


def test_the_first_teacher_is_compared_with_nothing() -> None:
    found = promotion.decision(0, [], None, sentence="The first.")
    assert (found["verdict"], found["promoted"], found["teachers"]) == ("first", True, [0])
    assert (found["role"], found["sentence"]) == ("teacher", "The first.")
    assert found["against"] is found["auroc"] is found["log_loss"] is None


# -- the stage, on predictions made up to be better or worse ---------------------------------------------------------

LABELS = ("Edema", "Fracture")
PATIENTS = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run(tmp_path_factory.mktemp("runs") / "promoted")
    made.create()
    truth = truth_of_films()
    columns: dict[str, Any] = {
        "image": [f"{n}.jpg" for n in range(len(truth))],
        "patient": [f"p{n // 2}" for n in range(len(truth))],
        "study": [f"s{n // 2}" for n in range(len(truth))],
        "split": ["valid"] * len(truth),
        "labelled": [False] * len(truth),
    }
    films = manifest.build(columns | {name: truth[:, k] for k, name in enumerate(LABELS)}, LABELS)
    manifest.write(manifest.seal(films)[0], made.manifest)
    return made


def truth_of_films() -> np.ndarray:
    return (np.random.default_rng(0).random((PATIENTS, len(LABELS))) < 0.4).repeat(2, axis=0).astype(np.float32)


def add_generation(run: Run, generation: int, skill: float) -> None:
    """Write predictions whose logits hold ``skill`` times the truth."""
    truth, stream = truth_of_films(), np.random.default_rng(generation + 1)
    logits = ((truth - 0.4) * skill + stream.normal(size=truth.shape)).astype(np.float32)
    images = np.array([f"{n}.jpg" for n in range(len(truth))], dtype=object)
    folder = run.generation(generation)
    predictions.write(predictions.Predictions(images, LABELS, logits), folder / "predictions" / "valid.parquet")
    write_json(folder / "calibration.json", Calibration(LABELS, (Platt(0.0, 1.0, 0.0, False, 50, 50),) * 2).to_json())


OVERRIDES = [f"data.labels=[{', '.join(LABELS)}]", "evaluation.replicates=200"]


def config() -> Config:
    return load(None, OVERRIDES)


def promoted(run: Run, generation: int) -> tuple[dict[str, Any], set[str]]:
    work = Workplace(run, config(), decoded=cast(Any, None))
    traffic = promotion.promote(work, generation)
    path = run.generation(generation) / "promotion.json"
    assert list(traffic.writes) == [path]
    return read_json(path), {path.relative_to(run.path).as_posix() for path in traffic.reads}


def test_students_are_judged_on_validation_against_those_who_taught_them(run: Run) -> None:
    for generation, skill in enumerate([1.0, 3.0, 1.0]):
        add_generation(run, generation, skill)
    first, _ = promoted(run, 0)
    assert (first["verdict"], promotion.teachers_of(run, 1)) == ("first", [0])
    second, reads = promoted(run, 1)
    assert (second["verdict"], second["against"], promotion.teachers_of(run, 2)) == ("better", 0, [1])
    assert second["auroc"]["difference"] > 0.1
    assert second["log_loss"]["difference"] < 0
    assert reads == {
        "manifest.parquet", "gen-0/promotion.json",
        "gen-0/predictions/valid.parquet", "gen-0/calibration.json",
        "gen-1/predictions/valid.parquet", "gen-1/calibration.json",
    }  # fmt: skip
    third, _ = promoted(run, 2)
    assert (third["verdict"], third["promoted"], promotion.teachers_of(run, 3)) == ("worse", False, [1])
    assert (
        f"On {PATIENTS} validation patients generation 2 is worse, by macro AUROC and log loss, than generation 1"
        in third["sentence"]
    )


def test_several_teachers_are_met_as_the_mean_of_their_probabilities(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for generation in range(3):
        add_generation(run, generation, 2.0)
    write_json(run.generation(1) / "promotion.json", {"teachers": [0, 1]})
    seen = SimpleNamespace()
    real = promotion.compare

    def noting(truth: Any, first: Any, second: Any, *more: Any, **named: Any) -> PairedComparison:
        seen.teacher, seen.student = first, second
        return real(truth, first, second, *more, **named)

    monkeypatch.setattr(promotion, "compare", noting)
    found, reads = promoted(run, 2)
    assert found["against"] == [0, 1]
    probability = [
        1 / (1 + np.exp(-predictions.read(run.generation(g) / "predictions" / "valid.parquet", images()).logits))
        for g in range(3)
    ]
    np.testing.assert_allclose(seen.teacher, (probability[0] + probability[1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(seen.student, probability[2], rtol=1e-6)
    assert {"gen-0/predictions/valid.parquet", "gen-1/calibration.json"} <= reads


def images() -> np.ndarray:
    return np.array([f"{n}.jpg" for n in range(2 * PATIENTS)], dtype=object)


def test_the_teachers_of_a_generation_are_what_the_one_before_decided(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.create()
    assert promotion.teachers_of(run, 0) == []
    with pytest.raises(NoisyStudentError, match=r"gen-0/promotion\.json: is missing"):
        promotion.teachers_of(run, 1)


@pytest.mark.parametrize(
    ("overrides", "teachers"),
    [
        (["promotion.measure=log_loss"], [1]),
        (["promotion.confidence=0.99999", "promotion.undecided=teacher"], [0]),
        (["promotion.rule=always"], [1]),
    ],
)
def test_the_rule_of_the_configuration_decides_who_teaches(run: Run, overrides: list[str], teachers: list[int]) -> None:
    add_generation(run, 0, 1.0)
    # A little better than the teacher: shown at the usual confidence, and not at an absurd one.
    add_generation(run, 1, 1.6)
    promoted(run, 0)
    work = Workplace(run, load(None, [*OVERRIDES, *overrides]), decoded=cast(Any, None))
    promotion.promote(work, 1)
    assert promotion.teachers_of(run, 2) == teachers


def test_a_label_of_one_patient_leaves_the_decision_to_the_log_loss_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = np.stack([rng.random(80) < 0.4, np.arange(80) == 0], axis=1).astype(float)
    teacher, student = (1 / (1 + np.exp(-gain * (truth - 0.5) - rng.normal(size=truth.shape))) for gain in (1.0, 3.0))
    found = compare(
        *(truth, teacher, student, np.arange(80), (0, 1), 200, 0, 0.9),
        probability_a=teacher, probability_b=student, names=LABELS,
    )  # fmt: skip
    said = promotion.decision(1, [0], found)
    assert (said["verdict"], said["auroc"]["lower"], said["auroc"]["upper"]) == ("better", None, None)
    assert said["auroc"]["difference"] > 0
    assert said["sentence"].startswith(
        "On 80 validation patients generation 1 is better, by log loss, than generation 0"
    )
    assert said["sentence"].endswith(
        "The macro AUROC has no interval, only 1 patient with Fracture: the log loss alone decides."
    )
    by_auroc = promotion.decision(1, [0], found, PromotionConfig(measure="auroc"))
    assert by_auroc["verdict"] == "undecided"
    assert by_auroc["sentence"].endswith("only 1 patient with Fracture: nothing is left to decide by.")
    for config in (PromotionConfig(measure="log_loss"), PromotionConfig(rule="estimate")):  # bounds were not asked for
        assert promotion.decision(1, [0], found, config)["sentence"].endswith("next to teach: generation 1.")
    alone = compare(truth, teacher, student, np.arange(80), (0, 1), 200, 0, 0.9, names=LABELS)
    assert promotion.decision(1, [0], alone)["verdict"] == "undecided"
    assert promotion.decision(1, [0], alone)["sentence"].endswith("nothing is left to decide by.")
    # All films are of one patient: no bound at all, where resamples that are all alike would have given one.
    one = compare(
        *(truth, teacher, student, np.zeros(80, int), (0, 1), 200, 0, 0.9), probability_a=teacher, probability_b=student
    )
    assert one.log_loss.reason == "no interval, only 1 patient with a known value of label 0, label 1"
    assert promotion.verdict(one) == "undecided"
