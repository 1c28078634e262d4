"""A trained model in memory: films in, calibrated probabilities, their spread and what is unusual out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from noisy_student.data.streaming import decode_some, stream
from noisy_student.deploy import familiarity, recipe
from noisy_student.deploy.familiarity import Familiarity
from noisy_student.deploy.recipe import Recipe
from noisy_student.errors import DataError, UsageError
from noisy_student.preparation import data_root
from noisy_student.stats import consensus
from noisy_student.stats.metrics import Floats
from noisy_student.stats.operating import KINDS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from noisy_student.learning.models import Network

Pixels = npt.NDArray[np.uint8]
Films = str | PathLike[str] | Sequence[str | PathLike[str]] | Pixels
"""One path, several, or pixels: uint8 (N, C, S, S), or (N, S, S) of grey films."""

BATCH: Final = 256
"""Films that are asked at once."""
WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of N films: calibrated ``probability`` (N, K), and ``sd`` (N, K), the standard deviation of its
    networks' probabilities, NaN where it has one network.

    ``odd_intensity`` and ``odd_features`` (N,) are true where the grey values of a film, or what the first network sees
    in it, are far from the training films'; ``None`` where nothing is stored of those.
    """

    probability: Floats
    sd: Floats
    odd_intensity: npt.NDArray[np.bool_] | None
    odd_features: npt.NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class Model:
    """A trained and calibrated model: one network or several, on a device."""

    recipe: Recipe
    networks: tuple[Network, ...]
    device: torch.device
    path: Path
    familiar: Familiarity | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The K labels, in the order of all outputs."""
        return self.recipe.labels

    def predict(self, films: Films) -> Floats:
        """Return calibrated probabilities (N, K) in [0, 1] of ``films``, in order.

        Args:
            films: paths of film files (JPEG, PNG, TIFF, DICOM ...), or their pixels: uint8 (N, C, S, S), or (N, S, S)
                where the model takes grey films, S and C being ``recipe.decode.size`` and ``.channels``.

        Raises:
            DataError: a film cannot be decoded, or the pixels are of another shape or type.
        """
        return np.concatenate([self._probability(self.ask(pixels)[0]) for pixels in self._batches(films)])

    def decisions(self, probability: npt.ArrayLike, kind: str = "youden") -> Floats:
        """Return 1 where ``probability`` (N, K) is at or above the label's threshold, 0 where it is below, NaN where
        the label has no threshold; ``kind`` is "youden", "sensitivity" or "specificity".

        Raises:
            UsageError: there is no such kind.
        """
        if kind not in KINDS:
            raise UsageError(f"'{kind}' is no operating point", f"Choose among {', '.join(KINDS)}.")
        values = np.asarray(probability, dtype=np.float64)
        points = [self.recipe.points[label][kind].value for label in self.labels]
        limits = np.array([np.nan if value is None else value for value in points])
        decided: Floats = np.where(np.isnan(limits) | np.isnan(values), np.nan, values >= limits)
        return decided

    def answers(self, pixels: Pixels) -> Answers:
        """Return all that is said of decoded films ``pixels``, uint8 (N, C, S, S), asked as one batch."""
        logits, features = self.ask(pixels)
        each = self.recipe.calibration.each(logits)
        odd = (None, None) if self.familiar is None else self.familiar.odd(pixels, features)
        return Answers(self._probability(logits), consensus.spread(each).sd, *odd)

    def _probability(self, logits: npt.NDArray[np.float32]) -> Floats:
        # Networks of one recipe have one calibration: that of the mean of their logits.
        several = len(self.recipe.calibration.fitted) > 1
        said = logits if several else logits.mean(axis=0, dtype=np.float32, keepdims=True)
        return self.recipe.calibration.image(said)

    def ask(self, pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the logits (M, N, K) of every network, and the features (N, D) of the first."""
        from noisy_student.learning import asking, course

        return asking.ask(
            self.networks,
            pixels,
            film_ids(pixels) if isinstance(self.recipe.tta, int) else np.arange(len(pixels)),  # light views alone ask
            tta=self.recipe.tta,
            seed=self.recipe.seed,
            device=self.device,
            autocast=course.autocaster(self.device, self.recipe.precision),
        )

    def activation_map(self, pixels: Pixels, label: str) -> npt.NDArray[np.float32] | None:
        """Return the activation map (S, S) in [0, 1] of one film ``pixels`` (C, S, S) for ``label``; ``None`` where no
        network has one.
        """
        from noisy_student.learning import asking

        return asking.mean_map(self.networks, pixels, self.labels.index(label))

    def xrv(self) -> nn.Module:
        """Return the model as torchxrayvision's are: ``pathologies``, and ``forward`` of films in [-1024, 1024]; see
        :class:`noisy_student.learning.deployed.XrvAdapter`.

        Raises:
            UsageError: the model is asked with light views (``prediction.tta: n``).
        """
        from noisy_student.learning import deployed

        calibrated = deployed.Calibrated(self.networks, self.recipe.calibration, self.recipe.tta).to(self.device)
        decode = self.recipe.decode
        return deployed.XrvAdapter(calibrated, self.labels, decode.channels, decode.size)

    def _batches(self, films: Films) -> Iterator[Pixels]:
        decode = self.recipe.decode
        if isinstance(films, np.ndarray):
            given = films[:, None] if films.ndim == 3 and decode.channels == 1 else films
            wanted = (decode.channels, decode.size, decode.size)
            if given.dtype != np.uint8 or given.shape[1:] != wanted or not len(given):
                raise DataError(
                    f"films are {films.dtype} {films.shape}; the model takes uint8 (N, {', '.join(map(str, wanted))})",
                    "Give paths of files, which are decoded as in training, or decode with noisy_student.data.decode.",
                )
            yield from (given[start : start + BATCH] for start in range(0, len(given), BATCH))
            return
        paths = [films] if isinstance(films, str | PathLike) else films
        if not len(paths):
            raise DataError("there are no films to predict", "Name one or more.")
        for start in range(0, len(paths), BATCH):
            names = [fspath(path) for path in paths[start : start + BATCH]]
            part = decode_some([(name, name) for name in names], decode)
            for place, reason in part.reasons.items():
                raise DataError(
                    f"{names[place]}: {reason}", "Leave the film out; ns predict skips and lists such films."
                )
            yield part.pixels


