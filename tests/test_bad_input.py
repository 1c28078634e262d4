"""Bad input, as a user meets it: the message names the culprit and the fix, and the exit code says what kind it is."""

from __future__ import annotations

import errno
import fcntl
import json
import urllib.error
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisy_student import runs
from noisy_student.cli import main
from noisy_student.config import ModelConfig
from noisy_student.learning import checkpoint, models

Edit = Callable[[Path, pd.DataFrame], pd.DataFrame]

CONFIG = """
threads: 1
data: {{source: csv, root: {root}, labels: [A, B], image_size: 32, cache_dir: {cache}}}
split: {{labelled_patients: 10}}
teacher: &phase {{model: {{name: small_resnet}}, optim: {{steps: 2, batch_size: 4, bn_images: 8}}}}
student: {{<<: *phase, start: weights}}
evaluation: {{replicates: 100}}
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a table of 60 films of 30 patients."""
    root = tmp_path / "films"
    root.mkdir()
    draw = np.random.default_rng(0)
    rows = []
    for number in range(60):
        Image.fromarray(draw.integers(0, 256, (40, 40), dtype=np.uint8)).save(root / f"{number}.jpg")
        patient = number // 2
        split = "train" if patient < 18 else "valid" if patient < 24 else "test"
        rows.append(
            {"image": f"{number}.jpg", "patient": f"p{patient}", "split": split, "A": patient % 2, "B": number % 2}
        )
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture
def config(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "films.yaml"
    path.write_text(CONFIG.format(root=data, cache=tmp_path / "cache"), encoding="utf-8")
    return path


@pytest.fixture
def fails(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs ``ns`` and returns its complaint, after checking the exit code."""

    def call(code: int, *more: str, command: str = "train-teacher") -> str:
        arguments = [command, "--config", str(config), "-o", str(tmp_path / "run"), "-q", "--device", "cpu", *more]
        with pytest.raises(SystemExit) as ending:
            main(arguments)
        complaint = capsys.readouterr().err
        assert ending.value.code == code, complaint
        return complaint

    return call


def edit(root: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = pd.read_csv(root / "labels.csv", dtype=object)
    change(table).to_csv(root / "labels.csv", index=False)


def put(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="patient"), ["labels.csv", "patient", "columns"]),
        (lambda table: table.drop(columns="B"), ["labels.csv", "'B'"]),
        (put(3, "A", "maybe"), ["labels.csv", "'A'", "maybe"]),
        (put(3, "A", "2"), ["labels.csv", "'A'", "2"]),
        (put(3, "image", "missing.jpg"), ["missing.jpg"]),
        (put(3, "image", "../outside.jpg"), ["labels.csv", "../outside.jpg"]),
        (put(3, "image", "/etc/passwd"), ["labels.csv", "/etc/passwd"]),
        (put(3, "split", "holdout"), ["labels.csv", "split", "holdout"]),
        (lambda table: table[table["split"] != "test"], ["test", "empty"]),
        (lambda table: table[table["split"] != "valid"], ["valid", "empty"]),
        (lambda table: table.assign(A=1), ["'A'", "only positive"]),
        (put(0, "split", "test"), ["labels.csv", "patient", "split"]),
        (put(1, "image", "0.jpg"), ["labels.csv", "0.jpg"]),
        (lambda table: table.iloc[:0], ["labels.csv", "has no rows", "data.root"]),
    ],
    ids=[
        "no patient column", "no label column", "unknown label word", "unknown label number", "film missing",
        "film above the root", "film elsewhere", "unknown split", "no test", "no valid", "one class",
        "patient in two splits", "film twice", "empty table",
    ],
)  # fmt: skip
def test_wrong_tables(
    data: Path, fails: Callable[..., str], change: Callable[[pd.DataFrame], pd.DataFrame], words: list[str]
) -> None:
    edit(data, change)
    complaint = fails(3)
    for word in words:
        assert word in complaint


def test_a_patient_is_not_named(data: Path, fails: Callable[..., str]) -> None:
    edit(data, lambda table: table.replace({"patient": {"p0": "Jane Doe"}}))
    edit(data, put(0, "split", "test"))
    assert "Jane" not in fails(3)


@pytest.mark.parametrize("damage", ["truncated", "not a picture"])
def test_damaged_films_are_put_aside_or_an_error(data: Path, fails: Callable[..., str], damage: str) -> None:
    film = data / "5.jpg"
    film.write_bytes(film.read_bytes()[:200] if damage == "truncated" else b"hello")
    complaint = fails(3)
    assert "5.jpg" in complaint
    assert "max_bad_share" in complaint


def test_a_few_damaged_films_are_left_out(
    data: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "5.jpg").write_bytes(b"hello")
    arguments = ["data", "prepare", "--config", str(config), "--set", "data.max_bad_share=0.1", "--json"]
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert [bad["image"] for bad in found["unreadable"]] == ["5.jpg"]
    assert found["films"] == 60


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.imagesize=64", ["data.imagesize", "did you mean 'image_size'"]),
        ("teachr.optim.steps=2", ["teachr", "did you mean 'teacher'"]),
        ("data.image_size=large", ["data.image_size", "large"]),
        ("teacher.optim.lr=-1", ["teacher.optim.lr", "greater than 0"]),
        ("teacher.model.name=resnet19", ["resnet19", "resnet18"]),
        ("teacher.model.stochastic_depth=0.1", ["stochastic_depth", "vgg11"]),
        ("data.labels=[A,C]", ["labels.csv", "'C'"]),
        ("split.labelled_patients=400", ["400"]),
    ],
)
def test_wrong_settings(fails: Callable[..., str], override: str, words: list[str]) -> None:
    more = ["--set", "teacher.model.name=vgg11"] if "stochastic" in override else []
    complaint = fails(3 if "C]" in override or "400" in override else 2, "--set", override, *more)
    for word in words:
        assert word in complaint


def test_weights_that_cannot_be_downloaded(fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", "/nonexistent")
    complaint = fails(3, "--set", "teacher.model.name=resnet18", "--set", "teacher.model.weights=imagenet")
    assert "resnet18-" in complaint  # the file to bring
    assert "model.weights" in complaint


def test_weights_file_that_is_not_there(fails: Callable[..., str]) -> None:
    assert "nowhere.pth" in fails(3, "--set", "teacher.model.weights=nowhere.pth")


def test_existing_run_other_config_and_in_use(
    config: Path, tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["train-teacher", "--config", str(config), "-o", str(run), "-q", "--device", "cpu"]
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 0, capsys.readouterr().err
    kept = runs.file_hash(run / "gen-0" / "checkpoint" / "best" / "model.safetensors")

    complaint = fails(2)
    assert "--resume" in complaint
    assert "--overwrite" in complaint

    complaint = fails(2, "--resume", "--set", "teacher.optim.steps=3")
    assert "teacher.optim.steps: 2 there, 3 now" in complaint

    with (run / ".lock").open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.truncate(0)
        stream.write("4711")
        stream.flush()
        for way in ("--resume", "--overwrite"):
            complaint = fails(2, way)
            assert "in use by another process (pid 4711)" in complaint
    assert runs.file_hash(run / "gen-0" / "checkpoint" / "best" / "model.safetensors") == kept

    other = models.build(ModelConfig(), ("A", "Z"), 1, 32, seed=0)
    checkpoint.save(run / "gen-0" / "checkpoint" / "best", other, ModelConfig(), {"pos_weight": [1, 1]})
    with pytest.raises(SystemExit) as ending:
        main(["evaluate", str(run), "-q", "--device", "cpu"])
    complaint = capsys.readouterr().err
    assert ending.value.code == 3, complaint
    assert "A, Z" in complaint
    assert "A, B" in complaint


def test_a_mistyped_root_is_corrected_by_the_same_command(
    data: Path, config: Path, tmp_path: Path, fails: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nowhere" in fails(3, "--set", f"data.root={tmp_path / 'nowhere'}")
    with pytest.raises(SystemExit) as ending:
        main(["train-teacher", "--config", str(config), "-o", str(tmp_path / "run"), "-q", "--device", "cpu"])
    assert ending.value.code == 0, capsys.readouterr().err


def test_overwrite_leaves_what_is_not_ours(tmp_path: Path, fails: Callable[..., str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    assert "was not made by noisy_student" in fails(2, "--overwrite")
    assert "not empty" in fails(2)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_overwrite_follows_no_link(tmp_path: Path, fails: Callable[..., str]) -> None:
    elsewhere = tmp_path / "elsewhere"
    runs.Run(elsewhere).create()
    (tmp_path / "run").symlink_to(elsewhere)
    assert "symbolic link" in fails(2, "--overwrite")
    assert (elsewhere / runs.MARKER).exists()


def test_full_disk(fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "fsync_file", full)
    complaint = fails(1)
    assert "disk is full" in complaint
    assert "--resume" in complaint
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_loss_that_is_not_finite(fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complaint = fails(
        4, "--set", "teacher.optim.lr=1e30", "--set", "teacher.optim.steps=12", "--set", "teacher.optim.save_every=1"
    )
    assert "generation 0" in complaint
    assert "optim.lr" in complaint
    assert (tmp_path / "run" / "gen-0" / "checkpoint" / "last" / "resume.pt").exists()


@pytest.mark.parametrize("command", ["pseudo-label", "train-student", "evaluate", "report"])
def test_stages_without_what_they_need(
    config: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main([command, str(tmp_path / "nothing"), "-q"])
    assert ending.value.code == 2
    assert "not a run of noisy_student" in capsys.readouterr().err


def test_errors_are_json_where_asked(fails: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["iterate", "--set", "sead=1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 2
    assert "did you mean 'seed'" in found["error"]


def test_a_misspelt_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["itterate"])
    assert ending.value.code == 2
    assert "Did you mean 'iterate'?" in capsys.readouterr().err
