"""Settings of the learning side: model, noise, optimisation, loss; one set for the teacher, one for the students."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section


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


class NoiseConfig(Section):
    """Input noise: augmentation drawn per film. Every range scales with ``strength``."""

    strength: float = Field(1.0, ge=0, le=2)
    """The dial: 0 is no augmentation, 1 the default strong noise."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a left-right flip (0 where the side matters)."""
    rotate: float = Field(12.0, ge=0, le=180)
    """Largest rotation in degrees."""
    scale: float = Field(0.2, ge=0, lt=1)
    """Largest relative change of size."""
    translate: float = Field(0.08, ge=0, lt=1)
    """Largest shift as a share of the side."""
    shear: float = Field(6.0, ge=0, lt=60)
    """Largest shear in degrees."""
    gamma: float = Field(0.5, ge=0)
    """Largest change of log2(gamma)."""
    brightness: float = Field(0.2, ge=0, le=1)
    """Largest additive change on the [0, 1] scale."""
    contrast: float = Field(0.4, ge=0, lt=1)
    """Largest relative change of contrast about the film's mean."""
    blur: float = Field(0.3, ge=0, le=1)
    """Probability of a Gaussian blur."""
    blur_sigma: float = Field(1.0, gt=0)
    """Largest blur in pixels of a 96-pixel film (scales with the size)."""
    noise: float = Field(0.04, ge=0)
    """Largest standard deviation of additive Gaussian noise on the [0, 1] scale."""
    erase: float = Field(0.5, ge=0, le=1)
    """Probability that one rectangle is filled with the film's mean."""
    erase_area: float = Field(0.15, ge=0, lt=1)
    """Largest share of the film that the rectangle covers."""


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


class StudentConfig(PhaseConfig):
    """How a student is trained. A class of its own, so that a file which sets one key of it keeps these defaults."""

    start: Literal["weights", "teacher"] = "teacher"
    """Start weights: the teacher's (same network), or the model's own ``weights`` again."""
    pos_weight_cap: float = Field(1.0, ge=1)
    """Cap of the class weight negatives / positives in the loss of labelled films; 1 turns it off."""


class TargetsConfig(Section):
    """How labels become targets. Policies after Irvin et al. 2019."""

    uncertain: Literal["literature", "ignore", "zeros", "ones"] = "literature"
    """What -1 becomes, for labels not named below: no target, 0 or 1. ``literature`` is 1 for Atelectasis and Edema and
    0 otherwise: U-Ones did best for those two in Irvin et al. 2019, and most later work counts the others as 0."""
    uncertain_by_label: dict[str, Literal["ignore", "zeros", "ones"]] = Field({})
    """Policy of single labels."""
    blank: Literal["ignore", "zeros"] = "zeros"
    """What a label that was not mentioned becomes; Stanford counts it as negative."""


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
