"""Loaders of other libraries over the same JPEGs, for bench_train.py: torch's, timm's, torchxrayvision's data set.

All read, resize and augment in worker processes and hand over uint8 films, which become float on the device. They get
what torchvision v2 has of our noise. None of them keeps decoded films, so each decodes anew for every step. A library
that is not installed has no loader.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import read_film
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from noisy_student.config import NoiseConfig

Batches = Iterator[tuple[Tensor, Tensor]]
"""Films, float (B, 1, S, S) in [0, 1], and their numbers (B,); both on the device."""
PEERS = ("torch", "timm", "torchxrayvision")


@dataclass(frozen=True)
class Work:
    """What every loader has to do."""

    folder: Path
    names: list[str]
    size: int
    batch: int
    workers: int
    noise: NoiseConfig
    device: torch.device
    batches: int
    """Batches of one pass: as many as are taken, as workers would start anew with a second one."""


def augmentation(noise: NoiseConfig) -> v2.Compose:
    """Return ``noise`` as far as torchvision has it: affine and tone for every film, RandAugment for the rest."""
    dial = noise.strength / 10
    reach = {name: operation.range * dial for name, operation in noise.operations().items()}
    affine = v2.RandomAffine(
        reach["rotate"],
        translate=(reach["translate"],) * 2,
        scale=(1 / (1 + reach["scale"]), 1 + reach["scale"]),
        shear=[-reach["shear"], reach["shear"]] * 2,
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(noise.flip.probability),
            affine,
            v2.ColorJitter(brightness=reach["brightness"], contrast=reach["contrast"]),
            v2.RandAugment(noise.count, round(3 * noise.strength)),  # of its 31 magnitudes
        ]
    )


class Films(Dataset[tuple[Tensor, int]]):
    """Augmented films and their numbers, the same files over and over; timm sets ``transform`` itself."""

    def __init__(self, read: Callable[[int], Tensor], work: Work) -> None:
        self.read, self.count, self.length = read, len(work.names), work.batches * work.batch
        self.transform: Callable[[Tensor], Tensor] = augmentation(work.noise)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        number = index % self.count
        return self.transform(self.read(number)), number


def _plain(work: Work, number: int) -> Tensor:
    film: Tensor = v2.functional.pil_to_tensor(read_film(work.folder / work.names[number], "L", work.size))
    return film


def _of_xrv(dataset: Any, number: int) -> Tensor:
    film = dataset[number]["img"]  # float32 (1, S, S) in [-1024, 1024]
    return torch.from_numpy(((film + 1024) * (255 / 2048)).astype(np.uint8))


def _to_device(loader: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> Batches:
    for films, numbers in loader:
        yield films.to(device, non_blocking=True).float().div_(255), numbers.to(device, non_blocking=True)


def _torch_loader(films: Films, work: Work) -> Batches:
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(
        films, work.batch, shuffle=True, num_workers=work.workers, drop_last=True, pin_memory=work.device.type == "cuda"
    )
    return _to_device(loader, work.device)


def _timm_loader(films: Films, work: Work) -> Batches:
    from timm.data import create_loader

    kept = films.transform
    loader = create_loader(
        films, (1, work.size, work.size), work.batch, is_training=True, mean=(0.0,), std=(1.0,), device=work.device,
        num_workers=work.workers, pin_memory=work.device.type == "cuda", persistent_workers=False,
    )  # fmt: skip
    films.transform = kept
    return iter(loader)


def _xrv_dataset(work: Work) -> Any:
    """Return torchxrayvision's data set of the NIH, with a table that says that the films are of it."""
    from torchvision.transforms import Compose
    from torchxrayvision import datasets

    rows = {"Image Index": work.names, "Finding Labels": "No Finding", "View Position": "PA", "Patient Gender": "F"}
    table = pd.DataFrame(rows | {"Patient ID": range(len(work.names)), "Patient Age": 50})
    table.to_csv(work.folder / "films.csv", index=False)
    resized = Compose([datasets.XRayResizer(work.size)])
    return datasets.NIH_Dataset(str(work.folder), str(work.folder / "films.csv"), transform=resized)


def loaders(work: Work) -> dict[str, Callable[[], Batches]]:
    """Return functions that start the loaders of what is installed, by the library's name."""
    plain = partial(_plain, work)
    found: dict[str, Callable[[], Batches]] = {"torch": lambda: _torch_loader(Films(plain, work), work)}
    if importlib.util.find_spec("timm"):
        found["timm"] = lambda: _timm_loader(Films(plain, work), work)
    if importlib.util.find_spec("torchxrayvision"):
        dataset = _xrv_dataset(work)
        found["torchxrayvision"] = lambda: _torch_loader(Films(partial(_of_xrv, dataset), work), work)
    return found
