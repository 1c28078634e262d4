from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import pytest
import torch

from noisy_student.learning import machine

FAULTS = """
import resource, sys, torch
from noisy_student.learning import machine
if sys.argv[1] == "kept":
    machine.prepare(1)
for _ in range(20):  # small objects take places between the blocks for a while
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_threads_are_set_where_a_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    machine.prepare(0)
    machine.prepare(3)
    assert asked == [3]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is of the C library of Linux")
def test_memory_that_was_given_back_is_there_for_the_next_step() -> None:
    def faults(mode: str) -> int:
        found = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        return int(found.stdout)

    pages = 10_000_000 * 4 // resource.getpagesize()
    assert faults("kept") < pages  # ten blocks, and not one of them is new
    assert faults("as the system does") > 9 * pages


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_a_system_with_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    machine.prepare(0)
    assert not machine._keep_memory()
