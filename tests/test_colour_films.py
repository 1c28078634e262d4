"""Colour films from class folders, through the cache and into a teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisy_student import generations, preparation
from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.data import manifest
from noisy_student.runs import read_json
from noisy_student.workplace import Workplace

COLOURS = {"red": (180, 60, 60), "blue": (60, 60, 180)}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("tiles")
    draw = np.random.default_rng(0)
    for split, count in {"train": 24, "valid": 8, "test": 8}.items():
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(np.array(colour) + draw.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return load(
        None,
        [
            "data={source: folders, image_size: 32, channels: 3, labels: [red], folders: {negative: [blue]}}",
            f"data.root={root}",
            "split.labelled_patients=24",
            "pretrain.method=none",
            "teacher.model={name: small_resnet, dropout: 0, stochastic_depth: 0}",
            "teacher.noise.strength=2",
            "teacher.optim={steps: 20, phases: [{}], batch_size: 8, eval_every: 10, save_every: 20, bn_images: 24}",
            "evaluation.replicates=100",
            "threads=1",
        ],
    )


def test_the_cache_keeps_the_colours(config: Config) -> None:
    source = preparation.open_source(config.data)
    place = preparation.film_rows(source.cache, source.manifest)
    pixels = np.stack([source.cache.pixels[row] for row in place])
    assert pixels.shape == (80, 3, 32, 32)
    red = manifest.values(source.manifest)[:, 0] == 1
    for where, colour in ((red, COLOURS["red"]), (~red, COLOURS["blue"])):
        np.testing.assert_allclose(pixels[where].mean(axis=(0, 2, 3)), colour, atol=2)
    with Image.open(preparation.data_root(config.data) / source.manifest.frame["image"].iloc[0]) as image:
        np.testing.assert_array_equal(pixels[0], np.asarray(image).transpose(2, 0, 1))


@pytest.mark.slow
def test_a_teacher_learns_from_the_three_channels(config: Config, tmp_path: Path, one_thread: None) -> None:
    run = generations.open_run(tmp_path / "run", config, resume=False, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "cpu")
    generations.train_teacher(work)
    generations.evaluate(work)
    measured = read_json(run.generation(0) / "evaluation.json")["splits"]["test"]["image"]
    assert measured["n"] == 16
    # The two colours have the same noise, so what tells them apart is which channel is bright.
    assert measured["labels"]["red"]["auroc"] > 0.9
