"""Throughput of the cache build against a bare Pillow loop, measured in turns in the same process.

    python scripts/bench_cache.py --films 30000 --workers 2
    python scripts/bench_cache.py --folder /data/CheXpert-v1.0-small/valid --json

The ratio is films/s of the build over workers x films/s of one process that opens, drafts and resizes and does nothing
else. The bare rate is measured before and after each build, so that a change of the machine's speed hits both.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from noisy_student.data import cache
from noisy_student.data.decode import DecodeSettings

DISTINCT = 256


def make_films(folder: Path, count: int, width: int, height: int) -> list[str]:
    """Write ``count`` grey JPEGs (smooth noise, 256 different ones, the others hard links) and return their names."""
    generator = np.random.default_rng(0)
    names = [f"film{number:06d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        if number >= DISTINCT:
            os.link(folder / names[number % DISTINCT], folder / name)
            continue
        smooth = Image.fromarray(generator.integers(0, 256, (12, 12), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        grain = generator.normal(0, 4, (height, width))
        Image.fromarray(np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)).save(folder / name, quality=90)
    return names


def bare(paths: list[Path], settings: DecodeSettings) -> float:
    """Return films/s of opening, drafting and resizing in this process."""
    mode, side = ("L" if settings.channels == 1 else "RGB"), (settings.size, settings.size)
    start = time.perf_counter()
    for path in paths:
        with Image.open(path) as image:
            image.draft(mode, side)
            image.resize(side, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return len(paths) / (time.perf_counter() - start)


@click.command()
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="JPEGs to use; else made."
)
@click.option("--films", default=30000, show_default=True, help="Films to make.")
@click.option("--source-size", default=(390, 320), show_default=True, nargs=2, help="Width and height of made films.")
@click.option("--size", default=224, show_default=True, help="Side of the decoded films.")
@click.option("--channels", default=1, show_default=True, type=click.Choice([1, 3]))
@click.option("--workers", default=os.cpu_count() or 1, show_default="cores")
@click.option("--rounds", default=3, show_default=True, help="Builds; the median ratio counts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    folder: Path | None,
    films: int,
    source_size: tuple[int, int],
    size: int,
    channels: int,
    workers: int,
    rounds: int,
    as_json: bool,
) -> None:
    """Measure the build of the cache of decoded films."""
    settings = DecodeSettings(size, channels)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if folder is None:
            root = scratch / "films"
            root.mkdir()
            images = make_films(root, films, *source_size)
        else:
            root = folder
            found = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
            images = [path.relative_to(root).as_posix() for path in found]
        sample = [root / image for image in images[:: max(1, len(images) // 1500)]]
        # Not measured: the first reading of the files, and the imports that every caller of the build has done.
        bare(sample, settings)
        cache.build(root, images[:1], settings, scratch / "warm", workers=1, max_bad_share=1.0)
        bare_rates, build_rates, ratios = [bare(sample, settings)], [], []
        for number in range(rounds):
            start = time.perf_counter()
            cache.build(root, images, settings, scratch / f"cache{number}", workers=workers, max_bad_share=1.0)
            build_rates.append(len(images) / (time.perf_counter() - start))
            shutil.rmtree(scratch / f"cache{number}")
            bare_rates.append(bare(sample, settings))
            around = statistics.fmean(bare_rates[-2:])
            ratios.append(build_rates[-1] / (workers * around))
    result = {
        "films": len(images),
        "size": size,
        "channels": channels,
        "workers": workers,
        "bare_films_per_s": statistics.median(bare_rates),
        "build_films_per_s": statistics.median(build_rates),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{result['films']} films to {channels} x {size} x {size}, {workers} workers, {rounds} rounds")
        print(f"bare loop, one process: {result['bare_films_per_s']:.0f} films/s")
        print(f"cache build:            {result['build_films_per_s']:.0f} films/s")
        print(f"ratio to {workers} x bare:       {result['ratio']:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
