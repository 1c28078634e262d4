"""The blocks of a backbone, found by looking at its modules: what is frozen, thawed or learns slowly together."""

from __future__ import annotations

from typing import Final

from torch import nn

DOMINANT: Final = 0.8
"""A module with more than this share of the layers is a wrapper: its children are looked at in its place."""

Block = tuple[str, ...]
"""Names of the parameters and buffers of a block, as in the backbone's ``state_dict``."""


def blocks(backbone: nn.Module) -> tuple[Block, ...]:
    """Return the blocks of ``backbone`` from the films to the features; every name is in exactly one of them.

    A block is a child of the root with parameters: a stage of a ResNet, DenseNet, EfficientNet, ConvNeXt or Swin, a
    block of a MobileNet, a module of Inception. A child that holds more than :data:`DOMINANT` of all layers
    (``features``, the encoder of a vision transformer) is a wrapper and gives way to its own children. A lone
    normalisation belongs to the block before it; tables and tokens (position embeddings) belong to the first block.
    The order is that in which the modules were registered, which for torchvision's families is that of their work.
    """
    units = [("", backbone)]
    whole = _layers(backbone)
    while (found := _wrapper(units, whole)) is not None:
        name, module = units[found]
        below = [(f"{name}.{key}".lstrip("."), child) for key, child in module.named_children()]
        units[found : found + 1] = [unit for unit in below if _layers(unit[1])]
    groups: list[list[str]] = []
    for name, module in units:
        if not groups or not _is_norm(module):
            groups.append([])
        groups[-1] += [key for key in backbone.state_dict() if key == name or key.startswith(f"{name}.")]
    placed = {key for group in groups for key in group}
    rest = [key for key in backbone.state_dict() if key not in placed]
    if rest:
        groups[:1] = [rest + (groups[0] if groups else [])]
    return tuple(tuple(group) for group in groups)


def _layers(module: nn.Module) -> int:
    """Return how many modules below ``module``, itself included, have parameters of their own."""
    return sum(any(True for _ in part.parameters(recurse=False)) for part in module.modules())


def _wrapper(units: list[tuple[str, nn.Module]], whole: int) -> int | None:
    """Return the index of the unit that is only a wrapper, ``None`` where there is none left."""
    for index, (_, module) in enumerate(units):
        if _layers(module) > DOMINANT * whole and any(_layers(child) for child in module.children()):
            return index
    return None


def _is_norm(module: nn.Module) -> bool:
    """Return whether ``module`` scales and shifts and does nothing else: it has no filters and no matrices."""
    return all(parameter.ndim == 1 for parameter in module.parameters())
