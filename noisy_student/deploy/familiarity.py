"""What the training films look like, kept in a few numbers, so that films of another kind are noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

from noisy_student.config import Config
from noisy_student.data import manifest
from noisy_student.data.streaming import Decoded, Named
from noisy_student.errors import StorageError
from noisy_student.preparation import data_root
from noisy_student.randomness import generator
from noisy_student.runs import Run, atomic
from noisy_student.stats.familiarity import Familiar, familiar

NAME: Final = "familiar.safetensors"
SAMPLE: Final = 1024
"""Training films that are looked at: enough for the 99.5th percentile of a third of them to mean something."""
_STREAM: Final = 0x46414D  # separates the draw of the sample from other random numbers
_PERCENTILES: Final = (5, 25, 50, 75, 95)

Ask = Callable[[npt.NDArray[np.uint8]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What is usual in the grey values of a film, and in the features that the first network sees in it."""

    intensity: Familiar
    features: Familiar

    def odd(
        self, pixels: npt.NDArray[np.uint8], features: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which (N,) of ``pixels`` (N, C, S, S) and of ``features`` (N, D) are far from training's."""
        return self.intensity.far(intensities(pixels)), self.features.far(features)


def intensities(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return of each film (N, C, S, S) mean, standard deviation, five percentiles, and the shares of black and white
    pixels, (N, 9), grey values in [0, 1].
    """
    grey = (pixels.mean(axis=1) if pixels.shape[1] > 1 else pixels[:, 0]).reshape(len(pixels), -1) / 255
    quantiles = np.percentile(grey, _PERCENTILES, axis=1)
    ends = (grey <= 2 / 255).mean(axis=1), (grey >= 253 / 255).mean(axis=1)
    found: npt.NDArray[np.float64] = np.stack([grey.mean(axis=1), grey.std(axis=1), *quantiles, *ends], axis=1)
    return found


def sample(run: Run, config: Config) -> list[Named]:
    """Return up to 1024 films of the train split, drawn blindly, in random order."""
    films = manifest.select(manifest.read(run.manifest), split="train").frame["image"]
    order = generator(_STREAM, config.seed).permutation(len(films))[:SAMPLE]
    root = data_root(config.data)
    return [(image, f"{root}/{image}") for image in films.iloc[order]]


def learn(parts: Iterator[Decoded], ask: Ask) -> Familiarity | None:
    """Return what is usual in decoded films; ``None`` where fewer than 20 can be read."""
    grey, seen = [], []
    for part in parts:
        if len(part.pixels):
            grey.append(intensities(part.pixels))
            seen.append(ask(part.pixels)[1])
    found = [familiar(np.concatenate(values)) if values else None for values in (grey, seen)]
    return Familiarity(found[0], found[1]) if found[0] is not None and found[1] is not None else None


def place(run: Run, generation: int) -> Path:
    """Return where a run keeps what its generation finds usual."""
    return run.path / "familiar" / f"gen-{generation}.safetensors"


def write(known: Familiarity, weights: str, path: Path) -> None:
    """Write ``known`` to ``path``; ``weights`` names the weights and decoding that it belongs to."""
    tensors: dict[str, Any] = {}
    for name, part in (("intensity", known.intensity), ("features", known.features)):
        tensors[f"{name}.mean"] = part.mean.astype(np.float64)
        tensors[f"{name}.whitening"] = np.ascontiguousarray(part.whitening, dtype=np.float32)
        tensors[f"{name}.limit"] = np.array([part.limit])
    with atomic(path) as temporary:
        temporary.write_bytes(serialise(tensors, {"weights": weights}))


def keep(known: Familiarity, weights: str, path: Path) -> None:
    """Write ``known``, unless the run cannot be written to: then it is learnt again next time."""
    try:
        write(known, weights, path)
    except StorageError:
        return


def read(path: Path, weights: str) -> Familiarity | None:
    """Return what :func:`write` wrote for these ``weights``; ``None`` where it is not there or of other weights."""
    try:
        with safe_open(path, "numpy") as stored:
            if (stored.metadata() or {}).get("weights") != weights:
                return None
            parts = [
                Familiar(
                    stored.get_tensor(f"{name}.mean"),
                    stored.get_tensor(f"{name}.whitening").astype(np.float64),
                    float(stored.get_tensor(f"{name}.limit")[0]),
                )
                for name in ("intensity", "features")
            ]
    except (FileNotFoundError, SafetensorError):
        return None
    return Familiarity(*parts)
