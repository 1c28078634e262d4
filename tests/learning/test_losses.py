"""The loss against a written-out double-precision version and torch's own; class weights by counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from noisy_student.config import LossConfig
from noisy_student.learning.losses import (
    asymmetric,
    focal,
    mean_loss,
    positive_weights,
    prior_adjustment,
    smoothed,
    summed_loss,
    weighted_bce,
)


def example(batch=7, labels=5, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (batch, labels))
    target = rng.uniform(0, 1, (batch, labels))
    weight = rng.uniform(0, 2, (batch, labels)) * (rng.uniform(size=(batch, labels)) > 0.3)
    pos_weight = rng.uniform(0.5, 8, labels)
    return tuple(torch.from_numpy(values) for values in (logits, target, weight, pos_weight))


def by_hand(logits, target, weight, pos_weight):
    total = 0.0
    for i, j in np.ndindex(*logits.shape):
        p = 1 / (1 + np.exp(-logits[i, j]))
        total -= weight[i, j] * (pos_weight[i, j] * target[i, j] * np.log(p) + (1 - target[i, j]) * np.log(1 - p))
    return total


@pytest.mark.parametrize("per_entry", [False, True])
def test_sum_equals_the_written_out_formula(per_entry):
    logits, target, weight, pos_weight = example()
    full = pos_weight.expand_as(logits) if not per_entry else torch.linspace(0.2, 5, logits.numel()).view_as(logits)
    loss, total = weighted_bce(logits, target, weight, full if per_entry else pos_weight)
    expected = by_hand(*(values.numpy() for values in (logits, target, weight, full.double())))
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert total.item() == pytest.approx(weight.sum().item())


def test_equals_torch_where_everything_is_known():
    logits, target, _, pos_weight = example()
    loss, total = weighted_bce(logits, target, torch.ones_like(logits), pos_weight)
    expected = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight)
    torch.testing.assert_close(mean_loss(loss, total), expected)


def test_gradient():
    logits, target, weight, pos_weight = example(3, 2)
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: weighted_bce(x, target, weight, pos_weight)[0], (logits,))


def test_unknown_entries_have_no_part_even_with_nan_targets():
    logits, target, weight, pos_weight = example()
    weight[0, 0], weight[1, 1] = 0.0, 1.0
    poisoned = torch.where(weight > 0, target, torch.nan)
    logits.requires_grad_(True)
    loss, _ = weighted_bce(logits, poisoned, weight, pos_weight)
    loss.backward()
    clean, _ = weighted_bce(logits.detach(), target, weight, pos_weight)
    assert loss.item() == clean.item()
    assert torch.all(logits.grad[weight == 0] == 0.0)
    assert torch.all(logits.grad[weight > 0] != 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(dtype):
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    loss, _ = weighted_bce(logits, target, torch.ones(2, 2), torch.tensor([3.0, 3.0]))
    loss.backward()
    assert loss.dtype == torch.float32
    # Two entries are wrong by 1e4, one of them a positive of class weight 3; bf16 rounds 1e4 by 0.2 %.
    assert loss.item() == pytest.approx(4e4, rel=4e-3)
    torch.testing.assert_close(logits.grad.float(), torch.tensor([[1.0, -3.0], [0.0, 0.0]]))


def test_mean_without_known_entries_is_zero_with_zero_gradient():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mean = mean_loss(*weighted_bce(logits, torch.full((2, 3), torch.nan), torch.zeros(2, 3)))
    mean.backward()
    assert mean.item() == 0.0
    assert torch.all(logits.grad == 0.0)


def test_class_weights_are_negatives_over_positives():
    target = np.array([[1, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, np.nan, 0], [0, 0, 0, 0, 1]] * 25, dtype=np.float32)
    weight = np.where(np.isnan(target), 0.0, 1.0).astype(np.float32)
    target[:99, 4] = 0.0
    result = positive_weights(target, weight, cap=10.0)
    assert result.dtype == np.float32
    # 75/25; no positive; a third, so 1; no positive; 99/1 meets the cap.
    np.testing.assert_allclose(result, [3.0, 1.0, 1.0, 1.0, 10.0])
    np.testing.assert_allclose(positive_weights(target, weight, cap=1.0), 1.0)


def test_class_weights_count_soft_targets_with_their_share_and_weight():
    target, weight = np.array([[0.5], [0.0]]), np.array([[1.0], [2.0]])
    np.testing.assert_allclose(positive_weights(target, weight, 10.0), [5.0])  # 2.5 negatives, 0.5 positives
    assert positive_weights(np.ones((3, 1)), np.ones((3, 1)), 10.0) == 1.0


# -- the other losses ----------------------------------------------------------------------------------------------


PRIORS = np.array([0.1, 0.3, 0.5, 0.8, 0.02])


def charges_by_hand(name, x, column, **settings):
    """Return what a positive and a negative cost at the logit x of a column, in double precision."""
    if name == "logit_adjusted":
        x = x + settings["tau"] * np.log(PRIORS[column] / (1 - PRIORS[column]))
    p = 1 / (1 + np.exp(-x))
    if name == "focal":
        alpha = settings.get("alpha")
        weights = (1, 1) if alpha is None else (alpha, 1 - alpha)
        gamma = settings["gamma"]
        return -weights[0] * (1 - p) ** gamma * np.log(p), -weights[1] * p**gamma * np.log(1 - p)
    if name == "asymmetric":
        q = max(p - settings["shift"], 0)
        negative = -(q ** settings["gamma_negative"]) * np.log(1 - q) if q else 0.0
        return -((1 - p) ** settings["gamma_positive"]) * np.log(p), negative
    return -np.log(p), -np.log(1 - p)


OTHERS = [
    ("bce", {}),
    ("focal", {"gamma": 2.0}),
    ("focal", {"gamma": 0.5, "alpha": 0.25}),
    ("focal", {"gamma": 0.0}),
    ("asymmetric", {"gamma_positive": 1.0, "gamma_negative": 4.0, "shift": 0.05}),
    ("asymmetric", {"gamma_positive": 0.0, "gamma_negative": 0.5, "shift": 0.2}),
    ("asymmetric", {"gamma_positive": 0.0, "gamma_negative": 0.0, "shift": 0.05}),
    ("asymmetric", {"gamma_positive": 0.5, "gamma_negative": 2.0, "shift": 0.0}),
    ("logit_adjusted", {"tau": 1.0}),
    ("logit_adjusted", {"tau": 0.5}),
]


def configured(name, settings):
    config = LossConfig(name=name, **settings)
    moved = config.tau * np.log(PRIORS / (1 - PRIORS))
    loss = summed_loss(config, moved.astype(np.float32))
    return lambda logits, target, weight: loss(logits, target, weight, torch.full_like(weight, 7.0))


@pytest.mark.parametrize(("name", "settings"), OTHERS)
def test_other_losses_equal_the_written_out_formula_and_know_no_class_weights(name, settings):
    logits, target, weight, _ = example()
    expected = 0.0
    for i, j in np.ndindex(*logits.shape):
        positive, negative = charges_by_hand(name, logits[i, j].item(), j, **settings)
        expected += weight[i, j].item() * (target[i, j].item() * positive + (1 - target[i, j].item()) * negative)
    loss, total = configured(name, settings)(logits, target, weight)
    rounded = 1e-6 if name == "logit_adjusted" else 1e-9  # the adjustment is of single precision
    assert loss.item() == pytest.approx(expected, rel=rounded)
    assert total.item() == pytest.approx(weight.sum().item())


@pytest.mark.parametrize(("name", "settings"), OTHERS)
def test_gradients_of_the_other_losses(name, settings):
    logits, target, weight, _ = example(4, 5, seed=2)
    logits.requires_grad_(True)
    loss = configured(name, settings)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight)[0], (logits,))


@pytest.mark.parametrize(("name", "settings"), OTHERS)
def test_unknown_entries_have_no_part_in_any_loss(name, settings):
    logits, target, weight, _ = example()
    weight[0, 0], weight[1, 1] = 0.0, 1.0
    poisoned = torch.where(weight > 0, target, torch.nan)
    logits.requires_grad_(True)
    loss, _ = configured(name, settings)(logits, poisoned, weight)
    loss.backward()
    clean, _ = configured(name, settings)(logits.detach(), target, weight)
    assert loss.item() == clean.item()
    assert torch.all(logits.grad[weight == 0] == 0.0)
    assert torch.any(logits.grad[weight > 0] != 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "settings"), OTHERS)
def test_extreme_logits_stay_finite_in_any_loss(name, settings, dtype):
    logits = torch.tensor([[1e4, -1e4, 90.0, -90.0, 0.0]] * 3, dtype=dtype, requires_grad=True)
    target = torch.tensor([[0.0] * 5, [1.0] * 5, [0.3] * 5])
    loss, _ = configured(name, settings)(logits, target, torch.ones(3, 5))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert loss.item() > 1e4 / 4 - 1  # a positive at -1e4 is as wrong as can be


@pytest.mark.parametrize("shift", [1e-300, 1e-8, 1e-3])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
def test_the_asymmetric_loss_stays_finite_and_exact_for_a_tiny_shift(shift, gamma):
    values = [0.0, 1.0, 15.0, 40.0, 90.0, 1e4]
    logits = torch.tensor([values], requires_grad=True)
    each = torch.tensor([[0.0] * len(values)])
    loss, _ = asymmetric(logits, each, torch.ones_like(logits), gamma_positive=0, gamma_negative=gamma, shift=shift)
    loss.backward()
    exact = 0.0
    for value in values:
        q = 1 / (1 + math.exp(-value)) - shift if value else 0.5 - shift
        exact += q**gamma * -np.logaddexp(-np.logaddexp(0, value), math.log(shift))
    assert loss.item() == pytest.approx(exact, rel=1e-5)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, None), (2.0, 0.25), (0.7, 0.9)])
def test_the_focal_loss_is_torchvisions_on_hard_targets(gamma, alpha):
    logits, target, _, _ = example()
    target = target.round()
    loss, _ = focal(logits, target, torch.ones_like(logits), gamma=gamma, alpha=alpha)
    expected = sigmoid_focal_loss(logits, target, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="sum")
    torch.testing.assert_close(loss, expected)


def test_without_focusing_they_are_the_cross_entropy():
    logits, target, weight, _ = example()
    expected, _ = weighted_bce(logits, target, weight)
    for name, settings in [
        ("focal", {"gamma": 0.0}),
        ("asymmetric", {"gamma_positive": 0.0, "gamma_negative": 0.0, "shift": 0.0}),
    ]:
        torch.testing.assert_close(configured(name, settings)(logits, target, weight)[0], expected)


def test_free_negatives_cost_nothing_and_pull_nowhere():
    logits = torch.tensor([[-4.0, -2.0]], requires_grad=True)  # sigmoid 0.018 and 0.12
    loss, _ = configured("asymmetric", {})(logits, torch.zeros(1, 2), torch.ones(1, 2))
    loss.backward()
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] > 0


def test_the_adjustment_is_the_log_odds_of_the_prior():
    target = np.array([[1, 0, 1, 0.5], [0, 0, 1, 0], [0, 0, 1, np.nan], [0, 0, 1, 0]], dtype=np.float32)
    weight = np.where(np.isnan(target), 0.0, 1.0).astype(np.float32)
    # 1 to 3; no positive; no negative; 0.5 to 2.5.
    np.testing.assert_allclose(
        prior_adjustment(target, weight, 2.0), [2 * np.log(1 / 3), 0, 0, 2 * np.log(0.2)], rtol=1e-6
    )
    assert prior_adjustment(target, weight, 0).tolist() == [0, 0, 0, 0]


def test_smoothing_moves_targets_towards_a_half():
    target = torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(smoothed(target, 0.2), torch.tensor([0.1, 0.3, 0.9]))
    assert smoothed(target, 0.0) is target


def test_the_adjustment_is_copied_to_a_device_once(monkeypatch):
    moved, asked = torch.tensor([0.5, -1.0]), []

    class Stored:
        def to(self, device):
            asked.append(device)
            return moved

    monkeypatch.setattr(torch, "from_numpy", lambda _: Stored())
    loss = summed_loss(LossConfig(name="logit_adjusted"), np.zeros(2, dtype=np.float32))
    logits, target = torch.zeros(3, 2), torch.ones(3, 2)
    for _ in range(3):
        found, _ = loss(logits, target, torch.ones(3, 2), torch.ones(2))
        torch.testing.assert_close(found, weighted_bce(logits + moved, target, torch.ones(3, 2))[0])
    assert asked == [torch.device("cpu")]
