"""The arms of the benchmark of methods: each makes scores of the test films from the same films, labels and network.

An arm is a targets table, an objective and a schedule for the library's one training loop, or a whole `ns iterate`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Final

import frozen
import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student import generations, plan, preflight, preparation, scoring, training
from noisy_student.config import Config, ConsistencyConfig, FinetuneConfig, OptimConfig, PhaseConfig
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.errors import ConfigError
from noisy_student.learning import fit, goals, machine, predict
from noisy_student.learning.batches import Films
from noisy_student.learning.checkpoint import load as load_network
from noisy_student.randomness import text_ids
from noisy_student.runs import Run
from noisy_student.targets.table import Targets
from noisy_student.targets.uncertainty import label_targets
from noisy_student.workplace import Workplace

Floats = npt.NDArray[np.float64]

ONE_FOLD: Final = ("folds=1", "teacher.refit=null", "student.refit=null", "student.judges=learn")
"""One network a generation."""
SIX_MEMBERS: Final = "members=[{}, {}, {}, {}, {}, {}]"
"""Of a phase: six networks that differ by their seeds alone."""
SETTINGS: Final[dict[str, tuple[str, ...]]] = {
    "few_ensemble": (*ONE_FOLD, f"teacher.{SIX_MEMBERS}"),
    "pseudo": (
        "student.noise.strength=0",
        "student.noise.mixup.probability=0",
        "student.noise.cutmix.probability=0",
        "student.model.dropout=0",
        "student.model.stochastic_depth=0",
    ),
    "mean_teacher": (
        "student.noise.mixup.probability=0",
        "student.noise.cutmix.probability=0",
        "student.start=weights",
        "student.consistency={method: mean_teacher, weight: 1, strength: null}",
    ),
    "fixmatch": (
        "student.noise.mixup.probability=0",
        "student.noise.cutmix.probability=0",
        "student.start=weights",
        "student.consistency={method: fixmatch, ramp: 0, source: average}",
    ),
    "hard": ("pseudo.hard=true",),
    "single": ONE_FOLD,
    "unpretrained": ("pretrain.method=none",),
    "unaligned": ("pseudo.align=false",),
}
"""What the arms change of the configuration that all of them share; the rivals' are chosen by trials."""


def check(arm: str, base: Config, config: Config) -> None:
    """Check the configuration of an arm beside ``base``, that of ours.

    Raises:
        ConfigError: its settings change nothing, or a student gives back what they have taken away.
    """
    if arm not in ARMS and base == config:
        raise ConfigError(f"arm {arm}: its settings are what the configuration says already", "Leave the arm out.")
    keys = [text.partition("=")[0] for text in SETTINGS.get(arm, ())]
    if keys and all(_value(base, key) == _value(config, key) for key in keys):
        raise ConfigError(
            f"arm {arm}: {', '.join(SETTINGS[arm])} is what the configuration says already", "Leave the arm out."
        )
    for generation in (number for number in config.phases() if number > 0 and arm == "pseudo"):
        where = f"generations.{generation}" if generation in config.generations else "student"
        if _noisy(config.phase(generation)):
            raise ConfigError(
                f"{where}: brings noise to the arm pseudo, which is without",
                f"Add --own pseudo:{where}.noise.strength=0, and the same for the model's noise.",
            )
        if any(_noisy(network) for network in config.networks(generation)):
            said = where if config.generations.get(generation, {}).keys() & {"refit", "members"} else "student"
            raise ConfigError(
                f"{said}: its refit or members bring noise to the arm pseudo, which is without",
                f"Add --own 'pseudo:{said}.refit={{}}', or take it from the members.",
            )


def _noisy(phase: PhaseConfig) -> bool:
    """Return whether a network is trained under noise, or to agree with itself under noise."""
    noise, model = phase.noise, phase.model
    mixed = noise.mixup.probability or noise.cutmix.probability
    return bool(noise.strength or mixed or model.dropout or model.stochastic_depth or phase.consistency.on)


