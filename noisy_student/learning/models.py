"""The network: films in [0, 1] -> normalisation -> backbone -> dropout -> one linear classifier -> logits.

Every backbone loses its own last layer and its own dropout, so the classifier, its dropout and the features before it
are in one place whatever the architecture.
"""

from __future__ import annotations

import difflib
import itertools
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.ops import StochasticDepth

from noisy_student import randomness
from noisy_student.config.learning import ModelConfig
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.runs import file_hash

NORMALISATION: Final[dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation per channel that pretrained weights expect, of films in [0, 1]."""

SMALL_RESNET: Final = "small_resnet"
_UNREADABLE: Final = (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError)
_WITH_STOCHASTIC_DEPTH: Final = f"{SMALL_RESNET}, efficientnet_*, convnext_*, swin_*, maxvit_t"


class Network(nn.Module):
    """A backbone with one linear classifier.

    Attributes:
        backbone: (B, channels, size, size), normalised, -> features (B, D).
        dropout: the only dropout outside the backbone's residual blocks.
        classifier: features -> logits (B, K).
        labels: names of the K logits, in order.
        channels: 1 or 3.
        size: side of the films in pixels.
        normalisation: key of :data:`NORMALISATION`.
        head_key: where the backbone's own last layer was, the prefix of its parameters in files of weights.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        classifier: nn.Linear,
        dropout: float,
        *,
        labels: Sequence[str],
        channels: int,
        size: int,
        normalisation: str,
        head_key: str,
    ) -> None:
        super().__init__()
        self.labels, self.channels, self.size = tuple(labels), channels, size
        self.normalisation, self.head_key = normalisation, head_key
        self.backbone, self.dropout, self.classifier = backbone, nn.Dropout(dropout), classifier
        for name, values in zip(("mean", "deviation"), NORMALISATION[normalisation], strict=True):
            statistics = torch.tensor(values).view(1, 3, 1, 1)
            # One channel: a grey film has no colour to be centred, so it takes the mean over the three.
            statistics = statistics.mean(1, keepdim=True) if channels == 1 else statistics
            self.register_buffer(name, statistics, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Return what the classifier sees, (B, D), of float ``images`` (B, channels, size, size) in [0, 1]."""
        features: Tensor = self.backbone((images - self.mean) / self.deviation)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of float ``images`` (B, channels, size, size) in [0, 1]."""
        logits: Tensor = self.classifier(self.dropout(self.features(images)))
        return logits


class Compiled(nn.Module):
    """A network whose ``forward`` and ``features`` run through ``torch.compile``, on the network's own parameters.

    Where compiling fails (no C++ compiler, an operation the compiler does not know) a warning says so once, and the
    network runs as it is.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        # What was compiled for earlier networks of this process is of no use here and counts against a limit.
        torch.compiler.reset()
        self.network = network
        self._fast: dict[str, Callable[[Tensor], Tensor]] = {
            "forward": torch.compile(network.forward),
            "features": torch.compile(network.features),
        }

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network's ``forward`` returns."""
        return self._run("forward", images)

    def features(self, images: Tensor) -> Tensor:
        """Return what the network's ``features`` returns."""
        return self._run("features", images)

    def _run(self, name: str, images: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # a second to import, for those who compile

        if name in self._fast:
            try:
                return self._fast[name](images)
            except TorchDynamoException as error:
                warnings.warn(
                    f"compile: the network could not be compiled and runs as it is ({_reason(error)})", stacklevel=2
                )
                self._fast.clear()
        run: Callable[[Tensor], Tensor] = getattr(self.network, name)
        return run(images)


def small_resnet(classes: int) -> nn.Module:
    """Return our residual network (He et al. 2016) of 1.2 M parameters for small films: four blocks, 32 to 256 wide."""
    widths = (32, 32, 64, 128, 256)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    for before, after in itertools.pairwise(widths):
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))
        block = BasicBlock(before, after, 2, shortcut)
        # The branch of a BasicBlock ends with bn2, before the sum with the shortcut: there it can be dropped.
        block.bn2 = nn.Sequential(block.bn2, StochasticDepth(0.0, "row"))
        layers.append(block)
    for module in itertools.chain.from_iterable(layer.modules() for layer in layers):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, classes))


