"""The cache build against a bare Pillow loop, its memory, and what is left of it after a kill.

    python scripts/bench_cache.py --films 20000 --workers 2
    python scripts/bench_cache.py --folder /data/CheXpert-v1.0-small/valid --json
    python scripts/bench_cache.py --films 20000 --rounds 1 --memory --kill

The ratio is films/s of the build over workers x films/s of one process that opens, drafts and resizes and does nothing
else. The bare rate is measured before and after each build, so that a change of the machine's speed hits both.
The ratio "together" has that many bare loops at the same time below the line: two threads of a core, or other work on
the machine, slow those down as well. "cpu" is the same in films per second of processor time. The peak of this process
has the making of the films in it; ``--memory`` watches a build by itself.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from measuring import about, make_films, peak_memory, read_film, spread, told

from noisy_student.data import cache
from noisy_student.data.decode import DecodeSettings


def processor_time() -> float:
    """Return the processor time in seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def bare(paths: list[Path], settings: DecodeSettings) -> tuple[float, float]:
    """Return films/s and films per second of processor time of opening, drafting and resizing in this process."""
    mode = "L" if settings.channels == 1 else "RGB"
    start, used = time.perf_counter(), processor_time()
    for path in paths:
        read_film(path, mode, settings.size)
    return len(paths) / (time.perf_counter() - start), len(paths) / (processor_time() - used)


def together(paths: list[Path], settings: DecodeSettings, workers: int) -> tuple[float, float]:
    """Return what :func:`bare` does, of ``workers`` processes at the same time: films/s of all, and per processor."""
    # Not forked: a thread of this process that holds a lock just then leaves the child waiting for it for ever.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=context.Barrier(workers).wait) as pool:  # none begins before all are there
        rates = pool.starmap(bare, [(paths, settings)] * workers, chunksize=1)
    return sum(rate for rate, _ in rates), statistics.fmean(rate for _, rate in rates)


