#!/usr/bin/env python
"""Tables of teachers: start weights, fine-tuning, losses, heads, ensembles and baselines, on development films alone.

kermany160: the labelled set is drawn from the train patients; 52 films of official validation patients calibrate, and
the rest of those patients are the test set here. nih1000: a seed is one of five folds of the train and validation
patients, another fold calibrates, the labels are those with 20 official test films and more. The base is
scripts/teachers.yaml, one network without a self-supervised start; each arm is named by what it changes.
Arms that ask the same networks differently train them once, and the seconds of the others are without that. Every
finished arm and seed becomes a line of --results and is not run again. --official splits the films as the data
set does: once, for what was chosen.

    python scripts/compare_teachers.py --root DIR --tables start losses
    python scripts/compare_teachers.py --root DIR --labelled all --steps 300 --seeds 0 1 2
    python scripts/compare_teachers.py --data nih1000 --root DIR --labelled all --steps 300 --tables losses heads
    python scripts/compare_teachers.py --root DIR --official --tables defaults --against "plain fine-tune"
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import development
import frozen
import measuring
import numpy as np
import numpy.typing as npt
import results
import sharing

from noisy_student import generations, prediction, preparation, scoring
from noisy_student.config.load import load
from noisy_student.data import manifest
from noisy_student.data.manifest import Manifest
from noisy_student.runs import atomic, text_hash
from noisy_student.targets.uncertainty import label_targets
from noisy_student.workplace import Workplace

Floats = npt.NDArray[np.float64]
BASE: Final = "base"
"""The arm that changes nothing."""
FROZEN: Final = "frozen features + logistic regression"
OTHER: Final = (
    "{name: squeezenet1_1, weights: squeezenet1_1_features-deepcognition_fp32-b135c74f.pth, normalisation: imagenet}"
)
"""The second architecture of an ensemble."""
PLAIN: Final = (
    "teacher.optim.phases=[{trainable: all}]", "teacher.optim.backbone_lr_ratio=1", "teacher.optim.ema_decay=0",
    "teacher.noise={strength: 2, count: 0}", "teacher.model.dropout=0", "teacher.pos_weight_cap=1",
)  # fmt: skip
"""The head replaced, all layers at AdamW 1e-3, weak noise: a plain fine-tune."""

REVISION: Final = results.revision()
"""Of the code that runs, which is read now: a commit may come while it does."""
ALIKE: Final = ("folds=1", "threads=1", "pretrain.method=none", "prediction.tta=none", "student.start=weights")
"""What all arms have alike, whatever the configuration says."""

UNUSED: Final = ("folds", "prediction", "pretrain", "pseudo", "student")
"""Sections of the configuration that no arm takes anything from."""

BYOL: Final = (
    "pretrain={method: byol, optim: {steps: 200, batch_size: 64, lr: 2e-3, backbone_lr_ratio: 0.3, save_every: 100}}"
)
"""A self-supervised start of 200 steps on views of one film."""

AT_ONCE: Final = "teacher.optim.phases=[{trainable: all}]"
"""All layers from the first step on, as where nothing has taught them; a head alone would be refused there."""

SEEDS: Final = "teacher.members=[{}, {}, {}]"

TABLES: Final[dict[str, dict[str, Sequence[str]]]] = {
    "start": {
        "scratch": ["teacher.model.weights=none", AT_ONCE],
        "Mean-Var": ["teacher.model.initialise=mean_var", AT_ONCE],
        "lowest 6 of 19 blocks": ["teacher.model.initialise=lowest", "teacher.model.pretrained_blocks=6", AT_ONCE],
        "lowest 12 of 19 blocks": ["teacher.model.initialise=lowest", "teacher.model.pretrained_blocks=12", AT_ONCE],
    },
    "self-supervised start": {
        "ImageNet, then self-supervised": [BYOL],
        "the same by patient": [BYOL, "pretrain.pairs=patient"],
    },
    "fine-tuning": {
        "head only": ["teacher.optim.phases=[{trainable: head}]"],
        "all at once": [AT_ONCE],
        "head, highest 6 blocks, all": [
            "teacher.optim.phases=[{trainable: head, steps: 30}, {trainable: 6, steps: 40}, {trainable: all}]"
        ],
        "layer-wise decay 0.9": ["teacher.optim.layer_decay=0.9", "teacher.optim.backbone_lr_ratio=1"],
    },
    "losses": {
        "plain BCE": ["teacher.loss.name=bce", "teacher.pos_weight_cap=1"],
        "focal": ["teacher.loss.name=focal", "teacher.pos_weight_cap=1"],
        "asymmetric": ["teacher.loss.name=asymmetric", "teacher.pos_weight_cap=1"],
        "logit-adjusted": ["teacher.loss.name=logit_adjusted", "teacher.pos_weight_cap=1"],
        "AUC-margin": ["teacher.loss.name=auc_margin", "teacher.pos_weight_cap=1", "teacher.sampler.positives=2"],
        "label smoothing 0.1": ["teacher.loss.smoothing=0.1"],
    },
    "heads": {"hidden layer": ["teacher.model.head=hidden"]},
    "ensembles": {
        "two seeds": ["teacher.members=[{}, {}]"],
        "three seeds": [SEEDS],
        "two architectures": [f"teacher.members=[{{}}, {{model: {OTHER}}}]"],
        "flip at prediction": ["prediction.tta=flip"],
        "eight light views at prediction": ["prediction.tta=8"],
    },
    "defaults": {
        "three seeds, flip": [SEEDS, "prediction.tta=flip"],
        FROZEN: [],
        "plain fine-tune": PLAIN,
        "plain fine-tune, three seeds, flip": [*PLAIN, SEEDS, "prediction.tta=flip"],
    },
}  # fmt: skip


def written_table(given: argparse.Namespace, seed: int) -> list[str]:
    """Write the table of the films; return the settings that name them."""
    table, settings = development.TABLES[given.data](given.root, seed, official=given.official)
    kind = "official" if given.official else "development"
    path = (given.output / f"films-{given.data}-{kind}-{seed}.csv").resolve()
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False)
    return [f"data.root={given.root}", f"data.csv={path}", *settings]


def recipe_of(changes: Sequence[str], given: argparse.Namespace) -> dict[str, Any]:
    """Return what makes two lines of an arm comparable."""
    config = results.recipe_key(given.config, without=UNUSED)
    recipe = {"config": config, "labelled": given.labelled, "steps": given.steps, "set": list(changes)}
    if given.data != "kermany160":
        recipe["data"] = given.data
    return recipe | {"films": "official"} if given.official else recipe


def run_arm(arm: str, changes: Sequence[str], seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Return what is kept of an arm: its measures on the test films of the table, and how long it took."""
    start = time.perf_counter()
    name = f"{text_hash(json.dumps([arm, recipe_of(changes, given)]))[:8]}-{seed}"
    budget = [f"split.labelled_images={given.labelled}"]
    if given.labelled == "all":
        budget = ["split.labelled_images=null", "split.labelled_fraction=1"]
    fixed = [f"seed={seed}", f"split.seed={seed}", *ALIKE, *written_table(given, seed)]
    fixed += [*budget, f"teacher.optim.steps={given.steps}"]
    config = load(given.config, [*fixed, *changes])
    run = generations.open_run(given.output / name, config, resume=True, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config))
    test = manifest.select(manifest.read(run.sealed), split="test")
    results.check_test_films(test, config.macro_labels(), config.targets.blank)
    taken: list[str] = []
    if arm == FROZEN:
        scores = regressed(work, test)
    else:
        taken = sharing.take_over(run, config, given.output)
        generations.train_teacher(work)
        said = prediction.said(work, 0, prediction.predict_networks(work, 0, test, work.cache, arm))
        scores = scoring.calibrations(run, 0).image(said)
    found = results.measured(test, scores, config.macro_labels(), config.targets.blank)
    about = {"taken_over": taken} if taken else {}
    return {"seconds": round(time.perf_counter() - start), "films": len(test)} | about | found


