"""Trained networks asked of films that are in memory: what each says, and what the first one sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisy_student.learning import predict
from noisy_student.learning.augment import to_float
from noisy_student.learning.batches import Films
from noisy_student.learning.maps import activation_maps
from noisy_student.learning.models import Network

Floats32 = npt.NDArray[np.float32]


def ask(
    networks: Sequence[Network],
    pixels: npt.NDArray[np.uint8],
    image_id: npt.NDArray[np.int64],
    *,
    tta: str | int,
    seed: int,
    device: torch.device,
    autocast: Callable[[], torch.autocast],
) -> tuple[Floats32, Floats32]:
    """Return logits (M, N, K) of M ``networks`` in evaluation mode on ``pixels`` (N, C, S, S), the mean over the views
    of ``tta``, and the features (N, D) of the first network on the films as they are.

    ``image_id`` (N,) and ``seed`` decide light views; see :func:`predict.views`.
    """
    numbers = np.arange(len(pixels))
    views = predict.views(tta, image_id, Films(pixels, numbers, device, resident=False), seed=seed)
    films = torch.from_numpy(pixels).to(device, non_blocking=True)
    said: list[Tensor] = []
    features: list[Tensor] = []
    seen: list[Tensor] = []
    handle = networks[0].dropout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        with torch.inference_mode():
            for rows in predict.clean_batches(numbers, predict.batch_size(device)):
                part = films[int(rows[0]) : int(rows[-1]) + 1]
                shown = (view(part, rows) for view in views)
                logits = [torch.stack([_logits(network, images, autocast) for network in networks]) for images in shown]
                said.append(torch.stack(logits).mean(dim=0) if len(logits) > 1 else logits[0])
                features.append(seen[0].float().flatten(1))
                seen.clear()
    finally:
        handle.remove()
    return torch.cat(said, dim=1).cpu().numpy(), torch.cat(features).cpu().numpy()


def _logits(network: Network, images: Tensor, autocast: Callable[[], torch.autocast]) -> Tensor:
    with autocast():
        logits: Tensor = network(images).float()
    return logits


def mean_map(networks: Sequence[Network], pixels: npt.NDArray[np.uint8], column: int) -> Floats32 | None:
    """Return the activation map (S, S) in [0, 1] of one film ``pixels`` (C, S, S) for the logit ``column``: the mean
    over those of ``networks`` that have one, ``None`` where none has.
    """
    device = networks[0].mean.device
    images = to_float(torch.from_numpy(pixels[None]).to(device))
    found = [activation_maps(network, images, [column]) for network in networks]
    maps = [values[0] for values in found if values is not None]
    return np.mean(maps, axis=0, dtype=np.float32) if maps else None
