"""Small runs for the end-to-end tests: a tiny configuration, processes that kill themselves, and comparison."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from noisy_student.config import Config
from noisy_student.runs import file_hash

TINY = """
seed: 3
threads: 1
data:
  labels: [Cardiomegaly, Pleural Effusion, Support Devices]
  image_size: 32
  synthetic: {train_patients: 40, valid_patients: 30, test_patients: 30, size: 32}
split: {labelled_patients: 16}
pretrain:
  method: byol
  hidden: 16
  width: 8
  optim: {steps: 5, batch_size: 8, eval_every: 3, save_every: 2, bn_images: 16}
teacher: &phase
  model: {name: small_resnet, dropout: 0.1, stochastic_depth: 0.1}
  optim:
    steps: 8
    phases: [{trainable: all, steps: 2}, {trainable: head}]
    batch_size: 8
    eval_every: 4
    save_every: 3
    bn_images: 16
student: {<<: *phase, pos_weight_cap: 1}
evaluation: {replicates: 100}
"""

TIMES = {"seconds", "films_per_second", "title"}
"""Keys that hold times, and the name of the directory: two runs differ in them and in nothing else."""

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["torch", "torchvision", "kornia", "noisy_student.stages", "noisy_student.cli.runs"])


def write_config(folder: Path, text: str = TINY) -> Path:
    """Write the tiny configuration and return its path."""
    path = folder / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def in_process(target: Callable[..., None], *arguments: Any) -> int:
    """Run ``target`` in a fresh process and return its exit code (negative: the signal that ended it)."""
    process = _forkserver.Process(target=target, args=(dict(os.environ), *arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def ns(environment: dict[str, str], arguments: Sequence[str]) -> None:
    """Run the command line in this (child) process."""
    from noisy_student.cli import main

    os.environ.update(environment)
    main(list(arguments))


def ns_killed(environment: dict[str, str], arguments: Sequence[str], where: str, count: int) -> None:
    """Run the command line and die by SIGKILL at the ``count``-th time ``where`` is reached.

    ``where``: "before record", "after record" (of a stage), "step" (of training), "checkpoint" (half way through
    writing one).
    """
    from noisy_student import runs
    from noisy_student.learning import checkpoint, fit

    left = count

    def die(first: Callable[[], object] = int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            first()
            os.kill(os.getpid(), signal.SIGKILL)

    record, see, save = runs.Run.record, fit._Watch.see, checkpoint.torch.save

    def killing_record(self: runs.Run, *args: Any, **kwargs: Any) -> None:
        if where == "before record":
            die()
        record(self, *args, **kwargs)
        if where == "after record":
            die()

    def killing_see(self: Any, *args: Any) -> None:
        see(self, *args)
        if where == "step":
            die()

    def killing_save(state: Any, stream: Any) -> None:
        save(state, stream)
        if where == "checkpoint":
            die(lambda: stream.truncate(stream.tell() // 2))

    runs.Run.record = killing_record  # type: ignore[method-assign]
    fit._Watch.see = killing_see  # type: ignore[method-assign]
    checkpoint.torch.save = killing_save
    ns(environment, arguments)


def content(run: Path) -> dict[str, Any]:
    """Return the run's files and what is in them, times left out."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir() or name == ".lock":
            continue
        if path.suffix == ".json":
            value = without_times(json.loads(path.read_text(encoding="utf-8")))
            if name.endswith("stages/report.json"):
                value["writes"] = sorted(value["writes"])
            found[name] = value
        elif path.suffix == ".jsonl":
            found[name] = [without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        elif path.suffix == ".pt":
            # Equal states can differ in how pickle shares their strings.
            found[name] = hashed(torch.load(path, weights_only=True))
        elif path.suffix == ".html":
            found[name] = "drawn from report.json"
        else:
            found[name] = file_hash(path)
    return found


def hashed(state: Any) -> Any:
    """Return a state with hashes in place of tensors."""
    if isinstance(state, torch.Tensor):
        return str(state.dtype), tuple(state.shape), hashlib.sha256(state.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(state, dict):
        return {key: hashed(part) for key, part in state.items()}
    return [hashed(part) for part in state] if isinstance(state, list | tuple) else state


def without_times(value: Any) -> Any:
    """Return ``value`` without the keys of :data:`TIMES`, at any depth."""
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return the names of files that are not the same in two runs."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def config_of(path: Path) -> Config:
    """Return the loaded configuration of a YAML file."""
    from noisy_student.config.load import load

    return load(path)
