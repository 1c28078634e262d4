"""What a step minimises. An objective is ``objective(model, ema, batch) -> scalar loss``; methods differ in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Noised:
    """A batch after input noise: images float (B, C, H, W) in [0, 1]; target, weight, pos_weight (B, K)."""

    images: Tensor
    target: Tensor
    weight: Tensor
    pos_weight: Tensor


class Objective(Protocol):
    """A training objective; ``ema`` is the averaged model, for methods that consult it."""

    def __call__(self, model: nn.Module, ema: nn.Module, batch: Noised) -> Tensor:
        """Return the loss of the batch, a scalar."""


SummedLoss = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Mean = Callable[[Tensor, Tensor], Tensor]


def supervised(loss: SummedLoss, mean: Mean) -> Objective:
    """Return the objective of plain training on the targets table: ``mean`` of the summed ``loss`` and its weights."""

    def objective(model: nn.Module, ema: nn.Module, batch: Noised) -> Tensor:  # noqa: ARG001 - part of the protocol
        return mean(*loss(model(batch.images).float(), batch.target, batch.weight, batch.pos_weight))

    return objective
