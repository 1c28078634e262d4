"""The benchmark of methods: what its arms run, on which films, and what is kept of them."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score
from test_scripts import SCRIPTS, script

from noisy_student.config import OptimConfig, PhaseConfig
from noisy_student.config.load import load
from noisy_student.errors import ConfigError, DataError
from noisy_student.runs import Run
from noisy_student.targets.table import Targets

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
    (folder,) = [path for path in (tmp_path / "out").iterdir() if path.is_dir() and path.name != "films"]
    assert folder.name == json.loads(lines[0])["revision"]  # another revision begins anew
    runs = list(folder.iterdir())
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
        assert np.mean(list(student["labels"].values())) == pytest.approx(student["auroc"], abs=1e-6)
        assert all(0 <= student["pool"][name]["teachers_auroc"] <= 1 for name in student["labels"])
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
        "few": ["student.optim.lr=1e-2", "student.members=[{}, {}]"],
        "frozen": ["student.optim.lr=1e-2", "teacher.optim.lr=1e-2"],
        "fixmatch": ["teacher.optim.lr=1e-2", "generations={2: {members: [{}, {}]}}"],
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


def test_every_arm_learns_from_the_films_and_by_the_term_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an arm would train with; nothing is trained."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms
    import benchmark_methods

    seen: dict[str, tuple[Targets, PhaseConfig]] = {}
    table: pd.DataFrame | None = None
    for arm in ("few", "mean_teacher", "fixmatch", "all"):

        def instead(bench: arms.Bench, targets: Targets, phases: list[PhaseConfig], arm: str = arm) -> Any:
            (seen[arm],) = ((targets, phase) for phase in phases)
            nonlocal table
            table = bench.seen.frame
            return np.random.default_rng(0).random((len(bench.test), 2))

        monkeypatch.setattr(arms, "trained", instead)
        given = benchmark_methods.arguments(["--quick", "--output", str(tmp_path), "--arms", arm])
        benchmark_methods.run_arm(arm, 0, given)
    assert table is not None
    train, valid, labelled = table["split"] == "train", table["split"] == "valid", table["labelled"].astype(bool)
    budget, pool = set(table["image"][valid | labelled]), set(table["image"][train & ~labelled])
    assert (len(budget), len(pool)) == (24, 96 - 12)
    methods = {arm: phase.consistency.method for arm, (_, phase) in seen.items()}
    assert methods == {"few": "none", "mean_teacher": "mean_teacher", "fixmatch": "fixmatch", "all": "none"}
    for arm, (targets, _) in seen.items():
        learnt = set(targets.images[(targets.weight > 0).all(axis=1)])
        assert learnt == (budget | pool if arm == "all" else budget), arm
        rival = arm in ("mean_teacher", "fixmatch")
        assert set(targets.images[targets.pseudo]) == (pool if rival else set()), arm
        truth = pd.read_csv(given.root / "labels.csv", index_col="image").loc[sorted(learnt), ["A", "B"]].to_numpy()
        order = np.argsort(targets.images.astype(str))
        order = order[(targets.weight[order] > 0).all(axis=1)]
        np.testing.assert_array_equal(targets.target[order], truth)


@pytest.mark.parametrize(
    ("arm", "own", "sizes", "films"),
    [
        # Ours: four steps of eight films by the teacher and by the first student, four of four by the second. 40 each.
        ("mean_teacher", ["student.members=[{}, {optim: {batch_size: 4}}]"], [(5, 8), (10, 4)], 108),
        ("few_ensemble", [], [(4, 8)] * 6, 24),  # as long as few, every one of them
    ],
)
def test_several_networks_of_an_arm_say_their_mean(
    arm: str,
    own: list[str],
    sizes: list[tuple[int, int]],
    films: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are trained as far as their tasks go; what they say is made up."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms
    import benchmark_methods

    said = np.random.default_rng(0).normal(size=(len(sizes), 32, 2))
    tasks: list[arms.fit.Task] = []
    asked: list[Path] = []

    def load_network(path: Path) -> tuple[torch.nn.Module, None]:
        asked.append(path)
        return torch.nn.Identity(), None

    monkeypatch.setattr(arms.fit, "fit", lambda _, task, **__: tasks.append(task))
    monkeypatch.setattr(arms, "load_network", load_network)
    monkeypatch.setattr(arms.predict, "predict", lambda *_, **__: said[len(asked) - 1])
    given = benchmark_methods.arguments(["--quick", "--output", str(tmp_path), "--arms", arm])
    given.own = [f"{arm}:{setting}" for setting in own]
    line = benchmark_methods.run_arm(arm, 0, given)
    assert [(task.phase.optim.steps, task.phase.optim.batch_size) for task in tasks] == sizes
    seen, steps = sum(steps * batch for steps, batch in sizes), sum(steps for steps, _ in sizes)
    assert line["about"] == {"images_seen": seen, "films": films, "steps": steps}
    assert tasks[0].seed == 0
    assert len({task.seed for task in tasks}) == len(tasks)
    assert [path.parts[-3] for path in asked] == [f"member-{number}" for number in range(len(tasks))]
    tested = pd.read_csv(given.root / "labels.csv").query("split == 'test'")
    for column, name in enumerate("AB"):
        truth, mean = tested[name], said.mean(axis=0)[:, column]
        assert line["labels"][name] == pytest.approx(roc_auc_score(truth, mean), abs=1e-6)


@pytest.mark.slow
def test_test_films_without_a_class_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms
    import benchmark_methods

    given = benchmark_methods.arguments(["--quick", "--output", str(tmp_path / "bench")])
    path = given.root / "labels.csv"
    table = pd.read_csv(path)
    table.loc[table["split"] == "test", "B"] = 0
    table.to_csv(path, index=False)
    monkeypatch.setattr(arms, "trained", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(DataError, match="B: none of the 32 test films is positive"):
        benchmark_methods.run_arm("few", 0, given)


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
        (["evaluation.macro_labels=[A]"], "a", ["self-supervised start"]),
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

    base = ["data.labels=[A, B]", "pretrain.method=byol"]
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
    termed = ["data.labels=[A]", "folds=3", "teacher.refit={}", "student.refit={consistency: {method: fixmatch}}"]
    with pytest.raises(ConfigError, match=r"student: its refit or members bring noise"):
        arms.check("pseudo", load(None, termed), load(None, [*termed, *arms.SETTINGS["pseudo"]]))
    calm = [*termed, *arms.SETTINGS["pseudo"], "student.refit={}"]
    arms.check("pseudo", load(None, termed), load(None, calm))


def test_a_line_is_of_another_recipe_where_the_settings_of_its_arm_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms
    import benchmark_methods

    given = benchmark_methods.arguments(["--root", "films", "--config", str(SCRIPTS.parent / "configs" / "demo.yaml")])
    before = benchmark_methods.recipe_of("mean_teacher", given), benchmark_methods.recipe_of("ours", given)
    monkeypatch.setitem(arms.SETTINGS, "mean_teacher", (*arms.SETTINGS["mean_teacher"], "student.noise.strength=3"))
    after = benchmark_methods.recipe_of("mean_teacher", given), benchmark_methods.recipe_of("ours", given)
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_line_of_phantoms_is_of_another_recipe_where_their_version_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import benchmark_methods

    told = ["--root", "films", "--config", str(SCRIPTS.parent / "configs" / "demo.yaml")]
    synthetic, real = (benchmark_methods.arguments(some) for some in (told, told[:2]))
    before = [benchmark_methods.recipe_of("few", given) for given in (synthetic, real)]
    monkeypatch.setattr(benchmark_methods.synthetic, "VERSION", 0)
    after = [benchmark_methods.recipe_of("few", given) for given in (synthetic, real)]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_the_demonstration_s_lines_are_those_of_the_command_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.chdir(SCRIPTS.parent)
    import benchmark_methods

    told = Path("docs/benchmarks.md").read_text(encoding="utf-8")
    command = next(line for line in told.splitlines() if "benchmark_methods.py --config configs/demo.yaml" in line)
    given = benchmark_methods.arguments(command.split()[2:])
    told_of = ("few", "few_ensemble", "ours", "all")
    assert set(benchmark_methods.kept(given)) == {(arm, seed) for arm in told_of for seed in range(3)}
    given.set.remove("precision=fp32")  # today's own recipe, which no line has
    assert benchmark_methods.kept(given) == {}


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
