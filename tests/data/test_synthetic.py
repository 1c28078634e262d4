"""The phantoms: CheXpert's layout and labels, films that depend on coordinates alone, findings in their place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from noisy_student.config import SyntheticConfig
from noisy_student.data.synthetic import VERSION, contact_sheet, dataset, render, write_dataset
from noisy_student.data.synthetic.anatomy import thorax
from noisy_student.data.synthetic.banks import tree_window
from noisy_student.data.synthetic.cases import OPACITIES, RATES, Case, draw_severity, side_of, truth
from noisy_student.data.synthetic.reports import chances, reported
from noisy_student.data.synthetic.shape import shape
from noisy_student.errors import DataError
from noisy_student.labels import OBSERVATIONS
from noisy_student.runs import read_json, write_json

OFFICIAL = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
CONFIG = SyntheticConfig(train_patients=20, valid_patients=5, test_patients=6, size=32, seed=3)
SIZE = 96
NONE = (0.0,) * len(OBSERVATIONS)
Films = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "CheXpert-v1.0-small"
    write_dataset(root, CONFIG)
    return root


def tables(root: Path) -> dict[str, pd.DataFrame]:
    return {split: pd.read_csv(root / f"{split}.csv") for split in ("train", "valid", "test")}


def local(root: Path, path: str) -> Path:
    return root.parent / path


# -- tables and files --------------------------------------------------------------------------------------------


def test_tables_have_the_official_columns_and_every_film_exists(data_root: Path) -> None:
    for split, table in tables(data_root).items():
        assert ",".join(table.columns) == OFFICIAL
        assert (data_root / f"{split}.csv").read_text().startswith(OFFICIAL + "\n")
        pattern = rf"CheXpert-v1\.0-small/{split}/patient\d{{5}}/study\d+/view\d+_(?:frontal|lateral)\.jpg"
        assert table["Path"].str.fullmatch(pattern).all()
        assert table["Path"].is_unique
        for path in table["Path"]:
            with Image.open(local(data_root, path)) as film:
                assert (film.format, film.mode, film.size) == ("JPEG", "L", (32, 32))
        lateral = table["Path"].str.endswith("lateral.jpg")
        assert (lateral == (table["Frontal/Lateral"] == "Lateral")).all()
        assert (table["AP/PA"].isna() == lateral).all()
        assert set(table["AP/PA"].dropna()) <= {"AP", "PA"}
        assert set(table["Sex"]) <= {"Male", "Female"}
        assert table["Age"].between(18, 90).all()
    files = {str(path.relative_to(data_root.parent)) for path in data_root.rglob("*.jpg")}
    assert files == {path for table in tables(data_root).values() for path in table["Path"]}


def test_patients_are_numbered_as_in_chexpert(data_root: Path) -> None:
    numbers = {
        split: table["Path"].str.extract(r"patient(\d{5})")[0].astype(int) for split, table in tables(data_root).items()
    }
    assert sorted(set(numbers["train"])) == list(range(1, 21))
    assert sorted(set(numbers["valid"])) == list(range(64541, 64546))
    assert sorted(set(numbers["test"])) == list(range(64741, 64747))


def test_label_values_of_each_split(data_root: Path) -> None:
    made = tables(data_root)
    train = made["train"][list(OBSERVATIONS)]
    assert set(np.unique(train.to_numpy()[~train.isna().to_numpy()])) == {-1.0, 0.0, 1.0}
    assert train.isna().to_numpy().any()
    assert set(train["No Finding"].dropna()) == {1.0}
    for split in ("valid", "test"):
        assert set(np.unique(made[split][list(OBSERVATIONS)].to_numpy())) == {0.0, 1.0}


def test_views_of_a_study_share_labels_and_patients_share_sex(data_root: Path) -> None:
    table = tables(data_root)["train"]
    study = table["Path"].str.rsplit("/", n=1).str[0]
    patient = table["Path"].str.split("/").str[2]
    assert (study.value_counts() > 1).any()
    assert (study.groupby(patient).nunique() > 1).any()
    assert (table[list(OBSERVATIONS)].fillna(9).groupby(study).nunique() == 1).all(axis=None)
    assert (table["Sex"].groupby(patient).nunique() == 1).all()
    assert (table["Age"].groupby(patient).agg(lambda ages: ages.is_monotonic_increasing)).all()


# -- determinism -------------------------------------------------------------------------------------------------


def test_a_patient_is_the_same_whatever_the_size_of_the_set(tmp_path: Path, data_root: Path) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    write_dataset(root, CONFIG.model_copy(update={"train_patients": 8}))
    few, many = tables(root)["train"], tables(data_root)["train"]
    pd.testing.assert_frame_equal(few, many.iloc[: len(few)])
    assert len(few) < len(many)
    for path in few["Path"]:
        assert local(root, path).read_bytes() == local(data_root, path).read_bytes()


def test_films_do_not_depend_on_batch_or_order_and_do_depend_on_every_coordinate() -> None:
    cases = [row.case for patient in range(1, 10) for row in dataset.rows_of(0, "train", patient)]
    assert {case.projection for case in cases} == {"AP", "PA", "LL"}
    together = render(cases, 48)
    assert together.dtype == np.uint8
    assert together.shape == (len(cases), 48, 48)
    backwards = render(cases[::-1], 48)[::-1]
    alone = np.concatenate([render([case], 48) for case in cases])
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, alone)
    base = cases[0]
    for change in ({"seed": 1}, {"split": 1}, {"patient": 99}, {"study": 9}, {"view": 9}):
        assert (render([dataclasses.replace(base, **change)], 48) != together[:1]).mean() > 0.3, change


def test_layers_are_float32() -> None:
    case = Case(0, 0, 1, 1, 1, "AP", True, tuple([0.0] + [0.9] * 13))
    layers = thorax([case], 32)
    for name in ("att", "air", "lung", "vessels", "ribs"):
        assert getattr(layers, name).dtype == np.float32, name
    assert tree_window(0.5, -1, -1, 1, 1, 20, 30).shape == (30, 20)


# -- writing, resuming, refusing ---------------------------------------------------------------------------------


def test_marker_holds_version_and_config_and_a_complete_set_is_left_alone(data_root: Path) -> None:
    assert read_json(data_root / "synthetic.json") == {"version": VERSION, "config": CONFIG.model_dump(mode="json")}
    assert not (data_root / dataset.STARTED).exists()
    before = {path: path.stat().st_mtime_ns for path in data_root.rglob("*")}
    write_dataset(data_root, CONFIG)
    assert {path: path.stat().st_mtime_ns for path in data_root.rglob("*")} == before
    with pytest.raises(DataError, match=r"other settings.*\n.*another folder"):
        write_dataset(data_root, CONFIG.model_copy(update={"seed": 4}))


def killed_after(films: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save, count = dataset._save, 0

    def once(film: npt.NDArray[np.uint8], path: Path) -> None:
        nonlocal count
        count += 1
        if count > films:
            raise KeyboardInterrupt
        save(film, path)

    monkeypatch.setattr(dataset, "_save", once)


def test_an_interrupted_set_is_continued(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    with monkeypatch.context() as patch:
        killed_after(9, patch)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(root, CONFIG)
    kept = {path: path.stat().st_mtime_ns for path in root.rglob("*.jpg")}
    assert len(kept) == 9
    assert not (root / "synthetic.json").exists()
    write_dataset(root, CONFIG, progress=True)
    assert "film" in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    for split in ("train", "valid", "test"):
        assert (root / f"{split}.csv").read_bytes() == (data_root / f"{split}.csv").read_bytes()
    assert {p.relative_to(root) for p in root.rglob("*")} == {p.relative_to(data_root) for p in data_root.rglob("*")}
    for path in kept:
        assert path.read_bytes() == (data_root / path.relative_to(root)).read_bytes()


def test_half_a_set_of_other_settings_is_made_anew(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "CheXpert-v1.0-small"
    with monkeypatch.context() as patch:
        killed_after(9, patch)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(root, CONFIG.model_copy(update={"seed": 77}))
    write_dataset(root, CONFIG)
    first = "train/patient00001/study1/view1_frontal.jpg"
    assert (root / first).read_bytes() == (data_root / first).read_bytes()


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path / "thesis.txt", CONFIG)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_json(empty / "synthetic.json", {"version": 0, "config": {}})
    with pytest.raises(DataError, match="other settings"):
        write_dataset(empty, CONFIG)


# -- labels ------------------------------------------------------------------------------------------------------


def test_truth_fills_parents_and_no_finding() -> None:
    def labels(**findings: float) -> dict[str, int]:
        case = Case(0, 0, 1, 1, 1, "PA", False, NONE).with_severity(**findings)
        return dict(zip(OBSERVATIONS, truth(case.severity), strict=True))

    assert [name for name, value in labels().items() if value] == ["No Finding"]
    assert [name for name, value in labels(Support_Devices=0.5).items() if value] == ["No Finding", "Support Devices"]
    assert [name for name, value in labels(Cardiomegaly=0.5).items() if value] == [
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
    ]
    for child in OPACITIES:
        assert labels(**{child.replace(" ", "_"): 0.2})["Lung Opacity"] == 1
    assert labels(Pneumothorax=0.2)["Lung Opacity"] == 0


def test_every_label_is_common_enough_to_learn_and_severity_covers_its_range() -> None:
    severities = np.array([draw_severity(5, 0, patient, 1) for patient in range(1, 1001)])
    share = np.array([truth(row) for row in severities]).mean(axis=0)
    assert (share > 0.08).all(), dict(zip(OBSERVATIONS, share, strict=True))
    assert (share < 0.65).all()
    present = severities[severities > 0]
    assert present.min() >= 0.15
    assert present.min() < 0.2
    assert present.max() > 0.95


def test_reports_follow_chexperts_uncertainty() -> None:
    number = OBSERVATIONS.index("Consolidation")
    absent = np.array([reported(1, 0, patient, 1, (0,) * 14)[number] for patient in range(1500)])
    present = np.array([reported(1, 0, patient, 1, (1,) * 14)[number] for patient in range(1500)])
    if_present, if_absent, denied = chances("Consolidation")
    # Binomial standard errors at 1,500 draws are below 0.01; four of them.
    assert np.mean(absent == -1) == pytest.approx(if_absent, abs=0.04)
    assert np.mean(absent == 0) == pytest.approx(denied, abs=0.05)
    assert np.mean(present == -1) == pytest.approx(if_present, abs=0.04)
    assert np.mean(present == 1) == pytest.approx(0.95 - if_present, abs=0.04)
    assert not (absent == 1).any()
    assert not (present == 0).any()
    # Overall share of -1 as in CheXpert, at the phantoms' own prevalence of 0.15.
    assert 0.15 * if_present + 0.85 * if_absent == pytest.approx(27742 / 223414, abs=1e-9)
    for name in RATES:
        assert all(0 <= value <= 1 for value in chances(name))


# -- findings in their place -------------------------------------------------------------------------------------


def people(projection: str = "PA", count: int = 12) -> list[Case]:
    return [Case(0, 0, patient, 1, 1, projection, patient % 2 == 0, NONE) for patient in range(1, count + 1)]  # type: ignore[arg-type]


def change(name: str, severity: float = 0.8, count: int = 12, projection: str = "PA") -> tuple[list[Case], Films]:
    """Return cases with a finding and their films minus the same films without it, (N, S, S) in grey values."""
    without = people(projection, count)
    cases = [case.with_severity(**{name.replace(" ", "_"): severity}) for case in without]
    return cases, render(cases, SIZE).astype(float) - render(without, SIZE)


def region(
    cases: list[Case], across: tuple[float, float], down: tuple[float, float], side: int
) -> npt.NDArray[np.bool_]:
    """Return the pixels of one lung between shares of its width (hilum to wall) and height (apex to base).

    ``side`` -1 or 1 is the film's side. The film is tilted after this geometry, by at most 4.5 degrees.
    """
    g = shape(cases, SIZE)
    inner, wall = (g.inner_right, g.right) if side > 0 else (-g.inner_left, -g.left)
    a = (g.x * side - inner) / (wall - inner)
    h = (g.y - g.apex[:, None, None]) / (g.base - g.apex)[:, None, None]
    return (a > across[0]) & (a < across[1]) & (h > down[0]) & (h < down[1]) & (g.x * side > 0)


def means(films: Films, mask: npt.NDArray[np.bool_]) -> Films:
    return np.array([film[inside].mean() for film, inside in zip(films, mask, strict=True)])


def on_side(
    name: str, films: Films, cases: list[Case], across: tuple[float, float], down: tuple[float, float], same: bool
) -> Films:
    """Return each film's mean over a region of the side that has the finding (or of the other side)."""
    masks = {side: region(cases, across, down, side) for side in (-1, 1)}
    sides = [side_of(case, name) * (1 if same else -1) for case in cases]
    return means(films, np.stack([masks[side][n] for n, side in enumerate(sides)]))


