from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from noisy_student.config import ModelConfig
from noisy_student.errors import NoisyStudentError, WeightsError
from noisy_student.learning import checkpoint, models

LABELS = ("Edema", "Fracture")
CONFIG = ModelConfig(dropout=0.2, stochastic_depth=0.1, normalisation="half")


def make(channels: int = 1, config: ModelConfig = CONFIG, labels: tuple[str, ...] = LABELS) -> models.Network:
    network = models.build(config, labels, channels, 32, seed=3).train()
    network(torch.rand(4, channels, 32, 32))  # BatchNorm statistics that are not those of a new network
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "best", make(), CONFIG, {"origin": "random", "pos_weight": [1.0, 2.0]})
    return tmp_path / "best"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_folder_gives_the_same_network_back(tmp_path: Path, channels: int) -> None:
    network = make(channels).to(memory_format=torch.channels_last)
    films = torch.rand(3, channels, 32, 32)
    checkpoint.save(tmp_path, network, CONFIG, {"origin": "random"})
    loaded, meta = checkpoint.load(tmp_path, LABELS)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(films), network(films), rtol=1e-5, atol=1e-6)
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert not loaded.training
    assert (loaded.labels, loaded.channels, loaded.size, loaded.normalisation) == (LABELS, channels, 32, "half")
    assert meta["origin"] == "random"
    assert loaded.dropout.p == 0.2


def test_the_folder_has_two_files_that_say_all(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "model.safetensors"]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["format"] == checkpoint.FORMAT
    assert ModelConfig(**meta["model"]) == CONFIG
    assert meta["labels"] == list(LABELS)
    assert (meta["channels"], meta["image_size"], meta["normalisation"]) == (1, 32, "half")
    assert meta["parameters"] == sum(parameter.numel() for parameter in make().parameters())
    assert meta["pos_weight"] == [1.0, 2.0]
    assert checkpoint.read_meta(folder) == meta
    assert set(load_file(folder / "model.safetensors")) == set(make().state_dict())


def test_labels_that_do_not_match_are_both_named(folder: Path) -> None:
    with pytest.raises(WeightsError, match="has the labels Edema, Fracture; asked for are Fracture, Edema") as caught:
        checkpoint.load(folder, LABELS[::-1])
    assert str(folder) in caught.value.message
    assert "data.labels" in caught.value.hint
    assert checkpoint.load(folder)[0].labels == LABELS


def test_another_format_is_refused(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(WeightsError, match=r"meta\.json: has format 99, this version reads 1"):
        checkpoint.load(folder)
    (folder / "meta.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"meta\.json: has format None"):
        checkpoint.read_meta(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: is missing"):
        checkpoint.load(folder)
    (folder / "meta.json").unlink()
    with pytest.raises(NoisyStudentError, match=r"meta\.json: is missing"):
        checkpoint.load(folder)


@pytest.mark.parametrize("keep", [0, 5, 2000])
def test_a_damaged_file_is_named(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"model\.safetensors: does not hold this model"):
        checkpoint.load(folder)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    other = models.build(ModelConfig(), ("Edema", "Fracture", "Pneumonia"), 1, 32, seed=0)
    with pytest.raises(WeightsError, match=r"model\.safetensors: does not hold this model"):
        checkpoint.load_weights_into(other, folder)


def test_saving_again_replaces_the_model(folder: Path) -> None:
    network = make()
    with torch.no_grad():
        network.classifier.bias.fill_(7)
    checkpoint.save(folder, network, CONFIG, {})
    assert checkpoint.load(folder)[0].classifier.bias.tolist() == [7, 7]
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "model.safetensors"]


def test_the_state_of_training_comes_back_exactly(tmp_path: Path) -> None:
    network = make().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network(torch.rand(2, 1, 32, 32)).sum().backward()
    optimizer.step()
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": 7, "origin": "random"}
    path = tmp_path / "last" / "resume.pt"
    assert checkpoint.load_resume(path) is None
    checkpoint.save_resume(path, state)
    back = checkpoint.load_resume(path)
    assert back is not None
    assert (back["step"], back["origin"]) == (7, "random")
    for name, tensor in state["network"].items():
        assert torch.equal(back["network"][name], tensor)
    again = torch.optim.AdamW(make().parameters())
    again.load_state_dict(back["optimizer"])
    for mine, theirs in zip(again.state_dict()["state"].values(), state["optimizer"]["state"].values(), strict=True):
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])
    assert [entry.name for entry in path.parent.iterdir()] == ["resume.pt"]
