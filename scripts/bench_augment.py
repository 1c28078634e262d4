"""Speed of the input noise: its share of a training step, and its rate over that of one ready-made grid_sample.

Noise that moves pixels has to sample the films once, so that pass is the bound; the same policy in Kornia's own classes
is the peer. All variants take turns in every round, and figures are medians over rounds with the lowest and highest
beside them. Ratios are given by wall time and by the process's CPU time, which other processes on the machine disturb
less. On the CPU the step is that of mobilenet_v2 at 96 pixels and the whole policy is measured at 224; on a GPU both
are measured with densenet121 in bfloat16 at 224 and 320. Kornia has no window, quantum noise, edge highlighting, grid
mask or low resolution; those operations are in our time alone.

    python scripts/bench_augment.py --rounds 9 --json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from kornia import augmentation
from measuring import Times, Variant, about, peak_memory, spread, take_turns, told
from stepping import bare_step, random_batch
from torch import Tensor, nn

from noisy_student.config import ModelConfig, NoiseConfig, OptimConfig, PhaseConfig
from noisy_student.learning import machine
from noisy_student.learning.augment import Augment
from noisy_student.learning.predict import best_device

SLOW_IN_KORNIA = ("elastic", "clahe")
BOUND = "one grid_sample"


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


def both(times: Times, figure: Callable[[dict[str, float]], float]) -> dict[str, dict[str, float]]:
    """Return the spread over rounds of ``figure`` of the variants' seconds, by wall and by CPU time."""
    rounds = range(len(next(iter(times.values()))))
    return {
        clock: spread([figure({name: values[number][index] for name, values in times.items()}) for number in rounds])
        for index, clock in enumerate(("wall", "cpu"))
    }


def over(times: Times, name: str, other: str) -> dict[str, dict[str, float]]:
    """Return how many films ``name`` does in the time of one of ``other``."""
    return both(times, lambda seconds: seconds[other] / seconds[name])


def step_share(model: str, size: int, batch: int, noise: NoiseConfig, rounds: int, device: torch.device) -> Any:
    """Return what part of a training step, noise included, the noise is."""
    phase = PhaseConfig(model=ModelConfig(name=model), optim=OptimConfig(batch_size=batch))
    step, films = bare_step(phase, size, device), random_films(batch, size, device)
    resident = random_batch(batch, size, device)
    times = take_turns({"noise": ours(noise, films), "step": lambda _: step(*resident)}, rounds, device)
    return {
        "model": model,
        "size": size,
        "batch": batch,
        "milliseconds": {
            name: spread([1e3 * wall for wall, _ in values]) for name, values in times.items()
        },
        "share": both(times, lambda seconds: seconds["noise"] / (seconds["noise"] + seconds["step"])),
    }  # fmt: skip


def whole_policy(size: int, batch: int, noise: NoiseConfig, rounds: int, device: torch.device) -> Any:
    """Return films per second of our noise, of Kornia's and of the bound, with and without Kornia's slowest two."""
    films = random_films(batch, size, device)
    quick = without(noise, *SLOW_IN_KORNIA)
    whole, lean = kornia_policy(noise, size).to(device), kornia_policy(quick, size).to(device)
    times = take_turns(
        {
            "ours": ours(noise, films),
            "kornia": lambda _: whole(films.float() / 255),
            "ours without elastic and CLAHE": ours(quick, films),
            "kornia without elastic and CLAHE": lambda _: lean(films.float() / 255),
            BOUND: grid_sample(films),
        },
        rounds,
        device,
    )
    return {
        "size": size,
        "batch": batch,
        "films_per_second": {name: spread([batch / wall for wall, _ in values]) for name, values in times.items()},
        "ratio": {name: over(times, name, BOUND) for name in times if name != BOUND},
        "over_kornia": over(times, "ours", "kornia"),
        "over_kornia_without_elastic_and_clahe": over(
            times, "ours without elastic and CLAHE", "kornia without elastic and CLAHE"
        ),
    }


def by_operation(size: int, batch: int, noise: NoiseConfig, rounds: int, device: torch.device) -> Any:
    """Return films per second of every operation alone, on every film of a batch."""
    films = random_films(batch, size, device)
    names = [name for name in noise.operations() if name not in ("mixup", "cutmix")]
    variants: dict[str, Variant] = {"none": ours(noise.only(), films)}
    variants |= {name: ours(noise.only(name), films) for name in names}
    times = take_turns(variants, rounds, device)
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
    parser.add_argument("--kornia-batch", type=int, default=32, help="films per call of the whole policy")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides of the whole policy, and of the step on a GPU")
    parser.add_argument("--model", help="network of the training step")
    parser.add_argument("--step-size", type=int, default=96, help="side in the training step on the CPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    machine.prepare(0)
    device = best_device(given.device)
    on_gpu = device.type == "cuda"
    noise = NoiseConfig(strength=given.strength)
    sizes = given.sizes or ([224, 320] if on_gpu else [224])
    model = given.model or ("densenet121" if on_gpu else "mobilenet_v2")
    few = max(1, given.rounds // 3)
    # Kornia draws from the global generator.
    torch.manual_seed(0)
    result = {
        **about(device),
        "strength": given.strength,
        "rounds": given.rounds,
        "step": [
            step_share(model, size, given.batch, noise, given.rounds, device)
            for size in (sizes if on_gpu else [given.step_size])
        ],
        "policy": [whole_policy(size, given.kornia_batch, noise, given.rounds, device) for size in sizes],
        "operations": [by_operation(size, given.kornia_batch, noise, few, device) for size in sizes],
        **peak_memory(device),
    }  # fmt: skip
    print(json.dumps(result, indent=1) if given.json else words(result))


def words(result: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    lines = [
        f"{result['device']}, {result['threads']} threads, load {result['load']}, strength {result['strength']:g}, "
        f"peak memory {result['peak_memory_mb']:.0f} MB"
    ]
    for entry in result["step"]:
        share, times = entry["share"], entry["milliseconds"]
        lines.append(
            f"{entry['model']} at {entry['size']}, batches of {entry['batch']}: "
            f"noise {times['noise']['median']:.1f} ms, "
            f"step {times['step']['median']:.1f} ms; share {share['wall']['median']:.1%} "
            f"({share['wall']['min']:.1%} to {share['wall']['max']:.1%}; by CPU time {share['cpu']['median']:.1%})"
        )
    for entry in result["policy"]:
        side = f"{entry['size']} px  "
        lines += [told(side + name, speed, " films/s") for name, speed in entry["films_per_second"].items()]
        figures = {f"{name} / {BOUND}": ratio for name, ratio in entry["ratio"].items() if name.startswith("ours")}
        figures |= {key.replace("_", " "): entry[key] for key in entry if key.startswith("over_kornia")}
        for name, ratio in figures.items():
            lines.append(told(side + name, ratio["wall"], f"; by CPU time {ratio['cpu']['median']:.4g}"))
    for entry in result["operations"]:
        lines += [
            f"{entry['size']} px  {name:<34}{speed:9.1f} films/s" for name, speed in entry["films_per_second"].items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