def _backbone(name: str, classes: int, size: int) -> nn.Module:
    """Return the named architecture with ``classes`` outputs."""
    if name == SMALL_RESNET:
        return small_resnet(classes)
    known = [*torchvision.models.list_models(module=torchvision.models), SMALL_RESNET]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
        raise ConfigError(f"model.name: '{name}' is not known", f"Nearest: {', '.join(near)}.")
    if name in ("googlenet", "inception_v3"):
        raise ConfigError(
            f"model.name: '{name}' trains with auxiliary classifiers, which are not supported",
            "Take another backbone, for example resnet50 or efficientnet_b0.",
        )
    arguments: dict[str, object] = {"weights": None, "num_classes": classes}
    if name.startswith("vit_"):
        arguments["image_size"] = size
    elif name.startswith("maxvit"):
        arguments["input_size"] = (size, size)
    try:
        model: nn.Module = torchvision.models.get_model(name, **arguments)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(*_unfit(name, size, error)) from error
    if name.startswith("squeezenet"):
        # Its classifier is a 1x1 convolution, ReLU and the mean over places. Logits below 0 must be possible, and
        # without the ReLU the mean commutes with the convolution: mean first, then a linear layer.
        final = model.get_submodule("classifier.1")
        linear = nn.Linear(512, classes)
        with torch.no_grad():
            linear.weight.copy_(final.get_parameter("weight").flatten(1))
            linear.bias.copy_(final.get_parameter("bias"))
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        model.add_module("classifier", nn.Sequential(pool, linear))  # the linear keeps the key of the convolution
    return model


def _unfit(name: str, size: int, error: Exception) -> tuple[str, str]:
    return (
        f"model.name: '{name}' cannot take films of {size} x {size} pixels ({_reason(error)})",
        "Set another data.image_size (often a multiple of 32, or 224) or another backbone.",
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _cut_head(model: nn.Module) -> tuple[nn.Linear, str]:
    """Return the last linear layer of ``model`` and its key, and leave an identity in its place."""
    key, head = [(key, module) for key, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, name = key.rpartition(".")
    model.get_submodule(parent).add_module(name, nn.Identity())
    return head, key


def _first_convolution(model: nn.Module) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))


def _make_grey(model: nn.Module) -> None:
    """Give the first convolution one channel: its weights summed over the colours, exact for a repeated image."""
    convolution = _first_convolution(model)
    convolution.in_channels = 1
    convolution.weight = nn.Parameter(convolution.weight.detach().sum(1, keepdim=True))


def _set_model_noise(model: nn.Module, config: ModelConfig) -> None:
    """Set every stochastic depth by the linear rule (Huang et al. 2016) and turn the backbone's own dropout off."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    depths = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    if config.stochastic_depth > 0 and not depths:
        raise ConfigError(
            f"model.stochastic_depth: {config.name} has no residual blocks that can be dropped",
            f"Set it to 0, or take one of: {_WITH_STOCHASTIC_DEPTH}.",
        )
    for index, module in enumerate(depths, start=1):
        module.p = config.stochastic_depth * index / len(depths)


def build(config: ModelConfig, labels: Sequence[str], channels: int, size: int, *, seed: int) -> Network:
    """Return the network of ``config``, initialised from ``seed`` alone; torch's global generator is left as it was.

    Raises:
        ConfigError: an unknown backbone, a size it cannot take, or stochastic depth where it has none.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed every GPU.
        torch.default_generator.manual_seed(int(randomness.hash_u64(seed, randomness.text_id("weights")) >> 1))
        backbone = _backbone(config.name, len(labels), size)
    classifier, head_key = _cut_head(backbone)
    _set_model_noise(backbone, config)
    if channels == 1:
        _make_grey(backbone)
    network = Network(
        backbone,
        classifier,
        config.dropout,
        labels=labels,
        channels=channels,
        size=size,
        normalisation=config.normalisation,
        head_key=head_key,
    )
    _try_shapes(network, config.name)
    return network


def _try_shapes(network: Network, name: str) -> None:
    """Raise :class:`ConfigError` where the films' size does not fit, from shapes alone, without arithmetic."""
    tensors = itertools.chain(network.named_parameters(), network.named_buffers())
    shapes = {key: tensor.detach().to("meta") for key, tensor in tensors}
    films = torch.empty(1, network.channels, network.size, network.size, device="meta")
    try:
        with torch.no_grad():
            torch.func.functional_call(network.eval(), shapes, (films,))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(*_unfit(name, network.size, error)) from error
    network.train()


