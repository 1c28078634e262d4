"""External validation: the same figures as the run's own where the data is the same, and labels matched by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score
from small_runs import write_config

from noisy_student import external, generations, preparation
from noisy_student.cli import cli
from noisy_student.config.load import load
from noisy_student.errors import DataError, UsageError
from noisy_student.runs import Run, read_json
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


def test_films_are_seen_at_the_size_the_model_was_trained_at(work: Workplace, elsewhere: Path) -> None:
    at_its_own = external.evaluate(work, load(elsewhere, ["data.image_size=96"]), 0)
    assert at_its_own == external.evaluate(work, load(elsewhere), 0)


def test_nothing_in_common_is_an_error(work: Workplace, elsewhere: Path) -> None:
    with pytest.raises(DataError, match="no label in common") as caught:
        external.evaluate(work, load(elsewhere, ["data.labels=[Hernia]"]), 0)
    assert "Hernia" in caught.value.hint
    assert "Cardiomegaly" in caught.value.hint


def test_a_generation_that_is_not_there_is_an_error(work: Workplace) -> None:
    with pytest.raises(UsageError, match="generation 4 is not trained"):
        external.evaluate(work, work.config, 4)


def test_the_best_generation_is_the_reports_or_the_last_calibrated(work: Workplace, tmp_path: Path) -> None:
    assert external.best_generation(work.run) == 0
    empty = Run(tmp_path / "run")
    empty.create()
    with pytest.raises(UsageError, match="nothing has been trained"):
        external.best_generation(empty)
    (tmp_path / "run" / "report.json").write_text('{"best": 3}')
    assert external.best_generation(empty) == 3


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
