"""A calibrated model as one module of tensors, for graphs and for code that expects another kind of model.

What :mod:`noisy_student.stats.calibration` and :mod:`noisy_student.stats.consensus` compute of arrays is computed here
of tensors, in double precision: a logarithm of nearly nothing stands in the way back from some losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import torch
from scipy.special import expit, logit
from torch import Tensor, nn
from torch.nn import functional

from noisy_student.errors import UsageError
from noisy_student.labels import SPELLINGS, canonical
from noisy_student.stats.calibration import Calibration
from noisy_student.stats.consensus import Consensus
from noisy_student.stats.links import RARE, Link, corners

XRV_RANGE: Final = 1024.0
"""torchxrayvision's films go from minus this to this."""


class LogOdds(nn.Module):
    """Logits (B, K) -> calibrated log-odds (B, K) in double precision, as :meth:`Calibration.log_odds`."""

    shift: Tensor
    drawn: Tensor
    slope: Tensor
    intercept: Tensor

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.link = calibration.link
        for name in ("shift", "drawn", "slope", "intercept"):
            values = [getattr(platt, name) for platt in calibration.platt]
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64))

    def forward(self, logits: Tensor) -> Tensor:
        """Return calibrated log-odds of ``logits``."""
        z = logits.double() - self.shift
        return self.slope * (link_log_odds(self.link, z) - self.drawn) + self.intercept


def link_log_odds(link: Link, z: Tensor) -> Tensor:
    """Return the log-odds behind logits ``z``, double, of any shape; as :meth:`Link.log_odds`."""

    def focusing(inside: Tensor) -> Tensor:
        return _focusing(link, inside)

    if link.free:
        z = _continued(focusing, z, *corners(link))
    elif link.name != "identity":
        z = focusing(z)
    z = z - link.odds
    if not link.smoothing:
        return z
    half = link.smoothing / 2
    end = float(logit(half + (1 - link.smoothing) * expit(-RARE)))
    return _continued(lambda inside: (inside.sigmoid() - half).log() - ((-inside).sigmoid() - half).log(), z, end, -end)


def _focusing(link: Link, z: Tensor) -> Tensor:
    g1, g0 = link.gamma_positive, link.gamma_negative
    positive = (1 - g1) * _softplus(z) + _log_sum(g1, -z)
    if not link.free:
        return (1 - g0) * _softplus(-z) + _log_sum(g0, z) - positive
    over = z.sigmoid() - link.free
    return (g0 - 1) * over.log() + (over / (1 - over) - g0 * (1 - over).log()).log() - positive


def _softplus(z: Tensor) -> Tensor:
    # Written out: torch's own turns into z above 20, which would be a step of 2e-9 within an ONNX graph of doubles.
    return z.clamp(min=0) + (1 + (-z.abs()).exp()).log()


def _log_sum(gamma: float, z: Tensor) -> Tensor:
    """Return log(gamma * softplus(z) + e^z)."""
    if not gamma:
        return z
    log_softplus = torch.where(z < -30, z, _softplus(z.clamp(min=-30)).log())
    first = math.log(gamma) + log_softplus
    return torch.maximum(first, z) + (1 + (-(first - z).abs()).exp()).log()


def _continued(function: Callable[[Tensor], Tensor], z: Tensor, low: float, high: float) -> Tensor:
    inside = z.clamp(low, high)
    return function(inside) + (z - inside)


class Calibrated(nn.Module):
    """Films, float (B, C, S, S) in [0, 1] -> calibrated probabilities (B, K), float32: the mean over the members of an
    ensemble, or what the mean of the logits of several networks means.

    Raises:
        UsageError: the model is asked with light views, which are drawn film by film.
    """

    def __init__(self, networks: Sequence[nn.Module], calibration: Consensus, tta: str | int) -> None:
        super().__init__()
        if isinstance(tta, int):
            raise UsageError(
                f"the model is asked with {tta} light views (prediction.tta), which a graph cannot draw film by film",
                "Use ns predict or noisy_student.load, or train with prediction.tta none or flip.",
            )
        self.networks = nn.ModuleList(networks)
        self.log_odds = nn.ModuleList(LogOdds(one.image) for one in calibration.fitted)
        self.flip = tta == "flip"

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (B, K) of ``images``."""
        logits = [self._logits(network, images) for network in self.networks]
        if len(self.log_odds) == 1:
            logits = [torch.stack(logits).mean(dim=0)]
        said = [of(one).sigmoid() for of, one in zip(self.log_odds, logits, strict=True)]
        return torch.stack(said).mean(dim=0).float()

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        logits: Tensor = network(images)
        return (logits + network(images.flip(-1))) / 2 if self.flip else logits


class OfBytes(nn.Module):
    """Films as they are decoded, uint8 (B, C, S, S) -> calibrated probabilities (B, K)."""

    def __init__(self, calibrated: Calibrated) -> None:
        super().__init__()
        self.calibrated = calibrated

    def forward(self, films: Tensor) -> Tensor:
        """Return probabilities (B, K) of ``films``."""
        said: Tensor = self.calibrated(films.to(torch.float32) / 255.0)
        return said


class XrvAdapter(nn.Module):
    """A model of ours for code that was written for torchxrayvision's: ``pathologies``, and films in [-1024, 1024].

    Attributes:
        pathologies: the K labels in the order of the outputs, in torchxrayvision's words where it has them
            (``Effusion``, ``Pleural_Thickening``).
        size: the side of the films that the networks see; others are resized.
    """

    def __init__(self, calibrated: Calibrated, labels: Sequence[str], channels: int, size: int) -> None:
        super().__init__()
        theirs = SPELLINGS["torchxrayvision"]
        self.calibrated, self.channels, self.size = calibrated.eval(), channels, size
        self.pathologies = [theirs.get(canonical(name), name) for name in labels]

    def forward(self, films: Tensor) -> Tensor:
        """Return calibrated probabilities (B, K) of ``films``, float (B, 1, H, W) in [-1024, 1024].

        Raises:
            ValueError: they are of another shape.
        """
        if films.ndim != 4 or films.shape[1] != 1:
            raise ValueError(f"films have shape {tuple(films.shape)}; torchxrayvision's are (B, 1, H, W)")
        images = (films.float() + XRV_RANGE) / (2 * XRV_RANGE)
        if images.shape[2:] != (self.size, self.size):
            images = functional.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        said: Tensor = self.calibrated(images.expand(-1, self.channels, -1, -1))
        return said
