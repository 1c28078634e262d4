"""A calibration fitted to local labels: what it becomes, who judges it, and that nothing else moves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss
from small_runs import content, write_config

from noisy_student import evaluation, external, generations, preparation, recalibration, scoring
from noisy_student.cli import cli
from noisy_student.config import SyntheticConfig
from noisy_student.config.load import load
from noisy_student.data import synthetic
from noisy_student.errors import DataError, UsageError
from noisy_student.runs import read_json, write_json
from noisy_student.stats import calibration
from noisy_student.stats import recalibration as stats
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.stats.consensus import Consensus, Fitted, Views
from noisy_student.workplace import Workplace

LABELS = ("Edema", "Fracture", "Pneumonia")
OWN = Calibration(LABELS, (Platt(0.4, 1.2, -0.3, False, 50, 50), *(Platt(0.0, 0.8, 0.1, True, 9, 90),) * 2))


# -- the mathematics -------------------------------------------------------------------------------------------------


def local(count: int, seed: int = 0, shift: float = -2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and truth that follows the run's calibration after a fall of the odds by ``exp(shift)``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, len(LABELS)))
    truth = (rng.random(logits.shape) < expit(OWN.log_odds(logits) + shift)).astype(float)
    return logits, truth


def test_a_change_on_the_runs_own_log_odds_is_one_platt_of_the_logits() -> None:
    logits, truth = local(400)
    truth[:, 2] = np.nan
    found = stats.moved(OWN, logits, truth)
    change = calibration.fit(OWN.log_odds(logits)[:, :2], truth[:, :2], LABELS[:2], np.zeros(2))
    expected = change.probability(OWN.log_odds(logits)[:, :2])
    np.testing.assert_allclose(found.probability(logits)[:, :2], expected, atol=1e-12)
    assert found.platt[2] == OWN.platt[2]  # no local film knows it
    assert [platt.shift for platt in found.platt] == [0.4, 0.0, 0.0]
    assert found.platt[0].positives == truth[:, 0].sum()


def test_many_films_say_it_all_and_a_few_hardly_anything() -> None:
    """The odds have fallen by e ** -2: twenty thousand films say so, two (pooled: six values) do not get there."""
    none = np.zeros((1, len(LABELS)))
    many, few = ((stats.moved(OWN, *local(count)).log_odds(none) - OWN.log_odds(none))[0] for count in (20_000, 2))
    np.testing.assert_allclose(many, -2, atol=0.1)
    assert ((few > -1.5) & (few < 0)).all()
    nothing = np.empty((0, len(LABELS)))
    assert stats.moved(OWN, nothing, nothing) == OWN


def test_a_film_is_judged_by_a_calibration_that_has_not_seen_its_patient() -> None:
    logits, truth = local(60)
    study = np.repeat(np.arange(30), 2)
    views, fold = Views(study, np.tile([True, False], 30)), np.repeat(np.arange(30) % 3, 2)
    truth[1::2] = truth[::2]
    own = Consensus((Fitted(OWN, OWN, "max"), Fitted(OWN)))
    said = np.stack([logits, logits + 0.3])
    image, of_study = stats.held_out(own, said, truth, views, fold)
    turned = truth.copy()
    turned[fold == 1] = 1 - turned[fold == 1]
    other, other_study = stats.held_out(own, said, turned, views, fold)
    np.testing.assert_array_equal(image[fold == 1], other[fold == 1])
    np.testing.assert_array_equal(of_study[fold[::2] == 1], other_study[fold[::2] == 1])
    assert np.abs(image - other)[fold != 1].min() > 0
    rest = fold != 2
    by_hand = stats.recalibrated(own, said[:, rest], truth[rest], Views(study[rest], views.frontal[rest]))
    np.testing.assert_array_equal(image[~rest], by_hand.image(said)[~rest])
    np.testing.assert_array_equal(of_study[fold[::2] == 2], by_hand.study(said, views)[fold[::2] == 2])


def test_before_and_after_are_those_of_scikit_learn() -> None:
    logits, truth = local(300)
    truth[:50, 1] = np.nan
    before, after = OWN.probability(logits), stats.moved(OWN, logits, truth).probability(logits)
    more: dict[str, Any] = {"bins": 10, "replicates": 200, "confidence": 0.95, "seed": 0}
    found = stats.helped(truth, before, after, np.arange(300) // 2, LABELS, **more)
    for k, label in enumerate(LABELS):
        known = ~np.isnan(truth[:, k])
        for when, probability in (("before", before), ("after", after)):
            entry = found.labels[label][when]
            assert entry["brier"] == pytest.approx(brier_score_loss(truth[known, k], probability[known, k]))
            assert entry["log_loss"] == pytest.approx(log_loss(truth[known, k], probability[known, k]))
    change = [found.labels[label]["after"]["log_loss"] - found.labels[label]["before"]["log_loss"] for label in LABELS]
    assert found.found.log_loss.value == pytest.approx(np.mean(change))
    assert recalibration.verdict(found) == "better"  # the odds were off by e ** -2
    assert recalibration.verdict(stats.helped(truth, after, before, np.arange(300), LABELS, **more)) == "worse"
    same = stats.helped(truth, after, after, np.arange(300), LABELS, **more)
    assert recalibration.verdict(same) == "undecided"
    assert "cannot be told apart from the run's own" in recalibration.sentence(same, 300, [])


# -- on a run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recalibration")


@pytest.fixture(scope="module")
def work(folder: Path) -> Workplace:
    """A teacher of two members on synthetic films, calibrated."""
    changes = ["pretrain.method=none", f"data.cache_dir={folder / 'cache'}", "teacher.members=[{}, {}]"]
    config = load(write_config(folder), changes)
    run = generations.open_run(folder / "run", config, resume=False, overwrite=False)
    made = Workplace(run, config, preparation.prepare(run, config), "cpu")
    generations.train_teacher(made)
    return made


@pytest.fixture(scope="module")
def hospital(folder: Path) -> Path:
    """Other synthetic films as a data set without splits: effusion in other words, a label the model lacks."""
    root = folder / "hospital"
    settings = {"train_patients": 30, "valid_patients": 2, "test_patients": 2, "size": 32, "seed": 5}
    synthetic.write_dataset(root, SyntheticConfig.model_validate(settings), progress=False)
    train = pd.read_csv(root / "train.csv")
    image = train["Path"].str.removeprefix("CheXpert-v1.0-small/")
    frame = pd.DataFrame({"image": image, "patient": image.str.extract(r"(patient\d+)")[0]})
    frame["Effusion"] = (train["Pleural Effusion"] == 1).astype(int)
    frame["Cardiomegaly"] = 0
    frame.loc[:2, "Cardiomegaly"] = 1
    frame["Hernia"] = 0
    frame.to_csv(root / "local.csv", index=False)
    path = folder / "hospital.yaml"
    path.write_text(
        f"data: {{source: csv, root: {root}, csv: local.csv, labels: [Effusion, Cardiomegaly, Hernia], "
        f"cache_dir: {folder / 'cache'}}}\n"
    )
    return path


def test_the_run_stays_and_the_file_holds_a_calibration_of_its_films(work: Workplace, hospital: Path) -> None:
    before = content(work.run.path)
    arguments = ["recalibrate", str(work.run.path), "--config", str(hospital), "-q", "--device", "cpu"]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0, shown.output
    path = work.run.path / "recalibrated" / "hospital-gen-0.json"
    after = content(work.run.path)
    assert after.pop("recalibrated/hospital-gen-0.json")
    assert after == before
    found = read_json(path)
    frame = pd.read_csv(hospital.parent / "hospital" / "local.csv")
    assert (found["films"], found["patients"]) == (len(frame), frame["patient"].nunique())
    assert found["sentence"] in " ".join(shown.output.split("\n"))
    assert f"{len(frame)} films of {frame['patient'].nunique()} patients" in shown.output
    assert "Fewer than 10 positive or negative films: Cardiomegaly" in shown.output
    assert found["pooled"] == ["Cardiomegaly"]
    assert "calibrated as before: Support Devices" in shown.output
    assert found["only_data"] == ["Hernia"]
    own = read_json(work.run.generation(0) / "calibration.json")["members"]
    for mine, theirs in zip(own, found["calibration"]["members"], strict=True):
        assert theirs["labels"]["Support Devices"] == mine["labels"]["Support Devices"]
        assert theirs["labels"]["Pleural Effusion"] != mine["labels"]["Pleural Effusion"]
        assert theirs["study"]["labels"]["Pleural Effusion"] != mine["study"]["labels"]["Pleural Effusion"]
    printed = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert printed == found


@pytest.mark.parametrize("level", ["image", "study"])
def test_a_label_known_of_no_local_film_is_calibrated_as_before_and_not_said_to_share_a_correction(
    work: Workplace, hospital: Path, tmp_path: Path, level: str
) -> None:
    config = load(hospital)
    assert config.data.root is not None
    frame = pd.read_csv(config.data.root / "local.csv").assign(Cardiomegaly=-1)
    frame.to_csv(config.data.root / "unknown.csv", index=False)
    measures = work.config.evaluation.model_copy(update={"level": level})
    asked = replace(work, config=work.config.model_copy(update={"evaluation": measures}))
    stored = json.loads(json.dumps(scoring.calibrations(work.run, 0).to_json()))
    for member in stored["members"]:
        for part in (member, member["study"]):
            part["labels"]["Cardiomegaly"]["pooled"] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "calibrations", lambda *_: Consensus.from_json(stored))
        found = recalibration.recalibrate(asked, load(hospital, ["data.csv=unknown.csv"]), 0)
    assert (found["pooled"], found["unknown"]) == ([], ["Cardiomegaly"])
    assert "share one correction" not in found["sentence"]
    for mine, theirs in zip(stored["members"], found["calibration"]["members"], strict=True):
        assert theirs["labels"]["Cardiomegaly"] == mine["labels"]["Cardiomegaly"]
    given = ["recalibrate", str(work.run.path), "--config", str(hospital), "--set", "data.csv=unknown.csv", "-q"]
    shown = CliRunner().invoke(cli, [*given, "-o", str(tmp_path / "unknown.json"), "--device", "cpu"])
    assert "Known of no local film, calibrated as before: Cardiomegaly\n" in shown.output


def test_what_it_reports_before_is_what_the_run_says_there(work: Workplace, hospital: Path) -> None:
    found = recalibration.recalibrate(work, load(hospital), 0)
    outside = external.evaluate(work, load(hospital), 0)["splits"]["test"]
    for level in ("image", "study"):
        entry = found["levels"][level]["labels"]["Pleural Effusion"]
        for measure in ("brier", "log_loss", "ece"):
            assert entry["before"][measure] == pytest.approx(outside[level]["labels"]["Pleural Effusion"][measure])
        assert entry["after"] != entry["before"]
        low, high = found["levels"][level]["log_loss"]["ci"]
        assert low <= found["levels"][level]["log_loss"]["difference"] <= high
    assert found["verdict"] in ("better", "worse", "undecided")


@pytest.mark.parametrize("command", ["recalibrate", "evaluate"])
def test_a_file_of_other_films_is_kept(work: Workplace, hospital: Path, tmp_path: Path, command: str) -> None:
    config = load(hospital)
    assert config.data.root is not None
    frame = pd.read_csv(config.data.root / "local.csv")
    frame.sample(frac=1, random_state=3).to_csv(config.data.root / "shuffled.csv", index=False)
    frame.iloc[10:].to_csv(config.data.root / "moved.csv", index=False)
    path = tmp_path / "kept.json"
    given = [command, str(work.run.path), "--config", str(hospital), "-q", "--device", "cpu", "-o", str(path)]
    other = ["--set", "data.csv=moved.csv"]
    for same in ([], ["--set", "data.csv=shuffled.csv"]):
        shown = CliRunner().invoke(cli, [*given, *same])
        assert shown.exit_code == 0, shown.output
    first = path.read_bytes()
    refused = CliRunner().invoke(cli, [*given, *other])
    assert isinstance(refused.exception, UsageError)
    assert refused.exception.exit_code == 2
    assert "kept.json: is there already, and not known to be of the same films" in refused.exception.message
    assert "-o, or add --overwrite" in refused.exception.hint
    assert path.read_bytes() == first
    shown = CliRunner().invoke(cli, [*given, *other, "--overwrite"])
    assert shown.exit_code == 0, shown.output
    assert read_json(path)["data"] != json.loads(first)["data"]
    path.write_text("no result of ours")
    assert isinstance(CliRunner().invoke(cli, given).exception, UsageError)
    assert not set(frame["patient"]) & set(first.decode().split('"'))


def test_where_it_is_written_goes_with_another_data_set(work: Workplace) -> None:
    for more in (["-o", "x.json"], ["--overwrite"]):
        alone = CliRunner().invoke(cli, ["evaluate", str(work.run.path), *more])
        assert alone.exit_code == 2
        assert "--output and --overwrite go with --config" in alone.output
        tables = CliRunner().invoke(cli, ["evaluate", "--truth", "t.csv", "--predictions", "p.csv", *more])
        assert tables.exit_code == 2
        assert "does nothing with --truth" in tables.output


def test_another_data_set_is_measured_with_the_new_calibration(work: Workplace, hospital: Path) -> None:
    found = recalibration.recalibrate(work, load(hospital), 0)
    path = work.run.path / "recalibrated" / "hospital-gen-0.json"
    write_json(path, found)
    plain, refitted = (external.evaluate(work, load(hospital), 0, given) for given in (None, path))
    assert (plain["calibration"], refitted["calibration"]) == (None, "hospital-gen-0.json")
    labels = [one["splits"]["test"]["image"]["labels"]["Pleural Effusion"] for one in (plain, refitted)]
    assert labels[1]["log_loss"] < labels[0]["log_loss"]  # these are the films that it was fitted to
    points = [of["operating_points"] for of in labels]
    moved = evaluation.thresholds(work.run, work.config, 0, external.refitted(path, 0, found["weights"]))["image"][
        "Pleural Effusion"
    ]
    for kind, point in points[0].items():  # thresholds move with the probabilities; between two judging films lies one
        assert points[1][kind]["threshold"] == moved[kind].value != point["threshold"]
        assert all(abs(points[1][kind][count] - point[count]) <= 1 for count in ("tp", "fp"))
    arguments = ["evaluate", str(work.run.path), "--config", str(hospital), "--calibration", str(path)]
    shown = CliRunner().invoke(cli, [*arguments, "-q", "--device", "cpu"])
    assert shown.exit_code == 0, shown.output
    assert (work.run.path / "external" / "hospital-gen-0-with-hospital-gen-0.json").is_file()
    alone = CliRunner().invoke(cli, ["evaluate", str(work.run.path), "--calibration", str(path)])
    assert alone.exit_code == 2
    with pytest.raises(UsageError, match="is no calibration of generation 0"):
        external.evaluate(work, load(hospital), 0, work.run.generation(0) / "calibration.json")
    write_json(path, found | {"weights": "of other networks"})
    with pytest.raises(UsageError, match="is no calibration of generation 0"):
        external.evaluate(work, load(hospital), 0, path)
    (other := hospital.with_name("other.json")).write_text('{"generation": 0, "calibration": {"labels": []}}')
    for wrong in (hospital, other):
        with pytest.raises(UsageError, match=rf"{wrong.name}: is no calibration of generation 0"):
            external.evaluate(work, load(hospital), 0, wrong)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame[frame["patient"].isin(frame["patient"].unique()[:9])], "9 local patients have labels"),
        (lambda frame: frame.assign(Effusion=0, Cardiomegaly=1), "no label has both positive and negative films"),
    ],
)
def test_too_little_to_fit_to_is_an_error(work: Workplace, hospital: Path, change: Any, says: str) -> None:
    config = load(hospital)
    assert config.data.root is not None
    change(pd.read_csv(config.data.root / "local.csv")).to_csv(config.data.root / "less.csv", index=False)
    with pytest.raises(DataError, match=says):
        recalibration.recalibrate(work, load(hospital, ["data.csv=less.csv"]), 0)


def test_nothing_in_common_and_no_such_generation_are_errors(work: Workplace, hospital: Path) -> None:
    with pytest.raises(DataError, match="no label in common"):
        recalibration.recalibrate(work, load(hospital, ["data.labels=[Hernia]"]), 0)
    with pytest.raises(UsageError, match="generation 3 is not trained"):
        recalibration.recalibrate(work, load(hospital), 3)


def test_the_runs_own_patients_are_no_local_films(work: Workplace, folder: Path) -> None:
    with pytest.raises(DataError, match="or is measured on them"):
        recalibration.recalibrate(work, work.config, 0)
    shutil.copytree(preparation.data_root(work.config.data), folder / "copy")
    data = work.config.data.model_copy(update={"source": "chexpert", "root": folder / "copy"})
    with pytest.raises(DataError, match="or is measured on them"):
        recalibration.recalibrate(work, work.config.model_copy(update={"data": data}), 0)
