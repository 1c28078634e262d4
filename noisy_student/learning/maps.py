"""Activation maps: where in a film the features stand that speak for a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

COARSEST: Final = 4
"""Places a side from which a feature map shows where; the last one of 64 pixels has two, which says left or right."""


def has_feature_map(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Return whether ``network`` has features with places in films of ``shape`` (C, S, S), and so activation maps.

    A vision transformer has not: its last features are tokens (B, L, D).
    """
    device = next(network.parameters()).device
    with torch.no_grad(), _evaluating(network):
        return _forward(network, torch.zeros(1, *shape, device=device))[1] is not None


def activation_maps(network: nn.Module, images: Tensor, columns: Sequence[int]) -> npt.NDArray[np.float32] | None:
    """Return an activation map (B, S, S) in [0, 1] per film, or ``None`` where the network has no feature map.

    Grad-CAM (Selvaraju et al. 2017): the gradient of a logit with respect to the last feature map (the last of at least
    :data:`COARSEST` places a side, where there is one), averaged over places, weighs its channels; what is left of
    their sum above 0 is enlarged to the film's size and divided by its maximum. So a map shows what speaks for the
    label, whatever the answer, and 1 means "most in this film". It is 0 everywhere when nothing does.

    The network is put into evaluation mode and left in the mode it was in; no parameter gets a gradient.

    Args:
        network: images -> logits (B, K).
        images: (B, C, S, S), float in [0, 1], on the network's device.
        columns: (B,) which logit to explain, per film.
    """
    with torch.inference_mode(False), torch.enable_grad(), _evaluating(network):
        # The films ask for a gradient, so there is one even where every parameter is frozen.
        logits, features = _forward(network, images.clone().requires_grad_())  # (B, K), (B, D, h, w)
        if features is None:
            return None
        chosen = logits[torch.arange(len(images)), list(columns)].sum()  # films do not mix: one backward for all
        (gradient,) = torch.autograd.grad(chosen, features)
    if getattr(network, "map_layout", "NCHW") == "NHWC":
        features, gradient = features.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * features.detach()).sum(1, keepdim=True).relu()
    maps = functional.interpolate(maps, size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    peak = maps.amax(dim=(1, 2), keepdim=True)
    found: npt.NDArray[np.float32] = torch.where(peak > 0, maps / peak, 0.0).float().cpu().numpy()
    return found


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _forward(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the logits, and the last output with places if that is a feature map (B, D, h, w).

    Pooled features (B, D, 1, 1) have no places; tokens (B, L, D) have, but not as a map. The embedding of patches at
    the start of a transformer is a map, but not its last features, which is why tokens end the search. A network whose
    ``map_layout`` is "NHWC" (some of timm's) puts out (B, h, w, D).
    """
    last: list[Tensor | None] = [None]
    channels_last = getattr(network, "map_layout", "NCHW") == "NHWC"

    def look(_module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        places = output.shape[1:3] if channels_last else output.shape[2:]
        if output.ndim == 4 and places.numel() > 1:
            if last[0] is None or min(places) >= COARSEST or min(places) >= _side(last[0], channels_last):
                last[0] = output
        elif output.ndim == 3 and output.shape[1] > 1:
            last[0] = None

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        logits: Tensor = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, last[0]


def _side(features: Tensor, channels_last: bool) -> int:
    return min(features.shape[1:3] if channels_last else features.shape[2:])
