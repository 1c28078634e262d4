#!/usr/bin/env python
"""One training step of every backbone at its usual size, and its speed with and without torch.compile.

The step is forward, loss, backward and optimiser on one resident random batch, in bf16 where ``precision: auto`` takes
it. The usual size is that of torchvision's weights (small_resnet: 64). The loss of the first step has to be finite;
a backbone that fails is named, and the exit code is then 1. With --compile both take turns, after the compiler is done.

    python scripts/bench_backbones.py --device cuda --compile --batch 64 --json
    python scripts/bench_backbones.py --models mobilenet_v2 --size 96 --batch 8 --steps 4
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from typing import Any, Final

import torch
import torchvision
from measuring import about, ratios, spread
from stepping import bare_step, pace, random_batch

from noisy_student.config import ModelConfig, OptimConfig, PhaseConfig
from noisy_student.errors import NoisyStudentError
from noisy_student.learning import machine, models
from noisy_student.learning.predict import best_device

BACKBONES: Final = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "densenet121", "densenet169", "densenet201"),
    *("efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4"),
    *("efficientnet_v2_s", "efficientnet_v2_m", "convnext_tiny", "convnext_small", "convnext_base"),
    *("vit_b_16", "swin_t", "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("regnet_y_400mf", "regnet_x_400mf", "regnet_y_1_6gf", "regnet_x_3_2gf", models.SMALL_RESNET),
)
"""Those that docs/models.md names."""


def usual_size(name: str) -> int:
    """Return the side of the films with which torchvision's weights of a backbone are used."""
    if name == models.SMALL_RESNET:
        return 64
    (side,) = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size
    return int(side)


def measured(name: str, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return the figures of one backbone.

    Raises:
        FloatingPointError: the loss of its first step is not finite.
        NoisyStudentError, RuntimeError: it cannot be built or has no room.
    """
    size = given.size or usual_size(name)
    phase = PhaseConfig(model=ModelConfig(name=name), optim=OptimConfig(batch_size=given.batch))
    batch = random_batch(given.batch, size, device)
    steps = {"plain": bare_step(phase, size, device)}
    if given.compile:
        steps["compiled"] = bare_step(phase, size, device, compiled=True)
    since = {}
    for kind, step in steps.items():
        start = time.perf_counter()
        loss = step(*batch).item()
        since[kind] = round(time.perf_counter() - start, 1)
        if not torch.isfinite(torch.tensor(loss)):
            raise FloatingPointError(f"the loss of the first step is {loss}")
    speeds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(given.rounds):
        for kind, step in steps.items():
            speeds[kind].append(pace(step, itertools.repeat(batch), given.steps, given.warm, device))
    found: dict[str, Any] = {"size": size, "bf16": steps["plain"].bf16, "first_step_seconds": since}
    found["films_per_second"] = {kind: spread(values) for kind, values in speeds.items()}
    if given.compile:
        found["compiled_over_plain"] = ratios(speeds["compiled"], speeds["plain"])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(BACKBONES), metavar="NAME")
    parser.add_argument("--size", type=int, help="side of the films [default: the usual one of each]")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="steps of each kind in a round")
    parser.add_argument("--warm", type=int, default=2, help="steps before the clock starts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also measure steps through torch.compile")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    machine.prepare(0)
    device = best_device(given.device)
    result: dict[str, Any] = about(device) | {"batch": given.batch, "backbones": {}, "failed": {}}
    for name in given.models:
        try:
            result["backbones"][name] = found = measured(name, given, device)
        except (NoisyStudentError, RuntimeError, FloatingPointError) as error:  # CUDA's lack of memory is the second
            result["failed"][name] = str(error).splitlines()[0]
            print(f"{name}: {result['failed'][name]}", file=sys.stderr)
            continue
        if not given.json:
            print(words(name, found), flush=True)
    if given.json:
        print(json.dumps(result, indent=1))
    sys.exit(1 if result["failed"] else 0)


def words(name: str, found: dict[str, Any]) -> str:
    """Return the figures of one backbone as a line of text."""
    kinds = (f"{kind} {speed['median']:.4g} films/s" for kind, speed in found["films_per_second"].items())
    line = f"{name} at {found['size']} px{' in bf16' if found['bf16'] else ''}: {', '.join(kinds)}"
    if "compiled_over_plain" in found:
        ratio = found["compiled_over_plain"]
        line += f", compiled / plain {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
    return line


if __name__ == "__main__":
    main()
