"""The matrix of cells: their configurations, what is run of them, and the figures over all of them."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import pytest
from test_results import lines
from test_scripts import SCRIPTS

from noisy_student import plan


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
    rival = results.summarise(kept, [0, 1, 2])["arms"]["mean_teacher"]["ours_minus"]
    between = " to ".join(f"{end:+.3f}".replace("-", "−") for end in rival)
    assert f"kermany160-26 +0.040 ({between}) over mean_teacher; mean +0.0400 |" in told
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
    assert all("anew:student.start=weights" in call for call in calls)
    assert [call[call.index("--root") + 1] for call in calls] == [str(tmp_path / "synthetic")] * 5
    calls.clear()
    given.cells, given.arms = ["synthetic-224"], ["few"]
    with pytest.raises(SystemExit) if code else nullcontext():
        matrix.run(given)
    assert made[1:] == [tmp_path / "synthetic-224" / "9800"]  # other films, and a folder of their own
    assert [call[call.index("--root") + 1] for call in calls] == [str(tmp_path / "synthetic-224")]


def test_cells_that_need_a_gpu_are_run_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import matrix

    monkeypatch.setattr("sys.argv", ["matrix.py"])
    assert matrix.arguments().cells == [name for name in matrix.CELLS if name != "synthetic-224"]
    monkeypatch.setattr("sys.argv", ["matrix.py", "--cells", "synthetic-224"])
    assert matrix.arguments().cells == ["synthetic-224"]
