"""What the stages of a run share, and what each of them tells of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from noisy_student.config import Config
from noisy_student.data.cache import Cache
from noisy_student.runs import Run

if TYPE_CHECKING:
    import torch

    from noisy_student.learning.distributed import Group


@dataclass(frozen=True)
class Workplace:
    """What the stages of a run share: where, what, with which pixels, on which device, and when to stop."""

    run: Run
    config: Config
    decoded: Cache | None
    """The pixels; ``None`` where only files of the run are read, as for a report."""
    device: str = "auto"
    progress: bool = False
    stop: Callable[[], bool] = lambda: False
    group: Group | None = None
    """The processes that share the work, where there are several."""

    @property
    def cache(self) -> Cache:
        """The pixels of the run's films."""
        assert self.decoded is not None, "this stage needs the films"
        return self.decoded


@dataclass(frozen=True)
class Traffic:
    """Files that a stage read and wrote, for its record."""

    reads: Sequence[Path]
    writes: Sequence[Path]


Stage = Callable[[Workplace, int], Traffic]
"""A stage takes the workplace and the index of the generation."""


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model folder."""
    return [folder / "model.safetensors", folder / "meta.json"]


def device_of(work: Workplace) -> torch.device:
    """Return the device to work on, after preparing the processor for it."""
    from noisy_student.learning import machine, predict

    machine.prepare(work.config.threads)
    return predict.best_device(work.device)


def group_of(work: Workplace) -> Group:
    """Return the processes that share the work: this one alone where it has no others."""
    from noisy_student.learning import distributed

    return work.group or distributed.ALONE
