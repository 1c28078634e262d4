"""``import noisy_student``: light, typed, and the same as the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import write_config

import noisy_student
from noisy_student import preparation, scoring
from noisy_student.config.load import load as load_config
from noisy_student.data import manifest
from noisy_student.errors import DataError, UsageError
from noisy_student.runs import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """The report of a teacher and a student, trained through the package."""
    changes = ["pretrain.method=none", f"data.cache_dir={folder / 'cache'}"]
    return noisy_student.iterate(write_config(folder), folder / "run", rounds=1, overrides=changes, device="cpu")


def films(run: Run) -> tuple[list[str], manifest.Manifest]:
    config = load_config(run.path / "config.yaml")
    chosen = manifest.select(manifest.read(run.manifest), split="test")
    return [f"{preparation.data_root(config.data)}/{image}" for image in chosen.frame["image"]], chosen


def test_importing_the_package_imports_nothing_heavy_and_its_functions_are_there() -> None:
    code = (
        "import sys, noisy_student\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic'}\n"
        "assert not heavy & set(sys.modules)\n"
        "assert {'load', 'predict', 'iterate', 'evaluate'} <= set(dir(noisy_student))\n"
        "assert noisy_student.load.__doc__ and 'torch' not in sys.modules\n"
        "from noisy_student import predict, iterate, evaluate\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    noisy_student.prodict\nexcept AttributeError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "module 'noisy_student' has no attribute 'prodict'\n"


def test_iterate_and_evaluate_return_the_report_of_the_run(folder: Path, report: dict[str, Any]) -> None:
    stored = json.loads((folder / "run" / "report.json").read_text())
    assert report == stored
    assert [entry["index"] for entry in report["generations"]] == [0, 1]
    assert noisy_student.evaluate(folder / "run", device="cpu")["generations"] == stored["generations"]
    with pytest.raises(UsageError, match="there is a run already"):
        noisy_student.iterate(folder / "tiny.yaml", folder / "run", overrides=[f"data.cache_dir={folder / 'cache'}"])
    with pytest.raises(UsageError, match="go with config"):
        noisy_student.evaluate(folder / "run", generation=0)


def test_load_takes_the_best_generation_and_predicts_paths_and_pixels(folder: Path, report: dict[str, Any]) -> None:
    run = Run(folder / "run")
    paths, chosen = films(run)
    model = noisy_student.load(folder / "run", device="cpu")
    assert model.recipe.generation == report["best"]
    assert model.labels == ("Cardiomegaly", "Pleural Effusion", "Support Devices")
    expected = scoring.probabilities(run, report["best"], "test", chosen)
    found = model.predict(paths)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=2e-6)
    cache = preparation.open_source(load_config(run.path / "config.yaml").data).cache
    pixels = np.array(cache.pixels[cache.rows(list(chosen.frame["image"]))])
    np.testing.assert_allclose(model.predict(pixels), expected, atol=2e-6)
    np.testing.assert_allclose(model.predict(pixels[:, 0]), expected, atol=2e-6)
    np.testing.assert_allclose(model.predict(Path(paths[0])), expected[:1], atol=2e-6)
    other = noisy_student.load(folder / "run", generation=1 - report["best"], device="cpu")
    assert np.abs(other.predict(paths) - expected).max() > 1e-3


def test_decisions_are_those_of_the_thresholds(folder: Path, report: dict[str, Any]) -> None:
    model = noisy_student.load(folder / "run", device="cpu")
    limits = np.array([model.recipe.points[label]["youden"].value for label in model.labels], dtype=float)
    np.testing.assert_array_equal(model.decisions(limits[None]), [[1, 1, 1]])
    np.testing.assert_array_equal(model.decisions(limits[None] - 1e-9), [[0, 0, 0]])
    assert np.isnan(model.decisions([[np.nan] * 3])).all()
    with pytest.raises(UsageError, match="Choose among youden, sensitivity, specificity"):
        model.decisions(limits[None], "f1")


def test_what_cannot_be_predicted_is_an_error_that_says_why(folder: Path, report: dict[str, Any]) -> None:
    model = noisy_student.load(folder / "run", device="cpu")
    for pixels in (
        np.zeros((2, 1, 16, 16), np.uint8),
        np.zeros((2, 32, 32), np.float32),
        np.zeros((0, 32, 32), np.uint8),
    ):
        with pytest.raises(DataError, match=r"takes uint8 \(N, 1, 32, 32\)"):
            model.predict(pixels)
    with pytest.raises(DataError, match=r"nothing\.png: cannot be decoded"):
        model.predict([folder / "nothing.png"])
    with pytest.raises(DataError, match="no films to predict"):
        model.predict([])
    with pytest.raises(UsageError, match="is not a run"):
        noisy_student.load(folder)


def test_predict_writes_the_table_of_ns_predict(folder: Path, report: dict[str, Any], tmp_path: Path) -> None:
    paths, _ = films(Run(folder / "run"))
    written = noisy_student.predict(
        folder / "run", [*paths[:3], tmp_path / "gone.png"], tmp_path / "out.csv", device="cpu"
    )
    assert (written.films, written.scored, written.bad, written.bad_list) == (4, 3, 1, tmp_path / "out.bad.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    model = noisy_student.load(folder / "run", device="cpu")
    np.testing.assert_allclose(found[list(model.labels)], model.predict(paths[:3]), atol=1e-6)
    again = noisy_student.predict(model, paths[0], tmp_path / "out.csv", overwrite=True)
    assert (again.scored, again.bad_list) == (1, None)
