from __future__ import annotations

import sys
from pathlib import Path

import pytest

from noisy_student.runs import Run

sys.path.insert(0, str(Path(__file__).parent))

import fake_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three generations, reported one after the other and then together; tests read it and do not write to it."""
    from noisy_student.reporting import write_generation, write_overall

    run = fake_run.make_run(tmp_path_factory.mktemp("runs") / "demo")
    fake_run.add_pictures(run, 2)
    for generation in run.generations():
        write_generation(run, generation)
    write_overall(run)
    return run


@pytest.fixture
def small(tmp_path: Path) -> Run:
    """Two generations of three labels, quick to draw and free to change."""
    return fake_run.make_run(tmp_path / "small", generations=2, labels=("Edema", "Fracture", "Pneumonia"))
