"""Figures of a data set against counting by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chexpert_counts import TRAIN

from noisy_student.config import TargetsConfig
from noisy_student.data import manifest as manifests
from noisy_student.data import statistics
from noisy_student.labels import OBSERVATIONS
from noisy_student.targets.uncertainty import label_targets


def small() -> manifests.Manifest:
    nan = np.nan
    return manifests.build(
        {
            "image": list("abcdef"), "patient": ["1", "1", "1", "2", "3", "4"], "study": ["x", "x", "y", "z", "w", "v"],
            "view": ["frontal", "lateral", "lateral", "frontal", "", "frontal"],
            "projection": ["AP", "", "LL", "PA", "", "AP"], "sex": ["F", "F", "F", "M", "", "M"],
            "age": [40, 40, 41, 0, nan, 90], "split": ["train", "train", "train", "valid", "", "train"],
            "labelled": [True, True, True, True, False, True],
            "Edema": [1, 1, 0, -1, nan, nan], "Fracture": [0.25, nan, -1, 1, 0, -1],
        },
        ("Edema", "Fracture"),
    )  # fmt: skip


def test_the_figures_of_a_small_set() -> None:
    manifest = small()
    target, weight = label_targets(manifests.values(manifest), manifest.labels, TargetsConfig(blank_weight=0.5))
    figures = statistics.describe(manifest, target, weight)
    assert list(figures["splits"]) == ["train", "valid", "unassigned"]
    train, every = figures["splits"]["train"], figures["all"]
    assert (train["images"], train["studies"], train["patients"], train["labelled_images"]) == (4, 3, 2, 4)
    assert (every["images"], every["studies"], every["patients"], every["labelled_images"]) == (6, 5, 4, 5)
    assert every["studies_without_frontal"] == 1  # study y; nobody knows the view of w
    assert every["view"] == {"frontal": 3, "lateral": 2, "unknown": 1}
    assert every["projection"] == {"AP": 2, "PA": 1, "LL": 1, "RL": 0, "unknown": 2}
    assert every["sex"] == {"F": 3, "M": 2, "unknown": 1}
    assert every["age"] == {
        "unknown": 1, "zero": 1, "min": 0, "quarter": 40, "median": 40, "three_quarters": 41, "max": 90,
    }  # fmt: skip
    assert every["labels"]["Edema"] == {
        "positive": 2, "uncertain": 1, "negative": 1, "soft": 0, "blank": 2, "patients_positive": 1,
        "target_mass": 3.0, "target_weight": 5.0,
    }  # fmt: skip
    assert every["labels"]["Fracture"] == {
        "positive": 1, "uncertain": 2, "negative": 1, "soft": 1, "blank": 1, "patients_positive": 1,
        "target_mass": 1.25, "target_weight": 5.5,
    }  # fmt: skip
    assert figures["splits"]["unassigned"]["age"]["median"] is None
    json.dumps(figures, allow_nan=False)


def test_the_figures_as_text() -> None:
    manifest = small()
    target, weight = label_targets(manifests.values(manifest), manifest.labels, TargetsConfig())
    text = statistics.as_text(statistics.describe(manifest, target, weight))
    assert "train: 4 films, 3 studies, 2 patients\n  studies without a frontal film: 1\n" in text
    assert "all: 6 films" in text
    assert "age        0 to 90, median 40; unknown 1" in text
    one = manifests.select(manifest, split="valid")
    figures = statistics.describe(one, target[3:4], weight[3:4])
    assert figures["all"] == figures["splits"]["valid"]
    lines = statistics.as_text(figures).splitlines()
    assert lines[0] == "all: 1 films, 1 studies, 1 patients"
    assert lines[-2].split() == ["Edema", "0", "1", "0", "0", "1.0000", "1"]
    assert lines[-3].split() == ["positive", "uncertain", "negative", "blank", "share", "mass"]


def test_soft_targets_have_a_column_where_there_are_some() -> None:
    manifest = small()
    target, weight = label_targets(manifests.values(manifest), manifest.labels, TargetsConfig())
    lines = statistics.as_text(statistics.describe(manifest, target, weight)).splitlines()
    head, edema, fracture = (line.split() for line in lines[-3:])
    assert head == ["positive", "uncertain", "negative", "soft", "blank", "share", "mass"]
    assert edema[1:6] == ["2", "1", "1", "0", "2"]
    assert fracture[1:6] == ["1", "2", "1", "1", "1"]
    assert sum(map(int, fracture[1:6])) == len(manifest)


def write_stand_in(path: Path) -> None:
    """Write a table with the size and the label counts of CheXpert's train.csv, in its columns."""
    count, patients = 223_414, 64_540
    rows = np.arange(count)
    columns = []
    for place, (positive, uncertain, negative) in enumerate(TRAIN.values()):
        cells = np.full(count, "", dtype=object)
        cells[:positive] = "1.0"
        cells[positive : positive + uncertain] = "-1.0"
        cells[positive + uncertain : positive + uncertain + negative] = "0.0"
        columns.append(np.roll(cells, 9973 * place))
    with path.open("w", encoding="utf-8") as stream:
        stream.write(f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(TRAIN)}\n")
        for row, cells in zip(rows.tolist(), zip(*columns, strict=True), strict=True):
            patient, study = row % patients + 1, row // patients + 1
            stream.write(
                f"CheXpert-v1.0-small/train/patient{patient:05d}/study{study}/view1_frontal.jpg,"
                f"Male,{row % 91},Frontal,{'AP' if row % 3 else 'PA'},{','.join(cells)}\n"
            )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_table_of_chexperts_size_in_the_command(tmp_path: Path) -> None:
    """All counts come back, and memory stays below 1 GB."""
    write_stand_in(tmp_path / "train.csv")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from noisy_student.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n"
        # Not getrusage: its maximum includes the parent's memory before exec.
        "    status = Path('/proc/self/status').read_text()\n"
        "    print(status.split('VmHWM:')[1].split()[0], file=sys.stderr)\n"
    )
    call = ["data", "stats", "--source", "chexpert", "--csv", str(tmp_path / "train.csv"), "--no-images", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *call], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["all"]
    assert tuple(TRAIN) == OBSERVATIONS
    found = {
        label: (counts["positive"], counts["uncertain"], counts["negative"])
        for label, counts in figures["labels"].items()
    }
    assert found == TRAIN
    assert (figures["images"], figures["patients"], figures["studies"]) == (223_414, 64_540, 223_414)
    assert int(done.stderr) < 1_000_000  # kB
