from __future__ import annotations

import copy
import json
import math

import fake_run
import pytest

from noisy_student.errors import NoisyStudentError
from noisy_student.reporting import table, write_generation, write_overall
from noisy_student.reporting.report import choose_best
from noisy_student.reporting.schema import check
from noisy_student.runs import Run, read_json, write_json


@pytest.fixture
def report(finished):
    return read_json(finished.path / "report.json")


def test_every_report_has_the_documented_form(finished):
    for folder in (finished.path, *(finished.generation(g) for g in range(3))):
        check(read_json(folder / "report.json"))


def test_figures_are_those_of_the_evaluation(finished, report):
    for entry in report["generations"]:
        evaluation = read_json(finished.generation(entry["index"]) / "evaluation.json")
        for split in ("test", "valid"):
            measured = evaluation["splits"][split]["image"]
            assert entry[split]["macro"] == measured["macro"]
            for name, cell in entry[split]["labels"].items():
                whole = measured["labels"][name]
                assert all(cell[key] == whole[key] for key in cell if key != "before")
                before = whole["before"]
                assert cell["before"] == (before and {key: before[key] for key in ("brier", "log_loss", "ece")})
                assert not {"roc", "pr", "reliability"} & set(cell)
        assert entry["paired"] == evaluation["paired"]
        assert entry["paired_first"] == evaluation["paired_first"]
        assert entry["subgroups"] == evaluation["subgroups"]
        assert entry["notes"] == evaluation["notes"] == {"valid": "Fitted to these films."}


def test_an_older_run_has_null_where_it_was_not_measured(small):
    fake_run.make_older(small)
    json_path, html_path = write_overall(small)
    report = read_json(json_path)
    check(report)
    assert report["references"] is None
    entry = report["generations"][1]
    assert (entry["paired_first"], entry["subgroups"], entry["test"]["macro"]["ap"]) == (None, None, None)
    assert entry["notes"] is None
    assert all(entry["test"]["labels"]["Edema"][key] is None for key in ("operating_points", "before", "delong_ci"))
    text = " ".join(html_path.read_text().split())
    for said in (
        "Precision-recall curves are not in the files of this run: an earlier version measured it.",
        "Operating points are not in the files of this run",
        "The diagrams before calibration are not in the files of this run",
        "No supervised reference was trained beside this run",
        "None was measured: the data names no sex",
    ):
        assert said in text
    assert "remove <code>gen-1/stages/evaluate.json</code>" in text


def test_reference_arms_come_from_their_file(small):
    write_json(small.path / "references.json", {"supervised_few": {"auroc": 0.8, "source": "/home/someone/runs/few"}})
    json_path, html_path = write_overall(small)
    report = read_json(json_path)
    check(report)
    assert report["references"] == {
        "supervised_few": {"auroc": 0.8, "ci": None, "source": "…/few"},
        "supervised_all": None,
    }
    text = " ".join(html_path.read_text().split())
    assert "Supervised training on the same labels alone: 0.800 (…/few)." in text
    assert "There is no figure for supervised training on the labels of all films." in text
    assert ">supervised, few labels</text>" in text
    assert ">supervised, all labels</text>" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "something else"),
        ({"supervised_many": None}, "something else"),
        ({"supervised_all": {"auroc": 88}}, "supervised_all has no auroc"),
        ({"supervised_all": {"auroc": 0.8, "ci": [0.7, 9]}}, "supervised_all has no auroc"),
        ({"supervised_all": {"auroc": 0.8, "ci": 0.3}}, "supervised_all has no auroc"),
        ({"supervised_all": {"auroc": 0.8, "ci": [0.7]}}, "supervised_all has no auroc"),
        ({"supervised_all": {"auroc": 0.8, "ci": [0.9, 0.7]}}, "supervised_all has no auroc"),
        ({"supervised_all": 0.8}, "supervised_all has no auroc"),
    ],
)
def test_a_wrong_file_of_references_is_named(small, content, message):
    write_json(small.path / "references.json", content)
    with pytest.raises(NoisyStudentError, match=rf"references\.json: .*{message}"):
        write_overall(small)


