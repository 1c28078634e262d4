"""The targets of a generation, from the files of its teachers: uncertain labels, thresholds, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from small_runs import write_config

from noisy_student import evaluation, generations, preparation, scoring, teaching
from noisy_student.config.load import load
from noisy_student.data import manifest
from noisy_student.runs import read_json
from noisy_student.targets import folds, table
from noisy_student.targets.prevalence import moved, prior_shift
from noisy_student.targets.pseudo import study_mean
from noisy_student.workplace import Workplace

UNCERTAIN = "targets.uncertain=selftrained"


def taught(folder: Path, name: str, *more: str) -> Workplace:
    """A run with a teacher and the targets of its student."""
    settings = ["pretrain.method=none", f"data.cache_dir={folder / 'cache'}", UNCERTAIN, "targets.blank=zeros", *more]
    config = load(write_config(folder), settings)
    run = generations.open_run(folder / name, config, resume=False, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "cpu")
    values = manifest.values(manifest.budget(manifest.read(run.manifest)))
    if not (values == -1).any():  # pragma: no cover - the phantoms have uncertain labels
        pytest.fail("the films have no uncertain labels")
    generations.train_teacher(work)
    generations.pseudo_label(work)
    return work


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teaching")


@pytest.fixture(scope="module")
def single(folder: Path) -> Workplace:
    return taught(folder, "single")


@pytest.fixture(scope="module")
def crossed(folder: Path) -> Workplace:
    return taught(folder, "crossed", "folds=2")


def again(work: Workplace, *settings: str) -> tuple[table.Targets, dict[str, Any]]:
    """Return the targets of generation 1, and their statistics, under other settings of the pseudo-labels."""
    stored = work.config.model_dump(mode="json")
    config = load(None, [f"pseudo.{text}" for text in settings]).pseudo
    changed = type(work.config).model_validate(stored | {"pseudo": config.model_dump(mode="json")})
    teaching.make_targets(Workplace(work.run, changed, work.cache, "cpu"), 1)
    made = work.run.generation(1)
    return table.read(made / "targets.parquet"), read_json(made / "targets.json")


def budget(work: Workplace) -> manifest.Manifest:
    films = manifest.read(work.run.manifest)
    return manifest.budget(films) if work.config.folds > 1 else manifest.select(films, split="train", labelled=True)


# -- uncertain labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["single", "crossed"])
def test_the_teachers_word_stands_for_uncertain_labels_from_generation_1_on(
    kind: str, request: pytest.FixtureRequest
) -> None:
    work: Workplace = request.getfixturevalue(kind)
    films = budget(work)
    uncertain = manifest.values(films) == -1
    first, second = (table.read(work.run.generation(g) / "targets.parquet") for g in (0, 1))
    assert (first.weight[uncertain] == 0).all()
    known = second.rows(~second.pseudo)
    assert (known.weight[uncertain] == 1).all()
    parts = {"labelled": "train", "valid": "valid"}
    for name, split in parts.items():
        rows = (films.frame["split"] == split).to_numpy()
        if not rows.any():
            continue
        said = scoring.probabilities(work.run, 0, name, manifest.rows(films, rows))
        np.testing.assert_allclose(known.target[rows][uncertain[rows]], said[uncertain[rows]], rtol=1e-5)
    np.testing.assert_array_equal(known.target[~uncertain], first.target[~first.pseudo][~uncertain])


def test_without_the_policy_the_labelled_films_are_not_predicted(folder: Path) -> None:
    work = taught(folder, "plain", "targets.uncertain=zeros")
    assert not scoring.predictions_path(work.run, 0, "labelled").exists()
    assert (table.read(work.run.generation(1) / "targets.parquet").weight[:5] == 1).all()


# -- thresholds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
def test_the_threshold_of_a_fold_is_judged_without_its_labels(crossed: Workplace, number: int) -> None:
    again(crossed, "select.rule=f1", "align=false", "hard=true", "weight_power=0")
    run, config = crossed.run, crossed.config
    parts = scoring.judging_films(config, manifest.read(run.manifest))
    said = np.concatenate(  # of a study, as it is of the pool
        [
            study_mean(scoring.probabilities(run, 0, name, part), list(part.frame["study"]))
            for name, part in parts.items()
        ]
    )
    truth = np.concatenate([scoring.known_truth(manifest.values(part), "zeros") for part in parts.values()])
    fold = folds.read(run.folds, np.concatenate([scoring.images(part) for part in parts.values()]))
    made = table.read(run.network(1, number) / "targets.parquet")
    pool = manifest.select(manifest.read(run.manifest), split="train", labelled=False)
    own = scoring.probabilities(run, 0, "pool", pool, number)
    for k in range(len(config.data.labels)):
        keep = (fold != number) & ~np.isnan(truth[:, k])
        levels = np.unique(said[keep, k])
        scores = [f1_score(truth[keep, k], said[keep, k] >= level) for level in levels]
        best = max(level for level, score in zip(levels, scores, strict=True) if score >= max(scores) - 1e-12)
        expected = study_mean(own, list(pool.frame["study"]))[:, k] >= best
        np.testing.assert_array_equal(made.target[made.pseudo][:, k] == 1, expected)


def test_thresholds_and_what_was_taken_are_written(single: Workplace) -> None:
    targets, found = again(single, "select={rule: fixed, confidence: 0.6, negative_confidence: 0.8}", "weight_power=0")
    pseudo = targets.rows(targets.pseudo)
    for k, label in enumerate(targets.labels):
        entry = found["labels"][label]
        assert entry["thresholds"] == {"low": pytest.approx(0.2), "high": 0.6, "reason": None}
        target, used = pseudo.target[:, k], pseudo.weight[:, k] > 0
        counts = {"positives": (used & (target >= 0.6)).sum(), "negatives": (used & (target < 0.5)).sum()}
        assert entry["taken"] == {**counts, "left_out": len(used) - used.sum()}
        assert entry["pseudo_kept"] == used.sum()
    plain = again(single)[1]["labels"]
    assert {entry["taken"]["left_out"] for entry in plain.values()} == {0}
    assert {entry["thresholds"]["high"] for entry in plain.values()} == {0.5}


@pytest.mark.parametrize(
    "settings",
    [
        ["select={rule: two_sided, precision: 0.7}", "weight=right"],
        ["select.rule=prevalence", "hard=true", "weight=right"],
        ["temperature=0.5", "pool_share=[0.3, 1]"],
        ["select={rule: fixed, confidence: 0.6, negatives: false}", "prevalence={Support Devices: 0.8}"],
    ],
)
def test_the_diagnostic_of_the_pool_measures_what_is_taken(single: Workplace, settings: list[str]) -> None:
    targets, found = again(single, *settings)
    sealed = manifest.select(manifest.read(single.run.sealed), split="train")
    pool = evaluation._pool(single.run, 1, sealed, single.config)
    assert pool is not None
    assert any(entry["teachers_auroc"] is not None for entry in pool["labels"].values())
    films = manifest.pool(manifest.read(single.run.manifest))
    said = scoring.teaching(single.run, single.config, 0, films)
    truth = manifest.values(sealed)[[list(sealed.frame["image"]).index(image) for image in films.frame["image"]]]
    for k, label in enumerate(targets.labels):
        entry = pool["labels"][label]
        # What the teacher says of the whole pool is the same whatever is taken of it.
        known = truth[:, k] != -1  # a blank is negative here
        assert (entry["teachers_auroc"] is None) == (len({*(truth[known, k] == 1)}) < 2)
        if entry["teachers_auroc"] is not None:
            assert entry["teachers_auroc"] == pytest.approx(roc_auc_score(truth[known, k] == 1, said[known, k]))
        taken = found["labels"][label]["taken"]
        assert entry["positives"] + entry["negatives"] <= taken["positives"] + taken["negatives"]
        if not taken["positives"] + taken["negatives"]:
            assert entry["auroc"] is entry["brier"] is entry["pseudo_share"] is None
            assert entry["reason"]
        assert (targets.weight[targets.pseudo][:, k] > 0).sum() == taken["positives"] + taken["negatives"]


def test_thresholds_are_on_the_scale_of_the_aligned_targets(single: Workplace) -> None:
    plain = again(single, "select.rule=f1", "align=false")[1]["labels"]
    found = again(single, "select.rule=f1")[1]["labels"]
    pool = manifest.select(manifest.read(single.run.manifest), split="train", labelled=False)
    said = scoring.probabilities(single.run, 0, "pool", pool)
    for k, label in enumerate(single.config.data.labels):
        if plain[label]["thresholds"]["high"] is None:
            continue
        shift = prior_shift(study_mean(said, list(pool.frame["study"]))[:, k], found[label]["prevalence"])
        assert found[label]["thresholds"]["high"] == pytest.approx(
            float(moved(plain[label]["thresholds"]["high"], shift)), rel=1e-6
        )
        assert found[label]["taken"] == plain[label]["taken"]


# -- teachers and pool of a second student -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def second(folder: Path) -> Workplace:
    """A run whose first student cannot be told apart from its teacher, so that both teach the second."""
    settings = ["targets.uncertain=zeros", "promotion.confidence=0.999", "pseudo={align: false, pool_share: [0.3, 1]}"]
    work = taught(folder, "second", *settings)
    generations.train_student(work)
    generations.pseudo_label(work)
    assert read_json(work.run.generation(1) / "promotion.json")["teachers"] == [0, 1]
    return work


def test_the_mean_of_past_generations_teaches(second: Workplace) -> None:
    run, pool = second.run, manifest.pool(manifest.read(second.run.manifest))
    said = [scoring.probabilities(run, generation, "pool", pool) for generation in (0, 1)]
    assert np.abs(said[0] - said[1]).max() > 1e-3
    expected = study_mean((said[0] + said[1]) / 2, list(pool.frame["study"]))
    made = table.read(run.generation(2) / "targets.parquet")
    np.testing.assert_allclose(made.target[made.pseudo], expected, rtol=1e-5)
    assert read_json(run.generation(2) / "targets.json")["teachers"] == [0, 1]


def test_a_curriculum_gives_the_second_student_the_whole_pool(second: Workplace) -> None:
    taken = []
    for generation in (1, 2):
        made = table.read(second.run.generation(generation) / "targets.parquet")
        target, used = made.target[made.pseudo], made.weight[made.pseudo] > 0
        sides = [(side.sum(axis=0), (side & used).sum(axis=0)) for side in (target >= 0.5, target < 0.5)]
        taken.append([(whole.tolist(), kept.tolist()) for whole, kept in sides])
    assert taken[0] == [(whole, np.ceil(0.3 * np.array(whole)).tolist()) for whole, _ in taken[0]]
    assert taken[1] == [(whole, whole) for whole, _ in taken[1]]


# -- films without a target ----------------------------------------------------------------------------------------


def test_a_teacher_with_a_consistency_term_gets_the_pool_without_targets(folder: Path) -> None:
    """The whole way: the table, the training, the diagnostic, which has nothing to say, and the next generation."""
    work = taught(folder, "compared", "teacher.consistency={method: fixmatch, confidence: 0.6}")
    first = table.read(work.run.generation(0) / "targets.parquet")
    pool = manifest.select(manifest.read(work.run.manifest), split="train", labelled=False)
    assert first.images[first.pseudo].tolist() == pool.frame["image"].tolist()
    assert first.weight[first.pseudo].max() == 0
    assert first.weight[~first.pseudo].max() == 1
    told = read_json(work.run.generation(0) / "targets.json")
    assert (told["pseudo"], told["unlabelled"]) == (0, len(pool))
    sealed = manifest.select(manifest.read(work.run.sealed), split="train")
    assert evaluation._pool(work.run, 0, sealed, work.config) is None
    assert evaluation._pool(work.run, 1, sealed, work.config) is not None
    assert read_json(work.run.generation(1) / "targets.json")["unlabelled"] == 0
