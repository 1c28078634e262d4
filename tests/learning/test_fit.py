"""The training loop: what it computes, keeps, logs and writes, and how it goes on after a stop."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from tasks import (
    BATCH,
    CLEAN,
    CPU,
    GRADUAL,
    HEAD_STEPS,
    LABELS,
    STEPS,
    Recorder,
    equal,
    files,
    kept,
    log_without_times,
    make_task,
    new_run,
    saved_after,
    stop_after,
    two_views,
)
from torch import Tensor, nn

from noisy_student.config import SamplerConfig
from noisy_student.errors import DivergedError, StoppedError
from noisy_student.learning import augment, checkpoint, fit, goals, models, objectives, optim
from noisy_student.learning.batches import Films
from noisy_student.learning.blocks import blocks
from noisy_student.learning.predict import predict
from noisy_student.runs import Run, read_json

GOLDEN = Path(__file__).parents[1] / "golden_trace.json"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(tmp_path / "run")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[float], list[Path]]:
    """A training that nothing stopped: its run, its loss of every step, the files it names."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run, recorder = new_run(tmp_path_factory.mktemp("fit") / "run"), Recorder()
    written = fit.fit(run, replace(make_task(), objective=recorder, info={"config": "c0ffee"}))
    torch.set_num_threads(before)
    return run, recorder.losses, written


