"""The processor that torch runs on: its threads, and what becomes of memory that a step gives back."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

import torch

_MMAP_MAX: Final = -4  # of mallopt(3), from <malloc.h>
_TRIM_THRESHOLD: Final = -1
_NEVER: Final = 2**31 - 1


def prepare(threads: int) -> None:
    """Let torch use ``threads`` threads, its own choice with 0, and keep memory that is given back for the next step.

    The layers of a step want blocks of tens of megabytes. The C library of Linux gives each back to the system as soon
    as it is free and gets the next one anew, page by page: a quarter of a training's time (docs/experiments.md). The
    process holds on to the most it has ever used. Elsewhere memory is handled as the system does.
    """
    if threads:
        torch.set_num_threads(threads)
    _keep_memory()


def _keep_memory() -> bool:
    """Return whether the C library took the setting."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
