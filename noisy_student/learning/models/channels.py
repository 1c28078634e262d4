"""Filters of colour films for grey ones, and the other way round, so that a grey film is answered alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from noisy_student.learning.models.backbones import key_of
from noisy_student.learning.models.network import Normalisation


def is_standardised(convolution: nn.Conv2d | None) -> bool:
    """Return whether the convolution standardises its filters over all channels before it uses them (timm's)."""
    return any("StdConv" in kind.__name__ for kind in type(convolution).__mro__)


def recoloured(
    backbone: nn.Module, first: nn.Conv2d, state: Mapping[str, Tensor], channels: int, normalisation: Normalisation
) -> dict[str, Tensor]:
    """Return what changes in ``state`` where the filters (O, C, h, w) of ``first`` are made for films of ``channels``.

    A grey film x is (x - mean_c) / deviation_c in colour c, and (x - mean) / deviation in one channel, with the means
    over the colours (:meth:`Network.normalise`). So a colour counts deviation / deviation_c times. What the different
    means leave is a constant for each filter: it goes into the bias, or out of the running mean of the batch norm that
    follows. Exact but for the padded edge, where fewer taps count; with neither bias nor batch norm it is left out.

    Args:
        backbone: of the network to be.
        first: its convolution that sees the film.
        state: of the weights, by the keys of ``backbone``.
        channels: 1 or 3.
        normalisation: that of the weights.
    """
    key = key_of(backbone, first)
    filters = state[f"{key}.weight"]
    mean, deviation = (
        torch.tensor(values, dtype=filters.dtype).view(1, 3, 1, 1)
        for values in (normalisation.mean, normalisation.deviation)
    )
    if filters.shape[1] == 1 and channels == 3:
        return {f"{key}.weight": filters.expand(-1, channels, -1, -1) / channels * (deviation / deviation.mean())}
    if filters.shape[1] != 3 or channels != 1:
        return {}
    changed = {f"{key}.weight": (filters * (deviation.mean() / deviation)).sum(1, keepdim=True)}
    constant = (filters * ((mean.mean() - mean) / deviation)).sum((1, 2, 3))
    running = f"{_norm_after(backbone, first)}.running_mean"
    if f"{key}.bias" in state:
        changed[f"{key}.bias"] = state[f"{key}.bias"] + constant
    elif running in state:
        changed[running] = state[running] - constant
    return changed


def _norm_after(backbone: nn.Module, first: nn.Conv2d) -> str | None:
    """Return the key of the batch norm that comes right after ``first``, ``None`` where something else does."""
    listed = list(backbone.named_modules())
    place = next(number for number, (_, module) in enumerate(listed) if module is first)
    if place + 1 == len(listed):
        return None
    key: str = listed[place + 1][0]
    after = listed[place + 1][1]
    return key if isinstance(after, nn.BatchNorm2d) and after.num_features == first.out_channels else None
