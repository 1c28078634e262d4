"""Ensembles: several networks of one generation, calibrated one by one, averaged, and how far they differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from small_runs import write_config

from noisy_student import evaluation, external, generations, prediction, preparation, scoring, stages, training
from noisy_student.config.load import load
from noisy_student.data import manifest, predictions
from noisy_student.errors import DataError
from noisy_student.plan import describe
from noisy_student.reporting import schema
from noisy_student.runs import Run, file_hash, read_json
from noisy_student.stats.calibration import Calibration
from noisy_student.targets import table
from noisy_student.targets.pseudo import pseudo_labels
from noisy_student.workplace import Workplace

MEMBERS = "[{}, {model: {name: shufflenet_v2_x0_5, stochastic_depth: 0}, pos_weight_cap: 3}]"


def workplace(folder: Path, name: str, *more: str) -> Workplace:
    config = load(write_config(folder), ["pretrain.method=none", f"data.cache_dir={folder / 'cache'}", *more])
    run = generations.open_run(folder / name, config, resume=False, overwrite=False)
    return Workplace(run, config, preparation.prepare(run, config), "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ensembles")


@pytest.fixture(scope="module")
def work(folder: Path) -> Workplace:
    """A measured teacher of two architectures and a measured student of one network; studies are the unit."""
    made = workplace(
        folder, "run", f"teacher.members={MEMBERS}", "evaluation.level=study", "evaluation.aggregation=max"
    )
    generations.iterate(made, 1)
    return made


@pytest.fixture(scope="module")
def alone(folder: Path) -> Workplace:
    """The teacher without a second network."""
    made = workplace(folder, "alone")
    generations.iterate(made, 0)
    return made


def films_of(run: Run, split: str) -> manifest.Manifest:
    films = manifest.read(run.manifest)
    return manifest.pool(films) if split == "pool" else manifest.select(films, split=split)


def images_of(films: manifest.Manifest) -> np.ndarray:
    return films.frame["image"].to_numpy(dtype=object)


def by_hand(run: Run, split: str) -> list[np.ndarray]:
    """Calibrated probabilities of the members from the raw columns of the file and the calibration."""
    frame = pd.read_parquet(run.generation(0) / "predictions" / f"{split}.parquet")
    each = []
    for number, member in enumerate(read_json(run.generation(0) / "calibration.json")["members"]):
        columns = []
        for label, platt in member["labels"].items():
            said = frame[f"member-{number}:{label}"].to_numpy(dtype=np.float64)  # stored in single precision
            columns.append(expit(platt["slope"] * (said - platt["shift"]) + platt["intercept"]))
        each.append(np.stack(columns, axis=1))
    return each


def test_the_first_member_is_the_network_of_a_run_without_members(work: Workplace, alone: Workplace) -> None:
    folders = work.run.networks(0)
    assert [path.parent.parent.name for path in folders] == ["member-0", "member-1"]
    weights = [file_hash(path / "model.safetensors") for path in folders]
    assert weights[0] == file_hash(alone.run.networks(0)[0] / "model.safetensors")
    assert [read_json(path / "meta.json")["model"]["name"] for path in folders] == [
        "small_resnet",
        "shufflenet_v2_x0_5",
    ]
    assert {entry["member"] for entry in work.run.read_log() if entry["generation"] == 0} == {0, 1}


def test_members_of_one_recipe_differ_by_their_seed(folder: Path) -> None:
    made = workplace(folder, "seeds", "teacher.members=[{}, {}, {}]", "teacher.optim.steps=3")
    for name in ("targets", "fit"):
        stages.STAGES[name](made, 0)
    assert len({file_hash(path / "model.safetensors") for path in made.run.networks(0)}) == 3
    assert len({training.network_seed(made.config, number) for number in range(3)}) == 3
    assert training.network_seed(made.config, 0) == made.config.seed


def test_each_member_is_calibrated_with_its_own_shift_on_its_own_logits(work: Workplace) -> None:
    run = work.run
    valid = films_of(run, "valid")
    stored = predictions.read(run.generation(0) / "predictions" / "valid.parquet", images_of(valid))
    asked = prediction.predict_networks(work, 0, valid, work.cache, "")
    np.testing.assert_allclose(stored.each, asked, atol=1e-5)
    np.testing.assert_allclose(stored.logits, np.mean(asked, axis=0), atol=1e-5)
    fitted = read_json(run.generation(0) / "calibration.json")
    for member, path in zip(fitted["members"], run.networks(0), strict=True):
        shifts = [platt["shift"] for platt in member["labels"].values()]
        np.testing.assert_allclose(shifts, np.log(read_json(path / "meta.json")["pos_weight"]))
        assert member["study"]["aggregation"] == "max"
    assert max(platt["shift"] for platt in fitted["members"][1]["labels"].values()) <= np.log(3)


@pytest.mark.parametrize("split", ["valid", "pool", "test"])
def test_a_generation_says_the_mean_probability_and_keeps_the_spread(work: Workplace, split: str) -> None:
    run, films = work.run, films_of(work.run, split)
    each = by_hand(run, split)
    found = scoring.probabilities(run, 0, split, films)
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, atol=1e-9)
    path = predictions.spread_path(run.generation(0) / "predictions" / f"{split}.parquet")
    spread = predictions.read_spread(path, images_of(films), work.config.data.labels)
    np.testing.assert_allclose(spread.sd, np.abs(each[0] - each[1]) / np.sqrt(2), atol=1e-6)
    assert spread.mutual_information.max() > 1e-4


def test_one_network_has_no_spread(work: Workplace, alone: Workplace) -> None:
    for run, generation in ((work.run, 1), (alone.run, 0)):
        folder = run.generation(generation)
        assert not list(folder.glob("predictions/*-spread.parquet"))
        test = films_of(run, "test")
        path = predictions.spread_path(folder / "predictions" / "test.parquet")
        assert np.isnan(predictions.read_spread(path, images_of(test), work.config.data.labels).sd).all()
        found = read_json(folder / "evaluation.json")["uncertainty"]
        assert found == {
            "networks": 1,
            "reason": "one network says the same as itself: a spread needs several",
            "splits": {},
        }


def test_the_spread_reaches_the_evaluation_and_the_report(work: Workplace) -> None:
    report = read_json(work.run.path / "report.json")
    schema.check(report)
    found = report["generations"][0]["uncertainty"]
    assert (found["networks"], found["reason"], set(found["splits"])) == (2, None, {"valid", "test"})
    each = by_hand(work.run, "test")
    for k, label in enumerate(work.config.data.labels):
        entry = found["splits"]["test"][label]
        assert entry["sd"] == pytest.approx((np.abs(each[0] - each[1]) / np.sqrt(2))[:, k].mean(), abs=1e-6)
        assert entry["brier_agreed"] >= 0
    assert report["generations"][0]["model"]["name"] == "small_resnet + shufflenet_v2_x0_5"
    assert report["generations"][0]["model"]["networks"] == 2
    assert report["generations"][1]["uncertainty"]["networks"] == 1
    assert len(report["generations"][0]["calibration"]["members"]) == 2


def test_the_pool_learns_from_the_mean_of_the_members_per_study(work: Workplace) -> None:
    """Views of a study are aggregated, calibrated, averaged over the members: every step written out."""
    run, config, pool = work.run, work.config, films_of(work.run, "pool")
    frame = pd.read_parquet(run.generation(0) / "predictions" / "pool.parquet")
    said = []
    for number, member in enumerate(read_json(run.generation(0) / "calibration.json")["members"]):
        study = Calibration.from_json(member["study"])
        columns = [f"member-{number}:{label}" for label in config.data.labels]
        most = frame[columns].groupby(pool.frame["study"].to_numpy()).transform("max")
        said.append(study.probability(most.to_numpy()))
    targets = table.read(run.generation(1) / "targets.parquet")
    known = targets.rows(~targets.pseudo)
    mass = np.stack([(known.target * known.weight).sum(axis=0), known.weight.sum(axis=0)], axis=1)
    counts = [(float(p), float(n)) for p, n in mass]
    expected = pseudo_labels(
        np.mean(said, axis=0), list(pool.frame["study"]), config.data.labels, counts, config.pseudo
    )
    assert targets.images[targets.pseudo].tolist() == images_of(pool).tolist()
    np.testing.assert_allclose(targets.target[targets.pseudo], expected.target, atol=1e-5)
    image = pseudo_labels(
        scoring.probabilities(run, 0, "pool", pool),
        list(pool.frame["study"]),
        config.data.labels,
        counts,
        config.pseudo,
    )
    assert np.abs(image.target - expected.target).max() > 1e-3


def test_figures_of_studies_are_calibrated_after_aggregation(work: Workplace) -> None:
    run, test = work.run, films_of(work.run, "test")
    found = read_json(run.generation(1) / "evaluation.json")["splits"]["test"]
    fitted = read_json(run.generation(1) / "calibration.json")
    assert fitted["study"]["aggregation"] == "max"
    study = Calibration.from_json(fitted["study"])
    frame = pd.read_parquet(run.generation(1) / "predictions" / "test.parquet")
    most = frame[list(work.config.data.labels)].groupby(test.frame["study"].to_numpy()).max()
    sealed = manifest.select(manifest.read(run.sealed), split="test").frame
    truth = sealed.groupby("study")[list(work.config.data.labels)].first()
    brier = ((study.probability(most.to_numpy()) - truth.to_numpy()) ** 2).mean(axis=0)
    for k, label in enumerate(work.config.data.labels):
        assert found["study"]["labels"][label]["brier"] == pytest.approx(brier[k], abs=1e-6)
    assert found["study"]["n"] < found["image"]["n"]


def test_the_aggregation_leaves_figures_of_films_alone(work: Workplace, folder: Path) -> None:
    """The same predictions, aggregated three ways: films keep their figures, studies do not."""
    found = {}
    for how in ("mean", "max", "frontal"):
        shutil.copytree(work.run.path, folder / how)
        config = load(write_config(folder), [f"teacher.members={MEMBERS}", f"evaluation.aggregation={how}"])
        other = Workplace(Run(folder / how), config, None)
        stages.STAGES["calibrate"](other, 0)
        found[how] = evaluation.evaluate_generation(other.run, config, 0)[0]["splits"]["test"]
    assert found["mean"]["image"] == found["max"]["image"] == found["frontal"]["image"]
    assert found["mean"]["study"]["labels"] != found["max"]["study"]["labels"]
    assert found["mean"]["study"]["labels"] != found["frontal"]["study"]["labels"]


def test_on_the_same_films_the_external_figures_are_the_runs(work: Workplace) -> None:
    found = external.evaluate(work, work.config, 0)["splits"]["test"]
    own = read_json(work.run.generation(0) / "evaluation.json")["splits"]["test"]
    for level in ("image", "study"):
        for label in work.config.data.labels:
            assert found[level]["labels"][label]["brier"] == pytest.approx(
                own[level]["labels"][label]["brier"], abs=1e-6
            )


def test_a_student_starts_from_the_teachers_network_of_its_number(work: Workplace) -> None:
    assert read_json(work.run.networks(1)[0] / "meta.json")["origin"] == "weights of gen-0, member-0"


def test_the_plan_names_every_network_and_counts_its_steps(tmp_path: Path) -> None:
    given = ["teacher.members=[{}, {model: {name: resnet18}, optim: {steps: 7}}]", "teacher.optim.steps=5"]
    plan = describe(load(None, [*given, "student.optim.steps=3", f"data.cache_dir={tmp_path}"]), tmp_path / "run", 1)
    assert plan["teacher"] == "small_resnet + resnet18"
    assert plan["steps"].startswith("15 in all")


def test_views_are_used_on_every_split_alike_and_change_what_is_said(alone: Workplace) -> None:
    run = alone.run
    config = alone.config.model_copy(update={"prediction": load(None, ["prediction.tta=3"]).prediction})
    with_views = Workplace(run, config, alone.cache, "cpu")
    for split in ("valid", "pool", "test"):
        films = films_of(run, split)
        stored = predictions.read(run.generation(0) / "predictions" / f"{split}.parquet", images_of(films)).logits
        (plain,) = prediction.predict_networks(alone, 0, films, alone.cache, "")
        (several,) = prediction.predict_networks(with_views, 0, films, alone.cache, "")
        np.testing.assert_array_equal(plain, stored)
        assert np.abs(several - plain).max() > 1e-3
        (again,) = prediction.predict_networks(with_views, 0, films, alone.cache, "")
        np.testing.assert_array_equal(several, again)


def test_frontal_first_is_refused_where_no_film_is_known_to_be_frontal(tmp_path: Path, alone: Workplace) -> None:
    root = preparation.data_root(alone.config.data)
    train = pd.read_csv(root / "train.csv")
    image = train["Path"].str.removeprefix("CheXpert-v1.0-small/")
    table_of = pd.DataFrame({"image": image, "patient": image.str.extract(r"(patient\d+)")[0], "A": range(len(image))})
    table_of["A"] %= 2
    table_of.to_csv(tmp_path / "films.csv", index=False)
    given = ["data.source=csv", f"data.root={root}", f"data.csv={tmp_path / 'films.csv'}", "data.labels=[A]"]
    more = [
        "data.columns.view=null",
        "data.columns.split=null",
        f"data.cache_dir={tmp_path}",
        "split.labelled_patients=9",
    ]
    config = load(None, [*given, *more, "evaluation.aggregation=frontal"])
    with pytest.raises(DataError, match=r"evaluation\.aggregation: frontal, and of no film"):
        describe(config, tmp_path / "run", 0)
    run = generations.open_run(tmp_path / "run", config, resume=False, overwrite=False)
    with pytest.raises(DataError, match=r"evaluation\.aggregation: frontal, and of no film"):
        preparation.prepare(run, config)
