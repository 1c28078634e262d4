"""What every decoder of films shares: its error, the largest size, and the way from wide values to 8 bits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

LARGEST: Final = 100_000_000
"""Films with more pixels than this are refused before they are unpacked; the largest detectors have 20 million."""


class PixelError(ValueError):
    """A film that cannot be decoded, in words of this package: unlike those of a parser, they quote nothing."""


def check_size(width: int, height: int) -> None:
    """Check that a film can be unpacked.

    Raises:
        PixelError: it has no pixels, or more than :data:`LARGEST`.
    """
    if width * height > LARGEST:
        raise PixelError(f"{width} x {height} pixels are more than {LARGEST // 1_000_000} million")
    if width < 1 or height < 1:
        raise PixelError("it has no pixels")


def percentiles(values: npt.NDArray[Any], window: tuple[float, float]) -> tuple[float, float]:
    """Return the values at two percentiles.

    Raises:
        PixelError: a value is not finite.
    """
    low, high = np.percentile(values, window)
    if not np.isfinite([low, high]).all():
        raise PixelError("it has pixels that are no numbers")
    return float(low), float(high)


def between(values: npt.NDArray[Any], black: float, white: float) -> npt.NDArray[np.uint8]:
    """Return uint8 of the shape of ``values``: 0 up to ``black``, 255 from ``white``, and straight in between."""
    share = (values.astype(np.float64) - black) / max(white - black, 1e-12)
    return np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
