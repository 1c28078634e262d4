"""Any two tables measured, and runs and tables side by side: figures of scikit-learn, pairs, words and commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn import metrics as sk
from test_evaluation_file import config, described, write_run
from test_run_evaluation import LABELS, make_films

from noisy_student import comparison, evaluation
from noisy_student.cli import cli
from noisy_student.config import Config
from noisy_student.config.load import resolved, with_measures
from noisy_student.data import manifest
from noisy_student.errors import ConfigError, DataError, UsageError
from noisy_student.labels import COMPETITION
from noisy_student.runs import Run, write_json
from noisy_student.stats import delong
from noisy_student.stats.intervals import compare as compare_one

FAST = ["--set", "evaluation.replicates=200"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truth per study in CheXpert's form, with two studies per patient, and scores per film of two models."""
    path, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    studies = [f"test/patient{64741 + n // 2}/study{1 + n % 2}" for n in range(300)]
    truth = pd.DataFrame((rng.random((300, 6)) < 0.3).astype(int), columns=LABELS)
    truth["Fracture"] = 0
    films = np.repeat(np.arange(300), 1 + np.arange(300) % 2)
    shared = rng.normal(size=(300, 6))[films] + truth.to_numpy()[films]
    for name, gain in (("weak", 0.0), ("strong", 0.8)):
        logits = shared + gain * truth.to_numpy()[films] + 0.3 * rng.normal(size=shared.shape)
        scores = pd.DataFrame(1 / (1 + np.exp(1 - logits)), columns=["atelectasis", *LABELS[1:]])
        scores.insert(0, "Path", [f"CheXpert-v1.0/{studies[n]}/view{k}_frontal.jpg" for k, n in enumerate(films)])
        scores.sample(frac=1, random_state=1)[[*scores.columns[::-1]]].to_csv(path / f"{name}.csv", index=False)
    truth.insert(0, "Study", studies)
    truth.to_csv(path / "truth.csv", index=False)
    return path


