"""Films decoded as they come, a few hundred in memory at a time, for work that keeps no pixels."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.data.decode import DecodeSettings, decode
from noisy_student.data.decoding import INLINE, _start_worker
from noisy_student.errors import DataError, NoisyStudentError, StoppedError

TASK: Final = 16
"""Films per task of a worker: few, so that little is in flight."""
AHEAD: Final = 3
"""Tasks in flight per worker."""

Named = tuple[str, str]
"""What a film is called by whoever asked for it, and the path of its file."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Some films in the order in which they were asked for: ``names`` (N,), and ``pixels`` (M, C, S, S), uint8, of the
    M that could be decoded (``good`` (N,)); ``reasons`` say of the others, by place, why not.
    """

    names: tuple[str, ...]
    pixels: npt.NDArray[np.uint8]
    good: npt.NDArray[np.bool_]
    reasons: dict[int, str]


def decode_some(films: list[Named], settings: DecodeSettings) -> Decoded:
    """Return ``films`` decoded in this process."""
    pixels, reasons = [], {}
    for place, (_, path) in enumerate(films):
        try:
            pixels.append(decode(path, settings))
        except (DataError, OSError) as error:
            # A path can name a patient, and it stands beside the reason anyway.
            text = error.message if isinstance(error, DataError) else error.strerror or type(error).__name__
            reasons[place] = text.removeprefix(f"{path}: ").replace(path, "the film")
    shape = (0, settings.channels, settings.size, settings.size)
    good = np.array([place not in reasons for place in range(len(films))], dtype=bool)
    stacked = np.stack(pixels) if pixels else np.empty(shape, dtype=np.uint8)
    return Decoded(tuple(name for name, _ in films), stacked, good, reasons)


def stream(
    films: Iterable[Named], settings: DecodeSettings, *, workers: int, batch: int, stop: Callable[[], bool]
) -> Generator[Decoded, None, None]:
    """Yield all ``films`` in order, decoded, in batches of ``batch`` (the last one may be shorter).

    Few films are decoded in this process, many by ``workers`` others, which are ahead of the caller by some hundred
    films at most. ``films`` is read as far as that and no further.

    Raises:
        StoppedError: ``stop()`` became true between two tasks.
        NoisyStudentError: a worker was killed.
    """
    source = iter(films)
    first = list(islice(source, INLINE + 1))
    whole = chain(first, source)
    parts = _inline(whole, settings) if workers <= 1 or len(first) <= INLINE else _pooled(whole, settings, workers)
    with closing(parts):
        waiting: list[Decoded] = []
        for part in parts:
            if stop():
                raise StoppedError("stopped between two films", "Run the same command again: it goes on from there.")
            waiting.append(part)
            if sum(len(one.names) for one in waiting) >= batch:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)


def _tasks(films: Iterator[Named]) -> Iterator[list[Named]]:
    while task := list(islice(films, TASK)):
        yield task


def _inline(films: Iterator[Named], settings: DecodeSettings) -> Generator[Decoded, None, None]:
    for task in _tasks(films):
        yield decode_some(task, settings)


def _pooled(films: Iterator[Named], settings: DecodeSettings, workers: int) -> Generator[Decoded, None, None]:
    context = multiprocessing.get_context("spawn")  # this process holds threads of torch, which a fork would break
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    running: deque[Future[Decoded]] = deque()
    tasks = _tasks(films)
    try:
        while True:
            for task in islice(tasks, AHEAD * workers - len(running)):
                running.append(pool.submit(decode_some, task, settings))
            if not running:
                return
            yield running.popleft().result()
    except BrokenProcessPool as error:
        raise NoisyStudentError(
            "a process that decodes films was killed, perhaps for want of memory",
            "Run the command again: it goes on where it was. A script of your own needs its calls below "
            "`if __name__ == '__main__':`.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _joined(parts: list[Decoded]) -> Decoded:
    reasons: dict[int, str] = {}
    before = 0
    for part in parts:
        reasons |= {before + place: reason for place, reason in part.reasons.items()}
        before += len(part.names)
    return Decoded(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.good for part in parts]),
        reasons,
    )
