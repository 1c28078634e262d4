"""Inference: a network and films to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from noisy_student.errors import StoppedError, UsageError
from noisy_student.learning.augment import to_float
from noisy_student.learning.batches import Films

BATCH: Final = 256


def best_device(asked: str = "auto") -> torch.device:
    """Return the device named by ``asked`` ("auto", "cpu", "cuda", "cuda:1"); "auto" takes a GPU where there is one.

    Raises:
        UsageError: there is no such device.
    """
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise UsageError(f"--device {asked}: there is no such device", "Use auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {asked}: this machine has {torch.cuda.device_count()} GPUs that torch can use",
            "Use --device auto or cpu; ns doctor says what there is.",
        )
    return device


def clean_batches(numbers: npt.NDArray[np.int64], batch: int = BATCH) -> list[npt.NDArray[np.int64]]:
    """Return ``numbers`` cut into runs of at most ``batch``."""
    return [numbers[start : start + batch] for start in range(0, len(numbers), batch)]


def predict(
    network: nn.Module,
    films: Films,
    *,
    autocast: Callable[[], torch.autocast],
    title: str = "",
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> npt.NDArray[np.float32]:
    """Return the logits (N, K) of all films, in order, without noise.

    The network is put into evaluation mode and left in the mode it was in.

    Raises:
        StoppedError: ``stop()`` became true between two batches.
    """
    was_training = network.training
    network.eval()
    parts: list[Tensor] = []
    runs = clean_batches(np.arange(len(films)))
    with torch.inference_mode(), tqdm(total=len(films), desc=title, unit="film", disable=not progress) as bar:
        for numbers in runs:
            if stop():
                raise StoppedError(
                    f"stopped while {title or 'predicting'}", "Go on with the same command and --resume."
                )
            with autocast():
                logits = network(to_float(films.gather(numbers)))
            parts.append(logits.float())
            bar.update(len(numbers))
    network.train(was_training)
    if not parts:
        raise ValueError("no films to predict")
    return torch.cat(parts).cpu().numpy()
