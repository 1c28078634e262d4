"""Settings of the method that contradict each other are refused with the key and the fix."""

from __future__ import annotations

import pytest

from noisy_student.config.load import load
from noisy_student.errors import ConfigError

LABELS = "data.labels=[A, B]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["student.consistency.confidence=0.8"],
            "confidence: does nothing with method: none; it is a setting of fixmatch",
        ),
        (["student.consistency={method: mean_teacher, align: false}"], "align: does nothing with method: mean_teacher"),
        (
            ["student.consistency.method=fixmatch", "student.noise.mixup.probability=1"],
            "mixup and cutmix mix two films; set their probability to 0",
        ),
        (
            ["student.consistency.method=mean_teacher", "student.loss.name=auc_margin", "student.sampler.positives=1"],
            "consistency: compares probabilities",
        ),
        (
            ["teacher.consistency.method=fixmatch", "teacher.sampler.positives=9", "teacher.optim.batch_size=32"],
            "are more than the 8 labelled films of a batch; raise optim.batch_size or optim.labelled_share",
        ),
        (
            ["student.optim.phases=[{steps: 9}, {epochs: 1, films: labelled}]"],
            "epochs: count the films of the whole table, which films: labelled leaves; give steps",
        ),
        (["pseudo={align: false, prevalence: {A: 0.1}}"], "pseudo.prevalence: does nothing with pseudo.align: false"),
        (["student.members=[{judges: stay}, {}]"], "members.0.judges: a member is one network and has no judges"),
        (["teacher.members=[{}, {refit: {}}]"], "members.1.refit: a member is one network and has no refit of its own"),
        (
            ["student.optim.phases=[{films: labelled}]"],
            "films: labelled in all of them, so no film of the pool is seen",
        ),
        (
            ["pretrain.method=byol", "generations.0={model: {name: resnet18}}", "student.model.name=resnet18"],
            "pretrain: no network starts from it",
        ),
        (["teacher.sampler.pool_balance=0.5"], "teacher.sampler.pool_balance: generation 0 has no pseudo-labels"),
        (
            ["teacher.optim.phases=[{steps: 9}, {films: labelled}]"],
            "teacher.optim.phases: films: labelled does nothing where no film is of the pool",
        ),
        (
            ["student.consistency={method: fixmatch, align: false, align_by: shift}"],
            "align_by: does nothing with align: false",
        ),
        (
            ["student.consistency={method: fixmatch, align_by: shift, momentum: 0.9}"],
            "momentum: does nothing with align_by: shift",
        ),
        (
            ["student.consistency={method: fixmatch, align: false, prevalence: teacher}"],
            "prevalence: does nothing with align: false",
        ),
        (
            ["teacher.consistency={method: fixmatch, prevalence: teacher}"],
            "teacher.consistency.prevalence: generation 0 has no teacher",
        ),
        (
            ["student.consistency={method: fixmatch, align: false, momentum: 0.9}"],
            "momentum: does nothing with align: false",
        ),
        (["generations.2.consistency.source=average"], "source: does nothing with method: none"),
        (["student.consistency.weight=3"], "student.consistency.*weight: does nothing with method: none"),
        (["teacher.consistency={ramp: 0}"], "teacher.consistency.*ramp: does nothing with method: none"),
        (["generations={0: {judges: stay}}"], r"generations\.0\.judges: generation 0 has no networks before it"),
    ],
)
def test_it_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(None, [LABELS, *settings])


def test_a_teacher_with_a_consistency_term_sees_the_pool() -> None:
    plain = load(None, [LABELS])
    assert [plain.uses_pool(generation) for generation in (0, 1, 2)] == [False, True, True]
    assert load(None, [LABELS, "teacher.consistency.method=mean_teacher"]).uses_pool(0)
    member = "teacher.members=[{}, {consistency: {method: fixmatch}}]"
    several = load(None, [LABELS, member])
    assert several.uses_pool(0)
    assert [several.uses_pool(0, number) for number in (0, 1)] == [False, True]
    assert several.uses_pool(1, 0)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("{method: none}", ("none", "ratio", "labelled", 0.99, 0.95)),
        ("{method: mean_teacher, weight: 10}", ("mean_teacher", "ratio", "labelled", 0.99, 0.95)),
        ("{align: false}", ("fixmatch", "ratio", "labelled", 0.99, 0.9)),
        ("{align_by: ratio}", ("fixmatch", "ratio", "teacher", 0.99, 0.9)),
        ("{confidence: 0.8}", ("fixmatch", "shift", "teacher", 0.99, 0.8)),
    ],
)
def test_another_consistency_term_leaves_the_settings_of_the_old_one_behind(
    change: str, left: tuple[str, str, str, float, float]
) -> None:
    term = "{method: fixmatch, confidence: 0.9, align_by: shift, prevalence: teacher, ramp: 0}"
    config = load(None, [LABELS, f"student.consistency={term}", f"generations={{2: {{consistency: {change}}}}}"])
    assert config.phase(1).consistency.align_by == "shift"
    found = config.phase(2).consistency
    assert (found.method, found.align_by, found.prevalence, found.momentum, found.confidence) == left
    assert found.ramp == (0.2 if found.method == "none" else 0)


def test_a_momentum_of_the_ratio_is_left_behind_by_the_shift() -> None:
    given = ["student.consistency={method: fixmatch, momentum: 0.9}", "generations.2.consistency.align_by=shift"]
    config = load(None, [LABELS, *given])
    assert (config.phase(1).consistency.momentum, config.phase(2).consistency.momentum) == (0.9, 0.99)


def test_one_key_of_the_start_without_labels_leaves_its_other_defaults() -> None:
    whole = load(None, []).pretrain.optim
    assert (whole.steps, whole.lr) == (1000, 2e-3)
    assert load(None, ["pretrain.optim.steps=300"]).pretrain.optim == whole.model_copy(update={"steps": 300})
    assert load(None, ["pretrain.optim.lr=0.001"]).pretrain.optim == whole.model_copy(update={"lr": 1e-3})


def test_a_sampler_of_the_labelled_alone_is_as_wide_as_the_batch() -> None:
    assert load(None, [LABELS, "teacher.sampler.positives=9", "teacher.optim.batch_size=32"])
