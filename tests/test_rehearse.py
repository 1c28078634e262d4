"""The rehearsal: a small one from films to report, rows of an official table, and what it says of growth and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisy_student.data.synthetic.dataset import COLUMNS, rows_of, table

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def rehearse(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import rehearse

    return rehearse


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "rehearse.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_small_rehearsal_measures_every_stage_and_is_not_done_twice(tmp_path: Path) -> None:
    asked = ["--films", "600", "--output", str(tmp_path), "--set", "teacher.optim.steps=6", "--json"]
    asked += ["--set", "teacher.optim.bn_images=64", "--set", "evaluation.replicates=100"]
    first = call(*asked)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    measured = {one["name"]: one for one in found["films"]["600"]}
    assert {"make films", "ns data prepare", "tables and split", "0: fit", "1: fit", "1: predict-pool"} <= set(measured)
    assert list(measured)[-1] == "report over all"
    assert all(one["seconds"] >= 0 for one in measured.values())
    assert measured["0: fit"]["films"] == 6 * 64
    pool, taught = measured["1: predict-pool"]["films"], measured["1: targets"]["films"]
    assert 0 < pool < taught <= 600
    assert taught <= measured["1: fit"]["films"] < taught + 128  # one epoch, and the rest of its last batch
    if Path("/proc").is_dir():
        assert 0.05 < found["peak_gb"] < 6
    else:
        assert found["peak_gb"] == 0
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    assert len(stamps) == measured["make films"]["films"] == len(list((tmp_path / "600").rglob("view*.jpg")))

    again = call(*asked, "--limit-gb", "0")
    assert again.returncode == (1 if found["peak_gb"] else 0)
    assert json.loads(again.stdout)["films"] == found["films"]
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}


def test_as_many_rows_as_the_train_table_has_even_where_its_patients_have_fewer(rehearse: Any) -> None:
    rows = list(rehearse.generated(500))
    assert len({row.path for row in rows}) == len(rows) == 500
    assert [row.path for row in rehearse.generated(200)] == [row.path for row in rows[:200]]


def test_films_of_an_official_table_lie_where_it_says_and_show_what_it_says(rehearse: Any, tmp_path: Path) -> None:
    asked = table(list(rows_of(1, "train", range(1, 30), "chexpert")))
    rows = list(rehearse.official(asked))
    assert [f"CheXpert-v1.0-small/{row.path}" for row in rows] == asked["Path"].tolist()
    told = asked[list(COLUMNS[6:])].to_numpy()  # without No Finding
    severity = np.array([row.case.severity for row in rows])[:, 1:]
    assert ((severity > 0) == (told == 1))[told != -1].all()
    assert 0 < (severity > 0)[told == -1].mean() < 1
    assert [row.case.projection == "LL" for row in rows] == (asked["Frontal/Lateral"] == "Lateral").tolist()

    asked.to_csv(tmp_path / "train.csv", index=False)
    root = tmp_path / "films"
    made = rehearse.make_films(root, 12, tmp_path / "train.csv")
    pd.testing.assert_frame_equal(pd.read_csv(root / "train.csv"), pd.read_csv(tmp_path / "train.csv").iloc[:12])
    assert len(list(root.rglob("*.jpg"))) == made
    with Image.open(root / rows[0].path) as film:
        assert film.size == (64, 64)
    (root / rows[3].path).unlink()
    assert rehearse.make_films(root, 12, tmp_path / "train.csv") == 1


def test_growth_is_the_power_of_the_films(rehearse: Any) -> None:
    def stages(films: int) -> list[Any]:
        taken = {"flat": 3.0, "linear": films / 100, "quadratic": (films / 1000) ** 2, "short": films / 1e6}
        return [rehearse.Stage(name, 99.0, seconds, None, None, None) for name, seconds in taken.items()]

    found = rehearse.exponents({films: stages(films) for films in (1000, 2000, 4000)})
    assert found == pytest.approx({"flat": 0, "linear": 1, "quadratic": 2})
    wall = [rehearse.Stage("a", seconds, None, None, None, None) for seconds in (1.0, 4.0)]
    assert rehearse.exponents({100: wall[:1], 200: wall[1:]}) == pytest.approx({"a": 2})


def test_memory_and_processor_time_of_a_stage_are_those_between_its_ends(rehearse: Any, tmp_path: Path) -> None:
    lines = [{"what": "iterate", "at": 100.0, "event": "start"}]
    lines += [
        {"what": "iterate", "at": 100.0 + at, "resident": int(gb * 1e9), "own": int(gb * 5e8), "cpu": cpu}
        for at, gb, cpu in ((1, 1, 1), (2, 3, 3), (3, 2, 5))
    ]
    lines += [{"what": "iterate", "at": 104.0, "event": "end"}, {"what": "iterate", "at": 200.0, "event": "start"}]
    path = tmp_path / "memory.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"what": "iter')
    notes = rehearse.read_notes(path)
    assert notes.stage("a", 100.0, 101.5, 7) == rehearse.Stage("a", 1.5, 2.0, 7, 1.0, 0.5)
    assert notes.stage("b", 101.5, 104.0, None) == rehearse.Stage("b", 2.5, 3.0, None, 3.0, 1.5)
    assert notes.stage("c", 200.0, 200.2, None).gb is None


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_usage_counts_the_processes_below_and_those_that_have_ended(rehearse: Any) -> None:
    block = "x = bytearray(60_000_000); x[::4096] = x[::4096]; sum(range(3_000_000)); print('ready', flush=True)"
    before = rehearse.usage(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", f"{block}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = rehearse.usage(os.getpid())
        child.communicate(b"\n")
    after = rehearse.usage(os.getpid())
    assert during.own - before.own > 55e6
    assert during.resident >= during.own
    assert after.own < during.own
    assert after.cpu >= during.cpu > before.cpu
