"""What runs of one seed would make alike is made once: the self-supervised start and generation 0 of `ns iterate`.

A run takes over what another has finished, where everything that decides it is the same in both configurations: with
the same code and threads it would have made that to the last bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from noisy_student import generations
from noisy_student.config import Config
from noisy_student.errors import NoisyStudentError
from noisy_student.runs import MARKER, PRETRAINING, Run, file_hash, write_text


class Part(NamedTuple):
    """Stages that are taken over together."""

    name: str
    stages: Sequence[str]
    decided_by: Callable[[Config], list[Any]]
    """What the configuration must say alike, beside what it must for the parts before."""


TRAINED: Final = ("targets", "fit")
"""Stages up to the trained networks."""
PARTS: Final = (
    Part(
        "self-supervised start",
        ["pretrain"],
        lambda c: [c.seed, c.threads, c.precision, c.compile, c.data, c.split, c.pretrain, c.teacher.model],
    ),
    Part(
        "training of generation 0",
        TRAINED,
        lambda c: [c.folds, c.targets, c.teacher, c.networks(0), c.macro_labels()],  # what validation looks at
    ),
    Part(
        "measures of generation 0",
        [stage for stage in (*generations.TRAINING, *generations.MEASURING) if stage not in TRAINED],
        lambda c: [c.prediction, c.evaluation, c.promotion],
    ),
)


def take_over(run: Run, config: Config, folder: Path) -> list[str]:
    """Copy to a prepared ``run`` of ``config`` what another run in ``folder``, of the same code, has finished; return
    what that is.

    Nothing is taken where generation 0 of the run has begun already.
    """
    if run.generations():
        return []
    films = file_hash(run.manifest)
    others = [one for one in _runs(folder) if one[0].path != run.path and file_hash(one[0].manifest) == films]
    found = [(other, _alike(other, config, theirs)) for other, theirs in others]
    source, parts = max(found, key=lambda one: len(one[1]), default=(run, []))
    for stage in (stage for part in parts for stage in part.stages):
        _copy(source, run, stage)
    return [part.name for part in parts]


def _runs(folder: Path) -> Iterator[tuple[Run, Config]]:
    for marker in sorted(folder.glob(f"*/{MARKER}")):
        try:
            yield generations.existing_run(marker.parent)
        except NoisyStudentError:  # not prepared yet, or with settings that are no more
            continue


def _alike(other: Run, config: Config, theirs: Config) -> list[Part]:
    """Return the parts that ``other``, a run of ``theirs``, has finished and a run of ``config`` would make alike."""
    found: list[Part] = []
    for part in PARTS:
        if part.decided_by(config) != part.decided_by(theirs):
            break
        if part.stages == ["pretrain"] and config.pretrain.method == "none":
            continue
        if not all(other.is_complete(stage, 0) for stage in part.stages):
            break
        found.append(part)
    return found


def _copy(source: Run, target: Run, stage: str) -> None:
    """Copy what a stage of generation 0 has written and, last, the record that makes it count.

    So a stage that a killed process copied in part is done, or copied, again.
    """
    record = source.read_record(stage, 0)
    for name in record["writes"]:
        to = target.path / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path / name, to)
    if stage in ("pretrain", "fit"):
        last = PRETRAINING if stage == "pretrain" else 0
        log = [json.dumps(line) for line in source.read_log() if line["generation"] <= last]
        write_text(target.metrics, "".join(f"{line}\n" for line in log))
    reads, writes = ([target.path / name for name in record[key]] for key in ("reads", "writes"))
    target.record(stage, 0, reads, writes, record["info"])
