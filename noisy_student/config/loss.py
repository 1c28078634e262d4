"""Settings of the loss and of the sampler: what a step minimises, and which films it sees."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section

USED_BY: Final = {
    "gamma": "focal",
    "alpha": "focal",
    "gamma_positive": "asymmetric",
    "gamma_negative": "asymmetric",
    "shift": "asymmetric",
    "margin": "auc_margin",
    "tau": "logit_adjusted",
}
"""Setting -> the loss that it belongs to."""


class LossConfig(Section):
    """What is minimised, and how hard the targets are; docs/training.md has the formulas."""

    name: Literal["weighted_bce", "bce", "focal", "asymmetric", "auc_margin", "logit_adjusted"] = "weighted_bce"
    """``weighted_bce`` (class weights capped by ``pos_weight_cap``), ``bce``, ``focal`` (Lin 2017), ``asymmetric``
    (Ridnik 2021), ``auc_margin`` (Yuan 2021) or ``logit_adjusted`` (Menon 2021)."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing: a target y becomes y (1 - s) + s / 2, whatever the loss."""
    gamma: float = Field(2.0, ge=0)
    """Of ``focal``: how much entries that are right already count less; 0 is plain BCE."""
    alpha: float | None = Field(None, gt=0, lt=1)
    """Of ``focal``: weight of positives, 1 - alpha that of negatives; null weighs both 1."""
    gamma_positive: float = Field(0.0, ge=0)
    """Of ``asymmetric``: the focusing of positives."""
    gamma_negative: float = Field(4.0, ge=0)
    """Of ``asymmetric``: the focusing of negatives."""
    shift: float = Field(0.05, ge=0, lt=0.5)
    """Of ``asymmetric``: negatives of a probability up to this have no part."""
    margin: float = Field(1.0, gt=0)
    """Of ``auc_margin``: how far the scores of positives and negatives should be apart, on the scale [0, 1]."""
    tau: float = Field(1.0, gt=0)
    """Of ``logit_adjusted``: how much of the prior's log-odds is added to the logits in training."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.refuse_unused("name", USED_BY)
        return self


class SamplerConfig(Section):
    """Which films a batch holds."""

    balance: float = Field(0.0, ge=0, le=1)
    """Class-balanced draws of labelled films: a film counts as often as (share of the most frequent label / share of
    its rarest label) ** balance; 0 draws all alike, 0.5 is the repeat factor of Gupta et al. 2019."""
    positives: int = Field(0, ge=0)
    """At least this many labelled positives of every label in every batch, of those labels that have any."""
    pool_balance: float = Field(0.0, ge=0, le=1)
    """The same as ``balance`` for the films of a student's pool, by their pseudo-labels: films with rare findings come
    several times (Xie et al. 2020 duplicate them until all classes are equally frequent, which is 1)."""
