"""The scripts: benchmarks run at their smallest and print figures that make sense; the environment is made well."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from noisy_student.config import OptimConfig, PhaseConfig
from noisy_student.config.load import load
from noisy_student.errors import ConfigError

SCRIPTS = Path(__file__).parent.parent / "scripts"


def script(name: str, *arguments: str) -> Any:
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("{"))
    return json.loads("\n".join(lines[start:]))


def leaves(found: Any) -> list[float]:
    """Return the numbers in nested dictionaries."""
    return [number for value in found.values() for number in (leaves(value) if isinstance(value, dict) else [value])]


def is_measured(*found: dict[str, Any]) -> bool:
    return all(0 < number < np.inf for figures in found for number in leaves(figures))


def is_ordered(spread: dict[str, float]) -> bool:
    return spread["min"] <= spread["median"] <= spread["max"]


@pytest.mark.slow
def test_bench_train(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--model", "small_resnet", "--size", "32", "--batch", "8", "--steps", "20", "--rounds", "2"]
    wide = ["--films", "96", "--workers", "1", "--source-size", "64", "48", "--strength", "3"]
    found = script("bench_train.py", *small, *wide, "--stream", "--peers", "--device", "cpu", "--json")
    loaders = {f"{name} loader" for name in ("torch", "timm", "torchxrayvision") if name not in found["not_installed"]}
    assert "torch loader" in loaders
    assert set(found["ratio"]) == {"loop", "streamed loop"} | loaders
    assert set(found["films_per_second"]) == {"model"} | set(found["ratio"])
    assert is_measured(found["ratio"], found["films_per_second"], found["milliseconds"])
    assert all(is_ordered(ratio) for ratio in found["ratio"].values())
    assert is_ordered(found["streamed_over_resident"])
    parts = {"gather", "augment", "forward", "backward", "optimiser", "ema"}
    assert {name: set(found["milliseconds"][name]) for name in ("loop", "streamed loop")} == dict.fromkeys(
        found["milliseconds"], parts
    )
    assert (found["strength"], found["peak_memory_mb"] > 50) == (3, True)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_train

    told = bench_train.words(found)
    assert all(name in told for name in ("loop / model", "torch loader / model", "step of the streamed loop: gather"))
    assert all(f"{name} is not installed" in told for name in found["not_installed"])


@pytest.mark.slow
def test_bench_predict() -> None:
    small = ["--model", "small_resnet", "--size", "32", "--films", "256", "--source-size", "64", "--rounds", "2"]
    found = script("bench_predict.py", *small, "--device", "cpu", "--json")
    assert set(found["ratio"]) == {"stage", "asked", "files"}
    assert is_measured(found["ratio"], found["films_per_second"])
    assert all(is_ordered(ratio) for ratio in found["ratio"].values())
    assert found["films"] == 256
    assert found["peak_memory_mb"] > 50


@pytest.mark.slow
def test_bench_augment() -> None:
    small = ["--model", "small_resnet", "--step-size", "32", "--batch", "8", "--kornia-batch", "4", "--sizes", "64"]
    found = script("bench_augment.py", *small, "--rounds", "2", "--json")
    (step,), (policy,) = found["step"], found["policy"]
    assert 0 < step["share"]["cpu"]["min"] <= step["share"]["cpu"]["max"] < 1
    assert {"ours", "kornia"} < set(policy["ratio"])
    assert set(policy["films_per_second"]) == {"one grid_sample"} | set(policy["ratio"])
    assert is_measured(policy["ratio"], policy["over_kornia"], policy["films_per_second"])
    assert set(found["operations"][0]["films_per_second"]) > {"none", "rotate", "clahe", "grid"}
    assert found["peak_memory_mb"] > 50


@pytest.mark.slow
def test_bench_cache() -> None:
    found = script("bench_cache.py", *["--films", "64", "--workers", "1", "--rounds", "1", "--json"])
    assert set(found["ratio"]) == {"wall", "together", "cpu"}
    assert set(found["films_per_second"]) == {"bare", "bare together", "build"}
    assert is_measured(found["ratio"], found["films_per_second"])
    assert min(found["peak_memory_mb"], found["peak_worker_memory_mb"]) > 20


@pytest.mark.slow
def test_bench_bootstrap() -> None:
    found = script("bench_bootstrap.py", "--json")
    assert json.dumps(found)


@pytest.mark.slow
def test_bench_report() -> None:
    found = script("bench_report.py", "--images", "900", "--generations", "2", "--steps", "400", "--json")
    assert (found["images"], found["pages"]) == (900, 3)
    assert found["cpu_seconds"] > 0
    assert 100_000 < found["largest_page_bytes"] < 3_000_000


@pytest.mark.parametrize(("source", "refused"), [("chexpert", True), ("synthetic", False)])
def test_a_picture_is_made_of_synthetic_films_alone(tmp_path: Path, source: str, refused: bool) -> None:
    if not refused:
        pytest.importorskip("playwright", reason="playwright is not installed")
        if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
            pytest.skip("there is no Chromium")
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text("<!doctype html><title>x</title><body style='background:#00f'>")
    (tmp_path / "report.json").write_text(json.dumps({"config": {"data": {"source": source}}}))
    command = [sys.executable, str(SCRIPTS / "picture_report.py"), str(page), str(picture), "--width", "90"]
    done = subprocess.run([*command, "--height", "60"], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if refused else 0), done.stderr
    assert ("shows real films" in done.stderr) == refused
    assert picture.exists() != refused
    if not refused:
        with Image.open(picture) as drawn:
            assert (drawn.size, drawn.convert("RGB").getpixel((50, 50))) == ((90, 60), (0, 0, 255))


BENCHMARK_ARMS = {"few", "frozen", "pseudo", "mean_teacher", "fixmatch", "ours", "all"}


@pytest.mark.slow
def test_the_benchmark_runs_every_arm_once_and_keeps_it(tmp_path: Path) -> None:
    """On made-up films with bright or dark patches; the second call only reads what the first one kept."""
    quick, kept = ["--quick", "--output", str(tmp_path / "out")], tmp_path / "out" / "results.jsonl"
    script("benchmark_methods.py", *quick, "--arms", "few")
    found = script("benchmark_methods.py", *quick, "--plot", str(tmp_path / "arms.svg"))
    assert set(found["arms"]) == BENCHMARK_ARMS
    lines = kept.read_text().splitlines()
    assert len(lines) == 2 * len(BENCHMARK_ARMS)
    runs = [path for path in (tmp_path / "out").iterdir() if path.is_dir() and path.name != "films"]
    assert len(runs) == len(lines)
    for path in runs:
        shutil.rmtree(path)
    assert script("benchmark_methods.py", *quick) == found  # nothing but the lines is needed
    assert kept.read_text().splitlines() == lines
    told = [json.loads(line) for line in lines]
    assert all(0 <= line["auroc"] <= 1 and line["revision"] and len(line["recipe"]["config"]) == 16 for line in told)
    few = [line["auroc"] for line in told if line["arm"] == "few"]
    assert found["arms"]["few"]["mean"] == pytest.approx(np.mean(few))
    # Two generations of 4 steps of 8: as many films as every other arm sees that takes the pool's.
    assert {line["about"]["images_seen"] for line in told if line["arm"] not in ("few", "frozen")} == {64}
    assert (tmp_path / "arms.svg").read_text().count("ours") >= 1


def test_pseudo_labels_without_noise_are_without_it_in_every_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms

    noisy = ["data.labels=[A]", "generations={2: {model: {dropout: 0.5}}}"]
    base = load(None, noisy)
    arms.check("ours", base, base)
    with pytest.raises(ConfigError, match=r"generations\.2: brings noise to the arm pseudo"):
        arms.check("pseudo", base, load(None, [*noisy, *arms.SETTINGS["pseudo"]]))
    arms.check("pseudo", base, load(None, [*noisy, *arms.SETTINGS["pseudo"], "generations.2.model.dropout=0"]))


@pytest.mark.parametrize("arm", ["hard", "single", "unpretrained", "unaligned"])
def test_an_arm_without_a_component_is_without_it(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms

    whole = load(SCRIPTS.parent / "configs" / "kermany160.yaml")
    without = load(SCRIPTS.parent / "configs" / "kermany160.yaml", arms.SETTINGS[arm])
    assert arms.ARMS[arm] is arms.ARMS["ours"]
    arms.check(arm, whole, without)
    (key,) = [text.partition("=")[0] for text in arms.SETTINGS[arm]]
    section, _, name = key.partition(".")
    changed = {field for field in type(whole).model_fields if getattr(whole, field) != getattr(without, field)}
    assert changed == {section}
    if name:
        assert getattr(getattr(whole, section), name) != getattr(getattr(without, section), name)
    own = load(SCRIPTS.parent / "configs" / "kermany160.yaml", [*arms.SETTINGS[arm], "teacher.optim.lr=5e-4"])
    with pytest.raises(ConfigError, match=f"arm {arm}: {key}=.* is what the configuration says already"):
        arms.check(arm, without, own)


@pytest.mark.parametrize(
    ("phases", "stops"),
    [((), [100]), (({"steps": 10}, {}), [10, 100]), (({"steps": 10}, {"steps": 30}), [25, 100])],
)
def test_another_length_is_filled_by_the_stretches(
    phases: tuple[dict[str, int], ...], stops: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stretch that takes the rest takes it; where all have a length they are stretched alike."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms

    given = PhaseConfig(optim=OptimConfig(steps=40, phases=phases))
    assert [part.stop for part in arms.lasting(given, 100).stretches(10)] == stops


def test_a_log_of_trials_says_how_many_each_method_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    tried = [
        ("few", 0, [], 0.80), ("few", 1, [], 0.70), ("few", 0, ["a=1"], 0.78),
        ("fixmatch", 0, ["b=2"], 0.9), ("few", 0, ["a=2"], 0.6),
    ]  # fmt: skip
    for arm, seed, own, area in tried:
        recipe = {"set": ["threads=1"], "films": "development"} | ({"own": own} if own else {})
        results.append(tmp_path / "log.jsonl", {"arm": arm, "seed": seed, "recipe": recipe, "auroc": area})
    assert results.trials(tmp_path / "log.jsonl").splitlines()[2:] == [
        "| few | 3 | 0.7800 | 1 | threads=1, a=1 |",
        "| fixmatch | 1 | 0.9000 | 1 | threads=1, b=2 |",
    ]


@pytest.mark.slow
def test_trials_are_logged_and_never_measured_on_test_films(tmp_path: Path) -> None:
    trials = tmp_path / "trials.jsonl"
    asked = ["--quick", "--output", str(tmp_path / "out"), "--arms", "frozen", "--trials", str(trials)]
    script("benchmark_methods.py", *asked)
    script("benchmark_methods.py", *asked, "--own", "frozen:teacher.model.dropout=0.3")
    script("benchmark_methods.py", *asked)
    told = [json.loads(line) for line in trials.read_text().splitlines()]
    assert [line["recipe"].get("own") for line in told] == [None, None, *[["teacher.model.dropout=0.3"]] * 2]
    assert {line["recipe"]["films"] for line in told} == {"development"}
    table = pd.read_csv(tmp_path / "out" / "films" / "labels.csv").set_index("image")["split"]
    for split in (tmp_path / "out").glob("development-*.parquet"):
        chosen = pd.read_parquet(split)
        own = chosen["image"].map(table)
        assert set(own) == {"train", "valid"}
        assert set(own[chosen["split"] == "test"]) == {"train"}


def lines(**areas: list[float]) -> dict[tuple[str, int], dict[str, Any]]:
    """Return a line per arm and seed whose replicates are its area, a little moved, alike for all arms."""
    moved = np.linspace(-0.01, 0.01, 1000)
    return {
        (arm, seed): {
            "auroc": area,
            "replicates": (area + moved).tolist(),
            "test": "t",
            "seconds": 60,
            "about": {"images_seen": 9},
        }
        for arm, values in areas.items()
        for seed, area in enumerate(values)
    }


def test_gap_closed_is_the_ratio_of_means_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    found = results.summarise(lines(few=[0.80, 0.82], ours=[0.85, 0.83], all=[0.90, 0.90]), [0, 1])
    assert found["gap_closed"] == pytest.approx((0.84 - 0.81) / (0.90 - 0.81))
    # Replicates move all arms alike, so only the seeds differ: (0.85 - 0.80) / 0.1 and (0.83 - 0.82) / 0.08.
    assert found["gap_closed_ci"] == pytest.approx([0.125, 0.5])
    assert found["arms"]["few"]["ours_minus"] == pytest.approx([0.01, 0.05])
    close = results.summarise(lines(few=[0.89, 0.89], ours=[0.89, 0.90], all=[0.90, 0.90]), [0, 1])
    assert close["gap_closed"] is None
    assert close["all_minus_few_lower_bound"] == pytest.approx(0.01)
    assert results.summarise(lines(few=[0.8], ours=[0.9]), [0])["gap_closed"] is None


def test_every_arm_closes_its_own_part_of_the_gap_and_stands_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    found = results.summarise(lines(few=[0.8, 0.8], rival=[0.79, 0.81], ours=[0.85, 0.85], all=[0.9, 0.9]), [0, 1])
    assert [found["arms"][arm]["gap_closed"] for arm in ("few", "rival", "ours", "all")] == pytest.approx(
        [0, 0, 0.5, 1]
    )
    assert found["arms"]["rival"]["gap_closed_ci"] == pytest.approx([-0.1, 0.1])
    assert found["arms"]["rival"]["ours_minus"] == pytest.approx([0.04, 0.06])
    rows = dict(line.strip("| ").split(" | ", 1) for line in results.table(found).splitlines()[2:])
    sd = np.std([0.79, 0.81], ddof=1)
    assert rows["rival"].startswith(f"0.8000 | {sd:.4f} | 0.7")
    assert rows["rival"].endswith("| +0.0400 to +0.0600 | 0.00 (−0.10 to 0.10) | 9 | 1.0")
    assert "| – | 0.50 (0.50 to 0.50) |" in rows["ours"]  # nothing is compared with itself


def test_results_of_different_test_films_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    mixed = lines(few=[0.8], ours=[0.9])
    mixed["few", 0]["test"] = "other"
    with pytest.raises(SystemExit, match="different test films"):
        results.summarise(mixed, [0])


@pytest.mark.slow
def test_bench_near_duplicates() -> None:
    found = script("bench_near_duplicates.py", "--films", "300", "--json")
    assert found


@pytest.mark.slow
def test_compare_generations_needs_a_run(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "compare_generations.py"), str(tmp_path), "--last", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is not a run of noisy_student" in done.stderr


# -- the virtual environment of scripts/demo and scripts/test ----------------------------------------------------------


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that calls prepare_environment with stand-ins for Python: nothing is installed."""
    (tmp_path / "some.lock").write_text("lock")
    (tmp_path / "pyproject.toml").write_text("project")
    inside = 'echo "$@" >>calls.txt\nif [ "$1" = -c ] && [ -e no-pip ]; then exit 1; fi\n'
    executable(tmp_path / "inside", inside)
    executable(
        tmp_path / "python",
        'if [ "$2" = venv ]; then\n  mkdir -p .venv/bin && cp inside .venv/bin/python\n'
        "  if [ -e no-ensurepip ]; then exit 1; fi\nfi\n",
    )

    def call(**environment: str) -> subprocess.CompletedProcess[str]:
        command = f". {SCRIPTS / 'common.sh'}; prepare_environment some.lock '[x]'"
        return subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")} | environment,
        )  # fmt: skip

    return call


