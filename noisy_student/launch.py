"""How this process was started: alone, or as one of several by ``torchrun``, which says so in the environment."""

from __future__ import annotations

import os


def processes() -> int:
    """Return the number of processes that were started together (``$WORLD_SIZE``), 1 for one that is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process among those (``$RANK``); the first, and one that is alone, is 0."""
    return int(os.environ.get("RANK", "0")) if processes() > 1 else 0
