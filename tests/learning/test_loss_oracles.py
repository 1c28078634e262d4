"""Losses against those of other packages, where they are installed: they are no dependency of the tests."""

from __future__ import annotations

import pytest
import torch

from noisy_student.learning.losses import asymmetric
from noisy_student.learning.objectives import AucMargin


def films(labels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (40, K), a leaf, and targets of 0 and 1."""
    generator = torch.Generator().manual_seed(labels)
    logits = torch.randn(40, labels, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), (torch.rand(40, labels, generator=generator) < 0.3).double()


def test_auc_margin_is_that_of_libauc_over_the_variance_of_a_label() -> None:
    """Version v1: LibAUC multiplies by p (1 - p), p being the batch's share of positives."""
    reference = pytest.importorskip("libauc.losses.auc", exc_type=ImportError)
    logits, target = films(1)
    theirs, ours = reference.AUCMLoss(margin=1.0, version="v1", device="cpu").double(), AucMargin(1, 1.0).double()
    for name, value in {"a": 0.7, "b": 0.2, "alpha": 0.4}.items():
        getattr(theirs, name).data.fill_(value)
        getattr(ours, name).data.fill_(value)
    share = target.mean()
    expected = theirs(torch.sigmoid(logits), target) / (share * (1 - share))
    found = ours.loss(logits, target, torch.ones_like(target))
    torch.testing.assert_close(found, expected.reshape(()))
    own, other = (
        torch.autograd.grad(loss, [logits, one.a, one.b, one.alpha])
        for loss, one in ((found, ours), (expected.reshape(()), theirs))
    )
    for mine, its in zip(own[:3], other[:3], strict=True):
        torch.testing.assert_close(mine, its.reshape(mine.shape))
    # LibAUC's optimiser turns the gradient of alpha round, ours turns itself round.
    torch.testing.assert_close(own[3].abs(), other[3].reshape(own[3].shape).abs())


@pytest.mark.parametrize(("positive", "negative", "shift"), [(0.0, 4.0, 0.05), (1.0, 4.0, 0.05), (0.5, 2.0, 0.2)])
def test_the_asymmetric_loss_is_that_of_timm(positive: float, negative: float, shift: float) -> None:
    reference = pytest.importorskip("timm.loss.asymmetric_loss", exc_type=ImportError)
    logits, target = films(5)
    theirs = reference.AsymmetricLossMultiLabel(gamma_neg=negative, gamma_pos=positive, clip=shift)
    found, _ = asymmetric(
        logits, target, torch.ones_like(target), gamma_positive=positive, gamma_negative=negative, shift=shift
    )
    # In single precision; film by film, because only some versions divide by the number of films.
    expected = torch.stack([theirs(x, y) for x, y in zip(logits.split(1), target.split(1), strict=True)]).sum()
    torch.testing.assert_close(found, expected, check_dtype=False, rtol=1e-5, atol=0)
    own, other = (torch.autograd.grad(loss, logits)[0] for loss in (found, expected))
    torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)
