"""The training loop: the only place where films, noise, model and objective meet.

``fit`` does not know whether it trains a teacher or a student; a generation is its targets table, its noise, its
model and its start weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from noisy_student.config import PhaseConfig
from noisy_student.errors import DivergedError, StoppedError
from noisy_student.learning import augment, checkpoint, finetune, losses, models, objectives, optim
from noisy_student.learning.batches import Batch, Batches, Films
from noisy_student.learning.blocks import blocks
from noisy_student.learning.predict import predict
from noisy_student.learning.sampling import Staged, sampler
from noisy_student.learning.state import State
from noisy_student.randomness import hash_u64
from noisy_student.runs import PRETRAINING, Run, atomic
from noisy_student.stats.metrics import auroc, log_loss
from noisy_student.targets.table import Targets

LOG_EVERY: Final = 10
_INITIALISATION, _DROPOUT, _WEAK = 0x494E4954, 0x44524F50, 0x5745414B  # separate the streams of random numbers


@dataclass(frozen=True)
class Task:
    """What one generation trains on and how. Films of ``targets``, validation and BatchNorm are on one device."""

    generation: int
    """Its index, or ``runs.PRETRAINING`` for the self-supervised start."""
    seed: int
    phase: PhaseConfig
    targets: Targets
    films: Films
    valid_films: Films | None
    """Films on which training looks now and then; ``None`` where there is nothing to measure."""
    valid_truth: npt.NDArray[np.float32]
    """(N, K) labels of the validation films: 1, 0 or NaN."""
    bn_films: Films
    """Clean training films on which BatchNorm statistics are estimated."""
    pos_weight: npt.NDArray[np.float32]
    macro_columns: tuple[int, ...]
    precision: str
    fold: int | None = None
    """Which network of a cross-fitted generation this is."""
    member: int | None = None
    """Which network of an ensemble this is."""
    objective: objectives.Objective = field(default=objectives.supervised(losses.weighted_bce, losses.mean_loss))
    views: Literal[1, 2] = 1
    """Noisy views of each film in a step; two for objectives that compare them."""
    start: Path | None = None
    """Model folder whose weights are the start weights; ``None`` takes those of the model's configuration."""
    search: Sequence[Path] = ()
    """Folders in which a weights file is looked up."""
    compiled: bool = False
    """Whether steps run the network through ``torch.compile``."""
    info: dict[str, Any] = field(default_factory=dict)
    """What the checkpoint's ``meta.json`` records besides the model."""


def autocaster(device: torch.device, precision: str) -> Callable[[], torch.autocast]:
    """Return a function that opens autocast to bfloat16 where ``precision`` asks for it or the device gains by it."""
    gains = device.type == "cuda" and torch.cuda.is_bf16_supported()
    enabled = precision == "bf16" or (precision == "auto" and gains)
    return partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=enabled)


def start_state(task: Task, device: torch.device) -> State:
    """Return the state before the first step: model with its start weights, averaged copy, optimiser."""
    config = task.phase.model
    channels, size = task.films.pixels.shape[1], task.films.pixels.shape[2]
    seed = int(hash_u64(_INITIALISATION, task.seed, task.generation) >> np.uint64(1))
    network = models.build(config, task.targets.labels, channels, size, seed=seed)
    if task.start is None:
        origin = models.load_weights(network, config, task.search, seed=seed)
    else:
        checkpoint.load_weights_into(network, task.start)
        origin = f"weights of {_name(task.start)}"
    network.to(device).to(memory_format=torch.channels_last)
    own = task.objective.to(device) if isinstance(task.objective, nn.Module) else nn.Module()
    decays = task.phase.optim.layer_decay != 1 or any(part.layer_decay for part in task.phase.phases())
    depth = finetune.depths(blocks(network.backbone)) if decays else None
    optimizer = optim.optimizer(network, task.phase.optim, own, depth)
    return State(network, optim.Average(network, task.phase.optim), optimizer, own, origin=origin)


def _name(model: Path) -> str:
    """Return ``gen-0`` or ``gen-0, fold-1`` for a model folder of a run."""
    folder = model.parent.parent
    several = folder.name.startswith(("fold-", "member-"))
    return f"{folder.parent.name}, {folder.name}" if several else folder.name


