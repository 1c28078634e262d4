"""From a configuration to a network with its first weights, a function of the seed alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from noisy_student import randomness
from noisy_student.config.model import ModelConfig
from noisy_student.errors import ConfigError
from noisy_student.learning.blocks import blocks
from noisy_student.learning.models import backbones, timm_backbones
from noisy_student.learning.models.network import Network, Normalisation, hidden_head

_WITH_STOCHASTIC_DEPTH: Final = f"{backbones.SMALL_RESNET}, efficientnet_*, convnext_*, swin_*, maxvit_t"


def build(config: ModelConfig, labels: Sequence[str], channels: int, size: int, *, seed: int) -> Network:
    """Return the network of ``config``, initialised from ``seed`` alone; torch's global generator is left as it was.

    Raises:
        ConfigError: an unknown backbone, a size it cannot take, stochastic depth where it has none, or more
            ``pretrained_blocks`` than it has.
    """
    name, classes, head_key, layout = config.name, len(labels), "", "NCHW"
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed every GPU.
        torch.default_generator.manual_seed(int(randomness.hash_u64(seed, randomness.text_id("weights")) >> 1))
        classifier: nn.Module
        if name.startswith(timm_backbones.PREFIX):
            backbone = timm_backbones.backbone(name.removeprefix(timm_backbones.PREFIX), size, config.stochastic_depth)
            width, layout = timm_backbones.width(backbone), timm_backbones.map_layout(backbone)
            classifier = nn.Linear(width, classes)
        else:
            backbone = backbones.backbone(name, classes, size)
            classifier, head_key = backbones.cut_head(backbone)
            width = classifier.in_features
            _drop_blocks(backbone, config)
        if (hidden := config.hidden_width()) is not None:
            classifier = hidden_head(width, hidden, classes, config.dropout)
    backbones.silence_dropout(backbone)
    if channels == 1:
        backbones.make_grey(backbone, name)
    count = len(blocks(backbone)) if config.pretrained_blocks else 0
    if config.pretrained_blocks and config.pretrained_blocks > count:
        raise ConfigError(
            f"model.pretrained_blocks: {name} has {count} blocks, and {config.pretrained_blocks} are asked for",
            f"Give a number from 1 to {count}; {count} is all of the backbone.",
        )
    network = Network(
        backbone,
        classifier,
        config.dropout,
        labels=labels,
        channels=channels,
        size=size,
        normalisation=Normalisation.named("imagenet" if config.normalisation == "auto" else config.normalisation),
        head_key=head_key,
        map_layout=layout,
    )
    _try_shapes(network, name)
    return network


def _drop_blocks(backbone: nn.Module, config: ModelConfig) -> None:
    if not backbones.set_stochastic_depth(backbone, config.stochastic_depth) and config.stochastic_depth > 0:
        raise ConfigError(
            f"model.stochastic_depth: {config.name} has no residual blocks that can be dropped",
            f"Set it to 0, or take one of: {_WITH_STOCHASTIC_DEPTH}.",
        )


def _try_shapes(network: Network, name: str) -> None:
    """Raise :class:`ConfigError` where the films' size does not fit, from shapes alone, without arithmetic."""
    tensors = itertools.chain(network.named_parameters(), network.named_buffers())
    shapes = {key: tensor.detach().to("meta") for key, tensor in tensors}
    films = torch.empty(1, network.channels, network.size, network.size, device="meta")
    try:
        with torch.no_grad():
            torch.func.functional_call(network.eval(), shapes, (films,))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise backbones.unfit(name, network.size, error) from error
    network.train()
