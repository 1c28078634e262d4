"""What ``evaluation.json`` holds beyond the main figures: operating points, subgroups, both comparisons, strata."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from test_run_evaluation import LABELS, make_films, write_generation

from noisy_student import evaluation, measures, scoring
from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.data import manifest, predictions
from noisy_student.data.manifest import Manifest
from noisy_student.errors import ConfigError
from noisy_student.runs import Run
from noisy_student.stats.strata import strata

POINT = {
    *("threshold", "chosen_on", "target", "tp", "fp", "fn", "tn", "sensitivity", "specificity", "ppv", "npv"),
    *("f1", "ci", "reason"),
}
DIFFERENCE = {
    *("difference", "ci", "lower", "upper", "p", "reason", "sentence", "undefined_replicates", "undefined_labels")
}


def described(films: Manifest) -> Manifest:
    """The films with sex and age by patient, a view by film, and no site."""
    frame = films.frame
    place = frame["patient"].str.extract(r"(\d+)$")[0].astype(int)
    age = np.where(place % 3 == 0, np.nan, np.where(place % 3 == 1, 17.5, 80.0))
    view = np.where(np.arange(len(frame)) % 2 == 0, "frontal", "lateral")
    return manifest.replace(films, sex=np.where(place % 2, "F", "M"), age=age, view=view)


def write_run(path: Path, films: Manifest, generations: int) -> Run:
    run = Run(path)
    run.create()
    seen, sealed = manifest.seal(films)
    manifest.write(seen, run.manifest)
    manifest.write(sealed, run.sealed)
    for generation in range(generations):
        write_generation(run, films, generation)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("runs") / "described", described(make_films()), 3)


def config(*more: str) -> Config:
    return load(None, [f"data.labels=[{', '.join(LABELS)}]", "evaluation.replicates=200", *more])


@pytest.fixture(scope="module")
def content(run: Run) -> dict[str, Any]:
    return evaluation.evaluate_generation(run, config("evaluation.subgroup_patients=5"), 2)[0]


def test_the_file_has_the_agreed_form_and_no_nan(content: dict[str, Any]) -> None:
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content["notes"]) == ["valid"]
    assert content["notes"]["valid"].startswith("Calibration and thresholds were fitted to these films")
    for levels in content["splits"].values():
        for level in levels.values():
            for name in ("ap", "brier", "log_loss", "ece"):
                used = [level["labels"][label][name] for label in level["macro"]["labels"]]
                assert level["macro"][name] == pytest.approx(np.mean(used))
            assert 0 <= level["macro"]["undefined_replicates"] <= 1
            for entry in level["labels"].values():
                assert entry["ci_method"] == "bootstrap over patients"
                assert set(entry["operating_points"]) == {"youden", "sensitivity", "specificity"}
                assert all(set(point) == POINT for point in entry["operating_points"].values())
                assert set(entry["before"]) == {"brier", "log_loss", "ece", "reliability"}
                assert set(entry["brier_parts"]) == {"reliability", "resolution", "uncertainty"}


def test_measures_before_calibration_are_those_of_the_raw_logits(run: Run, content: dict[str, Any]) -> None:
    films = make_films().frame.query("split == 'test'")
    path = run.generation(2) / "predictions" / "test.parquet"
    logits = predictions.read(path, films["image"].to_numpy(dtype=object)).logits.astype(np.float64)
    truth, entry = films[LABELS[0]].to_numpy(), content["splits"]["test"]["image"]["labels"][LABELS[0]]
    assert entry["before"]["log_loss"] == pytest.approx(log_loss(truth, 1 / (1 + np.exp(-logits[:, 0]))))
    assert entry["before"]["log_loss"] != pytest.approx(entry["log_loss"])


def test_thresholds_come_from_validation_and_not_from_test(run: Run, content: dict[str, Any], tmp_path: Path) -> None:
    # The same run with other truth on test: what is chosen on validation stays, what it does there changes.
    films = described(make_films())
    values = manifest.values(films).copy()
    test = (films.frame["split"] == "test").to_numpy()
    values[test, :-1] = 1 - np.clip(values[test, :-1], 0, 1)
    turned = write_run(tmp_path / "turned", manifest.with_values(films, values), 1)
    other = evaluation.evaluate_generation(turned, config(), 0)[0]["splits"]
    # write_generation draws the logits from the truth: those of validation, which come first, are the same.
    same = evaluation.evaluate_generation(run, config(), 0)[0]["splits"]
    for level in ("image", "study"):
        for label in LABELS:
            for kind in ("youden", "sensitivity", "specificity"):
                first, second = (
                    splits["test"][level]["labels"][label]["operating_points"][kind] for splits in (same, other)
                )
                assert first["threshold"] == second["threshold"]
                valid = same["valid"][level]["labels"][label]["operating_points"][kind]
                assert valid["threshold"] == first["threshold"]
    point = same["valid"]["image"]["labels"][LABELS[0]]["operating_points"]["sensitivity"]
    assert point["sensitivity"] >= point["target"] == 0.9
    fracture = content["splits"]["test"]["image"]["labels"]["Fracture"]["operating_points"]["youden"]
    assert fracture["threshold"] is None
    assert "do not hold both classes" in fracture["reason"]


def test_in_a_cross_fitted_run_labelled_films_choose_too(tmp_path: Path) -> None:
    films = described(make_films())
    crossed = write_run(tmp_path / "crossed", films, 1)
    labelled = manifest.select(films, split="train", labelled=True)
    images = labelled.frame["image"].to_numpy(dtype=object)
    logits = np.full((len(labelled), len(LABELS)), -9, dtype=np.float32)
    logits[:6] = 9  # six films above all of validation, of which not all are positive
    path = crossed.generation(0) / "predictions" / "labelled.parquet"
    predictions.write(predictions.Predictions(images, LABELS, logits), path)
    content, reads = evaluation.evaluate_generation(crossed, config("folds=2"), 0)
    assert path in reads
    points = content["splits"]["test"]["image"]["labels"][LABELS[0]]["operating_points"]
    assert points["youden"]["chosen_on"] == "validation and labelled films, out of fold"
    alone = evaluation.evaluate_generation(crossed, config(), 0)[0]
    without = alone["splits"]["test"]["image"]["labels"][LABELS[0]]["operating_points"]
    assert without["specificity"]["threshold"] != points["specificity"]["threshold"]


def test_targets_of_the_operating_points_are_settings(run: Run) -> None:
    chosen = evaluation.thresholds(run, config("evaluation.target_sensitivity=0.5"), 0)["image"][LABELS[0]]
    strict = evaluation.thresholds(run, config("evaluation.target_specificity=1"), 0)["image"][LABELS[0]]
    usual = evaluation.thresholds(run, config(), 0)["image"][LABELS[0]]
    assert (chosen["sensitivity"].target, strict["specificity"].target) == (0.5, 1.0)
    assert chosen["sensitivity"].value > usual["sensitivity"].value  # type: ignore[operator]
    assert strict["specificity"].value > usual["specificity"].value  # type: ignore[operator]


def test_a_generation_is_compared_with_the_last_and_with_the_first(run: Run, content: dict[str, Any]) -> None:
    assert (content["paired"]["against"], content["paired_first"]["against"]) == (1, 0)
    for paired in (content["paired"], content["paired_first"]):
        assert set(paired) == {"against", "split", "macro", "labels"}
        assert set(paired["macro"]) == DIFFERENCE
        assert all(set(one) == DIFFERENCE | {"p_holm"} for one in paired["labels"].values())
        assert paired["labels"]["Fracture"]["sentence"].startswith("cannot be compared: no label has both")
    later, first = (
        evaluation.evaluate_generation(run, config(), index)[0]["splits"]["test"]["image"]["macro"]["auroc"]
        for index in (2, 0)
    )
    assert content["paired_first"]["macro"]["difference"] == pytest.approx(later - first)
    assert content["paired_first"]["macro"]["sentence"] == "better"
    second, reads = evaluation.evaluate_generation(run, config(), 1)
    assert (second["paired"]["against"], second["paired_first"]) == (0, None)
    assert run.generation(0) / "predictions" / "test.parquet" in reads
    assert all(path.is_file() for path in reads)


def test_the_difference_that_would_matter_is_a_setting(run: Run) -> None:
    close = config("evaluation.confidence=0.9999", "evaluation.smallest_difference=0.25")
    said = evaluation.evaluate_generation(run, close, 1)[0]["paired"]["labels"]["Edema"]["sentence"]
    # Adjusted for six labels, 200 resamples cannot show anything at this confidence.
    assert said.startswith("cannot be told apart with 15 patients; a difference of 0.25 would need about")


def test_subgroups_are_those_that_the_manifest_knows(content: dict[str, Any]) -> None:
    assert set(content["subgroups"]["columns"]) == {"sex", "age", "view"}
    assert content["subgroups"]["smallest"] == 5
    named = {name: column["groups"] for name, column in content["subgroups"]["columns"].items()}
    assert [group["group"] for group in named["age"]] == ["under 18", "80 and over"]
    assert [(group["group"], group["n"], group["patients"]) for group in named["sex"]] == [("F", 28, 7), ("M", 32, 8)]
    assert [(group["n"], group["patients"], group["small"]) for group in named["view"]] == [(30, 15, False)] * 2
    gap = content["subgroups"]["columns"]["sex"]["gap"]
    areas = {group["group"]: group["macro"]["auroc"] for group in named["sex"]}
    assert gap["difference"] == pytest.approx(areas[gap["between"][0]] - areas[gap["between"][1]])
    assert gap["ci"][0] < gap["difference"] < gap["ci"][1]


def test_a_group_holds_its_own_films_at_the_configured_level(run: Run) -> None:
    films = described(make_films()).frame.query("split == 'test'").reset_index(drop=True)
    path = run.generation(0) / "predictions" / "test.parquet"
    logits = predictions.read(path, films["image"].to_numpy(dtype=object)).logits[:, 0]
    for level, count in (("image", 28), ("study", 14)):
        found = evaluation.evaluate_generation(run, config(f"evaluation.level={level}"), 0)[0]["subgroups"]
        women = found["columns"]["sex"]["groups"][0]
        assert (women["group"], women["n"], women["small"]) == ("F", count, True)
        lateral = found["columns"]["view"]["groups"][1]
        keep = (films["view"] == "lateral").to_numpy()
        # A study has one lateral film, so both levels rank the same.
        assert lateral["n"] == keep.sum()
        expected = roc_auc_score(films.loc[keep, LABELS[0]], logits[keep])
        assert lateral["labels"][LABELS[0]]["auroc"] == pytest.approx(expected)


def test_age_bands_and_the_size_of_small_groups_are_settings(run: Run) -> None:
    films = manifest.select(manifest.read(run.sealed), split="test")
    probability = scoring.probabilities(run, 0, "test", films)

    def groups(*more: str) -> list[dict[str, Any]]:
        found = measures.subgroups(
            films,
            lambda own, keep: scoring.by_level(own, probability[keep], "zeros"),
            LABELS,
            LABELS,
            config(*more),
        )
        assert found is not None
        return found["columns"]["age"]["groups"]

    assert [group["group"] for group in groups("evaluation.age_bands=[17, 81]")] == ["17-80"]
    assert [group["small"] for group in groups("evaluation.subgroup_patients=2")] == [False, False]
    with pytest.raises(ConfigError, match="age_bands"):
        config("evaluation.age_bands=[40, 18]")


def test_stratified_resamples_change_intervals_alone(
    run: Run, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fifteen test patients would be one stratum with the usual smallest one.
    for module in ("measures", "stats.evaluation"):
        monkeypatch.setattr(f"noisy_student.{module}.strata", partial(strata, smallest=3))
    found = evaluation.evaluate_generation(run, config("evaluation.stratify=true"), 2)[0]
    plain, kept = (value["splits"]["test"]["image"]["macro"] for value in (content, found))
    assert plain["auroc"] == kept["auroc"]
    assert plain["ci"] != kept["ci"]
    assert content["paired"]["macro"]["ci"] != found["paired"]["macro"]["ci"]
    assert content["competition"]["ci"] != found["competition"]["ci"]


def test_without_what_the_manifest_could_know_there_are_no_subgroups(tmp_path: Path) -> None:
    plain = write_run(tmp_path / "plain", make_films(), 1)
    assert evaluation.evaluate_generation(plain, config(), 0)[0]["subgroups"] is None
