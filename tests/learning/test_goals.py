"""What a loss and a sampler do to probabilities is undone: training to the optimum where probabilities are known.

A film is one of twelve cells, and a cell has a known probability of each label. A table of one logit per cell and label
is trained to the least loss; the shares of positives in the table are the probabilities exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from noisy_student.config import ConsistencyConfig, LossConfig, PhaseConfig, SamplerConfig
from noisy_student.learning.goals import Goal, goal
from noisy_student.learning.losses import smoothed
from noisy_student.learning.objectives import Noised
from noisy_student.learning.sampling import sampler
from noisy_student.stats import calibration
from noisy_student.stats.links import Link
from noisy_student.targets.table import Targets

Floats = npt.NDArray[np.float64]
LABELS = ("common", "rare")
CELL = 400
COMMON = np.array([0.05, 0.9, 0.7, 0.5, 0.3, 0.95, 0.2, 0.1, 0.6, 0.8, 0.4, 0.15])
RARE = np.array([0.01, 0.02, 0.05, 0.0125, 0.1, 0.2, 0.03, 0.3, 0.5, 0.02, 0.015, 0.7])
TRUE = np.stack([COMMON, RARE], axis=1)  # (cells, K)


def table() -> tuple[Targets, npt.NDArray[np.int64]]:
    """Return the films and their cells: within a cell the labels are independent, to a film."""
    stream, rows, cells = np.random.default_rng(0), [], []
    for cell, (common, rare) in enumerate(TRUE):
        values = np.zeros((CELL, 2), dtype=np.float32)
        values[: round(CELL * common), 0] = 1
        first, rest = np.arange(round(CELL * common)), np.arange(round(CELL * common), CELL)
        count = round(CELL * rare)
        inside = round(count * common)
        values[stream.permutation(first)[:inside], 1] = 1
        values[stream.permutation(rest)[: count - inside], 1] = 1
        rows.append(values)
        cells += [cell] * CELL
    target = np.concatenate(rows)
    images = np.array([f"film {number}" for number in range(len(target))], dtype=object)
    return Targets(images, LABELS, target, np.ones_like(target), np.zeros(len(target), dtype=bool)), np.array(cells)


class Table(nn.Module):
    """One logit per cell and label; an image is its cell in one-hot coding."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(TRUE), 2))

    def forward(self, images: Tensor) -> Tensor:
        return images @ self.logits


def phase(sampler: dict[str, Any] | None = None, **loss: Any) -> PhaseConfig:
    return PhaseConfig(loss=LossConfig(**loss), sampler=SamplerConfig(**(sampler or {})))