def test_undefined_is_null_with_a_reason(report):
    cell = report["generations"][0]["valid"]["labels"]["Fracture"]
    assert cell["auroc"] is None
    assert cell["reason"] == "no positives"
    assert "Fracture" not in report["generations"][0]["valid"]["macro"]["labels"]


def test_level_follows_the_evaluation(small):
    path = small.generation(1) / "evaluation.json"
    evaluation = read_json(path)
    evaluation["level"] = "study"
    evaluation["splits"]["test"]["study"]["macro"]["auroc"] = 0.75
    write_json(path, evaluation)
    write_overall(small)
    report = read_json(small.path / "report.json")
    assert report["level"] == "study"
    assert report["generations"][1]["test"]["macro"]["auroc"] == 0.75
    assert "600 studies of 500 patients" in (small.path / "report.html").read_text()


def test_generation_report_holds_what_was_known_then(finished):
    report = read_json(finished.generation(1) / "report.json")
    assert [entry["index"] for entry in report["generations"]] == [0, 1]
    assert (report["kind"], report["shown"], report["best"]) == ("generation", 1, 1)


def entries(*verdicts):
    return [{"index": index, "verdict": verdict} for index, verdict in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("verdicts", "best", "said"),
    [
        (("first",), 0, "first one"),
        (("first", "better"), 1, "found better"),
        (("first", "undecided"), 1, "could not be told apart"),
        (("first", "better", "worse", "worse"), 1, "after it (2 and 3)"),
        (("first", "worse", "better"), 2, "found better"),
        (("first", None), 0, "1 is not decided"),
        ((None,), 0, "No generation has passed"),
    ],
)
def test_best_is_the_latest_not_worse(verdicts, best, said):
    index, reason = choose_best(entries(*verdicts))
    assert index == best
    assert said in reason
    assert "The rule:" in reason


@pytest.mark.parametrize(
    ("verdicts", "best", "said"),
    [
        (("first", "worse"), 1, "the latest, though found worse"),
        (("first", "worse", "better"), 2, "found better"),
        (("first", "better", None), 1, "2 is not decided"),
        ((None,), 0, "No generation has passed"),
    ],
)
def test_best_is_the_latest_where_every_student_takes_its_teachers_place(verdicts, best, said):
    index, reason = choose_best(entries(*verdicts), "always")
    assert index == best
    assert said in reason
    assert "promotion.rule: always" in reason


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (("first", "undecided"), True),
        (("first", "worse", "undecided"), True),
        (("first", "worse"), True),
        (("first", "better", "undecided"), False),
        (("first",), False),
        (("first", None), False),
    ],
)
def test_best_says_where_no_student_was_shown_to_help(verdicts, said):
    _, reason = choose_best(entries(*verdicts))
    assert ("no evidence that students helped" in reason) == said


def test_best_ignores_the_test_set(finished, report):
    worst = copy.deepcopy(report["generations"])
    worst[2]["test"]["macro"]["auroc"] = 0.1
    assert choose_best(worst)[0] == choose_best(report["generations"])[0] == 2


def test_paths_are_cut_to_their_last_part(finished, report):
    assert report["config"]["data"]["root"] == "…/films"
    text = (finished.path / "report.html").read_text() + json.dumps(report)
    assert "someone" not in text
    assert str(finished.path.parent) not in text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("/home/jane doe/films", "…/films"),
        ("see /home/jane", "see …/jane"),
        ("see /home/jane/x and /home/jane/y too", "see …/x and …/y too"),
        ("weights of '/home/jane doe/net.pt', 3 AP/PA views", "weights of '…/net.pt', 3 AP/PA views"),
        ("read ~/jane/x or ~jane/y", "read …/x or …/y"),
        (r"from C:\Users\jane doe\x.csv", "from …/x.csv"),
        (r"from \\server\jane\x", "from …/x"),
        ("PATH=/usr/bin:/home/jane/bin", "PATH=…/bin:…/bin"),
        ("file:///home/jane/x", "…/x"),
        ('{"root": "/home/jane/x"}', '{"root": "…/x"}'),
        ("https://arxiv.org/abs/1911.04252", "https://arxiv.org/abs/1911.04252"),
        ("AP/PA, and/or, 1/2, 12 / 13, w/o, ~3 and …/films", "AP/PA, and/or, 1/2, 12 / 13, w/o, ~3 and …/films"),
    ],
)
def test_paths_within_a_text_are_cut_too(small, written, shown):
    config = read_json(small.path / "config.resolved.json")
    write_json(small.path / "config.resolved.json", config | {"note": [written]})
    write_json(small.path / "environment.json", {"said": written})
    meta = small.generation(1) / "checkpoint" / "best" / "meta.json"
    write_json(meta, read_json(meta) | {"origin": "none", "cautions": [written]})
    report = read_json(write_overall(small)[0])
    assert report["config"]["note"] == [shown]
    assert report["environment"]["said"] == shown
    assert report["generations"][1]["model"]["origin"] == f"none; {shown}"


