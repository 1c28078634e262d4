#!/usr/bin/env python
"""Training speed against the model alone, side by side: films/s of the real loop over films/s of a bare step.

The loop is ``learning.fit.fit`` (sampling, gathering, noise, forward, backward, clipping, optimiser, averaged model),
its films on the device; ``--stream`` adds one whose films stay in a memory map. Its file is so small that the system
keeps it in memory, so this shows the cost of gathering, not of a disk. The bare step is forward, loss, backward and
optimiser on one resident random batch of the same shape. ``--peers`` adds the same bare step, without clipping and
averaged model, fed by other libraries' loaders from JPEGs. All take turns in every round; a ratio is of one round.

The split is of steps of the loop whose parts are waited for one by one, so on a GPU they take longer than a step does;
"gather" is what the step waits for its films, "optimiser" has the clipping in it.

    python scripts/bench_train.py --rounds 5 --json
    python scripts/bench_train.py --model densenet121 --size 224 --stream --peers --workers 16
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peers
import torch
from measuring import about, make_films, peak_memory, ratios, spread, told, wait
from stepping import LABELS, Step, bare_step, pace, random_batch
from torch import nn

from noisy_student.config import ModelConfig, NoiseConfig, OptimConfig, PhaseConfig
from noisy_student.learning import fit, machine
from noisy_student.learning.batches import Films
from noisy_student.learning.predict import best_device
from noisy_student.runs import Run
from noisy_student.targets.table import Targets

PARTS = ("gather", "augment", "forward", "backward", "optimiser", "ema")
WARM = fit.LOG_EVERY
"""Steps before the clock starts."""

Arms = dict[str, Callable[[], float]]
"""Functions that give films/s of one round, by name."""


def task(phase: PhaseConfig, pixels: npt.NDArray[np.uint8], device: torch.device, *, resident: bool) -> fit.Task:
    """Return a generation on ``pixels`` (N, 1, S, S): 52 films labelled, the rest pseudo-labelled."""
    count = len(pixels)
    target = np.random.default_rng(0).random((count, len(LABELS))).astype(np.float32)
    images = np.array([f"film{number}" for number in range(count)], dtype=object)
    few = Films(pixels, np.arange(64), device)
    return fit.Task(
        generation=0,
        seed=0,
        phase=phase,
        targets=Targets(images, LABELS, target, np.ones_like(target), np.arange(count) >= 52),
        films=Films(pixels, np.arange(count), device, resident=resident),
        valid_films=few,
        valid_truth=np.round(target[:64]),
        bn_films=few,
        pos_weight=np.ones(len(LABELS), dtype=np.float32),
        macro_columns=(0, 1, 2, 3),
        precision="auto",
    )


def loop_speed(work: fit.Task) -> float:
    """Return films/s of the training loop after its warm-up, looks at validation and checkpoints left out."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        fit.fit(run, work)
        speeds: list[float] = [entry["films_per_second"] for entry in run.read_log() if "films_per_second" in entry]
    return statistics.harmonic_mean(speeds[1:])  # each is of WARM steps, but for the last if it is cut short


