from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from noisy_student import preparation
from noisy_student.config.load import load, resolved
from noisy_student.data import synthetic
from noisy_student.errors import ConfigError, DataError
from noisy_student.plan import describe
from noisy_student.runs import Run, write_json

TINY = (
    "data.labels=[Lung Opacity, Support Devices]",
    "data.image_size=32",
    "data.synthetic={train_patients: 24, valid_patients: 8, test_patients: 8, size: 32, seed: 12}",
    "split.labelled_patients=10",
    "teacher.optim={steps: 5, batch_size: 8}",
    "student.optim={steps: 7, batch_size: 10}",
)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_without_the_data_it_says_what_is_known_and_makes_nothing(tmp_path: Path) -> None:
    config = load(None, [*TINY, f"data.cache_dir={tmp_path / 'cache'}"])
    plan = describe(config, tmp_path / "run", rounds=3)
    assert plan["output"] == f"{tmp_path / 'run'} (new)"
    assert plan["films"] == "unknown: the data set is made when the run starts"
    assert plan["generations"] == "4 (a teacher and 3 students)"
    assert plan["steps"] == "26 in all, 250 films seen"  # 5 + 3 * 7 steps; 5 * 8 + 3 * 7 * 10 films
    assert plan["teacher"] == "small_resnet"
    assert files(tmp_path) == []


def test_a_clean_stretch_is_told(tmp_path: Path) -> None:
    phases = "student.optim.phases=[{trainable: all}, {steps: 5, films: labelled, noise: false}]"
    told = describe(load(None, [phases]), tmp_path / "run", 1)["phases"]
    assert "generation 1: all for the rest, then all on labelled films without noise 5 steps" in told


def test_phases_are_told_one_after_the_other(tmp_path: Path) -> None:
    given = [
        "teacher.model={name: resnet18, weights: imagenet}",
        "student.model.name=resnet18",
        "teacher.optim={phases: [{trainable: head, epochs: 2}, {trainable: 3, steps: 4}], batch_size: 8}",
        "student.optim.phases=[{trainable: head, steps: 3}, {}]",
        f"data.cache_dir={tmp_path / 'cache'}",
    ]
    config = load(None, [*TINY[:-2], *given])
    plan = describe(config, tmp_path / "run", rounds=1)
    assert plan["phases"] == (
        "generation 0: head 2 epochs, then head and 3 block(s) 4 steps; "
        "generation 1: head 3 steps, then all for the rest"
    )
    assert plan["steps"] == "depend on the films, which are not there yet (phases in epochs)"
    synthetic.write_dataset(preparation.data_root(config.data), config.data.synthetic)
    plan = describe(config, tmp_path / "run", rounds=0)
    films = int(plan["labelled"].split(" ")[0])
    steps = math.ceil(2 * films / 8) + 4
    assert plan["steps"] == f"{steps} in all, {steps * 8} films seen"
    assert "phases" not in describe(load(None, [*TINY]), tmp_path / "run", rounds=1)


def test_epochs_that_leave_no_steps_are_refused_once_the_films_are_there(tmp_path: Path) -> None:
    optim = "teacher.optim={steps: 5, phases: [{epochs: 9}, {}], batch_size: 8}"
    config = load(None, [*TINY[:-2], optim, f"data.cache_dir={tmp_path / 'cache'}"])
    assert describe(config, tmp_path / "run", rounds=0)["steps"] == "5 in all, 40 films seen"
    synthetic.write_dataset(preparation.data_root(config.data), config.data.synthetic)
    with pytest.raises(ConfigError, match=r"optim\.phases: take \d+ steps of 5 .* leave none for the one without"):
        describe(config, tmp_path / "run", rounds=0)


def test_a_run_with_epochs_that_leave_no_steps_for_a_student_ends_before_its_teacher(tmp_path: Path) -> None:
    optim = "student.optim={steps: 5, phases: [{epochs: 9}, {}], batch_size: 8}"
    config = load(None, [*TINY[:-2], optim, f"data.cache_dir={tmp_path / 'cache'}"])
    with pytest.raises(ConfigError, match=r"optim\.phases: take \d+ steps of 5 .* leave none for the one without"):
        preparation.prepare(Run(tmp_path / "run"), config)


