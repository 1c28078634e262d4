"""Weighted multi-label cross-entropy on soft targets with unknown entries, and the class weights for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional


def weighted_bce(
    logits: Tensor, target: Tensor, weight: Tensor, pos_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weighted sum of binary cross-entropies and the sum of the weights, two scalars.

    For an entry with logit x, target y, weight w and class weight c it is
    ``w * (c * y * softplus(-x) + (1 - y) * softplus(x))``, finite for every finite x. The two sums are apart so that
    the mean can be taken over several processes. Class weights are not part of the sum of weights: they change the
    balance of a label, not how much it is known.

    Args:
        logits: (B, K).
        target: (B, K) in [0, 1]; ignored, and free to be NaN, where the weight is 0.
        weight: (B, K), >= 0; entries of 0 have a gradient of exactly 0.
        pos_weight: (K,) or (B, K) class weights c > 0; ``None`` is 1.
    """
    # Half precision holds neither the loss nor a sum of thousands of entries.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    known = weight > 0
    target = torch.where(known, target, 0.0).to(logits.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight, reduction="none")
    return torch.where(known, loss * weight, 0.0).sum(), weight.sum()


def mean_loss(loss_sum: Tensor, weight_sum: Tensor) -> Tensor:
    """Return ``loss_sum / weight_sum``; 0, with a gradient of 0, where nothing is known."""
    return loss_sum / torch.where(weight_sum > 0, weight_sum, 1.0)


def positive_weights(
    target: npt.NDArray[np.floating], weight: npt.NDArray[np.floating], cap: float
) -> npt.NDArray[np.float32]:
    """Return each label's class weight, negatives / positives clipped to [1, ``cap``], as float32 (K,).

    Never below 1: a label that most films bear would otherwise have its positives turned down, and the shift that is
    taken out of the logits again (``log(pos_weight)``) would no longer be one of rare labels alone. A label without
    positives or without negatives has no ratio and gets 1.

    Args:
        target: (N, K) in [0, 1]; soft targets count with their share; ignored where the weight is 0.
        weight: (N, K), >= 0.
        cap: the largest weight, >= 1.
    """
    known = weight > 0
    target, weight = np.where(known, target, 0.0), np.where(known, weight, 0.0).astype(np.float64)
    positives = (target * weight).sum(axis=0)
    negatives = ((1.0 - target) * weight).sum(axis=0)
    defined = (positives > 0) & (negatives > 0)
    ratio = np.divide(negatives, positives, out=np.ones_like(positives), where=defined)
    clipped: npt.NDArray[np.float32] = np.clip(ratio, 1.0, cap).astype(np.float32)
    return clipped
