"""The comparisons of methods and of teachers: what is run, on which films, what is kept and what is said of it."""

from __future__ import annotations

import argparse
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from test_scripts import SCRIPTS, script

from noisy_student.config import OptimConfig, PhaseConfig
from noisy_student.config.load import load
from noisy_student.errors import ConfigError
from noisy_student.runs import Run

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
    by_arm = {(line["arm"], line["seed"]): line for line in told}
    assert {arm for (arm, _), line in by_arm.items() if "label_replicates" in line} == {"few", "ours"}
    for line in (by_arm["ours", seed] for seed in (0, 1)):
        for name, draws in line["label_replicates"].items():
            assert np.mean(draws) == pytest.approx(line["labels"][name], abs=0.1)
        teacher, student = line["about"]["measures"]
        assert (teacher["verdict"], teacher["pseudo_auroc"]) == ("first", None)
        assert 0 <= student["pseudo_auroc"] <= 1
        assert line["auroc"] in (teacher["auroc"], student["auroc"])


RECIPE = {
    "threads": 1,
    "folds": 2,
    "data": {"source": "csv", "root": "films", "labels": ["A", "B"], "image_size": 32},
    "teacher": {"optim": {"steps": 4}, "refit": {}},
    "student": {"optim": {"steps": 4}, "refit": {}, "start": "weights"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "pseudo": {"pseudo": {"hard": True}, "promotion": {"rule": "always"}},
    "refits": {
        "teacher": {"optim": {"steps": 4}, "refit": {"noise": {"strength": 3}}},
        "student": {"optim": {"steps": 4}, "refit": {"noise": {"strength": 2}}, "start": "weights"},
        "generations": {1: {"refit": {"noise": {"strength": 4}}}, 2: {"noise": {"strength": 1}}},
    },
    "longer": {"generations": {2: {"refit": {"optim": {"steps": 5}}}}},
    "teacher": {"teacher": {"optim": {"steps": 4, "lr": 0.01}, "refit": {}}},
    "network": {"teacher": {"model": {"name": "resnet18"}, "optim": {"steps": 4}, "refit": {}}},
    "student": {"student": {"optim": {"steps": 4, "lr": 0.01}, "refit": {}, "start": "weights"}},
    "first": {"generations": {1: {"noise": {"strength": 1}}}},
    "targets": {"targets": {"blank": "ignore"}},
}
"""What they say in place of the recipe's sections."""


def test_a_line_stays_while_what_its_arm_reads_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_methods

    def changed(arm: str) -> set[str]:
        recipes = {}
        for name, sections in {"as it is": {}, **OTHERS}.items():
            (tmp_path / "c.yaml").write_text(yaml.safe_dump(RECIPE | sections))
            told = ["--config", str(tmp_path / "c.yaml"), "--root", "films", "--rounds", "2", "--arms", arm]
            recipes[name] = benchmark_methods.recipe_of(arm, benchmark_methods.arguments(told))
        return {name for name, recipe in recipes.items() if recipe != recipes["as it is"]}

    assert changed("ours") == changed("pseudo") == set(OTHERS)
    assert changed("few") == {"teacher", "network", "targets"}
    assert changed("frozen") == {"network", "targets"}
    assert changed("fixmatch") == changed("mean_teacher") == changed("all") == {"longer", "student", "first", "targets"}


@pytest.mark.slow
def test_what_an_arm_is_said_not_to_read_changes_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are the same to the last digit where the recipe is, and others where a part of it is that is read."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_methods

    base = ["--quick", "--output", str(tmp_path)]
    other = {
        "few": ["student.optim.lr=1e-2", "teacher.members=[{}, {}]"],
        "frozen": ["student.optim.lr=1e-2", "teacher.optim.lr=1e-2"],
        "fixmatch": ["teacher.optim.lr=1e-2", "student.members=[{optim: {steps: 3}}, {optim: {steps: 1}}]"],
        "all": ["teacher.optim.lr=1e-2", "generations={2: {noise: {strength: 1}}}"],
    }
    always = ["pseudo.hard=true", "promotion.rule=always"]
    read = {"few": "teacher", "frozen": "", "fixmatch": "student", "all": "student"}
    for arm, settings in other.items():
        told = [benchmark_methods.arguments([*base, "--arms", arm]) for _ in range(3)]
        told[1].own = [f"{arm}:{setting}" for setting in (*always, *settings)]
        told[2].own = [f"{arm}:{read[arm]}.optim.lr=1e-2"] if read[arm] else []
        plain, same, changed = (benchmark_methods.run_arm(arm, 0, given)["replicates"] for given in told)
        assert plain == same, arm
        assert (changed == plain) == (not read[arm]), arm


@pytest.mark.slow
def test_what_arms_would_make_alike_is_made_once_and_is_the_same(tmp_path: Path) -> None:
    """Alone, and after ours: nothing but the seconds differs."""
    start = "pretrain={method: byol, optim: {steps: 2, batch_size: 8, bn_images: 8}, hidden: 8, width: 4}"
    parts = ["self-supervised start", "training of generation 0", "measures of generation 0"]
    given = {"hard": parts, "single": parts[:1], "half labelled": parts}
    own = ["--own", "half labelled:student.optim.labelled_share=0.5"]
    told = {}
    for place, arms in {**{arm: [arm] for arm in given}, "both": ["ours", *given]}.items():
        asked = ["--quick", "--set", start, "--set", "folds=2", "--output", str(tmp_path / place)]
        asked += [*(own if "half labelled" in arms else []), "--arms", *arms]
        script("benchmark_methods.py", *asked)
        found = [json.loads(line) for line in (tmp_path / place / "results.jsonl").read_text().splitlines()]
        told |= {(place, line["arm"], line["seed"]): line | {"seconds": None} for line in found}
    for arm in given:
        for seed in (0, 1):
            assert told["both", arm, seed]["about"].pop("taken_over") == given[arm]
            assert told["both", arm, seed] == told[arm, arm, seed]
    areas = [[told["both", arm, seed]["replicates"] for seed in (0, 1)] for arm in ("ours", *given)]
    assert all(one != other for number, one in enumerate(areas) for other in areas[:number])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--arms", "our"], "--arms our: is none of few, frozen"),
        (["--own", "our:folds=2"], "--own our: is none of few, frozen"),
        ([], ""),
        (["--arms", "few", "--own", "ours:folds=2"], ""),  # a part of the matrix
        (["--arms", "two", "--own", "two:folds=2"], ""),
        (["--folds", "3"], ""),
        (["--folds", "2"], "--folds: goes without --trials, and with more folds"),  # seeds 0, 1 and 2
        (["--folds", "3", "--trials", "t.jsonl"], "--folds: goes without --trials"),
    ],
)
def test_arms_that_are_not_there_are_refused(
    given: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_methods

    monkeypatch.setattr("sys.argv", ["benchmark_methods.py", "--root", "films", *given])
    if says:
        with pytest.raises(SystemExit):
            benchmark_methods.arguments()
    else:
        assert benchmark_methods.arguments().root == Path("films")
    assert says in capsys.readouterr().err


def test_what_a_killed_copy_left_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record comes last, and the log holds nothing of what was not taken over."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import sharing

    source, target = Run(tmp_path / "source"), Run(tmp_path / "target")
    for run, text in ((source, "whole"), (target, "half")):
        (run.path / "pretrain").mkdir(parents=True)
        (run.path / "pretrain" / "model").write_text(text)
    source.log(-1, 1, loss=1.0)
    source.log(0, 1, loss=2.0)
    source.record("pretrain", 0, [], [source.path / "pretrain" / "model"], {"seconds": 3})
    sharing._copy(source, target, "pretrain")
    assert (target.path / "pretrain" / "model").read_text() == "whole"
    assert [line["generation"] for line in target.read_log()] == [-1]
    target.verify("pretrain", 0)
    assert target.read_record("pretrain", 0) == source.read_record("pretrain", 0)


@pytest.mark.parametrize(
    ("changes", "films", "taken"),
    [
        ([], "a", ["self-supervised start", "training of generation 0"]),
        (["prediction.tta=flip"], "a", ["self-supervised start", "training of generation 0"]),
        (["teacher.pos_weight_cap=3"], "a", ["self-supervised start"]),
        (["pretrain.method=none"], "a", []),
        ([], "b", []),
    ],
)
def test_no_more_is_taken_over_than_would_be_made_alike(
    changes: list[str], films: str, taken: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is trained, not measured; ``films`` is what the manifest of the other run says."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import sharing

    base = ["data.labels=[A]", "pretrain.method=byol"]
    source, target = Run(tmp_path / "source"), Run(tmp_path / "target")
    for run, text in ((source, "a"), (target, films)):
        run.path.mkdir()
        run.manifest.write_text(text)
    for stage in ("pretrain", "targets", "fit"):
        (source.path / stage).write_text(stage)
        source.record(stage, 0, [], [source.path / stage])
    monkeypatch.setattr(sharing, "_runs", lambda _: [(source, load(None, base))])
    assert sharing.take_over(target, load(None, [*base, *changes]), tmp_path) == taken
    copied = {name for name in ("pretrain", "targets", "fit") if target.is_complete(name, 0)}
    assert len(copied) == {0: 0, 1: 1, 2: 3}[len(taken)]
    assert all((target.path / name).read_text() == name for name in copied)
    assert target.generations() == ([0] if taken else [])
    if taken:
        assert sharing.take_over(target, load(None, base), tmp_path) == []  # generation 0 has begun


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

    config = SCRIPTS.parent / "configs" / "kermany160.yaml"
    base = ["pretrain.method=byol", "pseudo.hard=false", "pseudo.align=true"]
    whole, without = load(config, base), load(config, [*base, *arms.SETTINGS[arm]])
    assert arms.ARMS[arm] is arms.ARMS["ours"]
    arms.check(arm, whole, without)
    keys = [text.partition("=")[0].split(".") for text in arms.SETTINGS[arm]]
    changed = {field for field in type(whole).model_fields if getattr(whole, field) != getattr(without, field)}
    assert changed == {key[0] for key in keys}
    for section, *name in keys:
        for part in name:
            assert getattr(getattr(whole, section), part) != getattr(getattr(without, section), part)
    with pytest.raises(ConfigError, match="arm new: its settings are what the configuration says already"):
        arms.check("new", whole, whole)
    arms.check("new", whole, without)
    own = load(config, [*base, *arms.SETTINGS[arm], "teacher.optim.lr=5e-4"])
    with pytest.raises(ConfigError, match=f"arm {arm}: {'.'.join(keys[0])}=.* is what the configuration says already"):
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
    for split in (tmp_path / "out").glob("split-*.parquet"):
        chosen = pd.read_parquet(split)
        own = chosen["image"].map(table)
        assert set(own) == {"train", "valid"}
        assert set(own[chosen["split"] == "test"]) == {"train"}


@pytest.mark.slow
def test_folds_test_every_patient_once(tmp_path: Path) -> None:
    carved = [
        "split.validation=carve",
        "split.labelled_images=null",
        "split.labelled_fraction=0.5",
        "split.carve_share=0.5",
    ]
    given = [text for setting in [*carved, "split.valid_images=null"] for text in ("--set", setting)]
    found = script(
        "benchmark_methods.py", "--quick", "--output", str(tmp_path), "--arms", "frozen", "--folds", "2", *given
    )
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert {line["recipe"]["films"] for line in lines} == {"folds of 2"}
    assert len({line["test"] for line in lines}) == len(found["arms"]["frozen"]["auroc"]) == 2
    patient = pd.read_csv(tmp_path / "films" / "labels.csv").set_index("image")["patient"]
    folds = [pd.read_parquet(split) for split in tmp_path.glob("split-*.parquet")]
    tested = [set(fold["image"][fold["split"] == "test"].map(patient)) for fold in folds]
    assert not tested[0] & tested[1]
    assert tested[0] | tested[1] == set(patient)
    for fold in folds:
        parts = fold.groupby("split")["image"].agg(lambda images: set(images.map(patient)))
        assert not parts["train"] & parts["test"]
        assert parts["valid"]
        assert fold["labelled"].any()


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


def test_the_figures_of_the_matrix_are_those_of_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines made up for three seeds of one cell; nothing is run."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_methods
    import matrix
    import results

    monkeypatch.setattr(matrix, "place", lambda name: tmp_path / f"{name}.jsonl")
    cell, name = matrix.CELLS["kermany160-26"], "kermany160-26"
    given = benchmark_methods.arguments(cell.call(name, Path("films"), cell.arms, cell.seeds))
    kept = lines(few=[0.80] * 3, mean_teacher=[0.81] * 3, fixmatch=[0.79] * 3, ours=[0.83, 0.85, 0.87], all=[0.9] * 3)
    for (arm, seed), line in kept.items():
        measures = [
            {
                "auroc": 0.8 + step,
                "log_loss": 0.5 - step,
                "brier": 0.2 - step,
                "ece_debiased": 0.03,
                "pseudo_auroc": 0.7,
            }
            for step in (0, 0.01, 0.01, 0.01 + 0.002 * seed)
        ]
        line["about"] |= {"measures": measures} if arm == "ours" else {}
        line["labels"] = {"Normal": line["auroc"] + 0.1, "Viral": line["auroc"] - 0.06 * (arm == "ours"), "Rare": None}
        line["label_replicates"] = {label: [area] * 1000 for label, area in line["labels"].items()}
        line |= {"arm": arm, "seed": seed, "recipe": benchmark_methods.recipe_of(arm, given)}
        results.append(matrix.place(name), line)
    monkeypatch.setattr("sys.argv", ["matrix.py", "--cells", name, "--plots", str(tmp_path)])
    matrix.main()
    told = capsys.readouterr().out
    assert "## kermany160-26, seeds 0, 1, 2" in told
    assert "| gap closed, kermany160-26 | 0.6 | 0.85 | 0.50 (" in told
    assert "kermany160-26 +0.040 over mean_teacher; mean +0.040 |" in told
    assert "every seed | +0.0020, by seed +0.0000 to +0.0040 |" in told
    assert "ours minus few, worst label | not below −0.010 | | Viral −0.010 (" in told
    assert "log loss −0.0120, Brier −0.0120, debiased ECE 0.030 |" in told
    assert (tmp_path / "kermany160-26.svg").read_text().count("ours")


def test_the_cells_of_the_matrix_and_their_arms_have_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every arm changes something of the configuration of its cell."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms
    import benchmark_methods
    import matrix

    for name, cell in matrix.CELLS.items():
        more = (
            (*matrix.ABLATION, *matrix.FINDINGS) if name == "kermany160-52" else tuple(set(cell.own) - set(cell.arms))
        )
        given = benchmark_methods.arguments(cell.call(name, Path("films"), (*cell.arms, *more), cell.seeds))
        assert (given.rounds, given.results) == (3, matrix.place(name))
        base = load(given.config, given.set)
        for arm in given.arms:
            settings = [*given.set, *arms.SETTINGS.get(arm, ()), *benchmark_methods.own(arm, given)]
            arms.check(arm, base, load(given.config, settings))


@pytest.mark.parametrize("code", [0, 3])
def test_the_matrix_runs_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import matrix

    calls: list[list[str]] = []

    def instead(call: list[str], check: bool) -> argparse.Namespace:
        del check
        calls.append(call)
        return argparse.Namespace(returncode=code)

    monkeypatch.setattr(matrix, "place", lambda name: tmp_path / f"{name}.jsonl")
    monkeypatch.setattr("subprocess.run", instead)
    made: list[Path] = []
    monkeypatch.setattr(
        matrix.dataset, "write_dataset", lambda root, config: made.append(root / str(config.train_patients))
    )
    given = argparse.Namespace(arms=["few", "findings"], data=Path("data"), output=tmp_path, jobs=2)
    given.cells = ["nih1000-20", "kermany160-52"]
    if code:
        with pytest.raises(SystemExit, match="8 of 8 processes failed"):
            matrix.run(given)
    else:
        matrix.run(given)
    assert len(calls) == 3 + 5
    roots = {call[call.index("--root") + 1] for call in calls}
    assert roots == {"data/nih1000", "data/kermany160"}
    assert all({"few", *matrix.FINDINGS} < set(call) for call in calls)
    assert all(f"weak teacher:{setting}" in call for call in calls for setting in matrix.VARIANTS["weak teacher"])
    calls.clear()
    assert made == []
    given.cells, given.arms = ["synthetic-2"], ["few", "anew"]
    with pytest.raises(SystemExit) if code else nullcontext():
        matrix.run(given)
    assert made == [tmp_path / "synthetic" / "2400"]
    assert [call[call.index("--root") + 1] for call in calls] == [str(tmp_path / "synthetic")] * 5
    assert all("anew:student.start=weights" in call for call in calls)


def test_labels_and_generations_of_ours_stand_in_tables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    told = lines(few=[0.80, 0.80], ours=[0.85, 0.83])
    assert results.labels(told, "ours", "few", [0, 1]) == results.generations(told, "ours", [0, 1]) == ""
    moved = np.linspace(-0.01, 0.01, 1000)
    for (arm, seed), line in told.items():
        line["labels"] = {"A": line["auroc"], "B": None}
        line["label_replicates"] = {"A": (line["auroc"] + moved).tolist(), "B": [None] * 1000}
        first = {"auroc": 0.8, "log_loss": 0.4, "brier": 0.1, "ece_debiased": 0.03, "pseudo_auroc": None}
        second = first | {"auroc": 0.79 + 0.04 * seed, "log_loss": 0.3 + 0.1 * seed, "pseudo_auroc": 0.7 + 0.1 * seed}
        line["about"]["measures"] = [first, second, second | {"auroc": 0.82}] if arm == "ours" else None
    # Replicates move both alike, so only the seeds differ: by 0.05 and 0.03.
    assert results.labels(told, "ours", "few", [0, 1]).splitlines()[2:] == [
        "| A | 0.800 | 0.840 | +0.040 (+0.030 to +0.050) |",
        "| B | – | – | – |",
    ]
    assert results.generations(told, "ours", [0, 1]).splitlines()[2:] == [
        "| 0 | 0.8000 | – | – | 0.4000 | 0.1000 | 0.0300 | – |",
        "| 1 | 0.8100 | −0.0100 | – | 0.3500 | 0.1000 | 0.0300 | 0.7500 |",
        "| 2 | 0.8200 | +0.0200 | −0.0100 | 0.3500 | 0.1000 | 0.0300 | 0.7500 |",
    ]
    assert results.generations(told, "few", [0, 1]) == ""


def test_teachers_stand_against_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_teachers

    told = lines(base=[0.80, 0.82, 0.84], other=[0.83, 0.82, 0.84])
    head, base, other = list(compare_teachers.rows(told, [0, 1, 2], "base"))
    assert "minus base" in head
    assert base == "| base | 0.820 | 0.020 |  |"
    # Replicates move both alike, so only the seeds differ: by 0.03, 0 and 0, whose mean over three draws is 0 to 0.03.
    assert other == "| other | 0.830 | 0.010 | +0.010 (+0.000 to +0.030) |"
    _, base, other = list(compare_teachers.rows(told, [0, 1, 2], "other"))
    assert base == "| base | 0.820 | 0.020 | −0.010 (−0.030 to +0.000) |"
    assert other == "| other | 0.830 | 0.010 |  |"
    assert "| – | −0.030 (−0.030 to −0.030) |" in list(compare_teachers.rows(told, [0], "other"))[1]
    told["other", 1]["test"] = "u"
    with pytest.raises(SystemExit, match="different test films"):
        list(compare_teachers.rows(told, [0, 1, 2], "base"))


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
    folds = lines(few=[0.8, 0.7, 0.9], all=[0.9, 0.9, 0.95])
    for arm, seed in folds:
        folds[arm, seed]["test"] = f"fold {seed}"
    assert results.summarise(folds, [0, 1, 2])["arms"]["few"]["mean"] == pytest.approx(0.8)
    for arm in ("few", "all"):
        folds[arm, 2]["test"] = "fold 1"  # neither the same films for all seeds, nor other ones for each
    with pytest.raises(SystemExit, match="different test films"):
        results.summarise(folds, [0, 1, 2])


def test_frozen_features_come_from_all_of_the_start_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import frozen

    taken = []
    monkeypatch.setattr(frozen.models, "load_weights", lambda network, model, folders, *, seed: taken.append(model))
    config = load(SCRIPTS.parent / "configs" / "kermany160.yaml", [])
    assert config.teacher.model.initialise == "lowest"
    frozen.features(argparse.Namespace(config=config, cache=argparse.Namespace(pixels=None)))
    assert [(model.initialise, model.pretrained_blocks) for model in taken] == [("pretrained", None)]


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

    config = SCRIPTS / "teachers.yaml"
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
    parts = "generations: {1: {refit: {start: weights}}, 2: {start: weights}}\n"
    assert key(parts, "generations.2", "generations.1.refit") == key("{}")
    assert key(parts, "generations.2", "student.refit") == key("generations: {1: {refit: {start: weights}}}")
    assert key(parts, "generations.20") == key(parts)
    dated = "split: {dates: {test: 2016-01-01}}\n"
    assert key(dated) != key(dated.replace("2016", "2017"))


def test_no_two_arms_of_the_comparison_of_teachers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each differs from the base and from every other, frozen features apart, which train nothing."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_teachers

    base = compare_teachers.ALIKE
    arms = {name: changes for table in compare_teachers.TABLES.values() for name, changes in table.items()}
    del arms[compare_teachers.FROZEN]
    path = SCRIPTS / "teachers.yaml"
    configs = [load(path, [*base, *changes]) for changes in [(), *arms.values()]]
    assert all(one != other for number, one in enumerate(configs) for other in configs[:number])
