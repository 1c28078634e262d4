"""Files that hold a state dict and nothing else."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from noisy_student.errors import WeightsError
from noisy_student.learning.models.backbones import reason

UNREADABLE: Final = (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError)
"""What reading or downloading a damaged, absent or foreign file can raise."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pth or .pt file by name.

    Raises:
        WeightsError: it is damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason(error)})",
            "The file is damaged, or holds more than tensors; download it again or save a state dict.",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: does not hold a state dict (name -> tensor)", "Save model.state_dict() alone.")
    return state
