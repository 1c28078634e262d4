#!/usr/bin/env python
"""A rehearsal of CheXpert at full size without its pixels: time and memory of every stage, on synthetic films.

Makes a data set in CheXpert's layout, 223,414 train films of 64 pixels in files of their own, and runs on it what a
user runs: ``ns data prepare`` and ``ns iterate --rounds 1`` with 1 % of the patients labelled (configs/rehearsal.yaml).
Meanwhile the resident memory of all its processes is read twice a second. With ``--csv`` the rows are those of the
official train.csv, and films show what its labels say. A second call goes on where the first one was ended.

    python scripts/rehearse.py --output rehearsal
    python scripts/rehearse.py --output rehearsal --films 2000 4000 8000     # how times grow with the films

Several sizes end with an exponent for each stage: 1 is as the films, 2 quadratic, 0 does not depend on them. It is
taken of processor time, which other work on the machine changes less than the clock.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from tqdm import tqdm

from noisy_student import preparation
from noisy_student.data.sources.chexpert import split_paths
from noisy_student.data.synthetic.cases import SPLITS, Case, Projection
from noisy_student.data.synthetic.dataset import FIRST_PATIENT, PREFIX, Row, rows_of, table, write_films
from noisy_student.labels import OBSERVATIONS
from noisy_student.randomness import uniform
from noisy_student.runs import atomic, check_free_space, read_json, write_json, write_text

ROWS: Final = 223_414
"""Films of CheXpert's train table."""
PATIENTS: Final = 64_540
OTHER_PATIENTS: Final = {"valid": 200, "test": 500}
"""Patients of the other tables; none of a smaller rehearsal has fewer than a fifth of them."""
SIZE: Final = 64
SEED: Final = 7
FEWEST_LABELLED: Final = 100
"""Labelled patients of a small rehearsal: of fewer, the rarest labels have no positive."""
LIMIT_GB: Final = 6.0
EVERY: Final = 0.5
"""Seconds between two looks at the memory."""
CONFIG: Final = Path(__file__).parents[1] / "configs" / "rehearsal.yaml"
_TAG: Final = 0x52454845
_CHUNK: Final = 512
_SHORT: Final = 0.5
"""Seconds below which a stage's growth says more about the clock than about the stage."""


@dataclass(frozen=True)
class Stage:
    """What a stage took: ``films`` that it worked on, where that can be said, and the peak of resident memory.

    ``gb`` counts pages of mapped files as well, which the system takes back where it needs them, and pages that
    processes share once for each: it is an upper bound. ``own_gb`` is without files.
    """

    name: str
    seconds: float
    cpu_seconds: float | None
    films: int | None
    gb: float | None
    own_gb: float | None


# -- films ---------------------------------------------------------------------------------------------------------


def generated(count: int) -> Iterator[Row]:
    """Yield the first ``count`` rows of a train table with CheXpert's shares of labels and studies a patient."""
    # The numbers after CheXpert's own train patients are those of valid and test.
    blocks = [range(first, min(first + 2000, PATIENTS + 1)) for first in range(1, PATIENTS + 1, 2000)]
    more = (range(first, first + 2000) for first in itertools.count(70_001, 2000))
    every = itertools.chain.from_iterable(rows_of(SEED, "train", b, "chexpert") for b in itertools.chain(blocks, more))
    return itertools.islice(every, count)


def official(frame: pd.DataFrame) -> Iterator[Row]:
    """Yield the rows of the official train table, with severities drawn for what it says of each study.

    Films need not teach anybody: what is said to be there is there, and half of what is uncertain.
    """
    parts = split_paths(frame["Path"])
    patients = parts["patient"].str.removeprefix("patient").astype(int).to_numpy()
    studies = parts["study"].str.extract(r"study(\d+)$")[0].astype(int).to_numpy()
    told = frame[list(OBSERVATIONS)].to_numpy(dtype=np.float64)
    u = uniform(SEED, _TAG, patients[:, None, None], studies[:, None, None], np.arange(2)[:, None], np.arange(14))
    present = (told == 1) | ((told == -1) & (u[:, 0] < 0.5))
    severity = np.round(np.where(present, 0.15 + 0.85 * u[:, 1], 0.0), 4)
    severity[:, 0] = 0  # No Finding
    view = frame.groupby([patients, studies]).cumcount().to_numpy() + 1
    columns = (patients, studies, view, severity, told, frame["Age"].to_numpy(), (frame["Sex"] == "Female").to_numpy())
    lists = zip(parts["image"], parts["view"], frame["AP/PA"], *(values.tolist() for values in columns), strict=True)
    for image, side, filmed, patient, study, number, degrees, labels, age, female in lists:
        projection: Projection = "LL" if side == "lateral" else "PA" if filmed == "PA" else "AP"
        case = Case(SEED, SPLITS["train"], patient, study, number, projection, female, tuple(degrees))
        yield Row(image, case, age, tuple(labels))


