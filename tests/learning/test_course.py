"""What the steps of a training are made of: films, noise, what learns, at which rate, from which weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tasks import (
    BATCH,
    CLEAN,
    CPU,
    GRADUAL,
    LABELS,
    SIZE,
    Recorder,
    Watcher,
    equal,
    kept,
    make_task,
    new_run,
    two_views,
)
from torch import nn

from noisy_student.config import ConsistencyConfig, FinetuneConfig, LossConfig, ModelConfig, NoiseConfig, OptimConfig
from noisy_student.errors import ConfigError
from noisy_student.learning import augment, checkpoint, course, fit, losses, models, objectives, optim, sampling
from noisy_student.learning.batches import Batches, Films
from noisy_student.runs import Run, read_json
from noisy_student.targets.table import Targets

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path / "run")


def test_model_noise_is_drawn_anew_at_every_step_and_input_noise_for_every_place(run: Run) -> None:
    """With the same films in every batch and weights that stand still, only noise can change the loss."""
    task = make_task(steps=4, phases=(), lr=1e-12, batch_size=8, labelled_share=1, bn_images=0)
    few = replace(
        task,
        targets=Targets(*(part[:8] if not isinstance(part, tuple) else part for part in vars(task.targets).values())),
        films=Films(task.films.pixels, np.arange(8), CPU),
    )
    quiet_model = few.phase.model.model_copy(update={"dropout": 0.0, "stochastic_depth": 0.0})
    no_noise = NoiseConfig(strength=0)
    found = {}
    for name, phase in {
        "none": few.phase.model_copy(update={"noise": no_noise, "model": quiet_model}),
        "input": few.phase.model_copy(update={"model": quiet_model}),
        "model": few.phase.model_copy(update={"noise": no_noise}),
    }.items():
        recorder = Recorder()
        fit.fit(new_run(run.path / name), replace(few, phase=phase, objective=recorder))
        found[name] = max(recorder.losses) - min(recorder.losses)
    assert found["none"] < 1e-5  # the order of the films in the batch is all that changes
    assert found["input"] > 1e-3
    assert found["model"] > 1e-3


def test_mixed_films_come_with_mixed_targets_weights_and_class_weights(run: Run) -> None:
    """The first step's batch against the mixing of the films, targets and weights that the sampler chose."""
    noise = NoiseConfig().only("mixup", "cutmix", probability=0.6)
    task = make_task(steps=2, phases=())
    task = replace(task, phase=task.phase.model_copy(update={"noise": noise}))
    watcher = Watcher()
    fit.fit(run, replace(task, objective=watcher))

    order = sampling.sampler(task.targets, batch_size=BATCH, labelled_share=0.25, seed=4, generation=1)
    batch = Batches(task.films, task.targets, order, task.pos_weight).at(1)
    mixing = augment.draw_mixing(noise, seed=4, generation=1, position=batch.position)
    assert mixing is not None
    assert mixing.share.any() or mixing.cut.any()
    expected = augment.mix(mixing, augment.to_float(batch.clean), batch.target, batch.weight, batch.pos_weight)
    found = watcher.batches[1]
    for want, got in zip(expected, (found.images, found.target, found.weight, found.pos_weight), strict=True):
        torch.testing.assert_close(got, want)
    assert not torch.equal(found.target, batch.target)


def test_targets_are_smoothed_before_films_are_mixed(run: Run) -> None:
    """What a step costs is then the mixture of what both films cost, class weights included (test_augment_mixing)."""
    noise = NoiseConfig().only("mixup", probability=0.6)
    task = make_task(steps=1, phases=())
    phase = task.phase.model_copy(update={"noise": noise, "loss": LossConfig(smoothing=0.2)})
    task = replace(task, phase=phase)
    batch = fit.Course(task).batches.at(0)
    plain = fit.Course(replace(task, phase=phase.model_copy(update={"loss": LossConfig()}))).batches.at(0)
    torch.testing.assert_close(batch.target, 0.8 * plain.target + 0.1)
    watcher = Watcher()
    fit.fit(run, replace(task, objective=watcher))
    mixing = augment.draw_mixing(noise, seed=4, generation=1, position=batch.position)
    assert mixing is not None
    expected = augment.mix(mixing, augment.to_float(batch.clean), batch.target, batch.weight, batch.pos_weight)
    torch.testing.assert_close(watcher.batches[0].target, expected[1])
    torch.testing.assert_close(watcher.batches[0].pos_weight, expected[3])


