#!/usr/bin/env python
"""Count the films a second that one core renders, by process CPU time, at several sizes.

The films are those of a train split as they come: frontal and lateral, with their findings. Writing them is not timed.
"""

from __future__ import annotations

import argparse
import json
import time

from noisy_student.data.synthetic import VERSION, render
from noisy_student.data.synthetic.dataset import rows_of


def main() -> None:
    """Print films/s/core for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224, 320])
    parser.add_argument("--films", type=int, default=400, help="films at 128 pixels; other sizes take as many pixels")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    cases = [row.case for row in rows_of(args.seed, "train", range(1, args.films + 1))]
    rates: dict[str, float] = {}
    for size in args.sizes:
        chosen = cases[: max(8, min(len(cases), round(args.films * (128 / size) ** 2)))]
        render(chosen[:8], size)  # draws the banks of this size, once per process
        start = time.process_time()
        render(chosen, size)
        rates[str(size)] = round(len(chosen) / (time.process_time() - start), 1)
    if args.json:
        print(json.dumps({"version": VERSION, "films": args.films, "films_per_second_per_core": rates}))
        return
    for name, rate in rates.items():
        print(f"{name:>4} px  {rate:7.1f} films/s/core")


if __name__ == "__main__":
    main()
