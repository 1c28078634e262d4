"""What is kept of pretrained weights: the blocks of a backbone, counted from the film, and Mean-Var draws."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from noisy_student import randomness
from noisy_student.learning.blocks import blocks


def mean_var(backbone: nn.Module, state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return parameters drawn from normal distributions with the mean and variance of those of ``state``.

    Mean-Var initialisation (Raghu et al., "Transfusion: Understanding transfer learning for medical imaging", NeurIPS
    2019): the scales of the pretrained network without its features. Each tensor has a draw of its own, a function of
    ``seed`` and its key. Running statistics of BatchNorm are left out: they describe features that are no more.
    """
    drawn = {}
    for key, parameter in backbone.named_parameters():
        given = state[key].double()
        generator = torch.Generator().manual_seed(int(randomness.hash_u64(seed, randomness.text_id(key)) >> 1))
        noise = torch.randn(given.shape, generator=generator, dtype=torch.float64)
        drawn[key] = (given.mean() + given.std(correction=0) * noise).to(parameter.dtype)
    return drawn


def lowest(backbone: nn.Module, state: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return the part of ``state`` that belongs to the lowest ``count`` blocks of ``backbone``."""
    kept = {key for block in blocks(backbone)[:count] for key in block}
    return {key: tensor for key, tensor in state.items() if key in kept}
