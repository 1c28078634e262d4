"""Cross-fitting: what a network may learn from, and that a fold's labels reach nothing that judges the fold."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from small_runs import write_config

from noisy_student import generations, plan, preparation, scoring, stages, training
from noisy_student.config.load import load
from noisy_student.data import manifest, predictions
from noisy_student.errors import ConfigError
from noisy_student.learning.objectives import Consistency
from noisy_student.runs import REFIT, Run, file_hash, read_json
from noisy_student.stats import calibration
from noisy_student.targets import folds, table
from noisy_student.targets.pseudo import pseudo_labels
from noisy_student.workplace import Workplace

K = 2


def workplace(folder: Path, name: str, *more: str) -> Workplace:
    """A prepared run of two folds without class weights, which would be common to both networks."""
    changes = [
        f"folds={K}",
        "pretrain.method=none",
        "teacher.pos_weight_cap=1",
        f"data.cache_dir={folder / 'cache'}",
        *more,
    ]
    config = load(write_config(folder), changes)
    run = generations.open_run(folder / name, config, resume=False, overwrite=False)
    return Workplace(run, config, preparation.prepare(run, config), "cpu")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A measured teacher and a measured student."""
    made = workplace(tmp_path_factory.mktemp("folds"), "run")
    generations.iterate(made, 1)
    return made


def of_fold(run: Run, images: np.ndarray) -> np.ndarray:
    return folds.read(run.folds, images)


def test_every_labelled_and_validation_film_is_in_a_fold(work: Workplace) -> None:
    budget = manifest.budget(manifest.read(work.run.manifest))
    fold = of_fold(work.run, budget.frame["image"].to_numpy(dtype=object))
    assert set(fold.tolist()) == set(range(K))
    assert set(budget.frame["split"]) == {"train", "valid"}
    assert budget.frame.groupby("patient")["image"].apply(lambda films: len(set(of_fold(work.run, films)))).eq(1).all()


@pytest.mark.parametrize("generation", [0, 1])
def test_a_network_learns_from_every_fold_but_its_own(work: Workplace, generation: int) -> None:
    budget = manifest.budget(manifest.read(work.run.manifest))
    images = budget.frame["image"].to_numpy(dtype=object)
    fold = of_fold(work.run, images)
    for number in range(K):
        own = table.read(work.run.network(generation, number) / "targets.parquet")
        assert own.images[~own.pseudo].tolist() == images[fold != number].tolist()
    whole = table.read(work.run.generation(generation) / "targets.parquet")
    assert whole.images[~whole.pseudo].tolist() == images.tolist()
    assert whole.pseudo.any() == (generation == 1)


def test_a_network_is_taught_by_the_networks_of_its_fold_alone(work: Workplace) -> None:
    run, config = work.run, work.config
    pool = manifest.select(manifest.read(run.manifest), split="train", labelled=False)
    found = []
    for number in range(K):
        own = table.read(run.network(1, number) / "targets.parquet")
        stored = predictions.read(run.network(0, number) / "predictions" / "pool.parquet", own.images[own.pseudo])
        fitted = calibration.Calibration.from_json(read_json(run.generation(0) / "calibration.json"))
        known = own.rows(~own.pseudo)
        mass = np.stack([(known.target * known.weight).sum(axis=0), known.weight.sum(axis=0)], axis=1)
        counts = [(float(p), float(n)) for p, n in mass]
        expected = pseudo_labels(
            fitted.probability(stored.logits), list(pool.frame["study"]), config.data.labels, counts, config.pseudo
        )
        found.append(expected)
        assert own.target[own.pseudo] == pytest.approx(expected.target, abs=1e-6)
    whole = table.read(run.generation(1) / "targets.parquet")
    mean = np.average([one.target for one in found], axis=0, weights=[one.weight for one in found])
    assert whole.target[whole.pseudo] == pytest.approx(mean, abs=1e-6)
    assert np.abs(found[0].target - found[1].target).max() > 1e-3


