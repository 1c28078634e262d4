"""What films without labels are worth in labels, from kept lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_results import lines
from test_scripts import SCRIPTS


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.parametrize(
    ("area", "budget"),
    [
        (0.70, 100),
        (0.80, 100),
        (0.82, 200**0.5 * 100**0.5),  # half of the way between two budgets is their geometric mean
        (0.84, 200),  # the smaller of two budgets that are as good
        (0.85, 400**0.8 * 800**0.2),
        (0.95, 1600),
    ],
)
def test_worth_lies_between_budgets_by_the_logarithm_of_their_size(area: float, budget: float) -> None:
    import label_worth

    known = np.array([0.80, 0.84, 0.83, 0.89, 0.91])  # 400 labels, worse than 200, count as no better
    curve = label_worth.Curve([100, 200, 400, 800, 1600], known, np.tile(known, (3, 1)))
    assert curve.worth(area, np.full(3, area)) == pytest.approx((budget, budget, budget))


def test_its_interval_is_of_the_replicates_of_curve_and_arm_together() -> None:
    import label_worth

    draws = np.array([[0.80, 0.90], [0.70, 0.80]])
    curve = label_worth.Curve([100, 400], draws[0], draws)
    # Both replicates move arm and curve alike, so the arm is worth the same in each.
    assert curve.worth(0.85, np.array([0.85, 0.75])) == pytest.approx((200, 200, 200))
    assert curve.worth(0.85, np.array([0.80, 0.80])) == pytest.approx((200, 107.5, 392.5))


def test_replicates_without_an_area_are_left_out_and_ends_outside_the_curve_are_bounds() -> None:
    import label_worth

    known = np.array([0.80, 0.90])
    draws = np.array([known, known, known, [np.nan, 0.90]])
    curve = label_worth.Curve([100, 1600], known, draws)
    assert curve.worth(0.85, np.array([0.85, 0.85, np.nan, 0.95])) == pytest.approx((400, 400, 400))
    value, low, high = curve.worth(0.85, np.array([0.70, 0.95, np.nan, 0.70]))
    assert (value, low, high) == pytest.approx((400, 137.5, 1562.5))
    assert [curve.told(budget) for budget in (100, value, 1600)] == ["<= 100", "400", ">= 1,600"]
    assert [curve.told(budget) for budget in curve.worth(0.95, np.full(4, 0.95))] == [">= 1,600"] * 3
    assert [curve.told(budget) for budget in curve.worth(0.85, np.full(4, np.nan))] == ["400", "–", "–"]


def test_table_and_picture_come_from_kept_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines made up for two seeds; nothing is run."""
    import benchmark_methods
    import label_worth
    import matrix
    import results

    monkeypatch.setattr(matrix, "place", lambda name: tmp_path / f"{name}.jsonl")
    monkeypatch.setattr("sys.argv", ["label_worth.py", "--plot", str(tmp_path / "picture.svg")])
    with pytest.raises(SystemExit, match="no seed has all lines"):
        label_worth.main()
    first = matrix.CELLS[label_worth.CELL]
    cells = [(label_worth.CELL, first, {"few": 0.8, "ours": 0.88, "mean_teacher": 0.84, "fixmatch": 0.7, "all": 0.99})]
    for number, budget in enumerate(label_worth.STEPS, start=1):
        cells.append((label_worth.NAME, label_worth.cell_of(budget), {"few": 0.8 + 0.04 * number}))
    for name, cell, areas in cells:
        given = benchmark_methods.arguments(cell.call(name, Path("films"), list(areas), cell.seeds))
        for (arm, seed), line in lines(**{arm: [area] * 2 for arm, area in areas.items()}).items():
            recipe = benchmark_methods.recipe_of(arm, given)
            results.append(matrix.place(name), line | {"arm": arm, "seed": seed, "recipe": recipe})
    label_worth.main()
    told = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.splitlines()]
    assert {row[0]: row[4] for row in rows[2:]} == {
        **{f"few, {budget} labels": "–" for budget in ("104", "208", "416", "832")},
        "ours": "416 (416 to 416)",
        "mean_teacher": "208 (208 to 208)",
        "fixmatch": "<= 104 (<= 104 to <= 104)",
        "all": "–",
    }
    assert rows[2][:4] == ["few, 104 labels", "0.8000", "0.0000", "0.791 to 0.809"]
    assert "<svg" in (tmp_path / "picture.svg").read_text(encoding="utf-8")