class Course:
    """What the steps of a task are made of: its state, its films in order, their noise, and what learns when."""

    def __init__(self, task: Task) -> None:
        self.task, device, config = task, task.films.device, task.phase.optim
        self.state = start_state(task, device)
        self.stretches = task.phase.stretches(len(task.targets.images))
        self.steps = self.stretches[-1].stop
        depth = finetune.depths(blocks(self.state.network.backbone))
        self._learning = [finetune.learning_names(self.state.network, part.does, depth) for part in self.stretches]
        self.noise = augment.Augment(
            task.phase.noise,
            size=task.films.pixels.shape[2],
            channels=task.films.pixels.shape[1],
            device=device,
            seed=task.seed,
            generation=task.generation,
        )
        self._weak = self._other_views()
        whole = sampler(
            task.targets,
            batch_size=config.batch_size,
            labelled_share=config.labelled_share,
            seed=task.seed,
            generation=task.generation,
            config=task.phase.sampler,
            unlabelled=task.phase.consistency.on,
        )
        order = Staged(
            tuple(whole if part.does.films == "all" else whole.labelled_alone() for part in self.stretches),
            tuple(part.stop for part in self.stretches),
        )
        self.batches = Batches(task.films, task.targets, order, task.pos_weight)
        self.autocast = autocaster(device, task.precision)
        self._set = -1  # the stretch that the network is set to learn in
        self._stepped = models.Compiled(self.state.network) if task.compiled else self.state.network

    def stream(self, start: int) -> Iterator[Batch]:
        """Yield the batches from step ``start`` on, each film once per view."""
        for films in self.batches.stream(start, self.steps):
            yield films.twice() if self.task.views == 2 else films

    def _other_views(self) -> augment.Augment | None:
        """Return the noise of the second views, where the objective compares views of a film."""
        task, settings = self.task, self.task.phase.consistency
        if not settings.on:
            return None
        noise = task.phase.noise
        if settings.strength is not None:
            noise = noise.model_copy(update={"strength": settings.strength, "count": 0})
        return augment.Augment(
            noise,
            size=task.films.pixels.shape[2],
            channels=task.films.pixels.shape[1],
            device=task.films.device,
            seed=int(hash_u64(_WEAK, task.seed) >> np.uint64(1)),
            generation=task.generation,
        )

    def noised(self, step: int, batch: Batch) -> objectives.Noised:
        """Return the batch of ``step`` with its input noise."""
        images, rest = augment.to_float(batch.clean), (batch.target, batch.weight, batch.pos_weight)
        if self.stretches[self._number(step)].does.noise:
            images = self.noise(batch.clean, batch.position, batch.image_id)
            images, *mixed = self.noise.mix(images, *rest, batch.position)
            rest = (mixed[0], mixed[1], mixed[2])
        images = images.contiguous(memory_format=torch.channels_last)
        if self._weak is None:
            return objectives.Noised(images, *rest)
        everyone = self.task.phase.consistency.method == "mean_teacher"
        rows = np.arange(len(images)) if everyone else np.flatnonzero(batch.pseudo)
        index = torch.from_numpy(rows).to(images.device)
        weak = self._weak(batch.clean[index], batch.position[rows], batch.image_id[rows])
        return objectives.Noised(images, *rest, weak.contiguous(memory_format=torch.channels_last), index)

    def loss(self, step: int, batch: objectives.Noised) -> Tensor:
        """Return the loss of ``step``, with what learns in it set to learn."""
        task, number = self.task, self._number(step)
        # The step's own seed makes dropout a function of the step, so a resumed run draws what it would have.
        torch.manual_seed(int(hash_u64(_DROPOUT, task.seed, task.generation, step) >> np.uint64(1)))
        if number != self._set:
            noise = self.stretches[number].does.noise
            finetune.set_trainable(self.state.network, self._learning[number], task.phase.optim.freeze_bn, noise=noise)
            self._set = number
        with self.autocast():
            return task.objective(self._stepped, self.state.averaged, batch)

    def set_rates(self, step: int, peak: float | None = None) -> float:
        """Set the optimiser's rates for ``step`` and return the classifier's; ``peak`` overrules the schedule's."""
        config, part = self.task.phase.optim, self.stretches[self._number(step)]
        first, stop = (part.first, part.stop) if config.schedule == "each" else (0, self.steps)
        if peak is None:
            peak = config.lr * optim.rate(step - first, config.model_copy(update={"steps": stop - first}))
        ratio, decay = (
            getattr(config, key) if getattr(part.does, key) is None else getattr(part.does, key)
            for key in ("backbone_lr_ratio", "layer_decay")
        )
        optim.set_rates(self.state.optimizer, part.does.lr_ratio * peak, ratio, decay)
        return part.does.lr_ratio * peak

    def _number(self, step: int) -> int:
        return next(number for number, part in enumerate(self.stretches) if step < part.stop)