def unread(arm: str, config: Config, rounds: int) -> list[str]:
    """Return the keys of a configuration that change nothing of an arm: a change of ours need not make rivals anew.

    Of ours they read how many films it sees, which is the :func:`budget`; where the data decide that, all keys are.
    """
    make = ARMS.get(arm, iterated)
    if make is iterated or (make in AS_LONG and budget(arm, config, rounds) is None):
        return []
    phase, generation = ("student", 1) if make in AS_LONG else ("teacher", 0)
    others = ["teacher" if phase == "student" else "student"]
    if make is regressed:  # it asks the teacher's network with its start weights
        others += [f"teacher.{key}" for key in type(config.teacher).model_fields if key != "model"]
    later = [f"generations.{number}" for number in config.generations if number != generation]
    keys = ["refit", "judges"]
    if not _fixed(config.phase(generation).optim):
        keys += ["optim.steps", "optim.eval_every"]  # see lasting
    alone = [f"{part}.{key}" for part in (phase, f"generations.{generation}") for key in keys]
    return ["folds", "pretrain", "promotion", "pseudo", *others, *later, *alone]


def budget(arm: str, config: Config, rounds: int) -> int | None:
    """Return how many films an arm sees that sees as many as all trainings of ours; ``None`` where it is another arm,
    or the data decide.
    """
    found = plan.amount(config, rounds) if ARMS.get(arm, iterated) in AS_LONG else None
    return None if found is None else found[1]


def _value(config: Config, key: str) -> Any:
    return reduce(getattr, key.split("."), config)