def by_study(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, mean scores and patients, without the code under test."""
    truth = pd.read_csv(folder / "truth.csv").set_index("Study")
    scores = pd.read_csv(folder / f"{name}.csv").rename(columns={"atelectasis": "Atelectasis"})
    scores["Study"] = scores["Path"].str.extract(r"(test/patient\d+/study\d+)")[0]
    mean = scores.groupby("Study")[list(LABELS)].mean().loc[truth.index]
    return truth[list(LABELS)].to_numpy(), mean.to_numpy(), truth.index.str.extract(r"(patient\d+)")[0].to_numpy()


def ns(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert getattr(done.exception, "exit_code", None) == code, done.exception
        return str(done.exception)
    assert done.exit_code == code, done.output
    return done.output


def test_figures_of_two_tables_are_those_of_scikit_learn(folder: Path) -> None:
    given = ("evaluate", "--truth", folder / "truth.csv", "--predictions", folder / "weak.csv", "--json", *FAST)
    found = json.loads(ns(*given))
    truth, score, _ = by_study(folder, "weak")
    assert (found["unit"], found["n"], found["patients"]) == ("study", 300, 150)
    assert (found["joined_on"], found["clusters"]) == ("column 'Study' and column 'Path'", "the paths")
    assert set(found["labels"]) == set(LABELS)
    for k, name in enumerate(COMPETITION):
        entry = found["labels"][name]
        assert entry["auroc"] == pytest.approx(sk.roc_auc_score(truth[:, k], score[:, k]), abs=1e-12)
        assert entry["ap"] == pytest.approx(sk.average_precision_score(truth[:, k], score[:, k]), abs=1e-12)
        assert entry["brier"] == pytest.approx(sk.brier_score_loss(truth[:, k], score[:, k]), abs=1e-12)
        assert entry["log_loss"] == pytest.approx(sk.log_loss(truth[:, k], score[:, k]), abs=1e-12)
        assert entry["ci"][0] < entry["auroc"] < entry["ci"][1]
        assert entry["delong_method"] == "Obuchowski (clustered)"
        assert not set(comparison.CURVES) & set(entry)
    areas = [found["labels"][name]["auroc"] for name in COMPETITION]
    assert found["macro"]["auroc"] == found["competition"]["auroc"] == pytest.approx(np.mean(areas))
    assert found["competition"]["ci"] == found["macro"]["ci"]
    assert found["labels"]["Fracture"]["auroc"] is None
    assert found["labels"]["Fracture"]["reason"] == "no positives among 300 films"
    assert found["notes"] == []


def test_scores_that_are_no_probabilities_rank_and_are_not_calibrated(folder: Path, tmp_path: Path) -> None:
    scores = pd.read_csv(folder / "weak.csv")
    names = [name for name in scores.columns if name != "Path"]
    # A map of one label alone.
    scores.assign(Edema=scores["Edema"] * 9 - 3).to_csv(tmp_path / "logits.csv", index=False)
    assert scores[names].to_numpy().max() <= 1
    plain, ranked = (
        comparison.evaluate_tables(folder / "truth.csv", path, with_measures(comparison.TABLES, FAST[1:]))
        for path in (folder / "weak.csv", tmp_path / "logits.csv")
    )
    for name in LABELS:
        assert ranked["labels"][name]["auroc"] == pytest.approx(plain["labels"][name]["auroc"])
        measures = [ranked["labels"][name][key] for key in ("brier", "log_loss", "ece", "ece_debiased")]
        reason = ranked["labels"][name]["calibration_reason"]
        if name == "Edema":
            assert measures == [None] * 4
            assert reason == "scores outside [0, 1] are no probabilities"
        else:
            assert measures == [plain["labels"][name][key] for key in ("brier", "log_loss", "ece", "ece_debiased")]
            assert reason is None
    assert [ranked["macro"][key] for key in ("brier", "log_loss", "ece")] == [None] * 3
    assert ranked["macro"]["calibration_reason"] == "scores outside [0, 1] are no probabilities (Edema)"
    assert plain["macro"]["brier"] is not None
    assert ranked["notes"] == [f"{comparison.ONLY_RANKING} Edema"]
    shown = ns("evaluate", "--truth", folder / "truth.csv", "--predictions", tmp_path / "logits.csv", *FAST)
    assert "Note: scores outside [0, 1]" in shown


def test_the_table_that_is_printed_says_what_was_compared(folder: Path) -> None:
    shown = ns("evaluate", "--truth", folder / "truth.csv", "--predictions", folder / "weak.csv", *FAST)
    assert "300 studies of 150 patients, joined on column 'Study' and column 'Path'; patients from the paths" in shown
    assert "CheXpert's five labels: 0." in shown
    assert "Fracture: no positives among 300 films" in shown


def test_each_row_is_a_patient_where_nothing_tells_them(tmp_path: Path) -> None:
    pd.DataFrame({"image": list("abcd"), "Edema": [1, 0, 1, 0]}).to_csv(tmp_path / "truth.csv", index=False)
    pd.DataFrame({"image": list("abcde"), "Edema": [5, 2, 3, 4, 0]}).to_csv(tmp_path / "scores.csv", index=False)
    given = ("evaluate", "--truth", tmp_path / "truth.csv", "--predictions", tmp_path / "scores.csv", *FAST)
    assert "4 films of 4 patients, joined on column 'image'; each taken as a patient" in ns(*given)
    found = json.loads(ns(*given, "--json"))
    assert found["clusters"] == "rows"
    assert found["labels"]["Edema"]["auroc"] == 0.75
    assert found["competition"] is None
    assert found["notes"][1:] == [
        "rows of scores without truth, left out: 1",
        "no column and no path tells patients: every row counts as a patient of its own",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Name a run, or two tables"),
        (("--truth", "t.csv"), "--truth and --predictions go together"),
        (("runs/demo", "--truth", "t.csv", "--predictions", "p.csv"), "without a run or its options"),
        (("--truth", "t.csv", "--predictions", "p.csv", "--generation", "1"), "without a run or its options"),
        (("--truth", "t.csv", "--predictions", "p.csv", "--set", "seed=1", "--set", "data.root=x"), "does nothing"),
        (
            ("--truth", "t.csv", "--predictions", "p.csv", "--set", "evaluation.smallest_difference=0.1"),
            "smallest_difference=0.1: does nothing here",
        ),
        (("--truth", "t.csv", "--predictions", "p.csv", "--device", "auto"), "--device does nothing with --truth"),
        (("--truth", "t.csv", "--predictions", "p.csv", "--calibration", __file__), "--calibration does nothing"),
        (("runs/demo", "--labels", "Edema"), "--labels goes with --truth"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: tuple[str, ...], message: str) -> None:
    assert message in ns("evaluate", *arguments, code=2)


def test_probabilities_that_are_rounded_over_one_stay_probabilities(folder: Path, tmp_path: Path) -> None:
    scores = pd.read_csv(folder / "weak.csv")
    scores.loc[0, "Edema"], scores.loc[1, "Consolidation"] = 1.0000001, -1e-7
    scores.to_csv(tmp_path / "rounded.csv", index=False)
    given = ("evaluate", "--truth", folder / "truth.csv", "--predictions", tmp_path / "rounded.csv", "--json", *FAST)
    found = json.loads(ns(*given))
    assert found["labels"]["Edema"]["brier"] is not None
    assert found["notes"] == []
    scores.loc[0, "Edema"] = 1.001
    scores.to_csv(tmp_path / "rounded.csv", index=False)
    again = json.loads(ns(*given))
    assert again["labels"]["Edema"]["brier"] is None
    assert again["labels"]["Consolidation"]["brier"] == found["labels"]["Consolidation"]["brier"]


def test_what_becomes_of_cells_and_columns_is_said(tmp_path: Path) -> None:
    rng, names = np.random.default_rng(0), [f"f{n}" for n in range(40)]
    columns: dict[str, Any] = {"image": names, "Edema": np.arange(40) % 2, "portable": np.arange(40) % 3 == 0}
    truth = pd.DataFrame(columns).astype({"Edema": object, "portable": int})
    truth.loc[:2, "Edema"] = [0.7, -1, None]
    truth.to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame(columns | {"Edema": rng.random(40)}).astype({"portable": int}).to_csv(tmp_path / "s.csv", index=False)
    given = ("evaluate", "--truth", tmp_path / "t.csv", "--predictions", tmp_path / "s.csv", *FAST)
    shown = ns(*given)
    assert "Note: cells of truth between 0 and 1, which count as unknown: Edema 1" in shown
    assert "measured because all tables have them: portable (--labels names the ones to take)" in shown
    rows = {line.split()[0]: line.split()[-3:] for line in shown.splitlines() if line.startswith(("Edema", "  "))}
    assert rows["AUROC"] == ["positive", "negative", "unknown"]
    assert rows["Edema"] == ["19", "18", "3"]
    chosen = json.loads(ns(*given, "--labels", "oedema", "--set", "targets.blank=zeros", "--json"))
    assert (list(chosen["labels"]), chosen["blank"]) == (["Edema"], "zeros")
    entry = chosen["labels"]["Edema"]
    assert (entry["positives"], entry["negatives"], entry["unknown"]) == (19, 19, 2)
    assert not any("portable" in note for note in chosen["notes"])
    assert "no label 'Mass' in common" in ns(*given, "--labels", "Mass", code=3)


def test_the_order_of_rows_changes_nothing_where_nobody_tells_patients(tmp_path: Path) -> None:
    rng, names = np.random.default_rng(0), [f"f{n:02d}" for n in range(60)]
    truth = pd.DataFrame({"image": names, "Edema": np.arange(60) % 2})
    models = [pd.DataFrame({"image": names, "Edema": truth["Edema"] + rng.normal(0, 1, 60)}) for _ in range(2)]
    said = []
    for shuffle in (False, True):
        for name, table in zip("tab", (truth, *models), strict=True):
            rows = table.sample(frac=1, random_state=5) if shuffle else table
            rows.to_csv(tmp_path / f"{name}.csv", index=False)
        paths = [tmp_path / f"{name}.csv" for name in "tab"]
        said.append(json.loads(ns("compare", *paths[1:], "--truth", paths[0], "--json", *FAST)))
    assert said[0]["clusters"] == "rows"
    for first, second in zip(*(found["models"] for found in said), strict=True):
        assert first["macro"]["ci"] == pytest.approx(second["macro"]["ci"], abs=1e-12)
    first, second = (found["differences"][0]["macro"] for found in said)
    assert (first["ci"], first["p"]) == (pytest.approx(second["ci"], abs=1e-12), second["p"])


def test_labels_that_were_not_asked_for_are_not_said_to_be_missing(folder: Path, tmp_path: Path) -> None:
    given = ("--truth", folder / "truth.csv", "--labels", "Edema", *FAST)
    assert "Not compared" not in ns("evaluate", *given, "--predictions", folder / "weak.csv")
    pd.read_csv(folder / "strong.csv").drop(columns="Fracture").to_csv(tmp_path / "less.csv", index=False)
    models = (folder / "weak.csv", tmp_path / "less.csv")
    assert "\nNot compared, not in all tables: Fracture\n" in ns("compare", *models, *given)
    found = json.loads(ns("compare", *models, *given, "--json"))
    assert (found["not_in_all"], found["only_truth"], found["only_predictions"]) == (["Fracture"], [], [])


def test_missing_rows_and_files_are_errors_of_the_data(folder: Path, tmp_path: Path) -> None:
    scores = pd.read_csv(folder / "weak.csv")
    scores[~scores["Path"].str.contains("patient64741/study1/")].to_csv(tmp_path / "short.csv", index=False)
    truth = ("evaluate", "--truth", folder / "truth.csv", "--predictions")
    assert "has no row for 1 of 300 studies" in ns(*truth, tmp_path / "short.csv", code=3)
    assert "is missing" in ns(*truth, tmp_path / "none.csv", code=3)


def test_settings_of_measuring_change_what_they_say() -> None:
    found = with_measures(Config(), ["seed=4", "evaluation.replicates=150", "evaluation.stratify=true"])
    assert (found.seed, found.evaluation.replicates, found.evaluation.stratify) == (4, 150, True)
    with pytest.raises(ConfigError, match="does nothing where tables"):
        with_measures(Config(), ["evaluation.level=study"])
    with pytest.raises(ConfigError, match="replicates"):
        with_measures(Config(), ["evaluation.replicates=1"])


# -- side by side --------------------------------------------------------------------------------------------------


def test_two_tables_are_compared_paired_on_the_same_cases(folder: Path) -> None:
    given = (
        "compare",
        folder / "weak.csv",
        folder / "strong.csv",
        folder / "weak.csv",
        "--truth",
        folder / "truth.csv",
    )
    found = json.loads(ns(*given, "--json", *FAST))
    assert [model["name"] for model in found["models"]] == [
        str(folder / "weak.csv"),
        "strong",
        str(folder / "weak.csv"),
    ]
    truth, weak, patients = by_study(folder, "weak")
    strong = by_study(folder, "strong")[1]
    codes = np.unique(patients, return_inverse=True)[1]
    for model, score in zip(found["models"][:2], (weak, strong), strict=True):
        for k, name in enumerate(COMPETITION):
            assert model["labels"][name]["auroc"] == pytest.approx(sk.roc_auc_score(truth[:, k], score[:, k]))
    better, same = found["differences"]
    expected = compare_one(truth, weak, strong, codes, range(6), 200, 0, 0.95).auroc
    assert better["macro"]["difference"] == pytest.approx(expected.value)
    assert better["macro"]["ci"] == pytest.approx(expected.ci)
    assert better["macro"]["p_holm"] == pytest.approx(2 * better["macro"]["p"])  # one of two comparisons
    assert better["macro"]["sentence"] == "better"
    assert same["macro"]["sentence"].startswith("cannot be told apart with 150 patients; the difference is the same")
    edema = better["labels"]["Edema"]
    closed = delong.difference(truth[:, 3], weak[:, 3], strong[:, 3], codes, 0.95)
    assert edema["delong"]["p"] == pytest.approx(closed.p_value)
    assert edema["delong"]["method"] == "Obuchowski (clustered)"
    assert edema["p_holm"] >= edema["p"]
    shown = ns(*given[:3], *given[4:], *FAST)
    assert "strong is better than weak." in shown
    assert "after Holm" in shown


def test_what_cannot_be_told_apart_is_said_with_the_patients_it_would_take(folder: Path, tmp_path: Path) -> None:
    scores = pd.read_csv(folder / "weak.csv")
    names = [name for name in scores.columns if name != "Path"]
    jitter = np.random.default_rng(1).normal(scale=0.02, size=(len(scores), len(names)))
    scores[names] = scores[names] + jitter
    scores.to_csv(tmp_path / "like.csv", index=False)
    given = ("compare", folder / "weak.csv", tmp_path / "like.csv", "--truth", folder / "truth.csv", *FAST)
    shown = ns(*given, "--set", "evaluation.smallest_difference=0.002")
    assert "like and weak cannot be told apart with 150 patients; a difference of 0.002 would need about" in shown
    assert "No label differs at 95\N{NO-BREAK SPACE}% after adjustment" in shown


def test_the_word_for_the_macro_mean_agrees_with_its_adjusted_p_value(folder: Path, tmp_path: Path) -> None:
    weak, strong = (pd.read_csv(folder / f"{name}.csv").set_index("Path") for name in ("weak", "strong"))
    noise = np.random.default_rng(2).normal(scale=0.04, size=weak.shape)
    (weak + 0.05 * (strong.loc[weak.index, weak.columns] - weak) + noise).to_csv(tmp_path / "little.csv")
    entries = [folder / "weak.csv", tmp_path / "little.csv", folder / "weak.csv"]
    given = ("--truth", folder / "truth.csv", *FAST)
    found = [json.loads(ns("compare", *entries[:count], *given, "--json"))["differences"][0] for count in (2, 3)]
    alone, among = (one["macro"] for one in found)
    assert among["ci"] == alone["ci"]
    assert among["ci"][0] > 0
    assert (alone["sentence"], alone["p_holm"]) == ("better", alone["p"])
    assert among["p"] < 0.05 < among["p_holm"]
    assert among["sentence"].startswith("cannot be told apart with 150 patients; a difference of 0.01 would need about")
    shown = ns("compare", *entries, *given)
    assert "little and " in shown
    assert "little is better" not in shown


def finished(path: Path, best: int, settings: Config) -> Run:
    """A run of three generations whose films are described, with the files that a finished run has."""
    run = write_run(path, described(make_films()), 3)
    write_json(run.path / "config.resolved.json", resolved(settings))
    write_json(run.path / "report.json", {"best": best})
    run.record("prepare", None, [], [run.manifest], {})
    return run


@pytest.mark.parametrize("level", ["image", "study"])
def test_runs_are_compared_with_their_best_generations(tmp_path: Path, level: str) -> None:
    settings = config(f"evaluation.level={level}")
    runs = [finished(tmp_path / name, best, settings) for name, best in (("few", 0), ("many", 2))]
    found = comparison.compare([run.path for run in runs], None)
    assert [(model["name"], model["generation"]) for model in found["models"]] == [("few", 0), ("many", 2)]
    contents = [evaluation.evaluate_generation(run, settings, best)[0] for run, best in zip(runs, (0, 2), strict=True)]
    for model, content in zip(found["models"], contents, strict=True):
        theirs = content["splits"]["test"][level]
        assert model["macro"]["auroc"] == pytest.approx(theirs["macro"]["auroc"])
        assert model["macro"]["ci"] == pytest.approx(theirs["macro"]["ci"])
        assert model["labels"]["Edema"]["auroc"] == pytest.approx(theirs["labels"]["Edema"]["auroc"])
    first = contents[1]["paired_first"]["macro"]
    assert found["differences"][0]["macro"]["difference"] == pytest.approx(first["difference"])
    assert found["differences"][0]["macro"]["ci"] == pytest.approx(first["ci"])
    assert "many (generation 2)" in ns("compare", *(run.path for run in runs))


def test_a_run_meets_tables_over_the_truth_that_is_given(tmp_path: Path) -> None:
    run = finished(tmp_path / "mine", 1, config())
    cases = evaluation.test_cases(run, config(), 1)
    frame = pd.DataFrame({"image": cases.films.frame["image"], "patient": cases.films.frame["patient"]})
    truth = frame.assign(**{name: np.nan_to_num(cases.truth[:, k]) for k, name in enumerate(LABELS)})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    scores = frame.assign(**{name: cases.probability[:, k] for k, name in enumerate(LABELS)})
    scores.to_csv(tmp_path / "scores.csv", index=False)
    found = comparison.compare([tmp_path / "scores.csv", run.path], tmp_path / "truth.csv")
    assert [model["generation"] for model in found["models"]] == [None, 1]
    assert found["differences"][0]["macro"]["difference"] == pytest.approx(0, abs=1e-12)
    assert found["clusters"] == "column 'patient'"


def test_what_cannot_be_compared_says_why(tmp_path: Path, folder: Path) -> None:
    run = finished(tmp_path / "run", 0, config())
    with pytest.raises(UsageError, match="nothing to compare with"):
        comparison.compare([run.path], None)
    with pytest.raises(UsageError, match="says nothing of what is true"):
        comparison.compare([run.path, folder / "weak.csv"], None)
    with pytest.raises(DataError, match="none: is missing"):
        comparison.compare([run.path, tmp_path / "none"], None)
    with pytest.raises(UsageError, match="is not a run"):
        comparison.compare([run.path, tmp_path], None)
    films = described(make_films())
    keep = films.frame["patient"].ne("test3").to_numpy()
    fewer = write_run(tmp_path / "fewer", manifest.rows(films, keep), 1)
    write_json(fewer.path / "config.resolved.json", resolved(config()))
    write_json(fewer.path / "report.json", {"best": 0})
    fewer.record("prepare", None, [], [fewer.manifest], {})
    with pytest.raises(DataError, match=r"are not those of .*run \(56 of 60 in common\)"):
        comparison.compare([run.path, fewer.path], None)


def test_the_macro_mean_is_over_the_first_runs_macro_labels(tmp_path: Path) -> None:
    settings = config("evaluation.macro_labels=[Edema]")
    runs = [finished(tmp_path / name, best, settings).path for name, best in (("a", 0), ("b", 1))]
    found = comparison.compare(runs, None)
    assert found["models"][0]["macro"]["labels"] == ["Edema"]
    edema = found["differences"][0]["labels"]["Edema"]["difference"]
    assert found["differences"][0]["macro"]["difference"] == edema


def test_the_first_runs_settings_hold_and_can_be_set(tmp_path: Path) -> None:
    runs = [finished(tmp_path / name, best, config()).path for name, best in (("a", 0), ("b", 1))]
    usual: dict[str, Any] = comparison.compare(runs, None)
    again = comparison.compare(runs, None, ["evaluation.replicates=200"])
    other = comparison.compare(runs, None, ["seed=9", "evaluation.confidence=0.8"])
    assert again == usual
    assert (usual["confidence"], other["confidence"]) == (0.95, 0.8)
    assert usual["models"][0]["macro"]["auroc"] == other["models"][0]["macro"]["auroc"]
    assert usual["models"][0]["macro"]["ci"] != other["models"][0]["macro"]["ci"]


def test_labels_and_blanks_are_options_of_a_comparison_with_truth(folder: Path, tmp_path: Path) -> None:
    truth = pd.read_csv(folder / "truth.csv").astype({"Edema": object})
    truth.loc[truth["Edema"] == 0, "Edema"] = None
    truth.to_csv(tmp_path / "blanks.csv", index=False)
    given = ("compare", folder / "weak.csv", folder / "strong.csv", "--truth", tmp_path / "blanks.csv", *FAST)
    found = json.loads(ns(*given, "--labels", "Edema,Consolidation", "--json"))
    assert list(found["models"][0]["labels"]) == ["Edema", "Consolidation"]
    assert found["models"][0]["labels"]["Edema"]["auroc"] is None
    filled = json.loads(ns(*given, "--labels", "Edema", "--set", "targets.blank=zeros", "--json"))
    assert filled["models"][0]["labels"]["Edema"]["auroc"] > 0.6
    assert "evaluation.bins=5: does nothing here" in ns(*given, "--set", "evaluation.bins=5", code=2)
    runs = [finished(tmp_path / name, 0, config()).path for name in ("one", "two")]
    assert "--labels goes with --truth" in ns("compare", *runs, "--labels", "Edema", code=2)
    assert "targets.blank does nothing" in ns("compare", *runs, "--set", "targets.blank=zeros", code=2)


def test_measuring_a_run_prints_its_generations_and_the_figures_of_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config()
    run = finished(tmp_path / "run", 1, settings)
    write_json(run.path / "split.json", {"budget": {}})
    for index in range(2):
        write_json(run.generation(index) / "evaluation.json", evaluation.evaluate_generation(run, settings, index)[0])
        write_json(run.generation(index) / "promotion.json", {"verdict": "first" if index == 0 else "worse"})

    @contextmanager
    def existing(*_: Any) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(run=run)

    monkeypatch.setattr("noisy_student.cli.evaluate.existing", existing)
    monkeypatch.setattr("noisy_student.generations.evaluate", lambda work, say: 2)
    test = json.loads((run.generation(0) / "evaluation.json").read_text())["splits"]["test"]["image"]
    shown = ns("evaluate", run.path)
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert f"{test['macro']['auroc']:.3f}" in rows["0"]  # the generations
    assert "worse" in rows["1"]
    assert f"Generation 0 on {test['n']} films of {test['patients']} test patients:" in shown
    assert f"{test['labels']['Edema']['auroc']:.3f}" in rows["Edema"]
    assert rows["Edema"].split()[-3:] == [
        str(test["labels"]["Edema"][key]) for key in ("positives", "negatives", "unknown")
    ]
    assert f"2 generations measured. Next: ns report {run.path}" in shown
    found = json.loads(ns("evaluate", run.path, "--json"))
    assert (found["run"], found["generation"], found["best"], found["level"]) == (str(run.path), 1, 0, "image")
    assert [entry["index"] for entry in found["generations"]] == [0, 1]
    assert found["generations"][0]["test"]["labels"]["Edema"]["auroc"] == test["labels"]["Edema"]["auroc"]
    assert found["generations"][1]["paired"]["macro"]["sentence"]


def test_a_comparison_says_which_labels_have_too_few_patients(folder: Path, tmp_path: Path) -> None:
    truth = pd.read_csv(folder / "truth.csv")
    truth["Edema"] = [1, 0] + [0] * (len(truth) - 2)
    truth["Consolidation"] = [1, 0, 1, 0, 1, 0] + [0] * (len(truth) - 6)
    truth.to_csv(tmp_path / "rare.csv", index=False)
    given = ("--truth", tmp_path / "rare.csv", *FAST)
    shown = ns("compare", folder / "weak.csv", folder / "strong.csv", *given)
    assert "\nEdema: no interval: only 1 patient with the finding\n" in shown
    assert "\nmacro: no interval: only 1 patient with Edema\n" in shown
    assert "strong and weak cannot be compared: no interval, only 1 patient with Edema.\n" in shown
    assert "  Edema: cannot be compared: no interval, only 1 patient with the finding.\n" in shown
    assert "  Consolidation: cannot be told apart: only 3 patients with the finding.\n" in shown
    alone = ns("evaluate", "--truth", tmp_path / "rare.csv", "--predictions", folder / "weak.csv", *FAST)
    assert "macro: no interval: only 1 patient with Edema" in alone


def test_why_one_model_has_no_interval_is_said_of_that_model(folder: Path, tmp_path: Path) -> None:
    truth = pd.read_csv(folder / "truth.csv").set_index("Study")
    scores = pd.read_csv(folder / "weak.csv")
    studies = scores["Path"].str.extract(r"(test/patient\d+/study\d+)")[0]
    scores.assign(Edema=0.1 + 0.8 * truth["Edema"].loc[studies].to_numpy()).to_csv(tmp_path / "sure.csv", index=False)
    shown = ns("compare", folder / "weak.csv", tmp_path / "sure.csv", "--truth", folder / "truth.csv", *FAST)
    assert "\nsure, Edema: no interval: the scores separate the classes completely\n" in shown
    assert shown.count("Fracture: no positives among 300 films") == 1
    found = comparison.compare([folder / "weak.csv", tmp_path / "sure.csv"], folder / "truth.csv", FAST[1:])
    for model in found["models"]:
        for label in model["labels"].values():
            assert (label["delong_ci"] is None) == (label["delong_reason"] is not None)
            assert (label["undefined_replicates"] is None) == (label["auroc"] is None)
    edema, fracture = (found["models"][1]["labels"][name] for name in ("Edema", "Fracture"))
    assert edema["delong_reason"] == "the scores separate the classes completely"
    assert fracture["delong_reason"] == "no positive cases"


def test_of_many_columns_left_out_the_first_are_named_and_the_rest_counted(folder: Path, tmp_path: Path) -> None:
    scores = pd.read_csv(folder / "weak.csv")
    for number in range(13):
        scores[f"sd:{number:02d}"] = 0.1
    scores.to_csv(tmp_path / "wide.csv", index=False)
    given = ("evaluate", "--truth", folder / "truth.csv", "--predictions", tmp_path / "wide.csv", *FAST)
    said = ns(*given)
    assert "only in the predictions: sd:00, sd:01" in said
    assert "sd:09 and 3 more\n" in said
    assert "sd:10" not in said
    assert len(json.loads(ns(*given, "--json"))["only_predictions"]) == 13
