"""The benchmark scripts run at their smallest and print figures that make sense; their figures are for docs alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name: str, *arguments: str) -> Any:
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("{"))
    return json.loads("\n".join(lines[start:]))


@pytest.mark.slow
def test_bench_train() -> None:
    size = ["--model", "small_resnet", "--size", "32", "--batch", "8", "--steps", "20", "--rounds", "1"]
    found = script("bench_train.py", *size, "--json")
    assert 0 < found["ratio"]["median"] < 2
    assert found["milliseconds_per_batch"]["noise"] > 0


@pytest.mark.slow
def test_bench_augment() -> None:
    small = ["--model", "small_resnet", "--step-size", "32", "--batch", "8", "--kornia-batch", "4", "--sizes", "64"]
    found = script("bench_augment.py", *small, "--rounds", "2", "--json")
    (step,), (kornia,) = found["step"], found["kornia"]
    assert 0 < step["share"]["cpu"]["min"] <= step["share"]["cpu"]["max"] < 1
    assert kornia["ratio"]["wall"]["median"] > 0
    assert kornia["films_per_second"]["ours"]["median"] > 0
    assert set(found["operations"][0]["films_per_second"]) > {"none", "rotate", "clahe", "grid"}


@pytest.mark.slow
def test_bench_cache() -> None:
    found = script("bench_cache.py", *["--films", "64", "--workers", "1", "--rounds", "1", "--json"])
    assert json.dumps(found)


@pytest.mark.slow
def test_bench_bootstrap() -> None:
    found = script("bench_bootstrap.py", "--json")
    assert json.dumps(found)


@pytest.mark.slow
def test_gap_closed_runs_every_arm_once_and_keeps_it(tmp_path: Path) -> None:
    """On made-up films with a bright or a dark patch; the second call only reads what the first one kept."""
    films, draw = tmp_path / "films", np.random.default_rng(0)
    films.mkdir()
    rows = []
    for number in range(160):
        label = number % 2
        pixels = draw.integers(0, 120, (32, 32), dtype=np.uint8)
        pixels[8:24, 8:24] += np.uint8(100 * label)
        Image.fromarray(pixels).save(films / f"{number}.png")
        split = ("train", "train", "valid", "test")[number // 2 % 4]
        rows.append({"image": f"{number}.png", "patient": f"p{number // 2}", "split": split, "A": label})
    pd.DataFrame(rows).to_csv(films / "labels.csv", index=False)
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "threads: 1\n"
        "data: {source: csv, root: films, labels: [A], image_size: 32}\n"
        "split: {labelled_images: 12, valid_images: 12}\n"
        "teacher: &phase {optim: {steps: 6, batch_size: 8, bn_images: 8}}\n"
        "student: *phase\n"
        "evaluation: {replicates: 100}\n"
    )
    arguments = ["--root", str(films), "--config", str(config), "--output", str(tmp_path / "out"), "--rounds", "1"]
    arguments += ["--seeds", "0", "1", "--few-steps", "6"]
    found = script("gap_closed.py", *arguments)
    assert set(found["auroc"]) == {"few", "ours", "all"}
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    assert len(kept) == 6
    assert script("gap_closed.py", *arguments) == found
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    for arm in found["auroc"].values():
        assert all(0 <= value <= 1 for value in arm)


@pytest.mark.slow
def test_bench_near_duplicates() -> None:
    found = script("bench_near_duplicates.py", "--films", "300", "--json")
    assert found


@pytest.mark.slow
def test_compare_generations_needs_a_run(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "compare_generations.py"), str(tmp_path), "--last", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is not a run of noisy_student" in done.stderr
