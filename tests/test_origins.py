"""Start weights on disk: which model a run stands for, and warnings of weights that have seen the labels before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import write_config

from noisy_student import origins
from noisy_student.cli import main
from noisy_student.config import Config
from noisy_student.config.load import load, resolved
from noisy_student.data import manifest, split_files
from noisy_student.data.manifest import Manifest
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.reporting.report import _model
from noisy_student.runs import Run, read_json, write_json

as_a_user_sees_them = pytest.mark.filterwarnings("default::noisy_student.errors.ConfigWarning")


def config(*overrides: str) -> Config:
    return load(None, overrides)


NIH = ("data={source: nih, root: /films/nih}",)


def finished(
    path: Path,
    made_with: Config,
    *,
    best: int | None = 0,
    seen: tuple[str, ...] = (),
    cautions: tuple[str, ...] = (),
    networks: tuple[str, ...] = ("gen-0", "gen-1/fold-0", "gen-1/fold-1", "pretrain"),
) -> Path:
    """Write what a finished run leaves: two generations, the second of two networks, unless ``networks`` says else."""
    Run(path).create()
    write_json(path / "config.resolved.json", resolved(made_with))
    for number, folder in enumerate(networks):
        model = path / folder / "checkpoint" / "best"
        meta: dict[str, Any] = {"format": 1, "generation": -1 if folder == "pretrain" else min(number, 1)}
        history = {"labels_seen": list(seen), "cautions": list(cautions)}
        write_json(model / "meta.json", meta | {key: value for key, value in history.items() if value})
        (model / "model.safetensors").write_bytes(b"")
    if best is not None:
        write_json(path / "report.json", {"best": best})
    return path


def test_a_name_stands_for_a_run_a_generation_a_network_or_a_file(tmp_path: Path) -> None:
    run = finished(tmp_path / "runs" / "films", config(*NIH), best=1)
    (tmp_path / "w.pth").write_bytes(b"")
    first, second = run / "gen-0" / "checkpoint" / "best", run / "gen-1" / "fold-0" / "checkpoint" / "best"
    found = {
        "runs/films": second,
        "runs/films/gen-0": first,
        "runs/films/gen-0/checkpoint/best": first,
        "runs/films/gen-0/checkpoint/best/model.safetensors": first,
        "runs/films/gen-1/fold-1": run / "gen-1" / "fold-1" / "checkpoint" / "best",
        "w.pth": tmp_path / "w.pth",
        str(run / "gen-1"): second,
    }
    for name, expected in found.items():
        assert origins.find(name, [tmp_path / "empty", tmp_path]) == expected, name
    assert origins.name_of(second) == "run films, gen-1, fold-0"
    assert origins.name_of(first) == "run films, gen-0"


def test_of_a_generation_with_a_refit_that_is_taken(tmp_path: Path) -> None:
    run = finished(tmp_path / "films", config(*NIH), networks=("gen-0/fold-0", "gen-0/fold-1", "gen-0/refit"))
    speaks = run / "gen-0" / "refit" / "checkpoint" / "best"
    assert origins.find("films", [tmp_path]) == origins.find("films/gen-0", [tmp_path]) == speaks


def test_of_a_generation_with_members_the_first_is_taken(tmp_path: Path) -> None:
    run = finished(tmp_path / "films", config(*NIH), networks=("gen-0/member-0", "gen-0/member-1"))
    first = run / "gen-0" / "member-0" / "checkpoint" / "best"
    assert origins.find("films", [tmp_path]) == origins.find("films/gen-0", [tmp_path]) == first
    assert origins.find("films/gen-0/member-1", [tmp_path]) == run / "gen-0" / "member-1" / "checkpoint" / "best"
    assert origins.name_of(first) == "run films, gen-0, member-0"
    assert origins.labels_seen("films", [tmp_path]) == ("nih",)


def test_of_a_run_its_decisions_name_the_generation_whatever_an_old_report_says(tmp_path: Path) -> None:
    run = finished(tmp_path / "films", config(*NIH), best=0)
    for number, verdict in enumerate(("first", "better")):
        write_json(run / f"gen-{number}" / "promotion.json", {"verdict": verdict})
    assert origins.find("films", [tmp_path]) == run / "gen-1" / "fold-0" / "checkpoint" / "best"


def test_a_run_without_a_report_asks_for_a_generation(tmp_path: Path) -> None:
    run = finished(tmp_path / "films", config(*NIH), best=None)
    with pytest.raises(WeightsError, match=r"has no report\.json") as error:
        origins.find("films", [tmp_path])
    assert f"{run}/gen-0, {run}/gen-1" in error.value.hint


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    with pytest.raises(WeightsError, match="is a folder without a trained model"):
        origins.find("films", [tmp_path])


@pytest.mark.parametrize(
    ("weights", "given", "seen"),
    [
        ("none", NIH, None),
        ("imagenet", NIH, None),
        ("xrv:densenet121-res224-nih", NIH, "nih"),
        ("xrv:densenet121-res224-rsna", NIH, "nih"),  # RSNA's films are NIH's
        ("xrv:densenet121-res224-chex", NIH, None),
        ("xrv:densenet121-res224-chex", ("data={source: chexpert_plus, root: /films}",), "chexpert"),
        ("xrv:resnet50-res512-all", ("data={source: vindr, root: /films}",), "vindr"),
        ("xrv:resnet50-res512-all", ("data={source: mimic, root: /films}",), None),
    ],
)
def test_weights_by_name_have_seen_the_collections_they_were_trained_on(
    weights: str, given: tuple[str, ...], seen: str | None
) -> None:
    sentence = origins.caution(config(*given), weights, [])
    if seen is None:
        assert sentence is None
    else:
        assert sentence == f"{weights} was trained on {seen}: it may have seen labels of the pool and the test films"


def test_a_run_on_the_same_films_is_warned_of_unless_its_split_is_the_same(tmp_path: Path) -> None:
    here = config(*NIH, "split.labelled_patients=50")
    finished(tmp_path / "other", config("data={source: nih, root: /elsewhere}", "split.seed=1"))
    finished(tmp_path / "same", config(*NIH, "split.labelled_patients=50", "data.image_size=32", "seed=5"))
    finished(tmp_path / "chexpert", config("data={source: chexpert, root: /films/c}"))
    finished(tmp_path / "second", config("data={source: chexpert, root: /films/c}"), seen=("nih",))
    assert origins.caution(here, "same", [tmp_path]) is None
    assert origins.caution(here, "chexpert", [tmp_path]) is None
    assert origins.caution(here, "other", [tmp_path]) == (
        "other was trained on another split of this run's data set: "
        "it may have seen labels of the pool and the test films"
    )
    # Its own start weights had seen them, two runs ago.
    assert "second was trained on nih" in str(origins.caution(here, "second", [tmp_path]))
    assert origins.labels_seen("second", [tmp_path]) == ("chexpert", "nih")
    assert origins.labels_seen("other/pretrain", [tmp_path]) == ()  # a self-supervised start sees no labels
    assert origins.caution(here, "other/pretrain", [tmp_path]) is None
    # Of the same split, from weights that had seen another.
    sentence = "other was trained on another split of this run's data set"
    finished(tmp_path / "third", config(*NIH, "split.labelled_patients=50"), seen=("nih",), cautions=(sentence,))
    assert origins.caution(here, "third", [tmp_path]) == sentence


def test_a_run_of_a_split_file_that_was_written_anew_is_warned_of(tmp_path: Path) -> None:
    films = Manifest(pd.DataFrame({"image": ["a", "b"], "split": ["train", "test"], "labelled": [True, False]}), ())
    split = tmp_path / "split.parquet"
    split_files.write(films, {"hash": split_files.digest(films)}, split)
    here = config(*NIH, f"split.file={split}")
    finished(tmp_path / "before", here)
    write_json(tmp_path / "before" / "split.json", {"file_hash": split_files.digest(films)})
    assert origins.caution(here, "before", [tmp_path]) is None
    other = manifest.replace(films, split=np.array(["test", "train"], dtype=object))
    split_files.write(other, {"hash": split_files.digest(other)}, split)
    assert "before was trained on another split" in str(origins.caution(here, "before", [tmp_path]))


def test_a_run_of_the_same_split_is_refused_where_either_is_cross_fitted(tmp_path: Path) -> None:
    alone, folded = ((*NIH, "split.labelled_patients=50", f"folds={folds}") for folds in (1, 2))
    folded = (*folded, "teacher.optim.select=last", "student.optim.select=last")
    finished(tmp_path / "alone", config(*alone))
    finished(tmp_path / "folded", config(*folded))
    assert origins.caution(config(*alone), "alone", [tmp_path]) is None
    for weights, here, why, fix in (
        ("alone", folded, "the labelled films taught it, and with folds: 2 they judge too", "Set folds to 1"),
        ("folded/gen-1/fold-1", alone, r"it was cross-fitted \(folds: 2\), so the validation films", "with folds: 1"),
        ("folded", folded, r"it was cross-fitted \(folds: 2\), so the validation films", "with folds: 1"),
    ):
        with pytest.raises(ConfigError, match=f"model.weights: {weights} knows labels of films .* and {why}") as error:
            origins.caution(config(*here), weights, [tmp_path])
        assert fix in error.value.hint
    # Without labels there is nothing to know; another split is warned of, and other films are other films.
    assert origins.caution(config(*alone), "folded/pretrain", [tmp_path]) is None
    assert "another split" in str(origins.caution(config(*folded, "split.seed=4"), "alone", [tmp_path]))
    assert origins.caution(config("data={source: chexpert, root: /films}"), "folded", [tmp_path]) is None


def test_own_tables_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    table = "data={{source: csv, root: {}, labels: [A]}}"
    finished(tmp_path / "run", config(table.format("/films/clinic"), "split.seed=3"))
    assert origins.caution(config(table.format("/copies/clinic")), "run", [tmp_path]) is not None
    assert origins.caution(config(table.format("/films/other")), "run", [tmp_path]) is None


def test_synthetic_films_are_the_same_where_their_settings_are(tmp_path: Path) -> None:
    finished(tmp_path / "run", config("split.seed=3"))
    assert origins.caution(config(), "run", [tmp_path]) is not None
    assert origins.caution(config("data.synthetic.seed=9"), "run", [tmp_path]) is None


def test_the_report_names_the_origin_and_the_caution() -> None:
    meta = {"model": {"name": "densenet121"}, "origin": "run films, gen-0", "cautions": ["films was trained on nih"]}
    assert _model([meta])["origin"] == "run films, gen-0; films was trained on nih"
    assert _model([{"origin": "none"}])["origin"] == "none"


@as_a_user_sees_them
def test_a_run_that_starts_from_another_says_so_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = str(write_config(tmp_path))
    settings = ("pretrain.method=none", "teacher.optim={steps: 2, phases: [{}], batch_size: 8}")

    def ns(command: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([command, *arguments, "--device", "cpu", "-q"])
        assert ended.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().err

    def given(*more: str) -> list[str]:
        return [part for text in (*settings, *more) for part in ("--set", text)]

    # In-domain transfer: other films, labels shared by name.
    labels = "data.labels=[Edema, Cardiomegaly, Support Devices]"
    said = ns("train-teacher", "--config", tiny, "-o", "runs/first", *given(labels, "data.synthetic.seed=5"))
    assert said == ""
    said = ns("train-teacher", "--config", tiny, "-o", "runs/second", *given("teacher.model.weights=runs/first/gen-0"))
    assert said == ""
    meta = read_json(tmp_path / "runs/second/gen-0/checkpoint/best/meta.json")
    assert meta["origin"].startswith("run first, gen-0, sha256 ")
    assert meta["origin"].endswith(", classifier of Cardiomegaly, Support Devices")
    assert meta["labels_seen"] == ["synthetic"]
    assert "cautions" not in meta
    # The same films, another labelled set: the weights know labels that this run's pool is not to know.
    same = given("teacher.model.weights=runs/second/gen-0", "split.seed=8")
    said = ns("train-teacher", "--config", tiny, "-o", "runs/third", *same)
    assert said.startswith("ns: warning: gen-0 was trained on another split of this run's data set: it may have seen")
    meta = read_json(tmp_path / "runs/third/gen-0/checkpoint/best/meta.json")
    assert meta["cautions"] == [
        "gen-0 was trained on another split of this run's data set: "
        "it may have seen labels of the pool and the test films"
    ]
    # The same films and the same labelled set, whose films are to judge now: refused before anything is made.
    crossed = given("teacher.model.weights=runs/second/gen-0", "folds=2")
    with pytest.raises(SystemExit) as ended:
        main(["train-teacher", "--config", tiny, "-o", "runs/fourth", *crossed, "--device", "cpu", "-q"])
    assert ended.value.code == 2
    assert "teacher.model.weights: runs/second/gen-0 knows labels of films that judge this run" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "runs" / "fourth").exists()
    # What the teacher has seen reaches its students, whatever they start from.
    third = tmp_path / "runs/third/gen-0/checkpoint/best"
    own = config("student.start=weights")
    assert origins.history(own, own.student, None, [third], search=[])["cautions"] == meta["cautions"]
    assert origins.history(own, own.student, None, search=[]) == {}


@as_a_user_sees_them
def test_warnings_are_sentences_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    xrv = (
        "teacher.model.name=densenet121",
        "teacher.model.weights=xrv:densenet121-res224-nih",
        "student.start=weights",
    )
    arguments = [part for text in (*NIH, *xrv) for part in ("--set", text)]
    with pytest.raises(SystemExit) as ended:
        main(["iterate", "--dry-run", "--json", "--rounds", "0", *arguments])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    assert captured.err.strip() == (
        "ns: warning: xrv:densenet121-res224-nih was trained on nih: "
        "it may have seen labels of the pool and the test films"
    )
    assert json.loads(captured.out)["teacher"] == "densenet121 from xrv:densenet121-res224-nih"