@dataclass(frozen=True, eq=False)
class Bench:
    """A prepared run with its films: ``seen`` as training may see them, ``sealed`` with the labels it may not."""

    work: Workplace
    seen: Manifest
    sealed: Manifest
    rounds: int
    few_steps: int

    @property
    def test(self) -> Manifest:
        """The films on which arms are measured."""
        return manifest.select(self.sealed, split="test")

    @property
    def budget(self) -> Manifest:
        """The labelled and the validation films: what had to be labelled."""
        return manifest.rows(
            self.seen, ((self.seen.frame["split"] == "valid") | self.seen.frame["labelled"]).to_numpy()
        )

    @property
    def pool(self) -> Manifest:
        """The films without labels."""
        return manifest.pool(self.seen)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an arm says of the test films, (N, K), and what it did."""

    scores: Floats
    about: dict[str, Any]


Arm = Callable[[Bench], Outcome]


def prepared(path: Path, config: Config, rounds: int, few_steps: int) -> Bench:
    """Return the run of an arm, prepared; the sealed labels are opened for the benchmark alone."""
    run = generations.open_run(path, config, resume=True, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "auto")
    return Bench(work, manifest.read(run.manifest), manifest.read(run.sealed), rounds, few_steps)


def device() -> str:
    """Return the name of the device that the arms use."""
    import torch

    best = predict.best_device("auto")
    return torch.cuda.get_device_name(best) if best.type == "cuda" else best.type


def seen_by_ours(bench: Bench) -> int:
    """Return how many films all trainings of ours see together, both views of a self-supervised start counted."""
    found = plan.amount(bench.work.config, bench.rounds, preparation.sizes(bench.seen, bench.work.config))
    assert found is not None, "the films are known"
    return found[1]


def supervised(phase: PhaseConfig) -> PhaseConfig:
    """Return ``phase`` without its consistency term: what labels alone teach."""
    return phase.model_copy(update={"consistency": ConsistencyConfig()})


def lasting(phase: PhaseConfig, steps: int) -> PhaseConfig:
    """Return ``phase`` over ``steps`` steps with one look at the end; stretches of a fixed length keep their share."""
    optim, parts = phase.optim, phase.optim.phases
    if _fixed(optim):
        share = steps / max(optim.steps, 1)
        parts = (*(_scaled(part, share) for part in parts[:-1]), _scaled(parts[-1], 0))
    changed: OptimConfig = optim.model_copy(update={"steps": steps, "eval_every": steps, "phases": parts})
    return phase.model_copy(update={"optim": changed, "members": (), "refit": None})


def networks(config: Config, generation: int) -> tuple[PhaseConfig, ...]:
    """Return how the networks of an arm with one phase are trained: the members of the phase, or one."""
    phase = config.phase(generation)
    return config.networks(generation) if phase.members else (phase,)


def sharing_films(config: Config, generation: int, films: int) -> list[PhaseConfig]:
    """Return the same for networks that see ``films`` films together."""
    several = networks(config, generation)
    return [lasting(one, films // len(several) // one.optim.batch_size) for one in several]


def _fixed(optim: OptimConfig) -> bool:
    """Return whether all stretches have a length of their own."""
    return bool(optim.phases) and all(part.steps or part.epochs for part in optim.phases)


def _scaled(part: FinetuneConfig, share: float) -> FinetuneConfig:
    """Return a stretch ``share`` times as long; with 0 the one that takes what the others leave."""
    return part.model_copy(update={"steps": round(part.steps * share), "epochs": part.epochs if share else 0.0})


def table_of(films: Manifest, config: Config, pool: Manifest | None = None) -> Targets:
    """Return the targets table of labelled ``films``, and of ``pool``, whose targets weigh nothing."""
    images = films.frame["image"].to_numpy(dtype=object)
    target, weight = label_targets(manifest.values(films), config.data.labels, config.targets, images.tolist())
    known = Targets(images, config.data.labels, target, weight, np.zeros(len(images), dtype=bool))
    if pool is None:
        return known
    names = np.concatenate([images, pool.frame["image"].to_numpy(dtype=object)])
    nothing = np.zeros((len(pool), target.shape[1]), dtype=np.float32)
    both = np.concatenate([target, nothing]), np.concatenate([weight, nothing])
    return Targets(names, config.data.labels, *both, np.arange(len(names)) >= len(images))


def trained(bench: Bench, targets: Targets, phases: Sequence[PhaseConfig]) -> Floats:
    """Return test scores (N, K) of networks trained on ``targets`` with these schedules: the mean of their logits."""
    import torch

    work, config, device = bench.work, bench.work.config, predict.best_device("auto")
    machine.prepare(config.threads)
    image_id = text_ids(bench.test.frame["image"].astype(str).tolist())
    asked, autocast = _films(work, bench.test), fit.autocaster(device, config.precision)
    films = Films(work.cache.pixels, work.cache.rows([str(image) for image in targets.images]), device)
    views = predict.views(config.prediction.tta, image_id, asked, seed=config.seed)
    run = Run(work.run.path / "fit")  # beside the generations of the run, of which this is none
    said: list[Floats] = []
    for number, phase in enumerate(phases):
        goal = goals.goal(phase, targets)
        clean = training.clean_sample(manifest.select(bench.seen, split="train"), phase.optim.bn_images, config.seed)
        member = number if len(phases) > 1 else None
        task = fit.Task(
            generation=0,
            member=member,
            seed=config.seed if member is None else training.network_seed(config, number),
            phase=phase,
            targets=targets,
            films=films,
            valid_films=None,
            valid_truth=np.empty((0, len(config.data.labels)), dtype=np.float32),
            bn_films=_films(work, clean),
            pos_weight=goal.pos_weight,
            macro_columns=(),
            precision=config.precision,
            compiled=config.compile,
            objective=goal.objective,
            search=preflight.weight_folders(config),
        )
        fit.fit(run, task, progress=sys.stderr.isatty())
        network, _ = load_network(run.network(0, member=member) / "checkpoint" / "best")
        network.to(device).to(memory_format=torch.channels_last)
        said.append(predict.predict(network, asked, autocast=autocast, views=views).astype(np.float64))
    mean: Floats = np.mean(said, axis=0)
    return mean


def _films(work: Workplace, films: Manifest) -> Films:
    return Films(work.cache.pixels, preparation.film_rows(work.cache, films), predict.best_device("auto"))


# -- the arms ------------------------------------------------------------------------------------------------------


def few(bench: Bench) -> Outcome:
    """Supervised training on the whole label budget, with the teacher's recipe; of every network for as many steps."""
    config = bench.work.config
    phases = [lasting(supervised(one), bench.few_steps) for one in networks(config, 0)]
    return _taught(bench, table_of(bench.budget, config), phases)


