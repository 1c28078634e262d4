"""Settings of the learning side: optimisation and loss; one set for the teacher, one for the students."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from noisy_student.config.base import Section
from noisy_student.config.consistency import ConsistencyConfig
from noisy_student.config.loss import LossConfig, SamplerConfig
from noisy_student.config.model import ModelConfig
from noisy_student.config.noise import NoiseConfig
from noisy_student.errors import ConfigError

REFIT_KEYS: Final = ("model", "start", "noise", "optim", "consistency")
"""Sections in which the network that learns from all folds may differ from those of the folds."""


class FinetuneConfig(Section):
    """A stretch of a training: what learns in it, how fast, and for how long."""

    trainable: Literal["all", "head"] | int = "all"
    """``head`` (the classifier), a number (the classifier and that many of the highest blocks) or ``all``. BatchNorm
    statistics of what does not learn are frozen."""
    steps: int = Field(0, ge=0)
    """Its steps; with 0 for this and ``epochs``, what the other stretches leave of ``optim.steps``."""
    epochs: float = Field(0.0, ge=0)
    """Its length as the number of times that as many films are shown as the targets table has."""
    lr_ratio: float = Field(1.0, gt=0)
    """All its rates as a share of those of ``optim``."""
    backbone_lr_ratio: float | None = Field(None, gt=0, le=1)
    """In place of ``optim.backbone_lr_ratio``."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """In place of ``optim.layer_decay``."""
    films: Literal["all", "labelled"] = "all"
    """``labelled``: films of the pool take no part."""
    noise: bool = True
    """``false``: neither input noise (mixing included) nor dropout and stochastic depth; the other view of a
    consistency term keeps its own. A last stretch on labelled films without noise is the clean fine-tuning of Touvron
    et al. 2019 that Xie et al. 2020 end with."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.trainable, int) and self.trainable < 1:
            raise ValueError("trainable: give 'head', 'all' or how many of the highest blocks learn, 1 or more")
        if self.steps and self.epochs:
            raise ValueError("epochs: give steps or epochs, not both")
        if self.epochs and self.films == "labelled":
            raise ValueError("epochs: count the films of the whole table, which films: labelled leaves; give steps")
        for key in ("backbone_lr_ratio", "layer_decay"):
            if self.trainable == "head" and getattr(self, key) is not None:
                raise ValueError(f"{key}: does nothing where the head alone learns")
        return self

    def length(self, films: int, batch_size: int) -> int:
        """Return its steps, 0 where it takes what the others leave."""
        return math.ceil(self.epochs * films / batch_size) if self.epochs else self.steps