def test_rates_are_those_of_the_phase_a_step_is_in() -> None:
    task = make_task(steps=9, phases=GRADUAL, warmup_share=0.0, lr=0.1, backbone_lr_ratio=0.5)
    course, config = fit.Course(task), task.phase.optim
    assert [(part.first, part.stop) for part in course.stretches] == [(0, 3), (3, 6), (6, 7), (7, 9)]
    shares = {
        0: (1, 0.5, 0.5),
        4: (0.5, 0.25, 0.25),  # half of every rate
        6: (1, 0.5, 0.5),
        8: (1, 0.8 * 0.5, 0.8 * 0.5**5),  # the highest block at the decay, the lowest of five at its fifth power
    }
    for step, (head, high, low) in shares.items():
        peak = 0.1 * optim.rate(step, config)
        assert course.set_rates(step) == pytest.approx(head * peak)
        rates = {group["depth"]: group["lr"] for group in course.state.optimizer.param_groups}
        assert (rates[0], rates[1], rates[5]) == pytest.approx((head * peak, high * peak, low * peak))


def test_a_schedule_rises_and_falls_once_or_in_every_phase() -> None:
    phases = [{"trainable": "head", "steps": 4}, {"steps": 6}]
    once, each = (
        fit.Course(make_task(steps=10, phases=phases, warmup_share=0.0, lr=1.0, schedule=schedule))
        for schedule in ("once", "each")
    )
    whole = OptimConfig(steps=10, warmup_share=0.0)
    assert [once.set_rates(step) for step in range(10)] == [optim.rate(step, whole) for step in range(10)]
    first, second = OptimConfig(steps=4, warmup_share=0.0), OptimConfig(steps=6, warmup_share=0.0)
    expected = [*(optim.rate(step, first) for step in range(4)), *(optim.rate(step, second) for step in range(6))]
    assert [each.set_rates(step) for step in range(10)] == expected


def test_phases_in_epochs_count_the_films_of_the_table(run: Run) -> None:
    recorder = Recorder()
    task = make_task(steps=0, phases=[{"trainable": "head", "epochs": 0.5}, {"epochs": 1}], batch_size=16)
    fit.fit(run, replace(task, objective=recorder))
    assert len(recorder.losses) == 2 + 3  # 48 films in batches of 16
    assert read_json(run.generation(1) / "checkpoint" / "best" / "meta.json")["steps"] == 5
    with pytest.raises(ConfigError, match="take 6 steps of 5 for 48 films and leave none"):
        fit.Course(make_task(steps=5, phases=[{"epochs": 2}, {}], batch_size=16))


@pytest.mark.parametrize(
    ("folder", "name"),
    [("gen-1", "gen-1"), ("gen-0/fold-1", "gen-0, fold-1"), ("gen-2/refit", "gen-2, refit"), ("pretrain", "pretrain")],
)
def test_an_origin_names_the_generation_and_which_of_its_networks(folder: str, name: str) -> None:
    assert course._name(Path("run", folder, "checkpoint", "best")) == name


def test_more_blocks_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match="trainable: 6 asks for more blocks than the 5 of the backbone"):
        fit.Course(make_task(steps=3, phases=[{"trainable": 6}]))


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher"])
@pytest.mark.parametrize("known", [False, True])
def test_the_second_term_teaches_from_films_whatever_is_known_of_them(
    run: Run, tmp_path: Path, method: str, known: bool
) -> None:
    fit.fit(run, two_views(method, known=known))
    with_term = kept(run)
    other = new_run(tmp_path / "without")
    plain = two_views(method, known=known)
    parts = losses.weighted_bce, losses.mean_loss
    fit.fit(other, replace(plain, objective=objectives.supervised(*parts)))
    assert not equal(with_term, kept(other))


def test_the_other_view_is_of_the_same_films_with_noise_of_its_own() -> None:
    course = fit.Course(two_views("fixmatch", strength=0.0))
    films = next(course.stream(0))
    batch = course.noised(0, films)
    assert batch.rows is not None
    assert batch.weak is not None
    assert batch.rows.tolist() == [4, 5, 6, 7]  # the pool's half of the batch
    assert torch.equal(batch.weak, augment.to_float(films.clean)[batch.rows])
    everyone = fit.Course(two_views("mean_teacher", strength=None)).noised(0, films)
    assert everyone.weak is not None
    assert len(everyone.weak) == len(batch.images)
    assert (everyone.weak - batch.images).abs().amax((1, 2, 3)).min() > 0.01  # as strong, and drawn anew


