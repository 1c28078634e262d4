"""Small trainings on random films, and what watches them."""

from __future__ import annotations

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
from noisy_student.errors import StoppedError
from noisy_student.learning import checkpoint, fit, goals, losses, objectives
from noisy_student.learning.batches import Films
from noisy_student.runs import Run
from noisy_student.targets.table import Targets

LABELS = ("a", "b", "c")
CPU = torch.device("cpu")
COUNT, LABELLED, SIZE = 48, 16, 32
STEPS, HEAD_STEPS, BATCH = 20, 5, 8
CLEAN = [{"steps": 4}, {"steps": 3, "films": "labelled", "noise": False, "lr_ratio": 0.1}]
GRADUAL: Any = [
    {"trainable": "head", "steps": 3},
    {"trainable": 1, "steps": 3, "lr_ratio": 0.5},
    {"trainable": 3, "epochs": 1 / 12},  # of 48 films in batches of 8: half a step, which is one
    {"trainable": "all", "layer_decay": 0.5, "backbone_lr_ratio": 0.8},
]


def new_run(path: Path) -> Run:
    made = Run(path)
    made.create()
    return made


def make_task(*, resident: bool = True, precision: str = "fp32", **settings: Any) -> fit.Task:
    """Return generation 1 on random films: 16 labelled, 32 pseudo-labelled; validation is on films of its own."""
    draw = np.random.default_rng(5)
    pixels = draw.integers(0, 256, (COUNT + 24, 1, SIZE, SIZE), dtype=np.uint8)
    target = draw.random((COUNT, len(LABELS))).astype(np.float32)
    target[:LABELLED] = np.round(target[:LABELLED])
    images = np.array([f"film{number}" for number in range(COUNT)], dtype=object)
    truth = draw.integers(0, 2, (24, len(LABELS))).astype(np.float32)
    truth[0, 0] = np.nan
    given = {
        "steps": STEPS, "phases": [{"trainable": "head", "steps": HEAD_STEPS}, {"trainable": "all"}],
        "batch_size": BATCH, "eval_every": 7, "save_every": 100, "bn_images": 16, "lr": 3e-4,
    }  # fmt: skip
    return fit.Task(
        generation=1,
        seed=4,
        phase=PhaseConfig(
            model=ModelConfig(dropout=0.2, stochastic_depth=0.2),
            noise=NoiseConfig(),
            optim=OptimConfig(**given | settings),
        ),
        targets=Targets(images, LABELS, target, np.ones_like(target), np.arange(COUNT) >= LABELLED),
        films=Films(pixels, np.arange(COUNT), CPU, resident=resident),
        valid_films=Films(pixels, np.arange(COUNT, COUNT + 24), CPU),
        valid_truth=truth,
        bn_films=Films(pixels, np.arange(16), CPU),
        pos_weight=np.array([1.0, 2.0, 3.0], dtype=np.float32),
        macro_columns=(0, 1, 2),
        precision=precision,
    )


class Recorder:
    """The plain objective, which notes the loss of every step; ``change`` may give another loss for a step."""

    def __init__(self, change: Callable[[int, Tensor], Tensor] = lambda _, loss: loss) -> None:
        self.losses: list[float] = []
        self.change = change
        self.plain = objectives.supervised(losses.weighted_bce, losses.mean_loss)

    def __call__(self, model: nn.Module, ema: nn.Module, batch: objectives.Noised) -> Tensor:
        loss = self.change(len(self.losses), self.plain(model, ema, batch))
        self.losses.append(loss.item())
        return loss


def stop_after(steps: int) -> Callable[[], bool]:
    """Return a ``stop`` that becomes true with the ``steps``-th step of the call of ``fit``."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= steps

    return stop


def files(run: Run) -> dict[str, bytes]:
    """Return what a later stage reads of the generation."""
    names = [f"checkpoint/{kind}/{name}" for kind in ("best", "last") for name in ("model.safetensors", "meta.json")]
    return {name: (run.generation(1) / name).read_bytes() for name in [*names, "augmented.png"]}


def log_without_times(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "films_per_second"} for line in run.read_log()]


def kept(run: Run, kind: str = "best") -> dict[str, Tensor]:
    return load_file(run.generation(1) / "checkpoint" / kind / "model.safetensors")


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


class Watcher(Recorder):
    """A recorder that keeps the batches of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[objectives.Noised] = []

    def __call__(self, model: nn.Module, ema: nn.Module, batch: objectives.Noised) -> Tensor:
        self.batches.append(batch)
        return super().__call__(model, ema, batch)


def saved_after(run: Run, task: fit.Task, steps: int) -> dict[str, Any]:
    with pytest.raises(StoppedError):
        fit.fit(run, task, stop=stop_after(steps))
    saved = checkpoint.load_resume(run.generation(1) / "checkpoint" / "last" / "resume.pt")
    assert saved is not None
    return saved


def two_views(method: str, *, known: bool = False, **settings: Any) -> fit.Task:
    """Return a task with a consistency term, whose pool is without targets unless ``known``."""
    given = make_task(steps=6, phases=(), save_every=2, labelled_share=0.5)
    terms = {"fixmatch": {"confidence": 0.5, "momentum": 0.5}, "mean_teacher": {}}[method] | {"ramp": 0.5}
    phase = given.phase.model_copy(update={"consistency": ConsistencyConfig(method=method, **terms | settings)})
    weight = np.where(given.targets.pseudo[:, None] & (not known), np.float32(0), given.targets.weight)
    targets = replace(given.targets, weight=weight)
    return replace(given, phase=phase, targets=targets, objective=goals.goal(phase, targets).objective)
