"""The learning-rate sweep: a short training whose rate rises with every step, and of which nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import nn
from tqdm import tqdm

from noisy_student.errors import StoppedError
from noisy_student.learning import objectives
from noisy_student.learning.course import Course, Task
from noisy_student.stats.sweeps import Sweep

STEPS: Final = 100
LOWEST, HIGHEST = 1e-6, 1.0
EXPLODED: Final = 4.0
"""A loss this many times the lowest one ends the sweep; near 0 and below, a part of the first one counts."""


def sweep(task: Task, *, stop: Callable[[], bool] = lambda: False, progress: bool = False) -> Sweep:
    """Return the losses of up to :data:`STEPS` steps from the start weights, the rate rising geometrically.

    ``optim.lr`` takes the rates from :data:`LOWEST` to :data:`HIGHEST`; what learns, and at which share of the rate, is
    that of the last of the task's phases, which is the longest as a rule. Films, noise and objective are those of the
    training; a consistency term, whose task is not to be used again, has its whole weight from the start. The sweep
    ends early where the loss explodes.

    Raises:
        StoppedError: ``stop()`` became true.
    """
    last = task.phase.phases()[-1].model_copy(update={"steps": 0, "epochs": 0.0})
    optim = task.phase.optim.model_copy(update={"steps": STEPS, "phases": (last,)})
    course = Course(replace(task, phase=task.phase.model_copy(update={"optim": optim})))
    state, rates, losses = course.state, list[float](), list[float]()
    if isinstance(task.objective, objectives.Consistency):
        task.objective.at_once()
    with tqdm(total=STEPS, desc="learning-rate sweep", unit="step", disable=not progress) as bar:
        for step, films in enumerate(course.stream(0)):
            if stop():
                raise StoppedError("stopped in the learning-rate sweep", "Start it again; it keeps nothing.")
            loss = course.loss(step, course.noised(step, films))
            if not bool(torch.isfinite(loss)) or (losses and loss.item() > _limit(losses)):
                break
            losses.append(loss.item())
            rates.append(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(state.network.parameters(), optim.clip)
            course.set_rates(step, rates[-1])
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.averaged.update_parameters(state.network)
            bar.update()
    return Sweep(tuple(rates), tuple(losses))


def _limit(losses: Sequence[float]) -> float:
    """Return the loss above which a sweep with these ``losses`` has exploded; that of a margin can be below 0."""
    lowest = min(losses)
    return lowest + (EXPLODED - 1) * max(lowest, abs(losses[0]) / EXPLODED)
