"""The training loop: the steps of a course, with its looks at validation, its checkpoints and its log."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from scipy.special import expit
from torch import Tensor, nn
from tqdm import tqdm

from noisy_student.errors import DivergedError, StoppedError
from noisy_student.learning import augment, checkpoint, finetune, models, optim
from noisy_student.learning.course import Course, Task, autocaster, start_state
from noisy_student.learning.distributed import Group
from noisy_student.learning.predict import predict
from noisy_student.learning.state import State
from noisy_student.runs import PRETRAINING, REFIT, Run, atomic
from noisy_student.stats.metrics import auroc, log_loss

__all__ = ["Course", "Task", "autocaster", "clean_copy", "fit", "start_state"]

LOG_EVERY: Final = 10


def fit(
    run: Run,
    task: Task,
    *,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = False,
) -> list[Path]:
    """Train one network of a generation, going on from its last checkpoint, and return the files written.

    Where several processes share the steps, every one of them calls this, and the first one looks at validation and
    writes.

    Raises:
        DivergedError: a loss was not finite; the last checkpoint is kept.
        PeerError: another of the processes is gone.
        StoppedError: ``stop()`` became true, in one of the processes; a checkpoint was written first.
    """
    config, course = task.phase.optim, Course(task)
    state, steps, group = course.state, course.steps, task.group
    leads = group.rank == 0
    folder = run.network(task.generation, task.fold, task.member)
    last, best = folder / "checkpoint" / "last", folder / "checkpoint" / "best"
    if (saved := checkpoint.load_resume(last / "resume.pt")) is not None:
        state.restore(saved)
    if leads:
        run.cut_log(task.generation, state.step, task.fold, task.member)
    watch = _Watch(task, last)
    clock, since = time.perf_counter(), state.step

    title = "self-supervised start" if task.generation == PRETRAINING else f"generation {task.generation}"
    if task.fold is not None:
        title += ", refit" if task.fold == REFIT else f", fold {task.fold}"
    title += "" if task.member is None else f", member {task.member}"
    with tqdm(total=steps, initial=state.step, desc=title, unit="step", disable=not (progress and leads)) as bar:
        for films in course.stream(state.step):
            batch = course.noised(state.step, films)
            if state.step == 0 and leads:
                _write_contact_sheet(folder / "augmented.png", films.clean, batch.images)
            loss = course.loss(state.step, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            loss, halt = _shared(group, state, loss.detach(), stop())
            gradient_norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.clip)
            watch.see(state.step, loss, gradient_norm)
            rate = course.set_rates(state.step)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.averaged.update_parameters(state.network)
            state.step += 1
            bar.update()

            looks = state.step % config.eval_every == 0 or state.step == steps
            saves = state.step % config.save_every == 0 or state.step == steps
            logs = state.step % LOG_EVERY == 0 or state.step == steps
            # Several processes stop at the same step, at one where the device is waited for anyway.
            stops = bool(halt) if group.size == 1 or logs else False
            if looks or saves or logs or stops:
                watch.check()
            if logs and leads:
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
            if looks and leads:
                _look(run, task, state)
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                clock, since = time.perf_counter(), state.step
            if (saves or stops) and leads:
                state.save(last / "resume.pt")
            if stops:
                raise StoppedError(
                    f"stopped after step {state.step} of {steps} of generation {task.generation}",
                    "Go on with ns iterate --resume, or with the command that was stopped.",
                )

    if not leads:
        return []
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


def _shared(group: Group, state: State, loss: Tensor, stopped: bool) -> tuple[Tensor, Tensor | bool]:
    """Add up gradients, loss and the wish to stop over the processes of a step; return the latter two."""
    if group.size == 1:
        return loss, stopped
    own = (value for part in (state.network, state.objective) for value in part.parameters())
    wish = torch.full_like(loss, float(stopped))
    group.add_up([value.grad for value in own if value.grad is not None] + [loss, wish])
    return loss, wish


class _Watch:
    """Notes on the device at which step loss and gradient norm first were not finite, and is asked now and then.

    Every look at a number on the device waits for the device, so a step does not look.
    """

    def __init__(self, task: Task, last: Path) -> None:
        self._generation, self._last = task.generation, last
        self._first = torch.full((2,), -1, dtype=torch.int64, device=task.films.device)

    def see(self, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
        """Take in the numbers of a step."""
        wrong = ~torch.isfinite(torch.stack([loss, gradient_norm]))
        self._first = torch.where(wrong & (self._first < 0), step, self._first)

    def check(self) -> None:
        """Raise :class:`DivergedError` if any step had one that was not finite."""
        found = sorted((step, what) for what, step in enumerate(self._first.tolist()) if step >= 0)
        for step, what in found:
            raise _diverged(self._generation, step, self._last, ("loss", "gradient norm")[what])


def _diverged(generation: int, step: int, last: Path, what: str) -> DivergedError:
    kept = f"The last checkpoint, {last / 'resume.pt'}, is kept. " if (last / "resume.pt").exists() else ""
    return DivergedError(
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
        # Equal parts: every batch counts alike, and BatchNorm of a 1 x 1 map fails on a batch of one. Each takes films
        # from all over the table: within one of a sorted table there would be the variance of one class alone.
        count = max(1, len(numbers) // 64)
        parts = [numbers[first::count] for first in range(count)]
        films: Iterable[Tensor] = (augment.to_float(task.bn_films.gather(part)) for part in parts)
        optim.reestimate_batchnorm(network, films, finetune.standing_still(state.network))
    return network.eval()


def _look(run: Run, task: Task, state: State) -> None:
    """Measure the averaged model on validation, log it, and keep its weights if they are the ones to keep."""
    network = clean_copy(task, state)
    if task.valid_films is None:
        state.keep(network)
        return
    autocast = autocaster(task.films.device, task.precision)
    logits = predict(network, task.valid_films, autocast=autocast).astype(np.float64)
    last = run.network(task.generation, task.fold, task.member) / "checkpoint" / "last"
    if not np.isfinite(logits).all():
        raise _diverged(task.generation, state.step, last, "prediction")
    areas, costs = [], []
    for k in task.macro_columns:
        known = ~np.isnan(task.valid_truth[:, k])
        truth, score = task.valid_truth[known, k].astype(np.float64), logits[known, k]
        if truth.min(initial=1) < truth.max(initial=0):
            areas.append(auroc(truth, score))
            costs.append(log_loss(truth, expit(score)))
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