def make_films(root: Path, count: int, csv: Path | None) -> int:
    """Return how many films were missing, after making them; the tables are written last.

    Raises:
        StorageError: there is no room for them.
    """
    share = count / ROWS
    tables: dict[str, list[Row]] = {}
    frame = None if csv is None else pd.read_csv(csv).iloc[:count]
    tables["train"] = list(generated(count) if frame is None else official(frame))
    for split, patients in OTHER_PATIENTS.items():
        numbers = range(FIRST_PATIENT[split], FIRST_PATIENT[split] + max(patients // 5, round(share * patients)))
        tables[split] = list(rows_of(SEED, split, numbers, "chexpert"))
    # Each folder is listed once; asking for 223,414 files one by one takes longer.
    there = {path.relative_to(root).as_posix() for path in root.glob("*/patient*/study*/*.jpg")}
    missing = [row for rows in tables.values() for row in rows if row.path not in there]
    check_free_space(root, len(missing) * 8192, "the films of the rehearsal")
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    context = multiprocessing.get_context("spawn")
    with (
        tqdm(total=len(missing), unit="film", desc="films", disable=None) as bar,
        ProcessPoolExecutor(preparation.workers(), mp_context=context) as pool,
    ):
        for made in pool.map(write_films, itertools.repeat(root), chunks, itertools.repeat(SIZE)):
            bar.update(made)
    for split, rows in tables.items():
        if split == "train" and frame is not None:
            with atomic(root / "train.csv") as temporary:
                frame.to_csv(temporary, index=False, lineterminator="\n")
        else:
            write_text(root / f"{split}.csv", table(rows).to_csv(index=False, lineterminator="\n"))
    return len(missing)


# -- memory --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a process and all below it hold and have used so far."""

    resident: int
    """Bytes in memory, those of mapped files among them."""
    own: int
    """Bytes in memory without files."""
    cpu: float
    """Processor seconds, those of processes that have ended among them."""


def usage(pid: int) -> Usage:
    """Return the usage of a process and all below it; zeros where there is no ``/proc``."""
    below: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of the program, in brackets, may hold anything.
            words = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        one = int(entry.parent.name)
        below.setdefault(int(words[1]), []).append(one)
        ticks[one] = sum(map(int, words[11:15]))  # its own and those of children it has waited for
    sizes, spent, waiting = {"VmRSS": 0, "RssAnon": 0}, 0, [pid]
    while waiting:
        one = waiting.pop()
        waiting += below.get(one, [])
        spent += ticks.get(one, 0)
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] += 1024 * int(value.split()[0])
    return Usage(sizes["VmRSS"], sizes["RssAnon"], spent / os.sysconf("SC_CLK_TCK"))


class Watch:
    """Usage of a process and those below it, read now and then and kept as lines of JSON in a file."""

    def __init__(self, pid: int, name: str, path: Path) -> None:
        self.pid, self.name, self.path = pid, name, path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._note(event="start")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._note(event="end")

    def _look(self) -> None:
        while not self._over.wait(EVERY):
            found = usage(self.pid)
            if found.resident:
                self._note(**asdict(found))

    def _note(self, **values: Any) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"what": self.name, "at": time.time(), **values}) + "\n")


