"""The Slurm script with stand-ins for ``srun`` and ``scontrol``: what it starts, how it stops, that it goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_lines import REPOSITORY, check_line
from small_runs import TINY, content, differences, write_config

SCRIPT = REPOSITORY / "scripts" / "slurm" / "iterate.sbatch"
SRUN = """#!/usr/bin/env bash
while [ "${1#--}" != "$1" ]; do shift; done  # its own options, all of the form --name=value
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$*" >>"$LOG"
if [ "$1" = show ]; then printf '%s\\n' $HOSTS; fi
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Environment of a job, with the stand-ins first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "scontrol.log"),
        "HOSTS": "node7 node8",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "NS_PYTHON": sys.executable,
    }


def asked_of_scontrol(tmp_path: Path) -> list[str]:
    log = tmp_path / "scontrol.log"
    return log.read_text().splitlines() if log.exists() else []


def stand_in(tmp_path: Path, text: str) -> str:
    """Return a program in the place of Python, which says in ``calls.json`` how it was called."""
    path = tmp_path / "program"
    note = "import json, sys; json.dump(sys.argv[1:], open('calls.json', 'w'))"
    path.write_text(f'#!/usr/bin/env bash\n{sys.executable} -c "{note}" "$@"\n{text}\n')
    path.chmod(0o755)
    return str(path)


STATE = "gen-0/checkpoint/last/resume.pt"


def stop_in_training(process: subprocess.Popen[str], run: Path) -> None:
    """Send USR1 once there is a checkpoint; the job ends with 75, and its last checkpoint is of the step it names."""
    while not (run / STATE).exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    _, complaint = process.communicate()
    assert process.returncode == 75, complaint
    step = re.search(r"stopped after step (\d+) of 200", complaint)
    assert step is not None, complaint
    assert torch.load(run / STATE, weights_only=True)["step"] == int(step[1])


def start(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def test_it_is_bash_and_asks_to_be_told_and_put_back() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(SCRIPT)], check=True)
    text = SCRIPT.read_text()
    asked = re.findall(r"^#SBATCH (--\S+)$", text, re.MULTILINE)
    assert {"--requeue", "--open-mode=append"} <= set(asked)
    notice = next(option for option in asked if option.startswith("--signal="))
    grace = re.search(r"NS_GRACE:-(\d+)", text)
    assert grace is not None
    assert int(grace[1]) < int(notice.removeprefix("--signal=B:USR1@"))


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 1), (1, 4), (2, 8)])
def test_one_process_or_torchrun(nodes: int, gpus: int, slurm: dict[str, str], tmp_path: Path) -> None:
    job = slurm | {"NS_PYTHON": stand_in(tmp_path, "exit 3"), "SLURM_JOB_NUM_NODES": f"{nodes}"}
    job |= {"SLURM_GPUS_ON_NODE": f"{gpus}", "NS_CONFIG": "configs/nih14.yaml", "NS_ROUNDS": "2"}
    process = start(job, tmp_path, "--set", "data.labels=[Mass, Nodule]")
    process.communicate()
    assert process.returncode == 3  # nothing was asked of the script, so the code is that of the step
    assert not any("requeue" in line for line in asked_of_scontrol(tmp_path))
    call = json.loads((tmp_path / "calls.json").read_text())
    at = call.index("noisy_student")
    launcher, words = call[: at - 1], call[at + 1 :]
    check_line("ns " + " ".join(f"'{word}'" for word in words))
    assert words[words.index("--output") + 1] == "runs/nih14"
    assert "--resume" in words
    if nodes * gpus == 1:
        assert launcher == []
    else:
        assert launcher[:4] == ["-m", "torch.distributed.run", f"--nnodes={nodes}", f"--nproc-per-node={gpus}"]
        assert f"--rdzv-endpoint=node7:{20000 + 4711}" in launcher


@pytest.mark.parametrize(
    ("ending", "code", "requeued"), [("exit 1", 75, True), ("exit 4", 4, False), ("exit 0", 0, False)]
)
def test_what_ends_with_an_answer_is_not_put_back(
    ending: str, code: int, requeued: bool, slurm: dict[str, str], tmp_path: Path
) -> None:
    """``exit 1`` is what torchrun says when its processes have ended with 75."""
    waiting = f"trap '{ending}' TERM; touch ready; while :; do sleep 0.05; done"
    process = start(slurm | {"NS_PYTHON": stand_in(tmp_path, waiting)}, tmp_path)
    while not (tmp_path / "ready").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == code
    assert (asked_of_scontrol(tmp_path) == ["requeue 4711"]) == requeued


def test_what_does_not_stop_is_put_back_before_slurm_kills_it(slurm: dict[str, str], tmp_path: Path) -> None:
    waiting = "trap '' TERM; touch ready; for _ in 1 2 3; do sleep 0.3; done"
    process = start(slurm | {"NS_PYTHON": stand_in(tmp_path, waiting), "NS_GRACE": "0"}, tmp_path)
    while not (tmp_path / "ready").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    _, complaint = process.communicate()
    assert process.returncode == 75
    assert "No checkpoint within 0 s" in complaint
    assert asked_of_scontrol(tmp_path) == ["requeue 4711"]


def longer(tmp_path: Path) -> Path:
    """Return a configuration whose training lasts long enough to be met in it."""
    text = TINY
    for old, new in (
        ("method: byol", "method: none"),
        ("steps: 8", "steps: 200"),
        ("eval_every: 4", "eval_every: 100"),
    ):
        assert old in text
        text = text.replace(old, new)
    return write_config(tmp_path, text)


@pytest.mark.slow
def test_stopped_in_training_it_is_put_back_and_ends_as_if_it_had_not_been(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    job = slurm | {"NS_CONFIG": str(longer(tmp_path)), "NS_ROUNDS": "1", "OMP_NUM_THREADS": "1"}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = start(job | {"NS_OUTPUT": str(whole)}, tmp_path, "--device", "cpu")
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint

    process = start(job | {"NS_OUTPUT": str(stopped)}, tmp_path, "--device", "cpu")
    stop_in_training(process, stopped)
    assert asked_of_scontrol(tmp_path) == ["requeue 4711"]

    process = start(job | {"NS_OUTPUT": str(stopped)}, tmp_path, "--device", "cpu")
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert asked_of_scontrol(tmp_path) == ["requeue 4711"]
    assert differences(content(whole), content(stopped)) == []


@pytest.mark.slow
def test_torchrun_is_stopped_put_back_and_goes_on(slurm: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = slurm | {"NS_CONFIG": str(longer(tmp_path)), "NS_ROUNDS": "0", "NS_OUTPUT": str(run), "NS_GPUS": "2"}
    job |= {"HOSTS": "localhost", "OMP_NUM_THREADS": "1"}
    process = start(job, tmp_path, "--device", "cpu")
    stop_in_training(process, run)
    assert asked_of_scontrol(tmp_path)[-1] == "requeue 4711"
    process = start(job, tmp_path, "--device", "cpu")
    _, complaint = process.communicate()
    assert process.returncode == 0, complaint
    assert torch.load(run / STATE, weights_only=True)["step"] == 200
    assert (run / "report.json").exists()
