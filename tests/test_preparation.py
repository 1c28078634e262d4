from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisy_student import preparation, scoring
from noisy_student.config import Config
from noisy_student.config.load import config_hash, load, read_snapshot
from noisy_student.data import manifest, synthetic
from noisy_student.errors import ConfigError, DataError, UsageError
from noisy_student.preparation import (
    cache_folder,
    check_films,
    data_root,
    environment,
    film_rows,
    open_source,
    prepare,
    stored_split,
    write_splits,
)
from noisy_student.runs import Run, read_json

OVERRIDES = (
    "data.labels=[Lung Opacity, Support Devices]",
    "data.image_size=32",
    "data.synthetic={train_patients: 24, valid_patients: 8, test_patients: 8, size: 32, seed: 11}",
    "split.labelled_patients=10",
)


@pytest.fixture(scope="module")
def config() -> Config:
    return load(None, OVERRIDES)


@pytest.fixture(scope="module")
def prepared(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "one")
    run.create()
    prepare(run, config)
    return run


def test_the_cache_goes_where_config_environment_or_home_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NS_CACHE", str(tmp_path / "named"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(load(None, ["data.cache_dir=/big/disk"]).data) == Path("/big/disk")
    assert cache_folder(Config().data) == tmp_path / "named"
    monkeypatch.setenv("NS_CACHE", "")
    assert cache_folder(Config().data) == tmp_path / "home" / ".cache" / "noisy_student"


def test_every_synthetic_set_has_a_folder_of_its_own() -> None:
    folders = {
        data_root(load(None, given).data) for given in ([], ["data.synthetic.seed=1"], ["data.synthetic.size=96"])
    }
    assert len(folders) == 3
    assert data_root(load(None, ["seed=5", "data.image_size=32"]).data) in folders
    assert data_root(load(None, ["data.root=/films"]).data) == Path("/films")


def test_the_run_gets_exactly_these_files_and_a_record_of_them(prepared: Run, config: Config) -> None:
    files = {str(path.relative_to(prepared.path)) for path in prepared.path.rglob("*") if path.is_file()}
    written = {
        "manifest.parquet", "sealed.parquet", "split.json", "config.yaml", "config.resolved.json", "environment.json",
    }  # fmt: skip
    assert files == written | {".noisy-student-run", "stages/prepare.json"}
    record = prepared.read_record("prepare")
    assert set(record["writes"]) == written
    assert record["info"]["config"] == config_hash(config)
    prepared.verify("prepare")
    assert load(prepared.path / "config.yaml") == read_snapshot(prepared.path / "config.resolved.json") == config


def test_training_sees_no_label_of_pool_and_test(prepared: Run, config: Config) -> None:
    seen, sealed = manifest.read(prepared.manifest), manifest.read(prepared.sealed)
    pool, test = manifest.select(seen, "train", labelled=False), manifest.select(seen, "test")
    assert len(pool) > 0
    assert len(test) > 0
    assert np.isnan(manifest.values(pool)).all()
    assert np.isnan(manifest.values(test)).all()
    hidden = {*pool.frame["image"], *test.frame["image"]}
    assert set(sealed.frame["image"]) == hidden
    assert (manifest.values(manifest.select(sealed, "test")) >= 0).all()  # the test labels of a phantom are all known
    assert (manifest.values(manifest.select(seen, "train", labelled=True)) == 1).any(axis=0).all()


def test_the_split_keeps_to_the_configuration(prepared: Run) -> None:
    split = stored_split(prepared)
    assert split["counts"]["labelled"]["patients"] == 10
    assert split["counts"]["pool"]["patients"] == 14
    assert split["unreadable"] == 0
    assert split["budget"]["patients"] == 18


