"""torchxrayvision's weights: against a stand-in everywhere, and against the package where it is installed."""

from __future__ import annotations

import importlib.util
import sys
import warnings

import fakes
import pytest
import torch
from networks import films
from torchvision.models import densenet121, resnet50

from noisy_student.config import ModelConfig
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.learning.models import build, check_weights, load_weights

LABELS = ("Lung Opacity", "Fibrosis of another kind", "Pleural Effusion")
NAME = "densenet121-res224-chex"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Install the stand-in, with random weights of one channel and five labels in its cache; return those."""
    module = fakes.torchxrayvision(str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchxrayvision", module)

    def save(name, maker, first):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            state = maker(num_classes=5).state_dict()
        state[f"{first}.weight"] = state[f"{first}.weight"][:, :1]
        torch.save(state, tmp_path / f"{name}.pt")
        return state

    return save


@pytest.mark.parametrize(
    ("name", "maker", "first", "head", "asked"),
    [
        ("densenet121", densenet121, "features.conv0", "classifier", NAME),
        pytest.param("resnet50", resnet50, "conv1", "fc", "resnet50-res512-all", marks=pytest.mark.slow),
    ],
)
def test_backbone_rows_by_name_and_normalisation_come_with_the_weights(cached, name, maker, first, head, asked):
    state = cached(asked, maker, first)
    config = ModelConfig(name=name, weights=f"xrv:{asked}")
    network = build(config, LABELS, 1, 64, seed=0).eval()
    before = network.classifier.weight.clone()
    check_weights(network, config, [])
    origin = load_weights(network, config, [])
    assert origin == f"torchxrayvision {asked}, classifier of Lung Opacity, Pleural Effusion"
    assert torch.equal(network.backbone.get_parameter(f"{first}.weight"), state[f"{first}.weight"])
    weight = state[f"{head}.weight"]
    assert torch.equal(network.classifier.weight, torch.stack([weight[4], before[1], weight[2]]))
    assert network.normalisation == "xrv"
    seen = []
    network.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 1, 64, 64))
    assert [value.item() for value in seen[0][:, 0, 0, 0]] == [-1024, 0, 1024]


def test_a_hidden_head_takes_the_backbone_alone(cached):
    cached(NAME, densenet121, "features.conv0")
    config = ModelConfig(name="densenet121", weights=f"xrv:{NAME}", head="hidden", head_hidden=4)
    assert load_weights(build(config, LABELS, 1, 64, seed=0), config, []) == f"torchxrayvision {NAME}"


def test_three_channels_answer_a_grey_film_as_one(cached):
    cached(NAME, densenet121, "features.conv0")
    config = ModelConfig(name="densenet121", weights=f"xrv:{NAME}")
    one, three = (build(config, LABELS, channels, 64, seed=0).eval() for channels in (1, 3))
    for network in (one, three):
        load_weights(network, config, [])
    with torch.no_grad():
        found = three.features(films().expand(-1, 3, -1, -1))
        torch.testing.assert_close(found, one.features(films()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "kind", "words", "hint"),
    [
        ({}, WeightsError, "is not on this machine; looked at .*chex.pt", "get_weights"),
        ({"name": "resnet50"}, WeightsError, "are weights of densenet121", "Set model.name to densenet121"),
        ({"weights": "xrv:all"}, WeightsError, "has no classifier all", "xrv:densenet121-res224-all"),
    ],
)
def test_what_cannot_be_loaded_says_how_to_go_on(cached, settings, kind, words, hint):
    config = ModelConfig(**{"name": "densenet121", "weights": f"xrv:{NAME}"} | settings)
    with pytest.raises(kind, match=words) as error:
        check_weights(build(config, LABELS, 1, 64, seed=0), config, [])
    assert hint in error.value.hint


def test_another_normalisation_is_refused(cached):
    cached(NAME, densenet121, "features.conv0")
    config = ModelConfig(name="densenet121", weights=f"xrv:{NAME}", normalisation="imagenet")
    with pytest.raises(ConfigError, match=r"normalisation: imagenet, but weights: xrv:.* expect xrv"):
        check_weights(build(config, LABELS, 1, 64, seed=0), config, [])


def test_a_damaged_file_is_named(cached, tmp_path):
    (tmp_path / f"{NAME}.pt").write_bytes(b"half a download")
    config = ModelConfig(name="densenet121", weights=f"xrv:{NAME}")
    with pytest.raises(WeightsError, match=f"cannot read its file of {NAME}"):
        load_weights(build(config, LABELS, 1, 64, seed=0), config, [])


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    config = ModelConfig(name="densenet121", weights=f"xrv:{NAME}")
    with pytest.raises(WeightsError, match="needs the package torchxrayvision") as error:
        check_weights(build(config, LABELS, 1, 64, seed=0), config, [])
    assert "pip install torchxrayvision" in error.value.hint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_the_real_package_reads_its_own_files_and_answers_alike(tmp_path, monkeypatch):
    if importlib.util.find_spec("torchxrayvision") is None:
        pytest.skip("torchxrayvision is not installed: pip install torchxrayvision")
    with warnings.catch_warnings():
        import torchxrayvision

    monkeypatch.setattr(torchxrayvision.utils, "get_cache_dir", lambda: f"{tmp_path}/")
    file = torchxrayvision.models.model_urls[NAME]["weights_url"].rpartition("/")[2]
    torch.save(torchxrayvision.models.DenseNet(), tmp_path / file)  # a whole network, as their files are
    config = ModelConfig(name="densenet121", weights=f"xrv:{NAME}")
    network = build(config, LABELS, 1, 224, seed=0).eval()
    origin = load_weights(network, config, [])
    assert origin.endswith("classifier of Lung Opacity, Pleural Effusion")
    theirs = torchxrayvision.models.DenseNet(weights=NAME).eval()
    theirs.op_threshs = None
    images = films(size=224)
    scaled = torchxrayvision.utils.normalize(images.numpy(), 1)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(scaled))
        found = network(images)
    places = [theirs.pathologies.index(name) for name in ("Lung Opacity", "Effusion")]
    torch.testing.assert_close(found[:, [0, 2]], expected[:, places], rtol=1e-3, atol=1e-3)
