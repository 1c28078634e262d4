"""Several processes over gloo against one: the same losses, weights and predictions, and how they end together."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from noisy_student.config import ConsistencyConfig, ModelConfig, NoiseConfig, OptimConfig, PhaseConfig
from noisy_student.errors import PeerError, StoppedError, UsageError
from noisy_student.learning import distributed, fit, goals, models, objectives
from noisy_student.learning.batches import Films
from noisy_student.learning.distributed import ALONE
from noisy_student.learning.predict import predict
from noisy_student.runs import Run
from noisy_student.targets.table import Targets

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = ("a", "b", "c")
COUNT, LABELLED, SIZE, STEPS, BATCH = 48, 16, 32, 20, 16
CPU = torch.device("cpu")
PLAIN = NoiseConfig()
MIXED = NoiseConfig.model_validate({"mixup": {"probability": 0.5}, "cutmix": {"probability": 0.5}})
PHASES: dict[str, dict[str, Any]] = {
    "weighted BCE": {"noise": PLAIN},
    "mixup and cutmix": {"noise": MIXED},
    "AUC-margin": {"noise": PLAIN, "loss": {"name": "auc_margin"}, "sampler": {"positives": 1}},
    "mean teacher": {"noise": PLAIN, "consistency": ConsistencyConfig(method="mean_teacher", weight=10)},
    "FixMatch": {"noise": PLAIN, "consistency": ConsistencyConfig(method="fixmatch", ramp=0, confidence=0.5)},
}

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["torch", "torchvision", "kornia", "noisy_student.learning.fit"])


def make_task(name: str) -> fit.Task:
    """Return a training on random films that are known with different weights, without dropout and batch statistics."""
    draw = np.random.default_rng(5)
    pixels = draw.integers(0, 256, (COUNT, 1, SIZE, SIZE), dtype=np.uint8)
    target = draw.random((COUNT, len(LABELS))).astype(np.float32)
    target[:LABELLED] = np.round(target[:LABELLED])
    weight = draw.choice([0.0, 0.3, 1.0], size=target.shape).astype(np.float32)
    targets = Targets(
        np.array([f"film{number}" for number in range(COUNT)], dtype=object),
        LABELS,
        target,
        weight,
        np.arange(COUNT) >= LABELLED,
    )
    phase = PhaseConfig.model_validate(
        PHASES[name]
        | {
            "model": ModelConfig(dropout=0),
            "optim": OptimConfig(
                steps=STEPS,
                batch_size=BATCH,
                eval_every=STEPS,
                save_every=5,
                bn_images=0,
                freeze_bn=True,
                labelled_share=0.5,
            ),
        }
    )
    return fit.Task(
        generation=1,
        seed=4,
        phase=phase,
        targets=targets,
        films=Films(pixels, np.arange(COUNT), CPU),
        valid_films=None,
        valid_truth=np.empty((0, 3), dtype=np.float32),
        bn_films=Films(pixels, np.arange(16), CPU),
        pos_weight=np.array([1.0, 2.0, 3.0], dtype=np.float32),
        macro_columns=(),
        precision="fp32",
        objective=goals.goal(phase, targets).objective,
    )


class Recorder(nn.Module):
    """An objective that notes the loss of every step, summed over the processes."""

    def __init__(self, objective: Any) -> None:
        super().__init__()
        self.objective, self.losses = objective, list[float]()

    def forward(self, model: nn.Module, ema: nn.Module, batch: objectives.Noised) -> Tensor:
        loss: Tensor = self.objective(model, ema, batch)
        self.losses.append(batch.group.total(loss).item())
        return loss


def trained(folder: Path, name: str, group: distributed.Group) -> list[float]:
    """Train, and return the losses; the weights are in the run at ``folder``."""
    run, task = Run(folder), make_task(name)
    if group.rank == 0:
        run.create()
    recorder = Recorder(task.objective)
    fit.fit(run, replace(task, objective=recorder, group=group))
    return recorder.losses


def asked(group: distributed.Group, count: int) -> np.ndarray[Any, Any]:
    """Return what a network of random weights says of ``count`` films."""
    network = models.build(ModelConfig(), LABELS, 1, SIZE, seed=3)
    pixels = np.random.default_rng(1).integers(0, 256, (count, 1, SIZE, SIZE), dtype=np.uint8)
    return predict(
        network, Films(pixels, np.arange(count), CPU), autocast=fit.autocaster(CPU, "fp32"), group=group
    )  # fmt: skip


# -- what the processes do -------------------------------------------------------------------------------------------


def in_group(rank: int, size: int, port: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run ``work(group, *arguments)`` in one of ``size`` processes."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    group, device = distributed.join("cpu")
    assert (group.rank, group.size, device) == (rank, size, "cpu")
    work(group, *arguments)
    distributed.leave()


def together(size: int, work: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Return the exit codes of ``size`` processes that do ``work`` together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = [_forkserver.Process(target=in_group, args=(rank, size, port, work, *arguments)) for rank in range(size)]
    for process in made:
        process.start()
    for process in made:
        process.join(timeout=120)
        process.kill()
    return [process.exitcode for process in made]


def train_and_ask(group: distributed.Group, folder: Path) -> None:
    losses = {name: trained(folder / name, name, group) for name in PHASES}
    said = {str(count): asked(group, count) for count in (2, 300)}
    if group.rank == 0:
        (folder / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
        np.savez(folder / "said.npz", **said)
    else:
        assert all(len(values) == 0 for values in said.values())


def stop_one(group: distributed.Group, folder: Path) -> None:
    run, calls = Run(folder), iter(range(1000))
    if group.rank == 0:
        run.create()
    with pytest.raises(StoppedError, match="stopped after step 10 of 20"):
        fit.fit(run, replace(make_task("weighted BCE"), group=group), stop=lambda: group.rank == 1 and next(calls) >= 7)


def lose_one(group: distributed.Group) -> None:
    if group.rank == 1:
        os._exit(0)  # without a word, as a process that is killed
    with pytest.raises(PeerError, match="another process of the run is gone"):
        group.add_up([torch.ones(3), torch.ones(1)])


def exchange(group: distributed.Group) -> None:
    whole = torch.arange(12.0).reshape(6, 2)
    assert torch.equal(group.whole(group.part(whole)), whole)
    assert np.array_equal(group.part(np.arange(6)), group.part(torch.arange(6)).numpy())
    first, second = torch.full((2, 2), float(group.rank)), torch.ones(1)
    group.add_up([first, second])
    assert first.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert second.item() == 2
    assert group.total(torch.tensor([2.0])).item() == 4
    assert group.collect(group.rank) == ([0, 1] if group.rank == 0 else [])
    if group.rank == 0:
        with group.sharing("train", 1, 2):
            assert group.busy
        assert not group.busy
    else:
        assert group.receive() == ("train", 1, 2)


# -- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_take_the_steps_of_one(size: int, tmp_path: Path) -> None:
    assert together(size, train_and_ask, tmp_path / "several") == [0] * size
    losses = json.loads((tmp_path / "several" / "losses.json").read_text(encoding="utf-8"))
    for name in PHASES:
        alone = trained(tmp_path / "alone" / name, name, ALONE)
        assert len(alone) == STEPS
        assert len({round(loss, 6) for loss in alone}) == STEPS
        # The averaged network of Mean Teacher (at ten times the weight) and FixMatch's threshold make rounding grow.
        rounding = 1e-3 if name in ("mean teacher", "FixMatch") else 1e-4
        np.testing.assert_allclose(losses[name], alone, rtol=rounding, err_msg=name)
        expected, found = (
            load_file(tmp_path / which / name / "gen-1/checkpoint/last/model.safetensors")
            for which in ("alone", "several")
        )
        # AdamW divides a gradient by its size, so rounding shows where that is near 0: in single weights.
        moved = {key: float((found[key] - tensor).float().abs().mean()) for key, tensor in expected.items()}
        assert max(moved.values()) < rounding, (name, max(moved, key=moved.__getitem__), max(moved.values()))
    said = np.load(tmp_path / "several" / "said.npz")
    for count in (2, 300):
        np.testing.assert_allclose(said[str(count)], asked(ALONE, count), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_one_that_is_to_stop_stops_all_after_the_same_step(tmp_path: Path) -> None:
    assert together(2, stop_one, tmp_path) == [0, 0]
    fit.fit(Run(tmp_path), make_task("weighted BCE"))  # goes on alone
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps[:2] == [10, 20]


@pytest.mark.slow
def test_a_process_that_is_gone_is_told_of() -> None:
    assert together(2, lose_one) == [0, 0]


@pytest.mark.slow
def test_what_processes_exchange() -> None:
    assert together(2, exchange) == [0, 0]


def test_a_process_that_is_alone_exchanges_nothing() -> None:
    values = torch.ones(2, requires_grad=True)
    assert ALONE.total(values) is values
    assert ALONE.whole(values) is values
    assert torch.equal(ALONE.part(values), values)
    assert ALONE.collect("word") == ["word"]
    ALONE.add_up([values])
    with ALONE.sharing("train", 1):
        assert not ALONE.busy


def test_one_gpu_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="--device cuda:0: 2 processes would share it"):
        distributed.join("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="process 1 of this machine has no GPU: there are 1"):
        distributed.join("auto")


def test_batch_norm_is_synchronised_between_gpus_alone() -> None:
    network = models.build(ModelConfig(), LABELS, 1, SIZE, seed=3)
    names = list(network.state_dict())
    several = distributed.Group(0, 2)
    for group, device in ((ALONE, torch.device("cuda")), (several, CPU)):
        distributed.synchronise_batch_norm(network, group, device)
        assert not any(isinstance(part, nn.SyncBatchNorm) for part in network.modules())
    parameters = {id(value) for value in network.parameters()}
    distributed.synchronise_batch_norm(network, several, torch.device("cuda"))
    assert any(isinstance(part, nn.SyncBatchNorm) for part in network.modules())
    assert list(network.state_dict()) == names
    assert {id(value) for value in network.parameters()} == parameters
