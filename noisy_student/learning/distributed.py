"""Processes that share every batch and every prediction: ``torch.distributed`` as the rest of the package sees it.

Each process takes its part of a batch, and what a step needs of the whole batch is summed: the denominators of the
loss, then the gradients with the loss. So a step on several processes is the step that one process would have made.
Gradients are summed in one message after the backward pass and not by ``DistributedDataParallel``: which layers learn
changes during a training, objectives call a network several times or only its features, and some have parameters of
their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from noisy_student.errors import PeerError, UsageError

Rows = TypeVar("Rows", npt.NDArray[Any], Tensor)

PATIENCE: Final = timedelta(days=7)
"""How long a process waits for another: while the first one decodes films or writes reports, the others wait."""


@dataclass(eq=False)
class Group:
    """The processes that work together, and which of them this one is; by default it is alone."""

    rank: int = 0
    size: int = 1
    busy: bool = False
    """In the first process: whether the others are in the middle of something, and do not listen."""

    def part(self, values: Rows) -> Rows:
        """Return this process's part of an array or tensor with all rows of a batch (B, ...): every ``size``-th row.

        Every one, and not a run of them, because a batch holds its labelled films side by side.
        """
        return values[self.rank :: self.size]

    def whole(self, values: Tensor) -> Tensor:
        """Return all rows of the batch (B, ...), in its order, from the parts of all processes, which are equal."""
        if self.size == 1:
            return values
        mine = values.contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        with _lost():
            dist.all_gather(parts, mine)
        return torch.stack(parts, dim=1).flatten(0, 1)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes, without gradient where there are several."""
        if self.size == 1:
            return values
        summed = values.detach().clone()
        with _lost():
            dist.all_reduce(summed)
        return summed

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes into each of the tensors, which are of one type, with one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _lost():
            dist.all_reduce(flat)
        sums = torch.split_with_sizes(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [s.view_as(t) for s, t in zip(sums, tensors, strict=True)])

    def send(self, message: Any) -> None:
        """Tell all other processes ``message``, which waits until they listen."""
        with _lost():
            dist.broadcast_object_list([message], src=0, group=_control())

    @contextmanager
    def sharing(self, *job: Any) -> Iterator[None]:
        """Have all other processes do their part of ``job`` while this one, the first, does its own."""
        if self.size == 1:
            yield
            return
        self.send(job)
        self.busy = True
        yield
        self.busy = False

    def receive(self) -> Any:
        """Return what the first process sends next."""
        heard: list[Any] = [None]
        with _lost():
            dist.broadcast_object_list(heard, src=0, group=_control())
        return heard[0]

    def collect(self, value: Any) -> list[Any]:
        """Return the ``value`` of every process in the order of their ranks; in all but the first an empty list."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with _lost():
            dist.gather_object(value, found, dst=0, group=_control())
        return found or []


ALONE: Final = Group()
_groups: list[Any] = []  # the group of control messages, made once per process


def join(device: str) -> tuple[Group, str]:
    """Return the group that ``torchrun`` started this process in, and the device it works on.

    Raises:
        UsageError: ``device`` names one GPU for all processes, or there are fewer GPUs than processes.
    """
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if device in ("auto", "cuda") and torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}",
                "Start as many processes as there are GPUs (--nproc-per-node), or use --device cpu.",
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    elif device.startswith("cuda:"):
        hint = "Leave --device out: each takes its own."
        raise UsageError(f"--device {device}: {size} processes would share it", hint)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
        # Control messages go over the processors: a GPU's messages would have to be waited for on the GPU.
        _groups[:] = [dist.new_group(backend="gloo", timeout=PATIENCE)]
    return Group(rank, size), device


def leave() -> None:
    """Take this process out of its group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def synchronise_batch_norm(network: torch.nn.Module, group: Group, device: torch.device) -> None:
    """Have the batch norm of ``network`` take the statistics of the whole batch, where its GPUs share one.

    On processors torch has no such batch norm: each process normalises by its own films.
    """
    if group.size > 1 and device.type == "cuda":
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]


def _control() -> Any:
    return _groups[0]


@contextmanager
def _lost() -> Iterator[None]:
    """Turn a broken connection into a :class:`PeerError`."""
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises, and its own errors derive from it
        reason = re.sub(r"^\[[^]]*\] |\. This is typically.*", "", str(error).partition("\n")[0])
        raise PeerError(
            f"another process of the run is gone ({reason})",
            "Look for its error above, then go on with the same command and --resume, with any number of processes.",
        ) from error
