"""Pretrained weights into a network: torchvision's, timm's, torchxrayvision's, a file's, a finished run's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torchvision
from torch import Tensor
from torchvision.models.vision_transformer import interpolate_embeddings

from noisy_student import origins
from noisy_student.config.model import ModelConfig
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.labels import shared
from noisy_student.learning.blocks import blocks
from noisy_student.learning.models import backbones, timm_backbones, xrv_weights
from noisy_student.learning.models.channels import is_standardised, recoloured
from noisy_student.learning.models.initialisation import lowest, mean_var
from noisy_student.learning.models.network import Network, Normalisation
from noisy_student.learning.models.state_files import UNREADABLE, read_state
from noisy_student.runs import file_hash

_AUXILIARIES: Final = ("AuxLogits.", "aux1.", "aux2.")


@dataclass(frozen=True)
class Given:
    """Weights as they were read: the backbone's state dict, and a classifier with the labels of its rows."""

    backbone: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    """The head by the keys of ours; empty where it is of another form."""
    labels: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Source:
    """Weights that were found, with what is known before they are read."""

    normalisation: Normalisation | None
    """What they expect of a film; ``None`` where a file does not say."""
    read: Callable[[], Given]
    channels: int | None = None
    """Of the films that they were trained on; ``None`` where a file does not say."""


def check_weights(network: Network, config: ModelConfig, search: Sequence[Path]) -> None:
    """Check what can be known of ``config.weights`` without reading them.

    Raises:
        WeightsError: they are not there, or belong to another architecture.
        ConfigError: ``config.normalisation`` contradicts them, or they cannot be fitted to the films' channels.
    """
    if config.weights != "none":
        source = _source(network, config, search)
        _normalisation(config, source)
        _check_channels(network, source.channels)


def load_weights(network: Network, config: ModelConfig, search: Sequence[Path], *, seed: int = 0) -> str:
    """Return where the weights came from, after loading them into ``network`` as ``config`` asks.

    The backbone gets all of them, or what ``initialise`` takes; of a run and of torchxrayvision the classifier gets the
    rows of labels that are ours by name, and else keeps its initialisation. A first convolution of three channels
    becomes one for films of one, and one of a single channel is shared out to three, so that a grey film is answered as
    before. From then on the network normalises films as the weights expect.

    Args:
        network: from :func:`build` with the same ``config``.
        config: ``weights`` names them.
        search: folders in which a relative path is looked up, in order.
        seed: of the draws of ``initialise: mean_var``.

    Raises:
        WeightsError: they are absent, cannot be read or downloaded, or belong to another architecture.
        ConfigError: ``config.normalisation`` contradicts them, or they cannot be fitted to the films' channels.
    """
    if config.weights == "none":
        return "none"
    source = _source(network, config, search)
    normalisation = _normalisation(config, source)
    given = source.read()
    state = _fitted(network, given, normalisation)
    origin = given.origin
    if config.initialise == "mean_var":
        state = mean_var(network.backbone, state, seed)
        origin += ", drawn from the mean and variance of each tensor"
    elif config.initialise == "lowest":
        assert config.pretrained_blocks is not None, "the configuration asks for it"
        count = len(blocks(network.backbone))
        state = lowest(network.backbone, state, config.pretrained_blocks)
        origin += f", the lowest {config.pretrained_blocks} of {count} blocks"
    network.backbone.load_state_dict(state, strict=False)
    network.normalise(normalisation)
    taken = _take_rows(network, given) if config.initialise == "pretrained" else []
    return f"{origin}, classifier of {', '.join(taken)}" if taken else origin


def _normalisation(config: ModelConfig, source: Source) -> Normalisation:
    """Return what films are normalised with: as the weights expect, unless they do not say."""
    asked = config.normalisation
    if source.normalisation is None:
        return Normalisation.named("imagenet" if asked == "auto" else asked)
    if asked not in ("auto", source.normalisation.name):
        raise ConfigError(
            f"model.normalisation: {asked}, but weights: {config.weights} expect {source.normalisation.name}",
            "Leave it out (auto): normalisation comes with the weights.",
        )
    return source.normalisation


