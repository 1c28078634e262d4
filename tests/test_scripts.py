"""The scripts: benchmarks run at their smallest and print figures that make sense; the environment is made well."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


def test_errors_of_the_package_are_told_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "compare_generations.py"), str(tmp_path / "no-run"), "--last", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    first, fix = done.stderr.splitlines()
    assert first == f"compare_generations.py: {tmp_path / 'no-run'}: is not a run of noisy_student"
    assert "ns iterate" in fix


def leaves(found: Any) -> list[float]:
    """Return the numbers in nested dictionaries."""
    return [number for value in found.values() for number in (leaves(value) if isinstance(value, dict) else [value])]


def is_measured(*found: dict[str, Any]) -> bool:
    return all(0 < number < np.inf for figures in found for number in leaves(figures))


def is_ordered(spread: dict[str, float]) -> bool:
    return spread["min"] <= spread["median"] <= spread["max"]


@pytest.mark.slow
def test_bench_train(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--model", "small_resnet", "--size", "32", "--batch", "8", "--steps", "20", "--rounds", "2"]
    wide = ["--films", "96", "--workers", "1", "--source-size", "64", "48", "--strength", "3"]
    found = script("bench_train.py", *small, *wide, "--stream", "--peers", "--device", "cpu", "--json")
    loaders = {f"{name} loader" for name in ("torch", "timm", "torchxrayvision") if name not in found["not_installed"]}
    assert "torch loader" in loaders
    assert set(found["ratio"]) == {"loop", "streamed loop"} | loaders
    assert set(found["films_per_second"]) == {"model"} | set(found["ratio"])
    assert is_measured(found["ratio"], found["films_per_second"], found["milliseconds"])
    assert all(is_ordered(ratio) for ratio in found["ratio"].values())
    assert is_ordered(found["streamed_over_resident"])
    parts = {"gather", "augment", "forward", "backward", "optimiser", "ema"}
    assert {name: set(found["milliseconds"][name]) for name in ("loop", "streamed loop")} == dict.fromkeys(
        found["milliseconds"], parts
    )
    assert (found["strength"], found["peak_memory_mb"] > 50) == (3, True)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_train

    told = bench_train.words(found)
    assert all(name in told for name in ("loop / model", "torch loader / model", "step of the streamed loop: gather"))
    assert all(f"{name} is not installed" in told for name in found["not_installed"])


@pytest.mark.slow
def test_bench_backbones() -> None:
    """Both kinds of step are measured, and a backbone that cannot be built is named and makes the script fail."""
    small = [
        "--size",
        "32",
        "--batch",
        "4",
        "--steps",
        "2",
        "--warm",
        "1",
        "--rounds",
        "2",
        "--device",
        "cpu",
        "--json",
    ]
    found = script("bench_backbones.py", *small, "--models", "mobilenet_v3_small", "small_resnet")
    assert set(found["backbones"]) == {"mobilenet_v3_small", "small_resnet"}
    assert not found["backbones"]["mobilenet_v3_small"]["bf16"]  # grouped convolutions gain nothing by it on a CPU
    assert all(is_measured(one["films_per_second"]) and one["size"] == 32 for one in found["backbones"].values())
    command = [sys.executable, str(SCRIPTS / "bench_backbones.py"), *small, "--models", "vit_b_16", "no_such"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, set(json.loads(done.stdout)["failed"])) == (1, {"no_such"})
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        both = script("bench_backbones.py", *small, "--models", "small_resnet", "--compile")["backbones"][
            "small_resnet"
        ]
        assert is_ordered(both["compiled_over_plain"])


@pytest.mark.slow
def test_bench_predict() -> None:
    small = ["--model", "small_resnet", "--size", "32", "--films", "256", "--source-size", "64", "--rounds", "2"]
    found = script("bench_predict.py", *small, "--device", "cpu", "--json")
    assert set(found["ratio"]) == {"stage", "asked", "files"}
    assert is_measured(found["ratio"], found["films_per_second"])
    assert all(is_ordered(ratio) for ratio in found["ratio"].values())
    assert found["films"] == 256
    assert found["peak_memory_mb"] > 50


@pytest.mark.slow
def test_bench_augment() -> None:
    small = ["--model", "small_resnet", "--step-size", "32", "--batch", "8", "--kornia-batch", "4", "--sizes", "64"]
    found = script("bench_augment.py", *small, "--rounds", "2", "--json")
    (step,), (policy,) = found["step"], found["policy"]
    assert 0 < step["share"]["cpu"]["min"] <= step["share"]["cpu"]["max"] < 1
    assert {"ours", "kornia"} < set(policy["ratio"])
    assert set(policy["films_per_second"]) == {"one grid_sample"} | set(policy["ratio"])
    assert is_measured(policy["ratio"], policy["over_kornia"], policy["films_per_second"])
    assert set(found["operations"][0]["films_per_second"]) > {"none", "rotate", "clahe", "grid"}
    assert found["peak_memory_mb"] > 50


@pytest.mark.slow
def test_bench_cache() -> None:
    found = script("bench_cache.py", *["--films", "64", "--workers", "1", "--rounds", "1", "--json"])
    assert set(found["ratio"]) == {"wall", "together", "cpu"}
    assert set(found["films_per_second"]) == {"bare", "bare together", "build"}
    assert is_measured(found["ratio"], found["films_per_second"])
    assert min(found["peak_memory_mb"], found["peak_worker_memory_mb"]) > 20


@pytest.mark.slow
def test_bench_bootstrap() -> None:
    found = script("bench_bootstrap.py", "--json")
    assert json.dumps(found)


@pytest.mark.slow
def test_bench_report() -> None:
    found = script("bench_report.py", "--images", "900", "--generations", "2", "--steps", "400", "--json")
    assert (found["images"], found["pages"]) == (900, 3)
    assert found["cpu_seconds"] > 0
    assert 100_000 < found["largest_page_bytes"] < 3_000_000


@pytest.mark.parametrize(("source", "refused"), [("chexpert", True), ("synthetic", False)])
def test_a_picture_is_made_of_synthetic_films_alone(tmp_path: Path, source: str, refused: bool) -> None:
    if not refused:
        pytest.importorskip("playwright", reason="playwright is not installed")
        if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
            pytest.skip("there is no Chromium")
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text("<!doctype html><title>x</title><body style='background:#00f'>")
    (tmp_path / "report.json").write_text(json.dumps({"config": {"data": {"source": source}}}))
    command = [sys.executable, str(SCRIPTS / "picture_report.py"), str(page), str(picture), "--width", "90"]
    done = subprocess.run([*command, "--height", "60"], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if refused else 0), done.stderr
    assert ("shows real films" in done.stderr) == refused
    assert picture.exists() != refused
    if not refused:
        with Image.open(picture) as drawn:
            assert (drawn.size, drawn.convert("RGB").getpixel((50, 50))) == ((90, 60), (0, 0, 255))


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


# -- the virtual environment of scripts/demo and scripts/test ----------------------------------------------------------


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that calls prepare_environment with stand-ins for Python: nothing is installed."""
    (tmp_path / "some.lock").write_text("lock")
    (tmp_path / "pyproject.toml").write_text("project")
    inside = 'echo "$@" >>calls.txt\nif [ "$1" = -c ] && [ -e no-pip ]; then exit 1; fi\n'
    executable(tmp_path / "inside", inside)
    executable(
        tmp_path / "python",
        'if [ "$2" = venv ]; then\n  mkdir -p .venv/bin && cp inside .venv/bin/python\n'
        "  if [ -e no-ensurepip ]; then exit 1; fi\nfi\n",
    )

    def call(**environment: str) -> subprocess.CompletedProcess[str]:
        command = f". {SCRIPTS / 'common.sh'}; prepare_environment some.lock '[x]'"
        return subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")} | environment,
        )  # fmt: skip

    return call