def test_a_generation_says_the_mean_and_judges_itself_out_of_fold(work: Workplace) -> None:
    run = work.run
    films = manifest.read(run.manifest)
    pool = manifest.select(films, split="train", labelled=False).frame["image"].to_numpy(dtype=object)
    each = [predictions.read(run.network(0, n) / "predictions" / "pool.parquet", pool).logits for n in range(K)]
    mean = predictions.read(run.generation(0) / "predictions" / "pool.parquet", pool).logits
    assert mean == pytest.approx((each[0] + each[1]) / 2, abs=1e-6)

    from noisy_student.prediction import predict_networks

    judging = scoring.judging_films(work.config, films)
    assert list(judging) == ["valid", "labelled"]
    logits, truth = [], []
    for name, part in judging.items():
        images = part.frame["image"].to_numpy(dtype=object)
        stored = predictions.read(run.generation(0) / "predictions" / f"{name}.parquet", images).logits
        asked = predict_networks(work, 0, part, work.cache, "")
        fold = of_fold(run, images)
        assert stored == pytest.approx(np.where((fold == 0)[:, None], asked[0], asked[1]), abs=1e-5)
        logits.append(stored)
        truth.append(scoring.known_truth(manifest.values(part), work.config.targets.blank))
    fitted = calibration.fit(np.concatenate(logits), np.concatenate(truth), work.config.data.labels, np.zeros(3))
    assert read_json(run.generation(0) / "calibration.json")["labels"] == fitted.to_json()["labels"]
    assert read_json(run.generation(1) / "promotion.json")["sentence"].count("out of fold") == 1


def test_the_labels_of_a_fold_do_not_reach_its_network(work: Workplace) -> None:
    """Every label of fold 0 is turned round: network 0 is the same to the last bit, network 1 is another."""
    other = workplace(work.run.path.parent, "turned")
    films = manifest.read(other.run.manifest)
    budget = manifest.budget(films).frame["image"].to_numpy(dtype=object)
    turned = set(budget[of_fold(work.run, budget) == 0])
    values = manifest.values(films).copy()
    rows = films.frame["image"].isin(turned).to_numpy()
    values[rows] = np.where(np.isnan(values[rows]), 1, 1 - np.abs(values[rows]))
    manifest.write(manifest.with_values(films, values), other.run.manifest)
    for name in ("targets", "fit"):
        stages.STAGES[name](other, 0)
    hashes = [
        [file_hash(run.network(0, number) / "checkpoint" / "best" / "model.safetensors") for number in range(K)]
        for run in (work.run, other.run)
    ]
    assert hashes[0][0] == hashes[1][0]
    assert hashes[0][1] != hashes[1][1]


def test_the_weights_of_a_fold_are_not_chosen_on_it() -> None:
    with pytest.raises(ConfigError, match="'best' would choose weights on the fold that judges them"):
        load(None, ["folds=2", "student.optim.select=best"])


# -- one network more, which learns from all folds -----------------------------------------------------------------


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """As ``work``, with a network that learns from all folds."""
    made = workplace(
        tmp_path_factory.mktemp("refit"), "run", "teacher.refit={optim: {batch_size: 10}}", "student.refit={}"
    )
    generations.iterate(made, 1)
    return made


def test_a_refit_leaves_the_networks_of_the_folds_and_what_they_judge_as_they_are(
    work: Workplace, refitted: Workplace
) -> None:
    for number in range(K):
        paths = [w.run.network(0, number) / "checkpoint" / "best" / "model.safetensors" for w in (work, refitted)]
        assert file_hash(paths[0]) == file_hash(paths[1])
    alike = {
        0: ("calibration.json", "predictions/valid.parquet", "predictions/labelled.parquet"),
        1: ("calibration.json", "fold-0/targets.parquet", "fold-1/targets.parquet"),
    }
    for generation, name in [(generation, name) for generation, names in alike.items() for name in names]:
        own = name.replace("calibration", "calibration-folds")
        paths = [work.run.generation(generation) / name, refitted.run.generation(generation) / own]
        assert file_hash(paths[0]) == file_hash(paths[1]), name


