"""Settings of phases, losses and samplers: what cannot be is refused in words, and what is given comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from noisy_student.config import Config, FinetuneConfig, ModelConfig, OptimConfig, PhaseConfig
from noisy_student.config.load import config_hash, load, resolved, to_yaml
from noisy_student.errors import ConfigError


def says(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, overrides)
    return caught.value.message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.phases=[{trainble: head}]", "unknown key 'teacher.optim.phases.0.trainble'; did you mean 'trainable'?"),
        ("optim.phases=[{trainable: hed}]", "teacher.optim.phases.0.trainable: Input should be 'all' or 'head'"),
        ("optim.phases=[{trainable: 0}]", "trainable: give 'head', 'all' or how many of the highest blocks learn"),
        ("optim.phases=[{steps: 3, epochs: 1}]", "epochs: give steps or epochs, not both"),
        ("optim.phases=[{trainable: head, layer_decay: 0.5}]", "layer_decay: does nothing where the head alone learns"),
        (
            "optim.phases=[{trainable: head, backbone_lr_ratio: 0.5}]",
            "backbone_lr_ratio: does nothing where the head alone learns",
        ),
        ("optim.phases=[{lr_ratio: 0}]", "teacher.optim.phases.0.lr_ratio: Input should be greater than 0"),
        ("optim.phases=[{}, {}]", "phases: only one of them can do without steps or epochs"),
        ("optim={steps: 5, phases: [{steps: 5}, {}]}", "phases: take 5 steps of 5 and leave none for the one without"),
        (
            "optim={steps: 5, phases: [{steps: 2}, {steps: 4}]}",
            "steps: is 5 and the phases take 6 together; set it to 6",
        ),
        ("optim={steps: 5, phases: [{epochs: 2}]}", "steps: the phases say how long they take, in epochs"),
        ("optim.phases=head", "teacher.optim.phases: Input should be a list"),
        (
            "optim={layer_decay: 0.8, phases: [{trainable: head}]}",
            "teacher.optim: layer_decay: does nothing where the head alone learns",
        ),
        ("optim.layer_decay=1.5", "teacher.optim.layer_decay: Input should be less than or equal to 1"),
        ("loss.name=focl", "did you mean 'focal'?"),
        ("loss.gamma=3", "gamma: does nothing with name: weighted_bce; it is a setting of focal"),
        ("loss={name: focal, tau: 2}", "tau: does nothing with name: focal; it is a setting of logit_adjusted"),
        ("loss={name: asymmetric, margin: 2}", "margin: does nothing with name: asymmetric"),
        ("loss.smoothing=1", "teacher.loss.smoothing: Input should be less than 1"),
        ("loss.name=auc_margin", "set sampler.positives to 1 or more"),
        (
            "sampler.positives=5",
            "teacher.sampler.positives: 5 of each of 14 labels are more than the 64 labelled films",
        ),
        ("sampler.balance=2", "teacher.sampler.balance: Input should be less than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(override: str, words: str) -> None:
    assert words in says(f"teacher.{override}")


def test_class_weights_are_those_of_one_loss() -> None:
    assert load(None, ["teacher.loss.name=bce"]).teacher.pos_weight_cap == 1
    assert load(None, ["teacher.pos_weight_cap=3"]).teacher.pos_weight_cap == 3
    message = says("teacher={loss: {name: bce}, pos_weight_cap: 3}")
    assert "pos_weight_cap: does nothing with loss.name: bce; leave it out or set it to 1" in message
    message = says("generations.0={loss: {name: focal}, pos_weight_cap: 3}")
    assert "generations.0: pos_weight_cap: does nothing with loss.name: focal; leave it out or set it to 1" in message


def both_ways(base: str, changes: str) -> list[PhaseConfig]:
    """Return the teacher of ``base`` with ``changes`` as a generation and as a member, each stored and read again."""
    given = [f"teacher={base}", "student.start=weights"]
    as_generation = load(None, [*given, f"generations.0={changes}"])
    as_member = load(None, [*given, f"teacher.members=[{{}}, {changes}]"])
    for config in (as_generation, as_member):
        assert Config.model_validate(resolved(config)) == config
    return [as_generation.phase(0), as_member.networks(0)[1]]


def test_what_belongs_to_a_choice_that_is_made_anew_need_not_be_given() -> None:
    for changed in both_ways("{pos_weight_cap: 5}", "{loss: {name: bce}}"):
        assert (changed.loss.name, changed.pos_weight_cap) == ("bce", 1)
    for changed in both_ways("{loss: {name: bce}}", "{loss: {name: weighted_bce}}"):
        assert changed.pos_weight_cap == 10
    for changed in both_ways("{pos_weight_cap: 5}", "{loss: {name: weighted_bce, smoothing: 0.1}}"):
        assert (changed.pos_weight_cap, changed.loss.smoothing) == (5, 0.1)
    for changed in both_ways("{loss: {name: focal, gamma: 3, smoothing: 0.1}}", "{loss: {name: asymmetric}}"):
        assert (changed.loss.gamma, changed.loss.gamma_negative, changed.loss.smoothing) == (2, 4, 0.1)
    for changed in both_ways("{loss: {name: focal, gamma: 3}}", "{loss: {alpha: 0.75}}"):
        assert (changed.loss.gamma, changed.loss.alpha) == (3, 0.75)
    for changed in both_ways("{model: {head: hidden, head_hidden: 64}}", "{model: {head: linear}}"):
        assert changed.model.hidden_width() is None
    lowest = "{name: resnet18, weights: imagenet, initialise: lowest, pretrained_blocks: 3}"
    for changed in both_ways(f"{{model: {lowest}}}", "{model: {initialise: pretrained}}"):
        assert (changed.model.initialise, changed.model.pretrained_blocks) == ("pretrained", None)
    for changed in both_ways("{optim: {steps: 50}}", "{optim: {phases: [{steps: 3}, {steps: 4}]}}"):
        assert changed.optim.steps == 7
    for changed in both_ways("{optim: {steps: 50}}", "{optim: {phases: [{steps: 3}, {}]}}"):
        assert changed.optim.steps == 50


def test_what_a_change_itself_gives_wrongly_is_refused() -> None:
    for place in ("generations.0=%s", "teacher.members=[{}, %s]"):
        message = says(place % "{loss: {name: bce, gamma: 3}}")
        assert "gamma: does nothing with name: bce" in message
        assert "head_hidden: does nothing" in says(place % "{model: {head_hidden: 9}}")


def test_what_is_taken_of_weights_has_no_part_in_a_start_from_the_teacher() -> None:
    model = "{name: resnet18, weights: imagenet, initialise: mean_var}"
    given = ["teacher.model={name: resnet18}", f"student.model={model}"]
    assert "student.model.initialise: 'mean_var' does nothing with start: teacher" in says(*given)
    assert load(None, [*given, "student.start=weights"]).student.model.initialise == "mean_var"
    assert load(None, [f"teacher.model={model}", f"student.model={model}"]).student.start == "teacher"
    lowest = "{name: resnet18, weights: imagenet, initialise: lowest, pretrained_blocks: %d}"
    given = [f"teacher.model={lowest % 3}", f"student.model={lowest % 2}"]
    assert "student.model.pretrained_blocks: '2' does nothing with start: teacher" in says(*given)
    given = ["teacher.model.name=resnet18", "student.model.name=resnet18"]
    member = f"student.members=[{{}}, {{model: {model}}}]"
    assert "student.members.1.model.initialise: 'mean_var' does nothing with start: teacher" in says(*given, member)


def test_a_students_places_are_those_of_its_labelled_films() -> None:
    given = ["student.sampler.positives=2", "student.optim.batch_size=64"]
    assert "student.sampler.positives: 2 of each of 14 labels are more than the 16" in says(*given)
    assert load(None, [*given, "student.optim.labelled_share=0.5"]).student.sampler.positives == 2


def test_the_self_supervised_start_has_no_phases() -> None:
    assert "optim.phases: there is no classifier here" in says(
        "pretrain.optim.phases=[{trainable: head, steps: 3}, {}]"
    )


GIVEN: list[tuple[dict[str, Any], int, list[tuple[int, int]]]] = [
    ({}, 600, [(0, 600)]),
    ({"steps": 10, "phases": [{"trainable": "head", "steps": 3}, {}]}, 10, [(0, 3), (3, 10)]),
    ({"steps": 10, "phases": [{}, {"steps": 3}]}, 10, [(0, 7), (7, 10)]),
    ({"phases": [{"steps": 3}, {"steps": 4}]}, 7, [(0, 3), (3, 7)]),
    ({"steps": 7, "phases": [{"steps": 3}, {"steps": 4}]}, 7, [(0, 3), (3, 7)]),
    ({"phases": [{"epochs": 2}, {"steps": 4}], "batch_size": 32}, 0, [(0, 7), (7, 11)]),  # 200 films of 100
    ({"steps": 20, "phases": [{"epochs": 2}, {}], "batch_size": 32}, 20, [(0, 7), (7, 20)]),
]


@pytest.mark.parametrize(("optim", "steps", "stretches"), GIVEN)
def test_lengths_of_phases(optim: dict[str, Any], steps: int, stretches: list[tuple[int, int]]) -> None:
    phase = PhaseConfig(optim=OptimConfig(**optim))
    assert phase.optim.steps == steps
    assert [(part.first, part.stop) for part in phase.stretches(100)] == stretches
    assert phase.total_steps(100) == stretches[-1][1]
    assert phase.total_steps(None) == (steps or None)


@pytest.mark.parametrize(("optim", "steps", "stretches"), GIVEN)
def test_a_stored_configuration_is_the_same(
    tmp_path: Path, optim: dict[str, Any], steps: int, stretches: list[tuple[int, int]]
) -> None:
    start = "teacher.model={name: resnet18, weights: imagenet}"
    config = load(
        None, [start, "student.start=weights", f"teacher.optim={json.dumps(optim)}", "teacher.loss.name=asymmetric"]
    )
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    again = load(tmp_path / "again.yaml")
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_pretrained_weights_begin_with_the_head() -> None:
    scratch = PhaseConfig().phases()
    assert scratch == (FinetuneConfig(),)
    pretrained = PhaseConfig(model=ModelConfig(name="resnet18", weights="imagenet"))
    head, whole = pretrained.stretches(1000)
    assert (head.does.trainable, head.first, head.stop) == ("head", 0, 60)
    assert (whole.does.trainable, whole.does.lr_ratio, whole.stop) == ("all", 0.1, 600)
    assert pretrained.model_copy(update={"start": "teacher"}).phases() == scratch
    own = pretrained.model_copy(update={"optim": OptimConfig(phases=(FinetuneConfig(),))})
    assert own.phases() == scratch


KEPT = {"initialise": "mean_var"}, {"initialise": "lowest", "pretrained_blocks": 2}


@pytest.mark.parametrize("kept", KEPT)
def test_what_keeps_no_statistics_begins_with_all_layers(kept: dict[str, Any]) -> None:
    model = ModelConfig.model_validate({"name": "resnet18", "weights": "imagenet"} | kept)
    assert PhaseConfig(model=model).phases() == (FinetuneConfig(),)


NO_STATISTICS = [
    ({}, "model.weights is 'none'"),
    *(({"name": "resnet18", "weights": "imagenet"} | kept, "model.initialise is") for kept in KEPT),
]


@pytest.mark.parametrize(("model", "reason"), NO_STATISTICS)
def test_layers_that_nothing_has_taught_do_not_stand_still(model: dict[str, Any], reason: str) -> None:
    given = [f"teacher.model={json.dumps(model)}", "student.start=weights"]
    message = says(*given, "teacher.optim.freeze_bn=true")
    assert f"teacher.optim.freeze_bn: teacher.{reason}" in message
    for first in ("head", "2") if model.get("initialise") != "lowest" else ("head",):
        message = says(*given, f"teacher.optim.phases=[{{trainable: {first}, steps: 3}}, {{}}]")
        assert f"teacher.optim.phases: the first of them (trainable: {first}) leaves layers" in message
        assert f"teacher.{reason}" in message
        assert "begin with trainable: all" in message
    load(None, [*given, "teacher.optim.phases=[{steps: 3}, {trainable: head}]"])


def test_layers_that_the_teacher_or_a_self_supervised_start_has_taught_may_stand_still() -> None:
    first = "optim={freeze_bn: true, phases: [{trainable: head, steps: 3}, {}]}"
    load(None, [f"student.{first}"])
    load(None, ["pretrain.method=byol", f"teacher.{first}"])
    load(None, ["teacher.model={name: resnet18, weights: imagenet}", "student.start=weights", f"teacher.{first}"])
    named = says("student.start=weights", "generations.2.optim.freeze_bn=true")
    assert "generations.2.optim.freeze_bn: generations.2.model.weights is 'none'" in named
    member = says("teacher.members=[{}, {optim: {freeze_bn: true}}]")
    assert "teacher.members.1.optim.freeze_bn: teacher.members.1.model.weights is 'none'" in member
    assert "pretrain.optim.freeze_bn: teacher.model.weights give no" in says(
        "pretrain={method: byol, optim: {freeze_bn: true}}"
    )


def test_a_generation_can_have_phases_of_its_own() -> None:
    config = load(None, ["generations.2.optim.phases=[{trainable: 2, steps: 100}, {}]"])
    assert [part.does.trainable for part in config.phase(2).stretches(10)] == [2, "all"]
    assert config.phase(1) == Config().student
