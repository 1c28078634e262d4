"""The loss against a written-out double-precision version and torch's own; class weights by counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from noisy_student.learning.losses import mean_loss, positive_weights, weighted_bce


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
