"""What is kept of pretrained weights: blocks from the film up, and Mean-Var draws."""

from __future__ import annotations

import pytest
import torch
from networks import LABELS, films, make
from safetensors.torch import save_file
from scipy import stats
from torch import nn

from noisy_student.config import ModelConfig
from noisy_student.errors import ConfigError
from noisy_student.learning.blocks import blocks
from noisy_student.learning.models import build, load_weights

COUNTS = {
    "small_resnet": 5,  # stem and four blocks
    "resnet18": 1 + 8,
    "resnet50": 1 + 16,
    "densenet121": 1 + 4 + 3,  # dense blocks and transitions
    "efficientnet_b0": 1 + 16 + 1,
    "convnext_tiny": 1 + 18 + 3,
    "vit_b_16": 1 + 12,
    "swin_t": 1 + 12 + 3,
    "inception_v3": 5 + 11,
    "mobilenet_v2": 1 + 17 + 1,
    "regnet_y_400mf": 1 + 4,
    "regnet_x_400mf": 1 + 4,  # the last stage alone has most of the parameters
}
SIZES = {"inception_v3": 80, "vit_b_16": 48}
NAMES = [
    name if name in ("small_resnet", "resnet18", "mobilenet_v2") else pytest.param(name, marks=pytest.mark.slow)
    for name in COUNTS
]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_those_of_the_architecture_from_the_film_to_the_features(name):
    network = make(name, size=SIZES.get(name, 64)).eval()
    found = blocks(network.backbone)
    assert len(found) == COUNTS[name]
    keys = [key for block in found for key in block]
    assert sorted(keys) == sorted(network.backbone.state_dict())
    place = {key: number for number, block in enumerate(found) for key in block}
    order: list[int] = []
    for key, module in network.backbone.named_modules():
        own = [place[f"{key}.{name}"] for name, _ in module.named_parameters(recurse=False) if key]
        if own:
            module.register_forward_pre_hook(lambda *_, number=own[0]: order.append(number))
    with torch.no_grad():
        network(films(1, 1, network.size))
    assert order == sorted(order)  # a higher block never runs before a lower one
    assert set(order) == set(range(len(found)))


def pretrained(folder, **settings):
    """Write random weights of our backbone, with statistics of their own, and return them and a network of them."""
    given = make(seed=50).backbone
    for module in given.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.weight.data.uniform_(0.5, 1.5)
    state = dict(given.state_dict())
    save_file(state, folder / "w.safetensors")
    config = ModelConfig(weights="w.safetensors", **settings)
    return state, config, build(config, LABELS, 1, 64, seed=1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_lowest_blocks_come_from_the_weights_and_the_others_from_the_seed(tmp_path, count):
    state, config, network = pretrained(tmp_path, initialise="lowest", pretrained_blocks=count)
    new = {key: value.clone() for key, value in network.state_dict().items()}
    origin = load_weights(network, config, [tmp_path])
    assert origin.endswith(f", the lowest {count} of 5 blocks")
    below = {key for block in blocks(network.backbone)[:count] for key in block}
    assert any("running_mean" in key for key in below)
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, state[key] if key in below else new[f"backbone.{key}"]), key
    assert torch.equal(network.classifier.weight, new["classifier.weight"])


def test_more_blocks_than_there_are_is_an_error_that_says_how_many_there_are():
    config = ModelConfig(weights="w.pth", initialise="lowest", pretrained_blocks=6)
    with pytest.raises(ConfigError, match="small_resnet has 5 blocks, and 6 are asked for") as error:
        build(config, LABELS, 1, 64, seed=0)
    assert "from 1 to 5" in error.value.hint


def test_mean_var_keeps_the_scale_of_each_tensor_and_nothing_else(tmp_path):
    state, config, network = pretrained(tmp_path, initialise="mean_var")
    new = {key: value.clone() for key, value in network.state_dict().items()}
    origin = load_weights(network, config, [tmp_path], seed=8)
    assert origin.endswith(", drawn from the mean and variance of each tensor")
    drawn = network.backbone.state_dict()
    parameters = dict(network.backbone.named_parameters())
    for key, value in drawn.items():
        if key not in parameters:  # statistics of features that are no more: those of a new network
            assert torch.equal(value, new[f"backbone.{key}"]), key
            continue
        assert not torch.equal(value, state[key]) or state[key].std() == 0, key
        if value.numel() < 10_000:
            continue
        given = state[key].double()
        # Of n draws the mean is off by sd / sqrt(n), the deviation by sd / sqrt(2 n): five of those.
        n, deviation = value.numel(), given.std(correction=0).item()
        assert value.double().mean().item() == pytest.approx(given.mean().item(), abs=5 * deviation / n**0.5)
        assert value.double().std().item() == pytest.approx(deviation, abs=5 * deviation / (2 * n) ** 0.5)
        scaled = (value.double().flatten() - given.mean()) / deviation
        assert stats.kstest(scaled.numpy()[:20_000], "norm").pvalue > 1e-4
    assert torch.equal(network.classifier.weight, new["classifier.weight"])


def test_mean_var_is_a_function_of_the_seed(tmp_path):
    found = []
    for seed in (8, 8, 9):
        _, config, network = pretrained(tmp_path, initialise="mean_var")
        torch.manual_seed(len(found))
        load_weights(network, config, [tmp_path], seed=seed)
        found.append(network.backbone[3].conv1.weight.clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0].flatten()[:100], network.backbone[3].conv2.weight.flatten()[:100])
