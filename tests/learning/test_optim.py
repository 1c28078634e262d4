"""Groups, schedule, average and BatchNorm statistics against sums done by hand."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from noisy_student.config.learning import OptimConfig
from noisy_student.learning.optim import Average, optimizer, rate, reestimate_batchnorm, set_rates


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.classifier = nn.Linear(4, 1)

    def forward(self, images):
        return self.classifier(self.backbone(images) + self.token)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny()


def films(count, seed=0):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_groups_hold_every_parameter_once_with_its_rate_and_decay(network):
    config = OptimConfig(lr=0.1, backbone_lr_ratio=0.2, weight_decay=0.3)
    groups = {group["name"]: group for group in optimizer(network, config).param_groups}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    held = {key: sorted(names[id(parameter)] for parameter in group["params"]) for key, group in groups.items()}
    assert held == {
        "backbone/decay": ["backbone.0.weight"],
        "backbone/plain": ["backbone.0.bias", "backbone.1.bias", "backbone.1.weight", "token"],
        "classifier/decay": ["classifier.weight"],
        "classifier/plain": ["classifier.bias"],
    }
    assert {key: group["lr"] for key, group in groups.items()} == {
        "backbone/decay": pytest.approx(0.02),
        "backbone/plain": pytest.approx(0.02),
        "classifier/decay": 0.1,
        "classifier/plain": 0.1,
    }
    assert {key: group["weight_decay"] for key, group in groups.items()} == {
        "backbone/decay": 0.3,
        "backbone/plain": 0.0,
        "classifier/decay": 0.3,
        "classifier/plain": 0.0,
    }


def test_rates_fall_from_block_to_block(network):
    config = OptimConfig(lr=0.1, backbone_lr_ratio=0.5, layer_decay=0.3)
    depth = {name: 2 if name.startswith("backbone.0") else 1 for name, _ in network.named_parameters()}
    adamw = optimizer(network, config, depth=depth)
    rates = {(group["name"], group["depth"]): group["lr"] for group in adamw.param_groups}
    assert rates == {
        ("backbone/decay", 2): pytest.approx(0.1 * 0.5 * 0.3**2),
        ("backbone/plain", 2): pytest.approx(0.1 * 0.5 * 0.3**2),
        ("backbone/plain", 1): pytest.approx(0.1 * 0.5 * 0.3),
        ("classifier/decay", 0): 0.1,
        ("classifier/plain", 0): 0.1,
    }
    held = [id(parameter) for group in adamw.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())
    set_rates(adamw, 0.01, 1.0, 1.0)
    assert {group["lr"] for group in adamw.param_groups} == {0.01}


def test_first_step_is_adamw_by_hand(network):
    config = OptimConfig(lr=0.1, backbone_lr_ratio=0.5, weight_decay=0.3)
    adamw = optimizer(network, config)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    adamw.step()
    for name, parameter in network.named_parameters():
        lr = 0.1 if name.startswith("classifier") else 0.05
        decay = 0.3 if name in ("backbone.0.weight", "classifier.weight") else 0.0
        # Adam's first step is the sign of the gradient.
        torch.testing.assert_close(parameter.detach(), before[name] * (1 - lr * decay) - lr, msg=name)


def test_rate_rises_in_a_line_then_falls_as_a_cosine():
    config = OptimConfig(steps=110, warmup_share=10 / 110)
    rates = [rate(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[35] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3
    with pytest.raises(AssertionError):
        rate(110, config)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rate_is_defined_without_warmup_and_with_nothing_else(share):
    config = OptimConfig(steps=4, warmup_share=share)
    rates = [rate(step, config) for step in range(4)]
    assert rates == pytest.approx([1, 0.75 + 0.1035534, 0.5, 0.1464466] if share == 0 else [0.25, 0.5, 0.75, 1])
    assert all(0 < value <= 1 for value in rates)


@pytest.mark.parametrize("bn_images", [0, 16])
def test_average_follows_the_warmed_up_rule(network, bn_images):
    config = OptimConfig(ema_decay=0.3, bn_images=bn_images)
    average = Average(network, config)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    bias, mean, counter = network.classifier.bias, network.backbone[1].running_mean, network.backbone[1]
    expected_bias = expected_mean = None
    for n in range(6):
        with torch.no_grad():
            bias.fill_(float(n * n))
            mean.fill_(float(n))
            counter.num_batches_tracked.fill_(n)
        average.update_parameters(network)
        keep = min(0.3, (1 + n) / (10 + n))  # the decay is reached at n = 4
        expected_bias = n * n if n == 0 else keep * expected_bias + (1 - keep) * n * n
        expected_mean = n if n == 0 or bn_images else keep * expected_mean + (1 - keep) * n
    assert average.module.classifier.bias.item() == pytest.approx(expected_bias, rel=1e-6)
    assert average.module.backbone[1].running_mean[0].item() == pytest.approx(expected_mean, rel=1e-6)
    assert average.module.backbone[1].num_batches_tracked.item() == 5


def test_average_survives_a_round_trip_of_its_state(network):
    config = OptimConfig(ema_decay=0.9)
    first = Average(network, config)
    first.update_parameters(network)
    second = Average(network, config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    with torch.no_grad():
        network.classifier.bias.add_(1.0)
    for average in (first, second):
        average.update_parameters(network)
    assert torch.equal(first.module.classifier.bias, second.module.classifier.bias)
    assert not torch.equal(first.module.classifier.bias, network.classifier.bias)


def test_batchnorm_statistics_are_the_mean_over_batches(network):
    norm = network.backbone[1]
    network.train()
    network(films(8))  # statistics and a count to be forgotten
    network.backbone[2].eval()  # one mode unlike the others, to be restored
    norm.momentum = 0.25
    batches = [films(8, 1), films(8, 2), films(8, 3)]
    with torch.no_grad():
        inputs = [network.backbone[0](batch) for batch in batches]
    reestimate_batchnorm(network, iter(batches))
    means = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert norm.momentum == 0.25
    assert network.training
    assert norm.training
    assert not network.backbone[2].training


def test_batchnorm_is_restored_after_an_error_and_untouched_without_a_batch(network):
    norm = network.backbone[1]
    norm.running_mean.fill_(7.0)
    reestimate_batchnorm(network.eval(), [])
    assert norm.running_mean.tolist() == [7.0] * 4
    with pytest.raises(RuntimeError):
        reestimate_batchnorm(network, [torch.zeros(2, 5, 8, 8)])
    assert norm.momentum == 0.1
    assert not norm.training


def test_without_batchnorm_nothing_is_computed():
    def batches():
        raise RuntimeError("no batch should be asked for")
        yield

    network = nn.Linear(2, 2)
    before = copy.deepcopy(network.state_dict())
    reestimate_batchnorm(network, batches())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
