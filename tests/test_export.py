"""``ns export``: a folder that says what the run says, as weights and as ONNX, and a card that says what it is."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors import safe_open
from small_runs import write_config

import noisy_student
from noisy_student import external, generations, preparation
from noisy_student.cli import cli
from noisy_student.config import Config, ModelConfig
from noisy_student.config.load import load as load_config
from noisy_student.data import manifest
from noisy_student.data.decode import DecodeSettings
from noisy_student.data.streaming import decode_some
from noisy_student.deploy import export
from noisy_student.errors import NoisyStudentError, UsageError, WeightsError
from noisy_student.learning import deployed, models, onnx_graph
from noisy_student.runs import Run, read_json, write_json
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.stats.consensus import Consensus, Fitted
from noisy_student.stats.links import Link
from noisy_student.workplace import Workplace

LABELS = ("Cardiomegaly", "Pleural Effusion", "Support Devices")
TEACHER = {
    "single": (),
    "ensemble": ("teacher.members=[{}, {loss: {name: focal}, pos_weight_cap: 1}]", "prediction.tta=flip"),
}
NAMES = {"README.md", "config.json", "model.safetensors", "familiar.safetensors"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


def trained(folder: Path, name: str) -> tuple[Path, Config]:
    """Return a run with a teacher of one network or of several, evaluated."""
    below = folder / name
    below.mkdir()
    changes = ["pretrain.method=none", f"data.cache_dir={folder / 'cache'}", *TEACHER[name]]
    config = load_config(write_config(below), changes)
    run = generations.open_run(below / "run", config, resume=False, overwrite=False)
    generations.iterate(Workplace(run, config, preparation.prepare(run, config), "cpu"), 0)
    return run.path, config


@pytest.fixture(scope="module")
def single(folder: Path) -> tuple[Path, Config]:
    return trained(folder, "single")


@pytest.fixture(scope="module")
def ensemble(folder: Path) -> tuple[Path, Config]:
    return trained(folder, "ensemble")


def ns(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, arguments)])


@pytest.fixture(scope="module")
def made(folder: Path, ensemble: tuple[Path, Config]) -> Path:
    """The ensemble's folder, with ONNX where the extra is installed."""
    done = ns("export", ensemble[0], "-o", folder / "made", "-q", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found["files"]) - {"model.onnx"} == NAMES
    assert ("model.onnx" in found["files"]) == (found["onnx_difference"] is not None)
    return folder / "made"