def test_a_refit_learns_from_all_folds_and_says_what_its_generation_says(refitted: Workplace) -> None:
    from noisy_student.prediction import predict_networks

    run, films = refitted.run, manifest.read(refitted.run.manifest)
    budget = manifest.budget(films).frame["image"].tolist()
    for generation in (0, 1):
        own = table.read(run.network(generation, REFIT) / "targets.parquet")
        whole = table.read(run.generation(generation) / "targets.parquet")
        assert own.images[~own.pseudo].tolist() == budget
        assert (own.images.tolist(), own.target.tolist()) == (whole.images.tolist(), whole.target.tolist())
        (alone,) = run.networks(generation)
        assert [path.parent.parent.name for path in run.trained(generation)] == ["fold-0", "fold-1", "refit"]
        assert alone == run.trained(generation)[-1]
    test = manifest.select(films, split="test")
    asked = predict_networks(refitted, 1, test, refitted.cache, "", range(K + 1))
    (said,) = predict_networks(refitted, 1, test, refitted.cache, "")
    stored = predictions.read(scoring.predictions_path(run, 1, "test"), scoring.images(test)).logits
    assert stored == pytest.approx(asked[K], abs=1e-5)
    assert stored == pytest.approx(said, abs=1e-5)
    assert np.abs(asked[0] - asked[K]).max() > 1e-3
    assert read_json(alone / "meta.json")["images_seen"] == 8 * 8
    assert read_json(run.networks(0)[0] / "meta.json")["images_seen"] == 8 * 10


def test_a_refit_that_sees_the_pool_leaves_the_lengths_of_the_folds_in_epochs(tmp_path: Path) -> None:
    """What a network does not draw is not part of its epoch; ``--dry-run`` says the same."""
    epochs = "teacher.optim={steps: 0, phases: [{trainable: all, epochs: 2}], batch_size: 8}"
    term = "teacher.refit={consistency: {method: fixmatch}}"
    made = [
        workplace(tmp_path, name, epochs, refit, "student.refit={}")
        for name, refit in (("plain", "teacher.refit={}"), ("term", term))
    ]
    films = []
    for work in made:
        generations.run_stages(work, 0, ["targets"])
        films.append([len(training._task(work, 0, number)[0].targets.images) for number in range(K + 1)])
    chosen = manifest.read(made[0].run.manifest)
    budget, pool = len(manifest.budget(chosen)), len(manifest.pool(chosen))
    assert films[0][K] == budget == sum(films[0][:K])
    assert films[1] == [*films[0][:K], budget + pool]
    steps = [plan.amount(work.config, 0, preparation.sizes(chosen, work.config)) for work in made]
    totals = [sum(math.ceil(2 * count / 8) for count in counts) for counts in films]
    assert steps == [(total, total * 8) for total in totals]


def test_a_consistency_term_rises_over_the_steps_of_its_own_network(tmp_path: Path) -> None:
    """A network of a fold has a shorter epoch than one that learns from every fold."""
    epochs = "student.optim={steps: 0, phases: [{trainable: all, epochs: 2}], batch_size: 8}"
    term = "student.consistency={method: mean_teacher, ramp: 1}"
    work = workplace(tmp_path, "run", "teacher.refit={}", "student.refit={}", epochs, term)
    generations.run_stages(work, 0, [*generations.TRAINING, "predict-pool"])
    generations.run_stages(work, 1, ["targets"])
    rising = []
    for number in range(K + 1):
        task, _ = training._task(work, 1, number)
        assert isinstance(task.objective, Consistency)
        assert task.objective.rising == task.phase.stretches(len(task.targets.images))[-1].stop
        rising.append(task.objective.rising)
    assert max(rising[:K]) < rising[K]


def test_a_network_of_a_fold_expects_of_the_pool_what_its_own_teacher_says(tmp_path: Path) -> None:
    """Not what the other says of it, which has learnt from the films that judge this one."""
    work = workplace(tmp_path, "run", "student.consistency={method: fixmatch, prevalence: teacher}")
    run, pool = work.run, manifest.pool(manifest.read(work.run.manifest))
    generations.run_stages(work, 0, [*generations.TRAINING, "predict-pool"])
    generations.run_stages(work, 1, ["targets"])
    said = [scoring.teaching(run, work.config, 0, pool, number).mean(axis=0) for number in range(K)]
    assert np.abs(said[0] - said[1]).max() > 1e-3
    for number in range(K):
        task, reads = training._task(work, 1, number)
        np.testing.assert_allclose(task.objective.share, said[number], rtol=1e-5)  # type: ignore[attr-defined]
        assert run.network(1, number) / "targets.json" in reads


