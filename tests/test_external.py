"""External validation: the same figures as the run's own where the data is the same, and labels matched by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score
from small_runs import write_config

import noisy_student
from noisy_student import external, generations, preparation
from noisy_student.cli import cli
from noisy_student.config import Config, DataConfig, SyntheticConfig
from noisy_student.config.load import load
from noisy_student.data import synthetic
from noisy_student.errors import ConfigError, DataError, UsageError
from noisy_student.reporting.report import choose_best
from noisy_student.runs import Run, read_json, write_json
from noisy_student.workplace import Workplace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("external")


@pytest.fixture(scope="module")
def work(folder: Path) -> Workplace:
    """A measured teacher on synthetic films; no student."""
    config = load(write_config(folder), ["pretrain.method=none", f"data.cache_dir={folder / 'cache'}"])
    run = generations.open_run(folder / "run", config, resume=False, overwrite=False)
    workplace = Workplace(run, config, preparation.prepare(run, config), "cpu")
    generations.train_teacher(workplace)
    generations.evaluate(workplace)
    return workplace


@pytest.fixture(scope="module")
def elsewhere(folder: Path, work: Workplace) -> Path:
    """The synthetic test films as a data set of its own, with NIH's name for effusion and a label the model lacks."""
    root = preparation.data_root(work.config.data)
    table = pd.read_csv(root / "test.csv")
    relative = table["Path"].str.removeprefix("CheXpert-v1.0-small/")
    frame = pd.DataFrame(
        {
            "image": relative,
            "patient": relative.str.extract(r"(patient\d+)")[0],
            "Effusion": table["Pleural Effusion"].astype(int),
            "Hernia": 0,
        }
    )
    frame["split"] = np.where(frame["patient"].isin(sorted(frame["patient"].unique())[:20]), "test", "train")
    frame.to_csv(root / "other.csv", index=False)
    path = folder / "other.yaml"
    path.write_text(
        f"data: {{source: csv, root: {root}, csv: other.csv, labels: [Effusion, Hernia], "
        f"cache_dir: {folder / 'cache'}}}\n"
        "split: {labelled_patients: 2, validation: carve}\n"
    )
    return path


def test_on_the_same_films_it_says_what_the_run_says(work: Workplace) -> None:
    found = external.evaluate(work, work.config, 0)
    own = read_json(work.run.generation(0) / "evaluation.json")["splits"]["test"]
    for level in ("image", "study"):
        for label in work.config.data.labels:
            theirs, ours = found["splits"]["test"][level]["labels"][label], own[level]["labels"][label]
            assert theirs["auroc"] == pytest.approx(ours["auroc"], abs=1e-6)
            assert theirs["ci"] == pytest.approx(ours["ci"], abs=1e-6)
            assert theirs["positives"] == ours["positives"]
    assert found["only_model"] == found["only_data"] == []


def test_labels_are_matched_by_what_they_mean(work: Workplace, elsewhere: Path) -> None:
    other = load(elsewhere)
    found = external.evaluate(work, other, 0)
    assert found["compared"] == [{"model": "Pleural Effusion", "data": "Effusion"}]
    assert found["only_model"] == ["Cardiomegaly", "Support Devices"]
    assert found["only_data"] == ["Hernia"]
    frame = pd.read_csv(other.data.root / "other.csv") if other.data.root else pd.DataFrame()
    test = frame[frame["split"] == "test"]
    stored = pd.read_parquet(work.run.generation(0) / "predictions" / "test.parquet").set_index("image")
    scores = stored.loc[test["image"], "Pleural Effusion"]
    measured = found["splits"]["test"]["image"]
    assert measured["n"] == len(test)
    # One increasing map calibrates a label, so the area of the logits is that of the probabilities.
    assert measured["labels"]["Pleural Effusion"]["auroc"] == pytest.approx(
        roc_auc_score(test["Effusion"], scores), abs=1e-6
    )


