from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from noisy_student import runs
from noisy_student.errors import NoisyStudentError, StorageError, UsageError
from noisy_student.runs import MARKER, Run, atomic, check_free_space, file_hash, read_json, write_json, write_text


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "runs" / "one")
    made.create()
    return made


# -- files ---------------------------------------------------------------------------------------------------------


def test_atomic_leaves_the_old_file_and_no_rest_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_atomic_flushes_before_it_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "sub" / "a.txt", []
    real = runs.fsync_file
    monkeypatch.setattr(runs, "fsync_file", lambda flushed: (seen.append((flushed, path.exists())), real(flushed)))
    write_text(path, "new")
    (file, there_before), (folder, there_after) = seen
    assert file.parent == path.parent
    assert not there_before
    assert (folder, there_after) == (path.parent, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_json_refuses_nan_and_keeps_umlauts(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"Ödem": [1, None]})
    assert "Ödem" in path.read_text(encoding="utf-8")
    assert read_json(path) == {"Ödem": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"Ödem": [1, None]}


def test_read_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(NoisyStudentError, match=r"a\.json: is missing"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"a": ')
    with pytest.raises(NoisyStudentError, match=r"b\.json: is not valid JSON"):
        read_json(tmp_path / "b.json")
    (tmp_path / "c.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NoisyStudentError, match=r"c\.json: is not valid JSON"):
        read_json(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EROFS, "cannot be written")],
)
def test_a_failing_write_says_what_to_do(tmp_path: Path, number: int, says: str) -> None:
    with pytest.raises(StorageError, match=says) as caught, atomic(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "a") in caught.value.message
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_other_failures_of_a_write_are_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, atomic(tmp_path / "a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(caught.value, NoisyStudentError)


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert runs.text_hash("abc") == "ba7816bf8f01cfea"


def test_free_space_is_asked_of_the_nearest_folder_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    usage = namedtuple("usage", "total used free")

    def disk_usage(folder: Path) -> usage:
        asked.append(folder)
        return usage(0, 0, 2_000_000_000)

    monkeypatch.setattr(runs.shutil, "disk_usage", disk_usage)
    check_free_space(tmp_path / "not" / "yet", 2_000_000_000, "the cache")
    assert asked == [tmp_path]
    with pytest.raises(StorageError, match=r"the cache needs 3\.0 GB and 2\.0 GB are free"):
        check_free_space(tmp_path, 3_000_000_000, "the cache")


# -- the directory -------------------------------------------------------------------------------------------------


def test_create_marks_the_directory_and_can_be_repeated(run: Run) -> None:
    assert run.exists()
    (run.path / "work").write_text("kept")
    run.create()
    assert (run.path / "work").read_text() == "kept"
    assert repr(run) == f"Run({str(run.path)!r})"


def test_create_takes_an_empty_directory_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Run(tmp_path / "empty").create()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="was not made by noisy_student"):
        Run(tmp_path / "foreign").create()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a directory"):
        Run(tmp_path / "file").create()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(UsageError, match="is not a directory"):
        Run(tmp_path / "link").create()


def test_remove_deletes_only_what_bears_the_marker_and_follows_no_link(run: Run, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="leaves it alone"):
        Run(foreign).remove()
    link = tmp_path / "link"
    link.symlink_to(run.path)
    with pytest.raises(UsageError, match="symbolic link"):
        Run(link).remove()
    assert (foreign / "thesis.tex").exists()
    assert run.exists()
    (run.path / "inside").symlink_to(foreign)
    run.remove()
    assert not run.path.exists()
    assert (foreign / "thesis.tex").exists()


def test_generations_are_listed_by_number(run: Run) -> None:
    for name in ("gen-10", "gen-2", "gen-0", "gen-x"):
        (run.path / name).mkdir()
    (run.path / "gen-7").write_text("a file")
    assert run.generations() == [0, 2, 10]
    assert run.generation(2) == run.path / "gen-2"


# -- the lock ------------------------------------------------------------------------------------------------------