def test_the_second_term_rests_where_a_stretch_has_no_film_of_the_pool() -> None:
    task = two_views("fixmatch", weight=1000.0)
    optim = task.phase.optim.model_copy(update={"steps": 3, "phases": (FinetuneConfig(films="labelled"),)})
    course = fit.Course(replace(task, phase=task.phase.model_copy(update={"optim": optim})))
    films = next(course.stream(0))
    batch = course.noised(0, films)
    assert not films.pseudo.any()
    assert batch.weak is not None
    assert len(batch.weak) == 0
    network = course.state.network.eval()
    alone = losses.mean_loss(*losses.weighted_bce(network(batch.images), batch.target, batch.weight, batch.pos_weight))
    assert torch.equal(task.objective(network, course.state.averaged, batch), alone)


def test_films_of_which_nothing_is_known_are_drawn_only_where_they_are_of_use() -> None:
    task = two_views("fixmatch")
    plain = replace(task, phase=task.phase.model_copy(update={"consistency": ConsistencyConfig()}))
    for given, expected in ((task, 4), (plain, 0)):
        assert next(fit.Course(given).stream(0)).pseudo.sum() == expected


def test_a_clean_stretch_has_labelled_films_alone_and_no_noise() -> None:
    course = fit.Course(make_task(steps=7, phases=CLEAN))
    for step, films in enumerate(course.stream(0)):
        batch = course.noised(step, films)
        clean = torch.equal(batch.images, augment.to_float(films.clean))
        assert clean == (step >= 4)
        assert films.pseudo.any() == (step < 4)
        course.loss(step, batch)
        dropout = [module for module in course.state.network.modules() if isinstance(module, nn.Dropout)]
        norms = [module for module in course.state.network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert {module.training for module in dropout} == {step < 4}
        assert {module.training for module in norms} == {True}
    assert course.set_rates(5) == pytest.approx(0.1 * 3e-4 * optim.rate(5, course.task.phase.optim), rel=1e-6)


def test_without_noise_a_step_says_the_same_twice() -> None:
    """Dropout and stochastic depth are off: the loss does not depend on what is drawn in the step."""
    found = []
    for seed in (0, 1):
        course = fit.Course(replace(make_task(steps=7, phases=CLEAN), generation=1))
        films = course.batches.at(5)
        batch = course.noised(5, films)
        course.loss(5, batch)
        torch.manual_seed(seed)
        found.append(course.task.objective(course.state.network, course.state.averaged, batch).item())
    assert found[0] == found[1]


def test_start_weights_come_from_another_model_folder_the_classifier_with_them(run: Run) -> None:
    task = make_task(steps=1, phases=())
    teacher = models.build(task.phase.model, LABELS, 1, SIZE, seed=123)
    folder = run.generation(0) / "checkpoint" / "best"
    checkpoint.save(folder, teacher, task.phase.model, {})
    own = fit.start_state(task, CPU)
    assert own.origin == "none"
    assert not torch.equal(own.network.classifier.weight, teacher.classifier.weight)
    student = fit.start_state(replace(task, start=folder), CPU)
    assert equal(student.network.state_dict(), teacher.state_dict())
    assert equal(student.averaged.module.state_dict(), teacher.state_dict())
    fit.fit(run, replace(task, start=folder))
    assert read_json(run.generation(1) / "checkpoint" / "best" / "meta.json")["origin"] == "weights of gen-0"


def test_start_weights_differ_by_seed_and_by_generation_alone() -> None:
    task = make_task()
    start = fit.start_state(task, CPU).network.state_dict()
    assert equal(start, fit.start_state(task, CPU).network.state_dict())
    for other in (replace(task, seed=5), replace(task, generation=2)):
        assert not equal(start, fit.start_state(other, CPU).network.state_dict())


def test_fp32_is_not_rounded_to_ten_bits_by_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for precision, rounded in (("auto", True), ("bf16", True), ("fp32", False)):
        fit.autocaster(CPU, precision)
        assert torch.backends.cudnn.allow_tf32 == rounded


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_on_the_cpu(precision: str, dtype: torch.dtype) -> None:
    with fit.autocaster(CPU, precision)():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize("has", [True, False])
def test_a_processor_trains_in_bfloat16_where_it_has_it_and_the_network_gains(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has, raising=False)
    dense, grouped = (
        models.build(ModelConfig(name=name), LABELS, 1, 32, seed=0) for name in ("resnet18", "mobilenet_v2")
    )

    def dtype(precision: str, network: nn.Module | None) -> torch.dtype:
        with fit.autocaster(CPU, precision, network)():
            return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    assert dtype("auto", dense) == (torch.bfloat16 if has else torch.float32)
    assert dtype("auto", grouped) == dtype("auto", None) == dtype("fp32", dense) == torch.float32
    assert fit.Course(make_task(precision="auto")).autocast().fast_dtype == torch.bfloat16
    assert fit.Course(make_task(precision="auto")).autocast()._enabled == has
