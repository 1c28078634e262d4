from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from noisy_student.config import ModelConfig
from noisy_student.errors import StoppedError
from noisy_student.learning import models
from noisy_student.learning.batches import Films
from noisy_student.learning.predict import BATCH, best_device, clean_batches, predict

CPU = torch.device("cpu")
FP32 = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=False)


def make_films(count: int, resident: bool = True) -> Films:
    pixels = np.random.default_rng(0).integers(0, 256, (count + 3, 1, 32, 32), dtype=np.uint8)
    return Films(pixels, np.arange(count)[::-1] + 2, CPU, resident=resident)


@pytest.fixture(scope="module")
def network() -> models.Network:
    made = models.build(ModelConfig(dropout=0.5, stochastic_depth=0.5), ("Edema", "Fracture"), 1, 32, seed=0).train()
    with torch.no_grad():
        made(torch.rand(8, 1, 32, 32))
    return made.eval()


class Mean(nn.Module):
    """The mean of a film, and how many films came with it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return torch.stack([images.mean((1, 2, 3)), torch.full((len(images),), float(len(images)))], dim=1)


def test_runs_of_numbers_cover_all_in_order() -> None:
    parts = clean_batches(np.arange(10), 4)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert clean_batches(np.arange(0), 4) == []
    assert [len(part) for part in clean_batches(np.arange(BATCH + 1))] == [BATCH, 1]


def test_a_prediction_can_be_stopped_between_batches() -> None:
    asked = iter([False, True])
    with pytest.raises(StoppedError, match="stopped while predicting pool"):
        predict(Mean(), make_films(BATCH + 5), autocast=FP32, title="predicting pool", stop=lambda: next(asked))


def test_every_film_is_predicted_once_in_order_on_the_scale_from_0_to_1() -> None:
    films = make_films(BATCH + 5, resident=False)
    found = predict(Mean(), films, autocast=FP32)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], films.pixels[films.rows].mean((1, 2, 3)) / 255, rtol=1e-5)
    assert found[:, 1].tolist() == [BATCH] * BATCH + [5] * 5


@pytest.mark.parametrize("training", [True, False])
def test_there_is_no_noise_and_the_mode_is_put_back(network: models.Network, training: bool) -> None:
    network.train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = (predict(network, make_films(9), autocast=FP32) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert network.training is training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} has changed"
    network.eval()


def test_a_film_is_predicted_alike_in_any_company(network: models.Network) -> None:
    films = make_films(9)
    together = predict(network, films, autocast=FP32)
    for number in (0, 8):
        alone = predict(network, Films(films.pixels, films.rows[[number]], CPU), autocast=FP32)
        np.testing.assert_allclose(alone[0], together[number], rtol=1e-4, atol=1e-5)


def test_logits_of_half_precision_come_back_as_float32(network: models.Network) -> None:
    half = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=True)
    found = predict(network, make_films(4), autocast=half)
    exact = predict(network, make_films(4), autocast=FP32)
    assert found.dtype == np.float32
    assert not np.array_equal(found, exact)
    np.testing.assert_allclose(found, exact, atol=0.05 * np.abs(exact).max())  # bf16 keeps 8 bits of the mantissa


def test_no_films_are_no_prediction(network: models.Network) -> None:
    with pytest.raises(ValueError, match="no films to predict"):
        predict(network, make_films(0), autocast=FP32)


def test_progress_is_shown_when_asked_for(network: models.Network, capsys: pytest.CaptureFixture[str]) -> None:
    predict(network, make_films(3), autocast=FP32, title="predicting valid")
    assert capsys.readouterr().err == ""
    predict(network, make_films(3), autocast=FP32, title="predicting valid", progress=True)
    assert "predicting valid" in capsys.readouterr().err


def test_the_device_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert best_device() == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert best_device().type == "cuda"
