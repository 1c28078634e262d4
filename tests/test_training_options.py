"""Losses, samplers and phases of a configuration reach the training, its checkpoint and its calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import TINY, in_process, ns, write_config

from noisy_student import generations, preparation, scoring, training
from noisy_student.config.load import load
from noisy_student.data import manifest
from noisy_student.learning import goals, losses, objectives
from noisy_student.targets import table
from noisy_student.workplace import Workplace

PLAIN = TINY.replace("method: byol", "method: none")


def teacher(tmp_path: Path, *overrides: str) -> Path:
    config = write_config(tmp_path, PLAIN)
    given = [word for override in overrides for word in ("--set", override)]
    run = tmp_path / "run"
    arguments = ["train-teacher", "--config", str(config), "-o", str(run), "-q", "--device", "cpu", *given]
    assert in_process(ns, arguments) == 0
    return run / "gen-0"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_bent_and_smoothed_loss_with_balanced_draws_is_undone_in_the_calibration(tmp_path: Path) -> None:
    loss = "teacher.loss={name: focal, gamma: 1.5, alpha: 0.75, smoothing: 0.1}"
    folder = teacher(tmp_path, loss, "teacher.sampler.balance=0.5", "teacher.pos_weight_cap=1")
    meta, fitted = read(folder / "checkpoint" / "best" / "meta.json"), read(folder / "calibration.json")
    assert meta["loss"]["name"] == "focal"
    assert meta["pos_weight"] == [1, 1, 1]
    assert fitted["link"] == {
        "name": "focal", "gamma_positive": 1.5, "gamma_negative": 1.5, "free": 0.0,
        "odds": pytest.approx(np.log(3)), "smoothing": 0.1,
    }  # fmt: skip
    targets = table.read(folder / "targets.parquet")
    counts = targets.target.sum(axis=0)
    entries = list(fitted["labels"].values())
    assert [entry["shift"] for entry in entries] == [0, 0, 0]
    assert [entry["drawn"] for entry in entries] == meta["drawn"]
    assert meta["drawn"][int(np.argmax(counts))] == 0  # the most frequent label is drawn no more often
    assert meta["drawn"][int(np.argmin(counts))] == max(meta["drawn"]) > 0


def test_the_auc_margin_trains_with_guaranteed_positives_and_keeps_its_parameters(tmp_path: Path) -> None:
    given = ["teacher.loss.name=auc_margin", "teacher.sampler.positives=2", "teacher.pos_weight_cap=1"]
    folder = teacher(tmp_path, *given)
    saved = torch.load(folder / "checkpoint" / "last" / "resume.pt", weights_only=True)
    assert set(saved["objective"]) == {"a", "b", "alpha"}
    assert (saved["objective"]["a"] > saved["objective"]["b"]).any()
    fitted = read(folder / "calibration.json")
    assert fitted["link"]["name"] == "identity"
    assert all(entry["shift"] == entry["drawn"] == 0 for entry in fitted["labels"].values())


def test_the_shift_of_a_weighted_loss_is_what_it_was(tmp_path: Path) -> None:
    folder = teacher(tmp_path)
    meta, fitted = read(folder / "checkpoint" / "best" / "meta.json"), read(folder / "calibration.json")
    assert max(meta["pos_weight"]) > 1
    shifts = [entry["shift"] for entry in fitted["labels"].values()]
    assert shifts == meta["shift"] == np.log(np.asarray(meta["pos_weight"])).tolist()
    assert fitted["link"]["name"] == "identity"
    assert meta["drawn"] == [0, 0, 0]


LOSSES = [
    "{name: weighted_bce}",
    "{name: bce}",
    "{name: weighted_bce, smoothing: 0.1}",
    "{name: focal}",
    "{name: focal, gamma: 1}",
    "{name: focal, alpha: 0.3}",
    "{name: asymmetric}",
    "{name: asymmetric, gamma_positive: 1}",
    "{name: asymmetric, gamma_negative: 2}",
    "{name: asymmetric, shift: 0.1}",
    "{name: logit_adjusted}",
    "{name: logit_adjusted, tau: 2}",
    "{name: auc_margin}",
    "{name: auc_margin, margin: 0.5}",
    "{name: auc_margin, smoothing: 0.1}",
]


def test_every_setting_of_a_loss_changes_what_a_batch_costs() -> None:
    """One batch, one network, and as many different costs as there are settings."""
    draw, labels = np.random.default_rng(0), ("a", "b")
    target = (draw.random((40, 2)) < [0.4, 0.15]).astype(np.float32)
    images = np.array([f"film {number}" for number in range(40)], dtype=object)
    targets = table.Targets(images, labels, target, np.ones_like(target), np.zeros(40, dtype=bool))
    films = torch.from_numpy(draw.random((40, 1, 2, 2)).astype(np.float32))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    torch.nn.init.constant_(model[1].weight, 0.7)
    found = {}
    for text in LOSSES:
        phase = load(None, [f"teacher.loss={text}", "teacher.sampler.positives=1"]).teacher
        made = goals.goal(phase, targets)
        batch = objectives.Noised(
            films,
            losses.smoothed(torch.from_numpy(target), phase.loss.smoothing),
            torch.ones(40, 2),
            torch.from_numpy(made.pos_weight).expand(40, 2),
        )
        found[text] = round(made.objective(model, model, batch).item(), 6)
    assert len(set(found.values())) == len(LOSSES), found


@pytest.mark.parametrize("pairs", ["film", "study", "patient"])
def test_the_second_view_of_a_self_supervised_start_is_of_what_pairs_says(tmp_path: Path, pairs: str) -> None:
    config = load(write_config(tmp_path, TINY), [f"pretrain.pairs={pairs}"])
    run = generations.open_run(tmp_path / "run", config, resume=False, overwrite=False)
    task = training._pretraining(Workplace(run, config, preparation.prepare(run, config), "cpu"))
    frame = manifest.select(manifest.read(run.manifest), split="train").frame
    assert task.targets.images.tolist() == frame["image"].tolist()
    owner = frame["image" if pairs == "film" else pairs]
    numbers, alone = np.arange(len(frame)), (owner.map(owner.value_counts()) == 1).to_numpy()
    partner = task.partners(numbers, numbers)
    assert (owner.to_numpy()[partner] == owner.to_numpy()).all()
    assert ((partner == numbers) == alone).all()
    assert alone.all() == (pairs == "film")


@pytest.mark.parametrize("prevalence", ["labelled", "teacher"])
def test_a_consistency_term_expects_of_the_pool_what_prevalence_says(tmp_path: Path, prevalence: str) -> None:
    term = f"student.consistency={{method: fixmatch, prevalence: {prevalence}}}"
    config = load(write_config(tmp_path, PLAIN), [term])
    run = generations.open_run(tmp_path / "run", config, resume=False, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "cpu")
    generations.run_stages(work, 0, [*generations.TRAINING, "predict-pool"])
    generations.run_stages(work, 1, ["targets"])
    task, reads = training._task(work, 1, 0)
    films = manifest.read(run.manifest)
    whole = table.read(run.generation(1) / "targets.parquet")
    known = whole.rows(~whole.pseudo)
    labelled = (known.target * known.weight).sum(axis=0) / known.weight.sum(axis=0)
    said = scoring.teaching(run, config, 0, manifest.pool(films)).mean(axis=0)
    assert np.abs(said - labelled).max() > 0.01
    expected = labelled if prevalence == "labelled" else said
    np.testing.assert_allclose(task.objective.share, expected, rtol=1e-5)  # type: ignore[attr-defined]
    assert (run.generation(1) / "targets.json" in reads) == (prevalence == "teacher")
    told = load(write_config(tmp_path, PLAIN), [term, "pseudo.prevalence={Pleural Effusion: 0.37}"])
    expected[told.data.labels.index("Pleural Effusion")] = 0.37
    task, _ = training._task(Workplace(run, told, work.cache, "cpu"), 1, 0)
    np.testing.assert_allclose(task.objective.share, expected, rtol=1e-5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("compiled", [False, True])
def test_compile_reaches_every_training(tmp_path: Path, compiled: bool) -> None:
    text = f"compile={str(compiled).lower()}"
    config = load(write_config(tmp_path, TINY), [text])
    run = generations.open_run(tmp_path / "run", config, resume=False, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "cpu")
    assert training._pretraining(work).compiled is compiled
    config = load(write_config(tmp_path, PLAIN), [text])
    run = generations.open_run(tmp_path / "plain", config, resume=False, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "cpu")
    generations.run_stages(work, 0, ["targets"])
    assert training._task(work, 0, 0)[0].compiled is compiled
