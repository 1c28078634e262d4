#!/usr/bin/env python
"""Time and memory of CheXpert's tables: statistics in the command, and manifest, 1 % split and targets.

``--csv`` is the official train.csv: statistics read it in place, the split a copy beside a one-row valid.csv.

    python scripts/bench_tables.py --csv /data/CheXpert-v1.0-small/train.csv
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

STATISTICS = "from noisy_student.cli import main; main({arguments})"
TARGETS = """
from pathlib import Path
from noisy_student.config import DataConfig, SplitConfig, TargetsConfig
from noisy_student.data import manifest, sources, splits
from noisy_student.targets.uncertainty import label_targets
config = DataConfig(source="chexpert", root=Path({root!r}))
films = sources.load(config, images=False)
chosen, _ = splits.assign(films, SplitConfig(labelled_fraction=0.01, validation="carve"))
labelled = manifest.select(chosen, split="train", labelled=True)
label_targets(manifest.values(labelled), config.labels, TargetsConfig(), labelled.frame["image"].tolist())
print(len(films), len(labelled))
"""
PEAK = "\nimport atexit\natexit.register(lambda: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0],"


def call(code: str) -> dict[str, Any]:
    """Return wall and processor seconds, peak memory in GB, and the output of ``code`` in a fresh process."""
    head = f"{PEAK} file=__import__('sys').stderr))\n"
    before, since = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, after = time.perf_counter() - since, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "cpu_seconds": used, "gb": int(done.stderr.split()[-1]) / 1e6, "output": done.stdout}


def main() -> None:
    """Run both a few times and print the medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="the official train.csv")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    arguments = ["data", "stats", "--source", "chexpert", "--csv", str(given.csv), "--no-images", "--json"]
    folder = Path(tempfile.mkdtemp(prefix="bench_tables-"))
    table = given.csv.read_text(encoding="utf-8")
    (folder / "train.csv").write_text(table, encoding="utf-8")
    header, first = table.splitlines()[:2]
    # One row of another patient makes it a data set: with a carved validation it is the test set.
    moved = first.replace("/train/", "/valid/").replace(first.split("/patient")[1][:5], "64541", 1)
    (folder / "valid.csv").write_text(f"{header}\n{moved}\n", encoding="utf-8")
    tasks = {
        "ns data stats": STATISTICS.format(arguments=arguments),
        "manifest, 1 % split, targets": TARGETS.format(root=str(folder)),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    for _ in range(given.rounds):
        for name, code in tasks.items():
            runs[name].append(call(code))
    result = {
        name: {
            key: [float(np.quantile([one[key] for one in found], q)) for q in (0.5, 0, 1)]
            for key in found[0]
            if key != "output"
        }
        for name, found in runs.items()
    }
    shutil.rmtree(folder)
    if given.json:
        print(json.dumps(result, indent=1))
        return
    everything = json.loads(runs["ns data stats"][0]["output"])["all"]
    print(f"{everything['images']:,} films, {everything['studies']:,} studies, {everything['patients']:,} patients")
    for name, figures in result.items():
        for key, (median, low, high) in figures.items():
            print(f"{name:<30} {key:<12} {median:6.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
