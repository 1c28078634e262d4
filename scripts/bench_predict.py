#!/usr/bin/env python
"""Prediction against the model alone, side by side: films/s of the real paths over films/s of a bare forward pass.

The bound is ``forward`` under inference mode on one resident random batch. ``stage`` is ``learning.predict.predict`` on
films of a memory map, as the stages of a run predict; ``asked`` is ``Model.answers`` on decoded films, as ``ns
predict`` asks (calibration, spread and features with it); ``files`` is ``ns predict`` in full, from JPEGs to the CSV,
decoding beside the network, and has no bound of its own. Rounds alternate, so that a change of the machine's speed
hits all.

    python scripts/bench_predict.py --model mobilenet_v2 --size 96 --rounds 5 --json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Variant, about, make_films, peak_memory, ratios, spread, take_turns, told
from stepping import random_batch

from noisy_student.config import ModelConfig
from noisy_student.data.decode import DecodeSettings
from noisy_student.deploy import answers
from noisy_student.deploy.familiarity import Familiarity, intensities
from noisy_student.deploy.model import BATCH, Model
from noisy_student.deploy.recipe import Recipe
from noisy_student.learning import fit, machine, models, predict
from noisy_student.learning.batches import Films
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.stats.consensus import Consensus, Fitted
from noisy_student.stats.familiarity import familiar
from noisy_student.stats.operating import KINDS, Threshold

LABELS = ("a", "b", "c", "d")


def model(name: str, size: int, device: torch.device) -> Model:
    """Return an untrained model with a calibration, thresholds, and knowledge of random films."""
    network = models.build(ModelConfig(name=name), LABELS, 1, size, seed=0).eval()
    network.to(device).to(memory_format=torch.channels_last)
    points = {label: {kind: Threshold(0.5, "validation", None, None) for kind in KINDS} for label in LABELS}
    fitted = Consensus((Fitted(Calibration(LABELS, (Platt(0.5, 1.1, 0.1, False, 9, 9),) * len(LABELS))),))
    recipe = Recipe("bench", 0, LABELS, DecodeSettings(size, 1), (), fitted, points, "none", 0, "auto", 0, "bench")
    made = Model(recipe, (network,), device, Path())
    draw = np.random.default_rng(0).integers(0, 256, (256, 1, size, size), dtype=np.uint8)
    known = familiar(intensities(draw)), familiar(made.ask(draw)[1])
    assert known[0] is not None
    assert known[1] is not None
    return Model(recipe, (network,), device, Path(), Familiarity(known[0], known[1]))


def bare(made: Model, batch: int, count: int) -> Variant:
    """Return a function that takes ``count`` films in batches of ``batch`` through the network alone."""
    size, network = made.recipe.decode.size, made.networks[0]
    images, _ = random_batch(batch, size, made.device)
    autocast = fit.autocaster(made.device, "auto")

    def work(_: int) -> None:
        with torch.inference_mode(), autocast():
            for _ in range(count // batch):
                network(images)

    return work


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--films", type=int, default=1024)
    parser.add_argument("--source-size", type=int, default=320, help="side of the JPEGs of 'files'")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    machine.prepare(0)
    device, batch = predict.best_device(given.device), BATCH
    count = max(batch, given.films // batch * batch)
    made = model(given.model, given.size, device)
    pixels = np.random.default_rng(1).integers(0, 256, (count, 1, given.size, given.size), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "pixels.npy", pixels)
        mapped = np.load(folder / "pixels.npy", mmap_mode="r")
        (folder / "films").mkdir()
        make_films(folder / "films", count, given.source_size, given.source_size)

        def stage(_: int) -> None:
            films = Films(mapped, np.arange(count), device, resident=False)
            predict.predict(made.networks[0], films, autocast=fit.autocaster(device, "auto"))

        def asked(_: int) -> None:
            for start in range(0, count, batch):
                made.answers(pixels[start : start + batch])

        def files(_: int) -> None:
            workers = max(1, (os.cpu_count() or 1) - 1)
            answers.write(made, [str(folder / "films")], folder / "out.csv", overwrite=True, workers=workers)

        ways = {"model": bare(made, predict.batch_size(device), count), "stage": stage, "asked": asked, "files": files}
        times = take_turns(ways, given.rounds, device)
    speeds = {name: [count / wall for wall, _ in rounds] for name, rounds in times.items()}
    result: dict[str, Any] = {
        "model": given.model,
        "size": given.size,
        "films": count,
        **about(device),
        "films_per_second": {name: spread(found) for name, found in speeds.items()},
        "ratio": {name: ratios(speeds[name], speeds["model"]) for name in ways if name != "model"},
        **peak_memory(device),
    }
    if given.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{given.model} at {given.size} px, {count} films, {result['device']}, load {result['load']}")
    for name, found in result["films_per_second"].items():
        print(told(name, found, " films/s"))
    for name, found in result["ratio"].items():
        print(told(f"{name} / model", found))
    print(f"peak memory {result['peak_memory_mb']:.0f} MB")


if __name__ == "__main__":
    main()
