"""The network as it is trained and stored: normalisation, backbone, head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

Colours = tuple[float, float, float]

_NAMED: Final[dict[str, tuple[Colours, Colours]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "xrv": ((0.5, 0.5, 0.5), (1 / 2048, 1 / 2048, 1 / 2048)),  # torchxrayvision: [-1024, 1024]
}
_OWN: Final = "own"


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from a film in [0, 1] and what it is divided by, per channel; ``name`` for people."""

    name: str
    mean: Colours
    deviation: Colours

    @classmethod
    def named(cls, name: str) -> Normalisation:
        """Return a known one: "imagenet", "half" ([-1, 1]), "none" ([0, 1]), "xrv" ([-1024, 1024])."""
        return cls(name, *_NAMED[name])

    @classmethod
    def of(cls, mean: Sequence[float], deviation: Sequence[float]) -> Normalisation:
        """Return the one with these statistics of three channels, by its name where it has one ("own" where not)."""
        first, second, third = (float(value) for value in mean)
        one, two, three = (float(value) for value in deviation)
        pair = ((first, second, third), (one, two, three))
        return cls(next((name for name, values in _NAMED.items() if values == pair), _OWN), *pair)

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any]) -> Normalisation:
        """Return the one that a ``meta.json`` records."""
        if meta["normalisation"] in _NAMED:
            return cls.named(meta["normalisation"])
        return cls.of(meta["mean"], meta["deviation"])

    @property
    def has_name(self) -> bool:
        """Whether a configuration can name it."""
        return self.name in _NAMED

    def to_meta(self) -> dict[str, Any]:
        """Return what ``meta.json`` records of it."""
        return {"normalisation": self.name, "mean": list(self.mean), "deviation": list(self.deviation)}


class Network(nn.Module):
    """A backbone and a head.

    Attributes:
        backbone: (B, channels, size, size), normalised, -> features (B, D).
        dropout: before a linear head; a head with a hidden layer has its own.
        classifier: the head, features -> logits (B, K).
        labels: names of the K logits, in order.
        channels: 1 or 3.
        size: side of the films in pixels.
        map_layout: order of the axes of the backbone's last feature map, "NCHW" or "NHWC".
        head_key: where the backbone's own last layer was, the prefix of its parameters in files of weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classifier: nn.Module,
        dropout: float,
        *,
        labels: Sequence[str],
        channels: int,
        size: int,
        normalisation: Normalisation,
        head_key: str,
        map_layout: str = "NCHW",
    ) -> None:
        super().__init__()
        self.labels, self.channels, self.size = tuple(labels), channels, size
        self.head_key, self.map_layout = head_key, map_layout
        linear = isinstance(classifier, nn.Linear)
        self.backbone, self.classifier = backbone, classifier
        self.dropout: nn.Module = nn.Dropout(dropout) if linear else nn.Identity()
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.zeros(1, channels, 1, 1), persistent=False)
        self.normalise(normalisation)

    def normalise(self, normalisation: Normalisation) -> None:
        """Normalise films like this from now on."""
        self._normalisation = normalisation
        for buffer, values in ((self.mean, normalisation.mean), (self.deviation, normalisation.deviation)):
            statistics = torch.tensor(values).view(1, 3, 1, 1)
            # One channel: a grey film has no colour to be centred, so it takes the mean over the three.
            buffer.copy_(statistics.mean(1, keepdim=True) if self.channels == 1 else statistics)

    @property
    def normalisation(self) -> str:
        """The name of what films are normalised with."""
        return self._normalisation.name

    @property
    def statistics(self) -> Normalisation:
        """What films are normalised with."""
        return self._normalisation

    @property
    def last(self) -> nn.Linear:
        """The last linear layer: a row per label."""
        return next(module for module in reversed(list(self.classifier.modules())) if isinstance(module, nn.Linear))

    @property
    def width(self) -> int:
        """The number D of features that the head sees."""
        first = next(module for module in self.classifier.modules() if isinstance(module, nn.Linear))
        return first.in_features

    def features(self, images: Tensor) -> Tensor:
        """Return what the head sees, (B, D), of float ``images`` (B, channels, size, size) in [0, 1]."""
        features: Tensor = self.backbone((images - self.mean) / self.deviation)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of float ``images`` (B, channels, size, size) in [0, 1]."""
        logits: Tensor = self.classifier(self.dropout(self.features(images)))
        return logits


def hidden_head(width: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    """Return batch norm, dropout, a hidden layer with ReLU, dropout and a linear layer: (B, width) -> (B, classes)."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=nn.BatchNorm1d(width),
            dropout=nn.Dropout(dropout),
            hidden=nn.Linear(width, hidden),
            relu=nn.ReLU(inplace=True),
            dropout_hidden=nn.Dropout(dropout),
            linear=nn.Linear(hidden, classes),
        )
    )


def parameter_count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
