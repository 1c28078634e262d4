"""Time of `ns report` on a run whose files are made up: 14 labels, so many test films, generations and pictures.

    python scripts/bench_report.py --images 20000 --generations 4 --json

The run is the one of the tests of the report (tests/reporting/fake_run.py); its pages are made by the command in a
process of its own. ``cpu_seconds`` is the processor time of that process, which other work on the machine changes less.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from noisy_student.config.load import load, resolved
from noisy_student.generations import MEASURING, TRAINING
from noisy_student.preparation import STAGE
from noisy_student.runs import write_json

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "reporting"))


def make(path: Path, images: int, generations: int, steps: int) -> None:
    """Write the files of a run that has all but its reports."""
    import fake_run

    verdicts = ("first", *["better"] * (generations - 1))
    run = fake_run.make_run(path, generations, verdicts=verdicts, test_images=images)
    write_json(path / "config.resolved.json", resolved(load(None, [])))
    run.record(STAGE, None, [], [])
    for generation in range(generations):
        fake_run.add_pictures(run, generation, size=160)
        for step in range(310, steps, 10):
            run.log(generation, step, loss=0.3, lr=1e-3, films_per_second=800.0)
        for stage in (*TRAINING, *MEASURING[:-1]):
            run.record(stage, generation, [], [])


@click.command()
@click.option("--images", default=20_000, show_default=True, help="Test films.")
@click.option("--generations", default=4, show_default=True, help="Generations, each with a page of its own.")
@click.option("--steps", default=10_000, show_default=True, help="Training steps of a generation in the log.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(images: int, generations: int, steps: int, as_json: bool) -> None:
    """Measure `ns report`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        make(path, images, generations, steps)
        before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "noisy_student", "report", str(path), "-q", "--json"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        wall, after = time.perf_counter() - since, resource.getrusage(resource.RUSAGE_CHILDREN)
        found: dict[str, Any] = {
            "images": images,
            "pages": generations + 1,
            "seconds": round(wall, 2),
            "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
            "largest_page_bytes": max(page.stat().st_size for page in path.rglob("report.html")),
        }
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print(*(f"{key.replace('_', ' ')}: {value:,}" for key, value in found.items()), sep="\n")


if __name__ == "__main__":
    main()
