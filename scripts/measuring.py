"""What the benchmarks share: turns and clocks, how figures are told, memory, and films to read.

torch is imported where it is needed: the benchmark of the cache does not carry it, as its workers would too.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from noisy_student.errors import NoisyStudentError

if TYPE_CHECKING:
    import torch

Variant = Callable[[int], object]
"""Takes the number of the round."""
Times = dict[str, list[tuple[float, float]]]
"""Seconds of wall and of processor time in every round, by variant."""
DISTINCT = 200


@contextmanager
def plainly() -> Iterator[None]:
    """End with the message and the exit code of an error of the package, as ``ns`` does, and without a traceback."""
    try:
        yield
    except NoisyStudentError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def about(device: torch.device | None = None) -> dict[str, Any]:
    """Return where a benchmark runs; ``load`` is how many processes wanted a core in the minute before."""
    found: dict[str, Any] = {"device": f"cpu, {os.cpu_count()} cores"}
    if device is not None:
        import torch

        if device.type == "cuda":
            found["device"] = torch.cuda.get_device_name(device)
        found["threads"] = torch.get_num_threads()
    return found | {"load": round(os.getloadavg()[0], 2)}


def wait(device: torch.device) -> None:
    """Wait until ``device`` has done what it was given; a CPU always has."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def take_turns(variants: Mapping[str, Variant], rounds: int, device: torch.device) -> Times:
    """Return the times of every variant in every round; the variants take turns, as the machine's speed changes."""
    times: Times = {name: [] for name in variants}
    for number in range(-1, rounds):
        for name, call in variants.items():
            wait(device)
            wall, processor = time.perf_counter(), time.process_time()
            call(max(number, 0))
            wait(device)
            if number >= 0:  # the round before the first warms up
                times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest, to four digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def ratios(values: Sequence[float], bound: Sequence[float]) -> dict[str, float]:
    """Return the spread of ``values`` over their ``bound``, each round by itself."""
    return spread([value / other for value, other in zip(values, bound, strict=True)])


def told(name: str, figure: Mapping[str, float], unit: str = "") -> str:
    """Return a line of text for a :func:`spread`."""
    return f"{name:<34}{figure['median']:>10.4g} ({figure['min']:.4g} to {figure['max']:.4g}){unit}"


def peak_memory(device: torch.device | None = None, *, workers: bool = False) -> dict[str, float]:
    """Return the most memory in MB so far: resident in this process, on the GPU, in the largest worker that ended."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # macOS counts in bytes, Linux in KiB
    found = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}
    if workers:
        found["peak_worker_memory_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit, 1)
    if device is not None and device.type == "cuda":
        import torch

        found["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return found


def make_films(folder: Path, count: int, width: int, height: int) -> list[str]:
    """Write ``count`` grey JPEGs (200 phantoms, each cut and exposed a little otherwise) and return their names."""
    from noisy_student.data.synthetic import render
    from noisy_student.data.synthetic.dataset import rows_of

    draw = np.random.default_rng(0)
    cases = [row.case for row in rows_of(11, "train", range(1, DISTINCT + 1))][: min(DISTINCT, count)]
    side = max(width, height)
    size = (width + 12, height + 12)
    sheets = [
        np.asarray(Image.fromarray(film).resize(size, Image.Resampling.BICUBIC))
        for start in range(0, len(cases), 8)
        for film in render(cases[start : start + 8], min(side, 320))
    ]
    names = [f"film{number:06d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        left, top = draw.integers(0, 12, 2)
        shades = np.clip(np.arange(256) * draw.uniform(0.9, 1.1) + draw.uniform(-8, 8), 0, 255).astype(np.uint8)
        film = shades[sheets[number % len(sheets)][top : top + height, left : left + width]]
        Image.fromarray(film).save(folder / name, quality=90)
    return names


def read_film(path: Path, mode: str, size: int) -> Image.Image:
    """Return a JPEG at ``size`` pixels as Pillow reads it fastest: drafted, then resized, and nothing else."""
    with Image.open(path) as image:
        image.draft(mode, (size, size))
        return image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