@pytest.fixture(scope="module")
def judged(refitted: Workplace) -> Workplace:
    """As ``refitted``, with judges that learn once, and one student more."""
    made = workplace(
        refitted.run.path.parent,
        "judged",
        "teacher.refit={optim: {batch_size: 10}}",
        "student.refit={}",
        "student.judges=stay",
        "promotion.rule=always",
    )
    generations.iterate(made, 2)
    return made


def test_judges_that_stay_are_those_of_generation_0(refitted: Workplace, judged: Workplace) -> None:
    """A student of them is to the last bit what it is beside judges that learn; so is the next one, but for them."""
    run = judged.run

    def same(*paths: Path) -> bool:
        return len({file_hash(path) for path in paths}) == 1

    def of(generation: int, name: str) -> Path:
        return run.generation(generation) / name

    for number in range(K):
        model, pool = f"fold-{number}/checkpoint/best/model.safetensors", f"fold-{number}/predictions/pool.parquet"
        assert same(*(of(generation, model) for generation in (0, 1, 2)))
        assert same(*(of(generation, pool) for generation in (0, 1, 2)))
        assert not same(of(0, model), refitted.run.generation(1) / model)
        assert [of(g, f"fold-{number}/targets.parquet").is_file() for g in (0, 1, 2)] == [True, False, False]
    for name in ("predictions/valid.parquet", "predictions/labelled.parquet", "calibration-folds.json"):
        assert same(*(of(generation, name) for generation in (0, 1, 2)))
    speaks = "refit/checkpoint/best/model.safetensors"
    assert same(of(1, speaks), refitted.run.generation(1) / speaks)
    assert not same(of(1, speaks), of(2, speaks))
    assert not same(of(1, "predictions/pool.parquet"), of(0, "predictions/pool.parquet"))
    assert {(line["generation"], line["fold"]) for line in run.read_log()} == {
        (0, 0),
        (0, 1),
        *((g, REFIT) for g in range(3)),
    }


def test_judges_that_stay_decide_nothing(judged: Workplace) -> None:
    told = read_json(judged.run.generation(2) / "promotion.json")
    assert (told["verdict"], told["against"], told["teachers"], told["auroc"]) == ("unjudged", 1, [2], None)
    assert told["sentence"].startswith("The networks that judge are those of generation 1, so labelled films do not")
    page = (judged.run.path / "report.html").read_text()
    assert "thresholds; they are the same in every generation." in page
    assert "Generation 2 is the latest; on labelled films nothing was there to compare it by." in page
    assert "no evidence" not in page


def test_a_plan_leaves_out_judges_that_stay(judged: Workplace) -> None:
    told = plan.describe(judged.config, judged.run.path.parent / "new", 2)
    assert told["student"] == "small_resnet from its teacher on all folds; the networks of the folds stay"
    assert told["steps"] == f"{(K + 3) * 8} in all, {8 * (8 * K + 10 + 2 * 8)} films seen"


