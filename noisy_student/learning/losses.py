"""Losses of logits on soft targets with unknown entries, and what of the targets table goes into them.

Every loss is ``loss(logits, target, weight) -> (sum, sum of weights)`` and linear in the target: a soft target y costs
y times what a positive costs and 1 - y times what a negative costs. So the mean over films that are y to 1 - y positive
is minimised by the same logit as one film with the target y, and mixed films may have mixed targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from noisy_student.config import LossConfig

Values = TypeVar("Values", Tensor, npt.NDArray[np.float32])
Summed = tuple[Tensor, Tensor]
SummedLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Summed]


def weighted_bce(logits: Tensor, target: Tensor, weight: Tensor, pos_weight: Tensor | None = None) -> Summed:
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
    logits = _exact(logits)
    known = weight > 0
    target = torch.where(known, target, 0.0).to(logits.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight, reduction="none")
    return torch.where(known, loss * weight, 0.0).sum(), weight.sum()


def focal(logits: Tensor, target: Tensor, weight: Tensor, *, gamma: float, alpha: float | None = None) -> Summed:
    """Return the weighted sum of focal losses and the sum of the weights.

    Lin et al., "Focal loss for dense object detection", ICCV 2017: with p = sigmoid(x) a positive costs
    ``(1 - p) ** gamma * -log(p)`` and a negative ``p ** gamma * -log(1 - p)``, times ``alpha`` and ``1 - alpha`` where
    it is given. Arguments as in :func:`weighted_bce`.
    """
    logits = _exact(logits)
    positive = torch.exp(gamma * functional.logsigmoid(-logits)) * -functional.logsigmoid(logits)
    negative = torch.exp(gamma * functional.logsigmoid(logits)) * -functional.logsigmoid(-logits)
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return _summed(positive, negative, target, weight)


def asymmetric(
    logits: Tensor, target: Tensor, weight: Tensor, *, gamma_positive: float, gamma_negative: float, shift: float
) -> Summed:
    """Return the weighted sum of asymmetric losses and the sum of the weights.

    Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021: a positive costs
    ``(1 - p) ** gamma_positive * -log(p)``, a negative ``q ** gamma_negative * -log(1 - q)`` with
    ``q = max(p - shift, 0)``. The gradient is that of the formula; the authors' code can leave out the factors' own.
    Arguments as in :func:`weighted_bce`.
    """
    logits = _exact(logits)
    positive = torch.exp(gamma_positive * functional.logsigmoid(-logits)) * -functional.logsigmoid(logits)
    if shift:
        over = torch.sigmoid(logits) - shift
        matters = over > 0
        over = torch.where(matters, over, 0.5)  # any number whose powers and logarithm have a gradient
        # 1 - q = sigmoid(-x) + shift, which holds what is left of 1 where q itself rounds to 1.
        near_one = torch.logaddexp(functional.logsigmoid(-logits), logits.new_tensor(math.log(shift)))
        rest = torch.where(over > 0.5, near_one, torch.log1p(-over.clamp(max=0.5)))
        negative = torch.where(matters, over**gamma_negative * -rest, 0.0)
    else:
        negative = torch.exp(gamma_negative * functional.logsigmoid(logits)) * -functional.logsigmoid(-logits)
    return _summed(positive, negative, target, weight)


def logit_adjusted(logits: Tensor, target: Tensor, weight: Tensor, *, adjustment: Tensor) -> Summed:
    """Return the weighted sum of cross-entropies of ``logits + adjustment`` and the sum of the weights.

    Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, for labels that are yes or no: ``adjustment``
    (K,) is tau times the log-odds of the prior, so that with tau = 1 the logits without it rank and cut films as if
    positives and negatives were equally many. Other arguments as in :func:`weighted_bce`.
    """
    return weighted_bce(logits + adjustment, target, weight)


def _exact(logits: Tensor) -> Tensor:
    # Half precision holds neither the loss nor a sum of thousands of entries.
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _summed(positive: Tensor, negative: Tensor, target: Tensor, weight: Tensor) -> Summed:
    known = weight > 0
    target = torch.where(known, target, 0.0).to(positive.dtype)
    loss = target * positive + (1 - target) * negative
    return torch.where(known, loss * weight, 0.0).sum(), weight.sum()


def smoothed(target: Values, smoothing: float) -> Values:
    """Return ``target * (1 - smoothing) + smoothing / 2`` (Szegedy et al. 2016, for labels that are yes or no)."""
    return target * (1 - smoothing) + smoothing / 2 if smoothing else target


def summed_loss(config: LossConfig, adjustment: npt.NDArray[np.float32]) -> SummedLoss:
    """Return ``loss(logits, target, weight, pos_weight) -> (sum, sum of weights)`` of a configuration.

    ``pos_weight`` has a part in ``weighted_bce`` alone, and ``adjustment`` (K,), of :func:`prior_adjustment`, in
    ``logit_adjusted``. ``auc_margin`` has parameters and is an objective of its own.
    """
    if config.name == "weighted_bce":
        return weighted_bce
    chosen: Callable[[Tensor, Tensor, Tensor], Summed] = weighted_bce
    if config.name == "focal":
        chosen = partial(focal, gamma=config.gamma, alpha=config.alpha)
    elif config.name == "asymmetric":
        chosen = partial(
            asymmetric,
            gamma_positive=config.gamma_positive,
            gamma_negative=config.gamma_negative,
            shift=config.shift,
        )
    elif config.name == "logit_adjusted":
        placed = lru_cache(torch.from_numpy(adjustment).to)  # copied to a device once, not in every step

        def chosen(logits: Tensor, target: Tensor, weight: Tensor) -> Summed:
            return logit_adjusted(logits, target, weight, adjustment=placed(logits.device))

    return lambda logits, target, weight, _: chosen(logits, target, weight)


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


def prior_adjustment(
    target: npt.NDArray[np.floating], weight: npt.NDArray[np.floating], tau: float
) -> npt.NDArray[np.float32]:
    """Return ``tau`` times the log-odds of each label's share of positives, float32 (K,); 0 where it has one class.

    Arguments as in :func:`positive_weights`.
    """
    known = weight > 0
    target, weight = np.where(known, target, 0.0), np.where(known, weight, 0.0).astype(np.float64)
    positives, negatives = (target * weight).sum(axis=0), ((1.0 - target) * weight).sum(axis=0)
    defined = (positives > 0) & (negatives > 0)
    odds = np.divide(positives, negatives, out=np.ones_like(positives), where=defined)
    adjustment: npt.NDArray[np.float32] = (tau * np.log(odds)).astype(np.float32)
    return adjustment
