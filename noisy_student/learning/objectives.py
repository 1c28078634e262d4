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

from noisy_student.config import ConsistencyConfig
from noisy_student.learning.distributed import ALONE, Group


@dataclass(frozen=True)
class Noised:
    """A batch after input noise: images float (B, C, H, W) in [0, 1]; target, weight, pos_weight (B, K).

    Where a task has partners, B is twice the batch size: behind the films' views stand those of their partners. Where
    the objective compares views of one film, ``weak`` (A, C, H, W) are other views of the films at ``rows`` (A,).

    Where several processes share a step, these are the films of one of them, and ``group`` sums over all. What an
    objective returns is then this process's share of the loss: its numerators over the denominators of all.
    """

    images: Tensor
    target: Tensor
    weight: Tensor
    pos_weight: Tensor
    weak: Tensor | None = None
    rows: Tensor | None = None
    group: Group = ALONE


class Objective(Protocol):
    """A training objective; ``ema`` is the averaged model, for methods that consult it."""

    def __call__(self, model: nn.Module, ema: nn.Module, batch: Noised) -> Tensor:
        """Return the loss of the batch, a scalar: the shares of several processes add up to it."""


SummedLoss = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Mean = Callable[[Tensor, Tensor], Tensor]
Cost = Callable[[Tensor, Noised], Tensor]
"""Logits (B, K) and the batch they are of to a scalar."""


def cost(loss: SummedLoss, mean: Mean) -> Cost:
    """Return ``mean`` of the summed ``loss`` and its weights, as a function of logits and batch."""

    def of(logits: Tensor, batch: Noised) -> Tensor:
        summed, weight = loss(logits.float(), batch.target, batch.weight, batch.pos_weight)
        return mean(summed, batch.group.total(weight))

    return of


def supervised(loss: SummedLoss, mean: Mean) -> Objective:
    """Return the objective of plain training on the targets table: the :func:`cost` of what the network says."""
    of = cost(loss, mean)

    def objective(model: nn.Module, ema: nn.Module, batch: Noised) -> Tensor:  # noqa: ARG001 - part of the protocol
        return of(model(batch.images), batch)

    return objective


class AucMargin(nn.Module):
    """The area under the ROC curve with a margin, per label, as a saddle point over parameters of its own.

    Yuan et al., "Large-scale robust deep AUC maximization: A new surrogate loss and empirical studies on medical image
    classification", ICCV 2021. With scores s = sigmoid(x), and means over the positives and over the negatives of a
    batch, a label costs ``mean+((s - a)^2) + mean-((s - b)^2) + 2 alpha (margin + mean-(s) - mean+(s)) - alpha^2``.
    Network, ``a`` and ``b`` descend on it and ``alpha`` >= 0 ascends. It is the paper's F divided by p (1 - p), p being
    the share of positives of the batch, so that rare labels count as much as others. A soft target y is y positives
    and 1 - y negatives.

    Attributes:
        a, b: (K,) where the scores of positives and of negatives are pulled to; they start at the score of a network
            that knows nothing, 1/2, which is the optimum for it.
        alpha: (K,) weight of the distance between them; it starts at ``margin``, likewise.
    """

    def __init__(self, labels: int, margin: float) -> None:
        super().__init__()
        self.margin = margin
        self.a = nn.Parameter(torch.full((labels,), 0.5))
        self.b = nn.Parameter(torch.full((labels,), 0.5))
        self.alpha = nn.Parameter(torch.full((labels,), margin))

    def forward(self, model: nn.Module, ema: nn.Module, batch: Noised) -> Tensor:  # noqa: ARG002 - part of the protocol
        """Return the mean cost of the labels of which the batch has positives and negatives; 0 where none has."""
        with torch.no_grad():
            self.alpha.clamp_(min=0)
        return self.loss(model(batch.images).float(), batch.target, batch.weight, batch.group)

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor, group: Group = ALONE) -> Tensor:
        """Return the mean cost of ``logits`` (B, K) with ``target`` in [0, 1] and ``weight`` >= 0, both (B, K)."""
        known = weight > 0
        target = torch.where(known, target, 0.0).to(logits.dtype)
        positive, negative = target * weight, torch.where(known, (1 - target) * weight, 0.0)
        positives, negatives = group.total(torch.stack([positive.sum(0), negative.sum(0)]))
        both = (positives > 0) & (negatives > 0)
        score, alpha = torch.sigmoid(logits), _Ascending.apply(self.alpha)

        def mean(values: Tensor, share: Tensor, mass: Tensor) -> Tensor:
            return (values * share).sum(0) / torch.where(both, mass, 1.0)

        pulled = mean((score - self.a) ** 2, positive, positives) + mean((score - self.b) ** 2, negative, negatives)
        apart = self.margin / group.size + mean(score, negative, negatives) - mean(score, positive, positives)
        cost = pulled + 2 * alpha * apart - alpha**2 / group.size
        total: Tensor = torch.where(both, cost, 0.0).sum() / both.sum().clamp(min=1)
        return total