def test_the_losses_follow_the_golden_trace(undisturbed: tuple[Run, list[float], list[Path]]) -> None:
    """Losses written down once, so that a change of numbers is a decision and not an accident."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    # Other processors and versions sum in another order. Between AVX-512 and SSE 4.1 these losses differ by 5e-7; at a
    # rate of 1e-3 it would be 3e-3, so the task learns slowly. A change of method moves single losses by per cents.
    assert undisturbed[1] == pytest.approx(golden["losses"], rel=1e-3)
    assert len(golden["losses"]) == STEPS


def test_an_equal_task_has_equal_losses_whether_films_are_resident_or_streamed(
    run: Run, undisturbed: tuple[Run, list[float], list[Path]]
) -> None:
    recorder = Recorder()
    fit.fit(run, replace(make_task(resident=False), objective=recorder, info={"config": "c0ffee"}))
    assert recorder.losses == undisturbed[1]
    assert files(run) == files(undisturbed[0])


@pytest.mark.parametrize("stopped_at", [3, 7])  # in the head-only phase, and on a look at validation after it
def test_a_stopped_and_resumed_training_ends_where_an_undisturbed_one_does(
    run: Run, undisturbed: tuple[Run, list[float], list[Path]], stopped_at: int
) -> None:
    recorder = Recorder()
    task = replace(make_task(), objective=recorder, info={"config": "c0ffee"})
    with pytest.raises(StoppedError, match=f"stopped after step {stopped_at} of 20 of generation 1") as stopped:
        fit.fit(run, task, stop=stop_after(stopped_at))
    assert stopped.value.exit_code == 75
    assert not (run.generation(1) / "checkpoint" / "best").exists()
    torch.manual_seed(99)  # the global generator is not part of the state
    fit.fit(run, task)
    assert recorder.losses == undisturbed[1]
    assert files(run) == files(undisturbed[0])
    assert log_without_times(run) == log_without_times(undisturbed[0])


def test_a_finished_training_is_left_as_it_is(run: Run) -> None:
    recorder = Recorder()
    task = replace(make_task(steps=2, phases=()), objective=recorder)
    written = fit.fit(run, task)
    before = files(run)
    assert fit.fit(run, task) == written
    assert len(recorder.losses) == 2
    assert files(run) == before


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_checkpoint(run: Run, tmp_path: Path) -> None:
    task = make_task(steps=16, eval_every=4, save_every=5)
    healthy, whole = Recorder(), new_run(tmp_path / "whole")
    fit.fit(whole, replace(task, objective=healthy))

    poisoned = Recorder(lambda step, loss: loss * math.nan if step == 12 else loss)
    with pytest.raises(DivergedError, match="generation 1: the loss is not finite at step 12") as diverged:
        fit.fit(run, replace(task, objective=poisoned))
    assert diverged.value.exit_code == 4
    assert "resume.pt, is kept" in diverged.value.hint
    saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
    assert saved is not None
    assert saved["step"] == 10
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved["network"].values())
    assert [line["step"] for line in run.read_log()] == [4, 8, 10, 12]

    again = Recorder()
    fit.fit(run, replace(task, objective=again))
    assert again.losses == healthy.losses[10:]
    assert log_without_times(run) == log_without_times(whole)  # the look at step 12 is there once
    assert files(run) == files(whole)


def test_numbers_on_the_device_are_looked_at_where_they_are_logged_or_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, check = [], fit._Watch.check
    monkeypatch.setattr(fit._Watch, "check", lambda self: (looks.append(self), check(self))[1])
    fit.fit(run, make_task(steps=23, phases=(), eval_every=23, save_every=15))
    assert len(looks) == 4  # after steps 10, 15, 20 and 23


def test_a_divergence_is_told_with_its_step_and_what_came_after_it_is_not_kept(run: Run) -> None:
    calls = iter(range(100))
    fails = Recorder(lambda _, loss: loss * (math.nan if next(calls) == 6 else 1.0))
    with pytest.raises(DivergedError, match="the loss is not finite at step 6"):
        fit.fit(run, replace(make_task(steps=20, phases=(), eval_every=20, save_every=5), objective=fails))
    saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
    assert saved is not None
    assert saved["step"] == 5


def test_gradients_that_are_not_finite_stop_it_too(run: Run) -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, loss: Tensor) -> Tensor:
            return loss.clone()

        @staticmethod
        def backward(_: Any, gradient: Tensor) -> Tensor:
            return gradient * math.inf

    steep = Recorder(lambda _, loss: Steep.apply(loss))
    with pytest.raises(DivergedError, match="generation 1: the gradient norm is not finite at step 0"):
        fit.fit(new_run(run.path / "steep"), replace(make_task(), objective=steep))


def test_a_divergence_before_the_first_checkpoint_promises_none(run: Run) -> None:
    infinite = Recorder(lambda _, loss: loss + math.inf)
    with pytest.raises(DivergedError, match="the loss is not finite at step 0") as diverged:
        fit.fit(run, replace(make_task(), objective=infinite))
    assert "is kept" not in diverged.value.hint
    assert diverged.value.hint.startswith("Lower optim.lr")


def test_the_head_only_phase_changes_nothing_but_the_classifier(tmp_path: Path) -> None:
    task = make_task()
    start = fit.start_state(task, CPU).network.state_dict()
    changed: dict[int, set[str]] = {}
    for steps in (HEAD_STEPS, HEAD_STEPS + 1):
        run = new_run(tmp_path / str(steps))
        with pytest.raises(StoppedError):
            fit.fit(run, task, stop=stop_after(steps))
        saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
        assert saved is not None
        changed[steps] = {name for name, tensor in saved["network"].items() if not torch.equal(tensor, start[name])}
    assert changed[HEAD_STEPS] == {"classifier.weight", "classifier.bias"}
    statistics = {name for name in start if name.endswith(("running_mean", "running_var"))}
    assert statistics
    assert statistics <= changed[HEAD_STEPS + 1]  # one step later all layers learn
    assert any(name.startswith("backbone.") and name.endswith("weight") for name in changed[HEAD_STEPS + 1])


def test_gradual_unfreezing_thaws_block_after_block(tmp_path: Path) -> None:
    task = make_task(steps=9, phases=GRADUAL)
    start = fit.start_state(task, CPU).network
    found = blocks(start.backbone)
    weights = {name for name, _ in start.named_parameters()}
    before, learnt = start.state_dict(), []
    for steps in (3, 6, 7, 8):
        saved = saved_after(new_run(tmp_path / str(steps)), task, steps)
        changed = {name for name, tensor in saved["network"].items() if not torch.equal(tensor, before[name])}
        learnt.append({number for number, block in enumerate(found) if changed & {f"backbone.{key}" for key in block}})
        frozen = [block for number, block in enumerate(found) if number not in learnt[-1]]
        assert not changed & {f"backbone.{key}" for block in frozen for key in block}  # statistics included
        assert {"classifier.weight", "classifier.bias"} <= changed
        assert changed & weights
    assert learnt == [set(), {4}, {2, 3, 4}, {0, 1, 2, 3, 4}]


def test_what_never_learns_is_kept_with_the_statistics_it_was_used_with(run: Run) -> None:
    task = make_task(steps=3, phases=[{"trainable": 2}], bn_images=16)
    start, (*low, _, _) = fit.start_state(task, CPU).network, blocks(fit.start_state(task, CPU).network.backbone)
    before, below = start.state_dict(), {f"backbone.{key}" for block in low for key in block}
    fit.fit(run, task)
    found = kept(run)
    assert all(torch.equal(found[name], before[name]) for name in below)
    high = {name for name in before if name.endswith("running_mean") and name not in below}
    assert high
    assert not any(torch.equal(found[name], before[name]) for name in high)


@pytest.mark.parametrize("stopped_at", [2, 3, 5, 6, 7, 8])
def test_a_training_resumes_bit_for_bit_inside_and_between_phases(run: Run, tmp_path: Path, stopped_at: int) -> None:
    task = make_task(steps=9, phases=GRADUAL, schedule="each", eval_every=4)
    whole, undisturbed, resumed = new_run(tmp_path / "whole"), Recorder(), Recorder()
    fit.fit(whole, replace(task, objective=undisturbed))
    saved_after(run, replace(task, objective=resumed), stopped_at)
    torch.manual_seed(99)
    fit.fit(run, replace(task, objective=resumed))
    assert resumed.losses == undisturbed.losses
    assert files(run) == files(whole)


def test_parameters_of_the_objective_learn_and_are_resumed(run: Run, tmp_path: Path) -> None:
    def task() -> fit.Task:
        given = make_task(steps=6, phases=(), lr=1e-2, save_every=2, batch_size=16)
        given = replace(given, phase=given.phase.model_copy(update={"sampler": SamplerConfig(positives=1)}))
        return replace(given, objective=objectives.AucMargin(len(LABELS), 1.0))

    whole = new_run(tmp_path / "whole")
    fit.fit(whole, task())
    saved_after(run, task(), 3)
    fit.fit(run, task())
    assert files(run) == files(whole)
    states = [checkpoint.load_resume(r.generation(1) / "checkpoint" / "last" / "resume.pt") for r in (run, whole)]
    assert states[0] is not None
    assert states[1] is not None
    assert equal(states[0]["objective"], states[1]["objective"])
    assert set(states[0]["objective"]) == {"a", "b", "alpha"}
    assert (states[0]["objective"]["a"] != 0.5).all()


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher"])
def test_a_training_on_films_without_labels_is_resumed_bit_for_bit(run: Run, tmp_path: Path, method: str) -> None:
    whole = new_run(tmp_path / "whole")
    fit.fit(whole, two_views(method))
    saved_after(run, two_views(method), 3)
    torch.manual_seed(99)
    fit.fit(run, two_views(method))
    assert files(run) == files(whole)
    states = [checkpoint.load_resume(r.generation(1) / "checkpoint" / "last" / "resume.pt") for r in (run, whole)]
    assert states[0] is not None
    assert states[1] is not None
    assert equal(states[0]["objective"], states[1]["objective"])
    assert states[0]["objective"]["done"].item() == 6
    share = goals.share_of_positives(two_views(method).targets)
    moved = not torch.allclose(states[0]["objective"]["seen"], torch.from_numpy(share).float())
    assert moved == (method == "fixmatch")


@pytest.mark.parametrize("stopped_at", [3, 4, 5])
def test_a_training_with_a_clean_stretch_is_resumed_bit_for_bit(run: Run, tmp_path: Path, stopped_at: int) -> None:
    task, whole = make_task(steps=7, phases=CLEAN, save_every=1), new_run(tmp_path / "whole")
    fit.fit(whole, task)
    saved_after(run, task, stopped_at)
    torch.manual_seed(99)
    fit.fit(run, task)
    assert files(run) == files(whole)


@pytest.mark.parametrize(("select", "scores", "expected"), [
    ("best", [0.6, 0.9, 0.7], 1),
    ("best", [0.6, 0.9, 0.9], 1),  # of equals the first
    ("best", [0.6, 0.7, 0.9], 2),
    ("last", [0.9, 0.6, 0.7], 2),
])  # fmt: skip
def test_which_look_at_validation_is_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, select: str, scores: list[float], expected: int
) -> None:
    seen: list[dict[str, Tensor]] = []
    make_copy, figures = fit.clean_copy, iter(scores)

    def noting_copy(*arguments: Any) -> models.Network:
        network = make_copy(*arguments)
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return network

    monkeypatch.setattr(fit, "clean_copy", noting_copy)
    monkeypatch.setattr(fit, "auroc", lambda truth, score: next(figures))
    task = replace(make_task(steps=6, phases=(), eval_every=2, select=select), macro_columns=(1,))
    fit.fit(run, task)
    assert [line["valid_auroc"] for line in run.read_log() if "valid_auroc" in line] == scores
    assert [equal(kept(run), look) for look in seen] == [index == expected for index in range(3)]


def test_the_best_look_survives_a_stop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter([0.9, 0.6, 0.7])
    monkeypatch.setattr(fit, "auroc", lambda truth, score: next(figures))
    task = replace(make_task(steps=6, phases=(), eval_every=2, select="best"), macro_columns=(1,))
    with pytest.raises(StoppedError):
        fit.fit(run, task, stop=stop_after(3))
    saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
    assert saved is not None
    assert saved["score"] == 0.9
    fit.fit(run, task)
    assert equal(kept(run), saved["kept"])


@pytest.mark.parametrize("truth", [np.nan, 1.0])
def test_a_validation_that_says_nothing_is_null_in_the_log_and_the_last_weights_are_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, truth: float
) -> None:
    looks: list[dict[str, Tensor]] = []
    make_copy = fit.clean_copy

    def noting_copy(*arguments: Any) -> models.Network:
        network = make_copy(*arguments)
        looks.append(network.state_dict())
        return network

    monkeypatch.setattr(fit, "clean_copy", noting_copy)
    task = make_task(steps=2, phases=(), eval_every=1, select="best")
    fit.fit(run, replace(task, valid_truth=np.full_like(task.valid_truth, truth)))
    said = [(line["valid_auroc"], line["valid_log_loss"]) for line in run.read_log() if "valid_auroc" in line]
    assert said == [(None, None), (None, None)]
    assert equal(kept(run), looks[-1])


def test_averaged_statistics_are_kept_where_no_films_are_set_aside_for_them(run: Run) -> None:
    def saved_and_kept(run: Run, bn_images: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        fit.fit(run, make_task(steps=3, phases=(), bn_images=bn_images))
        saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
        assert saved is not None
        prefix = "module."
        average = {k.removeprefix(prefix): v for k, v in saved["averaged"].items() if k.startswith(prefix)}
        return average, kept(run)

    average, chosen = saved_and_kept(run, 0)
    assert equal(average, chosen)
    average, chosen = saved_and_kept(new_run(run.path / "again"), 16)
    differing = {name for name in average if not torch.equal(average[name], chosen[name])}
    assert differing
    assert all(".running_" in name or name.endswith("num_batches_tracked") for name in differing)


def test_estimated_statistics_are_those_of_clean_films(run: Run) -> None:
    task = make_task(steps=3, phases=(), bn_images=16)
    fit.fit(run, task)
    network, _ = checkpoint.load(run.generation(1) / "checkpoint" / "best")
    norm = next(name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d))
    inputs: list[Tensor] = []
    network.get_submodule(norm).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        network(augment.to_float(task.bn_films.gather(np.arange(16))))
    mean = inputs[0].double().mean(dim=(0, 2, 3))
    torch.testing.assert_close(network.get_submodule(norm).running_mean.double(), mean, rtol=1e-4, atol=1e-6)


def test_statistics_of_a_sorted_table_are_those_of_a_shuffled_one() -> None:
    """128 dark films and then 128 bright ones: batches of one kind would know nothing of how the kinds differ."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 64, (256, 1, 32, 32), dtype=np.uint8)
    pixels[128:] += 160
    found = {}
    for name, order in {"sorted": np.arange(256), "shuffled": draw.permutation(256)}.items():
        task = make_task(steps=1, phases=(), bn_images=256)
        task = replace(task, bn_films=Films(pixels, order, CPU))
        found[name] = fit.clean_copy(task, fit.start_state(task, CPU)).state_dict()
    variances = [name for name in found["sorted"] if name.endswith("running_var")]
    for name in variances:
        torch.testing.assert_close(found["sorted"][name], found["shuffled"][name], rtol=0.2, atol=1e-6)


def test_frozen_statistics_stay_those_of_the_start_while_scales_learn(run: Run) -> None:
    task = make_task(steps=3, phases=(), freeze_bn=True)
    start = fit.start_state(task, CPU).network.state_dict()
    fit.fit(run, task)
    found = kept(run)
    assert all(torch.equal(found[name], start[name]) for name in start if ".running_" in name)
    norms = [name for name in start if name.replace("running_mean", "weight") in start and "running_mean" in name]
    assert norms
    assert not all(
        torch.equal(found[name.replace("running_mean", "weight")], start[name.replace("running_mean", "weight")])
        for name in norms
    )


def test_it_names_the_files_that_it_wrote(undisturbed: tuple[Run, list[float], list[Path]]) -> None:
    run, _, written = undisturbed
    assert {path.relative_to(run.generation(1)).as_posix() for path in written} == set(files(run))
    on_disk = {
        path.relative_to(run.generation(1)).as_posix() for path in run.generation(1).rglob("*") if path.is_file()
    }
    assert on_disk == set(files(run)) | {"checkpoint/last/resume.pt"}


def test_meta_json_says_what_the_model_has_seen(undisturbed: tuple[Run, list[float], list[Path]]) -> None:
    for kind in ("best", "last"):
        meta = read_json(undisturbed[0].generation(1) / "checkpoint" / kind / "meta.json")
        assert meta["images_seen"] == STEPS * BATCH
        assert meta["steps"] == STEPS
        assert meta["pos_weight"] == [1.0, 2.0, 3.0]
        assert (meta["generation"], meta["origin"], meta["config"]) == (1, "none", "c0ffee")
        assert meta["labels"] == list(LABELS)