def test_a_second_call_writes_nothing_and_notices_a_change(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    run.create()
    first = prepare(run, config)
    with monkeypatch.context() as patch:
        patch.setattr(preparation.manifest, "write", lambda *_: pytest.fail("wrote again"))
        second = prepare(run, config)
    assert second.key == first.key
    np.testing.assert_array_equal(second.pixels, first.pixels)
    (run.path / "split.json").write_text("{}")
    with pytest.raises(UsageError, match=r"split\.json: has changed"):
        prepare(run, config)


def test_a_label_with_one_class_among_the_labelled_films_stops_before_anything_is_written(
    tmp_path: Path, config: Config
) -> None:
    root = tmp_path / "films"
    synthetic.write_dataset(root, config.data.synthetic)
    table = pd.read_csv(root / "train.csv")
    table.assign(**{"Lung Opacity": 1.0}).to_csv(root / "train.csv", index=False)
    run = Run(tmp_path / "run")
    run.create()
    with pytest.raises(DataError, match="'Lung Opacity' has only positive targets"):
        prepare(run, load(None, [*OVERRIDES, f"data.root={root}", "data.source=chexpert"]))
    assert [path.name for path in run.path.iterdir()] == [".noisy-student-run"]


def test_an_unreadable_film_is_left_out_and_counted(tmp_path: Path, config: Config) -> None:
    root = tmp_path / "films"
    synthetic.write_dataset(root, config.data.synthetic)
    broken = sorted((root / "train").rglob("*.jpg"))[0]
    broken.write_bytes(b"not a film")
    run = Run(tmp_path / "run")
    run.create()
    given = [*OVERRIDES, f"data.root={root}", "data.source=chexpert", "data.max_bad_share=0.1"]
    decoded = prepare(run, load(None, given))
    split = stored_split(run)
    assert split["unreadable"] == 1
    (listed,) = split["quarantine"]
    assert set(listed) == {"patient", "reason"}
    assert listed["reason"]
    assert broken.parts[-3] not in str(split)  # the folder of the patient
    assert len(listed["patient"]) == 8
    image = str(broken.relative_to(root))
    assert image not in set(manifest.read(run.manifest).frame["image"])
    assert [name for name, _ in decoded.bad()] == [image]
    with pytest.raises(DataError, match=r"data\.max_bad_share"):
        open_source(load(None, [*given, "data.max_bad_share=0"]).data)


def test_film_rows_point_at_the_films_of_the_manifest(prepared: Run, config: Config) -> None:
    cache = open_source(config.data).cache
    valid = manifest.select(manifest.read(prepared.manifest), "valid")
    rows = film_rows(cache, valid)
    assert [cache.images[row] for row in rows] == list(valid.frame["image"])
    with pytest.raises(DataError, match="there are no films to read"):
        film_rows(cache, manifest.rows(valid, np.zeros(len(valid), dtype=bool)))
    gone = cache.ok.copy()
    gone[rows[0]] = False
    with pytest.raises(DataError, match="could not be decoded"):
        film_rows(replace(cache, ok=gone), valid)


def test_the_environment_names_versions_and_nothing_of_this_machine(prepared: Run) -> None:
    found = environment()
    packages = {"torch", "torchvision", "kornia", "numpy", "pandas", "scipy", "scikit-learn", "pillow", "pyarrow"}
    assert set(found) == packages | {"noisy_student", "python", "system", "machine", "cpus"}
    assert found["numpy"] == np.__version__
    assert read_json(prepared.path / "environment.json") == found


def test_calibration_on_carved_validation_does_not_see_mentioned_films_alone(tmp_path: Path) -> None:
    """Validation carved from train has blanks; they count as negative where training counts them so."""
    overrides = [
        "data.image_size=32", "data.synthetic={train_patients: 160, valid_patients: 8, test_patients: 8, size: 32}",
        "split={labelled_patients: 60, validation: carve}",
    ]  # fmt: skip
    config = load(None, overrides)
    run = Run(tmp_path / "run")
    run.create()
    preparation.prepare(run, config)
    valid = manifest.select(manifest.read(run.manifest), split="valid")
    share = np.nanmean(scoring.known_truth(manifest.values(valid), config.targets.blank), axis=0)
    mentioned = np.nanmean(scoring.known_truth(manifest.values(valid), "ignore"), axis=0)
    lesion = config.data.labels.index("Lung Lesion")
    assert share[lesion] < 0.4 < 0.8 < mentioned[lesion]


def test_parents_are_filled_before_anything_is_stored(tmp_path: Path, config: Config) -> None:
    root = tmp_path / "films"
    synthetic.write_dataset(root, config.data.synthetic)
    table = pd.read_csv(root / "train.csv")
    table.loc[::2, "Lung Opacity"] = np.nan
    table.to_csv(root / "train.csv", index=False)
    overrides = [
        *OVERRIDES,
        f"data.root={root}",
        "data.source=chexpert",
        "data.labels=[Lung Opacity, Edema, Pneumonia]",
    ]
    stored = {}
    for fill in ("false", "true"):
        run = Run(tmp_path / fill)
        run.create()
        prepare(run, load(None, [*overrides, f"targets.fill_parents={fill}"]))
        films = manifest.read(run.sealed)
        stored[fill] = manifest.values(films)[(films.frame["split"] == "train").to_numpy()]
    before, after = stored["false"], stored["true"]
    child = (before[:, 1:] == 1).any(axis=1)
    assert (before[child, 0] != 1).any(), "nothing to fill: the test says nothing"
    assert (after[child, 0] == 1).all()
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])