class _Ascending(torch.autograd.Function):
    """The identity, whose gradient is turned round: a step that descends on the loss ascends in this argument."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - autograd's signature
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return -gradient


class Consistency(nn.Module):
    """The cost of what is known, and a second term: what is said of a film should not depend on its noise.

    ``mean_teacher``: the mean squared distance between the network's probabilities and those of its average on another
    view of the film, over all films and labels, after Tarvainen and Valpola, "Mean teachers are better role models",
    NeurIPS 2017. ``fixmatch``: the mean over films of the pool and labels of the cross-entropy with the rounded
    probability of a weak view, where that is confident, and 0 elsewhere, after Sohn et al., "FixMatch", NeurIPS 2020.
    With several labels each is yes or no, and a confident no counts too; its probability p is moved before by
    ``align``. By ``ratio``: the odds times (share / (1 - share)) / (seen / (1 - seen)), ``share`` being the share of
    positives that is expected of the pool and ``seen`` the running mean of p, after Ihler et al., "Distribution-aware
    multi-label FixMatch", CVPR workshops 2024, and Berthelot et al., "ReMixMatch", ICLR 2020. That is 0.6 where .38 is
    said and .27 expected, and odds of a thousand stay on their side. By ``shift``: sigmoid(log-odds - shift), with
    which the mean of p is the share (the change of prior of Saerens et al., Neural Computation 2002). It is found as
    the dual variable of that constraint: a step moves it by how far the mean over its films is off.

    Attributes:
        done: steps so far, on which the weight depends.
        seen: (K,) running mean of what was said of weak views, by ``ratio``; it starts at the share, which moves
            nothing.
        shift: (K,) what is taken from the log-odds, by ``shift``; it starts at 0.
        share: (K,) NaN where it is not known: that label is not moved.
    """

    done: Tensor
    seen: Tensor
    share: Tensor
    shift: Tensor

    def __init__(self, known: Cost, config: ConsistencyConfig, share: Tensor, steps: int) -> None:
        """``known`` is the cost of what is known, ``steps`` are those of the whole training."""
        super().__init__()
        self.known, self.config, self.rising = known, config, config.ramp * steps
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))
        self.register_buffer("share", share.float().clamp(1e-6, 1 - 1e-6), persistent=False)
        if config.align_by == "ratio":
            self.register_buffer("seen", self.share.clone())
        else:
            self.register_buffer("shift", torch.zeros_like(self.share))

    def forward(self, model: nn.Module, ema: nn.Module, batch: Noised) -> Tensor:
        """Return the sum of both terms; the second one is 0 where no other views are there."""
        assert batch.weak is not None, "the objective compares views"
        assert batch.rows is not None, "the objective compares views"
        weight = self._weight()
        if not len(batch.rows) and batch.group.size == 1:  # of several, another one may have films to compare
            return self.known(model(batch.images), batch)
        if self.config.method == "fixmatch" and self.config.source == "network":
            logits, weak = model(torch.cat([batch.images, batch.weak])).split([len(batch.images), len(batch.weak)])
        else:
            logits = model(batch.images)
            ema.eval()  # without dropout; statistics of the batch would spoil those that are averaged
            with torch.no_grad():
                weak = ema(batch.weak)
        term = self._far if self.config.method == "mean_teacher" else self._unlike
        second = term(logits[batch.rows].float(), weak.detach().float(), batch.group)
        return self.known(logits, batch) + (weight * second).to(second.dtype)

    def at_once(self) -> None:
        """Give the second term its whole weight from the first step on."""
        self.rising = 0.0

    @torch.no_grad()
    def _weight(self) -> Tensor:
        reached = (self.done / self.rising).clamp(max=1) if self.rising else torch.ones_like(self.done)
        self.done += 1
        return self.config.weight * torch.exp(-5 * (1 - reached) ** 2)

    def _far(self, logits: Tensor, weak: Tensor, group: Group) -> Tensor:
        return _mean(functional.mse_loss(torch.sigmoid(logits), torch.sigmoid(weak), reduction="none"), group)

    def _unlike(self, logits: Tensor, weak: Tensor, group: Group) -> Tensor:
        if not self.config.align:
            said = torch.sigmoid(weak)
        elif self.config.align_by == "ratio":
            said = self._aligned(torch.sigmoid(weak), group)
        else:
            said = self._shifted(weak, group)
        sure = torch.maximum(said, 1 - said) >= self.config.confidence
        each = functional.binary_cross_entropy_with_logits(logits, (said >= 0.5).float(), reduction="none")
        return _mean(torch.where(sure, each, 0.0), group)

    @torch.no_grad()
    def _aligned(self, said: Tensor, group: Group) -> Tensor:
        self.seen.lerp_(_column_means(said, group, self.seen), 1 - self.config.momentum)
        seen = self.seen.clamp(1e-6, 1 - 1e-6)
        positive, negative = said * self.share / seen, (1 - said) * (1 - self.share) / (1 - seen)
        return torch.where(self.share.isnan(), said, positive / (positive + negative))

    @torch.no_grad()
    def _shifted(self, weak: Tensor, group: Group) -> Tensor:
        said = torch.sigmoid(weak - self.shift)
        off = _column_means(said, group, self.share) - self.share
        self.shift += off.nan_to_num()  # the share of a label can be unknown: that one is not moved
        return said


class Byol(nn.Module):
    """Bootstrap Your Own Latent, on two views, of one film or of two that belong together, without labels.

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
        return _mean(2 - 2 * agreement, batch.group)


def _mean(values: Tensor, group: Group) -> Tensor:
    """Return this process's share of the mean over all values; 0 where there are none at all."""
    if group.size == 1:
        return values.mean()
    return values.sum() / group.total(values.new_tensor(float(values.numel()))).clamp(min=1)


def _column_means(values: Tensor, group: Group, otherwise: Tensor) -> Tensor:
    """Return the means (K,) over the rows of all processes' ``values`` (B, K), ``otherwise`` where there are none."""
    if group.size == 1:
        return values.mean(0)
    summed = group.total(torch.cat([values.sum(0), values.new_tensor([float(len(values))])]))
    return torch.where(summed[-1] > 0, summed[:-1] / summed[-1].clamp(min=1), otherwise)


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )
