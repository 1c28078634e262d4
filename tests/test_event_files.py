from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from noisy_student import event_files
from noisy_student.errors import UsageError
from noisy_student.runs import PRETRAINING, Run

reader = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = Run(tmp_path / "run")
    found.create()
    return found


def curves(run: Run, network: str) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard itself reads of a network: step and value by curve."""
    read = reader.EventAccumulator(str(run.path / "tensorboard" / network))
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def logged(run: Run, generation: int, fold: int | None = None) -> dict[str, list[tuple[int, float]]]:
    """Return the same from the log."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in run.read_log():
        if (line["generation"], line.get("fold")) == (generation, fold):
            for key, value in line.items():
                if key not in ("generation", "fold", "step") and value is not None:
                    found.setdefault(key, []).append((line["step"], pytest.approx(value)))
    return found


def test_tensorboard_reads_the_curves_of_the_log(run: Run) -> None:
    run.followers.append(event_files.EventFiles(run))
    for step in (10, 20, 30):
        run.log(0, step, loss=1 / step, lr=1e-3, films_per_second=81.5)
        run.log(0, step, valid_auroc=None if step == 10 else 0.5 + step / 100, valid_log_loss=0.4)
        run.log(1, step, 2, loss=2 / step)
        run.log(PRETRAINING, step, loss=3 / step)
    assert curves(run, "gen-0") == logged(run, 0)
    assert set(curves(run, "gen-0")) == {"loss", "lr", "films_per_second", "valid_auroc", "valid_log_loss"}
    assert [step for step, _ in curves(run, "gen-0")["valid_auroc"]] == [20, 30]
    assert curves(run, "gen-1/fold-2") == logged(run, 1, 2) != logged(run, 0)
    assert curves(run, "pretrain") == logged(run, PRETRAINING)


def test_steps_that_are_done_again_are_there_once(run: Run) -> None:
    run.followers.append(event_files.EventFiles(run))
    for step in (10, 20, 30):
        run.log(0, step, loss=float(step))
        run.log(1, step, loss=float(step))
    run.cut_log(0, 15)
    run.log(0, 20, loss=7.0)
    assert curves(run, "gen-0") == {"loss": [(10, 10.0), (20, 7.0)]}
    assert curves(run, "gen-1")["loss"][-1] == (30, 30.0)
    (path,) = (run.path / "tensorboard" / "gen-0").iterdir()
    assert path.name == "events.out.tfevents.00001"  # another name, or a running TensorBoard would not look at it


def test_a_finished_run_gets_its_curves_and_nothing_is_said_twice(run: Run) -> None:
    for step in (10, 20):
        run.log(0, step, loss=float(step))
    for _ in range(2):
        event_files.EventFiles(run)
        assert curves(run, "gen-0") == {"loss": [(10, 10.0), (20, 20.0)]}


def test_a_network_of_which_nothing_is_left_has_no_curves(run: Run) -> None:
    run.followers.append(event_files.EventFiles(run))
    run.log(0, 10, loss=1.0)
    run.cut_log(0, 0)
    assert list((run.path / "tensorboard" / "gen-0").iterdir()) == []
    run.log(0, 10, loss=2.0)
    assert curves(run, "gen-0") == {"loss": [(10, 2.0)]}


def test_files_do_not_name_the_machine(run: Run) -> None:
    import socket

    run.log(0, 10, loss=1.0)
    event_files.EventFiles(run)
    (path,) = (run.path / "tensorboard" / "gen-0").iterdir()
    host = socket.gethostname()
    assert host not in path.name
    assert host.encode() not in path.read_bytes()


def test_without_the_extra_the_install_line_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ImportError("No module named 'tensorboard'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="--tensorboard: TensorBoard is not installed") as error:
        event_files.EventFiles(run)
    assert error.value.hint == "pip install 'noisy_student[tensorboard]'"
