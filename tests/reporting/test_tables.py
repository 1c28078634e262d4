from __future__ import annotations

import copy

import pytest

from noisy_student.reporting import calibrations, tables
from noisy_student.runs import read_json


@pytest.fixture(scope="module")
def report(finished):
    return read_json(finished.path / "report.json")


@pytest.fixture
def entry(report):
    return copy.deepcopy(report["generations"][2])


def texts(table: tables.Table) -> dict[str, list[str]]:
    return {row.head.text: [cell.text for cell in row.cells] for row in table.rows}


def test_thresholds_are_shown_where_films_were_cut_elsewhere_than_at_one_half(entry):
    plain = tables.pseudo(entry)
    cells = entry["pseudo"]["labels"]
    for cell in cells.values():
        cell["thresholds"] = {"low": 0.5, "high": 0.5, "reason": None}
    assert tables.pseudo(entry) == plain
    first, *rest = cells
    cells[first]["thresholds"] = {"low": 0.25, "high": None, "reason": "no threshold"}
    table = tables.pseudo(entry)
    assert [column.title for column in table.columns[-2:]] == ["Negative up to", "Positive from"]
    assert texts(table)[first][-2:] == ["0.250", "–"]
    assert all(texts(table)[name][-2:] == ["0.500", "0.500"] for name in rest)
    assert {len(row.cells) + 1 for row in table.rows} == {len(table.columns)}


def test_every_table_has_as_many_cells_as_columns(report, entry):
    groups = tables.subgroups(entry)
    made = [
        tables.generations(report, [0]),
        tables.labels(entry, (0.5, 1.0)),
        tables.more_measures(entry),
        *(table for _, _, table in tables.operating_points(entry)),
        tables.comparison(entry["paired"]),
        tables.pseudo(entry),
        tables.quality(entry),
        *(table for _, _, *both in groups for table in both),
        tables.split(report),
        tables.quarantine(report),
        tables.policies(report),
        *(table for _, _, table in calibrations.by_network(entry, "image")),
        tables.film({"Edema": {"truth": None, "probability": 0.2}}, "film"),
    ]
    assert len(made) == 18
    for table in made:
        assert table.rows, table.name
        assert all(len(row.cells) == len(table.columns) - 1 for row in table.rows), table.name


def test_labels_show_the_measures_and_sort_by_them(entry):
    table = tables.labels(entry, (0.5, 1.0))
    cell = entry["test"]["labels"]["Edema"]
    row = next(row for row in table.rows if row.head.text == "Edema")
    keys = [cell["auroc"], cell["ap"], cell["operating_points"]["youden"]["f1"], cell["brier"], cell["log_loss"]]
    assert [part.key for part in row.cells] == [*keys, cell["ece"], cell["positives"], cell["negatives"]]
    assert row.cells[0].text == f"{cell['auroc']:.3f} ({cell['ci'][0]:.3f}–{cell['ci'][1]:.3f})"


def test_labels_end_with_the_macro_mean(entry):
    table, macro = tables.labels(entry, (0.5, 1.0)), entry["test"]["macro"]
    assert (table.foot.head.text, table.foot.head.note) == ("Macro mean", "of 14 labels")
    assert len(table.foot.cells) == len(table.columns) - 1
    keys = [macro[key] for key in ("auroc", "ap", "brier", "log_loss", "ece")]
    assert [cell.key for cell in table.foot.cells if cell.text] == keys
    macro.update(ci=None, reason="no interval: only 1 patient with Fracture")
    assert tables.labels(entry, (0.5, 1.0)).foot.cells[0].note == "no interval: only 1 patient with Fracture"


def test_a_missing_brier_score_says_why(entry):
    entry["test"]["labels"]["Edema"].update(brier=None, calibration_reason="no film with a known value")
    row = next(row for row in tables.labels(entry, (0.5, 1.0)).rows if row.head.text == "Edema")
    brier = [column.title for column in tables.labels(entry, (0.5, 1.0)).columns].index("Brier") - 1
    assert (row.cells[brier].text, row.cells[brier].note) == ("–", "no film with a known value")


def test_rare_labels_are_marked_in_their_rows(entry):
    entry["test"]["labels"]["Edema"]["positives"] = 12
    entry["test"]["macro"]["labels"].remove("Edema")
    heads = {row.head.text: row.head.note for row in tables.labels(entry, (0.5, 1.0)).rows}
    assert heads["Edema"] == "not in the macro mean; few positives"
    assert heads["Atelectasis"] == ""
    points = tables.operating_points(entry)[0][2]
    assert {row.head.text: row.head.note for row in points.rows}["Edema"] == "few positives"


def test_share_of_positives_stands_before_the_ppv(entry):
    cell = entry["test"]["labels"]["Edema"]
    table = tables.operating_points(entry)[0][2]
    titles = [column.title for column in table.columns]
    row = next(row for row in table.rows if row.head.text == "Edema")
    place = titles.index("PPV") - 1
    assert titles[place] == "Positives"
    assert row.cells[place - 1].key == cell["positives"] / (cell["positives"] + cell["negatives"])


