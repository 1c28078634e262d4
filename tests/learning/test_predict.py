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
from noisy_student.learning.predict import MOVED, batch_size, best_device, clean, clean_batches, predict, views

CPU = torch.device("cpu")
BATCH = batch_size(CPU)
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


def test_a_gpu_takes_more_films_at_a_time_than_a_processor() -> None:
    assert batch_size(torch.device("cuda")) > BATCH


def test_runs_of_numbers_cover_all_in_order() -> None:
    parts = clean_batches(np.arange(10), 4)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert clean_batches(np.arange(0), 4) == []
    assert [len(part) for part in clean_batches(np.arange(BATCH + 1), BATCH)] == [BATCH, 1]


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


# -- test-time augmentation ------------------------------------------------------------------------------------------


def ids(count: int, start: int = 100) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.int64)


def test_one_clean_view_is_the_prediction_without_views(network: models.Network) -> None:
    films = make_films(BATCH + 3)
    alone = views("none", ids(len(films)), films, seed=0)
    assert alone == [clean]
    first, second = (predict(network, films, autocast=FP32, **more) for more in ({}, {"views": alone}))
    np.testing.assert_array_equal(first, second)


def test_the_logits_of_a_film_and_its_mirror_image_are_averaged(network: models.Network) -> None:
    films = make_films(7)
    mirror = Films(films.pixels[..., ::-1].copy(), films.rows, CPU)
    found = predict(network, films, autocast=FP32, views=views("flip", ids(7), films, seed=0))
    expected = (predict(network, films, autocast=FP32) + predict(network, mirror, autocast=FP32)) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - predict(network, films, autocast=FP32)).max() > 1e-3


def test_light_views_are_the_film_first_and_then_moved_a_little() -> None:
    pixels = np.zeros((4, 1, 64, 64), dtype=np.uint8)
    pixels[:, :, 24:40, 20:44] = 200
    films = Films(pixels, np.arange(4), CPU)
    shown = [view(films.gather(np.arange(4)), np.arange(4)) for view in views(6, ids(4), films, seed=1)]
    torch.testing.assert_close(shown[0][:, :, 30, 30], torch.full((4, 1), 200 / 255))
    rows = torch.arange(64.0)
    inside = (shown[0] > 0.4).float()
    for view in shown[1:]:
        assert not torch.equal(view, shown[0])
        mass = (view > 0.4).float()
        for other in (2, 3):
            place = (mass.sum(other) * rows).sum(-1) / mass.sum((2, 3))
            before = (inside.sum(other) * rows).sum(-1) / inside.sum((2, 3))
            assert (place - before).abs().max() <= MOVED * 64 + 0.5  # half a pixel for the threshold
        side = (mass.sum((2, 3)) / inside.sum((2, 3))).sqrt()
        assert ((side > 1 - MOVED - 0.06) & (side < 1 + MOVED + 0.06)).all()  # one row of 16 is 6 %
        torch.testing.assert_close(view.amax((1, 2, 3)), torch.full((4,), 200 / 255))  # tones stay


def test_a_view_depends_on_seed_and_film_alone(network: models.Network) -> None:
    films = make_films(9)
    together = predict(network, films, autocast=FP32, views=views(3, ids(9), films, seed=4))
    alone = Films(films.pixels, films.rows[[8]], CPU)
    same = predict(network, alone, autocast=FP32, views=views(3, ids(9)[[8]], alone, seed=4))
    np.testing.assert_allclose(same[0], together[8], rtol=1e-4, atol=1e-5)
    for count, first, seed in ((3, 100, 5), (3, 200, 4), (4, 100, 4)):
        other = views(count, ids(9, first), films, seed=seed)
        assert np.abs(predict(network, films, autocast=FP32, views=other) - together).max() > 1e-4
    again = predict(network, films, autocast=FP32, views=views(3, ids(9), films, seed=4))
    np.testing.assert_array_equal(again, together)


def test_logits_of_views_are_averaged_in_float32(network: models.Network) -> None:
    half = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=True)
    films = make_films(4)
    each = [predict(network, films, autocast=half, views=[view]) for view in views(3, ids(4), films, seed=0)]
    found = predict(network, films, autocast=half, views=views(3, ids(4), films, seed=0))
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)