def test_the_environment_is_made_once(tmp_path: Path, prepare: Any) -> None:
    assert prepare().returncode == 0
    wanted = hashlib.sha256(b"lockproject").hexdigest()[:16]
    assert (tmp_path / ".venv" / ".installed[x]").read_text() == f"{wanted}\n"
    calls = (tmp_path / "calls.txt").read_text()
    assert "--require-hashes -r some.lock" in calls
    assert (prepare().returncode, (tmp_path / "calls.txt").read_text()) == (0, calls)


def test_an_environment_that_cannot_be_made_is_removed_and_what_to_install_is_said(
    tmp_path: Path, prepare: Any
) -> None:
    (tmp_path / "no-ensurepip").touch()
    for _ in range(2):
        done = prepare()
        assert done.returncode == 2
        assert "install the package python3-venv" in done.stderr
        assert not (tmp_path / ".venv").exists()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine.txt").touch()
    assert prepare().returncode == 2
    assert (tmp_path / ".venv" / "mine.txt").exists()  # what was there before is left alone
    (tmp_path / "no-ensurepip").unlink()
    assert prepare().returncode == 0


def test_an_environment_without_pip_is_explained(tmp_path: Path, prepare: Any) -> None:
    executable(tmp_path / ".venv" / "bin" / "python", "exit 1\n")
    done = prepare()
    assert done.returncode == 2
    assert "There is no pip in .venv: remove the folder .venv" in done.stderr
    assert not (tmp_path / ".venv" / ".installed[x]").exists()


def test_shasum_stands_in_for_sha256sum(tmp_path: Path, prepare: Any) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "cut", "mkdir", "cp", "rm"):
        (tools / name).symlink_to(str(shutil.which(name)))
    executable(tools / "shasum", f'[ "$*" = "-a 256" ] && exec {shutil.which("sha256sum")}\n')
    assert prepare(PATH=str(tools)).returncode == 0
    wanted = hashlib.sha256(b"lockproject").hexdigest()[:16]
    assert (tmp_path / ".venv" / ".installed[x]").read_text() == f"{wanted}\n"
