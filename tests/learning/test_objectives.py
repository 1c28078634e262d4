from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from noisy_student.config import ConsistencyConfig
from noisy_student.learning.distributed import ALONE
from noisy_student.learning.losses import mean_loss, weighted_bce
from noisy_student.learning.objectives import AucMargin, Consistency, Noised, cost, supervised
from noisy_student.targets.prevalence import prior_shift


class Linear(nn.Module):
    """The mean of a film times one number per label."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * self.scale


def make(weight: torch.Tensor | None = None) -> Noised:
    stream = torch.Generator().manual_seed(0)
    images, target = torch.rand(5, 1, 4, 4, generator=stream), torch.rand(5, 2, generator=stream)
    drawn = torch.rand(5, 2, generator=stream) if weight is None else weight
    return Noised(images, target, drawn, 1 + torch.rand(5, 2, generator=stream))


def test_the_loss_is_the_weighted_mean_of_the_cross_entropies() -> None:
    batch, model = make(), Linear()
    loss = supervised(weighted_bce, mean_loss)(model, model, batch)
    p = torch.sigmoid(model(batch.images))
    each = -(batch.pos_weight * batch.target * p.log() + (1 - batch.target) * (1 - p).log())
    expected = (each * batch.weight).sum() / batch.weight.sum()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert model.scale.grad is not None
    assert model.scale.grad.abs().min() > 0


def test_the_averaged_model_is_not_consulted() -> None:
    class Never(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the averaged model was asked")

    assert torch.isfinite(supervised(weighted_bce, mean_loss)(Linear(), Never(), make()))


def test_a_batch_in_which_nothing_is_known_costs_nothing() -> None:
    model = Linear()
    loss = supervised(weighted_bce, mean_loss)(model, model, make(torch.zeros(5, 2)))
    loss.backward()
    assert loss.item() == 0
    assert model.scale.grad is not None
    assert model.scale.grad.abs().max() == 0


def test_logits_of_half_precision_are_summed_in_full() -> None:
    class Half(Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).bfloat16()

    seen = []

    def loss(logits: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(logits.dtype)
        return logits.sum(), torch.ones(())

    supervised(loss, mean_loss)(Half(), Half(), make())
    assert seen == [torch.float32]


# -- the area under the curve --------------------------------------------------------------------------------------


def auc_by_hand(
    logits: np.ndarray, target: np.ndarray, weight: np.ndarray, a: np.ndarray, b: np.ndarray, alpha: np.ndarray
) -> float:
    """Return Yuan et al.'s F with margin 1, divided by p (1 - p), label by label in double precision."""
    total, count = 0.0, 0
    for k in range(logits.shape[1]):
        score = 1 / (1 + np.exp(-logits[:, k]))
        positive, negative = weight[:, k] * target[:, k], weight[:, k] * (1 - target[:, k])
        if not positive.sum() or not negative.sum():
            continue
        p = positive.sum() / weight[:, k].sum()
        mass = weight[:, k].sum()
        f = (1 - p) * (positive * (score - a[k]) ** 2).sum() / mass + p * (negative * (score - b[k]) ** 2).sum() / mass
        f += 2 * alpha[k] * (p * (1 - p) + (p * negative * score - (1 - p) * positive * score).sum() / mass)
        f -= p * (1 - p) * alpha[k] ** 2
        total, count = total + f / (p * (1 - p)), count + 1
    return total / count