def test_a_difference_without_interval_says_why():
    cell = {"difference": 0.02, "ci": None, "reason": "only 1 patient with the finding"}
    assert tables.difference(cell, "against 0").note == "only 1 patient with the finding"
    assert tables.difference(cell | {"ci": [0.01, 0.03], "reason": None}, "against 0").note == "against 0"


def test_undefined_cells_sort_last_and_say_why(entry):
    entry["test"]["labels"]["Edema"].update(auroc=None, ci=None, ap=None, reason="no positives")
    row = next(row for row in tables.labels(entry, (0.5, 1.0)).rows if row.head.text == "Edema")
    assert (row.cells[0].text, row.cells[0].note, row.cells[0].key, row.cells[0].interval) == (
        "–",
        "no positives",
        None,
        None,
    )
    assert row.cells[1].key is None


def test_a_missing_delong_interval_says_why(entry):
    entry["test"]["labels"]["Edema"].update(delong_ci=None, delong_reason="the curve is perfect")
    row = next(row for row in tables.more_measures(entry).rows if row.head.text == "Edema")
    assert (row.cells[0].text, row.cells[0].note, row.cells[0].key) == ("–", "the curve is perfect", None)
    entry["test"]["labels"] = {"Edema": entry["test"]["labels"]["Edema"] | {"ci_method": None}}
    assert tables.more_measures(entry) is None


def test_interval_stands_on_its_axis():
    table = tables.Table("t", (), (), axis=(0.5, 1.0))
    assert table.at((0.75, (0.5, 1.0))) == (50.0, (0.0, 100.0))
    assert table.at((0.6, None)) == (pytest.approx(20.0), None)


def test_operating_points_are_counts_and_rates(entry):
    found = {key: (title, table) for key, title, table in tables.operating_points(entry)}
    assert found["sensitivity"][0] == "Fixed sensitivity of 90\N{NO-BREAK SPACE}%"
    assert list(found) == ["youden", "sensitivity", "specificity"]
    point = entry["test"]["labels"]["Edema"]["operating_points"]["youden"]
    shown = texts(found["youden"][1])["Edema"]
    assert shown[-4:] == [str(point[key]) for key in ("tp", "fp", "fn", "tn")]
    assert shown[1].startswith(f"{point['sensitivity']:.2f} (")
    assert found["youden"][1].rows[0].cells[0].note == ""


def test_an_operating_point_without_a_threshold_says_why(entry):
    point = entry["test"]["labels"]["Edema"]["operating_points"]["youden"]
    point.update(dict.fromkeys(point), reason="no positives to choose it on")
    (_, _, table), *_ = tables.operating_points(entry)
    row = next(row for row in table.rows if row.head.text == "Edema")
    assert (row.cells[0].text, row.cells[0].note) == ("–", "no positives to choose it on")
    assert {cell.text for cell in row.cells[:3] + row.cells[4:]} == {"–"}


def test_comparison_of_an_older_run_has_no_empty_columns(entry):
    assert tables.comparison(entry["paired"]).columns[-1].title == "In words"
    for cell in entry["paired"]["labels"].values():
        del cell["sentence"], cell["p_holm"]
    assert [column.title for column in tables.comparison(entry["paired"]).columns] == ["Label", "Change of AUROC", "p"]


def test_without_operating_points_there_is_no_column_for_their_f1(entry):
    assert "F1" in {column.title for column in tables.labels(entry, (0.5, 1.0)).columns}
    for cell in entry["test"]["labels"].values():
        cell["operating_points"] = None
    table = tables.labels(entry, (0.5, 1.0))
    assert "F1" not in {column.title for column in table.columns}
    assert all(len(row.cells) == len(table.columns) - 1 for row in table.rows)
    assert tables.operating_points(entry) == []


def test_small_and_empty_groups_are_marked(entry):
    (sex, _, main, _), (age, sentence, ages, by_label) = tables.subgroups(entry)
    assert (sex, age) == ("Sex", "Age")
    assert [row.head.note for row in main.rows] == ["", ""]
    youngest = ages.rows[0]
    assert (youngest.head.text, youngest.head.note, youngest.cells[2].text) == ("under 20", "small group", "–")
    assert youngest.cells[2].note == "no label has both classes"
    assert sentence.startswith("The two furthest apart of 3 groups, 20-39 and 40-59, differ by")
    assert [column.title for column in by_label.columns] == ["Label", "under 20", "20-39", "40-59", "60 and over"]
    entry["subgroups"] = None
    assert tables.subgroups(entry) == []


def test_data_tables_are_absent_where_nothing_is_on_record(report, entry):
    bare = copy.deepcopy(report)
    del bare["split"]["quarantine"], bare["config"]["targets"]
    assert tables.quarantine(bare) is None
    assert tables.policies(bare) is None
    assert calibrations.by_network(entry | {"calibration": None}, "image") == []
    assert texts(tables.policies(report))["Edema"][0] == "no target"
    assert texts(tables.quarantine(report))["4e5f6a7b"] == ["the film: is missing"]