def test_the_runs_thresholds_and_raw_logits_are_measured_too(work: Workplace, elsewhere: Path) -> None:
    found = external.evaluate(work, load(elsewhere), 0)
    own = read_json(work.run.generation(0) / "evaluation.json")["splits"]["test"]
    for level in ("image", "study"):
        (entry,) = found["splits"]["test"][level]["labels"].values()
        theirs = own[level]["labels"]["Pleural Effusion"]
        for kind, point in theirs["operating_points"].items():
            there = entry["operating_points"][kind]
            assert (there["threshold"], there["chosen_on"]) == (point["threshold"], "validation")
            assert there["tp"] + there["fn"] == entry["positives"]
        assert entry["before"]["brier"] != entry["brier"]
    assert found["subgroups"] is None  # the table names neither sex nor age, view or site
    same = external.evaluate(work, work.config, 0)
    ours = read_json(work.run.generation(0) / "evaluation.json")["subgroups"]
    assert set(same["subgroups"]["columns"]) == set(ours["columns"]) == {"sex", "age", "view", "projection"}
    for column, theirs in ours["columns"].items():
        groups = same["subgroups"]["columns"][column]["groups"]
        assert [group["n"] for group in groups] == [group["n"] for group in theirs["groups"]]


def test_films_are_seen_at_the_size_the_model_was_trained_at(work: Workplace, elsewhere: Path) -> None:
    at_its_own = external.evaluate(work, load(elsewhere, ["data.image_size=96"]), 0)
    assert at_its_own == external.evaluate(work, load(elsewhere), 0)


def rewritten(
    elsewhere: Path, change: Callable[[pd.DataFrame], pd.DataFrame], *more: str, **columns: str | None
) -> Config:
    """The other data set with another table, and the default split unless ``more`` says otherwise."""
    data = load(elsewhere).data
    assert data.root is not None
    change(pd.read_csv(data.root / "other.csv")).to_csv(data.root / "changed.csv", index=False)
    data = data.model_copy(update={"csv": "changed.csv", "columns": data.columns.model_copy(update=columns)})
    return load(None, more).model_copy(update={"data": data})


def at(data: DataConfig, root: Path) -> DataConfig:
    return data.model_copy(update={"root": root})


def as_copy(config: Config, folder: Path) -> Config:
    """The data set at another place."""
    assert config.data.root is not None
    shutil.copytree(config.data.root, folder)
    return config.model_copy(update={"data": config.data.model_copy(update={"root": folder})})


@pytest.mark.parametrize("more", [(), ("split.fractions=[0,0,1]",)], ids=["defaults", "fractions"])
def test_a_table_with_test_films_alone_is_measured(work: Workplace, elsewhere: Path, more: tuple[str, ...]) -> None:
    config = rewritten(elsewhere, lambda frame: frame[frame["split"] == "test"], *more)
    assert external.evaluate(work, config, 0) == external.evaluate(work, load(elsewhere), 0)


