"""Whole runs with the options of the method: killed at any moment they end where an undisturbed one does."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from small_runs import content, differences, in_process, ns, ns_killed, write_config

from noisy_student.config.load import read_snapshot
from noisy_student.runs import read_json
from noisy_student.targets import table

OPTIONS = {
    "labels": [
        "targets.uncertain=selftrained",
        "pseudo.select.rule=f1",
        "pseudo.temperature=0.5",
        "pseudo.pool_share=[0.5, 1]",
        "student.sampler.pool_balance=0.5",
        "promotion={rule: estimate, measure: auroc, undecided: teacher}",
    ],
    "judges": [
        "folds=2",
        "teacher.refit={}",
        "student.refit={}",
        "student.judges=stay",
        "promotion.rule=always",
        "pseudo={hard: true, select: {rule: fixed, confidence: 0.6}}",
    ],
    "films": [
        "teacher.consistency={method: fixmatch, confidence: 0.6}",
        "student.consistency={method: mean_teacher, weight: 3}",
        "generations.2.consistency={method: fixmatch, prevalence: teacher, align_by: shift}",
        "student.optim.phases=[{steps: 5}, {steps: 3, films: labelled, noise: false}]",
        "pseudo={hard: true, weight: right, select: {rule: two_sided, precision: 0.6}}",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_a_run_with_options_survives_being_killed(tmp_path: Path, options: str) -> None:
    config, (whole, killed) = write_config(tmp_path), (tmp_path / "whole", tmp_path / "killed")
    settings = [part for text in ["pretrain.method=none", *OPTIONS[options]] for part in ("--set", text)]

    def arguments(run: Path, *more: str) -> list[str]:
        return ["iterate", "--config", str(config), "--rounds", "2", "-o", str(run), *settings, *more]

    assert in_process(ns, arguments(whole)) == 0
    draw = random.Random(3)
    for _ in range(4):
        where = draw.choice(["step", "checkpoint", "before record", "after record"])
        code = in_process(ns_killed, arguments(killed, "--resume"), where, draw.randint(1, 8))
        assert code in (-signal.SIGKILL, 0)
    assert in_process(ns, arguments(killed, "--resume")) == 0
    assert differences(content(whole), content(killed)) == []
    assert read_snapshot(whole / "config.resolved.json").student.optim.steps == 8
    first = table.read(whole / "gen-0" / "targets.parquet")
    assert first.pseudo.any() == (options == "films")
    taught = read_json(whole / "gen-1" / "targets.json")["labels"].values()
    assert any(entry["taken"]["left_out"] > 0 for entry in taught)