def test_best_is_the_averaged_model_and_last_the_raw_one(undisturbed: tuple[Run, list[float], list[Path]]) -> None:
    run = undisturbed[0]
    saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
    assert saved is not None
    assert equal(kept(run, "last"), saved["network"])
    assert torch.equal(kept(run)["classifier.weight"], saved["averaged"]["module.classifier.weight"])
    assert not torch.equal(kept(run)["classifier.weight"], kept(run, "last")["classifier.weight"])


def test_the_log_has_the_documented_keys_and_the_rates_of_the_schedule(
    undisturbed: tuple[Run, list[float], list[Path]],
) -> None:
    run, trace, _ = undisturbed
    lines = run.read_log()
    training = [line for line in lines if "loss" in line]
    looks = [line for line in lines if "loss" not in line]
    assert all(
        line.keys() == {"generation", "step", "loss", "lr", "gradient_norm", "films_per_second"} for line in training
    )
    assert all(line.keys() == {"generation", "step", "valid_auroc", "valid_log_loss"} for line in looks)
    assert [line["step"] for line in training] == [10, 20]
    assert [line["step"] for line in looks] == [7, 14, 20]  # every 7 steps, and at the end
    config = make_task().phase.optim
    for line in training:
        assert line["generation"] == 1
        assert line["loss"] == trace[line["step"] - 1]
        assert line["lr"] == pytest.approx(config.lr * optim.rate(line["step"] - 1, config), rel=1e-12)
        assert line["gradient_norm"] > 0


