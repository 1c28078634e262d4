"""The processes that decode films into the files of a cache."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from noisy_student.data.decode import DecodeSettings, decode
from noisy_student.errors import DataError, NoisyStudentError, StoppedError

CHUNK: Final = 128
"""Films per task of a worker."""
INLINE: Final = 256
"""Up to this many films are decoded in this process: starting workers would take longer."""

WAITING, GOOD, BAD = 0, 1, 2
"""What is noted of a film: not decoded yet, decoded, in quarantine."""


@dataclass(frozen=True)
class Job:
    """What a worker has to know."""

    root: str
    folder: str
    settings: DecodeSettings
    count: int

    @property
    def path(self) -> Path:
        """Folder of the cache."""
        return Path(self.folder)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one film."""
        return self.settings.channels, self.settings.size, self.settings.size

    def files(self) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
        """Return shape and type of each memmap by file name."""
        return {
            "pixels.u8": ((self.count, *self.shape), np.uint8),
            "status.u8": ((self.count,), np.uint8),
            "stamps.i64": ((self.count, 3), np.int64),
        }

    def open(self, mode: Any) -> tuple[Any, Any, Any]:
        """Return the memmaps of pixels, status and stamps."""
        maps = [np.memmap(self.path / name, kind, mode, shape=shape) for name, (shape, kind) in self.files().items()]
        return maps[0], maps[1], maps[2]


def _decode_chunk(job: Job, rows: Sequence[int], images: Sequence[str]) -> dict[int, str]:
    """Decode some films into the files of the cache and return the reasons of the bad ones by row."""
    _, status, stamps = job.open("r+")
    nothing = np.zeros(job.shape, dtype=np.uint8)
    bad = {}
    # Pixels are written, not assigned through the memmap: its page faults cost a sixth of the time, and a full disk
    # would be a SIGBUS instead of an error.
    with (job.path / "pixels.u8").open("r+b", buffering=0) as stream:
        for row, image in zip(rows, images, strict=True):
            path, stamp, pixels = f"{job.root}/{image}", (0, 0), nothing
            try:
                # The stamp is taken before the pixels: a file that changes in between is decoded again next time.
                info = os.stat(path)  # noqa: PTH116 - a Path per film costs more than the call
                stamp, pixels = (info.st_size, info.st_mtime_ns), decode(path, job.settings)
            except (DataError, OSError) as error:
                bad[row] = (error.message if isinstance(error, DataError) else str(error)).replace(path, "the film")
            written = os.pwrite(stream.fileno(), pixels.data, row * pixels.nbytes)
            if written != pixels.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            stamps[row] = (*stamp, zlib.adler32(pixels.data))
            status[row] = BAD if row in bad else GOOD
    return bad


def _start_worker() -> None:
    """Leave Ctrl-C and SIGTERM to the parent, and end with it even if it is killed."""
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def decode_all(
    job: Job,
    images: Sequence[str],
    todo: npt.NDArray[np.int64],
    workers: int,
    progress: bool,
    stop: Callable[[], bool],
) -> dict[int, str]:
    """Decode the films of the rows ``todo`` and return the reasons of the bad ones by row."""
    inline = workers <= 1 or len(todo) <= INLINE
    tasks = [(job, rows.tolist(), [images[row] for row in rows]) for rows in _chunks(todo, workers)]
    bad: dict[int, str] = {}
    bar = tqdm(total=job.count, initial=job.count - len(todo), unit="film", desc="decode", disable=not progress)
    with bar:
        if inline:
            for task in tasks:
                _check(stop)
                bad |= _decode_chunk(*task)
                bar.update(len(task[1]))
            return bad
        # Not forked: this process may hold threads of torch, which a fork would leave in the middle of anything.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers - 1, len(tasks)), mp_context=context, initializer=_start_worker)
        try:
            queue, running = deque(tasks), dict[Future[dict[int, str]], int]()
            while queue or running:
                _check(stop)
                while queue and len(running) < 3 * (workers - 1):
                    task = queue.popleft()
                    running[pool.submit(_decode_chunk, *task)] = len(task[1])
                if queue:
                    # This process works too: it need not start first, as the others do.
                    task = queue.popleft()
                    bad |= _decode_chunk(*task)
                    bar.update(len(task[1]))
                for future in wait(running, 0 if queue else None, FIRST_COMPLETED).done:
                    bad |= future.result()
                    bar.update(running.pop(future))
        except BrokenProcessPool as error:
            raise NoisyStudentError(
                "cache: a worker process was killed, perhaps for want of memory",
                "Run the command again: decoded films are kept. Fewer workers take less memory. A script of your own "
                "needs its calls below `if __name__ == '__main__':`.",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return bad


def _chunks(rows: npt.NDArray[np.int64], workers: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ``rows`` in tasks that get shorter towards the end, so that all workers end at about the same time."""
    start = 0
    while start < len(rows):
        length = min(CHUNK, max(16, (len(rows) - start) // (4 * workers)))
        yield rows[start : start + length]
        start += length


def _check(stop: Callable[[], bool]) -> None:
    if stop():
        raise StoppedError(
            "stopped while films were being decoded",
            "Run the same command again, with --resume: decoded films are kept.",
        )
