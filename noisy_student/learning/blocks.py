"""The blocks of a backbone, found by looking at its modules: what is kept, frozen, thawed or learns slowly together."""

from __future__ import annotations

from typing import Final

from torch import nn

Block = tuple[str, ...]
"""Names of the parameters and buffers of a block, as in the backbone's ``state_dict``."""

_CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_MOST: Final = 0.9


def blocks(backbone: nn.Module) -> tuple[Block, ...]:
    """Return the blocks of ``backbone`` from the film to the features, each as the keys of its state;
    every key is in exactly one.

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
    rest = [key for key in backbone.state_dict() if key not in listed]
    if rest:
        found[:1] = [rest + (found[0] if found else [])]
    return tuple(tuple(block) for block in found)


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