def classifier_parameters(network: Network) -> list[nn.Parameter]:
    """Return the parameters of the last linear layer, the ones a head-only phase trains."""
    return list(network.classifier.parameters())


def parameter_count(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


# -- pretrained weights ------------------------------------------------------------------------------------------------


def load_weights(network: Network, config: ModelConfig, search: Sequence[Path]) -> str:
    """Return where the weights came from, after loading them into the backbone of ``network``.

    The classifier keeps its initialisation. A network of one channel gets the sum of the first convolution's colours.

    Args:
        network: from :func:`build` with the same ``config``.
        config: ``weights`` is "none", "imagenet" or a file (.pth, .pt, .safetensors).
        search: folders in which a relative file is looked up, in order.

    Raises:
        WeightsError: the file is absent, cannot be read or downloaded, or belongs to another architecture.
    """
    if config.weights == "none":
        return "none"
    if config.weights == "imagenet":
        state, origin = _download(config.name)
    else:
        path = find_weights(config.weights, search)
        state, origin = _read(path), f"file {path.name} sha256 {file_hash(path)[:8]}"
    _load(network, state, origin)
    return origin


def _download(name: str) -> tuple[dict[str, Tensor], str]:
    if name == SMALL_RESNET:
        raise WeightsError(
            f"model.weights: there are no ImageNet weights of {name}", "Set it to none, or take a torchvision backbone."
        )
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False)
    except _UNREADABLE as error:  # a URLError is an OSError
        file = weights.url.rpartition("/")[2]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"model.weights: {weights} could not be downloaded from {weights.url} ({error})",
            f"To go on offline, download {file} on another machine and put it into {folder}, "
            "or set teacher.model.weights (and student.model.weights) to its path.",
        ) from error
    return state, f"torchvision {weights}"


def find_weights(name: str, search: Sequence[Path]) -> Path:
    """Return the weights file ``name``: an absolute path, or the first of that name in the folders ``search``.

    Raises:
        WeightsError: there is none; the places that were looked at are named.
    """
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() else [folder / path for folder in search]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places) or "nowhere: no folder was given"
    raise WeightsError(
        f"model.weights: there is no file {name}; looked at {looked}",
        "Give an absolute path, or set NS_WEIGHTS to the folder of the file.",
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            state: object = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(
            f"{path}: cannot be read as weights ({_reason(error)})",
            "The file is damaged, or holds more than tensors; download it again or save a state dict.",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: does not hold a state dict (name -> tensor)", "Save model.state_dict() alone.")
    return state


def _load(network: Network, state: dict[str, Tensor], origin: str) -> None:
    """Load ``state`` into the backbone, all of it and nothing else."""
    own = network.backbone.state_dict()
    # torchvision's DenseNet files still have the names of its first version: norm.1 is norm1 today.
    given = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}
    given = {key: value for key, value in given.items() if not key.startswith(f"{network.head_key}.")}
    position = "encoder.pos_embedding"
    if position in own and position in given and own[position].shape != given[position].shape:
        patch = _first_convolution(network.backbone).kernel_size[0]
        given = dict(interpolate_embeddings(network.size, patch, given))
    if network.channels == 1:
        first = _first_convolution(network.backbone).weight
        key = next(key for key, parameter in network.backbone.named_parameters() if parameter is first)
        if key in given and given[key].ndim == 4:
            given[key] = given[key].sum(1, keepdim=True)
    problems = [
        _listing("missing", [key for key in own if key not in given and not key.endswith("num_batches_tracked")]),
        _listing("unexpected", [key for key in given if key not in own]),
        _listing("of another shape", [key for key in given if key in own and given[key].shape != own[key].shape]),
    ]
    if any(problems):
        raise WeightsError(
            f"model.weights: {origin} does not fit the backbone: {'; '.join(filter(None, problems))}",
            "Set model.name to the architecture that the weights were saved from.",
        )
    network.backbone.load_state_dict(given, strict=False)


def _listing(what: str, keys: Sequence[str]) -> str:
    return f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
