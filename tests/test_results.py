"""Kept lines of the benchmarks: what names their recipe and revision, and what several seeds say together."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_scripts import SCRIPTS


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


def test_intervals_end_where_an_auroc_and_a_difference_of_two_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import results

    told = lines(few=[0.05, 0.5, 0.1], ours=[0.70, 0.98, 0.985], all=[0.99, 0.99, 0.05])
    for line in told.values():
        line |= {"labels": {"A": line["auroc"]}, "label_replicates": {"A": line["replicates"]}}
    found = results.summarise(told, range(3))["arms"]
    assert 0 < found["ours"]["ci"][0] < 0.7
    assert found["ours"]["ci"][1] == 1
    assert found["few"]["ci"][0] == 0
    assert found["all"]["ours_minus"] == [-1, 1]
    pair = results.label_pairs(told, "ours", "all", range(3))["A"]
    assert (pair.low, pair.high) == (-1, 1)
    assert results._interval(np.array([-3.0, 3.0])) == pytest.approx([-2.85, 2.85])  # a gap closed has no ends


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