def test_a_refit_is_taught_by_the_refit(refitted: Workplace) -> None:
    run, config = refitted.run, refitted.config
    own = table.read(run.network(1, REFIT) / "targets.parquet")
    pool = manifest.select(manifest.read(run.manifest), split="train", labelled=False)
    known = own.rows(~own.pseudo)
    mass = np.stack([(known.target * known.weight).sum(axis=0), known.weight.sum(axis=0)], axis=1)
    counts = [(float(p), float(n)) for p, n in mass]
    said = scoring.probabilities(run, 0, "pool", pool)
    expected = pseudo_labels(said, list(pool.frame["study"]), config.data.labels, counts, config.pseudo)
    assert own.images[own.pseudo].tolist() == pool.frame["image"].tolist()
    assert own.target[own.pseudo] == pytest.approx(expected.target, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["teacher.refit={}", "student.refit={}"], "teacher.refit: goes with folds: 2 and more"),
        (["folds=2", "teacher.refit={}"], "student.refit: is missing, and another generation has it"),
        (
            ["folds=2", "student.refit={loss: {name: focal}}"],
            "student: refit.loss: the networks of the folds judge for",
        ),
        (
            ["folds=2", "teacher.refit={start: teacher}"],
            "teacher.refit.start: generation 0 has no teacher to start from",
        ),
        (
            ["folds=2", "student.judges=stay", "promotion.rule=always"],
            "student.judges: 'stay' goes with refit",
        ),
        (
            ["folds=2", "teacher.refit={}", "student.refit={}", "generations.2.judges=stay"],
            "generations.2.judges: those that 'stay' judge every generation alike, so promotion.rule: ",
        ),
        (
            [
                "folds=2",
                "teacher.refit={}",
                "student={refit: {}, judges: stay}",
                "promotion={rule: always, patience: 1}",
            ],
            "student.judges: those that 'stay' never find a student better, which promotion.patience waits for",
        ),
        (
            ["folds=2", "teacher.refit={}", "student.refit={optim: {stps: 3}}"],
            "unknown key 'student.refit.optim.stps'; did you mean 'steps'?",
        ),
        (
            ["folds=2", "teacher.refit={}", "student.refit={}", "generations.2.refit={optim: {batch_size: 1}}"],
            "generations.2.refit.optim.batch_size: Input should be",
        ),
    ],
)
def test_a_wrong_refit_is_named(changes: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load(None, changes)


def test_a_refit_is_calibrated_to_what_the_networks_of_the_folds_say_of_the_pool(refitted: Workplace) -> None:
    from noisy_student.prediction import predict_networks

    run, films = refitted.run, manifest.read(refitted.run.manifest)
    pool = manifest.select(films, split="train", labelled=False)
    *apart, own = predict_networks(refitted, 0, pool, refitted.cache, "", range(K + 1))
    assert "out of fold and by the networks of the folds" in read_json(run.generation(1) / "promotion.json")["sentence"]
    judges = scoring.calibrations(run, 0, "valid")
    assert judges != scoring.calibrations(run, 0)
    said = judges.image(np.mean(apart, axis=0)[None])
    shift = read_json(run.networks(0)[0] / "meta.json")["shift"]
    expected = calibration.match(own, said, refitted.config.data.labels, shift)
    assert scoring.probabilities(run, 0, "pool", pool) == pytest.approx(expected.probability(own), abs=1e-5)
    valid = manifest.select(films, split="valid")
    logits = predictions.read(scoring.predictions_path(run, 0, "valid"), scoring.images(valid)).each
    assert scoring.probabilities(run, 0, "valid", valid) == pytest.approx(judges.image(logits))


def test_without_a_pool_a_refit_is_calibrated_as_the_networks_of_the_folds(refitted: Workplace) -> None:
    folder = refitted.run.path.parent
    other = workplace(folder, "no-pool", "teacher.refit={}", "student.refit={}", "split.labelled_patients=40")
    for name in ("targets", "fit", "predict-valid", "calibrate"):
        stages.STAGES[name](other, 0)
    assert not len(manifest.select(manifest.read(other.run.manifest), split="train", labelled=False))
    assert scoring.calibrations(other.run, 0) == scoring.calibrations(other.run, 0, "valid")


def test_studies_are_drawn_whole(refitted: Workplace) -> None:
    from noisy_student.prediction import whole_studies

    pool = manifest.select(manifest.read(refitted.run.manifest), split="train", labelled=False)
    some = whole_studies(pool, len(pool) // 2, 0).frame
    assert len(pool) // 2 <= len(some) < len(pool)
    assert set(some["study"]).isdisjoint(set(pool.frame["study"]) - set(some["study"]))
    sizes, whole = (frame["study"].value_counts().sort_index() for frame in (some, pool.frame))
    assert (sizes == whole[sizes.index]).all()
    assert len(whole_studies(pool, 10_000, 0)) == len(pool)
    assert len(whole_studies(manifest.rows(pool, np.zeros(len(pool), dtype=bool)), 10, 0)) == 0
