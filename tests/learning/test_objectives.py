from __future__ import annotations

import pytest
import torch
from torch import nn

from noisy_student.learning.losses import mean_loss, weighted_bce
from noisy_student.learning.objectives import Noised, supervised


class Linear(nn.Module):
    """The mean of a film times one number per label."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * self.scale


def make(weight: torch.Tensor | None = None) -> Noised:
    stream = torch.Generator().manual_seed(0)
    images, target = torch.rand(5, 1, 4, 4, generator=stream), torch.rand(5, 2, generator=stream)
    drawn = torch.rand(5, 2, generator=stream) if weight is None else weight
    return Noised(images, target, drawn, 1 + torch.rand(5, 2, generator=stream))


def test_the_loss_is_the_weighted_mean_of_the_cross_entropies() -> None:
    batch, model = make(), Linear()
    loss = supervised(weighted_bce, mean_loss)(model, model, batch)
    p = torch.sigmoid(model(batch.images))
    each = -(batch.pos_weight * batch.target * p.log() + (1 - batch.target) * (1 - p).log())
    expected = (each * batch.weight).sum() / batch.weight.sum()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert model.scale.grad is not None
    assert model.scale.grad.abs().min() > 0


def test_the_averaged_model_is_not_consulted() -> None:
    class Never(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the averaged model was asked")

    assert torch.isfinite(supervised(weighted_bce, mean_loss)(Linear(), Never(), make()))


def test_a_batch_in_which_nothing_is_known_costs_nothing() -> None:
    model = Linear()
    loss = supervised(weighted_bce, mean_loss)(model, model, make(torch.zeros(5, 2)))
    loss.backward()
    assert loss.item() == 0
    assert model.scale.grad is not None
    assert model.scale.grad.abs().max() == 0


def test_logits_of_half_precision_are_summed_in_full() -> None:
    class Half(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).bfloat16()

    seen = []

    def loss(logits: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(logits.dtype)
        return logits.sum(), torch.ones(())

    supervised(loss, mean_loss)(Half(), Half(), make())
    assert seen == [torch.float32]
