"""A model as a folder that stands alone: weights, ``config.json``, a model card and, with the extra, an ONNX file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from noisy_student.config import Config
from noisy_student.data.streaming import decode_some
from noisy_student.deploy import card, familiarity, recipe
from noisy_student.deploy.model import WEIGHTS, Model, Pixels, acquainted, load
from noisy_student.errors import NoisyStudentError, UsageError
from noisy_student.runs import Run, fsync_file, storage_errors, write_json, write_text

ONNX: Final = "model.onnx"
AGREE: Final = 1e-4
"""Largest difference of probability between the ONNX file and PyTorch."""
CHECKED: Final = 32
"""Films on which each export is compared with PyTorch."""


@dataclass(frozen=True)
class Exported:
    """What was written: the folder and its files, of which generation, and how far ONNX is from PyTorch in probability
    (``None`` without ONNX). ``remarks`` say what is missing and how to get it.
    """

    folder: Path
    files: tuple[str, ...]
    generation: int
    difference: float | None
    remarks: tuple[str, ...]


def export(
    run_path: Path,
    output: Path,
    *,
    generation: int | None = None,
    calibration: Path | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Exported:
    """Write a generation of a run (its best one, or ``generation``) to the folder ``output`` and return what is in it.

    The folder is made beside its place and renamed, so it is there in full or not at all.

    Raises:
        UsageError: there is no such generation, or ``output`` is there and may not be replaced.
        NoisyStudentError: the ONNX file says something else than PyTorch.
        StorageError: something cannot be written.
    """
    _check_place(output, overwrite)
    run, config, number = recipe.opened(run_path, generation)
    model, unknown = acquainted(
        load(run_path, generation=number, calibration=calibration, device="cpu"),
        workers=workers,
        progress=progress,
        stop=stop,
    )
    from noisy_student.learning import checkpoint

    remarks = [] if unknown is None else [unknown]
    made = output.with_name(f".{output.name}.partial-{os.getpid()}")
    with storage_errors(output):
        made.mkdir(parents=True)
        try:
            checkpoint.save_together(made / WEIGHTS, model.networks)
            if model.familiar is not None:
                familiarity.write(model.familiar, model.recipe.weights, made / familiarity.NAME)
            difference, lacking = _write_onnx(model, run, config, made)
            remarks += [] if lacking is None else [lacking]
            write_text(made / card.NAME, card.card(run, config, model.recipe, onnx=difference is not None))
            write_json(made / recipe.CONFIG, model.recipe.to_json())
            _put(made, output)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    files = tuple(sorted(path.name for path in output.iterdir()))
    return Exported(output, files, number, difference, tuple(remarks))


def _check_place(output: Path, overwrite: bool) -> None:
    if not output.exists() and not output.is_symlink():
        return
    if output.is_dir() and not output.is_symlink() and not any(output.iterdir()):
        return
    if output.is_symlink() or not recipe.is_ours(output):
        raise UsageError(f"{output}: is there and was not made by ns export", "Choose another --output.")
    if not overwrite:
        raise UsageError(f"{output}: is there already", "Name another folder, or add --overwrite.")


def _put(made: Path, output: Path) -> None:
    if output.exists():
        # Renamed first: a deletion that is killed half way must not leave half a model in its place.
        doomed = output.with_name(f".{output.name}.removed-{os.getpid()}")
        output.rename(doomed)
        made.rename(output)
        shutil.rmtree(doomed)
    else:
        made.rename(output)
    fsync_file(output.parent)


def _write_onnx(model: Model, run: Run, config: Config, folder: Path) -> tuple[float | None, str | None]:
    """Write the ONNX file and return how far it is from PyTorch, or else why there is none."""
    from noisy_student.learning import onnx_graph

    known = model.recipe
    try:
        onnx_graph.write(
            folder / ONNX,
            model.networks,
            known.calibration,
            tta=known.tta,
            shape=(known.decode.channels, known.decode.size, known.decode.size),
            metadata={"labels": list(known.labels), "name": known.name, "generation": known.generation},
        )
    except UsageError as error:
        return None, f"no {ONNX} was written: {error.message}. {error.hint}"
    films = _films(model, run, config)
    exact = replace(model, recipe=replace(known, precision="fp32"))  # in bf16 it would differ from itself
    difference = float(np.abs(onnx_graph.predict(folder / ONNX, films) - exact.answers(films).probability).max())
    if not difference <= AGREE:
        raise NoisyStudentError(
            f"the ONNX file differs from PyTorch by {difference:.2g} in probability; {AGREE:g} is the most",
            "Another version of torch, onnxscript or onnxruntime may translate the network better.",
        )
    return difference, None


def _films(model: Model, run: Run, config: Config) -> Pixels:
    """Return films to compare on: training films, and noise where those are gone."""
    found = decode_some(familiarity.sample(run, config)[:CHECKED], model.recipe.decode).pixels
    if len(found):
        return found
    shape = (CHECKED, model.recipe.decode.channels, model.recipe.decode.size, model.recipe.decode.size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