def test_more_folds_than_patients_are_refused_once_the_films_are_there(tmp_path: Path) -> None:
    config = load(None, [*TINY, "folds=20", f"data.cache_dir={tmp_path / 'cache'}"])
    synthetic.write_dataset(preparation.data_root(config.data), config.data.synthetic)
    with pytest.raises(DataError, match=r"folds: 20 folds are asked for, and \d+ patients are labelled"):
        describe(config, tmp_path / "run", rounds=0)


def test_a_data_set_that_is_not_there_is_said(tmp_path: Path) -> None:
    for source in ("chexpert", "csv"):
        config = load(None, [f"data.source={source}", f"data.root={tmp_path / 'films'}"])
        plan = describe(config, tmp_path / "run", rounds=0)
        assert plan["films"] == "unknown: the data set is not there"
        assert plan["data"] == f"{source} at {tmp_path / 'films'}"


def test_start_weights_are_named(tmp_path: Path) -> None:
    given = [
        "teacher.model.name=densenet121",
        "teacher.model.weights=imagenet",
        "student.model.weights=mine.pth",
        "student.start=weights",
    ]
    plan = describe(load(None, given), tmp_path / "run", rounds=1)
    assert (plan["teacher"], plan["student"]) == ("densenet121 from ImageNet", "small_resnet from mine.pth")


def test_students_are_named_as_their_generations_are_trained(tmp_path: Path) -> None:
    def students(rounds: int, *overrides: str) -> str:
        return str(describe(load(None, overrides), tmp_path / "run", rounds)["student"])

    assert students(0) == "none"
    assert students(3) == "small_resnet from its teacher"
    mixed = [
        "student.start=weights",
        "generations={1: {start: teacher}, 2: {model: {name: resnet18, weights: imagenet}}}",
    ]
    assert students(1, *mixed) == "small_resnet from its teacher"
    assert students(3, *mixed) == ("small_resnet from its teacher (1); resnet18 from ImageNet (2); small_resnet (3)")
    other = [
        "folds=2",
        "teacher.refit={model: {name: resnet18}}",
        "student.refit={model: {name: resnet18}, start: weights}",
    ]
    assert students(1, *other) == "small_resnet from its teacher, and resnet18 on all folds"
    assert students(1, "folds=2", "teacher.refit={}", "student.refit={}").endswith("its teacher, and one on all folds")
    assert students(1, "pretrain.method=byol", "student.start=weights") == "small_resnet from the self-supervised start"


def test_generations_that_are_never_trained_are_named(tmp_path: Path) -> None:
    config = load(None, ["generations={5: {noise: {strength: 8}}, 4: {noise: {strength: 2}}, 1: {}}"])
    plan = describe(config, tmp_path / "run", rounds=3)
    assert plan["not_used"] == "generations.4, generations.5: the last generation is 3 (--rounds)"
    assert "not_used" not in describe(config, tmp_path / "run", rounds=5)


@pytest.fixture
def films(tmp_path: Path) -> Path:
    root = tmp_path / "films"
    synthetic.write_dataset(root, load(None, TINY).data.synthetic)
    return root


def test_with_the_data_it_counts_films_and_patients_without_reading_a_film(tmp_path: Path, films: Path) -> None:
    for film in films.rglob("*.jpg"):
        film.write_bytes(b"")
    before = files(tmp_path)
    config = load(None, [*TINY, f"data.root={films}", "data.source=chexpert", "data.channels=3"])
    plan = describe(config, tmp_path / "run", rounds=1)
    tables = [(films / f"{split}.csv").read_text().splitlines()[1:] for split in ("train", "valid", "test")]
    count = sum(len(table) for table in tables)
    assert plan["labelled"].endswith("of 10 patients")
    assert plan["pool"].endswith("of 14 patients")
    assert plan["valid"] == f"{len(tables[1])} films of 8 patients"
    assert plan["test"] == f"{len(tables[2])} films of 8 patients"
    assert plan["decoded_films"] == f"{count * 3 * 32 * 32 / 1e6:,.0f} MB on disk, as much in memory where they fit"
    assert "films" not in plan
    assert files(tmp_path) == before


