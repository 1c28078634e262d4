"""A head with a hidden layer through training, stopping, storing and the self-supervised start."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_fit import CPU, make_task, new_run, stop_after

from noisy_student import preflight
from noisy_student.config import ModelConfig
from noisy_student.config.load import load
from noisy_student.errors import ConfigError, StoppedError
from noisy_student.learning import augment, checkpoint, fit, objectives, sampling
from noisy_student.learning.predict import predict
from noisy_student.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")
MODEL = ModelConfig(head="hidden", head_hidden=8, dropout=0.2)


def hidden_task(**settings: Any) -> fit.Task:
    task = make_task(**settings)
    return replace(task, phase=task.phase.model_copy(update={"model": MODEL}))


def kept(run: Run, kind: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run.generation(1) / "checkpoint" / kind / "model.safetensors")


def test_a_head_only_phase_trains_all_of_the_head_and_its_statistics_alone(tmp_path: Path) -> None:
    run, task = (
        new_run(tmp_path / "run"),
        hidden_task(steps=4, phases=[{"trainable": "head", "steps": 3}, {}], save_every=3),
    )
    start = {key: value.clone() for key, value in fit.start_state(task, CPU).network.state_dict().items()}
    with pytest.raises(StoppedError):
        fit.fit(run, task, stop=stop_after(3))
    saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
    assert saved is not None
    changed = {key for key, value in saved["network"].items() if not torch.equal(value, start[key])}
    assert changed == {key for key in start if key.startswith("classifier.")}
    assert "classifier.norm.running_mean" in changed


def test_a_stopped_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    task = hidden_task(steps=6, phases=[{"trainable": "head", "steps": 2}, {}])
    whole, parts = new_run(tmp_path / "whole"), new_run(tmp_path / "parts")
    fit.fit(whole, task)
    with pytest.raises(StoppedError):
        fit.fit(parts, task, stop=stop_after(4))
    fit.fit(parts, task)
    for kind in ("best", "last"):
        expected, found = kept(whole, kind), kept(parts, kind)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_kept_model_has_the_statistics_of_clean_films_in_its_head_too(tmp_path: Path) -> None:
    run, task = new_run(tmp_path / "run"), hidden_task(steps=3, phases=[{}], bn_images=16)
    fit.fit(run, task)
    network, meta = checkpoint.load(run.generation(1) / "checkpoint" / "best")
    assert (meta["model"]["head"], meta["model"]["head_hidden"]) == ("hidden", 8)
    logits = predict(network, task.bn_films, autocast=fit.autocaster(CPU, "fp32"))
    assert logits.shape == (16, 3)
    network.backbone.train()  # while statistics are estimated, every norm normalises by the batch
    with torch.no_grad():
        features = network.features(augment.to_float(task.bn_films.gather(np.arange(16))))
    torch.testing.assert_close(network.classifier.norm.running_mean, features.mean(0), rtol=1e-4, atol=1e-6)


def test_the_self_supervised_start_learns_from_the_features_below_the_head(tmp_path: Path) -> None:
    task = hidden_task(steps=2, phases=[{}])
    network = fit.start_state(task, CPU).network
    own = objectives.Byol(network.width, 16, 8, momentum=0.9, seed=0)
    partners = sampling.Partners(np.arange(len(task.targets.images)), seed=0)
    run = new_run(tmp_path / "run")
    fit.fit(run, replace(task, objective=own, partners=partners, valid_films=None))
    start, found = network.state_dict(), kept(run)
    assert all(torch.equal(found[key], start[key]) for key in found if key.startswith("classifier."))
    assert not torch.equal(found["backbone.0.weight"], start["backbone.0.weight"])


@pytest.mark.parametrize(
    ("settings", "accepted"),
    [
        (["student.model.head=hidden"], False),
        (["student.model.head=hidden", "teacher.model.head=hidden"], True),
        (["student.model.head=hidden", "teacher.model={head: hidden, head_hidden: 512}"], True),
        (["student.model={head: hidden, head_hidden: 8}", "teacher.model.head=hidden"], False),
        (["student.model.normalisation=half"], False),
        (["teacher.model.normalisation=half"], True),  # auto takes the teacher's
        (["student.model.normalisation=half", "teacher.model.normalisation=half"], True),
    ],
)
def test_a_student_starts_from_a_teacher_of_the_same_head_and_normalisation(
    settings: list[str], accepted: bool
) -> None:
    if accepted:
        load(None, ["student.start=teacher", *settings])
        return
    with pytest.raises(ConfigError, match="needs the same network, head and normalisation"):
        load(None, ["student.start=teacher", *settings])


def test_a_student_takes_its_teachers_normalisation(tmp_path: Path) -> None:
    task = make_task()
    teacher = ModelConfig(normalisation="half")
    network = fit.start_state(replace(task, phase=task.phase.model_copy(update={"model": teacher})), CPU).network
    checkpoint.save(tmp_path, network, teacher, {})
    student = fit.start_state(replace(task, start=tmp_path), CPU).network
    assert (network.normalisation, student.normalisation) == ("half", "half")
    assert torch.equal(student.mean, network.mean)


def test_a_generation_starts_from_the_self_supervised_one_where_the_head_is_the_same() -> None:
    given = ["pretrain.method=byol", "student.start=weights"]
    assert load(None, given).starts_from_pretraining(1)
    assert not load(None, [*given, "student.model.head=hidden"]).starts_from_pretraining(1)


@pytest.mark.parametrize("name", ["small_resnet", "vit_b_16"])
def test_one_film_for_the_statistics_is_refused_where_there_are_any(name: str) -> None:
    model = f"teacher.model={{name: {name}, head: hidden}}"
    with pytest.raises(ConfigError, match=r"^teacher\.optim\.bn_images: 1 film has no variance"):
        preflight.check_settings(load(None, [model, "teacher.optim.bn_images=1", "student.start=weights"]), "cpu")
    plain = load(None, [f"teacher.model.name={name}", "teacher.optim.bn_images=1", "student.start=weights"])
    with nullcontext() if name == "vit_b_16" else pytest.raises(ConfigError, match="bn_images: 1 film"):
        preflight.check_settings(plain, "cpu")


@pytest.mark.parametrize(("name", "refused"), [("convnext_tiny", True), ("resnet18", False)])
def test_statistics_are_kept_only_where_there_are_some(name: str, refused: bool) -> None:
    model = f"teacher={{model: {{name: {name}, weights: imagenet}}, optim: {{freeze_bn: true}}}}"
    config = load(None, [model, "student.start=weights"])
    with (
        pytest.raises(ConfigError, match=r"^teacher\.optim\.freeze_bn: convnext_tiny has no batch norm")
        if refused
        else nullcontext()
    ):
        preflight.check_settings(config, "cpu", weights=False)


def test_the_seed_of_the_start_reaches_mean_var(tmp_path: Path) -> None:
    task = make_task()
    checkpoint.save(tmp_path / "given", fit.start_state(task, CPU).network, task.phase.model, {})
    model = ModelConfig(weights="given", initialise="mean_var")
    drawn = replace(task, phase=task.phase.model_copy(update={"model": model}), search=[tmp_path])
    first, again = (fit.start_state(drawn, CPU) for _ in range(2))
    other = fit.start_state(replace(drawn, seed=task.seed + 1), CPU)
    assert first.origin.endswith("drawn from the mean and variance of each tensor")
    weights = [state.network.backbone[3].conv1.weight for state in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
