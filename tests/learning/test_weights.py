"""Pretrained weights: what is loaded, what must fit, and the errors that say how to go on."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from networks import EVERY, LABELS, MOBILENET, SQUEEZENET, films, make, real, torchvision_model
from safetensors.torch import save_file
from torch import nn

from noisy_student.config import ModelConfig
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.learning import checkpoint
from noisy_student.learning.models import build, check_weights, load_weights


def saved(path, model):
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


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
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    expected = (model.features[0][0].weight * deviation.mean() / deviation).sum(1, keepdim=True)
    torch.testing.assert_close(network.backbone.features[0][0].weight, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EVERY if name != "inception_v3"])  # which has a test of its own
def test_weights_of_every_backbone_come_from_torchvision_by_name(name, monkeypatch):
    """Its own state dict, of a thousand classes, in place of what would be fetched; with its own normalisation."""
    model = torchvision_model(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **options: model.state_dict())
    config = ModelConfig(name=name, weights="imagenet")
    network = build(config, LABELS, 1, 96, seed=1)
    assert load_weights(network, config, []) == f"torchvision {weights}"
    given, taken = model.state_dict(), network.backbone.state_dict()
    stem = next(key for key, tensor in taken.items() if tensor.ndim == 4)
    assert taken[stem].shape[1] * 3 == given[stem].shape[1]
    changed = {stem, "encoder.pos_embedding"}  # one channel, films of another size
    same = [key for key in taken if key in given and key not in changed]
    assert len(same) > len(taken) - 4
    statistics = [key for key in same if not torch.equal(taken[key], given[key])]
    assert all(key.endswith(("running_mean", "running_var", "bias")) for key in statistics)
    assert len(statistics) <= 2  # what the means of three colours leave goes into the first layer
    presets = weights.transforms()
    ours = network.statistics
    assert (list(ours.mean), list(ours.deviation)) == (list(presets.mean), list(presets.std))


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
    assert "to its path and model.normalisation: imagenet." in caught.value.hint  # a bare file does not say
    assert str(Path(torch.hub.get_dir()) / "checkpoints") in caught.value.hint
    assert "teacher.model.weights" in caught.value.hint


def test_our_own_backbone_has_no_imagenet_weights():
    with pytest.raises(WeightsError, match="no ImageNet weights of small_resnet"):
        load_weights(make(), ModelConfig(weights="imagenet"), [])


def test_absent_file_lists_where_it_was_looked_for(tmp_path):
    network = make()
    with pytest.raises(WeightsError, match=r"there is no file and no run w\.pth") as error:
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


# -- normalisation and channels ---------------------------------------------------------------------------------------


def test_inception_drops_its_auxiliary_head_and_takes_its_own_normalisation(monkeypatch):
    model = torchvision_model("inception_v3", aux_logits=True, transform_input=True, init_weights=False)
    weights = torchvision.models.Inception_V3_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **options: model.state_dict())
    config = ModelConfig(name="inception_v3", weights="imagenet")
    network = build(config, LABELS, 3, 80, seed=0).eval()
    assert any(key.startswith("AuxLogits.") for key in model.state_dict())
    assert load_weights(network, config, []) == "torchvision Inception_V3_Weights.IMAGENET1K_V1"
    assert network.normalisation == "half"
    model.fc = nn.Identity()
    images = films(channels=3, size=80)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    usual = (images - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1)
    with torch.no_grad():  # torchvision turns the usual normalisation into [-1, 1] inside
        torch.testing.assert_close(network.features(images), model(usual), rtol=1e-4, atol=1e-4)


def test_normalisation_comes_with_the_weights_and_a_contradiction_is_refused(tmp_path):
    torch.save(torchvision_model("mobilenet_v3_small").state_dict(), tmp_path / "w.pth")
    for asked, found in (("auto", "imagenet"), ("half", "half"), ("none", "none")):  # a bare file does not say
        config = ModelConfig(name="mobilenet_v3_small", weights="w.pth", normalisation=asked)
        network = build(config, LABELS, 1, 64, seed=0)
        load_weights(network, config, [tmp_path])
        assert network.normalisation == found
    for name, asked, expected in (
        ("resnet18", "half", "imagenet"),
        ("inception_v3", "imagenet", "half"),
        ("resnet18", "xrv", "imagenet"),
    ):
        config = ModelConfig(name=name, weights="imagenet", normalisation=asked)
        with pytest.raises(
            ConfigError, match=f"normalisation: {asked}, but weights: imagenet expect {expected}"
        ) as error:
            check_weights(build(config, LABELS, 1, 80, seed=0), config, [])
        assert "auto" in error.value.hint
    agreeing = ModelConfig(name="resnet18", weights="imagenet", normalisation="imagenet")
    check_weights(build(agreeing, LABELS, 1, 64, seed=0), agreeing, [])


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3), (3, 3), (1, 1)])
def test_filters_answer_a_grey_film_alike_in_one_channel_and_in_three(tmp_path, theirs, ours):
    given = make(channels=theirs, normalisation="half").eval()
    save_file(dict(given.backbone.state_dict()), tmp_path / "w.safetensors")
    config = ModelConfig(weights="w.safetensors", normalisation="half")
    network = build(config, LABELS, ours, 64, seed=9).eval()
    load_weights(network, config, [tmp_path])
    grey = films()
    with torch.no_grad():
        expected, found = (
            given.features(grey.expand(-1, theirs, -1, -1)),
            network.features(grey.expand(-1, ours, -1, -1)),
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3)])
def test_the_first_layer_answers_a_grey_film_alike_under_statistics_that_differ_by_colour(tmp_path, theirs, ours):
    given = make(channels=theirs).train()
    given(films(4, theirs))  # statistics that are not those of a new network
    save_file(dict(given.eval().backbone.state_dict()), tmp_path / "w.safetensors")
    config = ModelConfig(weights="w.safetensors", normalisation="imagenet")
    network = build(config, LABELS, ours, 64, seed=9).eval()
    load_weights(network, config, [tmp_path])
    grey = films()

    def first(one, channels):  # convolution, and the batch norm whose running mean takes up the constant
        return one.backbone[:2]((grey.expand(-1, channels, -1, -1) - one.mean) / one.deviation)

    with torch.no_grad():
        expected, found = first(given, theirs), first(network, ours)
        torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-5)
        if theirs == 1:  # from grey to three no constant is left, so the padded edge agrees too
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        else:
            network.backbone[0].weight.copy_(given.backbone[0].weight.sum(1, keepdim=True))
            assert not torch.allclose(first(network, ours), expected, rtol=1e-2, atol=1e-2)  # a sum alone does not do


def test_without_padding_a_grey_film_gives_the_features_of_three_colours(tmp_path):
    model = torchvision_model("squeezenet1_1")  # its first convolution has a bias and no padding
    torch.save(model.state_dict(), tmp_path / "w.pth")
    config = ModelConfig(name="squeezenet1_1", weights="w.pth", normalisation="imagenet")
    grey, colour = (build(config, LABELS, channels, 64, seed=0).eval() for channels in (1, 3))
    for network in (grey, colour):
        load_weights(network, config, [tmp_path])
    assert not torch.equal(grey.backbone.features[0].bias, model.features[0].bias)
    with torch.no_grad():
        torch.testing.assert_close(grey.features(films()), colour.features(films().repeat(1, 3, 1, 1)))


@pytest.mark.slow
def test_vit_b_16_of_224_pixels_sees_films_of_another_size(tmp_path):
    model = torchvision_model("vit_b_16", image_size=224)
    torch.save(model.state_dict(), tmp_path / "v.pth")
    config = ModelConfig(name="vit_b_16", weights="v.pth")
    network = build(config, LABELS, 3, 96, seed=0).eval()
    load_weights(network, config, [tmp_path])
    table, wide = network.backbone.encoder.pos_embedding, model.encoder.pos_embedding
    assert table.shape == (1, 37, 768)
    assert torch.equal(table[:, 0], wide[:, 0])  # the class token has no place
    flat = torch.nn.functional.interpolate(
        wide[:, 1:].reshape(1, 14, 14, 768).permute(0, 3, 1, 2), size=6, mode="bicubic", align_corners=True
    )
    torch.testing.assert_close(table[:, 1:], flat.permute(0, 2, 3, 1).reshape(1, 36, 768))


# -- a finished run ---------------------------------------------------------------------------------------------------


def saved_run(folder, labels=("Effusion", "Edema"), channels=1, **settings):
    """Write a model folder as a run of ours does, and return its network."""
    config = ModelConfig(**{"name": "small_resnet", "normalisation": "half"} | settings)
    network = build(config, labels, channels, 48, seed=77).train()
    network(films(4, channels, 48))  # statistics that are not those of a new network
    checkpoint.save(folder, network.eval(), config, {"generation": 0, "origin": "none"})
    return network


@pytest.mark.parametrize("head", [{}, {"head": "hidden", "head_hidden": 8}])
def test_a_run_gives_its_backbone_and_the_rows_of_labels_that_are_ours_by_name(tmp_path, head):
    given = saved_run(tmp_path / "gen-0" / "checkpoint" / "best", **head)
    config = ModelConfig(weights="gen-0", **head)
    labels = ("Pleural Effusion", "Pneumonia", "edema")  # Effusion is NIH's name of the first
    network = build(config, labels, 1, 64, seed=0)
    before = network.last.weight.clone()
    origin = load_weights(network, config, [tmp_path])
    assert origin.startswith("model best, sha256 ")
    assert origin.endswith(", classifier of Pleural Effusion, edema")
    for key, value in given.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[key], value)
    assert network.normalisation == "half"
    assert torch.equal(network.last.weight[0], given.last.weight[0])
    assert torch.equal(network.last.bias[2], given.last.bias[1])
    assert torch.equal(network.last.weight[2], given.last.weight[1])
    assert torch.equal(network.last.weight[1], before[1])
    images = films(3)
    with torch.no_grad():  # so the run's answers are kept, also behind a hidden layer
        found, expected = network.eval()(images), given.eval()(images)
    torch.testing.assert_close(found[:, [0, 2]], expected)
    assert not torch.allclose(found[:, 1], expected[:, 0])


def test_another_head_takes_the_backbone_alone(tmp_path):
    saved_run(tmp_path / "model")
    config = ModelConfig(weights="model", head="hidden", head_hidden=8)
    network = build(config, ("Edema",), 1, 64, seed=0)
    before = {key: value.clone() for key, value in network.classifier.state_dict().items()}
    assert "classifier" not in load_weights(network, config, [tmp_path])
    assert all(torch.equal(value, before[key]) for key, value in network.classifier.state_dict().items())


def test_no_label_in_common_leaves_the_classifier_as_it_was(tmp_path):
    saved_run(tmp_path / "model")
    config = ModelConfig(weights="model")
    network = build(config, ("Fracture",), 1, 64, seed=0)
    before = network.classifier.weight.clone()
    assert "classifier" not in load_weights(network, config, [tmp_path])
    assert torch.equal(network.classifier.weight, before)


def test_a_run_of_another_network_or_normalisation_is_refused_before_it_is_read(tmp_path):
    saved_run(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not read")
    for settings, kind, words in (
        ({"name": "resnet18"}, WeightsError, "holds a small_resnet, and model.name is resnet18"),
        ({"normalisation": "imagenet"}, ConfigError, "normalisation: imagenet, but weights: model expect half"),
    ):
        config = ModelConfig(weights="model", **settings)
        with pytest.raises(kind, match=words):
            check_weights(build(config, LABELS, 1, 64, seed=0), config, [tmp_path])


def test_a_network_made_from_weights_is_the_same_after_it_was_stored(tmp_path):
    saved_run(tmp_path / "model", normalisation="xrv")
    config = ModelConfig(weights="model")
    network = build(config, ("Edema",), 1, 64, seed=0).eval()
    load_weights(network, config, [tmp_path])
    checkpoint.save(tmp_path / "stored", network, config, {"origin": "x"})
    loaded, meta = checkpoint.load(tmp_path / "stored", ("Edema",))
    assert (meta["normalisation"], meta["mean"], meta["model"]["normalisation"]) == ("xrv", [0.5] * 3, "auto")
    assert loaded.normalisation == "xrv"
    images = films()
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), network(images))


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
    colour = build(config, LABELS, 3, 64, seed=0)
    load_weights(colour, config, [folder])
    with torch.no_grad():  # no padding: the features are those of three colours, ImageNet's statistics and all
        one, three = network.eval().features(films()), colour.eval().features(films().repeat(1, 3, 1, 1))
    torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-4)
    other = ModelConfig(name="squeezenet1_0", weights=SQUEEZENET)
    with pytest.raises(WeightsError, match="does not fit the backbone"):
        load_weights(build(other, LABELS, 1, 64, seed=0), other, [folder])