def test_without_a_split_every_film_is_measured_and_every_study_counted(work: Workplace, elsewhere: Path) -> None:
    def unsplit(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.drop(columns="split").assign(visit=frame["image"].str.extract(r"(patient\d+/study\d+)")[0])

    config = rewritten(elsewhere, unsplit, split=None, study="visit")
    found = external.evaluate(work, config, 0)["splits"]["test"]
    assert config.data.root is not None
    table = pd.read_csv(config.data.root / "changed.csv")
    stored = pd.read_parquet(work.run.generation(0) / "predictions" / "test.parquet").set_index("image")
    assert found["image"]["n"] == len(table) == len(stored)
    assert found["study"]["n"] == table["visit"].nunique() < len(table)
    assert found["image"]["patients"] == found["study"]["patients"] == table["patient"].nunique()
    assert found["image"]["labels"]["Pleural Effusion"]["auroc"] == pytest.approx(
        roc_auc_score(table["Effusion"], stored.loc[table["image"], "Pleural Effusion"]), abs=1e-6
    )


def test_sites_dates_and_a_split_file_say_which_films_are_measured(
    work: Workplace, elsewhere: Path, tmp_path: Path
) -> None:
    def sited(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(site=np.where(frame["split"] == "test", "B", "A")).drop(columns="split")

    config = rewritten(elsewhere, sited, "split.sites={test: [B]}", split=None, site="site")
    expected = external.evaluate(work, load(elsewhere), 0)
    by_site = external.evaluate(work, config, 0)
    assert by_site.pop("subgroups")["columns"]["site"]["groups"][0]["n"] == expected["splits"]["test"]["image"]["n"]
    assert by_site == {key: value for key, value in expected.items() if key != "subgroups"}
    preparation.write_splits(load(elsewhere), [0], tmp_path / "split.parquet")
    assert external.evaluate(work, load(elsewhere, [f"split.file={tmp_path / 'split.parquet'}"]), 0) == expected


def test_patients_of_the_runs_own_training_are_left_out(work: Workplace, folder: Path) -> None:
    root = preparation.data_root(work.config.data)
    tables = [pd.read_csv(root / f"{split}.csv") for split in ("train", "valid", "test")]
    whole = pd.concat(tables)
    image = whole["Path"].str.removeprefix("CheXpert-v1.0-small/")
    patient = image.str.extract(r"(patient\d+)")[0]
    pd.DataFrame({"image": image, "patient": patient, "Effusion": whole["Pleural Effusion"]}).to_csv(
        root / "whole.csv", index=False
    )
    given = ["data.source=csv", "data.csv=whole.csv", "data.labels=[Effusion]", f"data.cache_dir={folder / 'cache'}"]
    given += ["data.columns.split=null"]
    inside = external.evaluate(work, load(None, [*given, f"data.root={root}"]), 0)["splits"]["test"]["image"]
    assert inside["n"] == len(tables[2])
    assert inside["patients"] == tables[2]["Path"].str.extract(r"(patient\d+)")[0].nunique()
    # Another film of a patient, in a table that calls those of films that both have the same, and one that does not.
    table = pd.read_csv(root / "whole.csv")
    first = table[table["Effusion"].notna()].iloc[[0]]
    shutil.copy(root / first["image"].item(), root / "other.jpg")
    more = pd.concat([first.assign(image="other.jpg"), table.tail(len(tables[2]))])
    others = np.where(more["image"] == "other.jpg", more["patient"], "x" + more["patient"])
    for name, frame in {"more": more, "renamed": more.assign(patient=others)}.items():
        frame.to_csv(root / f"{name}.csv", index=False)
        found = external.opened(work, load(None, [*given, f"data.root={root}", f"data.csv={name}.csv"]), 0)
        assert ("other.jpg" in found.films.frame["image"].tolist()) == (name == "renamed")
    elsewhere = as_copy(load(None, [*given, f"data.root={root}"]), folder / "copy")
    assert external.evaluate(work, elsewhere, 0)["splits"]["test"]["image"] == inside  # a copy has the same patients
    # Without the run's own films nothing can be compared: the same path and patient are enough.
    gone = replace(work, config=work.config.model_copy(update={"data": at(work.config.data, folder / "gone")}))
    assert len(external.opened(gone, elsewhere, 0).films) == len(tables[2])
    # Other patients, or other films under the same names: another data set.
    assert elsewhere.data.root is not None
    pd.read_csv(elsewhere.data.root / "whole.csv").assign(patient=lambda frame: "x" + frame["patient"]).to_csv(
        elsewhere.data.root / "renamed.csv", index=False
    )
    renamed = load(None, [*given, f"data.root={elsewhere.data.root}", "data.csv=renamed.csv"])
    assert len(external.opened(work, renamed, 0).films) == whole["Pleural Effusion"].notna().sum() > len(tables[2])
    alike = SyntheticConfig(train_patients=40, valid_patients=30, test_patients=30, size=32, seed=77)
    synthetic.write_dataset(folder / "alike", alike, progress=False)
    others = load(None, ["data.source=chexpert", f"data.root={folder / 'alike'}", "data.labels=[Pleural Effusion]"])
    others = others.model_copy(update={"data": others.data.model_copy(update={"cache_dir": folder / "cache"})})
    found = external.opened(work, others, 0, own_test=False).films.frame
    own = pd.read_parquet(work.run.manifest)
    assert len(found) == len(pd.read_csv(folder / "alike" / "test.csv"))
    assert found["image"].isin(own["image"]).any()
    pd.read_csv(root / "whole.csv").iloc[:5].to_csv(root / "seen.csv", index=False)
    with pytest.raises(DataError, match="was trained on or validated with all of the test films"):
        external.evaluate(work, load(None, [*given, f"data.root={root}", "data.csv=seen.csv"]), 0)


def test_the_window_is_the_other_data_sets_else_the_runs(
    work: Workplace, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def opened(config: DataConfig, **how: Any) -> preparation.Source:
        seen.append(config.window)
        raise DataError("far enough", "")

    monkeypatch.setattr(preparation, "open_source", opened)
    data = work.config.data.model_copy(update={"window": (1.0, 99.0)})
    narrow = replace(work, config=work.config.model_copy(update={"data": data}))
    for run, more in ((work, []), (narrow, []), (narrow, ["data.window=[2,98]"]), (work, ["data.window=[2,98]"])):
        with pytest.raises(DataError, match="far enough"):
            external.evaluate(run, load(elsewhere, more), 0)
    assert seen == [None, (1.0, 99.0), (2.0, 98.0), (2.0, 98.0)]


def test_nothing_in_common_is_an_error(work: Workplace, elsewhere: Path) -> None:
    with pytest.raises(DataError, match="no label in common") as caught:
        external.evaluate(work, load(elsewhere, ["data.labels=[Hernia]"]), 0)
    assert "Hernia" in caught.value.hint
    assert "Cardiomegaly" in caught.value.hint


def test_a_generation_that_is_not_there_is_an_error(work: Workplace) -> None:
    with pytest.raises(UsageError, match="generation 4 is not trained"):
        external.evaluate(work, work.config, 4)


def test_the_best_generation_is_the_reports_or_the_last_calibrated(work: Workplace, tmp_path: Path) -> None:
    assert external.chosen_generation(work.run) == 0
    empty = Run(tmp_path / "run")
    empty.create()
    with pytest.raises(UsageError, match="nothing has been trained"):
        external.chosen_generation(empty)
    (tmp_path / "run" / "report.json").write_text('{"best": 3}')
    assert external.chosen_generation(empty) == 3


@pytest.mark.parametrize(
    ("rule", "verdicts", "best"),
    [
        ("bound", ("first", "worse"), 0),
        ("bound", ("first", "undecided", "worse"), 1),
        ("bound", ("first", "worse", "better"), 2),
        ("bound", ("first", None), 0),
        ("bound", (None, None), 1),
        ("always", ("first", "worse"), 1),
    ],
)
@pytest.mark.parametrize("report", [None, 0, 1])
def test_the_best_generation_is_that_of_the_decisions_whatever_an_old_report_says(
    tmp_path: Path, rule: str, verdicts: tuple[str | None, ...], best: int, report: int | None
) -> None:
    run = Run(tmp_path / "run")
    run.create()
    write_json(run.path / "config.resolved.json", {"promotion": {"rule": rule}})
    for number, verdict in enumerate(verdicts):
        run.record("calibrate", number, [], [], {})
        if verdict is not None:
            write_json(run.generation(number) / "promotion.json", {"verdict": verdict})
    judged = any(verdicts)
    if report is not None:
        write_json(run.path / "report.json", {"best": report})
    assert external.chosen_generation(run) == (best if judged or report is None else report)
    assert external.chosen_generation(run, 7) == 7
    if judged:
        entries = [{"index": number, "verdict": verdict} for number, verdict in enumerate(verdicts)]
        assert choose_best(entries, rule)[0] == best


@pytest.mark.parametrize("command", ["evaluate", "recalibrate"])
@pytest.mark.parametrize(
    "override", ["evaluation.confidence=0.9", "evaluation.level=study", "seed=4", "targets.uncertain=zeros"]
)
def test_settings_that_are_not_about_the_other_data_set_are_refused(
    work: Workplace, elsewhere: Path, command: str, override: str
) -> None:
    given = [
        command,
        str(work.run.path),
        "--config",
        str(elsewhere),
        "--device",
        "cpu",
        "--set",
        "targets.blank=ignore",
    ]
    refused = CliRunner().invoke(cli, [*given, "--set", override])
    assert isinstance(refused.exception, ConfigError)
    assert refused.exception.exit_code == 2
    assert refused.exception.message.startswith(f"--set {override}: does nothing where a run meets another data set")
    with pytest.raises(ConfigError, match="does nothing"):
        noisy_student.evaluate(work.run.path, elsewhere, overrides=[override], device="cpu")


def test_the_command_prints_what_was_compared_and_keeps_it(work: Workplace, elsewhere: Path) -> None:
    run = work.run.path
    shown = CliRunner().invoke(cli, ["evaluate", str(run), "--config", str(elsewhere), "-q", "--device", "cpu"])
    assert shown.exit_code == 0, shown.output
    assert "AUROC over 1 shared labels" not in shown.output
    assert "AUROC over 1 shared label " in shown.output
    assert "Pleural Effusion (Effusion)" in shown.output
    assert "only in the model: Cardiomegaly, Support Devices" in shown.output
    arguments = ["evaluate", str(run), "--config", str(elsewhere), "--generation", "0", "--json", "--device", "cpu"]
    printed = json.loads(CliRunner().invoke(cli, arguments).stdout)
    assert printed == read_json(run / "external" / "other-gen-0.json")
    alone = CliRunner().invoke(cli, ["evaluate", str(run), "--generation", "0"])
    assert alone.exit_code == 2
    assert "--generation goes with --config" in alone.output