def drawn_weight(given: PhaseConfig, targets: Targets) -> Floats:
    """Return how often each film is drawn, by counting the places of many batches."""
    order = sampler(targets, batch_size=64, labelled_share=1, seed=1, generation=0, config=given.sampler)
    numbers = np.concatenate([order.film_numbers(step) for step in range(40 * len(targets.images) // 64)])
    return np.bincount(numbers, minlength=len(targets.images)) / 40


def trained(given: PhaseConfig, steps: int = 400) -> tuple[Goal, Floats]:
    """Return the goal and the logits (cells, K) that reach it, by full-batch training."""
    targets, cells = table()
    made, model = goal(given, targets), Table()
    weight = torch.ones_like(torch.from_numpy(targets.weight))
    if given.sampler != SamplerConfig():
        weight = weight * torch.from_numpy(drawn_weight(given, targets)).float()[:, None]
    images = nn.functional.one_hot(torch.from_numpy(cells), len(TRUE)).float()
    target = smoothed(torch.from_numpy(targets.target), given.loss.smoothing)
    batch = Noised(images, target, weight, torch.from_numpy(made.pos_weight).expand(len(cells), 2))
    own = list(made.objective.parameters()) if isinstance(made.objective, nn.Module) else []
    optimizer = torch.optim.Adam([*model.parameters(), *own], lr=0.1)
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        made.objective(model, model, batch).backward()
        optimizer.step()
        decline.step()
    return made, model.logits.detach().double().numpy()


def calibrated(given: PhaseConfig, made: Goal, logits: Floats, judged: bool) -> Floats:
    """Return the probabilities (cells, K), calibrated on the table's films or, without them, by what is known alone."""
    targets, cells = table()
    rows = cells if judged else cells[:0]
    fitted = calibration.fit(
        logits[rows],
        targets.target[: len(rows)].astype(np.float64),
        LABELS,
        made.shift,
        link=Link.of_loss(given.loss.model_dump(mode="json")),
        drawn=made.drawn,
    )
    return fitted.probability(logits)


KNOWN = {
    "weighted": phase(),
    "weighted and smoothed": phase(smoothing=0.05),
    "plain": phase(name="bce"),
    "focal": phase(name="focal"),
    "focal, weighed": phase(name="focal", gamma=1.0, alpha=0.75),
    "adjusted": phase(name="logit_adjusted"),
    "adjusted more": phase(name="logit_adjusted", tau=1.5),
    "plain and smoothed": phase(name="bce", smoothing=0.1),
    "asymmetric as it is set": phase(name="asymmetric"),
    "asymmetric": phase(name="asymmetric", gamma_negative=2.0, shift=0.02),
    "asymmetric, none free": phase(name="asymmetric", gamma_positive=1.0, gamma_negative=3.0, shift=0.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_the_loss_did_is_known_and_taken_out(name: str) -> None:
    given = KNOWN[name]
    made, logits = trained(given)
    if name != "plain":
        raw = 1 / (1 + np.exp(-logits))
        assert np.abs(raw - TRUE).max() > 0.02  # or there would be nothing to undo
    for judged in (False, True):
        found = calibrated(given, made, logits, judged)
        # 0.01: the optimum is found to 1e-3 in the logits, and Platt has a prior.
        np.testing.assert_allclose(found, TRUE, atol=0.01)


@pytest.mark.parametrize("name", ["weighted", "focal", "adjusted"])
def test_without_what_is_known_the_probabilities_are_wrong(name: str) -> None:
    given = KNOWN[name]
    made, logits = trained(given)
    forgotten = Goal(made.objective, made.pos_weight, np.zeros(2), np.zeros(2))
    wrong = calibrated(phase(), forgotten, logits, judged=False)
    assert np.abs(wrong - TRUE).max() > 0.05


def test_the_auc_margin_is_calibrated_by_platt_alone() -> None:
    given = phase({"positives": 4}, name="auc_margin")
    made, logits = trained(given, steps=3000)
    assert made.shift.tolist() == made.drawn.tolist() == [0, 0]
    assert np.abs(1 / (1 + np.exp(-logits)) - TRUE).max() > 0.2
    found = calibrated(given, made, logits, judged=True)
    # A line cannot straighten what squares and the ends of the score bend: right to 0.1, and to 0.04 on average.
    np.testing.assert_allclose(found, TRUE, atol=0.1)
    assert (np.abs(found - TRUE).mean(axis=0) < 0.04).all()


@pytest.mark.parametrize(
    "rule", [{"balance": 1.0}, {"balance": 0.5}, {"positives": 8}, {"balance": 1.0, "positives": 4}]
)
@pytest.mark.parametrize("loss", [{"name": "bce"}, {"name": "focal", "smoothing": 0.02}])
def test_what_the_sampler_did_is_taken_out(rule: dict[str, Any], loss: dict[str, Any]) -> None:
    given = phase(rule, **loss)
    made, logits = trained(given)
    assert made.drawn[1] > 0.2
    found = calibrated(given, made, logits, judged=False)
    forgotten = calibrated(given, Goal(made.objective, made.pos_weight, made.shift, np.zeros(2)), logits, judged=False)
    # Draws are counted over 40 epochs, and the other label's places are not the same in every cell.
    np.testing.assert_allclose(found, TRUE, atol=0.04)
    assert np.abs(forgotten - TRUE).max() > 0.05
    np.testing.assert_allclose(calibrated(given, made, logits, judged=True), TRUE, atol=0.04)


def test_a_students_class_weights_and_sampler_are_left_to_platt() -> None:
    targets, _ = table()
    marks = np.arange(len(targets.images)) % 3 > 0
    mixed = Targets(targets.images, LABELS, targets.target, targets.weight, marks)
    made = goal(phase({"balance": 1.0}), mixed)
    assert made.pos_weight[1] > 2
    assert made.shift.tolist() == made.drawn.tolist() == [0, 0]
    adjusted = goal(phase(name="logit_adjusted"), mixed)  # which is that of every film, so it is known
    known = targets.target[~marks].mean(axis=0).astype(np.float64)
    np.testing.assert_allclose(adjusted.shift, -np.log(known / (1 - known)), rtol=1e-5)


# -- with films of the pool ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "fixmatch"])
def test_a_shift_is_known_only_where_all_films_that_are_drawn_are_labelled(method: str) -> None:
    """Films of the pool of which nothing is known are drawn with a consistency term alone; then Platt has it all."""
    targets, _ = table()
    pool = np.arange(len(targets.images)) >= 2000
    weight = np.where(pool[:, None], np.float32(0), targets.weight)
    with_pool = Targets(targets.images, LABELS, targets.target, weight, pool)
    given = PhaseConfig(pos_weight_cap=5, sampler=SamplerConfig(balance=1), consistency={"method": method})
    found, alone = goal(given, with_pool), goal(given.model_copy(update={"consistency": ConsistencyConfig()}), targets)
    assert (found.pos_weight > 1).any()
    if method == "none":
        np.testing.assert_allclose(found.shift, np.log(found.pos_weight.astype(np.float64)))
        assert found.drawn.max() > 0.1
    else:
        assert found.shift.tolist() == found.drawn.tolist() == [0, 0]
        share = targets.target[~pool].mean(axis=0)
        np.testing.assert_allclose(found.objective.share, share, rtol=1e-5)  # type: ignore[attr-defined]
        told = goal(given, with_pool, np.array([0.3, np.nan])).objective.share.tolist()  # type: ignore[attr-defined]
        assert told[0] == pytest.approx(0.3)
        assert np.isnan(told[1])
    assert alone.drawn.max() > 0.1
