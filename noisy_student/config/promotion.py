"""When a student becomes the next teacher."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section


class PromotionConfig(Section):
    """When a student becomes the next teacher."""

    rule: Literal["bound", "estimate", "always"] = "bound"
    """``bound``: a student is better, or worse, where a one-sided bound shows it. ``estimate``: where its figures on
    the judging films are, however uncertain. ``always``: every student teaches next and the last is the best,
    as in Xie et al. 2020; the verdict of ``bound`` is written all the same."""
    measure: Literal["both", "auroc", "log_loss"] = "both"
    """What decides: the macro AUROC, the log loss, or ``both``: one of them, where the other does not contradict it."""
    confidence: float = Field(0.9, gt=0.5, lt=1)
    """Confidence of the bounds."""
    undecided: Literal["mean", "student", "teacher"] = "mean"
    """Next teacher when the verdict is undecided: the mean of the student and those who taught it, the student alone,
    or those who taught it."""
    patience: int = Field(0, ge=0)
    """Stop after this many rounds in a row without a better student; 0 never stops early."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        default = type(self).model_fields
        if self.rule == "always" and self.undecided != default["undecided"].default:
            raise ValueError("undecided: does nothing with rule: always, by which every student teaches next")
        if self.rule == "estimate" and self.confidence != default["confidence"].default:
            raise ValueError("confidence: does nothing with rule: estimate, which looks at no bound")
        return self