def split(work: fit.Task, steps: int) -> dict[str, dict[str, float]]:
    """Return milliseconds of the parts of a step of the loop."""
    course, config = fit.Course(work), work.phase.optim
    state, found = course.state, {name: list[float]() for name in PARTS}
    since = time.perf_counter()

    def lap(part: str) -> None:
        nonlocal since
        wait(work.films.device)
        now = time.perf_counter()
        found[part].append(1e3 * (now - since))
        since = now

    for films in itertools.islice(course.stream(0), steps):
        lap("gather")
        batch = course.noised(state.step, films)
        lap("augment")
        loss = course.loss(state.step, batch)
        lap("forward")
        loss.backward()  # type: ignore[no-untyped-call]
        lap("backward")
        nn.utils.clip_grad_norm_(state.network.parameters(), config.clip)
        course.set_rates(state.step)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        lap("optimiser")
        state.averaged.update_parameters(state.network)
        lap("ema")
        state.step += 1
    return {part: spread(values[len(values) // 4 :]) for part, values in found.items()}


def peer_arms(work: peers.Work, step: Step, steps: int, warm: int) -> Arms:
    """Return the bare step fed by each loader that is installed."""
    targets = torch.rand(len(work.names), len(LABELS), device=work.device)

    def run(start: Callable[[], peers.Batches]) -> float:
        batches = ((films, targets[numbers]) for films, numbers in start())
        return pace(step, batches, steps, warm, work.device)

    return {f"{name} loader": partial(run, start) for name, start in peers.loaders(work).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--strength", type=float, default=NoiseConfig().strength, help="of the input noise, 0 to 10")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--films", type=int, default=2048, help="films of the loop")
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stream", action="store_true", help="also measure a loop whose films are not resident")
    parser.add_argument("--peers", action="store_true", help="also measure other libraries' loaders, from JPEGs")
    parser.add_argument("--workers", type=int, default=min(16, os.cpu_count() or 1), help="processes of those")
    parser.add_argument("--source-size", type=int, nargs=2, default=(390, 320), help="width and height of the JPEGs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    machine.prepare(0)
    with tempfile.TemporaryDirectory() as scratch:
        result = measured(given, best_device(given.device), Path(scratch))
    print(json.dumps(result, indent=1) if given.json else words(result))


def measured(given: argparse.Namespace, device: torch.device, scratch: Path) -> dict[str, Any]:
    """Return the figures."""
    steps, whole = given.steps, given.steps + WARM
    optimizer = OptimConfig(steps=whole, batch_size=given.batch, eval_every=whole, save_every=whole, bn_images=64)
    noise, named = NoiseConfig(strength=given.strength), ModelConfig(name=given.model)
    phase = PhaseConfig(model=named, noise=noise, optim=optimizer)
    shape = (given.films, 1, given.size, given.size)
    np.save(scratch / "films.npy", np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    pixels = np.load(scratch / "films.npy", mmap_mode="r")
    works = {"loop": task(phase, pixels, device, resident=True)}
    if given.stream:
        works["streamed loop"] = task(phase, pixels, device, resident=False)

    result = {name: getattr(given, name) for name in ("model", "size", "strength", "batch", "steps", "rounds")}
    result |= about(device)
    loops: Arms = {name: partial(loop_speed, work) for name, work in works.items()}
    for warm_up in loops.values():
        warm_up()
    result["milliseconds"] = {name: split(work, max(4, steps // 2)) for name, work in works.items()}
    # Before the bare step and the peers take theirs.
    result |= peak_memory(device)

    step, resident = bare_step(phase, given.size, device), random_batch(given.batch, given.size, device)
    arms: Arms = {"model": lambda: pace(step, itertools.repeat(resident), steps, WARM, device)} | loops
    if given.peers:
        (scratch / "jpegs").mkdir()
        names = make_films(scratch / "jpegs", min(given.films, 1024), *given.source_size)
        # Until the batches that workers hold ready have been made, a loader is not at its own pace; nor is it at the
        # end, when it has nothing left to make.
        ready = 2 * given.workers
        warm = max(WARM, ready)
        work = peers.Work(
            scratch / "jpegs", names, given.size, given.batch, given.workers, noise, device, warm + steps + ready
        )
        arms |= peer_arms(work, step, steps, warm)
        result["workers"] = given.workers
        result["not_installed"] = [name for name in peers.PEERS if f"{name} loader" not in arms]
    speeds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(given.rounds):
        for name, arm in arms.items():
            speeds[name].append(arm())
    result["films_per_second"] = {name: spread(values) for name, values in speeds.items()}
    result["ratio"] = {name: ratios(speeds[name], speeds["model"]) for name in arms if name != "model"}
    if given.stream:
        result["streamed_over_resident"] = ratios(speeds["streamed loop"], speeds["loop"])
    return result


def words(result: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    head = "{model} at {size} px, strength {strength:g}, batches of {batch}, {device}, {threads} threads, load {load}"
    lines = [head.format(**result)]
    lines += [told(name, speed, " films/s") for name, speed in result["films_per_second"].items()]
    lines += [told(f"{name} / model", ratio) for name, ratio in result["ratio"].items()]
    if "streamed_over_resident" in result:
        lines.append(told("streamed / resident", result["streamed_over_resident"]))
    for name, parts in result["milliseconds"].items():
        whole = sum(time["median"] for time in parts.values())
        shares = (f"{part} {time['median']:.2f} ms ({time['median'] / whole:.1%})" for part, time in parts.items())
        lines.append(f"step of the {name}: {', '.join(shares)}")
    lines += [f"{key.replace('_', ' ')} {value:,.0f}" for key, value in result.items() if key.startswith("peak_")]
    lines += [f"{name} is not installed: its loader is left out" for name in result.get("not_installed", ())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
