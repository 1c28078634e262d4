"""The targets table: what a generation is trained on, one target and one weight per film and label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.runs import atomic

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Targets:
    """Films with ``target`` in [0, 1] and ``weight`` >= 0, both (N, K); ``pseudo`` (N,) marks a teacher's targets.

    A weight of 0 means that the target takes no part in training.
    """

    images: npt.NDArray[np.object_]
    labels: tuple[str, ...]
    target: Floats
    weight: Floats
    pseudo: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.labels))
        assert self.target.shape == shape == self.weight.shape, (self.target.shape, self.weight.shape, shape)
        assert self.pseudo.shape == shape[:1]
        assert bool(((self.target >= 0) & (self.target <= 1)).all()), "targets leave [0, 1]"
        assert bool((np.isfinite(self.weight) & (self.weight >= 0)).all()), "weights are negative or not finite"

    def rows(self, keep: npt.NDArray[np.bool_]) -> Targets:
        """Return the table of the films for which ``keep`` (N,) is true."""
        return Targets(self.images[keep], self.labels, self.target[keep], self.weight[keep], self.pseudo[keep])


def concatenate(first: Targets, second: Targets) -> Targets:
    """Return the films of ``first`` followed by those of ``second`` (same labels)."""
    assert first.labels == second.labels
    return Targets(
        np.concatenate([first.images, second.images]),
        first.labels,
        np.concatenate([first.target, second.target]),
        np.concatenate([first.weight, second.weight]),
        np.concatenate([first.pseudo, second.pseudo]),
    )


def write(targets: Targets, path: Path) -> None:
    """Write the table as Parquet: image, pseudo, then ``target:NAME`` and ``weight:NAME`` for every label."""
    columns: dict[str, object] = {"image": targets.images, "pseudo": targets.pseudo}
    for k, label in enumerate(targets.labels):
        columns[f"target:{label}"] = targets.target[:, k]
        columns[f"weight:{label}"] = targets.weight[:, k]
    with atomic(path) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)


def read(path: Path) -> Targets:
    """Return the targets that :func:`write` stored."""
    frame = pd.read_parquet(path)
    labels = tuple(name.removeprefix("target:") for name in frame.columns if name.startswith("target:"))
    return Targets(
        frame["image"].to_numpy(dtype=object),
        labels,
        frame[[f"target:{label}" for label in labels]].to_numpy(dtype=np.float32, copy=True),
        frame[[f"weight:{label}" for label in labels]].to_numpy(dtype=np.float32, copy=True),
        frame["pseudo"].to_numpy(dtype=bool, copy=True),
    )
