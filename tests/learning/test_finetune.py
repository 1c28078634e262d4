from __future__ import annotations

import pytest
from torch import nn

from noisy_student.config import FinetuneConfig, ModelConfig
from noisy_student.errors import ConfigError
from noisy_student.learning import models
from noisy_student.learning.blocks import blocks
from noisy_student.learning.finetune import depths, learning_names, set_trainable


@pytest.fixture
def network() -> models.Network:
    return models.build(ModelConfig(), ("a", "b"), 1, 32, seed=0)


def test_depths_count_from_the_output() -> None:
    found = depths([("stem.weight", "stem.bias"), ("low.weight",), ("high.weight",)])
    assert found == {
        "backbone.stem.weight": 3, "backbone.stem.bias": 3, "backbone.low.weight": 2, "backbone.high.weight": 1,
    }  # fmt: skip


def test_what_learns(network: models.Network) -> None:
    found = blocks(network.backbone)
    depth = depths(found)
    every = {name for name, _ in network.named_parameters()}
    head = {"classifier.weight", "classifier.bias"}
    assert learning_names(network, FinetuneConfig(trainable="head"), depth) == head
    assert learning_names(network, FinetuneConfig(), depth) == every
    assert learning_names(network, FinetuneConfig(trainable=5), depth) == every
    two = {f"backbone.{key}" for block in found[-2:] for key in block} & every
    assert learning_names(network, FinetuneConfig(trainable=2), depth) == head | two
    with pytest.raises(ConfigError, match="trainable: 6 asks for more blocks than the 5"):
        learning_names(network, FinetuneConfig(trainable=6), depth)


@pytest.mark.parametrize("freeze", [False, True])
def test_statistics_stand_still_with_what_does_not_learn(network: models.Network, freeze: bool) -> None:
    depth = depths(blocks(network.backbone))
    for trainable in ("head", 2, "all", 1):
        learning = learning_names(network, FinetuneConfig(trainable=trainable), depth)
        set_trainable(network, learning, freeze)
        assert network.training
        assert network.dropout.training
        assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == learning
        for name, module in network.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.training == (f"{name}.weight" in learning and not freeze)
