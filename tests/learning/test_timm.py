"""Backbones of timm: against a stand-in everywhere, and against timm where it is installed."""

from __future__ import annotations

import importlib.util
import sys

import fakes
import numpy as np
import pytest
import torch
from networks import LABELS, films

from noisy_student.config import ModelConfig
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.learning import checkpoint
from noisy_student.learning.blocks import blocks
from noisy_student.learning.maps import activation_maps, has_feature_map
from noisy_student.learning.models import build, check_weights, load_weights

REAL = {
    "conv": "test_convnext",
    "tokens": "test_vit",
    "nhwc": "swin_tiny_patch4_window7_224",
    "strict": "vgg11",
    "standardised": "nf_regnet_b0",
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def stand_in(monkeypatch):
    """Install the stand-in."""
    module = fakes.timm()
    monkeypatch.setitem(sys.modules, "timm", module)
    monkeypatch.setitem(sys.modules, "timm.layers", module.layers)


@pytest.fixture(params=["stand-in", "timm"])
def named(request):
    """Return a function from a kind of model to its name in ``model.name``."""
    if request.param == "timm":
        if importlib.util.find_spec("timm") is None:
            pytest.skip("timm is not installed: pip install 'noisy_student[timm]'")
        return lambda kind: f"timm/{REAL[kind]}"
    request.getfixturevalue("stand_in")
    return lambda kind: f"timm/{kind}"


def made(name, channels=1, size=64, seed=0, **settings):
    return build(ModelConfig(name=name, **settings), LABELS, channels, size, seed=seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["conv", "tokens"])
def test_a_timm_backbone_learns_like_any_other(named, kind, channels):
    network = made(named(kind), channels, dropout=0.3)
    images = films(3, channels)
    logits = network(images)
    assert logits.shape == (3, 2)
    assert network.features(images).shape == (3, network.width)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    again, other = made(named(kind), channels), made(named(kind), channels, seed=1)
    for key, value in made(named(kind), channels).state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(other.classifier.weight, again.classifier.weight)
    assert len(blocks(network.backbone)) >= 2


def rates(network):
    return [module.drop_prob for module in network.modules() if type(module).__name__ == "DropPath"]


def test_stochastic_depth_goes_through_drop_path_rate(named):
    assert not any(rates(made(named("conv"))))
    dropped = made(named("conv"), stochastic_depth=0.4)
    assert max(rates(dropped)) == pytest.approx(0.4)
    assert rates(dropped) == sorted(rates(dropped))
    plain = made(named("conv"))
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in dropped.state_dict().items())


def test_without_stochastic_depth_nothing_is_dropped_where_timm_drops_by_itself(named):
    import timm

    name = named("nhwc")
    assert any(rates(timm.create_model(name.removeprefix("timm/"), num_classes=0)))
    network, images = made(name).train(), films(4)
    assert rates(network)
    assert not any(rates(network))
    assert torch.equal(network.features(images), network.features(images))
    assert max(rates(made(name, stochastic_depth=0.3))) == pytest.approx(0.3)


def test_stochastic_depth_is_refused_where_timm_has_none(named):
    with pytest.raises(ConfigError, match="no residual blocks that timm can drop"):
        made(named("strict"), size=64, stochastic_depth=0.2)


@pytest.mark.usefixtures("stand_in")
def test_an_argument_that_is_swallowed_is_noticed():
    assert made("timm/swallows").width == 8
    with pytest.raises(ConfigError, match="swallows has no residual blocks"):
        made("timm/swallows", stochastic_depth=0.2)


def test_an_unknown_name_is_told_its_nearest(named):
    with pytest.raises(ConfigError, match="'timm/resnet1800' is not known to timm") as error:
        made("timm/resnet1800")
    assert "Nearest: timm/" in error.value.hint


def test_without_timm_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="need the package timm") as error:
        made("timm/resnet18")
    assert "pip install 'noisy_student[timm]'" in error.value.hint


@pytest.mark.parametrize("kind", ["conv", "nhwc"])
def test_activation_maps_have_the_layout_of_the_film(named, kind):
    network = made(named(kind), size=64).eval()
    assert has_feature_map(network, (1, 64, 64))
    maps = activation_maps(network, films(2), [0, 1])
    assert maps.shape == (2, 64, 64)
    assert np.isfinite(maps).all()
    assert network.map_layout == ("NHWC" if kind == "nhwc" else "NCHW")


@pytest.mark.usefixtures("stand_in")
def test_a_map_of_turned_axes_is_the_map_of_the_same_network_in_the_usual_order():
    usual, turned = made("timm/conv").eval(), made("timm/nhwc").eval()
    turned.load_state_dict(usual.state_dict())
    # The stand-in's last map in the usual order is the one before the mean; an identity shows it.
    ours, theirs = activation_maps(usual, films(2), [0, 1]), activation_maps(turned, films(2), [0, 1])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_transformer_has_no_map(named):
    assert not has_feature_map(made(named("tokens")).eval(), (1, 64, 64))


@pytest.mark.parametrize("kind", ["conv", "tokens"])
def test_timms_own_weights_come_with_their_normalisation(named, monkeypatch, kind):
    import timm

    create, asked = timm.create_model, []

    def downloaded(name, *, pretrained=False, **settings):
        asked.append(pretrained)
        with torch.random.fork_rng():
            torch.manual_seed(9 if pretrained else torch.initial_seed())
            return create(name, **settings)

    monkeypatch.setattr(timm, "create_model", downloaded)
    config = ModelConfig(name=named(kind), weights="imagenet")
    network = build(config, LABELS, 3, 64, seed=0)
    assert not any(asked)
    check_weights(network, config, [])
    assert not any(asked)  # nothing is fetched to look whether it fits
    origin = load_weights(network, config, [])
    assert asked[-1]
    assert origin.startswith("timm ")
    mean = timm.get_pretrained_cfg(config.name.removeprefix("timm/")).mean
    assert network.statistics.mean == tuple(mean)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        settings = {"img_size": 64} if kind == "tokens" else {}
        expected = create(config.name.removeprefix("timm/"), num_classes=0, **settings)
    assert all(torch.equal(value, network.backbone.state_dict()[key]) for key, value in expected.state_dict().items())


