"""What runs of one seed would make alike is made once: the self-supervised start and generation 0 of `ns iterate`.

A run takes over what another has finished, where everything that decides it is the same in both configurations: with
the same code and threads it would have made that to the last bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from noisy_student import generations
from noisy_student.config import Config
from noisy_student.errors import NoisyStudentError
from noisy_student.runs import MARKER, PRETRAINING, Run, write_text

FILMS: Final = ("seed", "threads", "precision", "compile", "data", "split", "pretrain")
"""Sections that decide the self-supervised start, with the teacher's model."""
FIRST: Final = (*FILMS, "folds", "targets", "teacher", "prediction", "evaluation", "promotion")
"""Sections that decide generation 0, with what ``generations`` says of it."""


def take_over(run: Run, config: Config, folder: Path) -> list[str]:
    """Copy to a prepared ``run`` of ``config`` what another run below ``folder`` has finished; return what that is.

    Nothing is taken where generation 0 of the run has begun already.
    """
    if run.generations():
        return []
    others = [(other, theirs) for other, theirs in _runs(folder) if other.path != run.path]
    whole = (*generations.training_stages(config, 0), *generations.MEASURING)
    for other, theirs in others:
        if _same(config, theirs, FIRST) and config.networks(0) == theirs.networks(0) and _done(other, whole):
            _copy(other, run, ["pretrain", "gen-0"], 0)
            return ["self-supervised start", "generation 0"] if config.pretrain.method != "none" else ["generation 0"]
    for other, theirs in others:
        alike = _same(config, theirs, FILMS) and config.teacher.model == theirs.teacher.model
        if config.pretrain.method != "none" and alike and _done(other, ["pretrain"]):
            _copy(other, run, ["pretrain", "gen-0/stages/pretrain.json"], PRETRAINING)
            return ["self-supervised start"]
    return []


def _runs(folder: Path) -> Iterator[tuple[Run, Config]]:
    for marker in sorted(folder.glob(f"*/{MARKER}")):
        try:
            yield generations.existing_run(marker.parent)
        except NoisyStudentError:  # not prepared yet, or with settings that are no more
            continue


def _same(one: Config, other: Config, sections: Sequence[str]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in sections)


def _done(run: Run, stages: Sequence[str]) -> bool:
    return all(run.is_complete(stage, 0) for stage in stages)


def _copy(source: Run, target: Run, names: Sequence[str], last: int) -> None:
    """Copy the log of trainings up to generation ``last``, and files and folders, what makes them count the last.

    A copy or a start that a killed process left half made is replaced.
    """
    log = [json.dumps(line) for line in source.read_log() if line["generation"] <= last]
    write_text(target.metrics, "".join(f"{line}\n" for line in log))
    for name in names:
        from_, to = source.path / name, target.path / name
        if from_.is_dir():
            half = to.with_name(f".{to.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(from_, half)
            shutil.rmtree(to, ignore_errors=True)
            half.rename(to)
        elif from_.is_file():
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(from_, to)
