"""What a training is made of: its task, and the course of steps on which films, noise, model and objective meet.

A course does not know whether it trains a teacher or a student; a generation is its targets table, its noise, its
model and its start weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from noisy_student.config import PhaseConfig
from noisy_student.learning import augment, checkpoint, finetune, losses, models, objectives, optim
from noisy_student.learning.batches import Batch, Batches, Films
from noisy_student.learning.blocks import blocks
from noisy_student.learning.distributed import ALONE, Group, synchronise_batch_norm
from noisy_student.learning.sampling import Partners, Staged, sampler
from noisy_student.learning.state import State
from noisy_student.origins import OF_RUN
from noisy_student.randomness import hash_u64
from noisy_student.targets.table import Targets

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
    partners: Partners | None = None
    """For an objective that compares two noisy views: which film the second one is of. ``None`` makes one view."""
    start: Path | None = None
    """Model folder whose weights are the start weights; ``None`` takes those of the model's configuration."""
    search: Sequence[Path] = ()
    """Folders in which a weights file is looked up."""
    compiled: bool = False
    """Whether steps run the network through ``torch.compile``."""
    group: Group = ALONE
    """The processes that share every step."""
    info: dict[str, Any] = field(default_factory=dict)
    """What the checkpoint's ``meta.json`` records besides the model."""


def autocaster(device: torch.device, precision: str, trained: nn.Module | None = None) -> Callable[[], torch.autocast]:
    """Return a function that opens autocast to bfloat16 where ``precision`` asks for it or the device gains by it.

    A processor gains where it has instructions for it and the steps of the network ``trained`` have no grouped
    convolutions, which are slower so (docs/experiments.md). Its predictions stay exact. With ``fp32`` a GPU convolves
    in fp32 from here on: by itself cuDNN would round what it multiplies to 10 bits (TF32).
    """
    if precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False
    if device.type == "cuda":
        gains = torch.cuda.is_bf16_supported()
    else:
        gains = trained is not None and _has_bfloat16() and not _grouped(trained)
    enabled = precision == "bf16" or (precision == "auto" and gains)
    return partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=enabled)


def _has_bfloat16() -> bool:
    """Return whether the processor multiplies matrices of bfloat16 (AVX512-BF16, AMX)."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(ask is not None and ask() for ask in asked)


def _grouped(network: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in network.modules())


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
        origin = f"{OF_RUN}{_name(task.start)}"
    network.to(device).to(memory_format=torch.channels_last)
    own = task.objective.to(device) if isinstance(task.objective, nn.Module) else nn.Module()
    decays = task.phase.optim.layer_decay != 1 or any(part.layer_decay for part in task.phase.phases())
    depth = finetune.depths(blocks(network.backbone)) if decays else None
    optimizer = optim.optimizer(network, task.phase.optim, own, depth)
    return State(network, optim.Average(network, task.phase.optim), optimizer, own, origin=origin)


def _name(model: Path) -> str:
    """Return ``gen-0`` or ``gen-0, fold-1`` for a model folder of a run."""
    folder = model.parent.parent
    several = folder.name.startswith(("fold-", "member-", "refit"))
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
        # Smoothed before they are mixed: a mixture holds the class weight of what is positive on either film.
        soft = replace(task.targets, target=losses.smoothed(task.targets.target, task.phase.loss.smoothing))
        self.batches = Batches(task.films, soft, order, task.pos_weight, task.group, partners=task.partners)
        self.autocast = autocaster(device, task.precision, self.state.network)
        self._set = -1  # the stretch that the network is set to learn in
        synchronise_batch_norm(self.state.network, task.group, device)
        self._stepped = models.Compiled(self.state.network) if task.compiled else self.state.network

    def stream(self, start: int) -> Iterator[Batch]:
        """Yield the batches from step ``start`` on."""
        return self.batches.stream(start, self.steps)

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
        group, known = self.task.group, (batch.target, batch.weight, batch.pos_weight)
        if self.stretches[self._number(step)].does.noise:
            images = self.noise(batch.clean, batch.position, batch.image_id)
            images, *mixed = self._mixed(step, images, *known)
            known = (mixed[0], mixed[1], mixed[2])
        else:
            images = augment.to_float(batch.clean)
        images = images.contiguous(memory_format=torch.channels_last)
        if self._weak is None:
            return objectives.Noised(images, *known, group=group)
        everyone = self.task.phase.consistency.method == "mean_teacher"
        rows = np.arange(len(images)) if everyone else np.flatnonzero(batch.pseudo)
        index = torch.from_numpy(rows).to(images.device, non_blocking=True)
        weak = self._weak(batch.clean[index], batch.position[rows], batch.image_id[rows])
        return objectives.Noised(images, *known, weak.contiguous(memory_format=torch.channels_last), index, group)

    def _mixed(
        self, step: int, images: Tensor, target: Tensor, weight: Tensor, pos_weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the films and what is known of them after mixup and cutmix; partners come from the whole batch."""
        group, given = self.task.group, (images, target, weight, pos_weight)
        if not augment.mixes(self.task.phase.noise):
            return given
        places = self.batches.order.positions(step)
        films, *known = (group.whole(values) for values in given)
        films, *known = self.noise.mix(films, known[0], known[1], known[2], places)
        return group.part(films), group.part(known[0]), group.part(known[1]), group.part(known[2])

    def loss(self, step: int, batch: objectives.Noised) -> Tensor:
        """Return the loss of ``step``, with what learns in it set to learn."""
        task, number = self.task, self._number(step)
        # The step's own seed makes dropout a function of the step, so a resumed run draws what it would have.
        others = (task.group.rank,) if task.group.rank else ()
        torch.manual_seed(int(hash_u64(_DROPOUT, task.seed, task.generation, step, *others) >> np.uint64(1)))
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