def regressed(work: Workplace, test: Manifest) -> Floats:
    """Return probabilities (N, K) by logistic regression on features of the start weights."""
    config = work.config
    films = manifest.select(manifest.read(work.run.manifest), split="train", labelled=True)
    images = films.frame["image"].tolist()
    taught = label_targets(manifest.values(films), config.data.labels, config.targets, images)
    seen, asked = frozen.features(work, films, test)
    return frozen.regress(seen, *taught, films.frame["patient"].to_numpy(), asked)


def rows(lines: Mapping[tuple[str, int], Mapping[str, Any]], seeds: Sequence[int], against: str) -> Iterator[str]:
    """Yield the lines of a Markdown table of arms that are all there for all ``seeds``, ``against`` one of them.

    The interval of a difference resamples seeds and patients, the same for both arms: crossed, and within its fold
    where a seed is a fold.
    """
    yield f"| arm | mean | SD | minus {against} (95 % interval) |\n|---|---|---|---|"
    arms = list(dict.fromkeys(arm for arm, _ in lines))
    area = {arm: np.array([lines[arm, seed]["auroc"] for seed in seeds]) for arm in arms}
    draws = results.drawn(lines, arms, seeds)
    for arm in arms:
        change = ""
        if arm != against:
            low, high = np.nanquantile(draws[arm] - draws[against], [0.025, 0.975])
            change = f"{area[arm].mean() - area[against].mean():+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
        spread = f"{area[arm].std(ddof=1):.3f}" if len(seeds) > 1 else "–"
        yield f"| {arm} | {area[arm].mean():.3f} | {spread} | {change} |"


def _films(text: str) -> int | str:
    return text if text == "all" else int(text)


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--data", choices=development.TABLES, default="kermany160")
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("teachers.yaml"))
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--against", default=BASE, metavar="ARM", help="what differences are from [default: base]")
    parser.add_argument("--labelled", type=_films, default=52, metavar="N", help="labelled films, or all [default: 52]")
    parser.add_argument("--official", action="store_true", help="the official split, test films included")
    parser.add_argument("--steps", type=int, default=150, help="training steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, default=Path("runs/compare_teachers"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("docs/results/teachers.jsonl"))
    given = parser.parse_args()
    if wrong := [title for title in given.tables if given.against not in (BASE, *TABLES[title])]:
        parser.error(f"--against {given.against}: is no arm of the table {wrong[0]}: {', '.join(TABLES[wrong[0]])}")
    for title in given.tables:
        lines: dict[tuple[str, int], dict[str, Any]] = {}
        for seed in given.seeds:
            for arm, changes in {BASE: (), **TABLES[title]}.items():
                recipe = recipe_of(changes, given)
                kept = {key: line for key, line in results.read(given.results, recipe).items() if key[0] == arm}
                if (arm, seed) not in kept:
                    head = {"arm": arm, "seed": seed, "recipe": recipe, "revision": REVISION}
                    kept[arm, seed] = head | run_arm(arm, changes, seed, given)
                    results.append(given.results, kept[arm, seed])
                lines[arm, seed] = kept[arm, seed]
                print(f"{title}: {arm}, seed {seed}: {kept[arm, seed]['auroc']:.4f}", flush=True)
        print(f"\n{title}, {given.data}, {given.labelled} labelled films, {len(given.seeds)} seeds")
        print("\n".join(rows(lines, given.seeds, given.against)), flush=True)


if __name__ == "__main__":
    with measuring.plainly():
        main()
