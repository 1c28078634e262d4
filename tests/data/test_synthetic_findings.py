"""Findings of the phantoms: each where a radiologist would look for it, and none told by brightness alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from noisy_student.data.synthetic import dataset, render
from noisy_student.data.synthetic.cases import Case, side_of
from noisy_student.data.synthetic.prevalence import NAMES
from noisy_student.data.synthetic.shape import shape
from noisy_student.labels import OBSERVATIONS

SIZE = 96
NONE = (0.0,) * len(OBSERVATIONS)
Films = npt.NDArray[np.float64]


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


def heart_share(cases: list[Case]) -> Films:
    """Return the cardiothoracic ratio of each case: the widest heart over the widest chest, as one measures it."""
    g = shape(cases, SIZE)
    rows = (g.y > g.top[:, None, None]) & (g.y < g.base[:, None, None])
    heart = np.where(rows, g.inner_right, -9).max(axis=(1, 2)) + np.where(rows, -g.inner_left, -9).max(axis=(1, 2))
    chest = np.where(rows, g.right - g.left, 0).max(axis=(1, 2))
    return np.asarray(heart / chest, dtype=np.float64)


def test_cardiomegaly_widens_the_heart_beyond_half_the_chest() -> None:
    standing, lying = people(count=30), people("AP", 30)
    well = heart_share(standing)
    assert 0.40 < np.median(well) < 0.50
    # Lying and breathing out widen the heart of the healthy: some would pass for large by the ratio alone.
    assert np.median(well) + 0.02 < np.median(heart_share(lying)) < 0.55
    before = well
    for severity in (0.3, 0.6, 1.0):
        ratio = heart_share([case.with_severity(Cardiomegaly=severity) for case in standing])
        assert (ratio > before + 0.02).all()
        before = ratio
    assert (before > 0.5).all()
    # The film shows it: what was lung beside the heart is bright now.
    _, films = change("Cardiomegaly", 0.9)
    g = shape(people(), SIZE)
    beside = (g.x > g.inner_right + 0.02) & (g.x < g.inner_right + 0.10)
    beside &= (g.y > g.base[:, None, None] - 0.35) & (g.y < g.dome - 0.08)
    assert (means(films, beside) > 20).all()


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
    assert (low > 8).all()
    assert np.median(low) > 20
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
        assert (hilum > edge + 4).all()


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
    for name in NAMES:
        films = change(name, 0.8, count=4, projection="LL")[1]
        assert (np.abs(films).max(axis=(1, 2)) > 4).all(), name
    # The lateral film is a different picture: its front and back are not mirror images of each other.
    laterals = render(people("LL"), SIZE).astype(float)
    frontals = render(people("PA"), SIZE).astype(float)

    def asymmetry(films: Films) -> float:
        return float(np.abs(films - films[:, :, ::-1]).mean())

    assert asymmetry(laterals) > 1.5 * asymmetry(frontals)


def test_brightness_alone_does_not_tell_sick_from_well() -> None:
    rows = list(dataset.rows_of(0, "valid", range(1, 260)))
    rows = [row for row in rows if row.case.projection != "LL"]
    brightness = render([row.case for row in rows], 32).mean(axis=(1, 2))
    labels = np.array([row.labels for row in rows])
    ranks = brightness.argsort().argsort() + 1.0
    for number, name in enumerate(OBSERVATIONS):
        positive = labels[:, number] == 1
        n1, n0 = positive.sum(), (~positive).sum()
        area = (ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)  # Mann-Whitney
        assert max(area, 1 - area) < 0.80, (name, area)
