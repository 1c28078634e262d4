"""Backbones by name: shapes, model noise, deterministic starts, and weights that must fit."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import StochasticDepth

from noisy_student.config.learning import ModelConfig
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.learning.models import build, classifier_parameters, load_weights, parameter_count

LABELS = ("Edema", "Pneumonia")
DATA = Path(os.environ.get("NS_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
MOBILENET = "mobilenet_v2-coral_ptq_int8deq-a1bde081.pth"
SQUEEZENET = "squeezenet1_1_features-deepcognition_fp32-b135c74f.pth"

QUICK = [
    *("small_resnet", "resnet18", "regnet_y_400mf", "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small"),
    *("efficientnet_b0", "squeezenet1_1", "mnasnet0_5"),
]
SLOW = ["densenet121", "convnext_tiny", "swin_t", "vit_b_32", "alexnet", "vgg11"]
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def make(name="small_resnet", channels=1, size=64, seed=0, **settings):
    return build(ModelConfig(name=name, **settings), LABELS, channels, size, seed=seed)


def films(count=2, channels=1, size=64):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def real(name):
    if not (DATA / "weights" / name).is_file():
        pytest.skip(f"{DATA}/weights/{name} is absent; set NS_REAL_DATA")
    return DATA / "weights"


# -- architecture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_backbone_gives_one_logit_per_label(name):
    network = make(name, dropout=0.3).eval()
    with torch.no_grad():
        logits = network(films())
        features = network.features(films())
    assert logits.shape == (2, 2)
    assert torch.isfinite(logits).all()
    assert features.shape == (2, network.classifier.in_features)
    assert network.classifier.out_features == 2
    assert (network.labels, network.channels, network.size) == (LABELS, 1, 64)
    # All dropout is ours, once, before the classifier; stochastic depth is off unless asked for.
    assert [(key, m.p) for key, m in network.named_modules() if isinstance(m, nn.Dropout) and m.p] == [("dropout", 0.3)]
    assert all(module.p == 0.0 for module in network.modules() if isinstance(module, StochasticDepth))


@pytest.mark.parametrize("name", ["small_resnet", "mobilenet_v2", "squeezenet1_1"])
def test_gradient_reaches_every_parameter(name):
    network = make(name, channels=3)
    network(films(4, 3)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_model_noise_works_in_training_and_is_silent_in_evaluation():
    network = make(dropout=0.5, stochastic_depth=0.5)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.eval()
    assert network.training
    one, two = network(films()), network(films())
    assert not torch.equal(one, two)
    network.eval()
    assert torch.equal(network(films()), network(films()))


@pytest.mark.parametrize("name", ["small_resnet", "efficientnet_b0", pytest.param("swin_t", marks=pytest.mark.slow)])
def test_stochastic_depth_follows_the_linear_rule(name):
    network = make(name, stochastic_depth=0.4)
    rates = [module.p for module in network.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.4 * (index + 1) / len(rates) for index in range(len(rates))])
    assert rates[-1] == pytest.approx(0.4)
    assert len(rates) == {"small_resnet": 4, "efficientnet_b0": 16, "swin_t": 12}[name]


def test_dropped_branch_leaves_the_shortcut():
    network = make(stochastic_depth=0.5)
    block = network.backbone[3]
    block.bn2[1].p = 1.0
    features = torch.rand(2, 32, 8, 8)
    assert torch.equal(block(features), torch.relu(block.downsample(features)))


def test_stochastic_depth_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match="resnet18 has no residual blocks") as error:
        make("resnet18", stochastic_depth=0.2)
    assert "efficientnet" in error.value.hint
    assert "small_resnet" in error.value.hint


def test_small_resnet_has_the_size_that_is_documented():
    # Stem 288 + 64; blocks 19,648 / 57,728 / 230,144 / 919,040; classifier 514, with one input channel.
    assert parameter_count(make()) == 288 + 64 + 19_648 + 57_728 + 230_144 + 919_040 + 514


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("resnet19", 64, "'resnet19' is not known\nNearest: .*resnet18"),
        ("inception_v3", 96, "auxiliary"),
        ("vit_b_16", 70, "70 x 70"),
        ("alexnet", 16, "16 x 16"),
        ("maxvit_t", 64, "64 x 64"),
    ],
)
def test_unusable_backbones_are_refused_before_training(name, size, words):
    with pytest.raises(ConfigError, match=r"(?s)model\.name: .*" + words):
        make(name, size=size)


def test_start_depends_on_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = make(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = make(seed=3), make(seed=4)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert not torch.equal(first.backbone[0].weight, other.backbone[0].weight)


def test_classifier_parameters_are_the_last_layer():
    network = make("mobilenet_v2")
    assert [tuple(parameter.shape) for parameter in classifier_parameters(network)] == [(2, 1280), (2,)]


@pytest.mark.parametrize(
    ("normalisation", "channels", "mean", "deviation"),
    [
        ("half", 1, [0.5], [0.5]),
        ("none", 3, [0.0] * 3, [1.0] * 3),
        ("imagenet", 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ("imagenet", 1, [0.449], [0.226]),
    ],
)
def test_films_are_normalised_before_the_backbone(normalisation, channels, mean, deviation):
    network = make(channels=channels, normalisation=normalisation)
    network.backbone = nn.Flatten()
    images = films(2, channels)
    expected = (images - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(deviation).view(-1, 1, 1)
    torch.testing.assert_close(network.features(images).view_as(images), expected)
    assert not any(key in network.state_dict() for key in ("mean", "deviation"))


@pytest.mark.parametrize("name", ["small_resnet", "mobilenet_v2"])
def test_one_channel_equals_three_equal_channels(name):
    grey, colour = make(name, 1, normalisation="half").eval(), make(name, 3, normalisation="half").eval()
    with torch.no_grad():
        # Sums of 27 products in another order; the layers after them carry it on.
        torch.testing.assert_close(grey(films()), colour(films().repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)


# -- weights ----------------------------------------------------------------------------------------------------------


def saved(path, model):
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def torchvision_model(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = torchvision.models.get_model(name, weights=None)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
        return model.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small"])
def test_file_gives_torchvisions_own_features(tmp_path, name, suffix):
    model = torchvision_model(name)
    file = saved(tmp_path / f"w{suffix}", model)
    config = ModelConfig(name=name, weights=file.name, normalisation="none")
    network = build(config, LABELS, 3, 64, seed=0).eval()
    head = network.classifier.weight.clone()
    origin = load_weights(network, config, [tmp_path / "empty", tmp_path])
    assert origin.startswith(f"file w{suffix} sha256 ")
    assert len(origin.split()[-1]) == 8
    assert torch.equal(network.classifier.weight, head)
    model.get_submodule(network.head_key.rpartition(".")[0]).add_module(
        network.head_key.rpartition(".")[2], nn.Identity()
    )
    if name == "squeezenet1_1":
        model.classifier = nn.AdaptiveAvgPool2d(1)
    with torch.no_grad():
        expected = model(films(channels=3))
        torch.testing.assert_close(network.features(films(channels=3)), expected)


def test_none_changes_nothing():
    network = make()
    before = network.backbone[0].weight.clone()
    assert load_weights(network, ModelConfig(), []) == "none"
    assert torch.equal(network.backbone[0].weight, before)


def test_imagenet_goes_through_torchvision_and_old_densenet_names(monkeypatch):
    model = torchvision_model("mobilenet_v3_small")
    weights = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **options: model.state_dict())
    config = ModelConfig(name="mobilenet_v3_small", weights="imagenet")
    network = build(config, LABELS, 1, 64, seed=0)
    assert load_weights(network, config, []) == "torchvision MobileNet_V3_Small_Weights.IMAGENET1K_V1"
    torch.testing.assert_close(network.backbone.features[0][0].weight, model.features[0][0].weight.sum(1, keepdim=True))


@pytest.mark.slow
def test_densenet_names_of_the_first_version_are_understood(tmp_path):
    state = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in torchvision_model("densenet121").state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "d.pth")
    config = ModelConfig(name="densenet121", weights="d.pth")
    network = build(config, LABELS, 3, 64, seed=0)
    load_weights(network, config, [tmp_path])
    layer = network.backbone.features.denseblock1.denselayer1
    assert torch.equal(layer.norm1.running_mean, state["features.denseblock1.denselayer1.norm.1.running_mean"])


@pytest.mark.slow
def test_vit_positions_are_interpolated_to_another_size(tmp_path):
    torch.save(torchvision_model("vit_b_32").state_dict(), tmp_path / "v.pth")
    config = ModelConfig(name="vit_b_32", weights="v.pth")
    network = build(config, LABELS, 1, 96, seed=0)
    load_weights(network, config, [tmp_path])
    assert network.backbone.encoder.pos_embedding.shape == (1, 10, 768)
    assert network.eval()(films(size=96)).shape == (2, 2)


@pytest.mark.parametrize("error", [URLError("no route"), ConnectionResetError("reset"), RuntimeError("invalid hash")])
def test_failed_download_says_how_to_go_on(monkeypatch, error):
    weights = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT

    def fail(self, **options):
        raise error

    monkeypatch.setattr(type(weights), "get_state_dict", fail)
    config = ModelConfig(name="mobilenet_v3_small", weights="imagenet")
    with pytest.raises(WeightsError, match="could not be downloaded") as caught:
        load_weights(build(config, LABELS, 1, 64, seed=0), config, [])
    assert "mobilenet_v3_small-047dcff4.pth" in caught.value.hint
    assert str(Path(torch.hub.get_dir()) / "checkpoints") in caught.value.hint
    assert "teacher.model.weights" in caught.value.hint


def test_our_own_backbone_has_no_imagenet_weights():
    with pytest.raises(WeightsError, match="no ImageNet weights of small_resnet"):
        load_weights(make(), ModelConfig(weights="imagenet"), [])


def test_absent_file_lists_where_it_was_looked_for(tmp_path):
    network = make()
    with pytest.raises(WeightsError, match=r"there is no file w\.pth") as error:
        load_weights(network, ModelConfig(weights="w.pth"), [tmp_path / "a", tmp_path / "b"])
    assert f"{tmp_path}/a/w.pth, {tmp_path}/b/w.pth" in error.value.message
    with pytest.raises(WeightsError, match="no folder was given"):
        load_weights(network, ModelConfig(weights="w.pth"), [])
    with pytest.raises(WeightsError, match=f"looked at {tmp_path}/c.pth"):
        load_weights(network, ModelConfig(weights=str(tmp_path / "c.pth")), [tmp_path / "a"])


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half an archive"])
def test_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{tmp_path}/{name}: cannot be read as weights"):
        load_weights(make(), ModelConfig(weights=name), [tmp_path])


def test_truncated_file_is_named(tmp_path):
    whole = saved(tmp_path / "w.pth", make()).read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_weights(make(), ModelConfig(weights="w.pth"), [tmp_path])


def test_file_with_more_than_tensors_is_refused(tmp_path):
    torch.save({"state_dict": make().state_dict(), "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        load_weights(make(), ModelConfig(weights="w.pth"), [tmp_path])
    torch.save(make(), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_weights(make(), ModelConfig(weights="module.pth"), [tmp_path])


def test_weights_of_another_architecture_change_nothing(tmp_path):
    state = torchvision_model("mobilenet_v3_small").state_dict()
    removed = [key for key in state if key.startswith("features.1.")]
    for key in removed:
        del state[key]
    state["extra.weight"] = torch.zeros(1)
    state["features.0.0.weight"] = torch.zeros(16, 3, 5, 5)
    torch.save(state, tmp_path / "w.pth")
    config = ModelConfig(name="mobilenet_v3_small", weights="w.pth")
    network = build(config, LABELS, 1, 64, seed=0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match="does not fit the backbone") as error:
        load_weights(network, config, [tmp_path])
    counted = sum(not key.endswith("num_batches_tracked") for key in removed)
    assert f"{counted} missing (features.1." in error.value.message
    assert "1 unexpected (extra.weight)" in error.value.message
    assert "1 of another shape (features.0.0.weight)" in error.value.message
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


# -- real weights -----------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_real_mobilenet_is_the_same_network_on_one_channel_as_on_three():
    folder = real(MOBILENET)
    config = ModelConfig(name="mobilenet_v2", weights=MOBILENET, normalisation="half")
    grey, colour = (build(config, LABELS, channels, 96, seed=0).eval() for channels in (1, 3))
    for network in (grey, colour):
        assert MOBILENET in load_weights(network, config, [folder])
    images = films(size=96)
    with torch.no_grad():
        one, three = grey.features(images), colour.features(images.repeat(1, 3, 1, 1))
        reference = torchvision.models.mobilenet_v2(weights=None)
        reference.load_state_dict(torch.load(folder / MOBILENET, weights_only=True))
        expected = reference.eval().features(images.repeat(1, 3, 1, 1) * 2 - 1).mean((2, 3))
    torch.testing.assert_close(three, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-3)
    assert one.std() > 0.1


@pytest.mark.real
def test_real_features_only_file_is_accepted_because_it_covers_the_backbone():
    folder = real(SQUEEZENET)
    config = ModelConfig(name="squeezenet1_1", weights=SQUEEZENET)
    network = build(config, LABELS, 1, 64, seed=0)
    assert load_weights(network, config, [folder]).startswith(f"file {SQUEEZENET} sha256 ")
    state = torch.load(folder / SQUEEZENET, weights_only=True)
    assert torch.equal(network.backbone.features[3].squeeze.weight, state["features.3.squeeze.weight"])
    torch.testing.assert_close(network.backbone.features[0].weight, state["features.0.weight"].sum(1, keepdim=True))
    other = ModelConfig(name="squeezenet1_0", weights=SQUEEZENET)
    with pytest.raises(WeightsError, match="does not fit the backbone"):
        load_weights(build(other, LABELS, 1, 64, seed=0), other, [folder])
