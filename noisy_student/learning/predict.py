"""Inference: a network and films to logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from noisy_student.config import NoiseConfig
from noisy_student.errors import StoppedError, UsageError
from noisy_student.learning.augment import Augment, to_float
from noisy_student.learning.batches import Films
from noisy_student.learning.distributed import ALONE, Group

Ints = npt.NDArray[np.int64]
View = Callable[[Tensor, Ints], Tensor]
"""Takes clean films, uint8 (B, C, S, S), and their numbers (B,) to float films (B, C, S, S) in [0, 1]."""

BATCH: Final = 256
"""Films at a time on a GPU."""
_BATCH_CPU: Final = 32
"""On a processor, whose caches hold the layers of a few films."""
MOVED: Final = 0.03
"""Shift along either axis as a share of the side, and change of scale, of a light view: at most this much."""
_LIGHT: Final = 0x545441  # in place of a generation: every generation is shown the same views


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


def batch_size(device: torch.device) -> int:
    """Return how many films a network is shown at a time on ``device``."""
    return _BATCH_CPU if device.type == "cpu" else BATCH


def clean_batches(numbers: npt.NDArray[np.int64], batch: int) -> list[npt.NDArray[np.int64]]:
    """Return ``numbers`` cut into runs of at most ``batch``."""
    return [numbers[start : start + batch] for start in range(0, len(numbers), batch)]


def clean(films: Tensor, _: Ints) -> Tensor:
    """Return the films as they are."""
    return to_float(films)


def mirrored(films: Tensor, _: Ints) -> Tensor:
    """Return the films with left and right exchanged."""
    return to_float(films).flip(-1)


def views(tta: str | int, image_id: Ints, films: Films, *, seed: int) -> Sequence[View]:
    """Return the views of ``films`` that a network is shown: the films as they are first, then what ``tta`` adds.

    Light views depend on the seed, the film and the number of the view alone, so a film is shown alike in every
    company, to every network and in every generation. They are milder than any training noise (no change of tone, no
    filter), because a teacher is asked without noise.

    Args:
        tta: "none", "flip", or the number of views.
        image_id: (N,) stable identifiers of the films.
        films: the films.
        seed: seed of the run.
    """
    if isinstance(tta, str):
        return {"none": [clean], "flip": [clean, mirrored]}[tta]
    mild = NoiseConfig(strength=10).only("scale", "translate", range=MOVED)
    channels, size = films.pixels.shape[1:3]
    augment = Augment(mild, size=size, channels=channels, device=films.device, seed=seed, generation=_LIGHT)

    def light(number: int) -> View:
        return lambda clean, rows: augment(clean, np.full(len(rows), number, dtype=np.int64), image_id[rows])

    return [clean, *(light(number) for number in range(1, tta))]


def predict(
    network: nn.Module,
    films: Films,
    *,
    autocast: Callable[[], torch.autocast],
    views: Sequence[View] = (clean,),
    title: str = "",
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
) -> npt.NDArray[np.float32]:
    """Return the logits (N, K) of all films, in order, without noise; of several ``views`` their mean.

    The network is put into evaluation mode and left in the mode it was in. Where several processes share the films,
    every one of them calls this and predicts a run of them; the first one returns them all, the others none.

    Raises:
        PeerError: another of the processes is gone.
        StoppedError: ``stop()`` became true between two batches.
    """
    was_training = network.training
    network.eval()
    parts: list[Tensor] = []
    own = np.array_split(np.arange(len(films)), group.size)[group.rank]
    runs = clean_batches(own, batch_size(films.device))
    with torch.inference_mode(), tqdm(total=len(own), desc=title, unit="film", disable=not progress) as bar:
        for numbers in runs:
            if group.size == 1 and stop():  # several would have to agree; they stop before the next stage
                raise StoppedError(
                    f"stopped while {title or 'predicting'}", "Go on with the same command and --resume."
                )
            pixels, said = films.gather(numbers), []
            for view in views:
                images = view(pixels, numbers)
                with autocast():
                    said.append(network(images).float())
            parts.append(torch.stack(said).mean(dim=0) if len(said) > 1 else said[0])
            bar.update(len(numbers))
    network.train(was_training)
    if not len(films):
        raise ValueError("no films to predict")
    found = [part for part in group.collect(torch.cat(parts).cpu().numpy() if parts else None) if part is not None]
    return np.concatenate(found) if found else np.empty((0, 0), dtype=np.float32)
