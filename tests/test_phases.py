"""What single generations do differently reaches the plan, the checks before a run, and the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_runs import write_config

from noisy_student import generations, preflight, preparation
from noisy_student.cli import main
from noisy_student.config.load import load
from noisy_student.errors import ConfigError, StoppedError, WeightsError
from noisy_student.learning import fit
from noisy_student.plan import describe
from noisy_student.runs import read_json
from noisy_student.workplace import Workplace


def test_the_plan_counts_the_steps_of_every_generation(tmp_path: Path) -> None:
    given = ["teacher.optim={steps: 5, batch_size: 8}", "student.optim={steps: 7, batch_size: 10}"]
    changes = ["generations.0.optim.steps=6", "generations.2.optim={steps: 9, batch_size: 4}"]
    config = load(None, [*given, *changes, f"data.cache_dir={tmp_path}"])
    # 6 * 8, then 7 * 10 twice and 9 * 4 between them.
    assert describe(config, tmp_path / "run", rounds=3)["steps"] == "29 in all, 224 films seen"
    assert describe(config, tmp_path / "run", rounds=1)["steps"] == "13 in all, 118 films seen"


def test_networks_and_weights_of_every_generation_are_checked_before_the_run() -> None:
    with pytest.raises(ConfigError, match="resnet_of_another_world"):
        preflight.check_settings(
            load(None, ["generations.3.model.name=resnet_of_another_world", "student.start=weights"]), "cpu"
        )
    missing = ["generations.2.model.weights=nowhere.pth", "generations.2.start=weights"]
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        preflight.check_settings(load(None, missing), "cpu")
    preflight.check_settings(load(None, ["generations.2.noise.strength=9"]), "cpu")
    with pytest.raises(ConfigError, match="trainable: 9 asks for more blocks than the 5 of the backbone"):
        preflight.check_settings(load(None, ["generations.2.optim.phases=[{trainable: 9, steps: 3}, {}]"]), "cpu")


def test_blocks_that_begin_anew_may_not_stand_still() -> None:
    model = "{name: mobilenet_v2, weights: imagenet, initialise: lowest, pretrained_blocks: 12}"
    for phase, count in (("student", 6), ("student", 7), ("generations.2", 6)):
        given = [f"teacher.model={model}", f"student.model={model}", "student.start=weights"]
        config = load(None, [*given, f"{phase}.optim.phases=[{{trainable: {count}}}]"])
        if count == 7:  # of 19 blocks
            preflight.check_settings(config, "cpu", weights=False)
            continue
        with pytest.raises(ConfigError, match=f"{phase}.optim.phases: .* of 19 blocks the highest 7 begin anew"):
            preflight.check_settings(config, "cpu", weights=False)


def test_blocks_that_a_self_supervised_start_has_taught_may_stand_still() -> None:
    model = "{name: resnet18, weights: imagenet, initialise: lowest, pretrained_blocks: 3}"
    given = [f"teacher.model={model}", "teacher.optim.phases=[{trainable: 1}]", "student.start=weights"]
    with pytest.raises(ConfigError, match=r"teacher\.optim\.phases"):
        preflight.check_settings(load(None, given), "cpu", weights=False)
    preflight.check_settings(load(None, [*given, "pretrain.method=byol"]), "cpu", weights=False)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("teacher.model.name=resnet_of_another_world", "teacher.model.name: 'resnet_of_another_world'"),
        ("teacher.model={name: resnet18, stochastic_depth: 0.1}", "teacher.model.stochastic_depth: resnet18"),
        ("student.model.name=resnet_x", "student.model.name: 'resnet_x'"),
        ("generations.2.model.name=resnet_x", "generations.2.model.name: 'resnet_x'"),
        ("generations.0={model: {name: resnet_x}}", "generations.0.model.name: 'resnet_x'"),
        ("teacher.members=[{}, {model: {name: resnet_x}}]", "teacher.members.1.model.name: 'resnet_x'"),
        ("generations.2.members=[{model: {weights: x.pth}}, {}]", "generations.2.members.0.model.weights: there is no"),
        ("student.members=[{}, {model: {weights: x.pth}}]", "student.members.1.model.weights: there is no file"),
        ("generations.2={members: [{}, {}], model: {weights: x.pth}}", "generations.2.model.weights: there is no"),
        (
            "student.optim.phases=[{trainable: all, steps: 3}, {trainable: 9}]",
            "student.optim.phases: trainable: 9 asks",
        ),
    ],
)
def test_an_error_about_a_network_says_where_it_is_set(given: str, says: str) -> None:
    config = load(None, ["student.start=weights", given])
    with pytest.raises((ConfigError, WeightsError)) as error:
        preflight.check_settings(config, "cpu")
    assert error.value.message.startswith(says)


def test_a_generation_is_trained_with_its_own_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, rows = np.random.default_rng(0), []
    for number in range(40):
        Image.fromarray(draw.integers(0, 255, (32, 32), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        split = ("train", "train", "valid", "test")[number // 2 % 4]
        rows.append({"image": f"{number}.png", "patient": f"p{number}", "split": split, "A": number % 2})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    tasks: list[fit.Task] = []

    def caught(run: Any, task: fit.Task, **options: Any) -> None:
        tasks.append(task)
        raise StoppedError("enough", "")

    monkeypatch.setattr(fit, "fit", caught)
    monkeypatch.setenv("NS_CACHE", str(tmp_path / "cache"))
    data = f"data={{source: csv, root: {tmp_path}, labels: [A], image_size: 32}}"
    given = [data, "split.labelled_images=8", "teacher.noise.strength=2", "generations.0.noise.blur.range=3"]
    arguments = [part for text in given for part in ("--set", text)]
    with pytest.raises(SystemExit):
        main(["train-teacher", "-o", str(tmp_path / "run"), "-q", "--device", "cpu", *arguments])
    (task,) = tasks
    assert (task.generation, task.phase.noise.strength, task.phase.noise.blur.range) == (0, 2.0, 3.0)


def test_a_student_of_a_student_is_trained_by_its_own_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is larger than its teacher and learns under more noise, of the films and of the network."""
    given = [
        "pretrain.method=none",
        "data.synthetic.test_patients=8",
        "teacher.noise.strength=1",
        "teacher.optim={steps: 2, batch_size: 8, bn_images: 16}",
        "student.start=weights",
        "student.noise.strength=2",
        "student.model={dropout: 0.2, stochastic_depth: 0.3}",
        "student.optim={steps: 1, batch_size: 8, bn_images: 16}",
        "generations.2.noise.strength=5",
        "generations.2.model={name: efficientnet_b0, dropout: 0.4, stochastic_depth: 0.5}",
        "generations.2.optim={steps: 3, bn_images: 0}",
    ]
    config = load(write_config(tmp_path), given)
    run = generations.open_run(tmp_path / "run", config, resume=False, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "cpu")
    train, strengths = fit.fit, list[tuple[int, float]]()

    def seen(run: Any, task: fit.Task, **options: Any) -> list[Path]:
        strengths.append((task.generation, task.phase.noise.strength))
        return train(run, task, **options)

    monkeypatch.setattr(fit, "fit", seen)
    for generation in (0, 1):
        generations.run_stages(work, generation, [*generations.TRAINING, "predict-pool"])
    generations.run_stages(work, 2, ["targets", "fit"])
    assert strengths == [(0, 1), (1, 2), (2, 5)]
    metas = [read_json(run.networks(generation)[0] / "meta.json") for generation in range(3)]
    keys = ("name", "dropout", "stochastic_depth")
    assert [tuple(meta["model"][key] for key in keys) for meta in metas] == [
        ("small_resnet", 0.1, 0.1),
        ("small_resnet", 0.2, 0.3),
        ("efficientnet_b0", 0.4, 0.5),
    ]
    assert [meta["images_seen"] for meta in metas] == [2 * 8, 1 * 8, 3 * 8]
    sizes = [(run.networks(generation)[0] / "model.safetensors").stat().st_size for generation in range(3)]
    assert sizes[0] == sizes[1] < sizes[2] / 3