class OptimConfig(Section):
    """AdamW with warm-up and cosine decay, an averaged model, and when to look at validation."""

    steps: int = Field(600, ge=0)
    """Optimiser steps of all ``phases`` together; 0 where each of them has a length of its own, in epochs."""
    phases: tuple[FinetuneConfig, ...] = ()
    """Stretches of the training in order, each a table with ``trainable``, ``steps`` or ``epochs``, ``lr_ratio``,
    ``backbone_lr_ratio``, ``layer_decay``, ``films`` and ``noise`` (docs/training.md). Empty: the classifier alone for
    a tenth of the steps and then all layers at a tenth of the rate where the start weights are pretrained
    (``model.weights``, all of them); all layers at once elsewhere."""
    schedule: Literal["once", "each"] = "once"
    """Whether the rate rises and falls once, over all phases, or anew in each of them."""
    batch_size: int = Field(64, ge=2)
    """Films per step, labelled and pseudo-labelled together."""
    labelled_share: float = Field(0.25, gt=0, le=1)
    """Share of labelled films in a student's batch, in which the pool has one place at least (the teacher's is 1,
    unless its ``consistency`` uses the pool)."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of the classifier, and of all layers unless ``backbone_lr_ratio`` is below 1."""
    backbone_lr_ratio: float = Field(1.0, gt=0, le=1)
    """Learning rate of the backbone as a share of the classifier's."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each block of the backbone learns at this share of the rate of the block above it, the highest at this share of
    ``backbone_lr_ratio``; 1 is the same rate for all."""
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
    """Keep the BatchNorm statistics of the start weights, in training and after; scales and shifts still learn. Refused
    where the start has none: without weights, and with ``initialise`` ``mean_var`` or ``lowest``."""
    eval_every: int = Field(100, ge=1)
    """Steps between looks at validation."""
    save_every: int = Field(100, ge=1)
    """Steps between resumable checkpoints."""
    select: Literal["last", "best"] = "last"
    """Which weights a generation keeps: the last of the schedule, or the best look at validation."""

    @model_validator(mode="before")
    @classmethod
    def _steps_of_phases(cls, values: Any) -> Any:
        """Take the steps from phases that all say how long they are, where ``steps`` is not given."""
        if not isinstance(values, dict) or "steps" in values or not values.get("phases"):
            return values
        try:
            phases = [FinetuneConfig.model_validate(phase) for phase in values["phases"]]
        except (TypeError, ValidationError):
            return values  # what is wrong with them is said where they are read
        if not all(phase.steps or phase.epochs for phase in phases):
            return values
        epochs = any(phase.epochs for phase in phases)
        return values | {"steps": 0 if epochs else sum(phase.steps for phase in phases)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        open_ended = sum(not (phase.steps or phase.epochs) for phase in self.phases)
        given = sum(phase.steps for phase in self.phases)
        if open_ended > 1:
            raise ValueError("phases: only one of them can do without steps or epochs and take what is left of steps")
        if open_ended and given >= self.steps:
            raise ValueError(f"phases: take {given} steps of {self.steps} and leave none for the one without a length")
        if self.phases and not open_ended:
            if any(phase.epochs for phase in self.phases):
                if self.steps:
                    raise ValueError(
                        "steps: the phases say how long they take, in epochs; leave steps out or set it to 0"
                    )
            elif given != self.steps:
                raise ValueError(
                    f"steps: is {self.steps} and the phases take {given} together; set it to {given}, or leave one of "
                    "them without a length"
                )
        elif not self.phases and not self.steps:
            raise ValueError("steps: must be above 0")
        if self.layer_decay != 1 and self.phases and all(phase.trainable == "head" for phase in self.phases):
            raise ValueError("layer_decay: does nothing where the head alone learns")
        return self


def labelled_places(batch_size: int, labelled_share: float) -> int:
    """Return how many films of a batch are labelled where there are pseudo-labelled ones too."""
    return min(batch_size - 1, max(1, round(batch_size * labelled_share)))


@dataclass(frozen=True)
class Stretch:
    """Steps ``first`` to ``stop`` - 1 of a training, and what they do."""

    first: int
    stop: int
    does: FinetuneConfig


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
    loss: LossConfig = LossConfig()
    """What is minimised."""
    sampler: SamplerConfig = SamplerConfig()
    """Which films a batch holds."""
    consistency: ConsistencyConfig = ConsistencyConfig()
    """A second term of the loss, on films without labels."""
    pos_weight_cap: float = Field(10.0, ge=1)
    """Cap of the class weight negatives / positives of labelled films in ``loss.name: weighted_bce``; 1 turns it off,
    and is the default of the other losses."""
    members: tuple[dict[str, Any], ...] = ()
    """Several networks in place of one: what each does differently, ``[{}, {}, {model: {name: resnet18}}]`` for two
    that differ by seed alone and one of another architecture. Each is calibrated by itself, and a generation says the
    mean of their probabilities."""
    refit: dict[str, Any] | None = None
    """With ``folds``: one network more, which learns from the whole label budget and alone says what the generation
    says of all other films; those of the folds judge and calibrate it. What it does differently from them, ``{}`` or
    ``{optim: {steps: 1000}}``; ``null``: the generation says the mean of the networks of the folds."""

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if len(self.members) == 1:
            raise ValueError("members: one member is no ensemble; name two or more, or leave members out")
        for number, changes in enumerate(self.members):
            for key in ("members", "refit", "judges"):
                if key in changes:
                    raise ValueError(f"members.{number}.{key}: a member is one network and has no {key} of its own")
        for key in self.refit or ():
            if key not in REFIT_KEYS:
                raise ValueError(
                    f"refit.{key}: the networks of the folds judge for this one, so it differs from them in "
                    f"{', '.join(REFIT_KEYS)} alone"
                )
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_class_weights(cls, values: Any) -> Any:
        """Turn class weights off for a loss that has none, where the cap is not given."""
        if not isinstance(values, dict) or "pos_weight_cap" in values:
            return values
        loss = values.get("loss")
        name = loss.get("name", "weighted_bce") if isinstance(loss, dict) else getattr(loss, "name", "weighted_bce")
        return values if name == "weighted_bce" else values | {"pos_weight_cap": 1.0}

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        if self.loss.name != "weighted_bce" and self.pos_weight_cap != 1:
            raise ValueError(
                f"pos_weight_cap: does nothing with loss.name: {self.loss.name}; leave it out or set it to 1"
            )
        if self.loss.name == "auc_margin" and not self.sampler.positives:
            raise ValueError(
                "loss.name: auc_margin compares positives with negatives, so every batch needs some of each label; "
                "set sampler.positives to 1 or more"
            )
        if self.consistency.on:
            if self.loss.name == "auc_margin":
                raise ValueError(
                    "consistency: compares probabilities, and the scores of loss.name: auc_margin are none"
                )
            if self.noise.mixup.probability or self.noise.cutmix.probability:
                raise ValueError(
                    "consistency: compares two views of a film, and mixup and cutmix mix two films; set their "
                    "probability to 0"
                )
        return self

    def phases(self) -> tuple[FinetuneConfig, ...]:
        """Return the stretches of the training: those of ``optim.phases``, or the default for the start weights."""
        optim = self.optim
        if optim.phases:
            return optim.phases
        if self.start == "teacher" or not self.model.keeps_statistics() or optim.steps == 1:
            return (FinetuneConfig(),)
        return (FinetuneConfig(trainable="head", steps=max(1, optim.steps // 10)), FinetuneConfig(lr_ratio=0.1))

    def stretches(self, films: int) -> tuple[Stretch, ...]:
        """Return where each stretch begins and ends, for a targets table of ``films``.

        Raises:
            ConfigError: lengths in epochs leave nothing of ``optim.steps`` for the one without a length.
        """
        phases, optim = self.phases(), self.optim
        lengths = [phase.length(films, optim.batch_size) for phase in phases]
        rest = optim.steps - sum(lengths)
        if 0 in lengths and rest < 1:
            raise ConfigError(
                f"optim.phases: take {sum(lengths):,} steps of {optim.steps:,} for {films:,} films and leave none for "
                "the one without a length",
                "Lower their epochs, or raise optim.steps.",
            )
        ends = list(accumulate(length or rest for length in lengths))
        return tuple(Stretch(first, stop, does) for first, stop, does in zip([0, *ends], ends, phases, strict=False))

    def total_steps(self, films: int | None) -> int | None:
        """Return the steps of all stretches; ``None`` where they depend on ``films`` and that is not known.

        Raises:
            ConfigError: as :meth:`stretches`.
        """
        return (self.optim.steps or None) if films is None else self.stretches(films)[-1].stop


class StudentConfig(PhaseConfig):
    """How a student is trained. A class of its own, so that a file which sets one key of it keeps these defaults."""

    start: Literal["weights", "teacher"] = "teacher"
    """Start weights: the teacher's (same network), or the model's own ``weights`` again."""
    pos_weight_cap: float = Field(1.0, ge=1)
    """Cap of the class weight negatives / positives of labelled films in ``loss.name: weighted_bce``; 1: none."""
    judges: Literal["learn", "stay"] = "learn"
    """With ``refit``: whether the networks of the folds learn in this generation too, or stay those of the generation
    before, which judge and calibrate it unchanged. Then they can tell no student from its teacher, so ``stay`` goes
    with ``promotion.rule: always``."""
