"""Where a training stands: everything that a resume needs, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from noisy_student.learning import checkpoint, models


@dataclass
class State:
    """Where training stands; together with a task it decides everything that follows."""

    network: models.Network
    averaged: AveragedModel
    optimizer: torch.optim.Optimizer
    objective: nn.Module
    """The parameters of the objective; empty for most."""
    step: int = 0
    origin: str = ""
    score: float = -np.inf
    kept: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the state to ``path``."""
        checkpoint.save_resume(
            path,
            {
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "objective": self.objective.state_dict(),
                "step": self.step,
                "origin": self.origin,
                "score": self.score,
                "kept": self.kept,
            },
        )

    def keep(self, network: models.Network) -> None:
        """Take the weights of ``network`` as those that the generation ends with, for now."""
        self.kept = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over the state that :meth:`save` wrote."""
        self.network.load_state_dict(saved["network"])
        self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.objective.load_state_dict(saved["objective"])
        self.step, self.origin, self.score = saved["step"], saved["origin"], saved["score"]
        device = next(self.network.parameters()).device
        self.kept = {name: tensor.to(device) for name, tensor in saved["kept"].items()}
