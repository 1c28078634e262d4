from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from noisy_student.config.learning import ModelConfig
from noisy_student.learning import models
from noisy_student.learning.maps import activation_maps, has_feature_map


class Toy(nn.Module):
    """A network with a feature map of two channels and a linear head over their means."""

    def __init__(self, head: list[list[float]]) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool2d(2))
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(2, len(head), bias=False)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            self.features[0].weight.copy_(torch.rand(2, 1, 3, 3, generator=generator) - 0.3)
            self.head.weight.copy_(torch.tensor(head))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.flat(self.pool(self.features(images))))


class Quadrants(nn.Module):
    """Logit k is the brightness of quadrant k, seen through a feature map of 4 x 4 places."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 2, 4, 4, bias=False)
        self.masks = nn.Parameter(torch.zeros(2, 4, 4))
        with torch.no_grad():
            self.patches.weight.fill_(1 / 16)
            self.masks[0, :2, :2] = 1
            self.masks[1, 2:, 2:] = 1
        self.gate = Gate(self.masks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.gate(self.patches(images)).sum(dim=(2, 3))


class Gate(nn.Module):
    def __init__(self, masks: nn.Parameter) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.masks


def films(count: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(0))


def test_map_is_highest_in_the_quadrant_the_logit_depends_on():
    maps = activation_maps(Quadrants(), films(2) * 0.5 + 0.5, [0, 1])
    assert maps is not None
    # Places are 4 pixels wide, so bilinear enlargement reaches 2 pixels beyond the quadrant.
    for film, (inside, reached) in enumerate([(slice(0, 8), slice(0, 10)), (slice(8, 16), slice(6, 16))]):
        outside = np.ones((16, 16), dtype=bool)
        outside[reached, reached] = False
        assert maps[film][inside, inside].max() == 1
        assert maps[film][inside, inside].mean() > 0.6
        assert (maps[film][outside] == 0).all()


def test_map_agrees_with_the_formula_computed_by_hand():
    network, images, columns = Toy([[1.0, -0.4], [-0.2, 0.7], [0.5, 0.5]]), films(), [2, 0, 1]
    maps = activation_maps(network, images, columns)
    assert maps is not None
    assert maps.dtype == np.float32
    assert maps.shape == (3, 16, 16)
    with torch.no_grad():
        features = network.features(images).double()  # (3, 2, 8, 8)
    for film, column in enumerate(columns):
        # With a mean over 64 places and a linear head, the gradient of the logit is head / 64 at every place.
        weights = network.head.weight[column].detach().double() / 64
        small = (weights[:, None, None] * features[film]).sum(0).clamp(min=0)
        large = nn.functional.interpolate(small[None, None], size=(16, 16), mode="bilinear")[0, 0]
        np.testing.assert_allclose(maps[film], (large / large.max()).numpy(), atol=1e-5)
        assert maps[film].max() == 1


def test_gradient_is_the_slope_of_the_logit():
    """The map of a head that is not linear in the features: weights from finite differences."""
    network = Toy([[1.0, -0.4]])
    network.head = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).requires_grad_(False)
    for number, parameter in enumerate(network.head.parameters()):
        values = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.copy_(3 * values - 1)
    maps = activation_maps(network, films(1), [0])
    assert maps is not None
    network.double()
    with torch.no_grad():
        features = network.features(films(1).double())
        means = features.mean(dim=(2, 3))
        step = 1e-5 * torch.eye(2, dtype=torch.float64)
        slopes = ((network.head(means + step) - network.head(means - step)) / 2e-5)[:, 0]
        small = (slopes[:, None, None] * features[0]).sum(0).clamp(min=0)
        large = nn.functional.interpolate(small[None, None], size=(16, 16), mode="bilinear")[0, 0]
    np.testing.assert_allclose(maps[0], (large / large.max()).numpy(), atol=1e-5)


def test_map_is_zero_where_nothing_speaks_for_the_label():
    maps = activation_maps(Toy([[-1.0, -1.0]]), films(), [0, 0, 0])
    assert maps is not None
    assert (maps == 0).all()


def test_films_of_a_batch_do_not_mix():
    network = models.build(ModelConfig(name="small_resnet", weights="none"), ("A", "B"), 1, 32, seed=0)
    images = films(3, 32)
    together = activation_maps(network, images, [0, 1, 0])
    assert together is not None
    for number, column in enumerate([0, 1, 0]):
        alone = activation_maps(network, images[number : number + 1], [column])
        assert alone is not None
        # Convolutions of another batch size may sum in another order.
        np.testing.assert_allclose(together[number], alone[0], atol=1e-4)


def test_network_is_left_as_it_was():
    network = models.build(ModelConfig(name="small_resnet", weights="none"), ("A",), 1, 32, seed=0).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = films(2, 32)
    with torch.inference_mode():
        assert activation_maps(network, images, [0, 0]) is not None
    assert network.training
    assert not images.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_frozen_network_has_the_same_map():
    network = models.build(ModelConfig(name="small_resnet", weights="none"), ("A",), 1, 32, seed=0)
    free = activation_maps(network, films(1, 32), [0])
    frozen = activation_maps(network.requires_grad_(False), films(1, 32), [0])
    assert free is not None
    assert frozen is not None
    np.testing.assert_array_equal(free, frozen)


@pytest.mark.parametrize(
    ("name", "mapped"),
    [
        ("small_resnet", True),
        ("mobilenet_v3_small", True),
        ("densenet121", True),
        ("squeezenet1_1", True),
        ("shufflenet_v2_x0_5", True),
        ("swin_t", True),
        ("vit_b_32", False),
    ],
)
def test_backbones_with_and_without_a_feature_map(name, mapped):
    network = models.build(ModelConfig(name=name, weights="none"), ("A", "B"), 1, 64, seed=0)
    assert has_feature_map(network, (1, 64, 64)) is mapped
    maps = activation_maps(network, films(1, 64), [1])
    assert (maps is not None) is mapped
    assert network.training
    if maps is not None:
        assert maps.shape == (1, 64, 64)
        assert maps.min() >= 0
        assert maps.max() in (0, 1)


@pytest.mark.parametrize(("size", "side"), [(64, 4), (32, 4), (128, 4)])
def test_maps_of_small_films_are_not_coarser_than_they_must_be(size, side, monkeypatch):
    """The last map of small_resnet has a side of size / 32: 1 or 2 places, where an earlier one has 4."""
    network = models.build(ModelConfig(), ("a", "b"), 1, size, seed=0)
    seen, enlarge = [], torch.nn.functional.interpolate

    def enlarged(maps, **more):
        seen.append(maps.shape[-1])
        return enlarge(maps, **more)

    monkeypatch.setattr(torch.nn.functional, "interpolate", enlarged)
    assert activation_maps(network, films(2, size), [0, 1]).shape == (2, size, size)
    assert seen == [side]
