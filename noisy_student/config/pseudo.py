"""Settings of the way from a teacher's predictions to targets of the pool; docs/method.md has them side by side."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section

_USED_BY: Final = {
    "confidence": "fixed",
    "negative_confidence": "fixed",
    "precision": "two_sided",
}
"""Setting of the selection -> the rule that it belongs to."""


class SelectConfig(Section):
    """Where a label is cut into likely positives and likely negatives, and what between them is left out."""

    rule: Literal["half", "fixed", "prevalence", "f1", "two_sided"] = "half"
    """``half``: at 1/2, nothing left out. ``fixed``: confident ones alone, the rest is left out. ``prevalence``: as
    many positives as the label's expected prevalence says (CAP, Xie et al. 2023), nothing left out. ``f1``: where F1
    is best on the judging films, nothing left out. ``two_sided``: two thresholds, each the widest that is right often
    enough on the judging films; the ambiguous zone between them is left out (after DiCaP 2025)."""
    confidence: float = Field(0.9, gt=0.5, lt=1)
    """Of ``fixed``: a positive has at least this probability."""
    negative_confidence: float | None = Field(None, gt=0.5, lt=1)
    """Of ``fixed``: a negative has at least this probability of being one (UPS, Rizve et al. 2021, has one threshold
    for each); ``null``: ``confidence``."""
    precision: float = Field(0.9, gt=0.5, lt=1)
    """Of ``two_sided``: the share of right ones among the judging films on each side."""
    negatives: bool = True
    """Whether likely negatives take part too (UPS); ``false`` teaches likely positives alone."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.refuse_unused("rule", _USED_BY)
        return self

    @property
    def judged(self) -> bool:
        """Whether the thresholds come from the judging films."""
        return self.rule in ("f1", "two_sided")


class PseudoConfig(Section):
    """How a teacher's predictions become targets for the pool."""

    weight: Literal["confidence", "right", "resolution"] = "confidence"
    """``confidence``: a target p weighs |2p - 1| ** ``weight_power``. ``right``: it weighs the calibrated probability
    that it is right, p for a likely positive and 1 - p for a likely negative (after DiCaP 2025). ``resolution``: all
    targets of a label weigh the share of its variance that the teacher's calibrated probabilities explain, so that a
    label that the teacher hardly tells from its prevalence is learnt from the labelled films."""
    loss_weight: float = Field(1.0, gt=0)
    """What a pseudo-target weighs beside a label, before its own weight (alpha of Lee 2013). The loss of a batch is the
    mean over its targets: with 1 here, ``weight_power`` 0 and a quarter of the batch labelled, a quarter of it are
    labels."""
    weight_power: float = Field(0.5, ge=0)
    """Of ``weight: confidence``: 0 trusts all alike, larger powers ask for more confidence."""
    select: SelectConfig = SelectConfig()
    """Thresholds per label."""
    keep_share: float = Field(1.0, gt=0, le=1)
    """Share of likely positives and of likely negatives of every label that is kept, the most confident first."""
    pool_share: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """A curriculum: ``keep_share`` of generation 1, 2 and so on; the last holds for all after it. ``[0.3, 0.6, 1]``
    begins with what the teacher is surest of (after Cascante-Bonilla et al. 2021)."""
    hard: bool = False
    """Round the targets to 0 and 1, where ``select`` cuts them."""
    temperature: float = Field(1.0, gt=0)
    """Soft targets are sharpened: their log-odds are divided by this; below 1 they come nearer to 0 and 1 (MixMatch,
    Berthelot et al. 2019)."""
    align: bool = True
    """Move each label's mean to the expected prevalence."""
    prevalence: dict[str, float] = Field({})
    """Known prevalence of the pool by label; others are estimated from the labelled films."""
    prior_strength: float = Field(50.0, ge=0)
    """Films' worth of trust in the teacher's own mean when the prevalence is estimated (Beta prior)."""
    labels: dict[str, bool] = Field({})
    """``NAME: false`` gives that label no pseudo-targets."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        usual = type(self).model_fields["weight_power"].default
        if self.weight != "confidence" and self.weight_power != usual:
            raise ValueError(
                f"weight_power: does nothing with weight: {self.weight}; leave it at {usual} or use weight: confidence"
            )
        if self.hard and self.weight == "confidence" and self.weight_power and self.select.rule in ("prevalence", "f1"):
            raise ValueError(
                f"weight: confidence is a film's distance from 1/2, which is not where select.rule: {self.select.rule} "
                "cuts; with hard: true use weight: right or weight_power: 0"
            )
        if not self.counts and self.prior_strength != type(self).model_fields["prior_strength"].default:
            raise ValueError(
                "prior_strength: does nothing with align: false but for select.rule: prevalence; leave it out"
            )
        if self.hard and self.temperature != 1:
            raise ValueError("temperature: does nothing with hard: true; leave one of them out")
        if self.pool_share and self.keep_share != 1:
            raise ValueError("keep_share: pool_share takes its place; leave one of them out")
        if list(self.pool_share) != sorted(self.pool_share):
            raise ValueError("pool_share: the shares of a curriculum rise from generation to generation")
        if self.select.rule in ("fixed", "two_sided") and (self.pool_share or self.keep_share != 1):
            key = "pool_share" if self.pool_share else "keep_share"
            raise ValueError(
                f"{key}: select.rule: {self.select.rule} says itself what is left out; use half, prevalence or f1"
            )
        return self

    @property
    def counts(self) -> bool:
        """Whether pseudo-labels depend on how many positives are expected."""
        return self.align or self.select.rule == "prevalence"

    def kept(self, generation: int) -> float:
        """Return the share of either side of a label that ``generation``, 1 or later, learns from."""
        if not self.pool_share:
            return self.keep_share
        return self.pool_share[min(max(generation, 1), len(self.pool_share)) - 1]
