"""The whole command on a tiny model: the files it leaves, and that a killed run ends like one that was never killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import content, differences, in_process, ns, ns_killed, write_config

from noisy_student import generations
from noisy_student.reporting import schema

STAGES = generations.TRAINING + generations.MEASURING
WEIGHTS = {
    *(f"checkpoint/{kind}/{name}" for kind in ("best", "last") for name in ("model.safetensors", "meta.json")),
    "checkpoint/last/resume.pt",
    "augmented.png",
}
GENERATION_FILES = {
    "targets.parquet",
    "targets.json",
    *WEIGHTS,
    *(f"predictions/{split}.parquet" for split in ("valid", "test", "pool")),
    "calibration.json",
    "promotion.json",
    "evaluation.json",
    "gallery.json",
    "report.json",
    "report.html",
    *(f"stages/{stage}.json" for stage in STAGES),
}
RUN_FILES = {
    *(f"pretrain/{name}" for name in WEIGHTS),
    "gen-0/stages/pretrain.json",
    ".noisy-student-run",
    "config.yaml",
    "config.resolved.json",
    "environment.json",
    "manifest.parquet",
    "sealed.parquet",
    "split.json",
    "stages/prepare.json",
    "metrics.jsonl",
    "report.json",
    "report.html",
}


def arguments(config: Path, run: Path, *more: str, rounds: int = 1) -> list[str]:
    return ["iterate", "--config", str(config), "--rounds", str(rounds), "-o", str(run), "-q", "--device", "cpu", *more]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a teacher and a student that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    assert in_process(ns, arguments(config, run)) == 0
    return run


@pytest.mark.slow
def test_a_run_leaves_exactly_these_files(finished: Path) -> None:
    expected = set(RUN_FILES)
    for generation in (0, 1):
        expected |= {f"gen-{generation}/{name}" for name in GENERATION_FILES}
    found = set(content(finished))
    pictures = {name for name in found if "/thumbs/" in name or "/maps/" in name}
    assert found - pictures == expected
    gallery = json.loads((finished / "gen-1" / "gallery.json").read_text())
    named = {f"gen-1/{entry[key]}" for entry in gallery["entries"] for key in ("thumb", "map") if entry[key]}
    assert {name for name in pictures if name.startswith("gen-1/")} == named


SPREAD = {f"predictions/{split}-spread.parquet" for split in ("pool", "test")}
SEVERAL = {
    "folds=2": (
        "fold",
        {*WEIGHTS, "targets.parquet", "targets.json", "predictions/pool.parquet"},
        {*SPREAD, "predictions/labelled.parquet"},
        {"folds.parquet"},
    ),
    "teacher.members=[{}, {model: {dropout: 0}}]": (
        "member",
        WEIGHTS,
        {*SPREAD, "predictions/valid-spread.parquet"},
        set(),
    ),
}
"""Of a run with several networks: their folders, the files of each, of the generation, and of the run."""


@pytest.mark.slow
@pytest.mark.parametrize("change", SEVERAL, ids=["folds", "members"])
def test_a_run_of_several_networks_leaves_these_files_and_survives_being_killed(
    config: Path, tmp_path: Path, change: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kind, own, generations_own, runs_own = SEVERAL[change]
    more = ["--set", change, "--set", "prediction.tta=flip"]
    if kind == "member":
        more += ["--set", "student.members=[{}, {model: {dropout: 0}}]"]
    assert in_process(ns, arguments(config, whole, *more)) == 0
    found = {name for name in content(whole) if "/thumbs/" not in name and "/maps/" not in name}
    expected = RUN_FILES | runs_own
    for generation in (0, 1):
        expected |= {f"gen-{generation}/{name}" for name in (GENERATION_FILES - WEIGHTS) | generations_own}
        expected |= {f"gen-{generation}/{kind}-{number}/{name}" for number in (0, 1) for name in own}
    assert found == expected
    draw = random.Random(5)
    for _ in range(6):
        where = draw.choice(["step", "checkpoint", "before record", "after record"])
        code = in_process(ns_killed, arguments(config, killed, *more, "--resume"), where, draw.randint(1, 6))
        assert code in (-signal.SIGKILL, 0)
    assert in_process(ns, arguments(config, killed, *more, "--resume")) == 0
    assert differences(content(whole), content(killed)) == []


@pytest.mark.slow
def test_the_teacher_starts_from_the_self_supervised_start(finished: Path) -> None:
    origins = [
        json.loads((finished / folder / "checkpoint" / "best" / "meta.json").read_text())["origin"]
        for folder in ("pretrain", "gen-0", "gen-1")
    ]
    assert origins == ["none", "weights of pretrain", "weights of gen-0"]


@pytest.mark.slow
def test_the_report_keeps_its_contract(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    schema.check(report)
    assert [entry["index"] for entry in report["generations"]] == [0, 1]
    assert [entry["role"] for entry in report["generations"]] == ["teacher", "student"]
    assert report["best"] in (0, 1)
    assert report["budget"]["labelled_patients"] == 16


@pytest.mark.slow
def test_an_equal_run_is_equal_bit_for_bit(config: Path, finished: Path, tmp_path: Path) -> None:
    assert in_process(ns, arguments(config, tmp_path / "again")) == 0
    assert differences(content(finished), content(tmp_path / "again")) == []


@pytest.mark.slow
def test_killed_at_every_stage_boundary(config: Path, finished: Path, tmp_path: Path) -> None:
    """One run, killed before and after the record of every stage: nothing is lost, nothing differs."""
    run = tmp_path / "killed"
    for _ in range(2 + 2 * len(STAGES)):
        for where in ("before record", "after record"):
            code = in_process(ns_killed, arguments(config, run, "--resume"), where, 1)
            assert code == -signal.SIGKILL
    assert in_process(ns, arguments(config, run, "--resume")) == 0
    assert differences(content(finished), content(run)) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_of_training(config: Path, finished: Path, tmp_path: Path, seed: int) -> None:
    run, draw = tmp_path / "killed", random.Random(seed)
    for _ in range(4):
        where = draw.choice(["step", "checkpoint"])
        code = in_process(ns_killed, arguments(config, run, "--resume"), where, draw.randint(1, 4))
        assert code in (-signal.SIGKILL, 0)
    assert in_process(ns, arguments(config, run, "--resume")) == 0
    assert differences(content(finished), content(run)) == []


@pytest.mark.slow
def test_killed_from_outside_at_any_time(config: Path, finished: Path, tmp_path: Path) -> None:
    run, draw = tmp_path / "killed", random.Random(11)
    command = [sys.executable, "-m", "noisy_student", *arguments(config, run, "--resume")]
    codes = []
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lock = run / ".lock"
        while process.poll() is None and (not lock.exists() or lock.read_text() != str(process.pid)):
            time.sleep(0.02)  # starting takes seconds, and longer on a busy machine; the work begins with the lock
        deadline = time.monotonic() + draw.uniform(0, 3)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        codes.append(process.wait())
    assert -signal.SIGKILL in codes
    assert in_process(ns, arguments(config, run, "--resume")) == 0
    assert differences(content(finished), content(run)) == []


@pytest.mark.slow
def test_sigterm_stops_after_a_checkpoint(config: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    command = [sys.executable, "-m", "noisy_student", *arguments(config, run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (run / "gen-0" / "stages" / "targets.json").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate()
    assert process.returncode == 75, complaint
    assert "--resume" in complaint
    assert in_process(ns, arguments(config, run, "--resume")) == 0
    assert differences(content(finished), content(run)) == []


@pytest.mark.slow
def test_stage_by_stage_equals_iterate_and_mixes_with_it(config: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "staged"
    teacher = ["train-teacher", "--config", str(config), "-o", str(run), "-q", "--device", "cpu"]
    assert in_process(ns, teacher) == 0
    for command in ("evaluate", "pseudo-label", "pseudo-label", "train-student"):
        assert in_process(ns, [command, str(run), "-q", "--device", "cpu"]) == 0
    assert in_process(ns, arguments(config, run, "--resume")) == 0
    assert differences(content(finished), content(run)) == []
    assert in_process(ns, ["report", str(run), "-q"]) == 0
    assert differences(content(finished), content(run)) == []


@pytest.mark.slow
def test_a_finished_run_is_extended(config: Path, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "short"
    assert in_process(ns, arguments(config, run, rounds=0)) == 0
    assert in_process(ns, arguments(config, run)) == 2  # neither --resume nor --overwrite
    assert in_process(ns, arguments(config, run, "--resume")) == 0
    assert differences(content(finished), content(run)) == []
    assert in_process(ns, arguments(config, run, "--resume")) == 0  # a finished run is left as it is
    assert differences(content(finished), content(run)) == []