# -- where weights come from -------------------------------------------------------------------------------------------


def _source(network: Network, config: ModelConfig, search: Sequence[Path]) -> Source:
    name = config.name.removeprefix(timm_backbones.PREFIX)
    of_timm = name != config.name
    if config.weights.startswith(origins.XRV):
        found = xrv_weights.find(config.weights, config.name)
        return Source(
            Normalisation.named("xrv"), lambda: Given(*found.read(), found.labels, f"torchxrayvision {found.name}"), 1
        )
    if config.weights == "imagenet":
        return _timm_source(network, name) if of_timm else _torchvision_source(name)
    path = origins.find(config.weights, search)
    if path.is_dir():
        return _folder_source(network, path, config)

    def read() -> Given:
        state = read_state(path)
        if of_timm:
            state = timm_backbones.fit_file(network.backbone, name, state)
        return Given(state, {}, (), f"file {path.name} sha256 {file_hash(path)[:8]}")

    return Source(None, read)


def _torchvision_source(name: str) -> Source:
    if name == backbones.SMALL_RESNET:
        raise WeightsError(
            f"model.weights: there are no ImageNet weights of {name}", "Set it to none, or take a torchvision backbone."
        )
    weights = torchvision.models.get_model_weights(name).DEFAULT
    # These two were trained on [-1, 1]: torchvision's own convert its usual normalisation inside, and ours do not.
    converted = name in backbones.WITH_AUXILIARIES
    transforms = weights.transforms()
    normalisation = Normalisation.named("half") if converted else Normalisation.of(transforms.mean, transforms.std)

    def read() -> Given:
        try:
            state: dict[str, Tensor] = weights.get_state_dict(progress=False)
        except UNREADABLE as error:  # a URLError is an OSError
            file = weights.url.rpartition("/")[2]
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise WeightsError(
                f"model.weights: {weights} could not be downloaded from {weights.url} ({error})",
                f"To go on offline, download {file} on another machine and put it into {folder}, "
                f"or set teacher.model.weights (and student.model.weights) to its path and model.normalisation: "
                f"{normalisation.name}.",
            ) from error
        return Given(state, {}, (), f"torchvision {weights}")

    return Source(normalisation, read, 3)


def _timm_source(network: Network, name: str) -> Source:
    known = timm_backbones.settings(name)
    if known is None or not known.has_weights:
        raise WeightsError(
            f"model.weights: timm has no pretrained weights of {name}", "Set it to none, or take another backbone."
        )
    normalisation = Normalisation.of(known.mean, known.std)

    def read() -> Given:
        try:
            model = timm_backbones.backbone(name, network.size, 0.0, pretrained=True)
        except UNREADABLE as error:
            place = known.hf_hub_id or known.url
            fix = (
                f"download {place} on another machine and set teacher.model.weights (and student.model.weights) to the "
                f"file and model.normalisation: {normalisation.name}."
                if normalisation.has_name
                else f"fetch {place} on another machine and copy its cache (HF_HOME) to this one: a bare file loses "
                f"the normalisation, mean {normalisation.mean} and deviation {normalisation.deviation}."
            )
            raise WeightsError(
                f"model.weights: timm could not download the weights of {name} ({backbones.reason(error)})",
                f"To go on offline, {fix}",
            ) from error
        return Given(model.state_dict(), {}, (), f"timm {known.architecture}.{known.tag}")

    return Source(normalisation, read, 3)