def without_onnx(patch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        patch.setitem(sys.modules, name, None)


def films(config: Config, count: int = 200) -> np.ndarray[Any, np.dtype[np.uint8]]:
    cache = preparation.open_source(config.data).cache
    return np.array(cache.pixels[np.arange(count) % len(cache.images)])


# -- weights ---------------------------------------------------------------------------------------------------------


def test_two_lines_give_a_model_that_says_what_the_run_says(ensemble: tuple[Path, Config], made: Path) -> None:
    model = noisy_student.load(made, device="cpu")
    run = noisy_student.load(ensemble[0], device="cpu")
    assert model.labels == LABELS
    pixels = films(ensemble[1], 50)
    mine, theirs = model.answers(pixels), run.answers(pixels)
    np.testing.assert_array_equal(mine.probability, theirs.probability)
    np.testing.assert_array_equal(mine.sd, theirs.sd)
    assert (mine.sd > 0).any()
    assert mine.odd_features is not None
    np.testing.assert_array_equal(mine.odd_features, theirs.odd_features)
    assert model.recipe == run.recipe
    assert model.recipe.key == run.recipe.key


def test_ns_predict_takes_the_folder_as_it_takes_the_run(
    ensemble: tuple[Path, Config], made: Path, tmp_path: Path
) -> None:
    chosen = manifest.select(manifest.read(ensemble[0] / "manifest.parquet"), split="test").frame["image"]
    root = preparation.data_root(ensemble[1].data)
    paths = [f"{root}/{image}" for image in chosen[:9]]
    for name, model in (("run", ensemble[0]), ("folder", made)):
        assert ns("predict", model, *paths, "-o", tmp_path / f"{name}.csv", "--device", "cpu").exit_code == 0
    assert (tmp_path / "run.csv").read_bytes() == (tmp_path / "folder.csv").read_bytes()
    refused = ns("predict", made, *paths, "-o", tmp_path / "x.csv", "--generation", "0")
    assert isinstance(refused.exception, UsageError)
    assert "is an exported model" in str(refused.exception)


def test_weights_have_fixed_names_and_the_config_is_one_that_other_tools_read(made: Path) -> None:
    with safe_open(made / "model.safetensors", "pt") as stored:
        names = set(stored.keys())
        assert stored.metadata() == {"format": "pt"}
    assert {name.split(".")[1] for name in names} == {"0", "1"}
    assert all(re.match(r"networks\.\d\.(backbone|classifier)\.", name) for name in names)
    config = read_json(made / "config.json")
    assert config["model_type"] == "noisy_student"
    assert config["id2label"] == {str(number): name for number, name in enumerate(LABELS)}
    assert config["label2id"] == {name: number for number, name in enumerate(LABELS)}
    assert config["decode"]["size"] == 32


def test_a_folder_that_is_damaged_or_of_another_kind_says_so(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    (copy / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="does not hold this model"):
        noisy_student.load(copy)
    config = read_json(copy / "config.json")
    write_json(copy / "config.json", config | {"format": 99})
    with pytest.raises(UsageError, match="was not written by ns export of this version"):
        noisy_student.load(copy)
    for key, value in (("decode", {}), ("operating_points", [])):
        write_json(copy / "config.json", config | {key: value})
        with pytest.raises(NoisyStudentError, match=r"config\.json: is incomplete or damaged"):
            noisy_student.load(copy)
    write_json(copy / "config.json", config | {"calibration": {"labels": {"Edema": {"intercept": 1}}}})
    with pytest.raises(NoisyStudentError, match=r"config\.json: calibration cannot be read"):
        noisy_student.load(copy)
    write_json(copy / "config.json", config | {"networks": [{"labels": ["Edema"], "model": {}}]})
    shutil.copy(made / "model.safetensors", copy)
    with pytest.raises(WeightsError, match="does not hold this model"):
        noisy_student.load(copy)


def test_a_folder_is_replaced_only_where_it_was_made_by_export(
    single: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_onnx(monkeypatch)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years")
    for more in ((), ("--overwrite",)):
        refused = ns("export", single[0], "-o", mine, *more)
        assert isinstance(refused.exception, UsageError)
        assert "was not made by ns export" in str(refused.exception)
    other = tmp_path / "bert"  # a model of another program in the same form
    other.mkdir()
    for name, text in (("config.json", '{"model_type": "bert"}'), ("model.safetensors", "w"), ("thesis.tex", "years")):
        (other / name).write_text(text)
    refused = ns("export", single[0], "-o", other, "--overwrite")
    assert "was not made by ns export" in str(refused.exception)
    assert (other / "thesis.tex").read_text() == "years"
    (tmp_path / "link").symlink_to(mine)
    assert isinstance(ns("export", single[0], "-o", tmp_path / "link", "--overwrite").exception, UsageError)
    assert ns("export", single[0], "-o", tmp_path / "new").exit_code == 0
    (tmp_path / "new" / "old.txt").write_text("x")
    again = ns("export", single[0], "-o", tmp_path / "new")
    assert "add --overwrite" in str(again.exception)
    assert ns("export", single[0], "-o", tmp_path / "new", "--overwrite").exit_code == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == NAMES
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "bert", "link", "new"}
    missing = ns("export", single[0], "-o", tmp_path / "other", "--generation", 4)
    assert "generation 4 is not trained" in str(missing.exception)
    assert not (tmp_path / "other").exists()


def test_another_calibration_goes_into_the_folder(
    single: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_onnx(monkeypatch)
    fitted = read_json(single[0] / "gen-0" / "calibration.json")
    for platt in fitted["labels"].values():
        platt["intercept"] += 1
    weights = external.weights_of(Run(single[0]), single[1], 0)
    write_json(tmp_path / "ward.json", {"generation": 0, "weights": weights, "calibration": fitted})
    done = ns("export", single[0], "-o", tmp_path / "new", "--calibration", tmp_path / "ward.json")
    assert done.exit_code == 0, done.output
    pixels = films(single[1], 20)
    new, own = (noisy_student.load(path, device="cpu").predict(pixels) for path in (tmp_path / "new", single[0]))
    np.testing.assert_allclose(np.log(new / (1 - new)) - np.log(own / (1 - own)), 1, atol=1e-6)
    card = (tmp_path / "new" / "README.md").read_text()
    assert "calibrated on local films" in card
    assert "Brier score and ECE are those of the run's own calibration, which is not the one in this folder." in card
    write_json(tmp_path / "ward.json", {"generation": 0, "weights": "of another run", "calibration": fitted})
    refused = ns("export", single[0], "-o", tmp_path / "more", "--calibration", tmp_path / "ward.json")
    assert "is no calibration of generation 0" in str(refused.exception)
    assert not (tmp_path / "more").exists()


# -- the card --------------------------------------------------------------------------------------------------------


def test_the_card_says_what_is_in_the_run_and_nothing_of_the_machine(
    ensemble: tuple[Path, Config], made: Path, folder: Path
) -> None:
    text = (made / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    entry = read_json(ensemble[0] / "report.json")["generations"][0]
    budget = read_json(ensemble[0] / "split.json")["budget"]
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(entry["test"]["macro"]["auroc"], 4)
    assert head["library_name"] == "noisy_student"
    for section in ("Use", "Data", "Label policy", "Training", "Figures", "Subgroups", "Limits"):
        assert f"\n## {section}\n" in text
    assert "Not for clinical use" in text
    assert f"**Label budget**: {budget['images']} films of {budget['patients']} patients" in text
    assert "\nStart weights: none.\n" in text
    assert "which is not the one in this folder" not in text
    for label, cell in entry["test"]["labels"].items():
        assert f"| {label} | {cell['auroc']:.3f} ({cell['ci'][0]:.3f}–{cell['ci'][1]:.3f})" in text
    for column, part in entry["subgroups"]["columns"].items():
        for group in part["groups"]:
            assert re.search(
                rf"\| {column} \| {re.escape(group['group'])}( \(small\))? \| {group['patients']} \|", text
            )
    for label, kinds in noisy_student.load(made).recipe.points.items():
        assert f"| {label} | {kinds['youden'].value:.3f} |" in text
    files = [path.read_bytes() for path in made.iterdir()]
    assert not any(str(folder).encode() in content or b"patient0" in content for content in files)


def test_a_generation_that_is_not_measured_says_so(
    single: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_onnx(monkeypatch)
    copy = tmp_path / "copy"
    shutil.copytree(single[0], copy)
    for name in ("gen-0/evaluation.json", "report.json"):
        (copy / name).unlink()
    assert ns("export", copy, "-o", tmp_path / "new").exit_code == 0
    text = (tmp_path / "new" / "README.md").read_text()
    assert "Not measured: this generation has not been evaluated" in text
    assert "model-index" not in text


# -- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        Link(),
        Link(smoothing=0.1),
        Link("focal", 2, 2, odds=0.4),
        Link("focal", 0.5, 0.5, smoothing=0.05),
        Link("asymmetric", 1, 4, free=0.05),
        Link("asymmetric", 0, 2),
    ],
)
def test_log_odds_of_tensors_are_those_of_arrays(link: Link) -> None:
    platt = tuple(Platt(0.3 * k, 1.2 - 0.1 * k, 0.2 * k, False, 50, 50, 0.1 * k) for k in range(3))
    calibration = Calibration(LABELS, platt, link)
    logits = np.random.default_rng(0).normal(0, 6, (500, 3))
    found = deployed.LogOdds(calibration)(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(
        found, calibration.log_odds(logits), atol=1e-4
    )  # far out, log1p is log(1 + x) in a graph
    inside = np.abs(logits) < 10
    np.testing.assert_allclose(found[inside], calibration.log_odds(logits)[inside], atol=1e-9)


def test_onnx_and_pytorch_agree_on_200_films(ensemble: tuple[Path, Config], made: Path) -> None:
    pytest.importorskip("onnxruntime")
    pixels = films(ensemble[1])
    assert len(pixels) == 200
    expected = noisy_student.load(made, device="cpu").predict(pixels)
    for batch in (1, 7, 200):  # the batch is free
        found = onnx_graph.predict(made / "model.onnx", pixels, batch)
        assert found.shape == (200, 3)
        assert np.abs(found - expected).max() <= 1e-4
    assert np.ptp(expected, axis=0).min() > 0.01


def test_the_onnx_file_is_one_file_that_says_what_it_takes(made: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = onnx.load(made / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    (given,), (said,) = model.graph.input, model.graph.output
    assert (given.name, given.type.tensor_type.elem_type) == ("films", onnx.TensorProto.UINT8)
    shape = given.type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [one.dim_value for one in shape[1:]] == [1, 32, 32]
    assert said.name == "probability"
    stored = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert stored["labels"] == list(LABELS)


def test_a_cross_fitted_mean_is_calibrated_once_in_the_graph_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    networks = [models.build(ModelConfig(), LABELS, 3, 32, seed=seed).eval() for seed in (0, 1)]
    platt = tuple(Platt(0.5, 2.0, -0.3, False, 50, 50) for _ in LABELS)
    calibration = Calibration(LABELS, platt, Link("asymmetric", 1, 4, free=0.05))
    one = Consensus((Fitted(calibration),))
    onnx_graph.write(tmp_path / "m.onnx", networks, one, tta="none", shape=(3, 32, 32), metadata={})
    pixels = np.random.default_rng(0).integers(0, 256, (9, 3, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        logits = np.stack([network(torch.from_numpy(pixels) / 255.0).numpy() for network in networks])
    expected = one.image(logits.mean(axis=0)[None])
    assert np.abs(onnx_graph.predict(tmp_path / "m.onnx", pixels) - expected).max() <= 1e-5


@pytest.mark.slow
@pytest.mark.real
def test_onnx_and_pytorch_agree_on_200_real_films(real_data: Path, tmp_path: Path) -> None:
    """A network of 2.2 million pretrained weights, its logits spread as those of a trained one are."""
    pytest.importorskip("onnxruntime")
    (weights,) = (real_data / "weights").glob("mobilenet_v2-*.pth")
    config = ModelConfig(name="mobilenet_v2", weights=str(weights))
    network = models.build(config, LABELS, 1, 160, seed=0)
    models.load_weights(network, config, [], seed=0)
    torch.nn.init.normal_(network.last.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    table = pd.read_csv(real_data / "kermany160" / "labels.csv")["image"]
    named = [(image, f"{real_data / 'kermany160'}/{image}") for image in table.iloc[::26][:200]]
    pixels = decode_some(named, DecodeSettings(160, 1)).pixels
    assert len(pixels) == 200
    platt = tuple(Platt(1.2, 1.3, -0.2, False, 50, 50) for _ in LABELS)
    fitted = Consensus((Fitted(Calibration(LABELS, platt, Link("focal", 2, 2))),))
    onnx_graph.write(tmp_path / "m.onnx", [network.eval()], fitted, tta="flip", shape=(1, 160, 160), metadata={})
    with torch.inference_mode():
        images = torch.from_numpy(pixels) / 255.0
        logits = ((network(images) + network(images.flip(-1))) / 2).numpy()
    expected = fitted.image(logits[None])
    assert np.ptp(expected, axis=0).min() > 0.05
    difference = np.abs(onnx_graph.predict(tmp_path / "m.onnx", pixels) - expected).max()
    assert difference <= 1e-4, difference


def test_without_the_extra_the_rest_is_exported_and_a_message_says_how_to_get_onnx(
    single: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_onnx(monkeypatch)
    done = ns("export", single[0], "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert "no model.onnx was written: ONNX needs the extra onnx" in done.stderr
    assert "pip install 'noisy_student[onnx]'" in done.stderr
    assert "model.onnx" not in done.stdout
    assert "model.onnx" not in (tmp_path / "new" / "README.md").read_text()
    assert {path.name for path in (tmp_path / "new").iterdir()} == NAMES
    assert np.isnan(noisy_student.load(tmp_path / "new").answers(films(single[1], 2)).sd).all()


def test_an_onnx_file_that_says_something_else_is_an_error(
    single: tuple[Path, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "write", lambda path, *args, **kwargs: path.write_bytes(b""))
    monkeypatch.setattr(onnx_graph, "predict", lambda path, pixels: np.full((len(pixels), 3), 0.5, np.float32))
    with pytest.raises(NoisyStudentError, match="differs from PyTorch by"):
        export.export(single[0], tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_light_views_are_not_put_into_a_graph(tmp_path: Path) -> None:
    calibration = Consensus((Fitted(Calibration(LABELS, (Platt(0, 1, 0, False, 1, 1),) * 3)),))
    with pytest.raises(UsageError, match="5 light views"):
        deployed.Calibrated([torch.nn.Identity()], calibration, 5)


# -- torchxrayvision -------------------------------------------------------------------------------------------------


def test_the_adapter_has_torchxrayvisions_words_order_and_range(ensemble: tuple[Path, Config], made: Path) -> None:
    model = noisy_student.load(made, device="cpu")
    adapter = model.xrv()
    assert adapter.pathologies == ["Cardiomegaly", "Effusion", "Support Devices"]
    pixels = films(ensemble[1], 12)
    normal = (2 * (torch.from_numpy(pixels).float() / 255) - 1) * 1024  # torchxrayvision.datasets.normalize
    assert (float(normal.min()), float(normal.max())) >= (-1024.0, 0.0)
    with torch.inference_mode():
        said = adapter(normal)
        large = adapter(normal.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert said.shape == (12, 3)
    np.testing.assert_allclose(said.numpy(), model.predict(pixels), atol=1e-6)
    assert large.shape == (12, 3)
    assert np.abs(large.numpy() - said.numpy()).max() < 0.2  # the same films, blurred by the way there and back
    for wrong in (normal[:, 0], normal.expand(-1, 3, -1, -1)):
        with pytest.raises(ValueError, match=r"torchxrayvision's are \(B, 1, H, W\)"):
            adapter(wrong)


def test_the_adapter_feeds_networks_of_three_channels() -> None:
    network = models.build(ModelConfig(), LABELS, 3, 32, seed=0).eval()
    calibration = Consensus((Fitted(Calibration(LABELS, (Platt(0, 1, 0, False, 1, 1),) * 3)),))
    adapter = deployed.XrvAdapter(deployed.Calibrated([network], calibration, "none"), LABELS, 3, 32)
    films = torch.rand(4, 1, 32, 32)
    with torch.inference_mode():
        expected = network(films.expand(-1, 3, -1, -1)).sigmoid()
        np.testing.assert_allclose(adapter(films * 2048 - 1024), expected, atol=1e-5)


def test_the_table_of_an_exported_model_has_its_labels(made: Path, tmp_path: Path, ensemble: Any) -> None:
    chosen = manifest.select(manifest.read(ensemble[0] / "manifest.parquet"), split="test").frame["image"]
    path = f"{preparation.data_root(ensemble[1].data)}/{chosen.iloc[0]}"
    noisy_student.predict(made, path, tmp_path / "out.csv", device="cpu")
    assert pd.read_csv(tmp_path / "out.csv").columns[:4].tolist() == ["path", *LABELS]
