"""Films decoded once into one uint8 memmap, under a key made from what the pixels depend on.

``<folder>/<key>/`` holds ``pixels.u8`` (N, C, H, W); ``status.u8`` (N,) with 0 to do, 1 good, 2 bad; ``stamps.i64``
(N, 3) with the source's size, its mtime in ns and the pixels' Adler-32; and, at the end of a build, ``index.parquet``,
``quarantine.csv`` and ``cache.json``. A cache without ``cache.json`` is an interrupted build: the next one checks the
good rows against their checksum (a power cut can lose pages that were written) and goes on with the others.

Worker processes import this module, so it keeps pandas and pyarrow out of its head.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import logging
import os
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import PIL
from tqdm import tqdm

from noisy_student import runs
from noisy_student.data.decode import DELAY, DecodeSettings, decode, source_stamps
from noisy_student.data.decoding import GOOD, WAITING, Job, decode_all
from noisy_student.errors import DataError

FORMAT: Final = 3
"""Version of the layout and of the decoding; part of the key."""
_COMPARED: Final = 16
"""Films that are compared where a cache was made from another folder."""
FLUSH_EVERY: Final = 1.0
"""Seconds after which decoded pixels are sent to disk."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Cache:
    """The decoded films of one list of images.

    Attributes:
        pixels: read-only memmap (N, C, H, W), uint8; zeros where a film is in quarantine.
        images: the N paths below the root.
        ok: (N,) true where the film could be decoded.
        key: content address of the cache.
        folder: folder of its files.
        quarantine: path and reason of every film that could not be decoded.
    """

    pixels: np.memmap[Any, np.dtype[np.uint8]]
    images: tuple[str, ...]
    ok: npt.NDArray[np.bool_]
    key: str
    folder: Path
    quarantine: tuple[tuple[str, str], ...]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {image: position for position, image in enumerate(self.images)}

    def rows(self, images: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the positions of ``images`` in :attr:`pixels`, int64 of shape (M,).

        Raises:
            DataError: a film is not in the cache, or is in quarantine.
        """
        try:
            found = np.fromiter((self._positions[image] for image in images), dtype=np.int64, count=len(images))
        except KeyError as error:
            raise DataError(f"{self.folder}: has no film '{error.args[0]}'", "Build the cache again.") from error
        bad = found[~self.ok[found]]
        if len(bad):
            raise DataError(
                f"{self.folder}: '{self.images[bad[0]]}' could not be decoded ({len(bad)} such films are asked for)",
                "Leave out the films of quarantine.csv, or restore them and build the cache again.",
            )
        return found

    def bad(self) -> list[tuple[str, str]]:
        """Return path and reason of every film in quarantine."""
        return list(self.quarantine)


def default_folder() -> Path:
    """Return the folder of all caches: ``$NS_CACHE``, else ``~/.cache/noisy_student``."""
    named = os.environ.get("NS_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "noisy_student"


def content_key(images: Sequence[str], settings: DecodeSettings) -> str:
    """Return the key of a cache: a hash of the format, Pillow's major version, the settings and the list of images."""
    parts = [FORMAT, PIL.__version__.split(".")[0], asdict(settings), list(images)]
    return runs.text_hash(json.dumps(parts))


def build(
    root: Path,
    images: Sequence[str],
    settings: DecodeSettings,
    folder: Path,
    *,
    workers: int,
    max_bad_share: float,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Cache:
    """Return the cache of ``images``, decoding what is not there yet or has changed since.

    A film counts as changed when its size or modification time differs from those of the file that was decoded. Where
    that was in another folder some films are compared by their pixels, and all are decoded again where they differ.
    A second process that builds the same cache waits for the first. A killed build goes on where it stopped.

    Args:
        root: folder of the data set.
        images: paths below ``root``, each once; their order is the order of the rows.
        settings: size, channels, fit and window.
        folder: folder of all caches; this one is ``folder / content_key(images, settings)``.
        workers: processes that decode, this one among them.
        max_bad_share: largest share of films that may be bad.
        progress: show films/s and the time left on stderr.
        stop: asked every few hundred films whether to stop; what is decoded is kept.

    Raises:
        StoppedError: ``stop()`` became true.
        DataError: a film is missing or lies outside the root, or more films than ``max_bad_share`` are bad.
        StorageError: the disk is full or not writable.
    """
    if not images or len(set(images)) != len(images):
        raise DataError("cache: the list of images is empty or names a film twice", "Check the manifest.")
    root = root.resolve()
    key = content_key(images, settings)
    job = Job(str(root), str(folder / key), settings, len(images))
    found = source_stamps(root, images, progress=progress)
    with runs.storage_errors(job.path), _lock(job.path):
        complete = _prepare(job)
        pixels, status, stamps = job.open("r+")
        done = (status == GOOD) & (stamps[:, :2] == found).all(axis=1)
        if not complete:
            done &= _intact(pixels, stamps, done, progress)
        elif not _is_of(job, images, pixels, done):
            done[:] = False
        todo = np.flatnonzero(~done)
        if complete and len(todo):
            if (status[todo] == GOOD).any():
                # A process may be training on these pixels: it keeps the old file, we go on with a copy.
                del pixels, status, stamps
                _copy_aside(job)
                pixels, status, stamps = job.open("r+")
            (job.path / "cache.json").unlink()
        bad: dict[int, str] = {}
        if len(todo):
            status[todo] = WAITING
            with _written_meanwhile(job.path / "pixels.u8"):
                bad = decode_all(job, images, todo, workers, progress, stop)
            status.flush()
            stamps.flush()
        if len(todo) or not complete:
            _write_index(job, key, images, status, stamps, bad)
        pixels, status, _ = job.open("r")
    quarantine = tuple((images[row], bad[row]) for row in sorted(bad))
    if len(quarantine) > max_bad_share * len(images):
        examples = "; ".join(f"{image}: {reason}" for image, reason in quarantine[:3])
        raise DataError(
            f"{len(quarantine)} of {len(images)} films cannot be decoded, more than data.max_bad_share = "
            f"{max_bad_share:g} allows ({examples})",
            f"See {job.path / 'quarantine.csv'}; restore the films, or raise data.max_bad_share.",
        )
    return Cache(pixels, tuple(images), np.asarray(status == GOOD), key, job.path, quarantine)


# -- the files of a cache ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _written_meanwhile(path: Path) -> Iterator[None]:
    """Send a file to disk while films are decoded into it, and what is left at the end."""
    over, failed = threading.Event(), list[OSError]()
    with path.open("rb") as stream:

        def flush() -> None:
            while not failed and not over.wait(FLUSH_EVERY):
                try:
                    os.fsync(stream.fileno())
                except OSError as error:  # the system reports a failed write once, so the next flush would succeed
                    failed.append(error)

        thread = threading.Thread(target=flush, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if failed:
            raise failed[0]
        os.fsync(stream.fileno())


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the cache for this process; wait while another builds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("%s: waiting for another process that builds this cache", folder)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _prepare(job: Job) -> bool:
    """Make the memmaps at full size, unless they are there; return whether the cache was finished."""
    sizes = {name: int(np.prod(shape)) * np.dtype(kind).itemsize for name, (shape, kind) in job.files().items()}
    paths = {name: job.path / name for name in sizes}
    if all(path.is_file() and path.stat().st_size == sizes[name] for name, path in paths.items()):
        return (job.path / "cache.json").is_file()
    for path in (job.path / "cache.json", *paths.values()):
        path.unlink(missing_ok=True)
    runs.check_free_space(job.path, sum(sizes.values()), "the cache of decoded films")
    for name, path in paths.items():
        with path.open("wb") as stream:
            # Blocks are reserved now: a full disk under a memmap would kill the process without a word (SIGBUS).
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, sizes[name])
            else:  # pragma: no cover - macOS
                stream.truncate(sizes[name])
    return False


def _copy_aside(job: Job) -> None:
    """Replace each memmap by a copy of itself."""
    runs.check_free_space(
        job.path, sum((job.path / name).stat().st_size for name in job.files()), "a copy of the cache"
    )
    for name in job.files():
        with runs.atomic(job.path / name) as temporary:
            shutil.copyfile(job.path / name, temporary)


def _is_of(job: Job, images: Sequence[str], pixels: Any, rows: npt.NDArray[np.bool_]) -> bool:
    """Return whether the films where ``rows`` (N,) is true are those of the job's folder.

    Another folder can hold other films of the same names, sizes and times, as archives give them; a copy of the same is
    as good. So where the pixels are of another folder, some of them are compared.
    """
    if runs.read_json(job.path / "cache.json").get("root") == runs.text_hash(job.root):
        return True
    there = np.flatnonzero(rows)
    for row in there[:: max(1, len(there) // _COMPARED)]:
        try:
            same = np.array_equal(decode(Path(job.root, images[row]), job.settings), pixels[row])
        except DataError:
            same = False
        if not same:
            return False
    return True


def _intact(pixels: Any, stamps: Any, rows: npt.NDArray[np.bool_], progress: bool) -> npt.NDArray[np.bool_]:
    """Return, for the films where ``rows`` (N,) is true, whether the pixels have the checksum that was noted."""
    result = np.zeros(len(rows), dtype=bool)
    bar = tqdm(np.flatnonzero(rows), unit="film", desc="check decoded films", delay=DELAY, disable=not progress)
    for row in bar:
        result[row] = zlib.adler32(pixels[row]) == stamps[row, 2]
    return result


def _write_index(job: Job, key: str, images: Sequence[str], status: Any, stamps: Any, bad: dict[int, str]) -> None:
    """Write the index, the list of bad films and, last, the file that says the cache is finished."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "image": pa.array(images, pa.string()),
            "size": pa.array(stamps[:, 0]),
            "mtime_ns": pa.array(stamps[:, 1]),
            "status": pa.array(np.asarray(status)),
            "reason": pa.array([bad.get(row, "") for row in range(job.count)], pa.string()),
        }
    )
    with runs.atomic(job.path / "index.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    with (
        runs.atomic(job.path / "quarantine.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(
            [("image", "reason"), *((images[row], bad[row]) for row in sorted(bad))]
        )
    state = {"format": FORMAT, "key": key, "images": job.count, "bad": len(bad), "pillow": PIL.__version__}
    state["root"] = runs.text_hash(job.root)
    runs.write_json(job.path / "cache.json", {**state, **asdict(job.settings)})
