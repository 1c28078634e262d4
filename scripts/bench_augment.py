"""Speed of the input noise: its share of a training step, and its rate beside the same policy in Kornia's own classes.

All variants take turns in every round, and figures are medians over rounds with the lowest and highest beside them.
Ratios are given by wall time and by the process's CPU time, which other processes on the machine disturb less. On the
CPU the step is that of mobilenet_v2 at 96 pixels and Kornia is met at 224; on a GPU both are measured with densenet121
in bfloat16 at 224 and 320. Kornia has no window, quantum noise, edge highlighting, grid mask or low resolution; those
operations are in our time alone.

    python scripts/bench_augment.py --rounds 9 --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bench_train import bare_step
from kornia import augmentation
from torch import Tensor, nn

from noisy_student.config import ModelConfig, NoiseConfig, OptimConfig, PhaseConfig
from noisy_student.learning.augment import Augment
from noisy_student.learning.predict import best_device

SLOW_IN_KORNIA = ("elastic", "clahe")

Variant = Callable[[int], object]
Times = dict[str, list[tuple[float, float]]]


def kornia_policy(noise: NoiseConfig, size: int) -> nn.Module:
    """Return ``noise`` as Kornia's augmentations, one by one as their documentation has them, as far as it has them."""
    dial = noise.strength / 10
    operations = noise.operations()
    optional = [name for name, operation in operations.items() if operation.optional and operation.probability > 0]
    reach = {name: operation.range * dial for name, operation in operations.items()}

    def p(name: str) -> float:
        chosen = min(noise.count / len(optional), 1.0) if name in optional else 1.0
        return operations[name].probability * chosen

    odd = 2 * int(np.ceil(3 * reach["blur"] * size / 96)) + 1
    scale, gamma, shear, shift = 1 + reach["scale"], 2 ** reach["gamma"], reach["shear"], reach["translate"]
    shears = (-shear, shear, -shear, shear)
    contrast, brightness = ((1 - reach[name], 1 + reach[name]) for name in ("contrast", "brightness"))
    made = {
        "flip": augmentation.RandomHorizontalFlip(p=p("flip")),
        "rotate": augmentation.RandomAffine(
            reach["rotate"], translate=(shift, shift), scale=(1 / scale, scale), shear=shears, p=1.0
        ),
        "perspective": augmentation.RandomPerspective(reach["perspective"], p=p("perspective")),
        "elastic": augmentation.RandomElasticTransform(p=p("elastic")),
        "crop": augmentation.RandomResizedCrop((size, size), scale=((1 - reach["crop"]) ** 2, 1.0), p=p("crop")),
        "gamma": augmentation.RandomGamma((1 / gamma, gamma), p=p("gamma")),
        "contrast": augmentation.RandomContrast(contrast, p=p("contrast")),
        "brightness": augmentation.RandomBrightness(brightness, p=p("brightness")),
        "equalize": augmentation.RandomEqualize(p=p("equalize")),
        "clahe": augmentation.RandomClahe(clip_limit=(4.0, 4.0), p=p("clahe")),
        "posterize": augmentation.RandomPosterize(bits=(8 - int(np.ceil(reach["posterize"])), 7), p=p("posterize")),
        "blur": augmentation.RandomGaussianBlur(
            (odd, odd), (reach["blur"] * size / 384, reach["blur"] * size / 96), p=p("blur")
        ),
        "sharpness": augmentation.RandomSharpness(reach["sharpness"], p=p("sharpness")),
        "gaussian": augmentation.RandomGaussianNoise(std=reach["gaussian"] / 2, p=p("gaussian")),
        "erase": augmentation.RandomErasing(scale=(0.01, reach["erase"]), p=p("erase")),
    }  # fmt: skip
    # An operation that is not in the policy would still cost its call.
    return augmentation.AugmentationSequential(
        *(module for name, module in made.items() if operations[name].probability > 0)
    )


def ours(noise: NoiseConfig, films: Tensor) -> Variant:
    """Return our noise on ``films``, with other draws in every round."""
    count, channels, size, _ = films.shape
    call = Augment(noise, size=size, channels=channels, device=films.device, seed=0, generation=1)
    places = np.arange(count, dtype=np.int64)
    return lambda number: call(films, places + number * count, places)


def grid_sample(films: Tensor) -> Variant:
    """Return one bilinear warp of float ``films`` by ready-made grids: the least that any geometry costs."""
    images = films.float() / 255
    turn = torch.tensor([[0.98, -0.17, 0.0], [0.17, 0.98, 0.0]], device=films.device).expand(len(films), 2, 3)
    grid = nn.functional.affine_grid(turn, list(images.shape), align_corners=False)
    return lambda _: nn.functional.grid_sample(images, grid, align_corners=False)


def without(noise: NoiseConfig, *names: str) -> NoiseConfig:
    """Return ``noise`` without some operations; of the other optional ones as many are chosen as before."""
    silent = {name: getattr(noise, name).model_copy(update={"probability": 0.0}) for name in names}
    return noise.model_copy(update=silent)


def measure(variants: dict[str, Variant], rounds: int, device: torch.device) -> Times:
    """Return seconds of wall and of CPU time of every variant in every round; the variants take turns."""
    times: Times = {name: [] for name in variants}
    for number in range(-1, rounds):
        for name, call in variants.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            wall, cpu = time.perf_counter(), time.process_time()
            call(max(number, 0))
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 0:  # the round before the first warms up
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Return median, lowest and highest, to four digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def both(times: Times, figure: Callable[[dict[str, float]], float]) -> dict[str, dict[str, float]]:
    """Return the spread over rounds of ``figure`` of the variants' seconds, by wall and by CPU time."""
    rounds = range(len(next(iter(times.values()))))
    return {
        clock: spread([figure({name: values[number][index] for name, values in times.items()}) for number in rounds])
        for index, clock in enumerate(("wall", "cpu"))
    }


