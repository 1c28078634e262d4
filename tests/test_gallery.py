from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisy_student import evaluation, gallery, generations, illustration, measures
from noisy_student.config import Config
from noisy_student.data import manifest, predictions
from noisy_student.data.cache import Cache
from noisy_student.reporting.pictures import Pictures
from noisy_student.runs import Run, read_json, write_json
from noisy_student.stages import STAGES
from noisy_student.stats import operating
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.workplace import Workplace

LABELS = ("Edema", "Fracture", "Pneumonia")
COUNTS = {"valid": 20, "test": 40}
SIZE = 32


def make_config(labels: tuple[str, ...] = LABELS, macro: tuple[str, ...] = ()) -> Config:
    return Config.model_validate(
        {
            "data": {"source": "csv", "root": "x", "csv": "x.csv", "labels": labels, "image_size": SIZE, "channels": 1},
            "evaluation": {"macro_labels": macro},
        }
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Validation and test films, and logits of generation 0: Edema both ways, Fracture never above 0.5."""
    found = Run(tmp_path / "run")
    found.create()
    rng = np.random.default_rng(5)
    count = sum(COUNTS.values())
    truth = rng.integers(0, 2, (count, 3)).astype(np.float32)
    truth[25:, 2] = np.nan  # one test label is hardly known
    truth[20:25, 2] = 0
    split = np.repeat(list(COUNTS), list(COUNTS.values()))
    columns = {
        "image": [f"secret{number}/film.png" for number in range(count)],
        "patient": [f"secret{number}" for number in range(count)],
        "study": [f"study{number}" for number in range(count)],
        "split": split,
    } | dict(zip(LABELS, truth.T, strict=True))
    seen, sealed = manifest.seal(manifest.build(columns, LABELS))
    manifest.write(seen, found.manifest)
    manifest.write(sealed, found.sealed)
    logits = rng.normal(0, 2, (count, 3)) + np.nan_to_num(truth) - 0.5
    logits[:, 1] = -4 + 0.3 * logits[:, 1]
    folder = found.generation(0)
    for name in COUNTS:
        rows = split == name
        images = np.array(columns["image"], dtype=object)[rows]
        stored = predictions.Predictions(images, LABELS, logits[rows].astype(np.float32))
        predictions.write(stored, folder / "predictions" / f"{name}.parquet")
    platt = (Platt(0.0, 1.0, 0.0, False, 10, 10),) * 3
    write_json(folder / "calibration.json", Calibration(LABELS, platt).to_json())
    return found


@pytest.fixture
def work(run: Run) -> Workplace:
    """The run with a model and the pixels of its films."""
    from noisy_student.config import ModelConfig
    from noisy_student.learning import checkpoint, models

    films = manifest.read(run.manifest).frame["image"]
    pixels = np.memmap(run.path / "pixels", np.uint8, "w+", shape=(len(films), 1, SIZE, SIZE))
    pixels[:] = np.random.default_rng(0).integers(0, 255, pixels.shape)
    cache = Cache(pixels, tuple(films), np.ones(len(films), dtype=bool), "key", run.path, ())
    model = ModelConfig(name="small_resnet", weights="none")
    network = models.build(model, LABELS, 1, SIZE, seed=0)
    checkpoint.save(run.generation(0) / "checkpoint" / "best", network, model, {})
    return Workplace(run, make_config(), cache, device="cpu")


# -- the choice ----------------------------------------------------------------------------------------------------


def brute_force(truth: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in range(len(truth)):
        if np.isnan(truth[row]):
            continue
        called = probability[row] >= threshold
        kind = f"{'true' if called == bool(truth[row]) else 'false'} {'positive' if called else 'negative'}"
        confidence = probability[row] if called else -probability[row]
        best = found.get(kind)
        if best is None or confidence > (probability[best] if called else -probability[best]):
            found[kind] = row
    return found


@pytest.mark.parametrize("seed", range(20))
def test_pick_agrees_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, np.nan], 15)
    probability = rng.integers(0, 10, 15) / 10  # with ties
    threshold = float(rng.choice([0.3, 0.5, 0.95]))
    assert gallery.pick(truth, probability, threshold) == brute_force(truth, probability, threshold)


def test_film_at_the_threshold_is_predicted_positive():
    assert gallery.pick(np.array([1.0]), np.array([0.5]), 0.5) == {"true positive": 0}


def points(truth, probability):
    return operating.choose(truth, probability, "validation", 0.9, 0.9)


@pytest.mark.parametrize("seed", range(10))
def test_threshold_is_the_one_of_youden_however_high_films_come(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    truth = np.append(rng.integers(0, 2, 30).astype(float), [0, 1, np.nan])
    probability = np.append(rng.integers(0, 20, 32) / 20, 0.9)  # the film of 0.9 is unknown and does not count
    fpr, tpr, thresholds = sklearn.roc_curve(truth[:-1], probability[:-1], drop_intermediate=False)
    chosen = gallery.called_from(points(truth, probability))
    at = thresholds.tolist().index(chosen)
    assert tpr[at] - fpr[at] == pytest.approx((tpr - fpr).max())


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_threshold_is_a_half_where_a_class_is_missing(value):
    assert gallery.called_from(points(np.full(4, value), np.full(4, 0.1))) == 0.5


def test_thresholds_and_answers_are_those_of_the_tables(run):
    content, _ = gallery.choose(run, make_config(), 0)
    _, levels = evaluation.test_levels(run, make_config(), 0)
    found = evaluation.thresholds(run, make_config(), 0)
    tables = measures.measured(levels, LABELS, LABELS, make_config(), points=found)["image"]["labels"]
    assert content["thresholds"]["Edema"] != 0.5
    assert set(content["chosen_on"].values()) == {"validation"}
    short = {"true positive": "tp", "false positive": "fp", "false negative": "fn", "true negative": "tn"}
    for label in LABELS:
        point = tables[label]["operating_points"]["youden"]
        assert content["thresholds"][label] == point["threshold"]
        shown = {short.get(entry["kind"]) for entry in content["entries"] if entry["label"] == label}
        assert shown - {None} == {key for key in short.values() if point[key]}


def test_thresholds_of_a_cross_fitted_run_rest_on_its_labelled_films_too(run):
    films, path = manifest.read(run.manifest), run.generation(0) / "predictions"
    train = (np.arange(len(films)) % 4 == 1) & (np.arange(len(films)) < COUNTS["valid"])
    split = np.where(train, "train", films.frame["split"])
    manifest.write(manifest.replace(films, split=split, labelled=train), run.manifest)
    stored = predictions.read(path / "valid.parquet", films.frame["image"].to_numpy(dtype=object)[: COUNTS["valid"]])
    for name, rows in (("valid", ~train[:20]), ("labelled", train[:20])):
        part = predictions.Predictions(stored.images[rows], LABELS, stored.logits[rows])
        predictions.write(part, path / f"{name}.parquet")
    config = make_config().model_copy(update={"folds": 2})
    content, reads = gallery.choose(run, config, 0)
    assert content["thresholds"]["Edema"] == evaluation.thresholds(run, config, 0)["image"]["Edema"]["youden"].value
    assert content["chosen_on"]["Edema"] == "validation and labelled films, out of fold"
    assert path / "labelled.parquet" in reads


def test_labels_with_most_positives_are_shown_in_their_order():
    labels = tuple("ABCDEFG")
    truth = np.zeros((20, 7))
    for k, positives in enumerate([3, 9, 0, 4, 20, 5, 4]):
        truth[:positives, k] = 1
    truth[10:, 2] = np.nan
    assert gallery.shown_labels(truth, make_config(labels)) == ["B", "D", "E", "F", "G"]
    assert gallery.shown_labels(truth, make_config(labels, ("C", "A"))) == ["C", "A"]


def test_entries_are_test_films_with_their_truth_and_probability(run):
    content, reads = gallery.choose(run, make_config(), 0)
    cases = evaluation.test_cases(run, make_config(), 0)
    films = list(cases.films.frame["image"])
    assert len(cases.films) == COUNTS["test"]
    assert 0 < content["thresholds"]["Fracture"] < 0.2
    for entry in content["entries"]:
        row, k = films.index(entry["film"]), LABELS.index(entry["label"])
        assert entry["truth"] == cases.truth[row, k]
        assert entry["probability"] == cases.probability[row, k]
        assert entry["before"] is None
        assert list(entry["labels"]) == list(LABELS)
        for name, cell in entry["labels"].items():
            known = cases.truth[row, LABELS.index(name)]
            assert cell["truth"] == (None if np.isnan(known) else known)
            assert cell["probability"] == pytest.approx(cases.probability[row, LABELS.index(name)], abs=1e-4)
        if entry["kind"] == "most uncertain":
            continue
        right, called = entry["kind"].split()
        assert (entry["probability"] >= content["thresholds"][entry["label"]]) == (called == "positive")
        assert (entry["truth"] == 1) == ((called == "positive") == (right == "true"))
        assert entry["image"].endswith(f"-{row}")
    kinds = {label: [e["kind"] for e in content["entries"] if e["label"] == label] for label in LABELS}
    assert kinds["Edema"][-1] == kinds["Fracture"][-1] == "most uncertain"
    assert len(kinds["Edema"]) == 5
    assert not {"true positive", "false negative"} & set(kinds["Pneumonia"])  # it has no known positive
    names = {str(path.relative_to(run.path)) for path in reads}
    assert names == {
        "manifest.parquet",
        "sealed.parquet",
        "gen-0/calibration.json",
        "gen-0/predictions/test.parquet",
        "gen-0/predictions/valid.parquet",
    }


def test_most_uncertain_is_nearest_to_the_threshold_of_the_label():
    truth, probability = np.array([np.nan, 1, 0, 1, 0]), np.array([0.3, 0.9, 0.35, 0.25, 0.1])
    assert gallery.most_uncertain(truth, probability, 0.3) == {"most uncertain": 2}  # the first of two equally near
    assert gallery.most_uncertain(truth, probability, 0.11) == {"most uncertain": 4}
    assert gallery.most_uncertain(np.full(5, np.nan), probability, 0.3) == {}


def test_biggest_change_is_looked_for_in_both_directions():
    truth, earlier = np.array([np.nan, 1, 0, 1]), np.array([0.0, 0.5, 0.9, 0.2])
    assert gallery.biggest_change(truth, earlier, np.array([1.0, 0.6, 0.1, 0.4])) == {"biggest change": 2}
    assert gallery.biggest_change(truth, earlier, np.array([1.0, 0.6, 0.8, 0.9])) == {"biggest change": 3}
    assert gallery.biggest_change(np.full(4, np.nan), earlier, earlier) == {}


def test_a_later_generation_shows_what_changed_most_since_the_one_before(run):
    first, second = run.generation(0), run.generation(1)
    shutil.copytree(first, second)
    path = second / "predictions" / "test.parquet"
    frame = manifest.select(manifest.read(run.manifest), split="test").frame
    stored = predictions.read(path, frame["image"].to_numpy(dtype=object))
    logits = stored.logits.copy()
    logits[7, 0] += 6 if logits[7, 0] < 0 else -6
    predictions.write(predictions.Predictions(stored.images, LABELS, logits), path)
    content, reads = gallery.choose(run, make_config(), 1)
    (entry,) = [e for e in content["entries"] if (e["label"], e["kind"]) == ("Edema", "biggest change")]
    assert entry["film"] == frame["image"].iloc[7]
    assert abs(entry["probability"] - entry["before"]) > 0.5
    assert {first / "calibration.json", first / "predictions" / "test.parquet"} <= set(reads)
    assert "biggest change" not in {e["kind"] for e in gallery.choose(run, make_config(), 0)[0]["entries"]}


def test_only_the_film_field_can_tell_a_patient(run):
    content, _ = gallery.choose(run, make_config(), 0)
    for entry in content["entries"]:
        assert "secret" in entry.pop("film")
    assert "secret" not in str(content)


def test_threshold_does_not_look_at_test_films(run):
    before = gallery.choose(run, make_config(), 0)[0]["thresholds"]
    sealed = manifest.read(run.sealed)
    flipped = {name: 1 - sealed.frame[name] for name in LABELS}
    manifest.write(manifest.replace(sealed, **flipped), run.sealed)
    content, _ = gallery.choose(run, make_config(), 0)
    assert content["thresholds"] == before


# -- the pictures --------------------------------------------------------------------------------------------------


def test_thumbnail_is_grey_and_at_most_160_pixels():
    pixels = np.zeros((3, 320, 200), dtype=np.uint8)
    pixels[0], pixels[1], pixels[2] = 30, 60, 91
    picture = illustration.thumbnail(pixels)
    assert (picture.mode, picture.size) == ("L", (100, 160))
    assert np.unique(picture).tolist() == [60]
    small = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    np.testing.assert_array_equal(np.asarray(illustration.thumbnail(small)), small[0])


def test_overlay_is_the_film_where_the_map_is_zero_and_coloured_where_it_is_high():
    film = Image.fromarray(np.full((8, 8), 100, dtype=np.uint8))
    values = np.zeros((8, 8), dtype=np.float32)
    values[:, 4:] = 1
    picture = np.asarray(illustration.overlay(film, values)).astype(int)
    assert (picture[:, :4] == 100).all()
    # The last colour of inferno is (252, 255, 164).
    np.testing.assert_allclose(picture[:, 4:], np.broadcast_to(40 + 0.6 * np.array([252, 255, 164]), (8, 4, 3)), atol=1)


def test_stages_write_what_they_declare_and_the_page_shows_it(work):
    folder = work.run.generation(0)
    chosen = illustration.choose_gallery(work, 0)
    entries = read_json(folder / "gallery.json")["entries"]
    assert set(chosen.writes) == {folder / "gallery.json", *(folder / entry["thumb"] for entry in entries)}
    before = (folder / "gallery.json").read_bytes()
    drawn = illustration.draw_maps(work, 0)
    assert set(drawn.writes) == {folder / entry["map"] for entry in entries}
    assert (folder / "gallery.json").read_bytes() == before
    assert all(path.is_file() for path in [*chosen.reads, *drawn.reads])
    for entry in entries:
        row = work.cache.images.index(entry["film"])
        with Image.open(folder / entry["thumb"]) as thumb, Image.open(folder / entry["map"]) as overlay:
            np.testing.assert_array_equal(np.asarray(thumb), work.cache.pixels[row, 0])
            assert (overlay.mode, overlay.size) == ("RGB", thumb.size)
            assert "secret" not in f"{thumb.info} {overlay.info}"
    shown = Pictures().gallery(folder)
    assert len(shown) == len(entries)
    assert all(film["thumb"] and film["map"] for film in shown)
    assert "secret" not in str(shown)


def test_stages_give_equal_bytes_for_equal_input(work):
    def once() -> dict[Path, bytes]:
        writes = [*illustration.choose_gallery(work, 0).writes, *illustration.draw_maps(work, 0).writes]
        return {path: path.read_bytes() for path in writes}

    assert once() == once()


def test_map_depends_on_the_label(work):
    illustration.choose_gallery(work, 0)
    folder, path = work.run.generation(0), work.run.generation(0) / "gallery.json"
    entry = read_json(path)["entries"][0]
    write_json(path, {"entries": [entry | {"label": name, "map": f"maps/{name}.png"} for name in LABELS]})
    illustration.draw_maps(work, 0)
    assert len({(folder / "maps" / f"{name}.png").read_bytes() for name in LABELS}) == 3


def test_without_a_feature_map_there_are_thumbnails_alone(work, monkeypatch):
    from noisy_student.learning import maps

    monkeypatch.setattr(maps, "has_feature_map", lambda network, shape: False)
    illustration.choose_gallery(work, 0)
    folder = work.run.generation(0)
    assert all(entry["map"] is None for entry in read_json(folder / "gallery.json")["entries"])
    assert illustration.draw_maps(work, 0).writes == []
    assert all(film["map"] is None for film in Pictures().gallery(folder))


def test_stages_stand_between_evaluation_and_report():
    assert generations.MEASURING[-4:] == ("evaluate", "gallery", "maps", "report")
    assert {"pretrain", *generations.TRAINING, *generations.MEASURING} == set(STAGES)
