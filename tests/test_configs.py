from __future__ import annotations

from pathlib import Path

import pytest

from noisy_student.cli import main
from noisy_student.config.load import config_hash, load, to_yaml

FOLDER = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(FOLDER.glob("*.yaml"))


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["iterate", "--dry-run", *arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_there_are_configs_and_nothing_else_beside_them() -> None:
    assert {path.stem for path in SHIPPED} >= {
        *("demo", "kermany160", "chexpert", "chexpert-1pct", "chexpert-densenet121-320", "nih14", "mimic"),
        *("kermany-folder", "histology", "dicom-folder", "table"),
    }
    assert sorted(FOLDER.iterdir()) == SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_loads_and_says_how_to_run_it(path: Path, tmp_path: Path) -> None:
    config = load(path)
    (tmp_path / "again.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load(tmp_path / "again.yaml") == config
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"ns iterate --config configs/{path.name}" in line for line in head)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_dry_run_needs_no_data_and_writes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NS_CACHE", str(tmp_path / "cache"))
    code, out, err = dry_run(capsys, "--config", str(path), "--rounds", "2")
    assert (code, err) == (0, "")
    assert config_hash(load(path)) in out
    assert "3 (a teacher and 2 students)" in out
    assert "unknown: the data set" in out
    assert list(tmp_path.iterdir()) == []


def test_without_a_config_the_dry_run_is_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NS_CACHE", str(tmp_path / "cache"))
    code, out, _ = dry_run(capsys)
    assert code == 0
    assert config_hash(load(FOLDER / "demo.yaml")) in out


def test_the_films_of_kermany_are_there_and_in_the_table(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = real_data / "kermany160"
    if not root.is_dir():
        pytest.skip(f"no real films at {root}; set NS_REAL_DATA")
    monkeypatch.chdir(tmp_path)
    code, out, err = dry_run(capsys, "--config", str(FOLDER / "kermany160.yaml"), "--set", f"data.root={root}")
    assert (code, err) == (0, "")
    assert "labelled       52 films of" in " ".join(out.split("\n"))
    assert "valid          52 films of" in " ".join(out.split("\n"))
    assert list(tmp_path.iterdir()) == []


def ends(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["iterate", "--dry-run", *(word for override in overrides for word in ("--set", override))])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.source=nhi", ["data.source: ", "did you mean 'nih'?"]),
        ("split.sites={tset: [A]}", ["split.sites.tset: ", "did you mean 'test'?"]),
        ("split.valid_images=many", ["split.valid_images: ", "'labelled'"]),
        ("data.labels=Edema", ["data.labels: ", "a list, such as [A, B]"]),
        ("targets.uncertain_by_label={Edema: one}", ["targets.uncertain_by_label.Edema: ", "did you mean 'ones'?"]),
        ("data.folders.patent=x", ["'data.folders.patent'; did you mean 'patient'?"]),
    ],
)
def test_a_wrong_value_of_the_data_side_names_the_key_and_what_there_is(
    override: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    complaint = ends(capsys, override)
    for word in words:
        assert word in complaint
    assert "[key]" not in complaint
    assert ".int" not in complaint


@pytest.mark.parametrize(
    ("given", "stored"), [("2017", "2017"), ("2017-05-31", "2017-05-31"), ("'2017-05'", "2017-05")]
)
def test_dates_are_read_however_yaml_takes_them(given: str, stored: str) -> None:
    assert load(None, [f"split.dates={{test: {given}}}"]).split.dates == {"test": stored}
