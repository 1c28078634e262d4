"""Blocks of torchvision's families: a partition of the state, in the order in which the network works."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from noisy_student.config import ModelConfig
from noisy_student.learning import models
from noisy_student.learning.blocks import blocks

# Blocks of each family, counted in the tables of the papers.
COUNTS = {
    "small_resnet": 5,  # the stem and four residual blocks
    "resnet18": 9,  # the stem and eight residual blocks
    "resnet101": 34,
    "densenet121": 8,  # the stem, four dense blocks, three transitions
    "densenet169": 8,
    "efficientnet_b0": 18,  # the stem, sixteen blocks, the last convolution
    "efficientnet_v2_s": 42,
    "convnext_tiny": 22,  # the stem, 18 blocks, three steps down
    "vit_b_16": 13,  # the embedding and twelve layers
    "swin_t": 16,
    "mobilenet_v2": 19,
    "mobilenet_v3_large": 18,  # 17 blocks, and the linear layer before the classifier
    "regnet_y_400mf": 5,  # the stem and four stages, which torchvision names
}


def backbone(name: str) -> nn.Module:
    return models.build(ModelConfig(name=name), ("a", "b"), 3, 224 if name == "vit_b_16" else 64, seed=0).backbone


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_blocks_are_a_partition_in_the_order_of_work(name: str, count: int) -> None:
    network = backbone(name)
    found = blocks(network)
    keys = [key for block in found for key in block]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(network.state_dict())
    assert len(found) == count
    assert all(any(key in block for key, _ in network.named_parameters()) for block in found)

    home = {key: number for number, block in enumerate(found) for key in block}
    order: list[int] = []
    for key, module in network.named_modules():
        own = next((f"{key}.{part}".lstrip(".") for part, _ in module.named_parameters(recurse=False)), None)
        if own is not None and not list(module.children()):
            module.register_forward_hook(lambda *_, number=home[own]: order.append(number))
    size = 224 if name == "vit_b_16" else 64
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    assert order == sorted(order)
    assert set(order) == set(range(count))


def test_what_lies_beside_the_layers_has_its_place() -> None:
    found = blocks(backbone("vit_b_16"))
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"} <= set(found[0])
    assert {"encoder.ln.weight", "encoder.layers.encoder_layer_11.mlp.0.weight"} <= set(found[-1])
    dense = blocks(backbone("densenet121"))
    assert {"features.conv0.weight", "features.norm0.running_mean"} <= set(dense[0])
    assert "features.norm5.running_var" in dense[-1]


def test_a_wrapper_around_a_network_changes_nothing_but_names() -> None:
    network = backbone("resnet18")
    inner, outer = blocks(network), blocks(nn.ModuleDict({"body": network}))
    assert [tuple(f"body.{key}" for key in block) for block in inner] == list(outer)


def test_a_single_layer_is_one_block() -> None:
    assert blocks(nn.Linear(2, 2)) == (("weight", "bias"),)
