"""Several processes on one run, as torchrun starts them: what they make, and how they stop, die and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from small_runs import TINY, write_config

from noisy_student import launch, ranks
from noisy_student.cli import main
from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.errors import ConfigError

RESUME = "gen-1/checkpoint/last/resume.pt"


def torchrun(processes: int, *arguments: str) -> subprocess.Popen[str]:
    """Start ``ns`` in several processes; it is given OMP_NUM_THREADS because torchrun remarks on it otherwise."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *command, "-m", "noisy_student", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def settings(*given: str) -> list[str]:
    return [part for setting in given for part in ("--set", setting)]


def wait_for_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    """Wait until generation 1 has written a checkpoint."""
    for _ in range(1200):
        if (run / RESUME).is_file() or process.poll() is not None:
            return
        time.sleep(0.1)


def steps(run: Path, generation: int) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["step"] for line in lines if line["generation"] == generation and "loss" in line]


@pytest.mark.slow
def test_two_processes_make_the_files_of_one_and_say_what_one_says(tmp_path: Path) -> None:
    config, one, two = write_config(tmp_path), tmp_path / "one", tmp_path / "two"
    given = ["iterate", "--config", str(config), "--rounds", "1", "--json", "-o"]
    with pytest.raises(SystemExit):
        main([*given, str(one)])
    several = torchrun(2, *given, str(two))
    output, errors = several.communicate()
    assert several.returncode == 0, errors
    assert len(json.loads(output)["generations"]) == 2  # of one process, and nothing of the other
    made, others = ({path.relative_to(run).as_posix() for path in run.rglob("*")} for run in (one, two))
    illustrations = {name for name in made ^ others if name.startswith(("gen-0/", "gen-1/")) and name.endswith(".png")}
    assert made ^ others == illustrations  # of films that a network, which is another, finds most uncertain or wrong
    # Batch norm and dropout differ, so their networks do; asked of the same films a network says the same.
    kept = pd.read_parquet(two / "gen-1/predictions/test.parquet").set_index("image")
    for name in ("predict-test", "evaluate"):
        (two / "gen-1" / "stages" / f"{name}.json").unlink()
    with pytest.raises(SystemExit):
        main(["evaluate", str(two)])
    again = pd.read_parquet(two / "gen-1/predictions/test.parquet").set_index("image")
    assert again.std().min() > 0
    pd.testing.assert_frame_equal(kept, again, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_run_that_was_stopped_or_lost_a_process_goes_on_with_another_number(end: str, tmp_path: Path) -> None:
    config, run = write_config(tmp_path), tmp_path / "run"
    long = settings("student.optim.steps=150", "student.optim.save_every=10")
    given = ["iterate", "--config", str(config), *long, "--rounds", "1", "-o", str(run)]
    several = torchrun(2, *given)
    wait_for_checkpoint(run, several)
    if end == "stopped":
        several.send_signal(signal.SIGTERM)
    else:
        children = Path(f"/proc/{several.pid}/task/{several.pid}/children").read_text(encoding="utf-8").split()
        os.kill(int(children[-1]), signal.SIGKILL)
    _, errors = several.communicate(timeout=120)
    assert several.returncode != 0
    said = {"stopped": "ns: stopped after step", "killed": "another process of the run is gone"}[end]
    assert said in errors
    assert "--resume" in errors
    assert (run / RESUME).is_file()
    before = steps(run, 1)[-1]
    assert before < 150
    with pytest.raises(SystemExit) as ended:
        main([*given, "--resume"])
    assert ended.value.code == 0
    assert steps(run, 1) == list(range(10, 151, 10))
    assert len(json.loads((run / "report.json").read_text(encoding="utf-8"))["generations"]) == 2


def tiny(tmp_path: Path, *changes: str) -> Config:
    return load(write_config(tmp_path, TINY), changes)


def test_batches_are_shared_equally(tmp_path: Path) -> None:
    ranks.check_batches(tiny(tmp_path), 2)
    ranks.check_batches(tiny(tmp_path), 4)
    with pytest.raises(ConfigError, match=r"teacher.optim.batch_size: 8 films cannot be shared by 3 processes"):
        ranks.check_batches(tiny(tmp_path), 3)
    with pytest.raises(ConfigError, match=r"student.optim.batch_size: 12 films .* by 8 processes") as refused:
        ranks.check_batches(tiny(tmp_path, "student.optim.batch_size=12", "teacher.optim.batch_size=16"), 8)
    assert "Take a multiple of 8, 16 or more" in refused.value.hint
    with pytest.raises(ConfigError, match=r"pretrain.optim.batch_size: 6 films"):
        ranks.check_batches(tiny(tmp_path, "pretrain.optim.batch_size=6"), 4)


def test_other_commands_are_for_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    refusals = {
        ("report", "runs/demo"): "ns report is done by one process, and 4 were started",
        ("evaluate", "runs/demo", "--config", "nih14.yaml"): "With --config or --truth this is done by one process",
    }
    for arguments, rank in product(refusals, ("0", "3")):
        said = refusals[arguments] if rank == "0" else ""
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        assert refused.value.code == 2
        assert said in capsys.readouterr().err


def test_who_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert launch.rank() == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (launch.rank(), launch.processes()) == (1, 2)
    monkeypatch.setenv("RANK", "0")
    assert launch.rank() == 0


def test_a_dry_run_is_done_by_the_first_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as ended:
            main(["iterate", "--config", str(write_config(tmp_path)), "--dry-run", "-o", str(tmp_path / "run")])
        assert ended.value.code == 0
        assert ("generations" in capsys.readouterr().out) == (rank == "0")
