"""Kept lines of the benchmark of methods: what they say together, and the matrix of cells made of them."""

from __future__ import annotations

import argparse
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_scripts import SCRIPTS

from noisy_student import plan


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

    told = lines(few=[0.80, 0.82] * 2, ours=[0.85, 0.83] * 2, all=[0.90] * 4)
    found = results.summarise(told, range(4))
    assert found["gap_closed"] == pytest.approx((0.84 - 0.81) / (0.90 - 0.81))
    # Replicates move all arms alike, so only the seeds differ. The furthest draws have seeds of one kind alone, one in
    # sixteen of either, and are spread by Student's t with three degrees of freedom.
    far = 0.01 * 3.1824 / 1.95996 * np.sqrt(4 / 3)
    ends = [(0.03 - 2 * far) / (0.09 - far), (0.03 + 2 * far) / (0.09 + far)]
    assert found["gap_closed_ci"] == pytest.approx(ends, rel=1e-3)
    assert found["arms"]["few"]["ours_minus"] == pytest.approx([0.03 - 2 * far, 0.03 + 2 * far], rel=1e-3)
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
    import benchmark_methods
    import matrix

    for name, cell in matrix.CELLS.items():
        more = tuple(set(cell.own) - set(cell.arms))
        given = benchmark_methods.arguments(cell.call(name, Path("films"), (*cell.arms, *more), cell.seeds))
        assert (given.rounds, given.results) == (1 if name == "kermany160-variants" else 3, matrix.place(name))
        for arm in given.arms:
            benchmark_methods.checked(arm, given, given.set)


def test_in_every_cell_the_rivals_see_as_many_films_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import arms
    import benchmark_methods
    import matrix

    compared = 0
    for name, cell in matrix.CELLS.items():
        names = [arm for arm in cell.arms if arms.ARMS.get(arm) in arms.AS_LONG]
        given = benchmark_methods.arguments(cell.call(name, Path("films"), ("ours", *names), cell.seeds))
        ours = plan.amount(benchmark_methods.checked("ours", given, given.set), given.rounds)
        assert ours is not None
        for arm in names:
            config = benchmark_methods.checked(arm, given, given.set)
            assert arms.budget(arm, config, given.rounds) == ours[1], (name, arm)
            compared += 1
    assert compared >= 18


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
    given = argparse.Namespace(arms=["few"], seeds=None, data=Path("data"), output=tmp_path, jobs=2)
    given.cells = ["nih1000-20", "kermany160-52"]
    if code:
        with pytest.raises(SystemExit, match="8 of 8 processes failed"):
            matrix.run(given)
    else:
        matrix.run(given)
    assert len(calls) == 3 + 5
    roots = {call[call.index("--root") + 1] for call in calls}
    assert roots == {"data/nih1000", "data/kermany160"}
    calls.clear()
    given.cells, given.arms, given.seeds = ["kermany160-variants"], ["ours", "findings"], [0, 3, 7]
    with pytest.raises(SystemExit) if code else nullcontext():
        matrix.run(given)
    assert sorted(call[call.index("--seeds") + 1] for call in calls) == ["0", "3"]  # the cell has no seed 7
    assert all({"ours", *matrix.FINDINGS} < set(call) for call in calls)
    assert all(f"weak teacher:{setting}" in call for call in calls for setting in matrix.VARIANTS["weak teacher"])
    calls.clear()
    assert made == []
    given.cells, given.arms, given.seeds = ["synthetic-2"], ["few", "anew"], None
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
    # Replicates move both alike, so only the seeds differ: by 0.05 and 0.03, spread 9.17 times as far by Student's t.
    assert results.labels(told, "ours", "few", [0, 1]).splitlines()[2:] == [
        "| A | 0.800 | 0.840 | +0.040 (−0.052 to +0.132) |",
        "| B | – | – | – |",
    ]
    assert results.generations(told, "ours", [0, 1]).splitlines()[2:] == [
        "| 0 | 0.8000 | – | – | 0.4000 | 0.1000 | 0.0300 | – |",
        "| 1 | 0.8100 | −0.0100 | – | 0.3500 | 0.1000 | 0.0300 | 0.7500 |",
        "| 2 | 0.8200 | +0.0200 | −0.0100 | 0.3500 | 0.1000 | 0.0300 | 0.7500 |",
    ]
    assert results.generations(told, "few", [0, 1]) == ""


