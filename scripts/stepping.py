"""Bare training steps, which benchmarks of training take as their bound: the model on a resident random batch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from measuring import wait
from torch import Tensor

from noisy_student.config import PhaseConfig
from noisy_student.learning import fit, losses, models, optim

LABELS = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Step:
    """Takes films, float (B, 1, S, S), and their targets (B, K); returns the loss, which nothing has waited for."""

    take: Callable[[Tensor, Tensor], Tensor]
    bf16: bool

    def __call__(self, images: Tensor, target: Tensor) -> Tensor:
        """Take one step."""
        return self.take(images, target)


def bare_step(phase: PhaseConfig, size: int, device: torch.device, *, compiled: bool = False) -> Step:
    """Return a function that takes one step (forward, loss, backward, optimiser)."""
    network = models.build(phase.model, LABELS, 1, size, seed=0).to(device).to(memory_format=torch.channels_last)
    stepped = models.Compiled(network) if compiled else network
    optimizer = optim.optimizer(network, phase.optim)
    weight = torch.ones(phase.optim.batch_size, len(LABELS), device=device)
    autocast = fit.autocaster(device, "auto", network)
    network.train()

    def step(images: Tensor, target: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast():
            loss = losses.mean_loss(*losses.weighted_bce(stepped(images).float(), target, weight, None))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    with autocast():
        return Step(step, torch.is_autocast_enabled(device.type))


def random_batch(batch: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return resident films and targets for :func:`bare_step`."""
    images = torch.rand(batch, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)
    return images, torch.rand(batch, len(LABELS), device=device)


def pace(step: Step, batches: Iterator[tuple[Tensor, Tensor]], steps: int, warm: int, device: torch.device) -> float:
    """Return films/s of ``steps`` steps after ``warm`` others; the clock waits for the device at both ends alone."""
    films, since = 0, 0.0
    for number, (images, target) in enumerate(itertools.islice(batches, warm + steps)):
        if number == warm:
            wait(device)
            since = time.perf_counter()
        step(images, target)
        films += len(images) * (number >= warm)
    wait(device)
    return films / (time.perf_counter() - since)
