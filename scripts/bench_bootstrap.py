#!/usr/bin/env python
"""Time the patient bootstrap of the AUROC against a loop over scikit-learn's ``roc_auc_score``.

The loop is run for a few replicates and extrapolated; both get the same resamples, and the AUROCs must agree.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice

import numpy as np
from sklearn.metrics import roc_auc_score

from noisy_student.stats.intervals import bootstrap_auroc, resample_counts


def main() -> None:
    """Print seconds and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=20_000)
    parser.add_argument("--patients", type=int, default=15_000)
    parser.add_argument("--labels", type=int, default=14)
    parser.add_argument("--replicates", type=int, default=2_000)
    parser.add_argument("--loop-replicates", type=int, default=4, help="replicates that scikit-learn is timed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    patients = rng.integers(0, args.patients, args.films)
    prevalence = np.geomspace(0.01, 0.5, args.labels)
    truth = (rng.random((args.films, args.labels)) < prevalence).astype(np.float64)
    score = rng.normal(size=truth.shape) + truth

    start = time.perf_counter()
    ours = bootstrap_auroc(truth, score, patients, args.replicates, args.seed)
    seconds = time.perf_counter() - start

    loops = min(args.loop_replicates, args.replicates)
    code = np.unique(patients, return_inverse=True)[1]
    resamples = (row for block in resample_counts(patients, args.replicates, args.seed) for row in block)
    start = time.perf_counter()
    theirs = []
    for counts in islice(resamples, loops):
        rows = np.repeat(np.arange(args.films), counts[code])
        theirs.append([roc_auc_score(truth[rows, label], score[rows, label]) for label in range(args.labels)])
    loop_seconds = (time.perf_counter() - start) / loops * args.replicates

    result = {
        "films": args.films,
        "labels": args.labels,
        "replicates": args.replicates,
        "seconds": round(seconds, 3),
        "scikit_learn_seconds_extrapolated": round(loop_seconds, 1),
        "ratio": round(loop_seconds / seconds, 1),
        "largest_difference": float(np.abs(ours[:loops] - np.array(theirs)).max()),
    }
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
