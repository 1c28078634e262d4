"""Predictions of one generation on one split: a row per film, a column of logits per label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.errors import DataError
from noisy_student.runs import atomic


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits (N, K) of the films ``images`` (N,) for ``labels`` (K,)."""

    images: npt.NDArray[np.object_]
    labels: tuple[str, ...]
    logits: npt.NDArray[np.float32]


def write(predictions: Predictions, path: Path) -> None:
    """Write the predictions as Parquet: ``image`` and one float32 column per label."""
    columns: dict[str, object] = {"image": predictions.images}
    columns |= {label: predictions.logits[:, k] for k, label in enumerate(predictions.labels)}
    with atomic(path) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)


def read(path: Path, images: npt.NDArray[np.object_]) -> Predictions:
    """Return the predictions stored at ``path``, which must be of the films ``images`` in this order.

    Raises:
        DataError: the file is missing or is of other films.
    """
    if not path.is_file():
        raise DataError(f"{path}: is missing", "Run the generation's predictions first: ns iterate --resume.")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error})", "Remove it and its stage record, then --resume.") from error
    labels = tuple(name for name in frame.columns if name != "image")
    stored = frame["image"].to_numpy(dtype=object)
    if not np.array_equal(stored, images):
        raise DataError(f"{path}: holds other films than the manifest", "Do the generation again: --overwrite.")
    return Predictions(stored, labels, frame[list(labels)].to_numpy(dtype=np.float32))
