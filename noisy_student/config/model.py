"""Settings of the network: backbone, head, where its first weights come from and which of them are kept."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section


class ModelConfig(Section):
    """The network and where its first weights come from."""

    name: str = "small_resnet"
    """A torchvision classification backbone by name, ``timm/NAME`` (needs the extra ``timm``), or ``small_resnet``
    (1.2 M parameters, for small films)."""
    weights: str = "none"
    """``none``, ``imagenet`` (torchvision's or timm's own, by name), ``xrv:NAME`` (torchxrayvision's, for example
    ``xrv:densenet121-res224-chex``), or a file, a finished run or a generation of one: an absolute path, or looked up
    in ``$NS_WEIGHTS``, the working folder, ``data.root`` and a folder ``weights`` beside it. A run gives its best
    generation, and the rows of its classifier whose labels are ours by name (docs/models.md)."""
    normalisation: Literal["auto", "imagenet", "half", "none", "xrv"] = "auto"
    """What the backbone expects of a film: ``imagenet`` (its mean and deviation), ``half`` (x * 2 - 1), ``none``
    ([0, 1]) or ``xrv`` ([-1024, 1024]). ``auto`` is what the weights bring with them; ``imagenet`` where they bring
    nothing."""
    head: Literal["linear", "hidden"] = "linear"
    """What stands on the pooled features: ``linear`` is dropout and a linear layer; ``hidden`` is batch norm, dropout,
    a hidden layer with ReLU, dropout, a linear layer."""
    head_hidden: int | None = Field(None, ge=1)
    """Width of the hidden layer of ``head: hidden``; ``null`` is 512."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before every layer of the head (model noise)."""
    stochastic_depth: float = Field(0.0, ge=0, lt=1)
    """Drop probability of the deepest block (linear rule); refused for backbones without it."""
    initialise: Literal["pretrained", "mean_var", "lowest"] = "pretrained"
    """What is taken of ``weights``: ``pretrained`` all of the backbone; ``mean_var`` of each tensor only its mean and
    variance, from which it is drawn anew (Raghu et al. 2019); ``lowest`` the lowest ``pretrained_blocks`` blocks, the
    others as without weights."""
    pretrained_blocks: int | None = Field(None, ge=1)
    """How many blocks ``initialise: lowest`` takes from the weights, counted from the film."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head_hidden is not None and self.head != "hidden":
            raise ValueError("head_hidden: does nothing without head: hidden")
        if self.initialise != "pretrained" and self.weights == "none":
            raise ValueError(f"initialise: '{self.initialise}' needs pretrained weights, and weights is 'none'")
        if (self.pretrained_blocks is None) == (self.initialise == "lowest"):
            raise ValueError("pretrained_blocks: goes with initialise: lowest, and is needed there")
        return self

    def hidden_width(self) -> int | None:
        """Return the width of the head's hidden layer, ``None`` where it has none."""
        return (self.head_hidden or 512) if self.head == "hidden" else None

    def keeps_statistics(self) -> bool:
        """Return whether ``weights`` give every layer what it has learnt, the statistics of BatchNorm among it."""
        return self.weights != "none" and self.initialise == "pretrained"

    def takes_all_of(self, other: ModelConfig) -> bool:
        """Return whether a network of this kind can start as a copy of a network of ``other``'s, the head included."""
        same = (self.name, self.hidden_width()) == (other.name, other.hidden_width())
        return same and self.normalisation in ("auto", other.normalisation)
