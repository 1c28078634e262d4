from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from noisy_student.config import ConsistencyConfig, ModelConfig, OptimConfig, PhaseConfig
from noisy_student.errors import StoppedError
from noisy_student.learning import fit, losses, objectives, sweep
from noisy_student.learning.batches import Films
from noisy_student.targets.table import Targets

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "STEPS", 13)


def make_task(**optim: Any) -> fit.Task:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (16, 1, 32, 32), dtype=np.uint8)
    target = (pixels.mean((1, 2, 3)) > 127.5).astype(np.float32)[:, None]
    films = Films(pixels, np.arange(16), CPU)
    given: dict[str, Any] = {"steps": 5, "batch_size": 8, "bn_images": 0, "lr": 3e-4}
    return fit.Task(
        generation=0, seed=1, phase=PhaseConfig(model=ModelConfig(dropout=0.1), optim=OptimConfig(**given | optim)),
        targets=Targets(
            np.array([f"film {n}" for n in range(16)], dtype=object), ("a",), target, np.ones_like(target),
            np.zeros(16, dtype=bool),
        ),
        films=films, valid_films=None, valid_truth=target[:0], bn_films=films,
        pos_weight=np.ones(1, dtype=np.float32), macro_columns=(0,), precision="fp32",
    )  # fmt: skip


class Watcher:
    """The plain objective, which notes what learns in each step and may change the loss."""

    def __init__(self, change: Any = lambda _, loss: loss) -> None:
        self.learning: list[set[str]] = []
        self.change = change
        self.plain = objectives.supervised(losses.weighted_bce, losses.mean_loss)

    def __call__(self, model: nn.Module, ema: nn.Module, batch: objectives.Noised) -> Tensor:
        self.learning.append({name for name, p in model.named_parameters() if p.requires_grad})
        return self.change(len(self.learning), self.plain(model, ema, batch))


def test_rates_rise_from_end_to_end_and_losses_begin_at_those_of_the_start() -> None:
    found = sweep.sweep(make_task())
    assert len(found.rates) == len(found.losses) == 13
    assert (found.rates[0], found.rates[-1]) == (1e-6, 1.0)
    np.testing.assert_allclose(np.diff(np.log(found.rates)), math.log(1e6) / 12)
    course = fit.Course(make_task())
    first = course.loss(0, course.noised(0, next(course.stream(0))))
    assert found.losses[0] == first.item()
    assert sweep.sweep(make_task()) == found


def test_it_does_not_depend_on_the_rate_of_the_configuration() -> None:
    assert sweep.sweep(make_task(lr=0.5, steps=7)) == sweep.sweep(make_task())
    assert sweep.sweep(make_task(backbone_lr_ratio=0.01)) != sweep.sweep(make_task())


def test_what_learns_is_what_learns_in_the_last_phase() -> None:
    watcher = Watcher()
    phases = [{"trainable": "head", "steps": 2}, {"trainable": 1, "epochs": 3}]
    sweep.sweep(replace(make_task(steps=0, phases=phases), objective=watcher))
    assert len(watcher.learning) == 13
    assert all(names == watcher.learning[0] for names in watcher.learning)
    assert any(name.startswith("backbone") for name in watcher.learning[0])
    whole = Watcher()
    sweep.sweep(replace(make_task(), objective=whole))
    assert watcher.learning[0] < whole.learning[0]


@pytest.mark.parametrize("factor", [math.nan, 100.0])
def test_it_ends_where_the_loss_explodes(factor: float) -> None:
    found = sweep.sweep(replace(make_task(), objective=Watcher(lambda n, loss: loss * factor if n == 6 else loss)))
    assert len(found.losses) == 5
    assert found.losses == sweep.sweep(make_task()).losses[:5]


def test_a_loss_below_0_goes_on_until_it_rises_by_a_part_of_the_first() -> None:
    losses = {1: 0.5, 2: 0.1, 3: -0.07, 4: -0.02, 5: -0.2, 6: -0.1}  # of a margin; 0.5 explodes by 0.375

    def change(step: int, loss: Tensor) -> Tensor:
        return loss - loss.detach() + losses.get(step, 0.3)

    found = sweep.sweep(replace(make_task(), objective=Watcher(change)))
    assert found.losses == pytest.approx([0.5, 0.1, -0.07, -0.02, -0.2, -0.1])


def test_a_consistency_term_is_compared_with_the_average_and_weighs_all_of_its_weight() -> None:
    seen: list[tuple[float, float]] = []

    class Noting(objectives.Consistency):
        def forward(self, model: nn.Module, ema: nn.Module, batch: objectives.Noised) -> Tensor:
            far = sum(float((a - b).abs().sum()) for a, b in zip(ema.parameters(), start, strict=True))
            seen.append((far, float(self._weight())))
            return super().forward(model, ema, batch)

    config = ConsistencyConfig(method="mean_teacher", strength=None, weight=2)
    task = make_task(steps=500)
    task = replace(task, phase=task.phase.model_copy(update={"consistency": config}))
    objective = Noting(lambda logits, _: logits.square().mean(), config, torch.tensor([0.5]), 500)
    start = [p.detach().clone() for p in fit.Course(replace(task, objective=objective)).state.averaged.parameters()]
    sweep.sweep(replace(task, objective=objective))
    assert {weight for _, weight in seen} == {2.0}
    assert seen[0][0] == 0
    assert seen[-1][0] > 0


def test_it_can_be_stopped() -> None:
    with pytest.raises(StoppedError, match="stopped in the learning-rate sweep"):
        sweep.sweep(make_task(), stop=lambda: True)