def test_the_figures_of_a_look_are_those_of_the_model_that_is_kept(
    undisturbed: tuple[Run, list[float], list[Path]],
) -> None:
    run, task = undisturbed[0], make_task()
    network, _ = checkpoint.load(run.generation(1) / "checkpoint" / "best", LABELS)
    logits = predict(network, task.valid_films, autocast=fit.autocaster(CPU, "fp32")).astype(np.float64)
    areas, costs = [], []
    for k in range(len(LABELS)):
        known = ~np.isnan(task.valid_truth[:, k])
        truth, score = task.valid_truth[known, k], logits[known, k]
        areas.append(roc_auc_score(truth, score))
        costs.append(log_loss(truth, 1 / (1 + np.exp(-score))))
    look = [line for line in run.read_log() if "valid_auroc" in line][-1]
    assert look["valid_auroc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert look["valid_log_loss"] == pytest.approx(np.mean(costs), rel=1e-6)  # scikit-learn clips probabilities


def test_bfloat16_is_used_where_it_is_asked_for_and_weights_stay_float32(
    run: Run, undisturbed: tuple[Run, list[float], list[Path]]
) -> None:
    recorder = Recorder()
    fit.fit(run, replace(make_task(precision="bf16", steps=3, phases=()), objective=recorder))
    exact = Recorder()
    fit.fit(new_run(run.path / "exact"), replace(make_task(steps=3, phases=()), objective=exact))
    assert recorder.losses != exact.losses
    assert recorder.losses[0] == pytest.approx(exact.losses[0], rel=0.05)  # bfloat16 has 8 bits of mantissa
    assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in kept(run).values())