def heart_width(films: npt.NDArray[np.uint8]) -> Films:
    """Return the cardiothoracic ratio read off each film: the widest bright run through the middle of the lower
    chest, over the width between the outer borders of the lungs."""
    ratios = []
    for film in films.astype(float):
        smooth = film[int(0.45 * SIZE) : int(0.66 * SIZE)]
        best = 0.0
        for row in smooth:
            level = 0.5 * (np.percentile(row[SIZE // 8 : -SIZE // 8], 8) + np.percentile(row, 85))
            dark = np.flatnonzero(row[SIZE // 10 : -SIZE // 10] < level) + SIZE // 10
            left, right = dark[dark < 0.47 * SIZE], dark[dark > 0.53 * SIZE]
            if len(left) > 2 and len(right) > 2:
                best = max(best, (right[0] - left[-1]) / (right[-1] - left[0]))
        ratios.append(best)
    return np.array(ratios)


def test_cardiomegaly_widens_the_heart_with_severity() -> None:
    base = people()
    ratio = [heart_width(render([case.with_severity(Cardiomegaly=s) for case in base], SIZE)) for s in (0.0, 0.4, 0.9)]
    assert np.median(ratio[0]) < 0.52
    assert np.median(ratio[1]) > np.median(ratio[0]) + 0.03
    assert np.median(ratio[2]) > np.median(ratio[1]) + 0.03
    assert np.mean(ratio[2] > ratio[0]) > 0.9
    assert np.median(ratio[2]) > 0.55


def test_enlarged_cardiomediastinum_widens_the_upper_mediastinum() -> None:
    cases, films = change("Enlarged Cardiomediastinum")
    g = shape(people(), SIZE)
    h = (g.y - g.apex[:, None, None]) / (g.base - g.apex)[:, None, None]
    out = np.minimum(np.abs(g.x - g.inner_left), np.abs(g.x - g.inner_right))
    beside = (h > 0.2) & (h < 0.45) & (out < 0.08) & ((g.x < g.inner_left) | (g.x > g.inner_right))
    lateral = region(cases, (0.5, 0.9), (0.2, 0.45), 1)
    assert (means(films, beside) > 15).all()
    assert np.abs(means(films, lateral)).max() < 6


def test_effusion_brightens_the_lower_lateral_zone_of_its_side() -> None:
    cases, films = change("Pleural Effusion", 0.4)
    low = on_side("Pleural Effusion", films, cases, (0.6, 0.95), (0.75, 0.95), same=True)
    high = on_side("Pleural Effusion", films, cases, (0.3, 0.9), (0.05, 0.4), same=True)
    assert (low > 25).all()
    assert np.abs(high).max() < 5
    more = change("Pleural Effusion", 0.9)[1]
    assert (more.mean(axis=(1, 2)) > films.mean(axis=(1, 2))).all()


def test_pneumothorax_darkens_the_lateral_rim_of_its_side() -> None:
    cases, films = change("Pneumothorax", 0.6)
    rim = on_side("Pneumothorax", films, cases, (0.75, 0.95), (0.2, 0.6), same=True)
    other = on_side("Pneumothorax", films, cases, (0.3, 0.9), (0.1, 0.8), same=False)
    assert np.median(rim) < -4
    assert np.mean(rim < 0) > 0.9
    assert np.abs(other).max() < 3
    assert films.max() > 15  # the pleural line


def test_edema_brightens_both_perihilar_regions_more_than_the_edges() -> None:
    cases, films = change("Edema", 0.8)
    for side in (-1, 1):
        hilum = means(films, region(cases, (0.1, 0.5), (0.4, 0.7), side))
        edge = means(films, region(cases, (0.7, 0.95), (0.1, 0.3), side))
        assert (hilum > 20).all()
        assert (hilum > edge + 10).all()


@pytest.mark.parametrize("name", ["Consolidation", "Pneumonia", "Lung Lesion", "Atelectasis", "Lung Opacity"])
def test_opacities_brighten_the_lung_they_are_in(name: str) -> None:
    # One lesion or patch at this severity lies on the side drawn for it; the shape of a collapse moves borders.
    severity = 0.3
    cases, films = change(name, severity)
    same = on_side(name, films, cases, (0.05, 0.98), (0.05, 0.98), same=True)
    other = on_side(name, films, cases, (0.15, 0.9), (0.1, 0.8), same=False)
    assert (same > 0.3).all(), same
    assert np.mean(same > np.abs(other)) > 0.8
    stronger = change(name, 1.0)[1]
    assert np.abs(stronger).mean() > 1.5 * np.abs(films).mean()


def test_lesions_are_compact_and_edema_is_not() -> None:
    def extent(films: Films) -> float:
        return float(np.mean([np.mean(film > 0.3 * film.max()) for film in films]))

    assert extent(change("Lung Lesion", 0.3)[1]) < 0.03
    assert extent(change("Edema", 0.6)[1]) > 0.08


def test_thick_pleura_brightens_the_wall_and_a_fracture_changes_only_the_outer_ribs() -> None:
    cases, films = change("Pleural Other")
    rim = on_side("Pleural Other", films, cases, (0.85, 1.0), (0.3, 0.8), same=True)
    core = on_side("Pleural Other", films, cases, (0.2, 0.6), (0.3, 0.8), same=True)
    assert (rim > core + 4).all()
    cases, films = change("Fracture")
    outer = on_side("Fracture", np.abs(films), cases, (0.5, 1.0), (0.05, 0.7), same=True)
    other = on_side("Fracture", np.abs(films), cases, (0.1, 1.0), (0.05, 0.9), same=False)
    assert (outer > 2).all()
    assert other.max() < 0.5


def test_devices_are_thin_bright_and_leave_most_of_the_film_alone() -> None:
    for severity in (0.2, 0.95):
        films = change("Support Devices", severity)[1]
        touched = (np.abs(films) > 12).mean(axis=(1, 2))
        assert (films.reshape(len(films), -1).max(axis=1) > 12).all()
        assert (touched > 0.001).all()
        assert (touched < 0.16).all()


def test_every_finding_shows_on_a_lateral_film_too() -> None:
    for name in RATES:
        films = change(name, 0.8, count=4, projection="LL")[1]
        assert (np.abs(films).max(axis=(1, 2)) > 4).all(), name
    # The lateral film is a different picture: its front and back are not mirror images of each other.
    laterals = render(people("LL"), SIZE).astype(float)
    frontals = render(people("PA"), SIZE).astype(float)

    def asymmetry(films: Films) -> float:
        return float(np.abs(films - films[:, :, ::-1]).mean())

    assert asymmetry(laterals) > 1.5 * asymmetry(frontals)


def test_brightness_alone_does_not_tell_sick_from_well() -> None:
    rows = [row for patient in range(1, 400) for row in dataset.rows_of(0, "valid", patient)]
    rows = [row for row in rows if row.case.projection != "LL"]
    brightness = render([row.case for row in rows], 32).mean(axis=(1, 2))
    labels = np.array([row.labels for row in rows])
    ranks = brightness.argsort().argsort() + 1.0
    for number, name in enumerate(OBSERVATIONS):
        positive = labels[:, number] == 1
        n1, n0 = positive.sum(), (~positive).sum()
        area = (ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)  # Mann-Whitney
        assert max(area, 1 - area) < 0.80, (name, area)


def test_contact_sheet_shows_every_observation(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    contact_sheet(path, size=48)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (8 * 50, 8 * 63)
        pixels = np.asarray(sheet)
    assert all(pixels[row * 63 + 13 : row * 63 + 61].std() > 20 for row in range(8))