def everything(bench: Bench) -> Outcome:
    """Supervised training on every label of the train split, with the student's recipe and as many films as ours."""
    phases = [supervised(one) for one in sharing_films(bench.work.config, 1, seen_by_ours(bench))]
    train = manifest.select(bench.sealed, split="train")
    both = Manifest(pd.concat([bench.budget.frame, train.frame], ignore_index=True), train.labels)
    return _taught(bench, table_of(both, bench.work.config), phases)


def with_pool(bench: Bench) -> Outcome:
    """Training on the label budget and the pool together, with the student's recipe and a consistency term.

    As many films as ours: mean teacher or FixMatch, as the settings say.
    """
    phases = sharing_films(bench.work.config, 1, seen_by_ours(bench))
    return _taught(bench, table_of(bench.budget, bench.work.config, bench.pool), phases)


def _taught(bench: Bench, targets: Targets, phases: Sequence[PhaseConfig]) -> Outcome:
    seen = sum(phase.optim.steps * phase.optim.batch_size for phase in phases)
    about = {"images_seen": seen, "films": len(targets.images), "steps": sum(phase.optim.steps for phase in phases)}
    return Outcome(trained(bench, targets, phases), about)


def regressed(bench: Bench) -> Outcome:
    """Logistic regression (scikit-learn) on the features of the start weights, which learn nothing, per label."""
    targets, patients = table_of(bench.budget, bench.work.config), bench.budget.frame["patient"].to_numpy()
    seen, asked = frozen.features(bench.work, bench.budget, bench.test)
    scores = frozen.regress(seen, targets.target, targets.weight, patients, asked)
    return Outcome(scores, {"images_seen": len(targets.images), "films": len(targets.images), "steps": 0})


def iterated(bench: Bench) -> Outcome:
    """`ns iterate` and its best generation: ours, or ours with what the settings of the arm change."""
    report = generations.iterate(bench.work, bench.rounds, say=print)
    measures = [_measures(entry) for entry in report["generations"]]
    scores = scoring.probabilities(bench.work.run, report["best"], "test", bench.test)
    return Outcome(scores, {"images_seen": seen_by_ours(bench), "best": report["best"], "measures": measures})


def _measures(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a generation of the report: test measures, and how good its pseudo-labels were."""
    test, pool = entry["test"], entry["pool"]
    inside = test["macro"]["labels"]
    known = {key: test["macro"][key] for key in ("auroc", "log_loss", "brier")}
    known["ece_debiased"] = _mean([test["labels"][name]["ece_debiased"] for name in inside])
    known["pseudo_auroc"] = _mean([pool["labels"][name]["auroc"] for name in inside]) if pool else None
    kept = {key: None if value is None else round(value, 6) for key, value in known.items()}
    by_label = {name: round(test["labels"][name]["auroc"], 6) for name in inside}
    right = ("teachers_auroc", "right_positives", "right_negatives", "positives", "negatives")
    taught = {name: {key: pool["labels"][name][key] for key in right} for name in inside} if pool else None
    return kept | {"verdict": entry["verdict"], "labels": by_label, "pool": taught}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


ARMS: Final[dict[str, Arm]] = {
    "few": few,
    "frozen": regressed,
    "pseudo": iterated,
    "mean_teacher": with_pool,
    "fixmatch": with_pool,
    "ours": iterated,
    "all": everything,
    "few_ensemble": few,
    "hard": iterated,
    "single": iterated,
    "unpretrained": iterated,
    "unaligned": iterated,
}
AS_LONG: Final = (with_pool, everything)
"""Arms that see as many films as all trainings of ours."""
MATRIX: Final = ("few", "frozen", "pseudo", "mean_teacher", "fixmatch", "ours", "all")
"""The arms of the benchmark; the others are ours without one of its components."""
