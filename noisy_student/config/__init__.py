"""The configuration of a run: frozen models by concern, loaded from YAML and ``--set`` overrides."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section
from noisy_student.config.data import ColumnsConfig, DataConfig, SplitConfig
from noisy_student.config.learning import (
    ModelConfig,
    NoiseConfig,
    OptimConfig,
    PhaseConfig,
    PseudoConfig,
    StudentConfig,
    TargetsConfig,
)
from noisy_student.config.synthetic import SyntheticConfig

__all__ = [
    "ColumnsConfig",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "NoiseConfig",
    "OptimConfig",
    "PhaseConfig",
    "PromotionConfig",
    "PseudoConfig",
    "SplitConfig",
    "StudentConfig",
    "SyntheticConfig",
    "TargetsConfig",
]


class EvaluationConfig(Section):
    """What is measured and how."""

    macro_labels: tuple[str, ...] = ()
    """Labels of the macro mean; empty means all of ``data.labels``."""
    level: Literal["image", "study"] = "image"
    """Unit of the headline figures; a study's probability is the mean over its films."""
    replicates: int = Field(2000, ge=100)
    """Bootstrap replicates (patients are resampled)."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    bins: int = Field(10, ge=2)
    """Bins of equal mass for ECE and reliability diagrams."""


class PromotionConfig(Section):
    """When a student becomes the next teacher."""

    confidence: float = Field(0.9, gt=0.5, lt=1)
    """A student is rejected only when the one-sided bound of this confidence shows it worse."""
    undecided: Literal["mean", "student"] = "mean"
    """Next teacher when the verdict is undecided: the mean of the generations so far, or the student alone."""
    patience: int = Field(0, ge=0)
    """Stop after this many rounds in a row without a better student; 0 never stops early."""


class Config(Section):
    """Everything that decides what a run computes. Where and whether it runs are flags of the command line."""

    seed: int = Field(0, ge=0)
    """Seed of initialisation, sampling, noise and bootstrap."""
    threads: int = Field(0, ge=0)
    """CPU threads of torch; 0 takes all cores. A resumed run equals an uninterrupted one at equal threads."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` uses bf16 autocast on GPUs that have it, and fp32 on the CPU."""
    data: DataConfig = DataConfig()
    """Films and labels."""
    split: SplitConfig = SplitConfig()
    """Labelled set, pool, validation."""
    targets: TargetsConfig = TargetsConfig()
    """Labels to targets."""
    pseudo: PseudoConfig = PseudoConfig()
    """Predictions to targets."""
    teacher: PhaseConfig = PhaseConfig()
    """Training of generation 0."""
    student: StudentConfig = StudentConfig()
    """Training of every later generation."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Measures and intervals."""
    promotion: PromotionConfig = PromotionConfig()
    """The step from student to teacher."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = set(self.data.labels)
        named = {
            "evaluation.macro_labels": self.evaluation.macro_labels,
            "targets.uncertain_by_label": tuple(self.targets.uncertain_by_label),
            "pseudo.prevalence": tuple(self.pseudo.prevalence),
            "pseudo.labels": tuple(self.pseudo.labels),
        }
        for key, names in named.items():
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: '{name}' is not in data.labels ({', '.join(self.data.labels)})")
        for name, value in self.pseudo.prevalence.items():
            if not 0 < value < 1:
                raise ValueError(f"pseudo.prevalence.{name}: {value} is not between 0 and 1")
        if self.teacher.start == "teacher":
            raise ValueError("teacher.start: generation 0 has no teacher to start from; use 'weights'")
        same = ("name", "normalisation")
        if self.student.start == "teacher" and any(
            getattr(self.student.model, key) != getattr(self.teacher.model, key) for key in same
        ):
            raise ValueError(
                "student.start: 'teacher' needs the same network and normalisation in teacher.model and student.model; "
                "use 'weights'"
            )
        return self

    def macro_labels(self) -> tuple[str, ...]:
        """Return the labels of the macro mean."""
        return self.evaluation.macro_labels or self.data.labels
