"""What is kept of pretrained weights: the blocks of a backbone, counted from the film, and Mean-Var draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from noisy_student import randomness

_CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_MOST: Final = 0.9


def blocks(backbone: nn.Module) -> list[list[str]]:
    """Return the blocks of ``backbone`` from the film to the features, each as the keys of its state.

    A block is a module with parameters that the architecture itself names (a residual block, a dense block, a
    transformer layer, a stage). Plain containers, and modules that hold nearly all of the network, are taken apart; a
    norm belongs to the filters before it, and what belongs to no block (tokens, position tables) to the first.
    """
    total = sum(parameter.numel() for parameter in backbone.parameters())
    found: list[list[str]] = []
    for prefix, module in _units(backbone, "", total):
        # A unit without filters or matrices is a norm, or a scale: it finishes what came before.
        if not found or any(parameter.ndim >= 2 for parameter in module.parameters()):
            found.append([])
        found[-1] += [f"{prefix}.{key}" for key in module.state_dict()]
    listed = {key for block in found for key in block}
    if found:
        found[0] += [key for key in backbone.state_dict() if key not in listed]
    return found


def _units(module: nn.Module, prefix: str, total: int) -> list[tuple[str, nn.Module]]:
    units: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        size = sum(parameter.numel() for parameter in child.parameters())
        if not size:
            continue
        key = f"{prefix}{name}"
        # Of the exact type: a subclass of a container is a block that an architecture has named.
        plain, named = type(child) in _CONTAINERS, isinstance(child, _CONTAINERS)
        taken_apart = plain or (not named and size > _MOST * total and any(True for _ in child.children()))
        units += _units(child, f"{key}.", total) if taken_apart else [(key, child)]
    return units


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
    """Return the part of ``state`` that belongs to the lowest ``count`` blocks (see :func:`blocks`)."""
    kept = {key for block in blocks(backbone)[:count] for key in block}
    return {key: tensor for key, tensor in state.items() if key in kept}
