"""Settings of the self-supervised start: what the network learns from films alone, before any label."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section
from noisy_student.config.learning import OptimConfig
from noisy_student.config.noise import NoiseConfig


class PretrainOptimConfig(OptimConfig):
    """Optimisation of the start. A class of its own, so that a file which sets one key of it keeps these defaults."""

    steps: int = Field(1000, ge=1)
    """Training steps."""
    lr: float = Field(2e-3, gt=0)
    """Learning rate at the end of the warm-up."""


class PretrainConfig(Section):
    """A self-supervised start on all films of the train split; labels are not looked at.

    What it learns takes the place of ``weights`` in every generation that has the teacher's network and starts from
    weights.
    """

    method: Literal["none", "byol"] = "none"
    """``byol``: Bootstrap Your Own Latent (Grill et al. 2020). ``none``: generation 0 is the first to be trained."""
    pairs: Literal["film", "study", "patient"] = "film"
    """What the second view is of: the same film, or another film of its study or patient where it has one (after Vu et
    al., "MedAug: contrastive learning leveraging patient metadata", MLHC 2021). Refused where no film has one."""
    noise: NoiseConfig = NoiseConfig()
    """Input noise of the two views."""
    optim: PretrainOptimConfig = PretrainOptimConfig()
    """Optimisation. A step sees two views for each film of its batch; ``ema_decay`` is the momentum of the target
    network (its encoder's rises to it, (1 + n) / (10 + n) after n steps), and what has to do with labels or a
    classifier is not used."""
    hidden: int = Field(1024, ge=1)
    """Width of the hidden layer of the projector."""
    width: int = Field(256, ge=1)
    """Width of the projections and of the predictor."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.noise.mixup.probability or self.noise.cutmix.probability:
            raise ValueError("noise: mixup and cutmix mix targets, and there are none here; set their probability to 0")
        if self.optim.phases:
            raise ValueError("optim.phases: there is no classifier here, all layers learn at once; leave it out")
        return self
