"""Settings of the learning side: model, optimisation, loss; one set for the teacher, one for the students."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section
from noisy_student.config.noise import NoiseConfig


class ModelConfig(Section):
    """The network and where its first weights come from."""

    name: str = "small_resnet"
    """A torchvision classification backbone by name, or ``small_resnet`` (1.2 M parameters, for small films)."""
    weights: str = "none"
    """``none``, ``imagenet`` (torchvision's, by name) or a file: absolute, or looked up in ``$NS_WEIGHTS``, the working
    folder, ``data.root`` and a folder ``weights`` beside it."""
    normalisation: Literal["imagenet", "half", "none"] = "imagenet"
    """What the weights expect: ``imagenet`` (its mean and deviation), ``half`` (x * 2 - 1) or ``none`` ([0, 1])."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the classifier (model noise)."""
    stochastic_depth: float = Field(0.0, ge=0, lt=1)
    """Drop probability of the deepest block (linear rule); refused for backbones without it."""


class OptimConfig(Section):
    """AdamW with warm-up and cosine decay, an averaged model, and when to look at validation."""

    steps: int = Field(600, ge=1)
    """Optimiser steps, the head-only phase included."""
    head_steps: int = Field(0, ge=0)
    """First steps that train only the classifier, with BatchNorm statistics frozen."""
    batch_size: int = Field(64, ge=2)
    """Films per step, labelled and pseudo-labelled together."""
    labelled_share: float = Field(0.25, gt=0, le=1)
    """Share of labelled films in a student's batch (the teacher's is 1)."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of the classifier, and of all layers unless ``backbone_lr_ratio`` is below 1."""
    backbone_lr_ratio: float = Field(1.0, gt=0, le=1)
    """Learning rate of the backbone as a share of the classifier's."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay of matrices and filters (not of biases and norms)."""
    warmup_share: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the rate rises."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    ema_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the averaged weights; warmed up as min(decay, (1 + n) / (10 + n))."""
    bn_images: int = Field(512, ge=0)
    """Clean training films on which the averaged model's BatchNorm statistics are estimated again; 0 averages them."""
    freeze_bn: bool = False
    """Keep the BatchNorm statistics of the start weights, in training and after; scales and shifts still learn."""
    eval_every: int = Field(100, ge=1)
    """Steps between looks at validation."""
    save_every: int = Field(100, ge=1)
    """Steps between resumable checkpoints."""
    select: Literal["last", "best"] = "last"
    """Which weights a generation keeps: the last of the schedule, or the best look at validation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.head_steps >= self.steps:
            raise ValueError("head_steps: must be below steps")
        return self


class PhaseConfig(Section):
    """How a teacher or a student is trained."""

    model: ModelConfig = ModelConfig()
    """The network."""
    start: Literal["weights", "teacher"] = "weights"
    """Start weights; generation 0 has no teacher to start from."""
    noise: NoiseConfig = NoiseConfig()
    """Input noise."""
    optim: OptimConfig = OptimConfig()
    """Optimisation."""
    pos_weight_cap: float = Field(10.0, ge=1)
    """Cap of the class weight negatives / positives in the loss of labelled films; 1 turns it off."""
    members: tuple[dict[str, Any], ...] = ()
    """Several networks in place of one: what each does differently, ``[{}, {}, {model: {name: resnet18}}]`` for two
    that differ by seed alone and one of another architecture. Each is calibrated by itself, and a generation says the
    mean of their probabilities."""

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if len(self.members) == 1:
            raise ValueError("members: one member is no ensemble; name two or more, or leave members out")
        for number, changes in enumerate(self.members):
            if "members" in changes:
                raise ValueError(f"members.{number}.members: a member is one network and has no members of its own")
        return self


class StudentConfig(PhaseConfig):
    """How a student is trained. A class of its own, so that a file which sets one key of it keeps these defaults."""

    start: Literal["weights", "teacher"] = "teacher"
    """Start weights: the teacher's (same network), or the model's own ``weights`` again."""
    pos_weight_cap: float = Field(1.0, ge=1)
    """Cap of the class weight negatives / positives in the loss of labelled films; 1 turns it off."""


class PseudoConfig(Section):
    """How a teacher's predictions become targets for the pool."""

    weight_power: float = Field(0.5, ge=0)
    """A target p weighs |2p - 1| ** power: 0 trusts all alike, larger powers ask for more confidence."""
    keep_share: float = Field(1.0, gt=0, le=1)
    """Share of likely positives and of likely negatives of every label that is kept, the most confident first."""
    hard: bool = False
    """Round the targets to 0 and 1."""
    align: bool = True
    """Move each label's mean to the expected prevalence."""
    prevalence: dict[str, float] = Field({})
    """Known prevalence of the pool by label; others are estimated from the labelled films."""
    prior_strength: float = Field(50.0, ge=0)
    """Films' worth of trust in the teacher's own mean when the prevalence is estimated (Beta prior)."""
    labels: dict[str, bool] = Field({})
    """``NAME: false`` gives that label no pseudo-targets."""
