"""The comparison of teachers: its films, its arms and its table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import pytest
from test_results import lines
from test_scripts import SCRIPTS

from noisy_student.config.load import load


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
