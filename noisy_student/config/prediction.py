"""How a trained network is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from noisy_student.config.base import Section


class PredictionConfig(Section):
    """How a trained network is asked, on films of every split alike."""

    tta: Literal["none", "flip"] | Annotated[int, Field(ge=2, le=32)] = "none"
    """Test-time augmentation: ``none``, ``flip`` (the film and its mirror image) or a number of views: the film, and
    others moved and scaled by at most 3 %, the same for a film whenever it is asked. The mean of the logits counts; n
    views take n times as long."""