def test_what_is_known_of_start_weights_is_told_of_every_network(small):
    fake_run.make_ensemble(small, 1)
    for network, more in enumerate([{"parameters": 7}, {"parameters": 25, "origin": "films", "cautions": ["seen"]}]):
        meta = small.network(1, member=network) / "checkpoint" / "best" / "meta.json"
        write_json(meta, read_json(meta) | more)
    model = read_json(write_overall(small)[0])["generations"][1]["model"]
    assert (model["networks"], model["parameters"], model["origin"]) == (2, 32, "none; films; seen")


def test_calibration_is_by_label_in_either_form(small, report):
    fitted = report["generations"][1]["calibration"]["labels"]
    assert list(fitted) == list(fake_run.LABELS)
    assert (fitted["Fracture"]["pooled"], fitted["Edema"]["pooled"], fitted["Edema"]["slope"]) == (True, False, 0.93)
    by_label = {"labels": {"Edema": {"shift": 0.5, "slope": 1.0}}}
    write_json(small.generation(1) / "calibration.json", by_label)
    assert read_json(write_overall(small)[0])["generations"][1]["calibration"] == by_label


def test_calibration_keeps_what_the_loss_and_the_sampler_did(small):
    fake_run.make_ensemble(small, 1)
    stored = read_json(small.generation(1) / "calibration.json")
    report = read_json(write_overall(small)[0])
    check(report)
    assert report["generations"][1]["calibration"] == stored
    assert stored["members"][0]["link"]["name"] == "focal"


def test_training_summary(report):
    training = report["generations"][1]["training"]
    assert training["steps"] == 300
    assert training["films_per_second"] == 812.0
    assert 0.1 < training["loss"] < 0.3


def test_same_files_same_bytes(small):
    first = [path.read_bytes() for path in write_overall(small)]
    assert [path.read_bytes() for path in write_overall(small)] == first


def test_without_optional_files(tmp_path):
    run = fake_run.make_run(tmp_path / "bare", generations=2, labels=("Edema",))
    run.metrics.unlink()
    (run.path / "environment.json").unlink()
    for index in (0, 1):
        for name in ("promotion.json", "targets.json", "calibration.json", "checkpoint/best/meta.json"):
            (run.generation(index) / name).unlink()
    json_path, html_path = write_overall(run)
    report = read_json(json_path)
    check(report)
    assert [entry["role"] for entry in report["generations"]] == ["teacher", "student"]
    assert report["best"] == 0
    assert "No decision is on record" in html_path.read_text()


def test_without_a_test_set(small):
    for index in (0, 1):
        path = small.generation(index) / "evaluation.json"
        evaluation = read_json(path)
        del evaluation["splits"]["test"]
        write_json(path, evaluation | {"paired": None})
    json_path, html_path = write_overall(small)
    report = read_json(json_path)
    check(report)
    assert report["generations"][0]["test"]["macro"]["reason"] == "the run has no test set"
    assert "the run has no test set" in html_path.read_text()


