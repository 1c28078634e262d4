from __future__ import annotations

import copy

import fake_run
import numpy as np
import pytest

from noisy_student.reporting import calibrations, write_overall
from noisy_student.runs import read_json
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.stats.links import Link


@pytest.fixture
def ensemble(small):
    """Generation 1 of a small run, an ensemble of two networks."""
    fake_run.make_ensemble(small, 1)
    return read_json(write_overall(small)[0])["generations"][1]


def columns(table):
    return [column.title for column in table.columns]


def test_each_network_of_an_ensemble_has_its_numbers(ensemble):
    (first, said, table), (second, _, other) = calibrations.by_network(ensemble, "image")
    assert (first, second) == ("Network 1 of 2", "Network 2 of 2")
    assert columns(table) == ["Label", "Shift", "Drawn", "Slope", "Intercept", "Fitted", "Positive", "Negative"]
    edema = next(row for row in table.rows if row.head.text == "Edema")
    assert [cell.text for cell in edema.cells[:4]] == ["1.200", "0.700", "0.900", "−0.080"]
    assert {row.cells[2].text for row in other.rows} == {"1.900"}
    assert "slope × (link(logit − shift) − drawn) + intercept" in said
    assert "focal loss (γ = 2) and label smoothing of 0.1" in said
    assert "Studies" not in said


def test_where_studies_are_the_unit_their_calibration_is_shown(ensemble):
    (_, said, table), _ = calibrations.by_network(ensemble, "study")
    assert {row.cells[2].text for row in table.rows} == {"3.500"}
    assert "the logit is the largest of the logits of a study’s films" in said
    for member in ensemble["calibration"]["members"]:
        del member["study"]
    (_, said, table), _ = calibrations.by_network(ensemble, "study")
    assert {row.cells[2].text for row in table.rows} == {"0.900"}
    assert "These are films" in said


def test_formula_has_the_terms_that_the_calibration_uses(finished):
    entry = copy.deepcopy(read_json(finished.path / "report.json")["generations"][2])
    ((title, said, table),) = calibrations.by_network(entry, "image")
    assert title == ""
    assert "(slope × (logit − shift) + intercept)" in said
    assert "link" not in said
    assert "Drawn" not in columns(table)
    assert "mean over" not in said
    entry["model"]["networks"] = 3
    assert "A logit is the mean over the 3 networks." in calibrations.by_network(entry, "image")[0][1]


def test_printed_formula_is_the_one_that_is_used():
    platt, link = Platt(0.4, 1.3, -0.2, False, 20, 30, drawn=0.7), Link("focal", 2.0, 2.0)
    fitted = Calibration(("Edema",), (platt,), link)
    (_, said, table), *_ = calibrations.by_network({"calibration": fitted.to_json(), "model": {"networks": 1}}, "image")
    shift, drawn, slope, intercept = (cell.key for cell in table.rows[0].cells[:4])
    formula = said.split(" = ", 1)[1].split(". ")[0]
    for name, operator in (("−", "-"), ("×", "*")):
        formula = formula.replace(name, operator)
    terms = {"exp": np.exp, "link": link.log_odds, "logit": 0.9, "shift": shift, "drawn": drawn, "slope": slope}
    value = eval(formula, {"__builtins__": {}}, terms | {"intercept": intercept})
    assert value == pytest.approx(float(fitted.probability([[0.9]])[0, 0]))


@pytest.mark.parametrize(
    ("link", "said"),
    [
        (None, ""),
        (Link(), ""),
        (Link(smoothing=0.05), "label smoothing of 0.05"),
        (Link("focal", 1.5, 1.5, odds=-1.1), "focal loss (γ = 1.5) and weight of positives (log −1.100)"),
        (
            Link("asymmetric", 1.0, 4.0, free=0.05),
            "asymmetric loss (γ = 1 for positives and 4 for negatives, negatives free up to 0.05)",
        ),
    ],
)
def test_link_in_words(link, said):
    assert calibrations.link(link and vars(link)) == said