# -- stages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Notes:
    """What :class:`Watch` wrote: when calls started and ended, and memory in between."""

    lines: list[dict[str, Any]]

    def _between(self, start: float, end: float) -> list[dict[str, Any]]:
        return [line for line in self.lines if "resident" in line and start <= line["at"] <= end]

    def peak(self, start: float, end: float) -> tuple[float | None, float | None]:
        """Return the largest memory in GB from ``start`` to ``end``, with and without files; None without a sample."""
        seen = self._between(start, end)
        if not seen:
            return None, None
        return max(line["resident"] for line in seen) / 1e9, max(line["own"] for line in seen) / 1e9

    def cpu(self, start: float, end: float) -> float | None:
        """Return the processor seconds from ``start`` to ``end``, both within a call; None without a sample."""
        began = max(at for at in self.events("start") if at <= end)
        seen = self._between(began, min((at for at in self.events("end") if at >= end), default=math.inf))
        if not seen:
            return None
        before, after = np.interp([start, end], [line["at"] for line in seen], [line["cpu"] for line in seen])
        # A call of its own has used nothing when it starts; what makes the films is this process.
        return float(after) if start == began and seen[0]["what"] != "films" else float(after - before)

    def events(self, kind: str) -> list[float]:
        """Return when calls had their "start" or "end"."""
        return [line["at"] for line in self.lines if line.get("event") == kind]

    def calls(self, name: str, event: str) -> list[float]:
        """Return when calls of ``name`` had their "start" or "end"."""
        return [line["at"] for line in self.lines if line["what"] == name and line.get("event") == event]

    def stage(self, name: str, start: float, end: float, films: int | None) -> Stage:
        """Return what was measured between two times."""
        return Stage(name, end - start, self.cpu(start, end), films, *self.peak(start, end))