@pytest.mark.usefixtures("stand_in")
def test_odd_statistics_are_stored_with_the_model(tmp_path):
    config = ModelConfig(name="timm/nhwc", weights="imagenet")
    network = build(config, LABELS, 3, 64, seed=0).eval()
    load_weights(network, config, [])
    checkpoint.save(tmp_path, network, config, {})
    loaded, meta = checkpoint.load(tmp_path)
    assert (meta["normalisation"], meta["mean"]) == ("own", [0.1, 0.2, 0.3])
    with torch.no_grad():
        torch.testing.assert_close(loaded(films(2, 3)), network(films(2, 3)))


def test_weights_that_timm_cannot_fetch_say_how_to_go_on(named, monkeypatch):
    import timm

    def offline(name, **settings):
        if settings.get("pretrained"):
            raise FileNotFoundError("no route to the hub")
        return create(name, **settings)

    create = timm.create_model
    config = ModelConfig(name=named("conv"), weights="imagenet")
    network = build(config, LABELS, 1, 64, seed=0)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"could not download the weights of .*no route") as error:
        load_weights(network, config, [])
    assert "on another machine and set teacher.model.weights" in error.value.hint
    mean = timm.get_pretrained_cfg(config.name.removeprefix("timm/")).mean  # differs between the stand-in and timm
    named_so = {0.485: "imagenet", 0.5: "half"}[mean[0]]
    assert error.value.hint.endswith(f"to the file and model.normalisation: {named_so}.")


@pytest.mark.usefixtures("stand_in")
def test_offline_statistics_without_a_name_come_with_the_cache_alone(monkeypatch):
    config = ModelConfig(name="timm/nhwc", weights="imagenet")
    network = build(config, LABELS, 1, 64, seed=0)

    def offline(name, **settings):
        raise OSError("no route")

    monkeypatch.setattr(sys.modules["timm"], "create_model", offline)
    with pytest.raises(WeightsError, match="could not download") as error:
        load_weights(network, config, [])
    assert "HF_HOME" in error.value.hint
    assert "mean (0.1, 0.2, 0.3)" in error.value.hint
    assert "model.normalisation:" not in error.value.hint


def test_filters_that_are_standardised_over_the_colours_stay_with_their_channels(named, tmp_path):
    name = named("standardised")
    colour = made(name, 3)
    torch.save(colour.backbone.state_dict(), tmp_path / "w.pth")
    checkpoint.save(tmp_path / "run", colour, ModelConfig(name=name), {"generation": 0, "origin": "none"})
    for weights in ("w.pth", "run"):
        config = ModelConfig(name=name, weights=weights)
        load_weights(build(config, LABELS, 3, 64, seed=1), config, [tmp_path])
        with pytest.raises(ConfigError, match=r"data\.channels: 1, and the weights are for 3") as error:
            load_weights(build(config, LABELS, 1, 64, seed=1), config, [tmp_path])
        assert "Set data.channels to 3" in error.value.hint
    with pytest.raises(ConfigError, match=r"data\.channels: 1"):  # known of a run before it is read
        check_weights(build(config, LABELS, 1, 64, seed=1), config, [tmp_path])
    grey = made(name, 1)
    torch.save(grey.backbone.state_dict(), tmp_path / "grey.pth")
    config = ModelConfig(name=name, weights="grey.pth")
    load_weights(build(config, LABELS, 1, 64, seed=1), config, [tmp_path])


def test_a_run_at_another_size_has_its_positions_interpolated(named, tmp_path):
    name = named("tokens")
    given = made(name, size=160)
    checkpoint.save(tmp_path / "wide", given, ModelConfig(name=name), {"generation": 0, "origin": "none"})
    config = ModelConfig(name=name, weights="wide")
    network = build(config, LABELS, 1, 64, seed=1)
    assert load_weights(network, config, [tmp_path]).startswith("model wide, sha256 ")
    torch.save(given.backbone.state_dict(), tmp_path / "w.pth")
    from_file = build(config, LABELS, 1, 64, seed=1)
    load_weights(from_file, config.model_copy(update={"weights": "w.pth"}), [tmp_path])
    for key, value in from_file.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[key], value)
    assert torch.equal(network.classifier.weight, given.classifier.weight)
    assert network(films(2)).shape == (2, 2)


def test_a_file_of_another_size_has_its_positions_interpolated(named, tmp_path):
    import timm

    config = ModelConfig(name=named("tokens"), weights="w.pth")
    name = config.name.removeprefix("timm/")
    wide = timm.create_model(name, num_classes=0, img_size=160)
    state = wide.state_dict() | {"head.weight": torch.zeros(7, 3), "head.bias": torch.zeros(7)}
    torch.save(state, tmp_path / "w.pth")
    network = build(config, LABELS, 1, 64, seed=0)
    assert load_weights(network, config, [tmp_path]).startswith("file w.pth sha256 ")
    table, given = network.backbone.pos_embed, wide.pos_embed
    extra = wide.num_prefix_tokens if not wide.no_embed_class else 0
    assert table.shape[1] == 16 + extra
    assert torch.equal(table[:, :extra], given[:, :extra])
    assert not torch.equal(table, given[:, : table.shape[1]])
    assert network(films(2)).shape == (2, 2)