def _folder_source(network: Network, folder: Path, config: ModelConfig) -> Source:
    meta = origins.read_meta(folder)
    theirs: Mapping[str, Any] = meta["model"]
    if theirs["name"] != config.name:
        raise WeightsError(
            f"model.weights: {folder} holds a {theirs['name']}, and model.name is {config.name}",
            f"Set model.name to {theirs['name']}.",
        )
    same_head = ModelConfig(**theirs).hidden_width() == config.hidden_width()

    def read() -> Given:
        path = folder / "model.safetensors"
        state = read_state(path)
        parts = {
            part: {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
            for part in ("backbone", "classifier")
        }
        if config.name.startswith(timm_backbones.PREFIX):
            name = config.name.removeprefix(timm_backbones.PREFIX)
            parts["backbone"] = timm_backbones.fit_file(network.backbone, name, parts["backbone"])
        origin = f"{origins.name_of(folder)}, sha256 {file_hash(path)[:8]}"
        labels = tuple(meta["labels"])
        return Given(parts["backbone"], parts["classifier"] if same_head else {}, labels, origin)

    return Source(Normalisation.of_meta(meta), read, meta["channels"])


# -- into the network --------------------------------------------------------------------------------------------------


def _fitted(network: Network, given: Given, normalisation: Normalisation) -> dict[str, Tensor]:
    """Return the given backbone by the keys and shapes of ours, all of it and nothing else."""
    own = network.backbone.state_dict()
    left_out = _AUXILIARIES if network.head_key == "" else (*_AUXILIARIES, f"{network.head_key}.")
    # torchvision's DenseNet files still have the names of its first version: norm.1 is norm1 today.
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value
        for key, value in given.backbone.items()
        if key in own or not key.startswith(left_out)
    }
    position = "encoder.pos_embedding"
    first = backbones.first_convolution(network.backbone)
    if position in own and position in state and own[position].shape != state[position].shape:
        assert first is not None, "patches are cut by a convolution"
        state = dict(interpolate_embeddings(network.size, first.kernel_size[0], state))
    if first is not None:
        filters = state.get(f"{backbones.key_of(network.backbone, first)}.weight")
        if filters is not None and filters.ndim == 4:
            _check_channels(network, filters.shape[1])
            state |= recoloured(network.backbone, first, state, network.channels, normalisation)
    problems = [
        _listing("missing", [key for key in own if key not in state and not key.endswith("num_batches_tracked")]),
        _listing("unexpected", [key for key in state if key not in own]),
        _listing("of another shape", [key for key in state if key in own and state[key].shape != own[key].shape]),
    ]
    if any(problems):
        raise WeightsError(
            f"model.weights: {given.origin} does not fit the backbone: {'; '.join(filter(None, problems))}",
            "Set model.name to the architecture that the weights were saved from.",
        )
    return state


def _check_channels(network: Network, theirs: int | None) -> None:
    """Raise :class:`ConfigError` where filters for ``theirs`` channels cannot become ones for the films' channels."""
    first = backbones.first_convolution(network.backbone)
    if theirs in (None, network.channels) or not is_standardised(first):
        return
    raise ConfigError(
        f"data.channels: {network.channels}, and the weights are for {theirs}: the first convolution standardises its "
        "filters over the channels, so with another number of them it would answer otherwise",
        f"Set data.channels to {theirs}, or take another backbone.",
    )


def _listing(what: str, keys: Sequence[str]) -> str:
    return f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""


@torch.no_grad()
def _take_rows(network: Network, given: Given) -> list[str]:
    """Return the labels whose rows of the given classifier were taken over, with the layers of the head below them."""
    if given.head.keys() != network.classifier.state_dict().keys():  # a head of another form
        return []
    pairs = shared(network.labels, given.labels)
    if not pairs:
        return []
    last = network.last
    name = next(key for key, module in network.classifier.named_modules() if module is last)
    final = {f"{name}.{kind}".lstrip("."): parameter for kind, parameter in last.named_parameters()}
    network.classifier.load_state_dict(
        {key: value for key, value in given.head.items() if key not in final}, strict=False
    )
    for ours, theirs in pairs:
        row, source = network.labels.index(ours), given.labels.index(theirs)
        for key, parameter in final.items():
            parameter[row] = given.head[key][source]
    return [ours for ours, _ in pairs]
