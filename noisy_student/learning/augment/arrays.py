"""What is drawn on the processor, put where the films are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def placed(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Return ``values`` on ``device``, without a wait for what a GPU still has to do.

    They go through a buffer of the driver's, so they may be changed or freed at once.
    """
    return torch.from_numpy(values).to(device, non_blocking=True)


def column(values: npt.NDArray[np.float64], images: Tensor) -> Tensor:
    """Return ``values`` (B,) as float32 on the device of ``images``, shaped to broadcast over them."""
    return placed(values.astype(np.float32), images.device)[:, None, None, None]
