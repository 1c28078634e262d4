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
        (["generations.2.consistency.source=average"], "source: does nothing with method: none"),
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
    assert load(None, [LABELS, member]).uses_pool(0)


def test_a_sampler_of_the_labelled_alone_is_as_wide_as_the_batch() -> None:
    assert load(None, [LABELS, "teacher.sampler.positives=9", "teacher.optim.batch_size=32"])
