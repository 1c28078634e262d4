from __future__ import annotations

import csv
import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from command_lines import REPOSITORY, check_line, commands
from PIL import Image

from noisy_student import __version__, plan, runs
from noisy_student.cli import _COMMANDS, doctor, main
from noisy_student.config.load import load, resolved

EVERY = {" ".join(path): command for path, command in commands()}
SMALL = ("train_patients=3", "valid_patients=2", "test_patients=2", "size=32")


@pytest.fixture
def ns(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line and return its exit code, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return call


def first_sentence(command: click.Command) -> str:
    text = " ".join((command.help or "").split())
    return re.split(r"(?<=\.) ", text)[0]


# -- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_help_with_an_example_that_it_takes(name: str, ns: Any) -> None:
    code, out, err = ns(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: ns {name} ")
    examples = [line.strip() for line in out.split("Example:\n")[1].split("\n\n")[0].splitlines()]
    assert examples
    for line in examples:
        assert line.startswith(f"ns {name}")
        check_line(line)


@pytest.mark.parametrize("name", EVERY)
def test_every_option_and_command_says_what_it_does(name: str) -> None:
    command = EVERY[name]
    assert first_sentence(command).endswith(".")
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name}: {option.opts}"


def test_the_list_of_commands_is_that_of_the_help(ns: Any) -> None:
    code, out, _ = ns("--help")
    assert code == 0
    listed = re.findall(r"^  ([a-z-]+) {2,}(.*)$", out.split("Commands:\n")[1], flags=re.MULTILINE)
    assert [name for name, _ in listed] == list(_COMMANDS)
    for name, text in listed:
        assert _COMMANDS[name][1].startswith(text)  # a long line is wrapped
    assert ns("-h") == (0, out, "")


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_line_in_the_list_is_the_first_sentence_of_the_command(name: str) -> None:
    """The list is written by hand so that help needs no imports; it may leave words out, not say something else."""
    short = re.findall(r"[\w'.-]+", _COMMANDS[name][1].rstrip("."))
    words = iter(re.findall(r"[\w'.-]+", first_sentence(EVERY[name]).rstrip(".")))
    assert all(word in words for word in short), first_sentence(EVERY[name])


def test_a_mistyped_command_is_met_with_its_neighbour(ns: Any) -> None:
    code, out, err = ns("iterat")
    assert (code, out) == (2, "")
    assert "No such command 'iterat'. Did you mean 'iterate'?" in err
    assert ns("zzz")[2].rstrip().endswith("No such command 'zzz'.")
    assert ns("data", "prepar")[0] == 2


def test_help_imports_nothing_heavy() -> None:
    """``ns --help`` answers in a blink because no command, and no library of a command, is imported for it."""
    code = (
        "import json, sys\nfrom noisy_student.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([m for m in sys.modules if '.' not in m]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "click" in loaded
    assert not loaded & {
        "torch",
        "torchvision",
        "kornia",
        "pandas",
        "pydantic",
        "numpy",
        "PIL",
        "matplotlib",
        "sklearn",
    }


def test_the_package_can_be_run_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "noisy_student", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ns, version {__version__}\n"


def test_version(ns: Any) -> None:
    assert ns("--version") == (0, f"ns, version {__version__}\n", "")


# -- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_finds_this_machine_fit(ns: Any) -> None:
    code, out, _ = ns("doctor", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["checks"]) == (0, True, {"one training step": "ok"})
    assert found["facts"]["noisy_student"] == __version__
    assert "gpu" in found["facts"]


def test_doctor_fails_with_what_is_wrong(ns: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_one_step", lambda: "the loss is not finite")
    code, out, _ = ns("doctor")
    assert code == 1
    assert "Failed: one training step" in out

    def broken() -> str:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(doctor, "_one_step", broken)
    code, out, _ = ns("doctor", "--json")
    assert code == 1
    assert json.loads(out)["checks"] == {"one training step": "RuntimeError: no kernel"}


# -- data ------------------------------------------------------------------------------------------------------------


def settings(prefix: str = "") -> list[str]:
    return [word for pair in SMALL for word in ("--set", f"{prefix}{pair}")]


def test_synthetic_writes_tables_and_the_films_in_them(ns: Any, tmp_path: Path) -> None:
    code, out, err = ns("synthetic", str(tmp_path / "phantoms"), *settings(), "-v")
    assert code == 0
    assert str(tmp_path / "phantoms") in out
    assert "generator version" in err
    patients = {}
    for split in ("train", "valid", "test"):
        with (tmp_path / "phantoms" / f"{split}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert all((tmp_path / "phantoms" / row["Path"].split("/", 1)[1]).is_file() for row in rows)
        patients[split] = len({re.search(r"patient\d+", row["Path"])[0] for row in rows})  # type: ignore[index]
    assert patients == {"train": 3, "valid": 2, "test": 2}


def test_synthetic_in_json_counts_the_films_of_each_table(ns: Any, tmp_path: Path) -> None:
    root, sheet = tmp_path / "phantoms", tmp_path / "sheet.png"
    code, out, _ = ns("synthetic", str(root), *settings(), "--preview", str(sheet), "--json")
    found = json.loads(out)
    assert (code, found["folder"], found["preview"]) == (0, str(root), str(sheet))
    for split, count in found["films"].items():
        assert count == len(list((root / split).rglob("*.jpg"))) > 0


def test_synthetic_overwrites_a_set_of_its_own_and_nothing_else(ns: Any, tmp_path: Path) -> None:
    root = tmp_path / "phantoms"
    again = ("synthetic", str(root), *settings(), "--set", "seed=5")
    assert ns("synthetic", str(root), *settings(), "--overwrite")[0] == 0  # nothing there
    code, _, err = ns(*again)
    assert code == 3
    assert "made with other settings" in err
    assert "--overwrite" in err
    assert ns(*again, "--overwrite")[0] == 0
    assert json.loads((root / "synthetic.json").read_text())["config"]["seed"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["phantoms"]

    def fails(path: Path, words: str) -> None:
        code, _, err = ns("synthetic", str(path), *settings(), "--overwrite")
        assert code == 2
        assert words in err

    (tmp_path / "link").symlink_to(root)
    fails(tmp_path / "link", "is a symbolic link")
    (root / "thesis.tex").write_text("years of work")
    fails(root, "holds thesis.tex, which ns synthetic did not write")
    (root / "synthetic.json").unlink()
    fails(root, "was not made by ns synthetic")
    assert (root / "train.csv").is_file()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert ns("synthetic", str(empty), *settings(), "--overwrite")[0] == 0


def test_what_cannot_be_written_is_explained_in_the_words_of_the_command(ns: Any, tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("mine")
    for arguments in (
        ["synthetic", str(file)], ["synthetic", str(file / "below")], ["synthetic", str(tmp_path)],
        ["synthetic", "--preview", str(file / "sheet.png")],
    ):  # fmt: skip
        code, _, err = ns(*arguments, *settings())
        assert code in (1, 3)
        assert "data." not in err
        assert "--output" not in err
        assert "Choose" in err
    for arguments in (["augment-preview", str(tmp_path)], ["synthetic", "--findings", str(tmp_path)]):
        code, _, err = ns(*arguments)
        assert code == 2
        assert f"{tmp_path}: is a directory\n    Name a picture" in err
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_says_to_run_the_command_again(ns: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "fsync_file", full)
    code, _, err = ns("synthetic", "--preview", str(tmp_path / "sheet.png"))
    assert code == 1
    assert "the disk is full" in err
    assert "run the same command again" in err
    assert "--resume" not in err


def test_synthetic_preview_is_a_picture_and_nothing_else_is_written(ns: Any, tmp_path: Path) -> None:
    code, _, _ = ns("synthetic", "--preview", str(tmp_path / "sheet.png"))
    assert code == 0
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_synthetic_without_anything_to_write(ns: Any) -> None:
    code, out, err = ns("synthetic")
    assert (code, out) == (2, "")
    assert err == "ns: ns synthetic: nothing to write\n    Name a folder, or a picture with --preview.\n"


def test_a_wrong_setting_is_named_and_an_error_is_json_where_it_was_asked_for(ns: Any, tmp_path: Path) -> None:
    code, _, err = ns("synthetic", str(tmp_path / "out"), "--set", "train_patient=3")
    assert code == 2
    assert "unknown key 'data.synthetic.train_patient'; did you mean 'train_patients'?" in err
    assert not (tmp_path / "out").exists()
    code, out, err = ns("iterate", "--dry-run", "--json", "--set", "sed=1")
    answer = json.loads(out)
    assert (code, answer["exit_code"]) == (2, 2)
    assert "did you mean 'seed'?" in answer["error"]
    assert answer["error"] in err


def test_data_prepare_twice_says_the_same(ns: Any, tmp_path: Path) -> None:
    arguments = (
        "data", "prepare", *settings("data.synthetic."), "--set", "data.image_size=32",
        "--set", f"data.cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    code, out, _ = ns(*arguments, "--json")
    first = json.loads(out)
    assert code == 0
    assert (first["patients"], first["unreadable"]) == (7, [])
    index = sorted((path, path.stat().st_mtime_ns) for path in Path(first["cache"]).rglob("*.*") if path.is_file())
    assert index
    code, out, _ = ns(*arguments, "--json")
    assert (code, json.loads(out)) == (0, first)
    again = sorted((path, path.stat().st_mtime_ns) for path in Path(first["cache"]).rglob("*.*") if path.is_file())
    assert again == index  # what is decoded is not decoded again
    code, out, _ = ns(*arguments)
    assert out == f"{first['films']} films of 7 patients are in {first['cache']}\n"


# -- config ----------------------------------------------------------------------------------------------------------


def test_config_prints_every_setting_with_its_meaning_and_can_be_read_again(ns: Any, tmp_path: Path) -> None:
    code, out, _ = ns("config")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].startswith("# ")
    assert lines[lines.index("seed: 0") - 1] == "# Seed of initialisation, sampling, noise and bootstrap."
    keys = [number for number, line in enumerate(lines) if not line.startswith("#")]
    assert all(len(lines[number - 1]) > len("# .") and lines[number - 1].startswith("# ") for number in keys)
    mine = tmp_path / "mine.yaml"
    mine.write_text(out)
    assert load(mine) == load(None)


@pytest.mark.parametrize("name", ["kermany160", "vindr", "kermany-folder"])
def test_config_prints_what_a_file_and_the_command_line_come_to(ns: Any, tmp_path: Path, name: str) -> None:
    given = REPOSITORY / "configs" / f"{name}.yaml"
    more = ("--set", "seed=9", "--set", "generations={2: {noise: {strength: 8}}}")
    code, out, _ = ns("config", "--config", str(given), *more)
    assert code == 0
    (tmp_path / "all.yaml").write_text(out)
    wanted = load(given, more[1::2])
    assert load(tmp_path / "all.yaml") == wanted
    code, out, _ = ns("config", "--config", str(given), *more, "--json")
    assert json.loads(out) == resolved(wanted)


def test_config_keeps_text_of_several_lines(ns: Any, tmp_path: Path) -> None:
    pattern = '--set=data.folders.patient="a\\n b"'
    (tmp_path / "all.yaml").write_text(ns("config", pattern)[1])
    assert load(tmp_path / "all.yaml").data.folders.patient == "a\n b"


# -- iterate ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_is_json_and_writes_nothing(ns: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = ns("iterate", "--rounds", "2", "--dry-run", "--json", "--set", f"data.root={tmp_path / 'none'}")
    assert (code, err) == (0, "")
    plan = json.loads(out)
    assert plan["output"].startswith("runs/demo (new)")
    assert plan["generations"] == "3 (a teacher and 2 students)"
    code, out, _ = ns("train-teacher", "-o", "mine", "--dry-run", "--set", f"data.root={tmp_path / 'none'}")
    assert code == 0
    assert re.search(r"^output +mine \(new\)$", out, flags=re.MULTILINE)
    assert re.search(r"^generations +1 ", out, flags=re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_the_default_output_is_named_after_the_config(ns: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lungs.yaml").write_text(f"data: {{root: {tmp_path / 'none'}}}\n")
    assert json.loads(ns("iterate", "--config", "lungs.yaml", "--dry-run", "--json")[1])["output"] == "runs/lungs (new)"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, click.Abort])
def test_an_interrupted_command_says_how_to_go_on(
    ns: Any, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise kind

    monkeypatch.setattr(plan, "describe", interrupted)
    code, out, err = ns("iterate", "--dry-run")
    assert (code, out) == (130, "")
    assert err.strip().splitlines()[0].endswith("interrupted")
    assert "--resume" in err
    code, out, _ = ns("iterate", "--dry-run", "--json")
    assert (code, json.loads(out)["exit_code"]) == (130, 130)


@pytest.mark.parametrize("name", ["pseudo-label", "train-student", "evaluate", "report"])
def test_commands_on_a_run_refuse_what_is_not_one(ns: Any, tmp_path: Path, name: str) -> None:
    code, out, err = ns(name, str(tmp_path / "nothing"))
    assert (code, out) == (2, "")
    assert f"{tmp_path / 'nothing'}: is not a run of noisy_student" in err
    assert list(tmp_path.iterdir()) == []


def test_report_opens_its_page_where_asked(ns: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, shown = runs.Run(tmp_path / "run"), []
    run.create()
    report = {"generations": [], "best": 0}
    monkeypatch.setattr("noisy_student.generations.existing_run", lambda path: (run, load(None, [])))
    monkeypatch.setattr("noisy_student.generations.make_reports", lambda work, say: report)
    for works in (True, False):
        monkeypatch.setattr("webbrowser.open", lambda address, works=works: shown.append(address) or works)
        code, out, err = ns("report", str(run.path), "--open", "--json")
        assert (code, json.loads(out)) == (0, report)
        assert ("No browser could be started; open " in err) == (not works)
    assert shown == [(run.path / "report.html").resolve().as_uri()] * 2
    assert ns("report", str(run.path))[0] == 0
    assert len(shown) == 2


@pytest.mark.parametrize("name", ["iterate", "train-teacher"])
def test_tensorboard_is_asked_for_before_anything_is_done(
    ns: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    code, out, err = ns(name, "--tensorboard", "-o", str(tmp_path / "run"))
    assert (code, out) == (2, "")
    assert "--tensorboard: TensorBoard is not installed" in err
    assert "pip install 'noisy_student[tensorboard]'" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", [True, False])
def test_tensorboard_gets_what_is_logged_where_asked(
    ns: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr("noisy_student.preparation.prepare", lambda *_, **__: None)
    monkeypatch.setattr("noisy_student.generations.train_teacher", lambda work, say: work.run.log(0, 10, loss=0.5))
    run = tmp_path / "run"
    code, _, _ = ns("train-teacher", *(["--tensorboard"] if asked else []), "-o", str(run), "--set", "threads=1")
    assert code == 0
    assert len(list((run / "tensorboard" / "gen-0").glob("events.out.tfevents.*"))) == asked


@pytest.mark.parametrize("value", ["-1", "many"])
def test_a_wrong_number_of_rounds_is_a_usage_error(ns: Any, value: str) -> None:
    code, _, err = ns("iterate", "--rounds", value, "--dry-run")
    assert code == 2
    assert "--rounds" in err


@pytest.mark.parametrize("patients", ["aabbccdd", "abcdefgh"])
def test_pairs_that_do_not_exist_are_refused_before_a_run(
    tmp_path: Path, ns: Callable[..., tuple[int, str, str]], patients: str
) -> None:
    splits = ["train", "train", "train", "train", "valid", "valid", "test", "test"]
    rows = [f"{n}.png,{one},{split},{n % 2}\n" for n, (one, split) in enumerate(zip(patients, splits, strict=True))]
    (tmp_path / "labels.csv").write_text("image,patient,split,A\n" + "".join(rows), encoding="utf-8")
    arguments = [f"data={{source: csv, root: {tmp_path}, labels: [A]}}", "split.labelled_images=2", "folds=1"]
    arguments += ["pretrain.method=byol", "pretrain.pairs=patient", "split.valid_images=2"]
    given = [word for text in arguments for word in ("--set", text)]
    code, _, err = ns("iterate", "--dry-run", "-o", str(tmp_path / "run"), *given)
    assert (code == 0) == (patients == "aabbccdd")
    assert code == 0 or "pretrain.pairs: every film of the train split is of another patient" in err