def step_share(model: str, size: int, batch: int, noise: NoiseConfig, rounds: int, device: torch.device) -> Any:
    """Return what part of a training step, noise included, the noise is."""
    phase = PhaseConfig(model=ModelConfig(name=model), optim=OptimConfig(batch_size=batch))
    step, films = bare_step(phase, size, device), random_films(batch, size, device)
    times = measure({"noise": ours(noise, films), "step": lambda _: step()}, rounds, device)
    return {
        "model": model,
        "size": size,
        "batch": batch,
        "milliseconds": {
            name: spread([1e3 * wall for wall, _ in values]) for name, values in times.items()
        },
        "share": both(times, lambda seconds: seconds["noise"] / (seconds["noise"] + seconds["step"])),
    }  # fmt: skip


def against_kornia(size: int, batch: int, noise: NoiseConfig, rounds: int, device: torch.device) -> Any:
    """Return films per second of our noise and of Kornia's, and their ratio; with and without Kornia's slowest two."""
    films = random_films(batch, size, device)
    quick = without(noise, *SLOW_IN_KORNIA)
    whole, lean = kornia_policy(noise, size).to(device), kornia_policy(quick, size).to(device)
    times = measure(
        {
            "ours": ours(noise, films),
            "kornia": lambda _: whole(films.float() / 255),
            "ours without elastic and CLAHE": ours(quick, films),
            "kornia without elastic and CLAHE": lambda _: lean(films.float() / 255),
            "one grid_sample": grid_sample(films),
        },
        rounds,
        device,
    )
    return {
        "size": size,
        "batch": batch,
        "films_per_second": {name: spread([batch / wall for wall, _ in values]) for name, values in times.items()},
        "ratio": both(times, lambda seconds: seconds["kornia"] / seconds["ours"]),
        "ratio_without_elastic_and_clahe": both(
            times,
            lambda seconds: seconds["kornia without elastic and CLAHE"] / seconds["ours without elastic and CLAHE"],
        ),
    }


def by_operation(size: int, batch: int, noise: NoiseConfig, rounds: int, device: torch.device) -> Any:
    """Return films per second of every operation alone, on every film of a batch."""
    films = random_films(batch, size, device)
    names = [name for name in noise.operations() if name not in ("mixup", "cutmix")]
    variants: dict[str, Variant] = {"none": ours(noise.only(), films)}
    variants |= {name: ours(noise.only(name), films) for name in names}
    times = measure(variants, rounds, device)
    return {
        "size": size,
        "batch": batch,
        "films_per_second": {
            name: round(batch / statistics.median(wall for wall, _ in values), 1) for name, values in times.items()
        },
    }


def random_films(count: int, size: int, device: torch.device) -> Tensor:
    """Return smooth random films, uint8 (count, 1, size, size)."""
    coarse = torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8).to(device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strength", type=float, default=7.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64, help="films per training step")
    parser.add_argument("--kornia-batch", type=int, default=32, help="films per call beside Kornia")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides beside Kornia, and of the step on a GPU")
    parser.add_argument("--model", help="network of the training step")
    parser.add_argument("--step-size", type=int, default=96, help="side in the training step on the CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    device = best_device(given.device)
    on_gpu = device.type == "cuda"
    noise = NoiseConfig(strength=given.strength)
    sizes = given.sizes or ([224, 320] if on_gpu else [224])
    model = given.model or ("densenet121" if on_gpu else "mobilenet_v2")
    few = max(1, given.rounds // 3)
    # Kornia draws from the global generator.
    torch.manual_seed(0)
    result = {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"cpu, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "strength": given.strength,
        "rounds": given.rounds,
        "step": [
            step_share(model, size, given.batch, noise, given.rounds, device)
            for size in (sizes if on_gpu else [given.step_size])
        ],
        "kornia": [against_kornia(size, given.kornia_batch, noise, given.rounds, device) for size in sizes],
        "operations": [by_operation(size, given.kornia_batch, noise, few, device) for size in sizes],
    }  # fmt: skip
    print(json.dumps(result, indent=1) if given.json else words(result))


def words(result: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    lines = [f"{result['device']}, {result['threads']} threads, strength {result['strength']:g}"]
    for entry in result["step"]:
        share, times = entry["share"], entry["milliseconds"]
        lines.append(
            f"{entry['model']} at {entry['size']}, batches of {entry['batch']}: "
            f"noise {times['noise']['median']:.1f} ms, "
            f"step {times['step']['median']:.1f} ms; share {share['wall']['median']:.1%} "
            f"({share['wall']['min']:.1%} to {share['wall']['max']:.1%}; by CPU time {share['cpu']['median']:.1%})"
        )
    for entry in result["kornia"]:
        for name, speed in entry["films_per_second"].items():
            lines.append(f"{entry['size']} px  {name:<34}{speed['median']:9.1f} films/s")
        for name in ("ratio", "ratio_without_elastic_and_clahe"):
            ratio = entry[name]
            lines.append(
                f"{entry['size']} px  {name.replace('_', ' '):<34}{ratio['wall']['median']:9.2f} "
                f"({ratio['wall']['min']:.2f} to {ratio['wall']['max']:.2f}; by CPU time {ratio['cpu']['median']:.2f})"
            )
    for entry in result["operations"]:
        lines += [
            f"{entry['size']} px  {name:<34}{speed:9.1f} films/s" for name, speed in entry["films_per_second"].items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
