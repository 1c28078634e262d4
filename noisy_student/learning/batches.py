"""Batches of films: their pixels on the device, and their targets.

Which film stands where is a function of the step alone (``sampling``), so training can go on from any step.
Pixels are kept on the device when they fit; otherwise a background thread gathers the next batches from the memory
map into pinned memory and copies them on a stream of their own, while the device works on the current one.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from noisy_student.learning.distributed import ALONE, Group
from noisy_student.randomness import text_ids
from noisy_student.targets.table import Targets

Ints = npt.NDArray[np.int64]

AT_ONCE: Final = 1024
"""Films that are copied to the device at once."""
RESIDENT_SHARE: Final = 0.6
"""Share of the free memory of a device that films may take."""


@dataclass(frozen=True)
class Batch:
    """One step's films: ``clean`` uint8 (B, C, H, W) and, on the same device, target, weight, pos_weight (B, K)."""

    clean: Tensor
    target: Tensor
    weight: Tensor
    pos_weight: Tensor
    position: Ints
    image_id: Ints
    pseudo: npt.NDArray[np.bool_]
    """Which of the films (B,) are of the pool."""


class Films:
    """Pixels of the films of one task, (N, C, H, W) uint8, kept on the device or read from the memory map."""

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        rows: Ints,
        device: torch.device,
        *,
        resident: bool | None = None,
    ) -> None:
        """Take ``rows`` of ``pixels``; ``resident`` forces the choice, which is otherwise made by free memory."""
        self.pixels, self.rows, self.device = pixels, rows, device
        size = len(rows) * int(np.prod(pixels.shape[1:]))
        self.resident = size <= RESIDENT_SHARE * _free_memory(device) if resident is None else resident
        self._on_device = _copy(pixels, rows, device) if self.resident else None

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, index: Ints) -> Tensor:
        """Return the films at ``index`` (B,) as uint8 (B, C, H, W) on the device."""
        if self._on_device is not None:
            where = torch.from_numpy(index)
            return self._on_device[where.to(self.device, non_blocking=True)]
        films = torch.from_numpy(_gather(self.pixels, self.rows[index]))
        if self.device.type == "cuda":
            films = films.pin_memory()
        return films.to(self.device, non_blocking=True)


def _copy(pixels: npt.NDArray[np.uint8], rows: Ints, device: torch.device) -> Tensor:
    # In parts: a whole copy in the machine's memory, once per process, can be more than it has.
    films = torch.empty((len(rows), *pixels.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        films[start : start + len(part)] = torch.from_numpy(_gather(pixels, part))
    return films


def _gather(pixels: npt.NDArray[np.uint8], rows: Ints) -> npt.NDArray[np.uint8]:
    # Reading a memory map in the order of the file is several times faster than in random order.
    order = np.argsort(rows, kind="stable")
    out = np.empty((len(rows), *pixels.shape[1:]), dtype=np.uint8)
    for target in order:
        out[target] = pixels[rows[target]]
    return out


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 1 << 20
    return pages * os.sysconf("SC_PAGE_SIZE")


class Order(Protocol):
    """Which film stands at which place of the batches."""

    def film_numbers(self, step: int) -> Ints:
        """Return the film numbers (B,) of batch ``step``."""

    def positions(self, step: int) -> Ints:
        """Return the places (B,) of batch ``step`` in the sample sequence."""


class Batches:
    """The batches of a generation, from any step on."""

    def __init__(
        self,
        films: Films,
        targets: Targets,
        order: Order,
        pos_weight: npt.NDArray[np.float32],
        group: Group = ALONE,
        *,
        partners: Callable[[Ints, Ints], Ints] | None = None,
    ) -> None:
        """``pos_weight`` (K,) applies to labelled films; pseudo-labelled films have 1 (their targets are unshifted).

        Of the batches of ``order`` a process of a ``group`` gets its part. ``partners`` maps film numbers (B,) and
        places (B,) in the sample sequence to film numbers (B,); with it a batch is twice as long: behind its films
        stand their partners, which get noise of their own.
        """
        assert len(films) == len(targets.images)
        self.films, self.order, self.group, self.partners = films, order, group, partners
        device = films.device
        self._target = torch.from_numpy(targets.target).to(device)
        self._weight = torch.from_numpy(targets.weight).to(device)
        per_film = np.where(targets.pseudo[:, None], np.float32(1), pos_weight[None, :]).astype(np.float32)
        self._pos_weight = torch.from_numpy(per_film).to(device)
        self._image_id = text_ids([str(image) for image in targets.images])
        self._pseudo = targets.pseudo

    def at(self, step: int) -> Batch:
        """Return the batch of ``step``."""
        numbers, position = self.group.part(self.order.film_numbers(step)), self.group.part(self.order.positions(step))
        clean = self.films.gather(numbers)
        if self.partners is not None:
            partners = self.partners(numbers, position)
            clean = torch.cat([clean, clean if (partners == numbers).all() else self.films.gather(partners)])
            numbers = np.concatenate([numbers, partners])
            position = np.concatenate([2 * position, 2 * position + 1])
        on_device = torch.from_numpy(numbers).to(self.films.device, non_blocking=True)
        return Batch(
            clean,
            self._target[on_device],
            self._weight[on_device],
            self._pos_weight[on_device],
            position,
            self._image_id[numbers],
            self._pseudo[numbers],
        )

    def stream(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the batches of steps ``start`` to ``stop`` - 1, gathering ahead when films are not resident."""
        if self.films.resident:
            for step in range(start, stop):
                yield self.at(step)
            return
        yield from self._prefetched(start, stop)

    def _prefetched(self, start: int, stop: int) -> Iterator[Batch]:
        ready: queue.Queue[Copied | BaseException | None] = queue.Queue(maxsize=2)
        copier = _Copier(self.films.device)
        abandoned = threading.Event()

        def offer(item: Copied | BaseException | None) -> None:
            while not abandoned.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return
                except queue.Full:
                    continue

        def work() -> None:
            try:
                for step in range(start, stop):
                    if abandoned.is_set():
                        return
                    offer(copier.copied(self.at, step))
                offer(None)
            except BaseException as error:  # handed to the consumer, who raises it
                offer(error)

        worker = threading.Thread(target=work, name="batches", daemon=True)
        worker.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield copier.arrived(item)
        finally:
            abandoned.set()
            worker.join()


@dataclass(frozen=True)
class Copied:
    """A batch on its way to the device, and the event of a GPU that says when it is there."""

    batch: Batch
    there: torch.cuda.Event | None


class _Copier:
    """Copies batches on a stream of their own where the device is a GPU: on the stream of the steps they would wait."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def copied(self, at: Callable[[int], Batch], step: int) -> Copied:
        """Return batch ``step`` while it is copied."""
        if self._stream is None:
            return Copied(at(step), None)
        with torch.cuda.stream(self._stream):
            batch = at(step)
            return Copied(batch, self._stream.record_event())

    def arrived(self, item: Copied) -> Batch:
        """Return the batch, for which the steps of the device wait if they have to."""
        if item.there is not None:
            steps = torch.cuda.current_stream(item.batch.clean.device)
            steps.wait_event(item.there)
            for tensor in (item.batch.clean, item.batch.target, item.batch.weight, item.batch.pos_weight):
                tensor.record_stream(steps)  # its memory is not given back before the steps have read it
        return item.batch
