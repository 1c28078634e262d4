"""Random numbers as a pure function of their coordinates (a counter-based generator), never of global state.

The mixing function is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014), applied once per coordinate. The same coordinates give the same number on every machine, whatever
was drawn before, in whatever order, by however many workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(value: U64) -> U64:
    with np.errstate(over="ignore"):
        value = value + _GOLDEN
        value = (value ^ (value >> np.uint64(30))) * _MIX_1
        value = (value ^ (value >> np.uint64(27))) * _MIX_2
        return value ^ (value >> np.uint64(31))


def hash_u64(*coordinates: int | npt.ArrayLike) -> U64:
    """Return 64 hashed bits per position of the broadcast integer ``coordinates`` (taken modulo 2**64)."""
    state: U64 = np.zeros((), dtype=np.uint64)
    for coordinate in coordinates:
        if isinstance(coordinate, int):
            word: U64 = np.asarray(coordinate & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
        else:
            word = np.asarray(coordinate).astype(np.uint64)
        state = _mix(state ^ _mix(word))
    return state


def uniform(*coordinates: int | npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return numbers uniform in [0, 1), one per position of the broadcast ``coordinates``."""
    return (hash_u64(*coordinates) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(*coordinates: int) -> np.random.Generator:
    """Return a fresh NumPy generator (Philox) whose stream depends on ``coordinates`` alone."""
    return np.random.Generator(np.random.Philox(key=int(hash_u64(*coordinates))))


def text_id(text: str) -> int:
    """Return a stable 63-bit integer for ``text`` (BLAKE2b): equal on every machine, unlike ``hash``."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def text_ids(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return :func:`text_id` of each text as an int64 array of shape (N,)."""
    return np.fromiter((text_id(text) for text in texts), dtype=np.int64, count=len(texts))
