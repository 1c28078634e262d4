"""``ns predict``: what it says of films, what it reads, what it skips, and how it goes on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.covariance import ledoit_wolf
from small_runs import content, write_config

from noisy_student import evaluation, external, generations, preparation, scoring
from noisy_student.cli import cli
from noisy_student.config.load import load as load_config
from noisy_student.data import manifest, predictions, streaming
from noisy_student.data.decode import DecodeSettings
from noisy_student.deploy import answers, familiarity, listing
from noisy_student.deploy import model as models
from noisy_student.errors import DataError, StoppedError, UsageError
from noisy_student.runs import write_json
from noisy_student.stats import familiarity as stats
from noisy_student.stats.operating import KINDS
from noisy_student.workplace import Workplace

LABELS = ("Cardiomegaly", "Pleural Effusion", "Support Devices")


def trained(folder: Path, *changes: str) -> Workplace:
    """Return a run with a trained teacher, its test films predicted."""
    config = load_config(write_config(folder), ["pretrain.method=none", f"data.cache_dir={folder / 'cache'}", *changes])
    run = generations.open_run(folder / "run", config, resume=False, overwrite=False)
    work = Workplace(run, config, preparation.prepare(run, config), "cpu")
    generations.train_teacher(work)
    generations.run_stages(work, 0, ("predict-pool", "predict-test"))
    return work


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return trained(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return trained(tmp_path_factory.mktemp("ensemble"), "teacher.members=[{}, {}]", "prediction.tta=flip")


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return trained(tmp_path_factory.mktemp("crossed"), "folds=2")


def measured_films(work: Workplace) -> tuple[list[str], manifest.Manifest]:
    films = manifest.select(manifest.read(work.run.manifest), split="test")
    root = preparation.data_root(work.config.data)
    return [f"{root}/{image}" for image in films.frame["image"]], films


def ns(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["predict", *map(str, arguments), "--device", "cpu"])


# -- what it says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["single", "ensemble", "crossed"])
def test_it_says_what_the_run_says_of_its_own_films(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    work = request.getfixturevalue(name)
    paths, films = measured_films(work)
    done = ns(work.run.path, *paths, "-o", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["path"].tolist() == paths
    probability = scoring.probabilities(work.run, 0, "test", films)
    np.testing.assert_allclose(found[list(LABELS)].to_numpy(), probability, atol=2e-6)
    spread = predictions.read_spread(
        predictions.spread_path(scoring.predictions_path(work.run, 0, "test")), scoring.images(films), LABELS
    )
    sd = found[[f"sd:{label}" for label in LABELS]].to_numpy(dtype=float)
    assert np.isnan(sd).all() == (name == "single")
    np.testing.assert_allclose(sd, spread.sd, atol=1e-4)
    points = evaluation.thresholds(work.run, work.config, 0)["image"]
    for k, label in enumerate(LABELS):
        for kind in KINDS:
            limit = points[label][kind].value
            assert limit is not None
            clear = np.abs(probability[:, k] - limit) > 1e-5
            expected = (probability[:, k] >= limit).astype(int)
            np.testing.assert_array_equal(found[f"{label}:{kind}"][clear], expected[clear])
    assert "Not for clinical use" in done.output


def test_ns_evaluate_reads_what_it_writes(single: Workplace, tmp_path: Path) -> None:
    paths, _ = measured_films(single)
    assert ns(single.run.path, *paths, "-o", tmp_path / "out.csv", "-q").output == ""
    sealed = manifest.select(manifest.read(single.run.sealed), split="test").frame
    sealed.assign(Path=paths).drop(columns=["image", "study", "patient"]).to_csv(tmp_path / "truth.csv", index=False)
    arguments = ["--truth", str(tmp_path / "truth.csv"), "--predictions", str(tmp_path / "out.csv"), "--json"]
    done = CliRunner().invoke(cli, ["evaluate", *arguments, "--set", "evaluation.replicates=100"])
    assert done.exit_code == 0, done.output
    text = json.dumps(json.loads(done.stdout))
    assert all(label in text for label in LABELS)


def test_a_calibration_moves_probabilities_and_thresholds_and_leaves_decisions(
    single: Workplace, tmp_path: Path
) -> None:
    config = single.config
    fitted = scoring.calibrations(single.run, 0).to_json()
    for platt in fitted["labels"].values():
        platt["intercept"] -= 1.5
    path = tmp_path / "local.json"
    weights = external.weights_of(single.run, config, 0)
    write_json(path, {"generation": 0, "weights": weights, "calibration": fitted})
    paths, _ = measured_films(single)
    for name, more in (("own", ()), ("local", ("--calibration", path))):
        assert ns(single.run.path, *paths, "-o", tmp_path / f"{name}.csv", *more).exit_code == 0
    own, local = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("own", "local"))
    odds = [np.log(table["Cardiomegaly"] / (1 - table["Cardiomegaly"])) for table in (own, local)]
    np.testing.assert_allclose(odds[0] - odds[1], 1.5, atol=1e-3)
    decisions = [f"{label}:{kind}" for label in LABELS for kind in KINDS]
    assert (own[decisions] == local[decisions]).all(axis=None)
    write_json(path, {"generation": 1, "calibration": {}})
    done = ns(single.run.path, *paths, "-o", tmp_path / "x.csv", "--calibration", path)
    assert isinstance(done.exception, UsageError)
    assert config.data.labels == LABELS


def test_the_best_generation_is_asked_or_the_one_that_is_named(single: Workplace, tmp_path: Path) -> None:
    paths, _ = measured_films(single)
    done = ns(single.run.path, paths[0], "-o", tmp_path / "out.csv", "--generation", 3)
    assert isinstance(done.exception, UsageError)
    assert "generation 3 is not trained" in str(done.exception)
    found = json.loads(ns(single.run.path, paths[0], "-o", tmp_path / "out.csv", "--json").stdout)
    assert (found["generation"], found["networks"], found["scored"], found["bad"]) == (0, 1, 1, 0)
    assert isinstance(ns(tmp_path, paths[0], "-o", tmp_path / "y.csv").exception, UsageError)


def test_maps_are_drawn_for_what_is_called_positive(ensemble: Workplace, tmp_path: Path) -> None:
    paths, _ = measured_films(ensemble)
    done = ns(ensemble.run.path, *paths[:6], "-o", tmp_path / "out.csv", "--maps", tmp_path / "maps")
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "out.csv")
    for _, row in found.iterrows():
        called = [label for label in LABELS if row[f"{label}:youden"] == 1]
        names = str(row["maps"]).split(";")
        assert len(names) == max(1, len(called))
        for name in names:
            with Image.open(tmp_path / "maps" / name) as picture:
                assert (picture.size, picture.mode) == ((32, 32), "RGB")
    assert len(list((tmp_path / "maps").iterdir())) == sum(len(str(names).split(";")) for names in found["maps"])


# -- what it reads ---------------------------------------------------------------------------------------------------


def test_folders_globs_tables_and_files_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.png", "b/1.JPG", "a.dcm", "notes.txt", ".hidden.png", "b/1.2.840.5", "b/plain"):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * 128 + b"DICM" if name.endswith(("840.5", "plain")) else b"x")
    root = tmp_path / "films"
    (tmp_path / "list.csv").write_text("n,Path\n1,films/b/2.png\n2,nowhere.png\n3,\n")
    (root / "one.csv").write_text("films\nfilms/a.dcm\n")
    found = list(
        listing.films([str(root), str(root / "*.dcm"), str(tmp_path / "list.csv"), str(root / "one.csv"), "x"])
    )
    below = [str(root / name) for name in ("a.dcm", "b/1.2.840.5", "b/1.JPG", "b/2.png", "b/plain")]
    assert found[:5] == [(name, name) for name in below]
    assert found[5] == (below[0], below[0])
    assert found[6:] == [
        ("films/b/2.png", below[3]),
        ("nowhere.png", str(tmp_path / "nowhere.png")),
        ("films/a.dcm", str(tmp_path / "films" / "a.dcm")),  # beside the table's folder
        ("x", "x"),
    ]
    assert listing.count([str(root)]) == 5
    assert list(listing.films([str(tmp_path / "*.csv")])) == list(listing.films([str(tmp_path / "list.csv")]))
    monkeypatch.chdir(root / "b")  # a table that is named from inside its folder has one above it all the same
    Path("inside.csv").write_text("path\nb/2.png\n")
    assert list(listing.films(["inside.csv"])) == [("b/2.png", below[3])]
    Path("inside.csv").unlink()
    with pytest.raises(DataError, match="matches no file"):
        listing.count([str(tmp_path / "*.gif")])
    with pytest.raises(DataError, match=r"nowhere\.csv: is missing"):
        listing.count(["x.png", str(tmp_path / "nowhere.csv")])
    (tmp_path / "a[1].csv").write_text("path\na.png\n")
    assert listing.count([str(tmp_path / "a[1].csv")]) == 1  # a name, not a pattern
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column of paths"):
        listing.count([str(tmp_path / "none.csv")])
    (tmp_path / "semicolons.csv").write_text("path;view\na.png;PA\n")
    with pytest.raises(DataError, match="is separated by ';'"):
        listing.count([str(tmp_path / "semicolons.csv")])
    (tmp_path / "nothing.csv").write_text("")
    with pytest.raises(DataError, match="it has no columns"):
        listing.count([str(tmp_path / "nothing.csv")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no films"):
        listing.count([str(tmp_path / "empty")])


def test_dicom_leaves_nothing_but_its_path(single: Workplace, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4.55555"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    for name, rows in (("good", 48), ("bad", 47)):
        header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        header.PatientName, header.PatientID, header.PatientBirthDate = "Doe^Jane", "MRN-777", "19500101"
        header.Rows, header.Columns, header.BitsAllocated, header.BitsStored, header.HighBit = rows, 48, 8, 8, 7
        header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
        header.PixelData = np.arange(48 * 40 if name == "bad" else 48 * 48).astype(np.uint8).tobytes()
        header.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
    done = ns(single.run.path, tmp_path / "good.dcm", tmp_path / "bad.dcm", "-o", tmp_path / "out.csv")
    assert done.exit_code == 3, done.output
    texts = [done.output, (tmp_path / "out.csv").read_text(), (tmp_path / "out.bad.csv").read_text()]
    for text in texts:
        assert not any(secret in text for secret in ("Doe", "MRN", "1950", "55555"))
    assert texts[1].count("\n") == 2
    assert str(tmp_path / "bad.dcm") in texts[2]


# -- what it skips, and how it goes on -------------------------------------------------------------------------------


def test_bad_films_are_listed_and_the_others_scored(single: Workplace, tmp_path: Path) -> None:
    paths, _ = measured_films(single)
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing, or not.jpg"
    broken.write_bytes(b"no film")
    asked = [paths[0], str(broken), paths[1], str(missing)]
    done = ns(single.run.path, *asked, "-o", tmp_path / "out.csv")
    assert done.exit_code == 3
    assert f"2 films could not be read and are not in {tmp_path / 'out.csv'}" in done.output
    assert pd.read_csv(tmp_path / "out.csv")["path"].tolist() == [paths[0], paths[1]]
    bad = pd.read_csv(tmp_path / "out.bad.csv")
    assert bad["path"].tolist() == [str(broken), str(missing)]
    assert "format is not known" in bad["reason"][0]
    assert "No such file" in bad["reason"][1]
    assert str(tmp_path) not in " ".join(bad["reason"])
    again = ns(single.run.path, paths[0], "-o", tmp_path / "out.csv")
    assert isinstance(again.exception, UsageError)
    assert ns(single.run.path, paths[0], "-o", tmp_path / "out.csv", "--overwrite").exit_code == 0
    assert not (tmp_path / "out.bad.csv").exists()
    assert len(pd.read_csv(tmp_path / "out.csv")) == 1
    table = tmp_path / "list.csv"
    table.write_text(f"path\n{paths[0]}\n")
    itself = ns(single.run.path, table, "-o", table, "--overwrite")
    assert "is one of the films or tables asked for" in str(itself.exception)
    assert table.read_text() == f"path\n{paths[0]}\n"


def acquainted_model(work: Workplace) -> models.Model:
    """Return the model of a run, which knows its training films already: it does not stop while it looks at them."""
    return models.acquainted(models.load(work.run.path, device="cpu"))[0]


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("torn", ["between batches", "in a row", "before the rows", "in a bad row"])
def test_an_interrupted_table_goes_on_and_ends_as_it_would_have(
    single: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int, torn: str
) -> None:
    monkeypatch.setattr(answers, "BATCH", 4)
    monkeypatch.setattr(streaming, "TASK", 2)
    paths, _ = measured_films(single)
    odd = tmp_path / 'a "quoted", and\nbroken name.png'
    shutil.copy(paths[5], odd)
    asked = [*paths[:3], str(tmp_path / "gone-1.png"), str(odd), *paths[3:9], str(tmp_path / "gone-2.png"), paths[0]]
    model = acquainted_model(single)
    whole = answers.write(model, asked, tmp_path / "whole.csv")
    assert (whole.films, whole.scored, whole.bad, whole.resumed) == (13, 11, 2, 0)
    looks = iter(range(100))
    with pytest.raises(StoppedError):
        answers.write(model, asked, tmp_path / "out.csv", stop=lambda: next(looks) >= 2 * batches)
    part = tmp_path / "out.csv.part"
    rows, bad = part / answers.ROWS, part / answers.BAD
    left = 4 * batches
    if torn == "in a row":
        rows.write_bytes(rows.read_bytes()[:-7])
        left -= 2  # after the last row of either batch stands a film that is gone
    elif torn == "before the rows":  # bad films of a batch are noted before its rows
        rows.write_bytes(rows.read_bytes().splitlines(keepends=True)[0])
        left = 0
    elif torn == "in a bad row":
        bad.write_bytes(bad.read_bytes() + f"{tmp_path}/gone-2".encode())
    assert not (tmp_path / "out.csv").exists()
    ended = answers.write(model, asked, tmp_path / "out.csv")
    assert (ended.films, ended.scored, ended.bad, ended.resumed) == (13, 11, 2, left)
    for name in ("csv", "bad.csv"):
        assert (tmp_path / f"out.{name}").read_bytes() == (tmp_path / f"whole.{name}").read_bytes()
    assert not part.exists()


@pytest.mark.parametrize("last", ["the bad list", "the rows"])
def test_a_kill_after_the_last_film_loses_nothing(
    single: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    class Killed(BaseException):
        pass

    def replace(source: Path, target: Path) -> Path:
        moved = really(source, target)
        if target.name == {"the bad list": "out.bad.csv", "the rows": "out.csv"}[last]:
            raise Killed
        return moved

    paths, _ = measured_films(single)
    model, asked, really = acquainted_model(single), [*paths[:3], str(tmp_path / "gone.png")], Path.replace
    answers.write(model, asked, tmp_path / "whole.csv")
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(Killed):
        answers.write(model, asked, tmp_path / "out.csv")
    monkeypatch.undo()
    if last == "the rows":
        with pytest.raises(UsageError, match="is there already"):
            answers.write(model, asked, tmp_path / "out.csv")
    else:
        assert answers.write(model, asked, tmp_path / "out.csv").resumed == 4
    for name in ("csv", "bad.csv"):
        assert (tmp_path / f"out.{name}").read_bytes() == (tmp_path / f"whole.{name}").read_bytes()
    assert not (tmp_path / "out.csv.part").exists()


def test_maps_of_one_table_are_in_one_folder(single: Workplace, tmp_path: Path) -> None:
    paths, _ = measured_films(single)
    model = acquainted_model(single)
    with pytest.raises(StoppedError):
        answers.write(model, paths[:2], tmp_path / "out.csv", maps=tmp_path / "one", stop=lambda: True)
    with pytest.raises(UsageError, match="with other options"):
        answers.write(model, paths[:2], tmp_path / "out.csv", maps=tmp_path / "other")
    assert answers.write(model, paths[:2], tmp_path / "out.csv", maps=tmp_path / "one").scored == 2


def test_other_films_do_not_go_on_with_it(single: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BATCH", 4)
    monkeypatch.setattr(streaming, "TASK", 4)
    paths, _ = measured_films(single)
    model, looks = acquainted_model(single), iter(range(100))
    with pytest.raises(StoppedError):
        answers.write(model, paths, tmp_path / "out.csv", stop=lambda: next(looks) >= 1)
    with pytest.raises(UsageError, match="was begun for other films"):
        answers.write(model, paths[1:], tmp_path / "out.csv")
    assert answers.write(model, paths, tmp_path / "out.csv").resumed == 4


def test_another_model_does_not_go_on_with_it(single: Workplace, ensemble: Workplace, tmp_path: Path) -> None:
    paths, _ = measured_films(single)
    with pytest.raises(StoppedError):
        answers.write(acquainted_model(single), paths, tmp_path / "out.csv", stop=lambda: True)
    other = acquainted_model(ensemble)
    with pytest.raises(UsageError, match="begun by another model"):
        answers.write(other, paths, tmp_path / "out.csv")
    assert answers.write(other, paths, tmp_path / "out.csv", overwrite=True).scored == len(paths)


def test_processes_decode_what_one_process_decodes_and_read_no_further_than_needed(tmp_path: Path) -> None:
    draw, read = np.random.default_rng(0), []
    for number in range(40):
        Image.fromarray(draw.integers(0, 256, (20, 20), dtype=np.uint8)).save(tmp_path / f"{number:02d}.png")

    def films() -> Any:
        for number in range(600):
            read.append(number)
            yield str(number), f"{tmp_path}/{number % 41:02d}.png"

    settings = DecodeSettings(16, 1)
    for workers in (1, 2):
        read.clear()
        found, ahead = [], 0
        for part in streaming.stream(films(), settings, workers=workers, batch=64, stop=lambda: False):
            found.append(part)
            ahead = max(ahead, len(read) - sum(len(one.names) for one in found))
        assert ahead <= 257 + streaming.AHEAD * 2 * streaming.TASK
        pixels = np.concatenate([part.pixels for part in found])
        assert [name for part in found for name in part.names] == [str(number) for number in range(600)]
        assert sum(len(part.reasons) for part in found) == 600 // 41
        if workers == 1:
            alone = pixels
    np.testing.assert_array_equal(pixels, alone)


# -- films of another kind -------------------------------------------------------------------------------------------


def test_the_covariance_is_that_of_scikit_learn() -> None:
    values = np.random.default_rng(0).normal(size=(60, 30)) @ np.random.default_rng(1).normal(size=(30, 30))
    values -= values.mean(axis=0)
    np.testing.assert_allclose(stats.ledoit_wolf(values), ledoit_wolf(values, assume_centered=True)[0], rtol=1e-10)


def test_far_is_rare_among_films_alike_and_usual_among_others() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(50, 50))
    known = stats.familiar(rng.normal(size=(900, 50)) @ mix)
    assert known is not None
    assert known.far(rng.normal(size=(4000, 50)) @ mix).mean() == pytest.approx(0.005, abs=0.008)
    assert known.far(rng.normal(1.5, 1, size=(400, 50)) @ mix).mean() > 0.9
    assert known.far(np.full((1, 50), np.nan)).all()
    assert stats.familiar(np.zeros((19, 3))) is None


def test_films_of_another_kind_are_marked_and_warned_of(single: Workplace, tmp_path: Path) -> None:
    before = content(single.run.path)
    paths, _ = measured_films(single)
    strange = tmp_path / "strange"
    strange.mkdir()
    for number, path in enumerate(paths[:12]):
        with Image.open(path) as film:
            film.convert("L").point(lambda value: 255 - value).save(strange / f"{number:02d}.png")
    done = ns(single.run.path, strange, "-o", tmp_path / "odd.csv", "--json")
    found = json.loads(done.stdout)
    marks = pd.read_csv(tmp_path / "odd.csv", keep_default_na=False)["far"]
    assert found["far"]["any"] == (marks != "").sum() >= 6  # of 12, from some sixty training films
    assert marks.str.contains("intensity").sum() == found["far"]["intensity"]
    assert "films are far from the training films" in found["warning"]
    assert f"ns: warning: {found['warning']}" in done.stderr
    usual = json.loads(ns(single.run.path, *paths, "-o", tmp_path / "usual.csv", "--json").stdout)
    assert usual["far"]["any"] <= 4
    after = content(single.run.path)
    assert set(after) - set(before) <= {"familiar/gen-0.safetensors"}
    assert {name: after[name] for name in before} == before


def test_without_the_training_films_it_says_that_nothing_is_compared(
    tmp_path: Path, single: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(single.run.path, copy)
    shutil.rmtree(copy / "familiar", ignore_errors=True)
    paths, _ = measured_films(single)
    monkeypatch.setattr(familiarity, "data_root", lambda config: tmp_path / "gone")
    done = ns(copy, *paths[:3], "-o", tmp_path / "out.csv", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["far"] is None
    assert "too few of those can be read" in found["far_reason"]
    assert f"ns: warning: {found['far_reason']}" in done.stderr
    with (tmp_path / "out.csv").open() as stream:
        assert "far" not in next(csv.reader(stream))
    assert not (copy / "familiar").exists()
