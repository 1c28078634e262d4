"""The training loop: the only place where films, noise, model and objective meet.

``fit`` does not know whether it trains a teacher or a student; a generation is its targets table, its noise, its
model and its start weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from noisy_student.config import PhaseConfig
from noisy_student.errors import DivergedError, StoppedError
from noisy_student.learning import augment, checkpoint, losses, models, objectives, optim
from noisy_student.learning.batches import Batches, Films, sampler
from noisy_student.learning.predict import predict
from noisy_student.randomness import hash_u64
from noisy_student.runs import PRETRAINING, Run, atomic
from noisy_student.stats.metrics import auroc, log_loss
from noisy_student.targets.table import Targets

LOG_EVERY: Final = 10
_INITIALISATION, _DROPOUT = 0x494E4954, 0x44524F50  # separate the streams of random numbers


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


@dataclass
class State:
    """Where training stands; together with ``Task`` it decides everything that follows."""

    network: models.Network
    averaged: AveragedModel
    optimizer: torch.optim.Optimizer
    objective: nn.Module
    """The parameters of the objective; empty for most."""
    step: int = 0
    origin: str = ""
    score: float = -np.inf
    kept: dict[str, Tensor] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the state to ``path``."""
        checkpoint.save_resume(
            path,
            {
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "objective": self.objective.state_dict(),
                "step": self.step,
                "origin": self.origin,
                "score": self.score,
                "kept": self.kept,
            },
        )

    def keep(self, network: models.Network) -> None:
        """Take the weights of ``network`` as those that the generation ends with, for now."""
        self.kept = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over the state that :meth:`save` wrote."""
        self.network.load_state_dict(saved["network"])
        self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.objective.load_state_dict(saved["objective"])
        self.step, self.origin, self.score = saved["step"], saved["origin"], saved["score"]
        device = next(self.network.parameters()).device
        self.kept = {name: tensor.to(device) for name, tensor in saved["kept"].items()}


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
        origin = models.load_weights(network, config, task.search)
    else:
        checkpoint.load_weights_into(network, task.start)
        origin = f"weights of {_name(task.start)}"
    network.to(device).to(memory_format=torch.channels_last)
    own = task.objective.to(device) if isinstance(task.objective, nn.Module) else nn.Module()
    optimizer = optim.optimizer(network, task.phase.optim, own)
    return State(network, optim.averaged(network, task.phase.optim), optimizer, own, origin=origin)


def _name(model: Path) -> str:
    """Return ``gen-0`` or ``gen-0, fold-1`` for a model folder of a run."""
    folder = model.parent.parent
    several = folder.name.startswith(("fold-", "member-"))
    return f"{folder.parent.name}, {folder.name}" if several else folder.name


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
    config, device = task.phase.optim, task.films.device
    folder = run.network(task.generation, task.fold, task.member)
    last, best = folder / "checkpoint" / "last", folder / "checkpoint" / "best"
    autocast = autocaster(device, task.precision)
    state = start_state(task, device)
    if (saved := checkpoint.load_resume(last / "resume.pt")) is not None:
        state.restore(saved)
    run.cut_log(task.generation, state.step, task.fold, task.member)

    noise = augment.Augment(
        task.phase.noise,
        size=task.films.pixels.shape[2],
        channels=task.films.pixels.shape[1],
        device=device,
        seed=task.seed,
        generation=task.generation,
    )
    order = sampler(
        task.targets,
        batch_size=config.batch_size,
        labelled_share=config.labelled_share,
        seed=task.seed,
        generation=task.generation,
    )
    batches = Batches(task.films, task.targets, order, task.pos_weight)
    classifier = {id(parameter) for parameter in models.classifier_parameters(state.network)}
    stepped = models.Compiled(state.network) if task.compiled else state.network
    clock, since = time.perf_counter(), state.step

    title = "self-supervised start" if task.generation == PRETRAINING else f"generation {task.generation}"
    title += "" if task.fold is None else f", fold {task.fold}"
    title += "" if task.member is None else f", member {task.member}"
    with tqdm(total=config.steps, initial=state.step, desc=title, unit="step", disable=not progress) as bar:
        for films in batches.stream(state.step, config.steps):
            # The step's own seed makes dropout a function of the step, so a resumed run draws what it would have.
            torch.manual_seed(int(hash_u64(_DROPOUT, task.seed, task.generation, state.step) >> np.uint64(1)))
            _set_trainable(state.network, classifier, state.step < config.head_steps, config.freeze_bn)
            batch = films.twice() if task.views == 2 else films
            images = noise(batch.clean, batch.position, batch.image_id)
            images, target, weight, pos_weight = noise.mix(
                images, batch.target, batch.weight, batch.pos_weight, batch.position
            )
            images = images.contiguous(memory_format=torch.channels_last)
            if state.step == 0:
                _write_contact_sheet(folder / "augmented.png", batch.clean, images)
            with autocast():
                noised = objectives.Noised(images, target, weight, pos_weight)
                loss = task.objective(stepped, state.averaged, noised)
            _check_finite(loss, task.generation, state.step, last, "loss")
            loss.backward()  # type: ignore[no-untyped-call]
            gradient_norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.clip)
            _check_finite(gradient_norm, task.generation, state.step, last, "gradient norm")
            rate = _apply(state.optimizer, config.lr * optim.rate(state.step, config))
            state.averaged.update_parameters(state.network)
            state.step += 1
            bar.update()

            if state.step % LOG_EVERY == 0 or state.step == config.steps:
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
            if state.step % config.eval_every == 0 or state.step == config.steps:
                _look(run, task, state, autocast)
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                clock, since = time.perf_counter(), state.step
            if stop():
                state.save(last / "resume.pt")
                raise StoppedError(
                    f"stopped after step {state.step} of {config.steps} of generation {task.generation}",
                    "Go on with ns iterate --resume, or with the command that was stopped.",
                )
            if state.step % config.save_every == 0 or state.step == config.steps:
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


def _set_trainable(network: models.Network, classifier: set[int], head_only: bool, freeze_bn: bool) -> None:
    network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(not head_only or id(parameter) in classifier)
    if head_only or freeze_bn:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _apply(optimizer: torch.optim.Optimizer, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = group["lr_scale"] * rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(max(group["lr"] for group in optimizer.param_groups))


def _check_finite(value: Tensor, generation: int, step: int, last: Path, what: str) -> None:
    if not bool(torch.isfinite(value).all()):
        kept = f"The last checkpoint, {last / 'resume.pt'}, is kept. " if (last / "resume.pt").exists() else ""
        raise DivergedError(
            f"generation {generation}: the {what} is not finite at step {step}",
            f"{kept}Lower optim.lr or optim.clip, or set precision: fp32, and start again with --overwrite.",
        )


def clean_copy(task: Task, averaged: AveragedModel) -> models.Network:
    """Return the averaged model in evaluation mode, its BatchNorm statistics estimated on clean films."""
    network = copy.deepcopy(averaged.module)
    assert isinstance(network, models.Network)
    wanted = task.phase.optim.bn_images
    if wanted and not task.phase.optim.freeze_bn:
        numbers = np.arange(min(wanted, len(task.bn_films)))
        # Equal parts: every batch counts alike, and BatchNorm of a 1 x 1 map fails on a batch of one.
        parts = np.array_split(numbers, max(1, len(numbers) // 64))
        films: Iterable[Tensor] = (augment.to_float(task.bn_films.gather(part)) for part in parts)
        optim.reestimate_batchnorm(network, films)
    return network.eval()


def _look(run: Run, task: Task, state: State, autocast: Callable[[], torch.autocast]) -> None:
    """Measure the averaged model on validation, log it, and keep its weights if they are the ones to keep."""
    network = clean_copy(task, state.averaged)
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
