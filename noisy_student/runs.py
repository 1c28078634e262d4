"""A run directory: its paths, its lock, atomic writes, the records of finished stages and the training log.

Every file is written beside its place, flushed to disk and renamed, so a killed process leaves the old file or the
new one, never half of one. A stage is complete when its record exists; nothing else is a sign of completion.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from noisy_student.errors import NoisyStudentError, StorageError, UsageError

MARKER: Final = ".noisy-student-run"
"""Empty file that marks a directory as ours; ``--overwrite`` removes nothing without it."""


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failing write to ``path`` into a :class:`StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"{path}: the disk is full ({error.strerror})",
                "Free some space, then run the same command with --resume; finished stages are kept.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(f"{path}: cannot be written ({error.strerror})", "Choose another --output.") from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            hint = "Choose another folder (--output, data.cache_dir or $NS_CACHE)."
            raise StorageError(f"{path}: cannot be made ({error.strerror})", hint) from error
        raise


def fsync_file(path: Path) -> None:
    """Flush ``path`` (a file or a directory) to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it and rename it to ``path``, else remove it.

    Raises:
        StorageError: the disk is full or not writable.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            fsync_file(temporary)
            temporary.replace(path)
            fsync_file(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` to ``path`` atomically as JSON; NaN and infinities are refused (undefined is ``null``)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the parsed JSON of ``path``.

    Raises:
        NoisyStudentError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NoisyStudentError(
            f"{path}: is missing", "Run the stage that writes it, or ns iterate --resume."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NoisyStudentError(
            f"{path}: is not valid JSON ({error})", "Remove the file and its stage record."
        ) from error


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits."""
    found = path.stat()
    return _hash(path, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1024)
def _hash(path: Path, inode: int, size: int, mtime: int) -> str:  # noqa: ARG001 - they tell when to look again
    # Every stage names what it read: the manifest and the weights are asked for many times over.
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def text_hash(text: str) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_free_space(folder: Path, needed: int, what: str) -> None:
    """Raise :class:`StorageError` unless ``folder``'s file system has ``needed`` bytes free for ``what``."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(
            f"{folder}: {what} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            "Free some space or choose another folder.",
        )


class Follower(Protocol):
    """What is told of the training log of a run as it grows: :meth:`Run.log` and :meth:`Run.cut_log` call it."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Take note of a line that was appended."""

    def restart(self, generation: int, fold: int | None = None, member: int | None = None) -> None:
        """Take note that lines of a network may have been dropped."""


PRETRAINING: Final = -1
"""The self-supervised start where the index of a generation is asked for: it comes before generation 0."""
REFIT: Final = -1
"""The network that learns from every fold of a cross-fitted run, where the number of a fold is asked for."""


class Run:
    """One run directory. ``path`` is its root; a generation's files are below :meth:`generation`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.followers: list[Follower] = []

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def generation(self, index: int) -> Path:
        """Return the folder of generation ``index``; of the self-supervised start for :data:`PRETRAINING`."""
        return self.path / ("pretrain" if index == PRETRAINING else f"gen-{index}")

    def network(self, generation: int, fold: int | None = None, member: int | None = None) -> Path:
        """Return the folder in which a network of a generation is trained; ``fold`` or ``member`` where there are
        several, and :data:`REFIT` for the one that learns from all folds.
        """
        folder = self.generation(generation)
        if member is not None:
            return folder / f"member-{member}"
        if fold is None:
            return folder
        return folder / ("refit" if fold == REFIT else f"fold-{fold}")

    def trained(self, generation: int) -> list[Path]:
        """Return the model folders of all networks of a trained generation: one, or one per fold or member in order,
        and last the one that learnt from all folds.
        """
        folder = self.generation(generation)
        single = folder / "checkpoint" / "best"
        if single.is_dir():
            return [single]
        parts = [*folder.glob("fold-*"), *folder.glob("member-*")]
        parts = [*sorted(parts, key=lambda path: int(path.name.split("-")[1])), *folder.glob("refit")]
        return [part / "checkpoint" / "best" for part in parts]

    def networks(self, generation: int) -> list[Path]:
        """Return the model folders of a trained generation whose mean is what it says of films without labels.

        All that were trained, but where one learnt from all folds: then that one alone.
        """
        refit = self.network(generation, REFIT) / "checkpoint" / "best"
        return [refit] if refit.is_dir() else self.trained(generation)

    def generations(self) -> list[int]:
        """Return the indices of the generations that have a folder, in order."""
        found = [entry.name.removeprefix("gen-") for entry in self.path.glob("gen-*") if entry.is_dir()]
        return sorted(int(name) for name in found if name.isdigit())

    @property
    def manifest(self) -> Path:
        """The table of films that training may see."""
        return self.path / "manifest.parquet"

    @property
    def sealed(self) -> Path:
        """Labels of pool and test films; opened by evaluation alone."""
        return self.path / "sealed.parquet"

    @property
    def folds(self) -> Path:
        """Which fold of the label budget a film is in; there where the run is cross-fitted."""
        return self.path / "folds.parquet"

    @property
    def metrics(self) -> Path:
        """The training log, one JSON object per line."""
        return self.path / "metrics.jsonl"

    # -- life of the directory ---------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return whether the directory is there and bears our marker."""
        return (self.path / MARKER).is_file()

    def create(self) -> None:
        """Make the directory and mark it as ours.

        Raises:
            UsageError: there is something else at the path.
        """
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            raise UsageError(f"{self.path}: is not a directory", "Choose another --output.")
        if self.path.is_dir() and not self.exists() and any(self.path.iterdir()):
            raise UsageError(f"{self.path}: is not empty and was not made by noisy_student", "Choose another --output.")
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / MARKER, "")

    def remove(self) -> None:
        """Delete the run with all its files.

        Raises:
            UsageError: the path is a symbolic link or a directory that does not bear our marker.
        """
        if self.path.is_symlink():
            raise UsageError(f"{self.path}: is a symbolic link, which --overwrite does not follow", "Name its target.")
        if not self.exists():
            raise UsageError(
                f"{self.path}: was not made by noisy_student, so --overwrite leaves it alone",
                "Choose another --output, or remove the directory yourself.",
            )
        # Renamed first: a deletion that is killed half way must not leave half a run in its place.
        doomed = self.path.with_name(f".{self.path.name}.removed-{os.getpid()}")
        self.path.rename(doomed)
        shutil.rmtree(doomed)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the lock goes with the process, however it ends.

        Raises:
            UsageError: another process holds it.
        """
        path = self.path / ".lock"
        with storage_errors(path):
            stream = path.open("a+")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                stream.seek(0)
                owner = stream.read().strip() or "unknown"
                raise UsageError(
                    f"{self.path}: is in use by another process (pid {owner})",
                    "Wait for it to end, or choose another --output.",
                ) from error
            with storage_errors(path):
                stream.seek(0)
                stream.truncate()
                stream.write(str(os.getpid()))
                stream.flush()
            for stale in self.path.rglob(".*.tmp"):  # what a process left that was killed while it wrote
                stale.unlink(missing_ok=True)
            yield  # outside storage_errors: what goes wrong in the caller's work is not about this file

    # -- stages ------------------------------------------------------------------------------------------------

    def _record_path(self, stage: str, generation: int | None) -> Path:
        folder = self.path if generation is None else self.generation(generation)
        return folder / "stages" / f"{stage}.json"

    def is_complete(self, stage: str, generation: int | None = None) -> bool:
        """Return whether the record of ``stage`` exists."""
        return self._record_path(stage, generation).is_file()

    def record(
        self,
        stage: str,
        generation: int | None,
        reads: Iterable[Path],
        writes: Iterable[Path],
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the record that makes ``stage`` complete, with the hashes of what it read and wrote."""
        write_json(
            self._record_path(stage, generation),
            {
                "stage": stage,
                "generation": generation,
                "reads": self._hashes(reads),
                "writes": self._hashes(writes),
                "info": dict(info or {}),
            },
        )

    def read_record(self, stage: str, generation: int | None = None) -> dict[str, Any]:
        """Return the record of a complete stage."""
        record: dict[str, Any] = read_json(self._record_path(stage, generation))
        return record

    def verify(self, stage: str, generation: int | None = None) -> None:
        """Check that the files a complete stage read and wrote are still as they were.

        Raises:
            UsageError: a file is missing or has changed.
        """
        record = self.read_record(stage, generation)
        for name, digest in (record["reads"] | record["writes"]).items():
            path = self.path / name
            if not path.is_file() or file_hash(path) != digest:
                state = "is missing"
                if path.is_file():
                    state = f"has changed since it was {'written' if name in record['writes'] else 'read'}"
                where = self._record_path(stage, generation).relative_to(self.path)
                raise UsageError(
                    f"{path}: {state} (stage '{stage}')",
                    f"Restore the file, or remove {where} and the records after it to do the stage again.",
                )

    def _hashes(self, paths: Iterable[Path]) -> dict[str, str]:
        return {str(path.relative_to(self.path)): file_hash(path) for path in sorted(set(paths))}

    # -- the training log --------------------------------------------------------------------------------------

    def log(
        self, generation: int, step: int, fold: int | None = None, member: int | None = None, **values: Any
    ) -> None:
        """Append one line of ``values`` to the training log; ``fold`` or ``member`` where there are several."""
        which = {"fold": fold, "member": member}
        of = {"generation": generation} | {name: number for name, number in which.items() if number is not None}
        line = of | {"step": step} | values
        with storage_errors(self.metrics), self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
        for follower in self.followers:
            follower.add(line)

    def cut_log(self, generation: int, step: int, fold: int | None = None, member: int | None = None) -> None:
        """Drop what the log says of a network after ``step``: it will happen again, or never happened.

        A line that a killed process left half written goes as well.
        """
        if not self.metrics.exists():
            return
        kept = []
        for line, entry in self._log_lines():
            of = (entry["generation"], entry.get("fold"), entry.get("member"))
            if of != (generation, fold, member) or entry["step"] <= step:
                kept.append(f"{line}\n")
        write_text(self.metrics, "".join(kept))
        for follower in self.followers:
            follower.restart(generation, fold, member)

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines of the training log, without one that a killed process left half written."""
        return [entry for _, entry in self._log_lines()] if self.metrics.exists() else []

    def _log_lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                yield line, json.loads(line)