def fit(
    run: Run,
    task: Task,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = False,
) -> list[Path]:
    """Train one network of a generation, going on from its last checkpoint, and return the files written.

    Raises:
        DivergedError: a loss was not finite; the last checkpoint is kept.
        StoppedError: ``stop()`` became true; a checkpoint was written first.
    """
    config, course = task.phase.optim, Course(task)
    state, steps = course.state, course.steps
    folder = run.network(task.generation, task.fold, task.member)
    last, best = folder / "checkpoint" / "last", folder / "checkpoint" / "best"
    if (saved := checkpoint.load_resume(last / "resume.pt")) is not None:
        state.restore(saved)
    run.cut_log(task.generation, state.step, task.fold, task.member)
    clock, since = time.perf_counter(), state.step

    title = "self-supervised start" if task.generation == PRETRAINING else f"generation {task.generation}"
    title += "" if task.fold is None else f", fold {task.fold}"
    title += "" if task.member is None else f", member {task.member}"
    with tqdm(total=steps, initial=state.step, desc=title, unit="step", disable=not progress) as bar:
        for films in course.stream(state.step):
            batch = course.noised(state.step, films)
            if state.step == 0:
                _write_contact_sheet(folder / "augmented.png", films.clean, batch.images)
            loss = course.loss(state.step, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            gradient_norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.clip)
            # Both at once, before the update: every look at a number on the device waits for the device.
            if not bool(torch.isfinite(loss.detach() + gradient_norm)):
                _check_finite(loss, task.generation, state.step, last, "loss")
                _check_finite(gradient_norm, task.generation, state.step, last, "gradient norm")
            rate = course.set_rates(state.step)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.averaged.update_parameters(state.network)
            state.step += 1
            bar.update()

            if state.step % LOG_EVERY == 0 or state.step == steps:
                now = time.perf_counter()
                speed = (state.step - since) * config.batch_size / max(now - clock, 1e-9)
                clock, since = now, state.step
                run.log(
                    task.generation,
                    state.step,
                    task.fold,
                    task.member,
                    loss=loss.item(),
                    lr=rate,
                    gradient_norm=gradient_norm.item(),
                    films_per_second=round(speed, 1),
                )
            if state.step % config.eval_every == 0 or state.step == steps:
                _look(run, task, state, course.autocast)
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                clock, since = time.perf_counter(), state.step
            if stop():
                state.save(last / "resume.pt")
                raise StoppedError(
                    f"stopped after step {state.step} of {steps} of generation {task.generation}",
                    "Go on with ns iterate --resume, or with the command that was stopped.",
                )
            if state.step % config.save_every == 0 or state.step == steps:
                state.save(last / "resume.pt")

    info = task.info | {
        "generation": task.generation,
        "origin": state.origin,
        "steps": state.step,
        "images_seen": state.step * config.batch_size,
        "pos_weight": [float(value) for value in task.pos_weight],
    }
    checkpoint.save(last, state.network, task.phase.model, info)
    final = copy.deepcopy(state.network)
    final.load_state_dict(state.kept)
    checkpoint.save(best, final, task.phase.model, info)
    # resume.pt is not named: what it holds is the same after a resumed training, the bytes of its pickle need not be.
    names = [path / name for path in (last, best) for name in ("model.safetensors", "meta.json")]
    return [*names, folder / "augmented.png"]


def _check_finite(value: Tensor, generation: int, step: int, last: Path, what: str) -> None:
    if not bool(torch.isfinite(value).all()):
        kept = f"The last checkpoint, {last / 'resume.pt'}, is kept. " if (last / "resume.pt").exists() else ""
        raise DivergedError(
            f"generation {generation}: the {what} is not finite at step {step}",
            f"{kept}Lower optim.lr or optim.clip, or set precision: fp32, and start again with --overwrite.",
        )


def clean_copy(task: Task, state: State) -> models.Network:
    """Return the averaged model in evaluation mode, its BatchNorm statistics estimated on clean films.

    Layers whose statistics stand still in the phase of the last step keep them: what learns above has learnt with them.
    """
    network = copy.deepcopy(state.averaged.module)
    assert isinstance(network, models.Network)
    wanted = task.phase.optim.bn_images
    if wanted:
        numbers = np.arange(min(wanted, len(task.bn_films)))
        # Equal parts: every batch counts alike, and BatchNorm of a 1 x 1 map fails on a batch of one.
        parts = np.array_split(numbers, max(1, len(numbers) // 64))
        films: Iterable[Tensor] = (augment.to_float(task.bn_films.gather(part)) for part in parts)
        optim.reestimate_batchnorm(network, films, finetune.standing_still(state.network))
    return network.eval()


def _look(run: Run, task: Task, state: State, autocast: Callable[[], torch.autocast]) -> None:
    """Measure the averaged model on validation, log it, and keep its weights if they are the ones to keep."""
    network = clean_copy(task, state)
    if task.valid_films is None:
        state.keep(network)
        return
    logits = predict(network, task.valid_films, autocast=autocast).astype(np.float64)
    last = run.network(task.generation, task.fold, task.member) / "checkpoint" / "last"
    _check_finite(torch.from_numpy(logits), task.generation, state.step, last, "prediction")
    areas, costs = [], []
    for k in task.macro_columns:
        known = ~np.isnan(task.valid_truth[:, k])
        truth, score = task.valid_truth[known, k].astype(np.float64), logits[known, k]
        if truth.min(initial=1) < truth.max(initial=0):
            areas.append(auroc(truth, score))
            costs.append(log_loss(truth, 1 / (1 + np.exp(-score))))
    score = float(np.mean(areas)) if areas else None
    run.log(
        task.generation,
        state.step,
        task.fold,
        task.member,
        valid_auroc=score,
        valid_log_loss=float(np.mean(costs)) if costs else None,
    )
    is_last = task.phase.optim.select == "last" or score is None
    if is_last or (score is not None and score > state.score):
        state.score = -np.inf if score is None else score
        state.keep(network)


def _write_contact_sheet(path: Path, clean: Tensor, noisy: Tensor) -> None:
    sheet = augment.contact_sheet(clean[:16], noisy[:16])
    with atomic(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
