"""The configuration of a run: frozen models by concern, loaded from YAML and ``--set`` overrides."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from noisy_student.config.base import Section
from noisy_student.config.changes import changed, laid_over
from noisy_student.config.consistency import ConsistencyConfig
from noisy_student.config.data import ColumnsConfig, DataConfig, DicomConfig, FoldersConfig, SplitConfig
from noisy_student.config.evaluation import EvaluationConfig
from noisy_student.config.learning import FinetuneConfig, OptimConfig, PhaseConfig, StudentConfig, labelled_places
from noisy_student.config.loss import LossConfig, SamplerConfig
from noisy_student.config.model import ModelConfig
from noisy_student.config.noise import NoiseConfig, Operation
from noisy_student.config.prediction import PredictionConfig
from noisy_student.config.pretrain import PretrainConfig
from noisy_student.config.promotion import PromotionConfig
from noisy_student.config.pseudo import PseudoConfig, SelectConfig
from noisy_student.config.synthetic import SyntheticConfig
from noisy_student.config.targets import TargetsConfig

__all__ = [
    "ColumnsConfig",
    "Config",
    "ConsistencyConfig",
    "DataConfig",
    "DicomConfig",
    "EvaluationConfig",
    "FinetuneConfig",
    "FoldersConfig",
    "LossConfig",
    "ModelConfig",
    "NoiseConfig",
    "Operation",
    "OptimConfig",
    "PhaseConfig",
    "PredictionConfig",
    "PretrainConfig",
    "PromotionConfig",
    "PseudoConfig",
    "SamplerConfig",
    "SelectConfig",
    "SplitConfig",
    "StudentConfig",
    "SyntheticConfig",
    "TargetsConfig",
]


class Config(Section):
    """Everything that decides what a run computes. Where and whether it runs are flags of the command line."""

    seed: int = Field(0, ge=0)
    """Seed of initialisation, sampling, noise and bootstrap."""
    threads: int = Field(0, ge=0)
    """CPU threads of torch; 0 takes all cores. A resumed run equals an uninterrupted one at equal threads."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` uses bf16 autocast on GPUs that have it, and on processors that have it for training networks that
    gain by it (without grouped convolutions); predictions of a processor stay in fp32."""
    compile: bool = False
    """Train through ``torch.compile``: slower to start, faster by step. A resumed run then equals an uninterrupted one
    within rounding only; where compiling fails, training goes on without it and says so."""
    folds: int = Field(1, ge=1, le=20)
    """Cross-fitting: from 2 on, a generation is as many networks, which share the label budget (labelled and validation
    patients together). Each network, and every teacher it ever has, is trained without one fold of the patients and
    judged on that fold; the generation is their mean, or one more that learns from all (``teacher.refit``). 1 trains
    one network on the labelled films and judges it on validation."""
    data: DataConfig = DataConfig()
    """Films and labels."""
    split: SplitConfig = SplitConfig()
    """Labelled set, pool, validation."""
    targets: TargetsConfig = TargetsConfig()
    """Labels to targets."""
    pseudo: PseudoConfig = PseudoConfig()
    """Predictions to targets."""
    pretrain: PretrainConfig = PretrainConfig()
    """Self-supervised start before generation 0."""
    teacher: PhaseConfig = PhaseConfig()
    """Training of generation 0."""
    student: StudentConfig = StudentConfig()
    """Training of every later generation."""
    generations: dict[Annotated[int, Field(ge=0)], dict[str, Any]] = Field({})
    """What single generations do differently: ``2: {noise: {strength: 8}}`` is laid over ``student`` (over ``teacher``
    for 0) when generation 2 is trained. What belonged to a choice that is made anew (``loss.name``, ``model.head``,
    ``model.initialise``, ``consistency.method``, ``consistency.align``, ``consistency.align_by``) takes its default; so
    it is with ``members``."""
    prediction: PredictionConfig = PredictionConfig()
    """Asking a trained network."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Measures and intervals."""
    promotion: PromotionConfig = PromotionConfig()
    """The step from student to teacher."""

    @model_validator(mode="before")
    @classmethod
    def _one_table_per_generation(cls, values: Any) -> Any:
        """Join ``2`` of a file and ``"2"`` of the command line, which are the same generation."""
        if not isinstance(values, dict) or not isinstance(given := values.get("generations"), dict):
            return values
        joined: dict[Any, Any] = {}
        for key, table in given.items():
            number = int(key) if isinstance(key, str) and key.isdecimal() else key
            before = joined.get(number)
            mergeable = isinstance(before, dict) and isinstance(table, dict)
            joined[number] = laid_over(before or {}, table) if mergeable else table
        return values | {"generations": joined}

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
        self._check_phases()
        learnt = self.pretrain
        everyone = [(g, number) for g in self.phases() for number in range(len(self.networks(g)))]
        aligned = any(self.networks(g)[n].consistency.aligned for g, n in everyone)
        if self.pseudo.prevalence and not self.pseudo.counts and not aligned:
            raise ValueError("pseudo.prevalence: does nothing with pseudo.align: false; leave it out")
        if learnt.method != "none" and not any(self.starts_from_pretraining(g, n) for g, n in everyone):
            raise ValueError(
                "pretrain: no network starts from it; those with start: weights and the network of teacher.model do"
            )
        if learnt.method != "none" and learnt.optim.freeze_bn and not self.teacher.model.keeps_statistics():
            raise ValueError("pretrain.optim.freeze_bn: teacher.model.weights give no statistics to keep; leave it out")
        return self

    def _check_phases(self) -> None:
        """Raise where a generation's phase is wrong, or starts from a teacher that can be another network."""
        for generation, changes in self.generations.items():
            base = self._base(generation)
            if generation == 0 and "judges" in changes:
                raise ValueError("generations.0.judges: generation 0 has no networks before it; leave it out")
            # Validated under its own name, so that an error names generations.2.noise.strength.
            _Phases.model_validate({"generations": {generation: changed(base.model_dump(), changes)}})
        named = self.phases()
        for generation, phase in named.items():
            where = f"generations.{generation}" if generation in self.generations else self._name(generation)
            if phase.members:
                self._check_members(generation, phase, where)
            for number, network in enumerate(self.networks(generation) if phase.members else (phase,)):
                place = f"{where}.members.{number}" if phase.members else where
                self._check_network(generation, number, network, place, list(named))
            if isinstance(phase, StudentConfig) and phase.judges == "stay":
                self._check_judges(phase, where)
            if phase.refit is not None:
                self._check_refit(generation, phase, where)
                last = self.networks(generation)[-1]
                self._check_network(generation, self.folds, last, f"{where}.refit", list(named))
        without = [self._name(generation) for generation, phase in named.items() if phase.refit is None]
        if 0 < len(without) < len(named):
            raise ValueError(f"{without[0]}.refit: is missing, and another generation has it; all have it or none")

    def _check_judges(self, phase: PhaseConfig, where: str) -> None:
        rule, who = self.promotion.rule, f"{where}.judges: those that 'stay'"
        if phase.refit is None:
            raise ValueError(f"{where}.judges: 'stay' goes with refit; without it nothing would learn. Leave it out")
        if rule != "always":
            raise ValueError(f"{who} judge every generation alike, so promotion.rule: {rule} has to be always")
        if self.promotion.patience:
            raise ValueError(f"{who} never find a student better, which promotion.patience waits for; set it to 0")

    def _check_refit(self, generation: int, phase: PhaseConfig, where: str) -> None:
        if self.folds == 1:
            raise ValueError(f"{where}.refit: goes with folds: 2 and more; one network learns from its films anyway")
        base = phase.model_dump(exclude={"refit"})
        self._check_laid(generation, where, {"refit": changed(base, phase.refit or {})})

    def _check_members(self, generation: int, phase: PhaseConfig, where: str) -> None:
        if self.folds > 1:
            raise ValueError(
                f"{where}.members: a cross-fitted run (folds: {self.folds}) has {self.folds} networks in every "
                "generation already, each judged on a fold of its own; use folds or members, not both"
            )
        base = phase.model_dump(exclude={"members"})
        self._check_laid(generation, where, {"members": [changed(base, changes) for changes in phase.members]})

    def _check_laid(self, generation: int, where: str, laid: dict[str, Any]) -> None:
        """Validate settings of single networks under their own name, so that an error says ``members.1.model.name``."""
        _Laid.model_validate({"generations": {generation: laid}} if generation in self.generations else {where: laid})

    def _check_network(
        self, generation: int, number: int, network: PhaseConfig, where: str, generations: list[int]
    ) -> None:
        """Raise where network ``number`` of a generation starts from what can be another network."""
        if self.folds > 1 and network.optim.select == "best":
            raise ValueError(
                f"{where}.optim.select: 'best' would choose weights on the fold that judges them; use 'last'"
            )
        optim = network.optim
        pooled = generation > 0 or network.consistency.on
        places = labelled_places(optim.batch_size, optim.labelled_share) if pooled else optim.batch_size
        if network.sampler.positives * len(self.data.labels) > places:
            raise ValueError(
                f"{where}.sampler.positives: {network.sampler.positives} of each of {len(self.data.labels)} labels "
                f"are more than the {places} labelled films of a batch; raise optim.batch_size"
                + (" or optim.labelled_share" if pooled else "")
            )
        if generation == 0 and network.sampler.pool_balance:
            raise ValueError(f"{where}.sampler.pool_balance: generation 0 has no pseudo-labels; leave it out")
        if generation == 0 and network.consistency.prevalence == "teacher":
            raise ValueError(f"{where}.consistency.prevalence: generation 0 has no teacher; leave it out")
        if generation > 0 and optim.phases and all(part.films == "labelled" for part in optim.phases):
            raise ValueError(f"{where}.optim.phases: films: labelled in all of them, so no film of the pool is seen")
        if not pooled and any(part.films == "labelled" for part in optim.phases):
            raise ValueError(f"{where}.optim.phases: films: labelled does nothing where no film is of the pool")
        self._check_start(network, where)
        if network.start != "teacher":
            return
        if generation == 0:
            raise ValueError(f"{where}.start: generation 0 has no teacher to start from; use 'weights'")
        before = [index for index in generations if index < generation]
        # What the teachers start from is accepted, as one YAML anchor often serves both.
        teachers_start = [teacher.model for index in before for teacher in self.networks(index)]
        for key, unused in (("initialise", "pretrained"), ("pretrained_blocks", None), ("weights", "none")):
            value = getattr(network.model, key)
            if value not in (unused, *(getattr(model, key) for model in teachers_start)):
                raise ValueError(
                    f"{where}.model.{key}: '{value}' does nothing with start: teacher, whose weights are all taken; "
                    "leave it out or set start: weights"
                )
        for earlier in before:
            teachers = self.networks(earlier)
            other = teachers[number % len(teachers)].model
            if not network.model.takes_all_of(other):
                raise ValueError(
                    f"{where}.start: 'teacher' needs the same network, head and normalisation in every generation "
                    f"before it, and generation {earlier} has another (network {other.name}); use 'weights'"
                )

    def _check_start(self, network: PhaseConfig, where: str) -> None:
        """Raise where layers would stand still, or keep statistics, that nothing has taught.

        BatchNorm of a new network has the mean 0 and the variance 1 of no features: frozen so, MobileNet's come out at
        1e-9 of their size.
        """
        model = network.model
        if network.start == "teacher" or model.keeps_statistics() or self._takes_pretraining(network):
            return
        key = "weights" if model.weights == "none" else "initialise"
        reason = f"{where}.model.{key} is '{getattr(model, key)}'"
        if network.optim.freeze_bn:
            raise ValueError(f"{where}.optim.freeze_bn: {reason}, and gives no statistics to keep; leave it out")
        if (first := network.phases()[0].trainable) != "all" and (first == "head" or model.initialise != "lowest"):
            raise ValueError(  # how many blocks the network has, preflight knows
                f"{where}.optim.phases: the first of them (trainable: {first}) leaves layers as they start, and "
                f"{reason}: nothing has taught them; begin with trainable: all, or leave phases out"
            )

    @staticmethod
    def _name(generation: int) -> Literal["teacher", "student"]:
        return "teacher" if generation == 0 else "student"

    def _base(self, generation: int) -> PhaseConfig:
        base: PhaseConfig = getattr(self, self._name(generation))
        return base

    def phase(self, generation: int) -> PhaseConfig:
        """Return how ``generation`` is trained: as ``teacher`` (0) or ``student``, with its own changes laid over."""
        base = self._base(generation)
        if generation not in self.generations:
            return base
        return type(base).model_validate(changed(base.model_dump(), self.generations[generation]))

    def networks(self, generation: int) -> tuple[PhaseConfig, ...]:
        """Return how each network of ``generation`` is trained: one, one per fold and one on all folds where that is
        asked for, or one per member.

        A network that starts from its teacher starts from the teacher's network of the same number; where the teacher
        has fewer, they are counted through again.
        """
        phase = self.phase(generation)
        base = phase.model_dump(exclude={"members", "refit"})
        if phase.refit is not None:
            return (phase,) * self.folds + (type(phase).model_validate(changed(base, phase.refit)),)
        if not phase.members:
            return (phase,) * self.folds
        return tuple(type(phase).model_validate(changed(base, changes)) for changes in phase.members)

    def stays(self, generation: int, number: int) -> bool:
        """Return whether network ``number`` of ``generation`` is that of the generation before, and learns nothing."""
        phase = self.phase(generation)
        return isinstance(phase, StudentConfig) and phase.judges == "stay" and number < self.folds

    def trainings(self, generation: int) -> dict[int, PhaseConfig]:
        """Return those of :meth:`networks` that learn in ``generation``, by their number."""
        return {k: one for k, one in enumerate(self.networks(generation)) if not self.stays(generation, k)}

    def phases(self) -> dict[int, PhaseConfig]:
        """Return the phases that differ, by generation: the last one stands for all generations after it."""
        listed = {0, 1, *self.generations, max(self.generations, default=0) + 1}
        return {generation: self.phase(generation) for generation in sorted(listed)}

    def starts_from_pretraining(self, generation: int, number: int = 0) -> bool:
        """Return whether network ``number`` of ``generation`` starts from what the self-supervised start has learnt."""
        return self._takes_pretraining(self.networks(generation)[number])

    def _takes_pretraining(self, network: PhaseConfig) -> bool:
        same = network.model.takes_all_of(self.teacher.model)
        return self.pretrain.method != "none" and network.start == "weights" and same

    def uses_pool(self, generation: int, number: int | None = None) -> bool:
        """Return whether network ``number`` of ``generation``, or any of them, sees the pool: every student does, and a
        teacher with a consistency term.
        """
        networks = self.networks(generation)
        return generation > 0 or any(one.consistency.on for one in (networks if number is None else [networks[number]]))

    def macro_labels(self) -> tuple[str, ...]:
        """Return the labels of the macro mean."""
        return self.evaluation.macro_labels or self.data.labels


class _Phases(Section):
    generations: dict[int, StudentConfig]


class _LaidOver(Section):
    members: tuple[StudentConfig, ...] = ()
    refit: StudentConfig | None = None


class _Laid(Section):
    teacher: _LaidOver = _LaidOver()
    student: _LaidOver = _LaidOver()
    generations: dict[int, _LaidOver] = Field({})