def test_a_line_names_the_revision_of_the_code_and_whether_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    assert results.revision(tmp_path) == "unknown"

    def git(*told: str) -> str:
        who = "-c", "user.name=a", "-c", "user.email=a@b"
        return subprocess.run(["git", *who, *told], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    kept, code = tmp_path / "docs" / "results" / "cell.jsonl", tmp_path / "scripts" / "code.py"
    for path in (kept, code):
        path.parent.mkdir(parents=True)
        path.write_text("1\n", encoding="utf-8")
    git("init", "-q")
    assert results.revision(code.parent) == "unknown"  # nothing is committed yet
    git("add", ".")
    git("commit", "-q", "-m", "first")
    name = git("rev-parse", "--short", "HEAD").strip()
    assert results.revision(code.parent) == name
    kept.write_text("1\n2\n", encoding="utf-8")  # a run keeps a line: the code is still that of the revision
    assert results.revision(code.parent) == name
    code.write_text("2\n", encoding="utf-8")
    assert results.revision(code.parent) == f"{name}+"


def test_teachers_stand_against_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_teachers

    told = lines(base=[0.80, 0.82, 0.84], other=[0.83, 0.82, 0.84])
    head, base, other = list(compare_teachers.rows(told, [0, 1, 2], "base"))
    assert "minus base" in head
    assert base == "| base | 0.820 | 0.020 |  |"
    # Replicates move both alike, so only the seeds differ: by 0.03, 0 and 0, whose mean over three draws is 0 to 0.03,
    # and 2.69 times as far from 0.01 by Student's t with two degrees of freedom (4.30 / 1.96 * sqrt(3 / 2)).
    assert other == "| other | 0.830 | 0.010 | +0.010 (−0.017 to +0.064) |"
    _, base, other = list(compare_teachers.rows(told, [0, 1, 2], "other"))
    assert base == "| base | 0.820 | 0.020 | −0.010 (−0.064 to +0.017) |"
    assert other == "| other | 0.830 | 0.010 |  |"
    assert "| – | −0.030 (−0.030 to −0.030) |" in list(compare_teachers.rows(told, [0], "other"))[1]
    told["other", 1]["test"] = "u"
    with pytest.raises(SystemExit, match="different test films"):
        list(compare_teachers.rows(told, [0, 1, 2], "base"))


def test_every_arm_closes_its_own_part_of_the_gap_and_stands_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    found = results.summarise(lines(few=[0.8, 0.8], rival=[0.79, 0.81], ours=[0.85, 0.85], all=[0.9, 0.9]), [0, 1])
    wide = 12.706 / 1.96 * np.sqrt(2)  # Student's t with one degree of freedom
    assert [found["arms"][arm]["gap_closed"] for arm in ("few", "rival", "ours", "all")] == pytest.approx(
        [0, 0, 0.5, 1]
    )
    assert found["arms"]["rival"]["gap_closed_ci"] == pytest.approx([-0.1 * wide, 0.1 * wide], rel=1e-3)
    assert found["arms"]["rival"]["ours_minus"] == pytest.approx([0.05 - 0.01 * wide, 0.05 + 0.01 * wide], rel=1e-3)
    rows = dict(line.strip("| ").split(" | ", 1) for line in results.table(found).splitlines()[2:])
    sd = np.std([0.79, 0.81], ddof=1)
    assert rows["rival"].startswith(f"0.8000 | {sd:.4f} | 0.7")
    assert rows["rival"].endswith("| −0.0417 to +0.1417 | 0.00 (−0.92 to 0.92) | 9 | 1.0")
    assert "| – | 0.50 (0.50 to 0.50) |" in rows["ours"]  # nothing is compared with itself


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("patients", [0.0, 1.0])
def test_intervals_over_few_seeds_cover_what_they_promise(
    count: int, patients: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    draws = np.random.default_rng(1)
    covered = []
    for _ in range(500):  # the truth is 0; seeds have a spread of 1, and the patients move all of them alike
        of_seed = draws.normal(0, 1, count) + draws.normal(0, patients)
        replicates = of_seed[:, None] + draws.normal(0, patients, results.REPLICATES)
        low, high = np.quantile(results._over_seeds(replicates), (0.025, 0.975))
        covered.append(low <= 0 <= high)
    # Three standard errors of a share of 0.95 are 0.03; without the t 0.48 to 0.83 were covered by seeds alone.
    assert np.mean(covered) >= 0.92


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