def test_it_plans_with_the_labels_and_the_split_file_that_the_run_takes(tmp_path: Path, films: Path) -> None:
    """Parents filled from their children, and a split file that names a film or two too many."""
    table = pd.read_csv(films / "train.csv")
    table["Enlarged Cardiomediastinum"] = 0.0
    table["Cardiomegaly"] = [1.0, 0.0] * (len(table) // 2) + [0.0] * (len(table) % 2)
    table.to_csv(films / "train.csv", index=False)
    given = [*TINY[1:], f"data.root={films}", "data.source=chexpert"]
    given += ["data.labels=[Enlarged Cardiomediastinum, Cardiomegaly]", "targets.blank=zeros"]
    with pytest.raises(DataError, match="only negative targets"):
        describe(load(None, given), tmp_path / "run", rounds=1)
    given.append("targets.fill_parents=true")
    assert describe(load(None, given), tmp_path / "run", rounds=1)["labelled"].endswith("of 10 patients")
    preparation.write_splits(load(None, given), [0], tmp_path / "split.parquet")
    table.iloc[:-2].to_csv(films / "train.csv", index=False)
    fixed = [*given, f"split.file={tmp_path / 'split.parquet'}", "split.labelled_patients=null"]
    with pytest.raises(DataError, match="does not have"):
        describe(load(None, fixed), tmp_path / "run", rounds=1)
    assert describe(load(None, [*fixed, "data.max_bad_share=0.2"]), tmp_path / "run", rounds=1)["labelled"]


def test_wrong_tables_are_found_before_the_run(tmp_path: Path, films: Path) -> None:
    config = load(None, [*TINY, f"data.root={films}", "data.source=chexpert", "split.labelled_patients=25"])
    with pytest.raises(DataError, match=r"split\.labelled_patients: 25 are asked for"):
        describe(config, tmp_path / "run", rounds=1)
    table = pd.read_csv(films / "train.csv")
    table.assign(**{"Lung Opacity": 0.0}).to_csv(films / "train.csv", index=False)
    config = load(None, [*TINY, f"data.root={films}", "data.source=chexpert"])
    with pytest.raises(DataError, match="'Lung Opacity' has only negative targets"):
        describe(config, tmp_path / "run", rounds=1)


def test_a_run_that_is_there_is_said_and_must_be_of_the_same_configuration(tmp_path: Path, films: Path) -> None:
    config = load(None, [*TINY, f"data.root={films}"])
    run = Run(tmp_path / "run")
    run.create()
    assert describe(config, run.path, rounds=1)["output"] == f"{run.path} (new)"  # it ended before its data was ready
    preparation.prepare(run, config)
    assert describe(config, run.path, 1)["output"] == f"{run.path} (exists: needs --resume or --overwrite)"
    with pytest.raises(ConfigError, match="seed: 0 there, 1 now"):
        describe(load(None, [*TINY, f"data.root={films}", "seed=1"]), run.path, rounds=1)


def test_a_run_that_is_to_be_replaced_need_not_have_the_same_configuration(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.create()
    write_json(run.path / "config.resolved.json", resolved(load(None, ["seed=1"])))
    assert "(new)" in describe(load(None, ["seed=2"]), run.path, rounds=1)["output"]
    run.record(preparation.STAGE, None, [], [])
    with pytest.raises(ConfigError, match="seed: 1 there, 2 now"):
        describe(load(None, ["seed=2"]), run.path, rounds=1)
    assert "is replaced" in describe(load(None, ["seed=2"]), run.path, rounds=1, overwrite=True)["output"]