def auc_example(seed: int = 0) -> tuple[AucMargin, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    objective = AucMargin(3, 1.0).double()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.copy_(torch.from_numpy(rng.uniform(0.1, 1, 3)))
    logits, target = torch.from_numpy(rng.normal(0, 2, (6, 3))), torch.from_numpy(rng.random((6, 3)))
    weight = torch.from_numpy(rng.uniform(0.1, 2, (6, 3)))
    return objective, logits, target, weight


@pytest.mark.parametrize("hard", [False, True])
def test_the_auc_margin_equals_the_written_out_formula(hard: bool) -> None:
    objective, logits, target, weight = auc_example()
    target = target.round() if hard else target
    target[:, 2] = 0.0  # no positive: the label has no part
    a, b, alpha = (getattr(objective, name).detach().numpy() for name in ("a", "b", "alpha"))
    expected = auc_by_hand(logits.numpy(), target.numpy(), weight.numpy(), a, b, alpha)
    assert objective.loss(logits, target, weight).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_descends_in_all_but_alpha_where_it_ascends() -> None:
    objective, logits, target, weight = auc_example(1)
    logits.requires_grad_(True)

    def loss(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        values = {"a": a, "b": b, "alpha": objective.alpha}
        return torch.func.functional_call(Losing(objective), {f"inner.{k}": v for k, v in values.items()}, (x,))

    class Losing(nn.Module):
        def __init__(self, inner: AucMargin) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner.loss(x, target, weight)

    assert torch.autograd.gradcheck(loss, (logits, objective.a, objective.b))
    objective.loss(logits, target, weight).backward()
    step = 1e-6
    for k in range(3):
        before = objective.alpha[k].item()
        ends = []
        for moved in (before + step, before - step):
            with torch.no_grad():
                objective.alpha[k] = moved
            ends.append(objective.loss(logits.detach(), target, weight).item())
        with torch.no_grad():
            objective.alpha[k] = before
        assert objective.alpha.grad is not None
        assert objective.alpha.grad[k].item() == pytest.approx(-(ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_unknown_entries_and_extreme_logits_of_the_auc_margin() -> None:
    objective, logits, target, weight = auc_example(2)
    logits[0, 0], logits[1, 0], logits[2, 1] = 1e4, -1e4, 90.0
    weight[3, :] = 0.0
    logits.requires_grad_(True)
    poisoned = torch.where(weight > 0, target, torch.nan)
    loss = objective.loss(logits, poisoned, weight)
    loss.backward()
    assert loss.item() == objective.loss(logits.detach(), target, weight).item()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[3] == 0).all()
    assert (logits.grad[4] != 0).all()


def test_a_batch_without_pairs_costs_nothing() -> None:
    objective, logits, target, _ = auc_example(3)
    logits.requires_grad_(True)
    loss = objective.loss(logits, target, torch.zeros(6, 3))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_it_finds_the_saddle_point_and_separates() -> None:
    """On fixed scores: a and b are the means of the classes and alpha the distance that is missing, as in the paper."""
    objective = AucMargin(1, 1.0)
    logits, target = torch.tensor([[2.0], [0.5], [-1.0], [-2.0]]), torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        objective.loss(logits, target, torch.ones(4, 1)).backward()
        optimizer.step()
    score = torch.sigmoid(logits)[:, 0]
    high, low = score[:2].mean(), score[2:].mean()
    found = torch.stack([objective.a[0], objective.b[0], objective.alpha[0]])
    torch.testing.assert_close(found, torch.stack([high, low, 1 + low - high]))


def test_alpha_never_counts_below_zero() -> None:
    objective, model, batch = AucMargin(2, 1.0), Linear(), make(torch.ones(5, 2))
    with torch.no_grad():
        objective.alpha.fill_(-0.5)
    objective(model, model, batch)
    assert objective.alpha.tolist() == [0, 0]


# -- consistency ---------------------------------------------------------------------------------------------------

KNOWN = cost(weighted_bce, mean_loss)
SHARE = torch.tensor([0.3, 0.6])


def compared(rows: list[int]) -> Noised:
    """Return a batch of six films of which the first two are known, with other views of those at ``rows``."""
    stream = torch.Generator().manual_seed(1)
    images, weak = torch.rand(6, 1, 4, 4, generator=stream), torch.rand(len(rows), 1, 4, 4, generator=stream)
    target, weight = torch.rand(6, 2, generator=stream).round(), torch.ones(6, 2)
    weight[2:] = 0
    return Noised(images, target, weight, torch.ones(6, 2), 6 * weak - 3, torch.tensor(rows))


class Averaged(Linear):
    """Another network than the one that learns, which notes in which mode it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bool] = []
        with torch.no_grad():
            self.scale.copy_(torch.tensor([3.0, 1.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(self.training)
        return super().forward(images)


def by_numpy(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-model(images).detach().double().numpy()))


def test_a_mean_teacher_is_the_squared_distance_to_the_average() -> None:
    batch, model, average = compared(list(range(6))), Linear(), Averaged()
    config = ConsistencyConfig(method="mean_teacher", weight=3.0, ramp=0)
    loss = Consistency(KNOWN, config, SHARE, 10)(model, average, batch)
    far = ((by_numpy(model, batch.images) - by_numpy(average, batch.weak)) ** 2).mean()
    assert loss.item() == pytest.approx(KNOWN(model(batch.images), batch).item() + 3 * far, rel=1e-5)
    assert average.asked[0] is False
    loss.backward()
    assert average.scale.grad is None
    assert model.scale.grad is not None


def test_the_weight_rises_as_in_the_paper() -> None:
    batch, model, average = compared(list(range(6))), Linear(), Averaged()
    plain = KNOWN(model(batch.images), batch).item()
    objective = Consistency(KNOWN, ConsistencyConfig(method="mean_teacher", ramp=0.5), SHARE, 20)
    found = [objective(model, average, batch).item() - plain for _ in range(14)]
    expected = [np.exp(-5 * (1 - min(step / 10, 1)) ** 2) * found[-1] for step in range(14)]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("source", ["network", "average"])
@pytest.mark.parametrize("align", [False, True])
def test_fixmatch_equals_the_written_out_formula_over_several_steps(source: str, align: bool) -> None:
    model, average, rows = Linear(), Averaged(), [2, 3, 4, 5]
    moved = {"momentum": 0.8} if align else {}
    config = ConsistencyConfig(
        method="fixmatch", weight=2.0, ramp=0, source=source, align=align, confidence=0.7, **moved
    )
    objective = Consistency(KNOWN, config, SHARE, 10)
    seen, share, taken = SHARE.double().numpy().copy(), SHARE.double().numpy(), 0
    for _ in range(3):
        batch = compared(rows)
        assert batch.weak is not None
        said = by_numpy(model if source == "network" else average, batch.weak)
        if align:
            seen = 0.8 * seen + 0.2 * said.mean(axis=0)
            positive, negative = said * share / seen, (1 - said) * (1 - share) / (1 - seen)
            said = positive / (positive + negative)
        p, total = by_numpy(model, batch.images)[rows], 0.0
        for film in range(4):
            for k in range(2):
                if said[film, k] >= 0.7:
                    total -= np.log(p[film, k])
                elif 1 - said[film, k] >= 0.7:
                    total -= np.log(1 - p[film, k])
                else:
                    continue
                taken += 1
        known = KNOWN(model(batch.images), batch).item()
        assert objective(model, average, batch).item() == pytest.approx(known + 2 * total / 8, rel=1e-5)
    assert 0 < taken < 24
    if align:
        torch.testing.assert_close(objective.seen, torch.from_numpy(seen).float())


def test_what_is_said_of_the_weak_view_has_no_gradient() -> None:
    batch = compared([2, 3, 4, 5])
    settings = {"method": "fixmatch", "ramp": 0, "align": False, "confidence": 0.5}
    gradients = []
    for source in ("network", "average"):
        model = Linear()
        twin = Linear()  # says the same, and learns nothing
        Consistency(KNOWN, ConsistencyConfig(source=source, **settings), SHARE, 10)(model, twin, batch).backward()
        gradients.append(model.scale.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_batch_without_films_of_the_pool_has_the_cost_of_its_labels() -> None:
    batch, model = compared([]), Linear()
    objective = Consistency(KNOWN, ConsistencyConfig(method="fixmatch"), SHARE, 10)
    torch.testing.assert_close(objective(model, Averaged(), batch), KNOWN(model(batch.images), batch))


def test_a_label_of_unknown_share_is_not_aligned() -> None:
    objective = Consistency(KNOWN, ConsistencyConfig(method="fixmatch"), torch.tensor([float("nan"), 0.5]), 10)
    said = torch.tensor([[0.9, 0.9], [0.2, 0.8]])
    aligned = objective._aligned(said, ALONE)
    torch.testing.assert_close(aligned[:, 0], said[:, 0])
    assert (aligned[:, 1] < said[:, 1]).all()


def test_a_shift_reaches_the_expected_prevalence_where_a_ratio_does_not() -> None:
    """What is said with great confidence keeps its side by a ratio; the shift is that of the change of prior."""
    draw = np.random.default_rng(3)
    weak = torch.from_numpy(np.where(draw.random((4096, 3)) < 0.4, 8.0, -8.0) + draw.normal(0, 3, (4096, 3))).float()
    share = torch.tensor([0.25, 0.5, float("nan")])
    means = {}
    for way in ("ratio", "shift"):
        objective = Consistency(KNOWN, ConsistencyConfig(method="fixmatch", align_by=way), share, 10)
        for step in range(600):
            batch = weak[step % 64 :: 64]
            objective._unlike(torch.zeros_like(batch), batch, ALONE)
        said = objective._shifted(weak, ALONE) if way == "shift" else objective._aligned(torch.sigmoid(weak), ALONE)
        means[way] = said.mean(dim=0)
    torch.testing.assert_close(means["shift"][:2], share[:2], atol=0.02, rtol=0)
    assert means["ratio"][0] > 0.35
    assert means["ratio"][1] < 0.45
    for way in means:
        torch.testing.assert_close(means[way][2], torch.sigmoid(weak[:, 2]).mean())
    for label in (0, 1):
        probability = torch.sigmoid(weak[:, label].double()).numpy()
        assert -float(objective.shift[label]) == pytest.approx(prior_shift(probability, float(share[label])), abs=0.4)


def test_the_running_means_are_part_of_the_state_and_nothing_of_it_is_learnt() -> None:
    objective = Consistency(KNOWN, ConsistencyConfig(method="fixmatch"), SHARE, 10)
    objective(Linear(), Averaged(), compared([2, 3, 4, 5]))
    assert set(objective.state_dict()) == {"done", "seen"}
    shifted = Consistency(KNOWN, ConsistencyConfig(method="fixmatch", align_by="shift"), SHARE, 10)
    assert set(shifted.state_dict()) == {"done", "shift"}
    assert list(objective.parameters()) == []
    other = Consistency(KNOWN, ConsistencyConfig(method="fixmatch"), SHARE, 10)
    other.load_state_dict(objective.state_dict())
    torch.testing.assert_close(other.seen, objective.seen)
    assert other.done.item() == 1
