#!/usr/bin/env python
"""Label efficiency on real films: ours against supervised training on few labels and on all of them.

Gap closed = (ours - few) / (all - few), the ratio of means over seeds of the test macro AUROC.
- ours: `ns iterate` with the configuration, its best generation;
- few: supervised on the whole label budget (labelled and validation films) with the same network, weights and noise;
- all: supervised on every label of the train split, as many films seen as all generations of ours together, every
  network of a cross-fitted run and both views of the self-supervised start counted.

Every finished arm becomes a line of --results and is not run again, so the matrix can be made in parts; what belongs
together has the same configuration file, --set, --rounds and --few-steps.

    python scripts/gap_closed.py --root DIR --seeds 0 1 2 --few-steps 150 --set threads=1
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import results

from noisy_student import generations, preparation, scoring, training
from noisy_student.config import Config, PhaseConfig
from noisy_student.config.load import load
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.learning import fit, losses, predict
from noisy_student.learning.batches import Films
from noisy_student.learning.checkpoint import load as load_network
from noisy_student.runs import Run, text_hash
from noisy_student.targets.table import Targets
from noisy_student.targets.uncertainty import label_targets
from noisy_student.workplace import Workplace

Floats = npt.NDArray[np.float64]
ARMS = ("few", "ours", "all")


def prepared(path: Path, config: Config) -> tuple[Workplace, Manifest, Manifest]:
    """Return the run of ours, prepared, with its manifest and its sealed labels (opened for the benchmark alone)."""
    run = generations.open_run(path, config, resume=True, overwrite=False)
    cache = preparation.prepare(run, config)
    work = Workplace(run, config, cache, "auto")
    return work, manifest.read(run.manifest), manifest.read(run.sealed)


def supervised(work: Workplace, films: Manifest, test: Manifest, phase: PhaseConfig, folder: Path) -> Floats:
    """Return test scores (N, K) of plain supervised training on ``films`` with the phase's fixed schedule."""
    import torch

    config, device = work.config, predict.best_device("auto")
    if config.threads:
        torch.set_num_threads(config.threads)
    images = films.frame["image"].to_numpy(dtype=object)
    target, weight = label_targets(manifest.values(films), config.data.labels, config.targets, images.tolist())
    train = manifest.select(manifest.read(work.run.manifest), split="train")

    def on_device(chosen: Manifest) -> Films:
        return Films(work.cache.pixels, preparation.film_rows(work.cache, chosen), device)

    task = fit.Task(
        generation=0,
        seed=config.seed,
        phase=phase,
        targets=Targets(images, config.data.labels, target, weight, np.zeros(len(images), dtype=bool)),
        films=on_device(films),
        valid_films=on_device(films),
        valid_truth=scoring.known_truth(manifest.values(films), config.targets.blank).astype(np.float32),
        bn_films=on_device(training.clean_sample(train, phase.optim.bn_images, config.seed)),
        pos_weight=losses.positive_weights(target, weight, phase.pos_weight_cap),
        macro_columns=tuple(config.data.labels.index(name) for name in config.macro_labels()),
        precision=config.precision,
        compiled=config.compile,
        search=training.weight_folders(config),
    )
    run = Run(folder)
    fit.fit(run, task, progress=sys.stderr.isatty())
    network, _ = load_network(run.generation(0) / "checkpoint" / "best")
    network.to(device).to(memory_format=torch.channels_last)
    autocast = fit.autocaster(device, config.precision)
    return predict.predict(network, on_device(test), autocast=autocast).astype(np.float64)


def run_arm(arm: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return what is kept of an arm: its measures on the test films, and what it did."""
    config = load(given.config, [f"data.root={given.root}", f"seed={seed}", f"split.seed={seed}", *given.set])
    work, seen, sealed = prepared(given.output / f"ours-{seed}", config)
    test, rounds = manifest.select(sealed, split="test"), given.rounds
    phases = [config.phase(generation).optim for generation in range(rounds + 1)]
    seen_by_ours = config.folds * sum(optim.steps * optim.batch_size for optim in phases)
    if config.pretrain.method != "none":
        seen_by_ours += 2 * config.pretrain.optim.steps * config.pretrain.optim.batch_size
    about: dict[str, Any]
    if arm == "ours":
        report = generations.iterate(work, rounds, say=print)
        aurocs = [entry["test"]["macro"]["auroc"] for entry in report["generations"]]
        scores = scoring.probabilities(work.run, report["best"], "test", test)
        about = {"images_seen": seen_by_ours, "best": report["best"], "generations": aurocs}
    else:
        budget = manifest.rows(seen, ((seen.frame["split"] == "valid") | seen.frame["labelled"]).to_numpy())
        both = Manifest(_stack(budget, manifest.select(sealed, split="train")), budget.labels)
        # The recipe tuned for few films trains few, the recipe tuned for thousands trains all.
        recipe, films = (config.phase(0), budget) if arm == "few" else (config.phase(1), both)
        steps = given.few_steps if arm == "few" else seen_by_ours // recipe.optim.batch_size
        optim = recipe.optim.model_copy(update={"steps": steps, "eval_every": steps})
        phase = recipe.model_copy(update={"optim": optim})
        scores = supervised(work, films, test, phase, given.output / f"{arm}-{seed}")
        about = {"images_seen": steps * optim.batch_size, "films": len(films), "steps": steps}
    measures = results.measured(test, scores, config.macro_labels(), config.targets.blank)
    return {"about": about} | measures


def _stack(first: Manifest, second: Manifest) -> Any:
    import pandas as pd

    return pd.concat([first.frame, second.frame], ignore_index=True)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--config", type=Path, default=Path("configs/kermany160.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--few-steps", type=int, default=400)
    parser.add_argument("--output", type=Path, default=Path("runs/gap_closed"), help="folder of the runs")
    parser.add_argument("--results", type=Path, help="[default: docs/results/<name of the configuration>.jsonl]")
    given = parser.parse_args()
    given.results = given.results or Path("docs/results") / f"{given.config.stem}.jsonl"
    recipe = {
        "config": text_hash(given.config.read_text(encoding="utf-8")),
        "set": given.set,
        "rounds": given.rounds,
        "few_steps": given.few_steps,
    }
    for seed in given.seeds:
        for arm in given.arms:
            if (arm, seed) in results.read(given.results, recipe):
                continue
            start = time.perf_counter()
            line = run_arm(arm, seed, given)
            head = {"arm": arm, "seed": seed, "recipe": recipe, "revision": results.revision()}
            line = head | {"seconds": round(time.perf_counter() - start)} | line
            results.append(given.results, line)
            print(f"{arm} seed {seed}: {line['auroc']:.4f} {line['about']}", flush=True)
    print(json.dumps(results.summarise(results.read(given.results, recipe), given.seeds), indent=1))


if __name__ == "__main__":
    main()