def speed(
    root: Path, images: list[str], settings: DecodeSettings, scratch: Path, workers: int, rounds: int
) -> dict[str, Any]:
    """Return the rates of the bare loop and of the build, and their ratios by wall and processor time."""
    sample = [root / image for image in images[:: max(1, len(images) // 1500)]]
    # Not measured: the first reading of the files, and the imports that every caller of the build has done.
    bare(sample, settings)
    cache.build(root, images[:1], settings, scratch / "warm", workers=1, max_bad_share=1.0)

    def loops() -> tuple[float, float, float]:
        return bare(sample, settings)[0], *together(sample, settings, workers)

    seen, build_rates = [loops()], []
    ratios: dict[str, list[float]] = {"wall": [], "together": [], "cpu": []}
    for number in range(rounds):
        start, used = time.perf_counter(), processor_time()
        cache.build(root, images, settings, scratch / f"cache{number}", workers=workers, max_bad_share=1.0)
        build_rates.append(len(images) / (time.perf_counter() - start))
        per_processor = len(images) / (processor_time() - used)
        shutil.rmtree(scratch / f"cache{number}")
        seen.append(loops())
        one, all_of_them, processor = (float(rate) for rate in np.mean(seen[-2:], axis=0))
        ratios["wall"].append(build_rates[-1] / (workers * one))
        ratios["together"].append(build_rates[-1] / all_of_them)
        ratios["cpu"].append(per_processor / processor)
    rates = {
        "bare": [rate for rate, _, _ in seen],
        "bare together": [rate for _, rate, _ in seen],
        "build": build_rates,
    }
    return {
        "films_per_second": {name: spread(values) for name, values in rates.items()},
        "ratio": {name: spread(values) for name, values in ratios.items()},
        # Of this process and its workers; the builds below are processes of their own.
        **peak_memory(workers=True),
    }


_BUILD = """
import sys
from pathlib import Path
from noisy_student.data import cache
from noisy_student.data.decode import DecodeSettings
root, folder, size, channels, workers = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
if __name__ == "__main__":
    images = Path(sys.argv[6]).read_text().splitlines()
    cache.build(root, images, DecodeSettings(size, channels), folder, workers=workers, max_bad_share=1.0)
"""


class Build:
    """A build in a process of its own, with as many workers as asked for."""

    def __init__(self, root: Path, images: list[str], settings: DecodeSettings, scratch: Path, workers: int) -> None:
        script, names = scratch / "build.py", scratch / "names.txt"
        script.write_text(_BUILD)
        names.write_text("\n".join(images))
        shape = (str(settings.size), str(settings.channels), str(workers))
        self.command = [sys.executable, str(script), str(root), "FOLDER", *shape, str(names)]
        self.count = len(images)

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """Start the build into ``folder``; its process leads a group of its own."""
        return subprocess.Popen([str(folder) if word == "FOLDER" else word for word in self.command], process_group=0)

    def done(self, folder: Path) -> int:
        """Return how many films are decoded."""
        found = list(folder.glob("*/status.u8"))
        return int(np.count_nonzero(np.fromfile(found[0], np.uint8))) if found else 0


def memory(build: Build, folder: Path) -> dict[str, Any]:
    """Return the resident memory in MB of the build and its workers, from the 2,000th film (or a tenth) to the last."""
    psutil: Any = importlib.import_module("psutil")  # of the extra test; it has no types

    process = build.start(folder)
    seen: list[tuple[int, float]] = []
    while process.poll() is None:
        done = build.done(folder)
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            seen.append((done, sum(each.memory_info().rss for each in family) / 1e6))
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.05)
    first = min(2000, build.count // 10)
    values = [size for done, size in seen if first <= done < build.count]
    if not values:
        return {"samples": 0}
    return {
        "samples": len(values),
        "first_mb": values[0],
        "largest_mb": max(values),
        "growth": max(values) / values[0] - 1,
    }


def killed(build: Build, scratch: Path) -> dict[str, Any]:
    """Return whether a build that was killed half-way and run again has the bytes of one that was not."""
    process = build.start(scratch / "killed")
    while process.poll() is None and build.done(scratch / "killed") < build.count // 2:
        time.sleep(0.002)
    with_films = build.done(scratch / "killed")
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (half,) = (scratch / "killed").iterdir()
    unfinished = not (half / "cache.json").exists()
    for folder in ("killed", "whole"):
        assert build.start(scratch / folder).wait() == 0
    same = all(path.read_bytes() == (scratch / "whole" / half.name / path.name).read_bytes() for path in half.iterdir())
    return {"killed_after": with_films, "was_unfinished": unfinished, "equal_bytes": same}


@click.command()
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="JPEGs to use; else made."
)
@click.option("--films", default=20000, show_default=True, help="Films to make.")
@click.option("--source-size", default=(390, 320), show_default=True, nargs=2, help="Width and height of made films.")
@click.option("--size", default=224, show_default=True, help="Side of the decoded films.")
@click.option("--channels", default=1, show_default=True, type=click.Choice([1, 3]))
@click.option("--workers", default=os.cpu_count() or 1, show_default="cores")
@click.option("--rounds", default=3, show_default=True, help="Builds; the median ratio counts.")
@click.option("--memory", "with_memory", is_flag=True, help="Also watch the memory of a build.")
@click.option("--kill", "with_kill", is_flag=True, help="Also kill a build half-way, go on, and compare the bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    folder: Path | None, films: int, source_size: tuple[int, int], size: int, channels: int, workers: int, rounds: int,
    with_memory: bool, with_kill: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure the build of the cache of decoded films."""
    settings = DecodeSettings(size, channels)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        root = folder or scratch / "films"
        if folder is None:
            root.mkdir()
            images = make_films(root, films, *source_size)
        else:
            found = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")]
            images = [path.relative_to(root).as_posix() for path in found]
        result: dict[str, Any] = {"films": len(images), "size": size, "channels": channels, "workers": workers}
        result |= about()
        result |= speed(root, images, settings, scratch, workers, rounds)
        build = Build(root, images, settings, scratch, workers)
        if with_memory:
            result["memory"] = memory(build, scratch / "watched")
            shutil.rmtree(scratch / "watched")
        if with_kill:
            result["kill"] = killed(build, scratch)
    if as_json:
        print(json.dumps(result))
        return
    print(f"{result['films']} films to {channels} x {size} x {size}, {workers} workers, {rounds} rounds")
    print(f"{result['device']}, load {result['load']}")
    for name, rate in result["films_per_second"].items():
        print(told(name, rate, " films/s"))
    for name, ratio in result["ratio"].items():
        print(told(f"build / (workers x bare), {name}", ratio))
    print(f"peak memory {result['peak_memory_mb']:.0f} MB, of a worker {result['peak_worker_memory_mb']:.0f} MB")
    for part in ("memory", "kill"):
        if part in result:
            print(f"{part}: {json.dumps(result[part])}")


if __name__ == "__main__":
    main()
