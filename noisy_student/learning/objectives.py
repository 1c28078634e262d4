"""What a step minimises. An objective is ``objective(model, ema, batch) -> scalar loss``; methods differ in it.

An objective that is a module has parameters of its own: training optimises them too and keeps them for a resume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Noised:
    """A batch after input noise: images float (B, C, H, W) in [0, 1]; target, weight, pos_weight (B, K).

    Where a task asks for two views of each film, B is twice the batch size, the second views after the first.
    """

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


class Byol(nn.Module):
    """Bootstrap Your Own Latent, on two views of each film and without labels.

    Grill et al., "Bootstrap your own latent: A new approach to self-supervised learning", NeurIPS 2020: from one noisy
    view the network predicts how its own average sees the other one. The average network is the one that training
    keeps anyway, so its momentum is the ``ema_decay`` of the optimiser's settings.

    Attributes:
        projector: features (B, D) -> projections (B, ``width``).
        predictor: projections -> the other view's projection by the average network.
        target: average of the projector, without gradients.
    """

    def __init__(self, features: int, hidden: int, width: int, *, momentum: float, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projector = _perceptron(features, hidden, width)
            self.predictor = _perceptron(width, width, width)
            self.target = _perceptron(features, hidden, width).requires_grad_(False)
        self.target.load_state_dict(self.projector.state_dict())
        self.momentum = momentum

    def forward(self, model: Any, ema: Any, batch: Noised) -> Tensor:
        """Return the mean squared distance between predicted and seen projections of length 1, in [0, 4].

        Args:
            model: a network with ``features(images) -> (B, D)``.
            ema: its average, as ``ema.module``.
            batch: ``images`` holds the first and then the second views of the films.
        """
        average = ema.module
        average.train()  # BatchNorm normalises by the batch, as in the network
        predicted = self.predictor(self.projector(model.features(batch.images)))
        with torch.no_grad():
            for mean, now in zip(self.target.parameters(), self.projector.parameters(), strict=True):
                mean.lerp_(now, 1 - self.momentum)
            first, second = self.target(average.features(batch.images)).float().chunk(2)
        agreement = functional.cosine_similarity(predicted.float(), torch.cat([second, first]))
        return (2 - 2 * agreement).mean()


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )
