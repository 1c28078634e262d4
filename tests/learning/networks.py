"""Networks and weights that the tests of models share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from noisy_student.config import ModelConfig
from noisy_student.learning.models import Network, build

LABELS = ("Edema", "Pneumonia")
DATA = Path(os.environ.get("NS_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
MOBILENET = "mobilenet_v2-coral_ptq_int8deq-a1bde081.pth"
SQUEEZENET = "squeezenet1_1_features-deepcognition_fp32-b135c74f.pth"

EVERY = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "densenet121", "densenet169", "densenet201"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4"),
    *("efficientnet_v2_s", "efficientnet_v2_m", "convnext_tiny", "convnext_small", "convnext_base"),
    *("vit_b_16", "swin_t", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("regnet_y_400mf", "regnet_x_400mf", "regnet_y_1_6gf", "regnet_x_3_2gf"),
]
"""Every backbone that docs/models.md names."""


def make(name: str = "small_resnet", channels: int = 1, size: int = 64, seed: int = 0, **settings: object) -> Network:
    return build(ModelConfig(name=name, **settings), LABELS, channels, size, seed=seed)


def films(count: int = 2, channels: int = 1, size: int = 64) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def real(name: str) -> Path:
    """Return the folder of the real weights, or skip the test where they are not."""
    if not (DATA / "weights" / name).is_file():
        pytest.skip(f"{DATA}/weights/{name} is absent; set NS_REAL_DATA")
    return DATA / "weights"


def torchvision_model(name: str, **settings: object) -> nn.Module:
    """Return torchvision's own network with random weights and statistics, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model: nn.Module = torchvision.models.get_model(name, weights=None, **settings)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
        return model.eval()
