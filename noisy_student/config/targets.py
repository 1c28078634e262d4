"""Settings of the way from labels to targets."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section

Policy = Literal["ignore", "zeros", "ones", "smooth_zeros", "smooth_ones", "selftrained"]
"""What -1 can become: no target, 0, 1, a number drawn per film near 0 or above one half, or what the teacher says."""


class TargetsConfig(Section):
    """How labels become targets. Policies after Irvin et al. 2019, smoothed ones after Pham et al. 2021."""

    uncertain: Literal["literature", Policy] = "literature"
    """What -1 becomes, for labels not named below: ``ignore`` (no target), ``zeros``, ``ones``, ``smooth_zeros`` or
    ``smooth_ones`` (a number drawn per film and label from the ranges below), or ``selftrained`` (no target for
    generation 0, the teacher's probability after it). ``literature`` is 1 for Atelectasis and Edema and 0 otherwise:
    U-Ones did best for those two in Irvin et al. 2019, and most later work counts the others as 0."""
    uncertain_by_label: dict[str, Policy] = Field({})
    """Policy of single labels."""
    smooth_zeros: tuple[float, float] = (0.0, 0.3)
    """Range of ``smooth_zeros`` (Pham et al. 2021)."""
    smooth_ones: tuple[float, float] = (0.55, 0.85)
    """Range of ``smooth_ones`` (Pham et al. 2021)."""
    smooth_seed: int = Field(0, ge=0)
    """Seed of the draws from these ranges; the same film always gets the same number."""
    blank: Literal["ignore", "zeros"] = "zeros"
    """What a label that was not mentioned becomes: ``zeros`` (Stanford counts it as negative), or ``ignore`` (no
    target). With a ``blank_weight`` below 1, ``zeros`` is the policy in between: a negative that counts for less."""
    blank_weight: float = Field(1.0, gt=0, le=1)
    """Weight of a blank that counts as negative, beside 1 for a label that was mentioned."""
    fill_parents: bool = False
    """Make Enlarged Cardiomediastinum positive where Cardiomegaly is, and Lung Opacity where one of the opacities is
    (Lung Lesion, Edema, Consolidation, Pneumonia, Atelectasis); only labels of ``data.labels`` are looked at."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("smooth_zeros", "smooth_ones"):
            low, high = getattr(self, key)
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{key}: give two numbers from 0 to 1, the smaller one first")
        if self.blank == "ignore" and self.blank_weight != 1:
            raise ValueError("blank_weight: does nothing with blank: ignore; leave it out or use blank: zeros")
        return self
