"""Backbones by name: shapes, heads, model noise, deterministic starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import EVERY, LABELS, films, make
from torch import nn
from torchvision.ops import StochasticDepth

from noisy_student.config import ModelConfig, OptimConfig
from noisy_student.errors import ConfigError
from noisy_student.learning import optim
from noisy_student.learning.maps import activation_maps, has_feature_map
from noisy_student.learning.models import parameter_count

QUICK = [
    *("small_resnet", "resnet18", "regnet_y_400mf", "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small"),
    *("efficientnet_b0", "squeezenet1_1", "mnasnet0_5"),
]
SLOW = ["densenet121", "convnext_tiny", "swin_t", "vit_b_32", "alexnet", "vgg11"]
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]

FAST = {"resnet18", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf"}


# -- architecture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_backbone_gives_one_logit_per_label(name):
    network = make(name, dropout=0.3).eval()
    with torch.no_grad():
        logits = network(films())
        features = network.features(films())
    assert logits.shape == (2, 2)
    assert torch.isfinite(logits).all()
    assert features.shape == (2, network.classifier.in_features)
    assert network.classifier.out_features == 2
    assert (network.labels, network.channels, network.size) == (LABELS, 1, 64)
    # All dropout is ours, once, before the classifier; stochastic depth is off unless asked for.
    assert [(key, m.p) for key, m in network.named_modules() if isinstance(m, nn.Dropout) and m.p] == [("dropout", 0.3)]
    assert all(module.p == 0.0 for module in network.modules() if isinstance(module, StochasticDepth))


@pytest.mark.parametrize("name", ["small_resnet", "mobilenet_v2", "squeezenet1_1"])
def test_gradient_reaches_every_parameter(name):
    network = make(name, channels=3)
    network(films(4, 3)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_model_noise_works_in_training_and_is_silent_in_evaluation():
    network = make(dropout=0.5, stochastic_depth=0.5)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eval()
    assert network.training
    one, two = network(films()), network(films())
    assert not torch.equal(one, two)
    network.eval()
    assert torch.equal(network(films()), network(films()))


@pytest.mark.parametrize("name", ["small_resnet", "efficientnet_b0", pytest.param("swin_t", marks=pytest.mark.slow)])
def test_stochastic_depth_follows_the_linear_rule(name):
    network = make(name, stochastic_depth=0.4)
    rates = [module.p for module in network.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.4 * (index + 1) / len(rates) for index in range(len(rates))])
    assert rates[-1] == pytest.approx(0.4)
    assert len(rates) == {"small_resnet": 4, "efficientnet_b0": 16, "swin_t": 12}[name]


def test_dropped_branch_leaves_the_shortcut():
    network = make(stochastic_depth=0.5)
    block = network.backbone[3]
    block.bn2[1].p = 1.0
    features = torch.rand(2, 32, 8, 8)
    assert torch.equal(block(features), torch.relu(block.downsample(features)))


def test_stochastic_depth_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match="resnet18 has no residual blocks") as error:
        make("resnet18", stochastic_depth=0.2)
    assert "efficientnet" in error.value.hint
    assert "small_resnet" in error.value.hint


def test_small_resnet_has_the_size_that_is_documented():
    # Stem 288 + 64; blocks 19,648 / 57,728 / 230,144 / 919,040; classifier 514, with one input channel.
    assert parameter_count(make()) == 288 + 64 + 19_648 + 57_728 + 230_144 + 919_040 + 514


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("resnet19", 64, "'resnet19' is not known\nNearest: .*resnet18"),
        ("inception_v3", 64, "64 x 64"),
        ("vit_b_16", 70, "70 x 70"),
        ("alexnet", 16, "16 x 16"),
        ("maxvit_t", 64, "64 x 64"),
    ],
)
def test_unusable_backbones_are_refused_before_training(name, size, words):
    with pytest.raises(ConfigError, match=r"(?s)model\.name: .*" + words):
        make(name, size=size)


def test_start_depends_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = make(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = make(seed=3), make(seed=4)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert not torch.equal(first.backbone[0].weight, other.backbone[0].weight)


def test_the_classifier_is_the_last_layer():
    network = make("mobilenet_v2")
    assert [tuple(parameter.shape) for parameter in network.classifier.parameters()] == [(2, 1280), (2,)]


@pytest.mark.parametrize(
    ("normalisation", "channels", "mean", "deviation"),
    [
        ("half", 1, [0.5], [0.5]),
        ("none", 3, [0.0] * 3, [1.0] * 3),
        ("imagenet", 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("imagenet", 1, [0.449], [0.226]),
    ],
)
def test_films_are_normalised_before_the_backbone(normalisation, channels, mean, deviation):
    network = make(channels=channels, normalisation=normalisation)
    network.backbone = nn.Flatten()
    images = films(2, channels)
    expected = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(deviation).view(-1, 1, 1)
    torch.testing.assert_close(network.features(images).view_as(images), expected)
    assert not any(key in network.state_dict() for key in ("mean", "deviation"))


@pytest.mark.parametrize("name", ["small_resnet", "mobilenet_v2"])
def test_one_channel_equals_three_equal_channels(name):
    grey, colour = make(name, 1, normalisation="half").eval(), make(name, 3, normalisation="half").eval()
    with torch.no_grad():
        # Sums of 27 products in another order; the layers after them carry it on.
        torch.testing.assert_close(grey(films()), colour(films().repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in EVERY]
)
def test_every_backbone_learns_from_films_of_odd_sizes(name, channels):
    # Inception needs 75 pixels, and a vision transformer whole patches of 16.
    size = {"inception_v3": 81, "vit_b_16": 48}.get(name, 57)
    network = make(name, channels, size)
    logits = network(films(2, channels, size))
    assert logits.shape == (2, 2)
    logits.square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.shape[1] == channels
    assert not any(key.startswith(("backbone.AuxLogits", "backbone.aux")) for key in network.state_dict())


# -- heads ------------------------------------------------------------------------------------------------------------


def test_hidden_head_is_norm_dropout_hidden_layer_dropout_and_a_linear_layer():
    network = make(head="hidden", head_hidden=24, dropout=0.3)
    kinds = [type(module) for module in network.classifier]
    assert kinds == [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout) and module.p] == [0.3, 0.3]
    assert (network.width, network.last.in_features, network.last.out_features) == (256, 24, 2)
    assert make(head="hidden").last.in_features == 512
    assert make().width == make().classifier.in_features == 256
    network.eval()
    features = network.features(films())
    head = network.classifier
    by_hand = (features - head.norm.running_mean) / (head.norm.running_var + head.norm.eps).sqrt()
    by_hand = head.linear(torch.relu(head.hidden(by_hand)))
    torch.testing.assert_close(network(films()), by_hand)


def test_a_hidden_head_leaves_the_backbone_as_it_was():
    plain, hidden = make(seed=3).state_dict(), make(seed=3, head="hidden").state_dict()
    backbone = [key for key in plain if key.startswith("backbone.")]
    assert backbone
    assert all(torch.equal(plain[key], hidden[key]) for key in backbone)
    again = make(seed=3, head="hidden").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in hidden.items())


def test_all_of_a_hidden_head_is_trained_as_the_classifier():
    network = make(head="hidden", head_hidden=8)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    head = {name for name in names.values() if name.startswith("classifier.")}
    assert {names[id(parameter)] for parameter in network.classifier.parameters()} == head
    groups = optim.optimizer(network, OptimConfig()).param_groups
    grouped = {names[id(p)] for group in groups if group["name"].startswith("classifier/") for p in group["params"]}
    assert grouped == head
    decayed = next(group for group in groups if group["name"] == "classifier/decay")["params"]
    assert {names[id(p)] for p in decayed} == {"classifier.hidden.weight", "classifier.linear.weight"}


def test_activation_maps_look_through_a_hidden_head():
    network = make(head="hidden", head_hidden=8)
    assert has_feature_map(network, (1, 64, 64))
    maps = activation_maps(network, films(), [0, 1])
    assert maps.shape == (2, 64, 64)
    assert np.isfinite(maps).all()
    assert maps.max() == pytest.approx(1)


def test_stochastic_depth_is_a_matter_of_the_backbone_not_of_the_head():
    with pytest.raises(ConfigError, match="resnet18 has no residual blocks"):
        make("resnet18", head="hidden", dropout=0.5, stochastic_depth=0.2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"head_hidden": 8}, "head_hidden: does nothing without head: hidden"),
        ({"initialise": "mean_var"}, "initialise: 'mean_var' needs pretrained weights"),
        ({"initialise": "lowest", "pretrained_blocks": 1}, "initialise: 'lowest' needs pretrained weights"),
        ({"initialise": "lowest", "weights": "imagenet"}, "pretrained_blocks: goes with initialise: lowest"),
        ({"pretrained_blocks": 1, "weights": "imagenet"}, "pretrained_blocks: goes with initialise: lowest"),
    ],
)
def test_settings_that_do_nothing_together_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ModelConfig(**settings)
