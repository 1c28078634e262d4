from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from noisy_student import generations, preparation, stages
from noisy_student.config import Config
from noisy_student.config.load import load, resolved
from noisy_student.errors import ConfigError, StoppedError, UsageError
from noisy_student.runs import MARKER, Run, read_json, write_json, write_text
from noisy_student.workplace import Traffic, Workplace

ORDER = (*generations.TRAINING, *generations.MEASURING)


class Stages:
    """Stand-ins for the stages: each writes one small file. ``ran`` lists them, ``verdicts`` are by generation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[tuple[str, int]] = []
        self.verdicts = ["first", "better", "better", "better"]
        for name in stages.STAGES:
            monkeypatch.setitem(stages.STAGES, name, self.named(name))
        monkeypatch.setattr(generations.report, "write_overall", self.overall)

    def named(self, name: str) -> Any:
        def stage(work: Workplace, generation: int) -> Traffic:
            self.ran.append((name, generation))
            path = work.run.generation(generation) / f"{name}.json"
            if name == "promote":
                path = path.with_name("promotion.json")
            write_json(path, {"stage": name, "verdict": self.verdicts[generation]})
            return Traffic([work.run.manifest], [path])

        return stage

    def overall(self, run: Run) -> tuple[Path, Path]:
        measured = [g for g in run.generations() if run.is_complete("evaluate", g)]
        write_json(run.path / "report.json", {"generations": measured})
        return run.path / "report.json", run.path / "report.html"

    def of(self, generation: int) -> list[str]:
        """Return the stages of a generation that ran, and forget them all."""
        names = [name for name, g in self.ran if g == generation]
        self.ran.clear()
        return names


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "run")
    made.create()
    write_text(made.manifest, "films")
    return made


def workplace(run: Run, *overrides: str, **more: Any) -> Workplace:
    return Workplace(run, load(None, overrides), decoded=cast(Any, None), **more)


# -- run_stages ------------------------------------------------------------------------------------------------------


def test_every_stage_of_the_order_exists_once() -> None:
    assert sorted(["pretrain", *ORDER]) == sorted(stages.STAGES)


def test_the_self_supervised_start_comes_once_and_first(run: Run, fakes: Stages) -> None:
    work = workplace(run, "pretrain.method=byol")
    assert generations.train_teacher(work)
    assert fakes.ran[:2] == [("pretrain", 0), ("targets", 0)]
    generations.iterate(work, 1)
    assert [stage for stage, _ in fakes.ran].count("pretrain") == 1


def test_stages_run_once_in_order_and_are_recorded_with_what_they_read_and_wrote(run: Run, fakes: Stages) -> None:
    said: list[str] = []
    assert generations.run_stages(workplace(run), 0, ("targets", "fit"), said.append)
    assert fakes.ran == [("targets", 0), ("fit", 0)]
    record = run.read_record("fit", 0)
    assert (list(record["reads"]), list(record["writes"])) == (["manifest.parquet"], ["gen-0/fit.json"])
    assert record["info"]["seconds"] >= 0
    assert [text.split(" (")[0] for text in said] == ["generation 0: targets", "generation 0: fit"]

    assert not generations.run_stages(workplace(run), 0, ("targets", "fit"), said.append)
    assert generations.run_stages(workplace(run), 0, ("targets", "fit", "calibrate"), said.append)
    assert fakes.ran == [("targets", 0), ("fit", 0), ("calibrate", 0)]
    assert len(said) == 3


@pytest.mark.parametrize(("change", "message"), [("edit", "has changed"), ("remove", "is missing")])
def test_files_of_complete_stages_are_verified(run: Run, fakes: Stages, change: str, message: str) -> None:
    generations.run_stages(workplace(run), 0, ("targets", "fit"))
    path = run.generation(0) / "targets.json"
    if change == "edit":
        path.write_text("{}", encoding="utf-8")
    else:
        path.unlink()
    with pytest.raises(UsageError, match=rf"gen-0/targets\.json: {message}.*stage 'targets'") as error:
        generations.run_stages(workplace(run), 0, ("targets", "fit", "calibrate"))
    assert "gen-0/stages/targets.json" in error.value.hint
    assert ("calibrate", 0) not in fakes.ran


def test_a_stage_that_fails_leaves_no_record(run: Run, fakes: Stages, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(work: Workplace, generation: int) -> Traffic:
        raise UsageError("no")

    with monkeypatch.context() as patch:
        patch.setitem(stages.STAGES, "fit", failing)
        with pytest.raises(UsageError):
            generations.run_stages(workplace(run), 0, ("targets", "fit"))
    assert run.is_complete("targets", 0)
    assert not run.is_complete("fit", 0)
    generations.run_stages(workplace(run), 0, ("targets", "fit"))
    assert fakes.ran == [("targets", 0), ("fit", 0)]


def test_it_stops_between_stages_and_not_when_nothing_is_left(run: Run, fakes: Stages) -> None:
    answers = iter([False, True])
    with pytest.raises(StoppedError, match="stopped before stage 'fit' of generation 2") as error:
        generations.run_stages(workplace(run, stop=lambda: next(answers)), 2, ("targets", "fit"))
    assert error.value.exit_code == 75
    assert fakes.ran == [("targets", 2)]
    assert not generations.run_stages(workplace(run, stop=lambda: True), 2, ("targets",))


# -- iterate ---------------------------------------------------------------------------------------------------------


def test_iterate_makes_and_measures_every_generation_and_goes_on_where_it_stands(run: Run, fakes: Stages) -> None:
    assert generations.iterate(workplace(run), 1) == {"generations": [0, 1]}
    assert fakes.ran == [(name, generation) for generation in (0, 1) for name in ORDER]
    fakes.ran.clear()
    assert generations.iterate(workplace(run), 1) == {"generations": [0, 1]}
    assert fakes.ran == []
    assert generations.iterate(workplace(run), 2) == {"generations": [0, 1, 2]}
    assert fakes.ran == [(name, 2) for name in ORDER]


@pytest.mark.parametrize(
    ("patience", "verdicts", "expected"),
    [
        (0, ["first", "worse", "worse", "worse"], 3),
        (1, ["first", "worse", "better", "better"], 1),
        (1, ["first", "undecided", "better", "better"], 1),
        (2, ["first", "worse", "undecided", "better"], 2),
        (2, ["first", "worse", "better", "worse"], 3),
        (2, ["first", "better", "worse", "worse"], 3),
        (1, ["first", "better", "better", "better"], 3),
    ],
)
def test_patience_counts_rounds_in_a_row_without_a_better_student(
    run: Run, fakes: Stages, patience: int, verdicts: list[str], expected: int
) -> None:
    said: list[str] = []
    fakes.verdicts = verdicts
    generations.iterate(workplace(run, f"promotion.patience={patience}"), 3, said.append)
    assert run.generations()[-1] == expected
    assert any("promotion.patience" in text for text in said) == (
        patience > 0 and "better" not in verdicts[expected - patience + 1 : expected + 1]
    )


# -- one stage at a time ---------------------------------------------------------------------------------------------


def test_stages_one_at_a_time_make_the_same_as_iterate(run: Run, fakes: Stages, tmp_path: Path) -> None:
    work = workplace(run)
    assert generations.train_teacher(work)
    assert fakes.of(0) == list(generations.TRAINING)
    assert not generations.train_teacher(work)
    assert generations.pseudo_label(work) == 1
    assert fakes.ran == [("predict-pool", 0), ("targets", 1)]
    assert generations.pseudo_label(work) == 1
    assert generations.train_student(work) == 1
    assert fakes.of(1) == ["targets", *generations.TRAINING[1:]]
    assert generations.trained(run) == 2
    assert generations.evaluate(work) == 2
    assert generations.make_reports(work) == {"generations": [0, 1]}
    fakes.ran.clear()
    generations.iterate(work, 1)
    assert fakes.ran == []


def test_a_second_train_student_without_new_pseudo_labels_trains_nothing(run: Run, fakes: Stages) -> None:
    work = workplace(run)
    generations.train_teacher(work)
    generations.pseudo_label(work)
    generations.train_student(work)
    fakes.ran.clear()
    assert generations.train_student(work) == 1
    assert fakes.ran == []


def test_commands_out_of_order_say_what_comes_first(run: Run, fakes: Stages) -> None:
    work = workplace(run)
    with pytest.raises(UsageError, match="no teacher yet") as error:
        generations.pseudo_label(work)
    assert error.value.hint == "Run ns train-teacher first."
    with pytest.raises(UsageError, match="no pseudo-labels to train on"):
        generations.train_student(work)
    with pytest.raises(UsageError, match="nothing has been trained yet"):
        generations.evaluate(work)
    with pytest.raises(UsageError, match="nothing has been evaluated yet"):
        generations.make_reports(work)
    assert fakes.ran == []

    generations.train_teacher(work)
    with pytest.raises(UsageError, match="no pseudo-labels to train on") as error:
        generations.train_student(work)
    assert error.value.hint == "Run ns pseudo-label first."
    with pytest.raises(UsageError, match="nothing has been evaluated yet") as error:
        generations.make_reports(work)
    assert error.value.hint == "Run ns evaluate first."


def test_reports_are_made_for_what_is_measured_alone(run: Run, fakes: Stages) -> None:
    work = workplace(run)
    generations.train_teacher(work)
    generations.evaluate(work)
    generations.pseudo_label(work)
    generations.train_student(work)
    assert generations.make_reports(work) == {"generations": [0]}
    assert run.is_complete("report", 0)
    assert not run.is_complete("report", 1)


def test_reports_that_are_there_are_made_again_and_stay_verified(run: Run, fakes: Stages) -> None:
    work = workplace(run)
    generations.iterate(work, 1)
    fakes.ran.clear()
    assert generations.make_reports(work) == {"generations": [0, 1]}
    assert fakes.ran == [("report", 0), ("report", 1)]
    generations.iterate(work, 1)
    assert fakes.ran == [("report", 0), ("report", 1)]


# -- opening a run ---------------------------------------------------------------------------------------------------


@pytest.fixture
def config() -> Config:
    return load(None, ["seed=1"])


@pytest.fixture
def prepared(tmp_path: Path, config: Config) -> Run:
    """A run that has been prepared, with a file of its own."""
    run = Run(tmp_path / "prepared")
    run.create()
    write_json(run.path / "config.resolved.json", resolved(config))
    write_text(run.path / "kept.txt", "kept")
    run.record(preparation.STAGE, None, [], [])
    return run


def test_a_new_run_is_marked_as_ours(tmp_path: Path, config: Config) -> None:
    run = generations.open_run(tmp_path / "a" / "b", config, resume=False, overwrite=False)
    assert (run.path / MARKER).is_file()
    for flags in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        assert generations.open_run(tmp_path / f"new{flags['resume']}", config, **flags).exists()


def test_a_run_that_is_there_asks_for_resume_or_overwrite(prepared: Run, config: Config) -> None:
    with pytest.raises(UsageError, match="there is a run already") as error:
        generations.open_run(prepared.path, config, resume=False, overwrite=False)
    assert "--resume" in error.value.hint
    assert "--overwrite" in error.value.hint
    generations.open_run(prepared.path, config, resume=True, overwrite=False)
    assert (prepared.path / "kept.txt").is_file()
    generations.open_run(prepared.path, config, resume=False, overwrite=True)
    assert not (prepared.path / "kept.txt").exists()
    assert [path.name for path in prepared.path.iterdir()] == [MARKER]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_whose_data_was_never_ready_counts_as_new(tmp_path: Path, config: Config, resume: bool) -> None:
    run = generations.open_run(tmp_path / "run", config, resume=False, overwrite=False)
    for name in ("config.resolved.json", "config.yaml", "folds.parquet"):
        write_text(run.path / name, "{}")
    corrected = load(None, ["seed=2"])
    assert generations.open_run(run.path, corrected, resume=resume, overwrite=False).exists()
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", MARKER]
    write_text(run.path / "config.resolved.json", "{}")
    with run.lock(), pytest.raises(UsageError, match="is in use by another process"):
        generations.open_run(run.path, corrected, resume=resume, overwrite=False)
    assert (run.path / "config.resolved.json").exists()


def test_a_run_with_generations_is_not_new_where_its_first_record_was_removed(prepared: Run, config: Config) -> None:
    (prepared.path / "stages" / f"{preparation.STAGE}.json").unlink()
    write_text(prepared.generation(0) / "kept.txt", "kept")
    with pytest.raises(UsageError, match="there is a run already"):
        generations.open_run(prepared.path, config, resume=False, overwrite=False)
    with pytest.raises(ConfigError, match="seed: 1 there, 2 now"):
        generations.open_run(prepared.path, load(None, ["seed=2"]), resume=True, overwrite=False)


def test_another_configuration_is_not_resumed_and_may_overwrite(prepared: Run, config: Config) -> None:
    other = load(None, ["seed=2"])
    with pytest.raises(ConfigError, match="seed: 1 there, 2 now"):
        generations.open_run(prepared.path, other, resume=True, overwrite=False)
    assert generations.open_run(prepared.path, other, resume=False, overwrite=True).exists()


def test_other_places_of_the_data_are_the_same_configuration(prepared: Run, config: Config, tmp_path: Path) -> None:
    moved = load(None, ["seed=1", f"data.cache_dir={tmp_path}"])
    assert generations.open_run(prepared.path, moved, resume=True, overwrite=False).exists()


def test_overwrite_leaves_alone_what_is_not_ours(tmp_path: Path, prepared: Run, config: Config) -> None:
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "one.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="was not made by noisy_student"):
        generations.open_run(foreign, config, resume=False, overwrite=True)
    link = tmp_path / "link"
    link.symlink_to(prepared.path)
    with pytest.raises(UsageError, match="is a symbolic link"):
        generations.open_run(link, config, resume=False, overwrite=True)
    assert (foreign / "one.jpg").is_file()
    assert (prepared.path / "kept.txt").is_file()


def test_overwrite_leaves_alone_a_run_in_use(prepared: Run, config: Config) -> None:
    with prepared.lock(), pytest.raises(UsageError, match="is in use by another process"):
        generations.open_run(prepared.path, config, resume=False, overwrite=True)
    assert (prepared.path / "kept.txt").is_file()


def test_an_existing_run_is_found_with_its_configuration(prepared: Run, config: Config) -> None:
    run, stored = generations.existing_run(prepared.path)
    assert (run.path, stored) == (prepared.path, config)


@pytest.mark.parametrize("made", [False, True])
def test_what_was_never_prepared_is_not_a_run(tmp_path: Path, made: bool) -> None:
    run = Run(tmp_path / "nothing")
    if made:
        run.create()
    with pytest.raises(UsageError, match="is not a run of noisy_student") as error:
        generations.existing_run(run.path)
    assert "ns iterate" in error.value.hint


@pytest.mark.slow
def test_the_controller_needs_no_torch() -> None:
    """The order of stages can be read, and reports made, where torch is slow to load or absent."""
    code = (
        "import json, sys, noisy_student.generations as _; print(json.dumps([m for m in sys.modules if '.' not in m]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "kornia"} & set(json.loads(done.stdout))


def test_the_overall_report_is_what_was_written(run: Run, fakes: Stages) -> None:
    generations.train_teacher(workplace(run))
    generations.evaluate(workplace(run))
    assert generations.overall(workplace(run)) == read_json(run.path / "report.json") == {"generations": [0]}