def test_the_environment_is_made_once(tmp_path: Path, prepare: Any) -> None:
    assert prepare().returncode == 0
    wanted = hashlib.sha256(b"lockproject").hexdigest()[:16]
    assert (tmp_path / ".venv" / ".installed[x]").read_text() == f"{wanted}\n"
    calls = (tmp_path / "calls.txt").read_text()
    assert "--require-hashes -r some.lock" in calls
    assert (prepare().returncode, (tmp_path / "calls.txt").read_text()) == (0, calls)


def test_an_environment_that_cannot_be_made_is_removed_and_what_to_install_is_said(
    tmp_path: Path, prepare: Any
) -> None:
    (tmp_path / "no-ensurepip").touch()
    for _ in range(2):
        done = prepare()
        assert done.returncode == 2
        assert "install the package python3-venv" in done.stderr
        assert not (tmp_path / ".venv").exists()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine.txt").touch()
    assert prepare().returncode == 2
    assert (tmp_path / ".venv" / "mine.txt").exists()  # what was there before is left alone
    (tmp_path / "no-ensurepip").unlink()
    assert prepare().returncode == 0


def test_an_environment_without_pip_is_explained(tmp_path: Path, prepare: Any) -> None:
    executable(tmp_path / ".venv" / "bin" / "python", "exit 1\n")
    done = prepare()
    assert done.returncode == 2
    assert "There is no pip in .venv: remove the folder .venv" in done.stderr
    assert not (tmp_path / ".venv" / ".installed[x]").exists()


