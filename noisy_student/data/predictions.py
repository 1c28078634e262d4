"""Predictions of one generation on one split: a row per film, a column of logits per label.

Where a generation is an ensemble, further columns ``member-M:LABEL`` hold what each member said. Beside the file of a
split lies, where several networks were asked, the file of their spread: how uncertain they are of each film.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.errors import DataError
from noisy_student.runs import atomic
from noisy_student.stats.consensus import Spread

Texts = npt.NDArray[np.object_]
Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits (N, K) of the films ``images`` (N,) for ``labels`` (K,); of an ensemble their mean over the members."""

    images: Texts
    labels: tuple[str, ...]
    logits: Floats32
    members: Floats32 | None = None
    """Logits (M, N, K) of each member; ``None`` where the generation is no ensemble."""

    @property
    def each(self) -> Floats32:
        """Logits (C, N, K) for each calibration of the generation: one per member, else one."""
        return self.logits[None] if self.members is None else self.members


def write(predictions: Predictions, path: Path) -> None:
    """Write the predictions as Parquet: ``image``, a float32 column per label, and one per member and label."""
    columns: dict[str, object] = {"image": predictions.images}
    columns |= {label: predictions.logits[:, k] for k, label in enumerate(predictions.labels)}
    for number, logits in enumerate([] if predictions.members is None else predictions.members):
        columns |= {f"member-{number}:{label}": logits[:, k] for k, label in enumerate(predictions.labels)}
    with atomic(path) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)


def read(path: Path, images: Texts) -> Predictions:
    """Return the predictions stored at ``path``, which must be of the films ``images`` in this order.

    Raises:
        DataError: the file is missing or is of other films.
    """
    if not path.is_file():
        raise DataError(f"{path}: is missing", "Run the generation's predictions first: ns iterate --resume.")
    frame = _frame(path, images)
    names = [str(name) for name in frame.columns if name != "image"]
    first = next((at for at, name in enumerate(names) if name.startswith("member-0:")), len(names))
    labels = tuple(names[:first])
    values = frame[names].to_numpy(dtype=np.float32)
    members = None
    if first < len(names):
        members = np.moveaxis(values[:, first:].reshape(len(frame), len(names) // len(labels) - 1, len(labels)), 1, 0)
    return Predictions(frame["image"].to_numpy(dtype=object), labels, values[:, :first], members)


def spread_path(path: Path) -> Path:
    """Return where the spread of the predictions at ``path`` lies: ``test-spread.parquet`` for ``test.parquet``."""
    return path.with_name(f"{path.stem}-spread.parquet")


def write_spread(images: Texts, labels: tuple[str, ...], spread: Spread, path: Path) -> None:
    """Write the spread as Parquet: ``image``, then ``sd:LABEL`` and ``mutual_information:LABEL`` for every label."""
    columns: dict[str, object] = {"image": images}
    for k, label in enumerate(labels):
        columns[f"sd:{label}"] = spread.sd[:, k].astype(np.float32)
        columns[f"mutual_information:{label}"] = spread.mutual_information[:, k].astype(np.float32)
    with atomic(path) as temporary:
        pd.DataFrame(columns).to_parquet(temporary, index=False)


def read_spread(path: Path, images: Texts, labels: tuple[str, ...]) -> Spread:
    """Return the spread stored at ``path``, which must be of the films ``images``; NaN (N, K) where there is no file.

    There is none where one network was asked, and none in runs of before spreads were stored.

    Raises:
        DataError: the file is of other films, or damaged.
    """
    if not path.is_file():
        nothing = np.full((len(images), len(labels)), np.nan)
        return Spread(nothing, nothing)
    frame = _frame(path, images)
    sd, information = (
        frame[[f"{kind}:{label}" for label in labels]].to_numpy(dtype=np.float64)
        for kind in ("sd", "mutual_information")
    )
    return Spread(sd, information)


def _frame(path: Path, images: Texts) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({error})", "Remove it and its stage record, then --resume.") from error
    if not np.array_equal(frame["image"].to_numpy(dtype=object), images):
        raise DataError(f"{path}: holds other films than the manifest", "Do the generation again: --overwrite.")
    return frame