def test_the_lock_keeps_another_process_out_and_names_its_holder(run: Run) -> None:
    code = (
        "import sys; from pathlib import Path; from noisy_student.runs import Run\n"
        "from noisy_student.errors import UsageError\n"
        "try:\n"
        "    with Run(Path(sys.argv[1])).lock(): print('held')\n"
        "except UsageError as error: print(error.message)\n"
    )

    def other() -> str:
        command = [sys.executable, "-c", code, str(run.path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with run.lock():
        assert other() == f"{run.path}: is in use by another process (pid {os.getpid()})"
    assert other() == "held"
    with run.lock():
        pass


def test_what_goes_wrong_while_the_lock_is_held_is_not_blamed_on_the_run(run: Run) -> None:
    with pytest.raises(PermissionError) as caught, run.lock():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/train.csv")
    assert caught.value.filename == "/data/train.csv"


# -- stages --------------------------------------------------------------------------------------------------------


def test_a_stage_is_complete_when_its_record_exists(run: Run) -> None:
    source, result = run.path / "in.txt", run.generation(1) / "out.txt"
    write_text(source, "abc")
    write_text(result, "result")
    assert not run.is_complete("fit", 1)
    run.record("fit", 1, [source, source], [result], {"seconds": 3})
    assert run.is_complete("fit", 1)
    assert not run.is_complete("fit", 0)
    assert not run.is_complete("fit")
    assert run.read_record("fit", 1) == {
        "stage": "fit",
        "generation": 1,
        "reads": {"in.txt": file_hash(source)},
        "writes": {"gen-1/out.txt": file_hash(result)},
        "info": {"seconds": 3},
    }
    run.verify("fit", 1)
    (run.generation(1) / "stages" / "fit.json").unlink()  # as the hint of a stale stage says
    assert not run.is_complete("fit", 1)


def test_verify_tells_a_changed_file_from_a_missing_one(run: Run) -> None:
    write_text(run.manifest, "films")
    run.record("prepare", None, [], [run.manifest])
    write_text(run.manifest, "other films")
    with pytest.raises(UsageError, match=r"manifest\.parquet: has changed .* \(stage 'prepare'\)") as caught:
        run.verify("prepare")
    assert "stages/prepare.json" in caught.value.hint
    run.manifest.unlink()
    with pytest.raises(UsageError, match=r"manifest\.parquet: is missing"):
        run.verify("prepare")


# -- the log -------------------------------------------------------------------------------------------------------


def test_the_log_is_cut_back_to_the_step_of_the_generation(run: Run) -> None:
    run.cut_log(0, 0)
    assert run.read_log() == []
    for generation, step in [(0, 10), (0, 20), (1, 10), (1, 20), (1, 30)]:
        run.log(generation, step, loss=step / 10)
    run.cut_log(1, 20)
    assert [(line["generation"], line["step"]) for line in run.read_log()] == [(0, 10), (0, 20), (1, 10), (1, 20)]
    run.cut_log(1, 0)
    assert run.read_log() == [
        {"generation": 0, "step": 10, "loss": 1.0},
        {"generation": 0, "step": 20, "loss": 2.0},
    ]


def test_a_half_written_line_is_passed_over_and_cut(run: Run) -> None:
    run.log(0, 10, loss=1.0)
    with run.metrics.open("a") as stream:
        stream.write('{"generation": 0, "ste')
    assert len(run.read_log()) == 1
    run.cut_log(0, 10)
    run.log(0, 20, loss=2.0)
    assert [line["step"] for line in run.read_log()] == [10, 20]


def test_a_whole_line_that_lost_its_end_does_not_swallow_the_next(run: Run) -> None:
    run.metrics.write_text(json.dumps({"generation": 0, "step": 10}))
    run.cut_log(0, 10)
    run.log(0, 20)
    assert [line["step"] for line in run.read_log()] == [10, 20]


def test_the_log_refuses_nan(run: Run) -> None:
    with pytest.raises(ValueError, match="JSON"):
        run.log(0, 1, loss=float("nan"))


def test_the_marker_is_a_hidden_file(run: Run) -> None:
    assert [entry.name for entry in run.path.iterdir()] == [MARKER]
    assert MARKER.startswith(".")


def test_removal_leaves_nothing_half_done_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    run.create()
    write_text(run.path / "gen-1" / "targets.json", "old")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("noisy_student.runs.shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run.remove()
    assert not run.path.exists()


def test_a_stage_is_stale_when_what_it_read_has_changed(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.create()
    source, result = run.path / "a.txt", run.path / "b.txt"
    write_text(source, "1")
    write_text(result, "2")
    run.record("double", None, [source], [result])
    run.verify("double")
    write_text(source, "3")
    with pytest.raises(UsageError, match=r"a\.txt: has changed since it was read \(stage 'double'\)"):
        run.verify("double")
