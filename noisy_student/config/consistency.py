"""Settings of the second term of the loss: what a network says of a film should not depend on the noise."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section

USED_BY: Final = {
    "source": "fixmatch",
    "confidence": "fixmatch",
    "align": "fixmatch",
    "prevalence": "fixmatch",
    "align_by": "fixmatch",
    "momentum": "fixmatch",
}
"""Setting -> the method that it belongs to."""
SHARED: Final = ("weight", "ramp", "strength")
"""Settings of every method."""


class ConsistencyConfig(Section):
    """A second term of the loss, on films whatever is known of them; generation 0 sees the pool too where it is on."""

    method: Literal["none", "mean_teacher", "fixmatch"] = "none"
    """``mean_teacher`` (Tarvainen and Valpola 2017): on every film of a batch, the squared distance to what the
    averaged network says of another noisy view. ``fixmatch`` (Sohn et al. 2020, for several labels with alignment as in
    Ihler et al. 2024): on the films of the pool, the cross-entropy with what is said confidently of a weak view."""
    weight: float = Field(1.0, gt=0)
    """Weight of the term beside the loss of the labels and pseudo-labels."""
    ramp: float = Field(0.2, ge=0, le=1)
    """Share of the steps over which the weight rises, as exp(-5 (1 - x)^2); 0 begins with all of it."""
    strength: float | None = Field(1.0, ge=0, le=10)
    """Strength of the noise of the other view, of those operations that every film gets; ``null`` gives it the noise of
    the phase, drawn anew."""
    source: Literal["network", "average"] = "network"
    """Of ``fixmatch``: who is asked of the weak view, the network that learns or its average."""
    confidence: float = Field(0.95, ge=0.5, lt=1)
    """Of ``fixmatch``: a label of a film takes part from this probability on, on either side."""
    align: bool = True
    """Of ``fixmatch``: move each label's probabilities towards its expected prevalence in the pool."""
    align_by: Literal["ratio", "shift"] = "ratio"
    """Of ``fixmatch`` with ``align``: by the ``ratio`` of the expected prevalence to the running mean of what has been
    said, as published, which hardly moves what is said with great confidence; or by the ``shift`` of the log-odds,
    found step by step, with which the mean is what is expected."""
    prevalence: Literal["labelled", "teacher"] = "labelled"
    """Of ``fixmatch`` with ``align``: the expected prevalence is the share among the labelled films, as published, or
    a student's teacher's mean over the pool. Calibrated on films that it has not learnt, that is the labelled share
    corrected for how the labelled films differ from the pool by all that the teacher sees. Generation 0 has no
    teacher, and it is refused there. A label of ``pseudo.prevalence`` has the one that is known."""
    momentum: float = Field(0.99, ge=0, lt=1)
    """Of ``fixmatch`` with ``align_by: ratio``: what a step keeps of the running means."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.refuse_unused("method", USED_BY)
        defaults = {key: field.default for key, field in type(self).model_fields.items()}
        for key in SHARED:
            if not self.on and getattr(self, key) != defaults[key]:
                raise ValueError(f"{key}: does nothing with method: none; choose a method or leave it out")
        for key in ("prevalence", "align_by", "momentum"):
            if not self.align and getattr(self, key) != defaults[key]:
                raise ValueError(f"{key}: does nothing with align: false; leave one of them out")
        self.refuse_unused("align_by", {"momentum": "ratio"})
        return self

    @property
    def on(self) -> bool:
        """Whether there is such a term, and with it a use for films of which nothing is known."""
        return self.method != "none"

    @property
    def aligned(self) -> bool:
        """Whether the term moves what is said towards an expected share of positives."""
        return self.method == "fixmatch" and self.align
