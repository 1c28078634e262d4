"""Settings of the input noise: one dial, and a policy that says for every operation how often and how far it goes."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section

STRONGEST: Final = 10.0
"""End of the dial; ``range`` of an operation is what it does there."""


class Operation(Section):
    """One operation of the noise: how often it is used and how far it goes at strength 10."""

    probability: float = Field(1.0, ge=0, le=1)
    """Probability that a film gets the operation; of an optional one, once it has been chosen."""
    range: float = Field(1.0, ge=0)
    """Largest change at strength 10, in the unit that the operation names; it shrinks in proportion with strength."""
    optional: bool = False
    """Whether it is one of those of which ``count`` are chosen for each film."""


def _always(reach: float, probability: float = 1.0) -> Operation:
    return Operation(probability=probability, range=reach)


def _optional(reach: float) -> Operation:
    return Operation(range=reach, optional=True)


def _off(reach: float) -> Operation:
    return Operation(probability=0.0, range=reach)


class NoiseConfig(Section):
    """Input noise, drawn per film. Small geometry and tone for every film; of the rest, ``count`` operations each.

    Choosing among operations per film is RandAugment (Cubuk et al., "RandAugment: Practical automated data augmentation
    with a reduced search space", NeurIPS 2020); there the draw is with replacement, here an operation comes once.
    """

    strength: float = Field(7.0, ge=0, le=STRONGEST)
    """The dial: 0 is no noise at all, 7 heavy with findings that stay recognisable, 10 the end of every range."""
    count: int = Field(2, ge=0)
    """Optional operations that each film gets, drawn without replacement."""

    flip: Operation = _always(1.0, probability=0.5)
    """Left-right flip (probability 0 where the side matters); it has no range."""
    rotate: Operation = _always(17.0)
    """Rotation in degrees."""
    scale: Operation = _always(0.28)
    """Relative change of size."""
    translate: Operation = _always(0.11)
    """Shift along either axis as a share of the side."""
    shear: Operation = _always(8.0)
    """Shear along either axis in degrees."""
    perspective: Operation = _optional(0.25)
    """Tilt: relative change of magnification from the centre to the edge along either axis."""
    elastic: Operation = _optional(0.035)
    """Displacement of a coarse grid, smoothed in between, as a share of the side."""
    crop: Operation = _optional(0.15)
    """Border cut off at each side, as a share of the side; the rest fills the film."""

    gamma: Operation = _always(0.7)
    """Change of log2(gamma)."""
    contrast: Operation = _always(0.45)
    """Relative change of contrast about the film's mean."""
    brightness: Operation = _always(0.2)
    """Added on the [0, 1] scale."""
    window: Operation = _optional(0.25)
    """Width cut off at either end of the grey scale; what is left is stretched over it."""
    equalize: Operation = _optional(1.0)
    """Blend with the film whose histogram is equalised, at most 1."""
    clahe: Operation = _optional(1.0)
    """Blend with the film equalised tile by tile (CLAHE), at most 1."""
    posterize: Operation = _optional(5.0)
    """Bits of grey that are dropped, at most 7."""

    low_resolution: Operation = _optional(0.5)
    """Share of the resolution that is lost by averaging to a smaller film and enlarging it again, below 1."""
    blur: Operation = _optional(1.6)
    """Standard deviation of a Gaussian blur in pixels of a 96-pixel film (it scales with the size)."""
    edges: Operation = _optional(2.0)
    """Edge highlighting (unsharp mask): how much of the difference to a blurred copy is added."""
    sharpness: Operation = _optional(4.0)
    """Sharpening (positive) or smoothing (negative, at most 1) by the 3 x 3 kernel of PIL's Sharpness."""
    poisson: Operation = _optional(0.1)
    """Quantum noise: its standard deviation where the film is white; it grows with the root of the intensity."""
    gaussian: Operation = _optional(0.07)
    """Standard deviation of additive noise on the [0, 1] scale."""
    erase: Operation = _optional(0.22)
    """Share of the film that one rectangle filled with the film's mean covers, below 1."""
    grid: Operation = _optional(0.35)
    """Share of the film that a regular grid of squares filled with the film's mean covers, below 1."""

    mixup: Operation = _off(0.5)
    """Share of another film of the batch that is blended in, with its targets, at most 0.5."""
    cutmix: Operation = _off(0.5)
    """Share of the film that a rectangle of another film of the batch covers, with its targets, at most 0.5."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Let a table with one key of an operation keep the operation's other defaults."""
        if not isinstance(values, dict):
            return values
        return {
            name: operation_defaults(name) | value if name in OPERATIONS and isinstance(value, dict) else value
            for name, value in values.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, most in _MOST.items():
            if getattr(self, name).range > most:
                raise ValueError(f"{name}.range: {getattr(self, name).range:g} is above {most:g}, the most that it can")
        for name in _MIXING:
            if getattr(self, name).optional:
                raise ValueError(f"{name}.optional: mixing takes two films and is no optional operation; use false")
        return self

    def operations(self) -> dict[str, Operation]:
        """Return the operations by name, in the order in which they are declared."""
        return {name: getattr(self, name) for name in OPERATIONS}

    def only(self, *names: str, **changes: Any) -> Self:
        """Return this policy with the operations ``names`` for every film (unless ``changes`` say so) and no other."""
        silent: dict[str, Any] = {
            name: operation.model_copy(
                update={"optional": False} | ({"probability": 1.0} | changes if name in names else {"probability": 0.0})
            )
            for name, operation in self.operations().items()
        }
        return self.model_copy(update=silent)


OPERATIONS: Final = tuple(name for name in NoiseConfig.model_fields if name not in ("strength", "count"))
"""Names of all operations."""

_MIXING: Final = ("mixup", "cutmix")
_MOST: Final = {
    "rotate": 180.0, "scale": 0.9, "translate": 1.0, "shear": 60.0, "perspective": 0.45, "elastic": 0.5, "crop": 0.45,
    "contrast": 1.0, "brightness": 1.0, "window": 0.45, "equalize": 1.0, "clahe": 1.0, "posterize": 7.0,
    "low_resolution": 0.95, "erase": 0.9, "grid": 0.9, "mixup": 0.5, "cutmix": 0.5,
}  # fmt: skip
"""Largest ranges: beyond them nothing of the film is left, or the operation is not defined."""


def operation_defaults(name: str) -> dict[str, Any]:
    """Return the default settings of the operation ``name`` as a table."""
    default: Operation = NoiseConfig.model_fields[name].default
    return default.model_dump()
