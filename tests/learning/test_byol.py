"""The self-supervised objective: its formula, what learns and what does not, and that a resume changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from noisy_student.config import ModelConfig, NoiseConfig, OptimConfig, PhaseConfig
from noisy_student.errors import StoppedError
from noisy_student.learning import fit, models, objectives, optim, sampling
from noisy_student.learning.batches import Batches, Films
from noisy_student.randomness import text_ids
from noisy_student.runs import PRETRAINING, Run
from noisy_student.targets.table import Targets

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = ("a", "b")
COUNT, SIZE, STEPS = 24, 32, 6


def objective() -> objectives.Byol:
    return objectives.Byol(256, 32, 16, momentum=0.9, seed=3)


def task() -> fit.Task:
    """Return a self-supervised start on random films whose labels are all unknown."""
    pixels = np.random.default_rng(1).integers(0, 256, (COUNT, 1, SIZE, SIZE), dtype=np.uint8)
    unknown = np.zeros((COUNT, len(LABELS)), dtype=np.float32)
    films = Films(pixels, np.arange(COUNT), torch.device("cpu"))
    return fit.Task(
        generation=PRETRAINING,
        seed=2,
        phase=PhaseConfig(
            model=ModelConfig(), noise=NoiseConfig(), optim=OptimConfig(steps=STEPS, batch_size=8, ema_decay=0.9)
        ),
        targets=Targets(
            np.array([f"film{n}" for n in range(COUNT)], dtype=object), LABELS, unknown, unknown, np.zeros(COUNT, bool)
        ),
        films=films,
        valid_films=None,
        valid_truth=unknown[:0],
        bn_films=films,
        pos_weight=np.ones(len(LABELS), dtype=np.float32),
        macro_columns=(),
        precision="fp32",
        objective=objective(),
        partners=sampling.Partners(np.arange(COUNT), seed=0),
    )


def network_and_average() -> tuple[models.Network, torch.optim.swa_utils.AveragedModel]:
    network = models.build(ModelConfig(), LABELS, 1, SIZE, seed=0)
    return network, optim.Average(network, OptimConfig())


def views(images: Tensor) -> objectives.Noised:
    nothing = torch.zeros(len(images), len(LABELS))
    return objectives.Noised(images, nothing, nothing, nothing)


def test_loss_is_the_distance_of_unit_vectors_across_views() -> None:
    network, average = network_and_average()
    own, images = objective(), torch.rand(8, 1, SIZE, SIZE)
    with torch.no_grad():
        for parameter in average.module.parameters():
            parameter.add_(0.01)
    twin, twin_average = copy.deepcopy(network), copy.deepcopy(average)
    loss = own(network, average, views(images))
    with torch.no_grad():
        predicted = own.predictor(own.projector(twin.features(images))).double().numpy()
        twin_average.module.train()
        seen = own.target(twin_average.module.features(images)).double().numpy()
    predicted /= np.linalg.norm(predicted, axis=1, keepdims=True)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    crossed = np.concatenate([seen[4:], seen[:4]])
    expected = ((predicted - crossed) ** 2).sum(axis=1).mean()
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_gradients_reach_the_network_and_not_its_average() -> None:
    network, average = network_and_average()
    own = objective()
    own(network, average, views(torch.rand(8, 1, SIZE, SIZE))).backward()
    assert all(parameter.grad is None for parameter in average.parameters())
    assert all(parameter.grad is None for parameter in own.target.parameters())
    learns = [parameter for name, parameter in network.named_parameters() if not name.startswith("classifier")]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in learns)
    assert network.classifier.weight.grad is None


def test_average_projector_follows_with_its_momentum() -> None:
    network, average = network_and_average()
    own = objective()
    before = own.target[0].weight.clone()
    with torch.no_grad():
        own.projector[0].weight.add_(1.0)
    own(network, average, views(torch.rand(4, 1, SIZE, SIZE)))
    torch.testing.assert_close(own.target[0].weight, before + 0.1)


def test_second_views_are_of_the_same_films_with_noise_of_their_own() -> None:
    asked = task()
    order = sampling.sampler(asked.targets, batch_size=4, labelled_share=1.0, seed=0, generation=0)
    given = asked.films, asked.targets, order, asked.pos_weight
    batch, both = Batches(*given).at(3), Batches(*given, partners=asked.partners).at(3)
    assert torch.equal(both.clean[:4], batch.clean)
    assert torch.equal(both.clean[4:], batch.clean)
    assert list(both.position) == [24, 26, 28, 30, 25, 27, 29, 31]
    assert list(both.image_id[4:]) == list(batch.image_id)
    assert both.target.shape == both.weight.shape == both.pos_weight.shape == (8, len(LABELS))


def test_second_views_are_of_other_films_that_belong_with_the_first() -> None:
    """Of two and more that belong together each is the partner of each other one; a lone film is its own."""
    asked = task()
    belonging = np.arange(COUNT) % 5
    belonging[7] = 99
    partners = sampling.Partners(belonging, seed=1)
    order = sampling.sampler(asked.targets, batch_size=4, labelled_share=1.0, seed=0, generation=0)
    batches = Batches(asked.films, asked.targets, order, asked.pos_weight, partners=partners)
    number_of = {identifier: number for number, identifier in enumerate(text_ids(list(asked.targets.images)))}
    met = set()
    for step in range(300):
        numbers = np.array([number_of[identifier] for identifier in batches.at(step).image_id])
        first, second = numbers[:4], numbers[4:]
        assert (belonging[first] == belonging[second]).all()
        assert ((first != second) == (first != 7)).all()
        met |= set(zip(first.tolist(), second.tolist(), strict=True))
    together = {(a, b) for a in range(COUNT) for b in range(COUNT) if a != b and belonging[a] == belonging[b]}
    assert met == together | {(7, 7)}
    assert torch.equal(batches.at(5).clean[4:], asked.films.gather(partners(order.film_numbers(5), order.positions(5))))
    other = sampling.Partners(belonging, seed=2)
    assert any(other(np.arange(COUNT), np.full(COUNT, 3)) != partners(np.arange(COUNT), np.full(COUNT, 3)))


def test_training_learns_and_a_stopped_one_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    for run in (whole, parts):
        run.create()
    fit.fit(whole, task())
    calls = iter([False, False, True])
    with pytest.raises(StoppedError):
        fit.fit(parts, task(), stop=lambda: next(calls))
    fit.fit(parts, task())
    best = Path("pretrain/checkpoint/best/model.safetensors")
    expected, found = load_file(whole.path / best), load_file(parts.path / best)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    saved = [torch.load(run.path / "pretrain/checkpoint/last/resume.pt", weights_only=True) for run in (whole, parts)]
    assert all(torch.equal(saved[0]["objective"][name], saved[1]["objective"][name]) for name in saved[0]["objective"])
    start = objective().state_dict()
    assert not torch.equal(saved[0]["objective"]["predictor.0.weight"], start["predictor.0.weight"])
    untrained = fit.start_state(task(), torch.device("cpu")).network.state_dict()
    first = next(name for name in untrained if name.startswith("backbone") and name.endswith("weight"))
    assert not torch.equal(expected[first], untrained[first])
    assert torch.equal(expected["classifier.weight"], untrained["classifier.weight"])


def test_labels_make_no_difference(tmp_path: Path) -> None:
    plain = task()
    labelled = replace(
        plain, targets=replace(plain.targets, target=np.ones_like(plain.targets.target)), objective=objective()
    )
    found = []
    for name, asked in (("plain", plain), ("labelled", labelled)):
        run = Run(tmp_path / name)
        run.create()
        fit.fit(run, asked)
        found.append(load_file(run.path / "pretrain/checkpoint/best/model.safetensors"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