def film_ids(pixels: Pixels) -> npt.NDArray[np.int64]:
    """Return an identifier (N,) of each film by its pixels: light views are the same wherever the file lies."""
    digests = [hashlib.blake2b(film.tobytes(), digest_size=8).digest() for film in pixels]
    return np.array([int.from_bytes(digest, "little") >> 1 for digest in digests], dtype=np.int64)


def load(
    path: str | PathLike[str],
    *,
    generation: int | None = None,
    calibration: str | PathLike[str] | None = None,
    device: str = "auto",
) -> Model:
    """Return the model of a run (its best generation, or ``generation``) or of a folder that ``ns export`` wrote.

    Args:
        path: a run directory, or an exported folder.
        generation: of a run, which one.
        calibration: of a run, a file of ``ns recalibrate`` in place of its own calibration.
        device: "auto" takes a GPU where there is one; "cpu", "cuda", "cuda:1".

    Raises:
        UsageError: there is no model, no such generation or device, or a choice is named that a folder does not leave.
        WeightsError: the weights are missing or damaged.
    """
    import torch

    from noisy_student.learning import checkpoint, machine, predict

    folder, chosen = Path(path), predict.best_device(device)
    if recipe.is_exported(folder):
        if generation is not None or calibration is not None:
            raise UsageError(
                f"{folder}: is an exported model, which has one generation and one calibration",
                "Name the run instead, or export it with --generation and --calibration.",
            )
        known = recipe.of_folder(folder)
        networks = checkpoint.load_together(folder / WEIGHTS, known.networks)
        seen = familiarity.read(folder / familiarity.NAME, known.weights)
    else:
        run, config, number = recipe.opened(folder, generation)
        known = recipe.of_run(run, config, number, None if calibration is None else Path(calibration))
        networks = [checkpoint.load(place, config.data.labels)[0] for place in run.networks(number)]
        seen = familiarity.read(familiarity.place(run, number), known.weights)
    machine.prepare(known.threads)
    ready = (network.to(chosen).to(memory_format=torch.channels_last) for network in networks)
    return Model(known, tuple(ready), chosen, folder, seen)


def acquainted(
    model: Model, *, workers: int = 1, progress: bool = False, stop: Callable[[], bool] = lambda: False
) -> tuple[Model, str | None]:
    """Return the model with knowledge of its training films, or else why it has none.

    What is usual is learnt from a thousand training films the first time, and kept in the run.

    Raises:
        StoppedError: ``stop()`` became true.
    """
    if model.familiar is not None:
        return model, None
    if recipe.is_exported(model.path):
        return model, "films are not compared with the training films: nothing of those is in the folder"
    run, config, number = recipe.opened(model.path, model.recipe.generation)
    films = tqdm(
        familiarity.sample(run, config),
        unit="film",
        desc="looking at training films",
        disable=not progress,
        leave=False,
    )
    parts = stream(films, model.recipe.decode, workers=workers, batch=BATCH, stop=stop)
    # What is compared are the features of the first network on the films as they are.
    first = replace(model, networks=model.networks[:1], recipe=replace(model.recipe, tta="none"))
    known = familiarity.learn(parts, first.ask)
    if known is None:
        root = data_root(config.data)
        return model, f"films are not compared with the training films: too few of those can be read in {root}"
    familiarity.keep(known, model.recipe.weights, familiarity.place(run, number))
    return replace(model, familiar=known), None