def test_shasum_stands_in_for_sha256sum(tmp_path: Path, prepare: Any) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cat", "cut", "mkdir", "cp", "rm"):
        (tools / name).symlink_to(str(shutil.which(name)))
    executable(tools / "shasum", f'[ "$*" = "-a 256" ] && exec {shutil.which("sha256sum")}\n')
    assert prepare(PATH=str(tools)).returncode == 0
    wanted = hashlib.sha256(b"lockproject").hexdigest()[:16]
    assert (tmp_path / ".venv" / ".installed[x]").read_text() == f"{wanted}\n"


def test_frozen_features_are_regressed_by_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """What carries a label ranks the asked films; weight 0 leaves a film out; one class tells nothing apart."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import frozen

    draw = np.random.default_rng(0)
    features = draw.normal(size=(300, 6))
    truth = (features[:, 0] + 0.3 * draw.normal(size=300) > 0).astype(np.float32)
    upside_down = truth.copy()
    upside_down[60:] = 1 - upside_down[60:]
    weight = np.ones((300, 5), dtype=np.float32)
    weight[60:, 1] = 0
    few = np.zeros(300, dtype=np.float32)
    few[np.argsort(features[:, 1])[-2:]] = 1
    target = np.stack([truth, upside_down, np.ones_like(truth), few, 1 - truth], axis=1)
    target[:40, 4], weight[40:, 4] = truth[:40], 0.001  # the few that count say the opposite of the many
    seen, asked = slice(0, 200), slice(200, 300)
    patients = np.arange(200) // 2
    found = frozen.regress(features[seen], target[seen], weight[seen], patients, features[asked])
    assert found.shape == (100, 5)
    for column, least in ((0, 0.95), (1, 0.95), (4, 0.8)):
        assert roc_auc_score(truth[asked], found[:, column]) > least
    assert found[:, 2] == pytest.approx(0.5)
    assert roc_auc_score(features[asked, 1] > 0, found[:, 3]) > 0.8  # fewer positives than folds
    whole = frozen.regress(features[seen], target[seen, :1], weight[seen, :1], patients, features[asked])
    assert whole[:, 0] == pytest.approx(found[:, 0])


def test_teachers_are_compared_on_development_films(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No official test film, no patient on two sides; the folds of nih1000 take every patient once."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import development

    official = pd.read_csv(real_data / "kermany160" / "labels.csv")
    table, changes = development.kermany160(real_data / "kermany160", 0, official=False)
    assert changes == []
    assert not set(table["patient"]) & set(official.loc[official["split"] == "test", "patient"])
    assert table.groupby("patient")["split"].nunique().max() == 1
    assert 52 <= (table["split"] == "valid").sum() <= 70
    root, tested = real_data / "nih1000", []
    held_out = set((root / "test_list.txt").read_text().split())
    for seed in range(development.FOLDS):
        table, changes = development.nih1000(root, seed, official=False)
        assert not set(table["image"].str.removeprefix("images/")) & held_out
        assert table.groupby("patient")["split"].nunique().max() == 1
        assert set(table["split"]) == {"train", "valid", "test"}
        tested += table.loc[table["split"] == "test", "image"].tolist()
    assert sorted(tested) == sorted(table["image"])
    table, _ = development.nih1000(root, 0, official=True)
    assert (table.loc[table["split"] == "test", list(development.NIH_LABELS)].sum() >= 20).all()
    assert load(None, changes).data.labels == development.NIH_LABELS


def test_an_arm_of_other_films_is_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_teachers

    config = SCRIPTS.parent / "configs" / "kermany160.yaml"
    given = argparse.Namespace(config=config, labelled=52, steps=150, data="kermany160", official=False)
    told = [
        compare_teachers.recipe_of(["a=1"], argparse.Namespace(**(vars(given) | change)))
        for change in ({}, {"labelled": "all"}, {"data": "nih1000"}, {"official": True}, {"steps": 9})
    ]
    assert all(one != other for number, one in enumerate(told) for other in told[:number])
    assert all(json.loads(json.dumps(recipe)) == recipe for recipe in told)


def test_a_recipe_is_what_a_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    def key(text: str, *without: str) -> str:
        (tmp_path / "c.yaml").write_text(text)
        return str(results.recipe_key(tmp_path / "c.yaml", without))

    said = key("seed: 0\npseudo: {hard: true}\n")
    assert key("# why\npseudo:\n  hard: true   # so\nseed: 0\n") == said
    assert key("seed: 0\npseudo: {hard: false}\n") != said
    assert key("seed: 0\npseudo: {hard: false}\n", "pseudo") == key("seed: 0\n") != said
    dated = "split: {dates: {test: 2016-01-01}}\n"
    assert key(dated) != key(dated.replace("2016", "2017"))


def test_no_two_arms_of_the_comparison_of_teachers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each differs from the chosen one and from every other, frozen features apart, which train nothing."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_teachers

    base = ["pretrain.method=none", "folds=1"]
    arms = {name: changes for table in compare_teachers.TABLES.values() for name, changes in table.items()}
    del arms[compare_teachers.FROZEN]
    path = SCRIPTS.parent / "configs" / "kermany160.yaml"
    configs = [load(path, [*base, *changes]) for changes in [(), *arms.values()]]
    assert all(one != other for number, one in enumerate(configs) for other in configs[:number])
