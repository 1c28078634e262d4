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
def test_bench_predict() -> None:
    small = ["--model", "small_resnet", "--size", "32", "--films", "256", "--source-size", "64", "--rounds", "2"]
    found = script("bench_predict.py", *small, "--device", "cpu", "--json")
    assert set(found["ratio"]) == {"stage", "asked", "files"}
    for name, (low, middle, high) in found["ratio"].items():
        assert 0 < low <= middle <= high < 3, name
    assert found["films"] == 256
    assert found["peak_memory_mb"] > 50


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
    kept = tmp_path / "results.jsonl"
    arguments = ["--root", str(films), "--config", str(config), "--output", str(tmp_path / "out"), "--rounds", "1"]
    arguments += ["--few-steps", "6", "--results", str(kept)]
    script("gap_closed.py", *arguments, "--seeds", "0", "--arms", "few")
    found = script("gap_closed.py", *arguments, "--seeds", "0", "1")
    assert set(found["arms"]) == {"few", "ours", "all"}
    lines = kept.read_text().splitlines()
    assert len(lines) == 6
    shutil.rmtree(tmp_path / "out")
    assert script("gap_closed.py", *arguments, "--seeds", "0", "1") == found  # nothing but the lines is needed
    assert kept.read_text().splitlines() == lines
    for arm in found["arms"].values():
        assert all(0 <= value <= 1 for value in arm["auroc"])
    few = [json.loads(line)["auroc"] for line in lines if json.loads(line)["arm"] == "few"]
    assert found["arms"]["few"]["mean"] == pytest.approx(np.mean(few))


def lines(**areas: list[float]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return a line per arm and seed whose replicates are its area, a little moved, alike for all arms."""
    moved = np.linspace(-0.01, 0.01, 1000)
    return {
        (arm, seed): {"auroc": area, "replicates": (area + moved).tolist(), "test": "t"}
        for arm, values in areas.items()
        for seed, area in enumerate(values)
    }


def test_gap_closed_is_the_ratio_of_means_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    found = results.summarise(lines(few=[0.80, 0.82], ours=[0.85, 0.83], all=[0.90, 0.90]), [0, 1])
    assert found["gap_closed"] == pytest.approx((0.84 - 0.81) / (0.90 - 0.81))
    # Replicates move all arms alike, so only the seeds differ: (0.85 - 0.80) / 0.1 and (0.83 - 0.82) / 0.08.
    assert found["gap_closed_ci"] == pytest.approx([0.125, 0.5])
    assert found["arms"]["few"]["ours_minus"] == pytest.approx([0.01, 0.05])
    close = results.summarise(lines(few=[0.89, 0.89], ours=[0.89, 0.90], all=[0.90, 0.90]), [0, 1])
    assert close["gap_closed"] is None
    assert close["all_minus_few_lower_bound"] == pytest.approx(0.01)
    assert results.summarise(lines(few=[0.8], ours=[0.9]), [0])["gap_closed"] is None


def test_results_of_different_test_films_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    mixed = lines(few=[0.8], ours=[0.9])
    mixed["few", 0]["test"] = "other"
    with pytest.raises(SystemExit, match="different test films"):
        results.summarise(mixed, [0])


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