def test_missing_reasons_are_filled(small):
    path = small.generation(1) / "evaluation.json"
    evaluation = read_json(path)
    test = evaluation["splits"]["test"]["image"]
    for cell in test["labels"].values():
        cell.update(auroc=None, ci=None, ap=None, roc=None, reason=None, positives=0)
    test["macro"] = {"auroc": None, "ci": None, "labels": []}
    evaluation["paired"]["macro"] = {"difference": None, "ci": None}
    write_json(path, evaluation)
    json_path, html_path = write_overall(small)
    report = read_json(json_path)
    check(report)
    assert report["generations"][1]["test"]["labels"]["Edema"]["reason"] == "no positives"
    assert report["generations"][1]["paired"]["macro"]["reason"]
    assert "no label has both positives and negatives" in html_path.read_text()


def test_errors_name_the_file(small):
    with pytest.raises(NoisyStudentError, match=r"gen-7/evaluation\.json: is missing"):
        write_generation(small, 7)
    path = small.generation(1) / "evaluation.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "splits"})
    with pytest.raises(NoisyStudentError, match=r"evaluation\.json: has no 'splits'"):
        write_overall(small)
    empty = Run(small.path.parent / "empty")
    empty.create()
    with pytest.raises(NoisyStudentError, match="no generation has been evaluated"):
        write_overall(empty)


def test_table(report):
    lines = table(report).splitlines()
    assert lines[0].split("  ")[0] == "gen"
    assert len(lines) == 5
    macro = report["generations"][2]["test"]["macro"]
    assert f"{macro['auroc']:.3f} ({macro['ci'][0]:.3f}–{macro['ci'][1]:.3f})" in lines[4]
    assert [line.endswith("*") for line in lines[2:]] == [False, False, True]
    assert lines[4].index("undecided") == lines[0].index("verdict")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda r: r.pop("title"), "title: is missing"),
        (lambda r: r.update(schema=2), "schema: 2 is not one of 1"),
        (lambda r: r.update(best=9), "best: generation 9"),
        (lambda r: r.update(generations=[]), "generations: is empty"),
        (lambda r: r.update(title=3), "title: 3 is not text"),
        (lambda r: r.update(environment=[1]), "environment: "),
        (lambda r: r["generations"].reverse(), "generations: indices"),
        (lambda r: r["generations"][1].update(promoted=1), r"generations\[1\].promoted: 1 is not true"),
        (lambda r: r["generations"][1].update(test=None), r"generations\[1\].test: None is not an object"),
        (lambda r: r["generations"][1]["test"].update(n=1.5), r"generations\[1\].test.n: 1.5 is not a whole"),
        (lambda r: r["generations"][1]["test"]["macro"].update(auroc=1.2), r"test.macro.auroc: 1.2 is not between"),
        (lambda r: r["generations"][1]["test"]["macro"].update(auroc=math.nan), r"test.macro.auroc: nan is not finite"),
        (lambda r: r["generations"][1]["test"]["macro"].update(auroc=None), r"test.macro.reason: is empty"),
        (
            lambda r: r["generations"][1]["test"]["macro"].update(ci=[0.9, 0.8]),
            r"test.macro.ci: .* is not \[low, high\]",
        ),
        (lambda r: r["generations"][1]["test"]["macro"].update(labels="Edema"), r"test.macro.labels: .* is not a list"),
        (
            lambda r: r["generations"][1]["test"]["labels"]["Edema"]["operating_points"]["youden"].update(
                tp=None, ppv=2
            ),
            r"operating_points.youden.ppv: 2 is not between",
        ),
        (
            lambda r: r["generations"][1]["subgroups"]["columns"]["sex"]["groups"][0].update(small=0),
            r"subgroups.columns.sex.groups\[0\].small: 0 is not true",
        ),
        (lambda r: r.update(references={}), "references.supervised_few: is missing"),
        (lambda r: r["split"].update(share=[math.inf]), r"split.share\[0\]: inf is not finite"),
        (lambda r: r["generations"][2]["calibration"].update(x={"y": math.nan}), r"calibration.x.y: nan is not finite"),
    ],
)
def test_check_names_the_offending_field(report, change, path):
    check(report)
    broken = copy.deepcopy(report)
    change(broken)
    with pytest.raises(ValueError, match=path):
        check(broken)