def test_a_split_file_may_name_as_many_unreadable_films_as_the_data_may_have(tmp_path: Path, config: Config) -> None:
    root = tmp_path / "films"
    synthetic.write_dataset(root, config.data.synthetic)
    given = [*OVERRIDES, f"data.root={root}", "data.source=chexpert", "data.max_bad_share=0.1"]
    (made,) = preparation.write_splits(load(None, given), [3], tmp_path / "split.parquet")
    sorted((root / "train").rglob("*.jpg"))[0].write_bytes(b"not a film")
    run = Run(tmp_path / "run")
    run.create()
    prepare(run, load(None, [*given, f"split.file={tmp_path / 'split.parquet'}"]))
    split = stored_split(run)
    assert (split["file_hash"], split["missing"], split["unreadable"]) == (made["hash"], 1, 1)
    assert split["seed"] == 3


def test_fit_and_window_reach_the_pixels_and_the_key(tmp_path: Path) -> None:
    wide = np.linspace(20000, 30000, 40 * 80).astype(np.uint16).reshape(40, 80)
    for name in ("a", "b"):
        Image.fromarray(wide).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,patient,split,A\na.png,1,train,0\nb.png,2,train,1\n")
    given = ["data.source=csv", f"data.root={tmp_path}", "data.labels=[A]", "data.image_size=32"]
    plain, padded, spread = (
        open_source(load(None, [*given, *more]).data).cache
        for more in ([], ["data.fit=pad"], ["data.window=[0.5, 99.5]"])
    )
    assert len({plain.key, padded.key, spread.key}) == 3
    assert np.ptp(plain.pixels) < 50
    assert np.ptp(spread.pixels) > 240
    assert not padded.pixels[0, 0, :8].any()
    assert (padded.pixels[0, 0, 8:24] > 70).all()
    stored = read_json(padded.folder / "cache.json")
    assert (stored["size"], stored["channels"], stored["fit"], stored["window"]) == (32, 1, "pad", None)


@pytest.mark.parametrize("window", ["[5, 5]", "[-1, 99]", "[1, 101]", "[9, 1]"])
def test_a_window_is_two_percentiles(window: str) -> None:
    with pytest.raises(ConfigError, match="window: two percentiles from 0 to 100"):
        load(None, [f"data.window={window}"])


def test_the_check_says_where_the_split_cannot_be_made(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(ord(name)).integers(0, 256, (40, 40), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    (tmp_path / "labels.csv").write_text("image,patient,split,A\na.png,1,train,0\nb.png,2,train,1\n")
    given = ["data.source=csv", f"data.root={tmp_path}", "data.labels=[A]", "data.image_size=32"]
    assert "labelled_patients: 100 are asked for" in check_films(load(None, given))["split_problem"]
    whole = [*given, "split.labelled_fraction=1", "split.validation=carve"]
    with pytest.raises(DataError, match="typo"):
        check_films(load(None, [*whole, f"split.file={tmp_path / 'typo.parquet'}"]))


def test_a_split_is_written_with_the_names_that_a_run_has_for_the_films(tmp_path: Path) -> None:
    rows = [f"{k:08d}_000.png,{'Edema' if k % 2 else 'No Finding'},{k}" for k in range(40)]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join(["Image Index,Finding Labels,Patient ID", *rows]))
    given = load(None, ["data.source=nih", f"data.root={tmp_path}", "data.labels=[Edema]", "split.labelled_fraction=1"])
    write_splits(given, [0], tmp_path / "tables.parquet")  # the tables alone: no film is there
    assert pd.read_parquet(tmp_path / "tables.parquet")["image"].str.startswith("images/").all()
    for k in range(40):
        (tmp_path / "images_001" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images_001" / "images" / f"{k:08d}_000.png").touch()
    write_splits(given, [0], tmp_path / "films.parquet")
    assert pd.read_parquet(tmp_path / "films.parquet")["image"].str.startswith("images_001/images/").all()


def test_the_check_takes_the_window_of_the_cache(tmp_path: Path) -> None:
    for name in ("a", "b"):
        deep = np.random.default_rng(ord(name)).integers(0, 2**31 - 1, (40, 40), dtype=np.int32)
        Image.fromarray(deep).save(tmp_path / f"{name}.tif")
    (tmp_path / "labels.csv").write_text("image,patient,split,A\na.tif,1,train,0\nb.tif,2,train,1\n")
    given = ["data.source=csv", f"data.root={tmp_path}", "data.labels=[A]", "data.image_size=32"]
    assert check_films(load(None, given))["problems"] == {"unreadable": 2}
    assert check_films(load(None, [*given, "data.window=[1, 99]"]))["problems"] == {}
