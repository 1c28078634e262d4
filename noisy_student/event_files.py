"""The training log as event files, so that TensorBoard draws the curves of ``metrics.jsonl`` while they grow.

They are written beside the log and can be made from it again; nothing reads them but TensorBoard. TensorBoard's own
writer would put the name of the machine into the name of each file, and write in a thread; its record format is used
directly instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from noisy_student.errors import UsageError
from noisy_student.runs import Run, storage_errors

INSTALL: Final = "pip install 'noisy_student[tensorboard]'"
FOLDER: Final = "tensorboard"
"""Folder of the event files in a run directory."""


def require() -> None:
    """Return nothing where event files can be written.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--tensorboard: TensorBoard is not installed ({error})", INSTALL) from error


class EventFiles:
    """Follows the training log of a run: below ``tensorboard/`` one folder per network, such as ``gen-1/fold-0``.

    What the log holds already is written at once, so that a finished run gets its curves too.
    """

    def __init__(self, run: Run) -> None:
        require()
        self.run = run
        self._files: dict[Path, Path] = {}
        for network in {_network(line): None for line in run.read_log()}:
            self.restart(*network)

    def restart(self, generation: int, fold: int | None = None, member: int | None = None) -> None:
        """Write the curves of a network anew from the log: what it says after some step has been dropped."""
        folder = self._folder(generation, fold, member)
        self._files.pop(folder, None)
        old = sorted(folder.glob("events.out.tfevents.*"))
        number = int(old[-1].suffix[1:]) + 1 if old else 0
        for path in old:
            path.unlink()
        lines = [line for line in self.run.read_log() if _network(line) == (generation, fold, member)]
        if not lines:
            return
        # A new name each time: a TensorBoard that is running goes on with the next file, and not in the old one.
        path = self._files[folder] = folder / f"events.out.tfevents.{number:05d}"
        with storage_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
        _append(path, [{"file_version": "brain.Event:2"}, *(_scalars(line["step"], line) for line in lines)])

    def add(self, line: Mapping[str, Any]) -> None:
        """Append the numbers of a ``line`` of the log, which has it already, to the curves of its network."""
        folder = self._folder(*_network(line))
        if (path := self._files.get(folder)) is not None:
            _append(path, [_scalars(line["step"], line)])
        else:
            self.restart(*_network(line))

    def _folder(self, generation: int, fold: int | None, member: int | None) -> Path:
        return self.run.path / FOLDER / self.run.network(generation, fold, member).relative_to(self.run.path)


def _network(line: Mapping[str, Any]) -> tuple[int, int | None, int | None]:
    """Return generation, fold and member of a line of the log."""
    return line["generation"], line.get("fold"), line.get("member")


def _scalars(step: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an event: the numbers among ``values``, by name."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    found = [
        Summary.Value(tag=key, simple_value=value)
        for key, value in values.items()
        if isinstance(value, int | float) and key not in ("generation", "fold", "member", "step")
    ]
    return {"step": step, "summary": Summary(value=found)}


def _append(path: Path, contents: Sequence[Mapping[str, Any]]) -> None:
    """Append events to a file, which is made where it is not there."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with storage_errors(path), path.open("ab") as stream:
        writer = RecordWriter(stream)
        for content in contents:
            writer.write(Event(wall_time=time.time(), **content).SerializeToString())
