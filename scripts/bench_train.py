#!/usr/bin/env python
"""Training speed against the model alone, side by side: films/s of the real loop over films/s of a bare step.

The loop is ``learning.fit.fit`` (sampling, gathering, noise, forward, backward, clipping, optimiser, averaged model).
The bare step is forward, loss, backward and optimiser on one resident random batch of the same shape.

    python scripts/bench_train.py --rounds 5 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from noisy_student.config import ModelConfig, NoiseConfig, OptimConfig, PhaseConfig
from noisy_student.learning import augment, fit, losses, models, optim
from noisy_student.learning.batches import Films
from noisy_student.learning.predict import best_device
from noisy_student.runs import Run
from noisy_student.targets.table import Targets

LABELS = ("a", "b", "c", "d")


def task(phase: PhaseConfig, size: int, device: torch.device, count: int = 2048) -> fit.Task:
    """Return a generation on random films: 52 labelled, the rest pseudo-labelled."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, 1, size, size), dtype=np.uint8)
    target = draw.random((count, len(LABELS))).astype(np.float32)
    images = np.array([f"film{number}" for number in range(count)], dtype=object)
    targets = Targets(images, LABELS, target, np.ones_like(target), np.arange(count) >= 52)
    few = Films(pixels, np.arange(64), device)
    return fit.Task(
        generation=0,
        seed=0,
        phase=phase,
        targets=targets,
        films=Films(pixels, np.arange(count), device),
        valid_films=few,
        valid_truth=np.round(target[:64]),
        bn_films=few,
        pos_weight=np.ones(len(LABELS), dtype=np.float32),
        macro_columns=(0, 1, 2, 3),
        precision="auto",
    )


def loop_speed(work: fit.Task) -> float:
    """Return films/s of the training loop, looks at validation and checkpoints left out (median of its log)."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        fit.fit(run, work)
        speeds: list[float] = [entry["films_per_second"] for entry in run.read_log() if "films_per_second" in entry]
    return statistics.median(speeds[1:] or speeds)


def bare_step(phase: PhaseConfig, size: int, device: torch.device) -> Callable[[], None]:
    """Return a function that takes one step (forward, loss, backward, optimiser) on a resident random batch."""
    network = models.build(phase.model, LABELS, 1, size, seed=0).to(device).to(memory_format=torch.channels_last)
    optimizer = optim.optimizer(network, phase.optim)
    batch = phase.optim.batch_size
    images = torch.rand(batch, 1, size, size, device=device).contiguous(memory_format=torch.channels_last)
    target, weight = torch.rand(batch, len(LABELS), device=device), torch.ones(batch, len(LABELS), device=device)
    autocast = fit.autocaster(device, "auto")
    network.train()

    def step() -> None:
        with autocast():
            loss = losses.mean_loss(*losses.weighted_bce(network(images).float(), target, weight, None))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def model_speed(phase: PhaseConfig, size: int, device: torch.device, steps: int) -> float:
    """Return films/s of forward, loss, backward and optimiser on one resident random batch."""
    step, durations = bare_step(phase, size, device), []
    for _ in range(steps):
        since = time.perf_counter()
        step()
        durations.append(time.perf_counter() - since)
    return phase.optim.batch_size / statistics.median(durations[len(durations) // 4 :])


def parts(phase: PhaseConfig, size: int, device: torch.device, repeats: int = 20) -> dict[str, float]:
    """Return milliseconds per batch of gathering and noise."""
    work = task(phase, size, device)
    noise = augment.Augment(phase.noise, size=size, channels=1, device=device, seed=0, generation=0)
    places = np.arange(phase.optim.batch_size)
    found: dict[str, list[float]] = {"gather": [], "noise": []}
    for _ in range(repeats):
        since = time.perf_counter()
        films = work.films.gather(places)
        found["gather"].append(time.perf_counter() - since)
        since = time.perf_counter()
        noise(films, places, places)
        found["noise"].append(time.perf_counter() - since)
    return {name: 1e3 * statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    device = best_device(given.device)
    phase = PhaseConfig(
        model=ModelConfig(name=given.model),
        noise=NoiseConfig(),
        optim=OptimConfig(
            steps=given.steps, batch_size=given.batch, eval_every=given.steps, save_every=given.steps, bn_images=64
        ),
    )
    loops, bare = [], []
    for _ in range(given.rounds):
        bare.append(model_speed(phase, given.size, device, given.steps))
        loops.append(loop_speed(task(phase, given.size, device)))
    ratios = sorted(loop / model for loop, model in zip(loops, bare, strict=True))
    result = {
        "model": given.model,
        "size": given.size,
        "batch": given.batch,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "loop_films_per_second": [round(value, 1) for value in loops],
        "model_films_per_second": [round(value, 1) for value in bare],
        "ratio": {"min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1]},
        "milliseconds_per_batch": parts(phase, given.size, device),
    }
    if given.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{given.model} at {given.size} px, batches of {given.batch}, {result['device']}")
    print(f"loop  {statistics.median(loops):8.1f} films/s\nmodel {statistics.median(bare):8.1f} films/s")
    print(f"ratio {ratios[0]:.3f} / {statistics.median(ratios):.3f} / {ratios[-1]:.3f} (min / median / max)")


if __name__ == "__main__":
    main()
