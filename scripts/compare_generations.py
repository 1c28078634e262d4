#!/usr/bin/env python
"""Compare two generations of a finished run on the same test patients: macro AUROC, paired, with its interval.

python scripts/compare_generations.py runs/demo --first 0 --last 3
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import measuring

from noisy_student import generations, scoring
from noisy_student.data import manifest
from noisy_student.stats.comparison import difference_json
from noisy_student.stats.intervals import compare


def main() -> None:
    """Print the difference of the test macro AUROC, ``last`` minus ``first``, with its interval and p-value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, required=True)
    given = parser.parse_args()
    run, config = generations.existing_run(given.run)
    films = manifest.select(manifest.read(run.sealed), split="test")
    first, last = (scoring.probabilities(run, number, "test", films) for number in (given.first, given.last))
    found = compare(
        scoring.known_truth(manifest.values(films), config.targets.blank),
        first,
        last,
        scoring.codes(films.frame["patient"]),
        [config.data.labels.index(name) for name in config.macro_labels()],
        config.evaluation.replicates,
        config.seed,
        config.evaluation.confidence,
    )
    print(json.dumps(difference_json(found.auroc), indent=1))


if __name__ == "__main__":
    with measuring.plainly():
        main()
