"""Backbones by name: torchvision's and our own, and the surgery that makes any of them ours."""

from __future__ import annotations

import difflib
import itertools
from typing import Final

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock
from torchvision.ops import StochasticDepth

from noisy_student.errors import ConfigError

SMALL_RESNET: Final = "small_resnet"
WITH_AUXILIARIES: Final = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
"""Architectures that torchvision trains with classifiers in the middle, and the names of those: they are left out."""


def small_resnet(classes: int) -> nn.Module:
    """Return our residual network (He et al. 2016) of 1.2 M parameters for small films: four blocks, 32 to 256 wide."""
    widths = (32, 32, 64, 128, 256)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    for before, after in itertools.pairwise(widths):
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))
        block = BasicBlock(before, after, 2, shortcut)
        # The branch of a BasicBlock ends with bn2, before the sum with the shortcut: there it can be dropped.
        block.bn2 = nn.Sequential(block.bn2, StochasticDepth(0.0, "row"))
        layers.append(block)
    for module in itertools.chain.from_iterable(layer.modules() for layer in layers):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, classes))


def backbone(name: str, classes: int, size: int) -> nn.Module:
    """Return the named architecture with ``classes`` outputs.

    Raises:
        ConfigError: it is not known, or cannot be made for films of this ``size``.
    """
    if name == SMALL_RESNET:
        return small_resnet(classes)
    known = [*torchvision.models.list_models(module=torchvision.models), SMALL_RESNET]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise ConfigError(
            f"model.name: '{name}' is not known", f"Nearest: {', '.join(near)}. Models of timm are named timm/NAME."
        )
    arguments: dict[str, object] = {"weights": None, "num_classes": classes}
    if name in WITH_AUXILIARIES:
        # transform_input turns one normalisation into another; ours is the network's own (see weights.py).
        arguments |= {"aux_logits": False, "transform_input": False, "init_weights": True}
    elif name.startswith("vit_"):
        arguments["image_size"] = size
    elif name.startswith("maxvit"):
        arguments["input_size"] = (size, size)
    try:
        model: nn.Module = torchvision.models.get_model(name, **arguments)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise unfit(name, size, error) from error
    if name.startswith("squeezenet"):
        # Its classifier is a 1x1 convolution, ReLU and the mean over places. Logits below 0 must be possible, and
        # without the ReLU the mean commutes with the convolution: mean first, then a linear layer.
        final = model.get_submodule("classifier.1")
        linear = nn.Linear(512, classes)
        with torch.no_grad():
            linear.weight.copy_(final.get_parameter("weight").flatten(1))
            linear.bias.copy_(final.get_parameter("bias"))
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model.add_module("classifier", nn.Sequential(pool, linear))  # the linear keeps the key of the convolution
    return model


def unfit(name: str, size: int, error: Exception) -> ConfigError:
    """Return the error that says that architecture ``name`` cannot take films of this ``size``."""
    return ConfigError(
        f"model.name: '{name}' cannot take films of {size} x {size} pixels ({reason(error)})",
        "Set another data.image_size (often a multiple of 32, or 224) or another backbone.",
    )


def reason(error: Exception) -> str:
    """Return the first line of an error, or its kind where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def cut_head(model: nn.Module) -> tuple[nn.Linear, str]:
    """Return the last linear layer of ``model`` and its key, and leave an identity in its place."""
    key, head = [(key, module) for key, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, name = key.rpartition(".")
    model.get_submodule(parent).add_module(name, nn.Identity())
    return head, key


def first_convolution(model: nn.Module) -> nn.Conv2d | None:
    """Return the convolution that sees the film, ``None`` where there is none."""
    return next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)


def key_of(model: nn.Module, part: nn.Module) -> str:
    """Return the key of ``part`` in ``model``."""
    key: str = next(key for key, module in model.named_modules() if module is part)
    return key


def make_grey(model: nn.Module, name: str) -> None:
    """Give the first convolution one channel: its first weights, summed over the colours.

    Raises:
        ConfigError: there is no such convolution.
    """
    convolution = first_convolution(model)
    if convolution is None or convolution.in_channels != 3:
        raise ConfigError(
            f"model.name: '{name}' does not begin with a convolution of three channels, so it cannot be made grey",
            "Set data.channels to 3.",
        )
    convolution.in_channels = 1
    convolution.weight = nn.Parameter(convolution.weight.detach().sum(1, keepdim=True))


def silence_dropout(model: nn.Module) -> None:
    """Turn the architecture's own dropout off: ours is in the head."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def set_stochastic_depth(model: nn.Module, rate: float) -> bool:
    """Set every stochastic depth by the linear rule (Huang et al. 2016); return whether there is any."""
    depths = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    for index, module in enumerate(depths, start=1):
        module.p = rate * index / len(depths)
    return bool(depths)