def read_notes(path: Path) -> Notes:
    """Return the notes of all calls so far, without a line that was left half written."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return Notes(lines)


def call(name: str, arguments: Sequence[str], folder: Path) -> None:
    """Run ``ns`` with its own output on standard error, watched; end with its code where it fails."""
    environment = os.environ | {"NS_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "noisy_student", *arguments]
    with subprocess.Popen(command, stdout=sys.stderr, env=environment) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # it writes a checkpoint first
        try:
            with Watch(process.pid, name, folder / "memory.jsonl"):
                code = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if code:
        raise SystemExit(code)


def rehearse(folder: Path, count: int, csv: Path | None, overrides: Sequence[str] = ()) -> list[Stage]:
    """Return what every stage of a rehearsal with ``count`` train films took, after doing what is left of it."""
    folder.mkdir(parents=True, exist_ok=True)
    root, run, finished = folder / PREFIX, folder / "run", folder / "films.json"
    if not finished.exists():
        with Watch(os.getpid(), "films", folder / "memory.jsonl"):
            made = make_films(root, count, csv)
        write_json(finished, {"made": made})
    patients = pd.read_csv(root / "train.csv", usecols=["Path"])["Path"].str.extract(r"(patient\d+)")[0].nunique()
    share = max(0.01, min(0.5, FEWEST_LABELLED / patients))
    changes = [f"data.root={root.absolute()}", f"split.labelled_fraction={share:.6g}", *overrides]
    settings = ["--config", str(CONFIG), *(word for change in changes for word in ("--set", change))]
    if not (run / "stages" / "prepare.json").exists():
        call("decode", ["data", "prepare", *settings], folder)
    if not (run / "report.json").exists():
        call("iterate", ["iterate", "--rounds", "1", "--resume", "-v", *settings, "-o", str(run)], folder)
    return stages(folder)


def stages(folder: Path) -> list[Stage]:
    """Return what was measured of a finished rehearsal, in order; of a stage that was ended, its last attempt."""
    notes, run, root = read_notes(folder / "memory.jsonl"), folder / "run", folder / PREFIX
    everything = sum(len(pd.read_csv(root / f"{split}.csv", usecols=["Path"])) for split in SPLITS)
    made: int = read_json(folder / "films.json")["made"]
    found = [
        notes.stage(title, notes.calls(name, "start")[-1], notes.calls(name, "end")[-1], films)
        for name, title, films in (("films", "make films", made), ("decode", "ns data prepare", everything))
    ]
    starts = notes.calls("iterate", "start")
    records = [*run.glob("stages/*.json"), *run.glob("gen-*/stages/*.json")]
    last = 0.0
    for path in sorted(records, key=lambda path: path.stat().st_mtime):
        record, end = read_json(path), path.stat().st_mtime
        start = max([last, *(at for at in starts if at <= end)])
        generation, name = record["generation"], record["stage"]
        title = "tables and split" if generation is None else f"{generation}: {name}"
        found.append(notes.stage(title, start, end, everything if generation is None else _films(run, record)))
        last = end
    found.append(notes.stage("report over all", last, notes.calls("iterate", "end")[-1], None))
    return found


def _films(run: Path, record: dict[str, Any]) -> int | None:
    """Return how many films a stage worked on, or ``None`` where that says nothing."""
    name, folder = record["stage"], run / f"gen-{record['generation']}"
    if name == "fit":
        seen: int = read_json(folder / "checkpoint" / "best" / "meta.json")["images_seen"]
        return seen
    if name == "targets":
        return len(pd.read_parquet(folder / "targets.parquet", columns=["image"]))
    if name.startswith("predict-"):
        table = folder / "predictions" / f"{name.removeprefix('predict-')}.parquet"
        return len(pd.read_parquet(table, columns=["image"]))
    return None


# -- what is printed -----------------------------------------------------------------------------------------------


def as_text(measured: Sequence[Stage]) -> str:
    """Return the table of a rehearsal."""
    lines = [f"{'stage':<18} {'seconds':>9} {'cpu s':>8} {'films/s':>9} {'peak GB':>8} {'own GB':>7}"]
    for one in measured:
        speed = "" if not one.films or one.seconds <= 0 else f"{one.films / one.seconds:,.0f}"
        cpu, gb, own = ("" if value is None else f"{value:.2f}" for value in (one.cpu_seconds, one.gb, one.own_gb))
        lines.append(f"{one.name:<18} {one.seconds:>9.1f} {cpu:>8} {speed:>9} {gb:>8} {own:>7}")
    total, peak = sum(one.seconds for one in measured), max((one.gb or 0.0 for one in measured), default=0.0)
    return "\n".join([*lines, f"{'all':<18} {total:>9.1f} {'':>18} {peak:>8.2f}"])


def exponents(found: dict[int, list[Stage]]) -> dict[str, float]:
    """Return by which power of the train films each stage grows: the slope of log seconds over log films.

    Seconds are the processor's where they are known. Stages that take less than half a second with the most films are
    left out.
    """
    counts = sorted(found)
    seconds = {
        count: {one.name: one.seconds if one.cpu_seconds is None else one.cpu_seconds for one in stages}
        for count, stages in found.items()
    }
    x, growth = np.log(counts), dict[str, float]()
    for name, value in seconds[counts[-1]].items():
        if value >= _SHORT and all(name in seconds[count] for count in counts):
            y = [math.log(max(seconds[count][name], 1e-2)) for count in counts]
            growth[name] = float(np.polyfit(x, y, 1)[0])
    return growth


def main() -> None:
    """Rehearse, print the stages, and end with 1 where the memory was above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, nargs="+", default=[ROWS], help="train films; several are compared")
    parser.add_argument("--csv", type=Path, help="the official train.csv, whose first rows are taken")
    parser.add_argument("--output", type=Path, default=Path("rehearsal"), help="films, cache, run: 3 GB at full size")
    parser.add_argument("--limit-gb", type=float, default=LIMIT_GB, help="memory that no stage may exceed")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="as of ns iterate; repeatable")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {
        count: rehearse(given.output / f"{count}", count, given.csv, given.set) for count in sorted(set(given.films))
    }
    growth = exponents(found) if len(found) > 1 else {}
    peak = max((one.gb or 0.0 for measured in found.values() for one in measured), default=0.0)
    if given.json:
        kept = {str(count): [asdict(one) for one in measured] for count, measured in found.items()}
        print(json.dumps({"films": kept, "exponents": growth, "peak_gb": peak, "limit_gb": given.limit_gb}, indent=1))
    else:
        for count, measured in found.items():
            print(f"{count:,} train films\n{as_text(measured)}\n")
        for name, power in growth.items():
            print(f"{name:<18} grows as films ^ {power:.2f}")
    if peak > given.limit_gb:
        raise SystemExit(f"memory: {peak:.2f} GB at the peak, more than {given.limit_gb:g} GB")


if __name__ == "__main__":
    main()
