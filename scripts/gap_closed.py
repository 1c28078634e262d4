#!/usr/bin/env python
"""Label efficiency on real films: ours against supervised training on few labels and on all of them.

Gap closed = (ours - few) / (all - few), the ratio of means over seeds of the test macro AUROC.
- ours: `ns iterate` with the configuration, its best generation;
- few: supervised on the whole label budget (labelled and validation films) with the same network, weights and noise;
- all: supervised on every label of the train split, as many films seen as all generations of ours together, every
  network of a cross-fitted run and both views of the self-supervised start counted.

Every finished arm is kept below --output and not run again, so the matrix can be made in parts.

    python scripts/gap_closed.py --root DIR --seeds 0 1 2 --output runs/gap_closed
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student import evaluation, generations, preparation, training
from noisy_student.config import Config, PhaseConfig
from noisy_student.config.load import load
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.errors import UsageError
from noisy_student.learning import fit, losses, predict
from noisy_student.learning.batches import Films
from noisy_student.learning.checkpoint import load as load_network
from noisy_student.runs import Run, read_json, write_json
from noisy_student.stats.intervals import bootstrap_auroc, macro
from noisy_student.targets.table import Targets
from noisy_student.targets.uncertainty import label_targets
from noisy_student.workplace import Workplace

Floats = npt.NDArray[np.float64]
ARMS = ("few", "ours", "all")
LEAST_DENOMINATOR = 0.02
"""Below this lower bound of all - few a ratio says nothing, and none is given."""


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
        valid_truth=evaluation.known_truth(manifest.values(films), config.targets.blank).astype(np.float32),
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


def run_arm(arm: str, seed: int, given: argparse.Namespace) -> tuple[Floats, dict[str, Any]]:
    """Return the test scores of an arm and what it did."""
    config = load(given.config, [f"data.root={given.root}", f"seed={seed}", f"split.seed={seed}", *given.set])
    work, seen, sealed = prepared(given.output / f"ours-{seed}", config)
    test, rounds = manifest.select(sealed, split="test"), given.rounds
    if arm == "ours":
        report = generations.iterate(work, rounds, say=print)
        best = report["best"]
        aurocs = [entry["test"]["macro"]["auroc"] for entry in report["generations"]]
        return evaluation.probabilities(work.run, best, "test", test), {"best": best, "generations": aurocs}
    budget = manifest.rows(seen, ((seen.frame["split"] == "valid") | seen.frame["labelled"]).to_numpy())
    pool = manifest.select(sealed, split="train")
    both = Manifest(_stack(budget, pool), budget.labels)
    phases = [config.phase(generation).optim for generation in range(rounds + 1)]
    seen_by_ours = config.folds * sum(optim.steps * optim.batch_size for optim in phases)
    if config.pretrain.method != "none":
        seen_by_ours += 2 * config.pretrain.optim.steps * config.pretrain.optim.batch_size
    # The recipe tuned for few films trains few, the recipe tuned for thousands trains all.
    recipe, films = (config.phase(0), budget) if arm == "few" else (config.phase(1), both)
    steps = given.few_steps if arm == "few" else seen_by_ours // recipe.optim.batch_size
    optim = recipe.optim.model_copy(update={"steps": steps, "eval_every": steps})
    phase = recipe.model_copy(update={"optim": optim})
    scores = supervised(work, films, test, phase, given.output / f"{arm}-{seed}")
    return scores, {"films": len(films), "steps": steps}


def _stack(first: Manifest, second: Manifest) -> Any:
    import pandas as pd

    return pd.concat([first.frame, second.frame], ignore_index=True)


def summarise(given: argparse.Namespace, replicates: int = 2000) -> dict[str, Any]:
    """Return the AUROCs of all finished arms, the gap closed and its interval (seeds and patients resampled)."""
    aurocs: dict[str, list[float]] = {arm: [] for arm in ARMS}
    draws: dict[str, list[Floats]] = {arm: [] for arm in ARMS}
    for seed in given.seeds:
        run = Run(given.output / f"ours-{seed}")
        config_tree = read_json(run.path / "config.resolved.json")
        labels = config_tree["data"]["labels"]
        columns = [labels.index(name) for name in config_tree["evaluation"]["macro_labels"] or labels]
        test = manifest.select(manifest.read(run.sealed), split="test")
        truth = evaluation.known_truth(manifest.values(test), config_tree["targets"]["blank"])
        patients = evaluation.codes(test.frame["patient"])
        for arm in ARMS:
            stored = read_json(given.output / f"{arm}-{seed}.json")
            scores = np.asarray(stored["scores"], dtype=np.float64)
            aurocs[arm].append(stored["auroc"])
            # The same patients are drawn for every arm and seed: the interval is of the paired ratio.
            draws[arm].append(macro(bootstrap_auroc(truth, scores, patients, replicates, 0), columns))
    picked = np.random.default_rng(0).integers(0, len(given.seeds), (replicates, len(given.seeds)))
    rows = np.arange(replicates)[:, None]
    mean = {arm: np.stack(draws[arm], axis=1)[rows, picked].mean(axis=1) for arm in ARMS}
    low_denominator = float(np.quantile(mean["all"] - mean["few"], 0.025))
    centre = {arm: float(np.mean(aurocs[arm])) for arm in ARMS}
    gap, ci = None, None
    if low_denominator >= LEAST_DENOMINATOR:
        gap = (centre["ours"] - centre["few"]) / (centre["all"] - centre["few"])
        ratio = (mean["ours"] - mean["few"]) / (mean["all"] - mean["few"])
        ci = [float(np.quantile(ratio, q)) for q in (0.025, 0.975)]
    return {
        "seeds": given.seeds,
        "auroc": aurocs,
        "mean": centre,
        "sd": {arm: float(np.std(aurocs[arm], ddof=1)) if len(given.seeds) > 1 else None for arm in ARMS},
        "gap_closed": gap,
        "ci": ci,
        "all_minus_few_lower_bound": low_denominator,
        "ours_minus_few_ci": [float(np.quantile(mean["ours"] - mean["few"], q)) for q in (0.025, 0.975)],
    }


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
    parser.add_argument("--output", type=Path, default=Path("runs/gap_closed"))
    given = parser.parse_args()
    for seed in given.seeds:
        for arm in given.arms:
            path = given.output / f"{arm}-{seed}.json"
            settings = [given.rounds, given.few_steps, str(given.config), *given.set]
            if path.exists():
                kept = read_json(path)["settings"]
                if kept != settings:
                    raise UsageError(f"{path}: was made with {kept}, not {settings}", "Choose another --output.")
                continue
            scores, info = run_arm(arm, seed, given)
            run = Run(given.output / f"ours-{seed}")
            test = manifest.select(manifest.read(run.sealed), split="test")
            labels = list(test.labels)
            tree = read_json(run.path / "config.resolved.json")
            columns = [labels.index(name) for name in tree["evaluation"]["macro_labels"] or labels]
            blank = tree["targets"]["blank"]
            auroc = float(np.mean([evaluation.area(manifest.values(test)[:, k], scores[:, k], blank) for k in columns]))
            write_json(
                path,
                {"arm": arm, "seed": seed, "settings": settings, "auroc": auroc, **info, "scores": scores.tolist()},
            )
            print(f"{arm} seed {seed}: {auroc:.4f} {info}", flush=True)
    if all((given.output / f"{arm}-{seed}.json").exists() for seed in given.seeds for arm in ARMS):
        print(json.dumps(summarise(given), indent=1))


if __name__ == "__main__":
    main()
