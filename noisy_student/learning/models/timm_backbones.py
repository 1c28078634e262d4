"""Backbones of timm (PyTorch Image Models), where it is installed: ``model.name: timm/NAME``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor, nn

from noisy_student.errors import ConfigError
from noisy_student.learning.models.backbones import reason, unfit

PREFIX: Final = "timm/"


def _timm() -> Any:
    try:
        import timm
        import timm.layers
    except ImportError as error:
        raise ConfigError(
            f"model.name: backbones of timm need the package timm ({reason(error)})",
            "Run: pip install 'noisy_student[timm]'",
        ) from error
    return timm


def backbone(name: str, size: int, stochastic_depth: float, *, pretrained: bool = False) -> nn.Module:
    """Return the timm model ``name`` (without ``timm/``) without its classifier: films -> pooled features.

    Args:
        name: of timm, with or without the tag of its weights.
        size: side of the films; position tables are made for it, and interpolated with ``pretrained``.
        stochastic_depth: timm's ``drop_path_rate``, which grows over the blocks; with 0 nothing is dropped, whatever
            timm's own default is.
        pretrained: download timm's weights.

    Raises:
        ConfigError: timm is not installed, has no such model, or not with these settings.
    """
    timm = _timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.0)
        nearest = ", ".join(f"{PREFIX}{other}" for other in near)
        raise ConfigError(
            f"model.name: '{PREFIX}{name}' is not known to timm {timm.__version__}", f"Nearest: {nearest}."
        )
    arguments: dict[str, Any] = {"pretrained": pretrained, "num_classes": 0}
    found = settings(name)
    if found is not None and found.fixed_input_size:
        arguments["img_size"] = size
    if stochastic_depth:
        arguments["drop_path_rate"] = stochastic_depth
    try:
        model: nn.Module = timm.create_model(name, **arguments)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise _rigid(name) from error
    except (AssertionError, ValueError) as error:
        raise unfit(PREFIX + name, size, error) from error
    except RuntimeError as error:
        if pretrained:
            raise
        raise ConfigError(f"model.name: '{PREFIX}{name}': {reason(error)}") from error
    # Some models take the argument and do nothing with it: what counts is what is there.
    dropped = [module for module in model.modules() if isinstance(module, timm.layers.DropPath)]
    if stochastic_depth and not any(module.drop_prob for module in dropped):
        raise _rigid(name)
    if not stochastic_depth:
        for module in dropped:  # rates that timm gives to some models by itself: 0.1 to Swin, 0.5 to NesT
            module.drop_prob = 0.0
    return model


def _rigid(name: str) -> ConfigError:
    return ConfigError(
        f"model.stochastic_depth: {PREFIX}{name} has no residual blocks that timm can drop",
        "Set it to 0, or take a backbone with drop_path_rate, for example timm/resnet18 or timm/convnext_atto.",
    )


def settings(name: str) -> Any:
    """Return what timm knows of the pretrained weights of ``name`` (mean, std, fixed_input_size), or ``None``."""
    return _timm().get_pretrained_cfg(name)


def width(model: Any) -> int:
    """Return the number of pooled features of a timm model."""
    features: int = getattr(model, "head_hidden_size", None) or model.num_features
    return features


def map_layout(model: Any) -> str:
    """Return the order of axes of the model's last feature map, "NCHW" or "NHWC"."""
    return str(getattr(model, "output_fmt", "NCHW"))


def fit_file(model: Any, name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of the timm model ``name`` without its classifier, positions at the size of ``model``."""
    found = settings(name)
    heads = () if found is None or not found.classifier else found.classifier
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    given = {key: value for key, value in state.items() if not (prefixes and key.startswith(prefixes))}
    own = model.state_dict().get("pos_embed")
    if own is not None and "pos_embed" in given and given["pos_embed"].ndim == 3 == own.ndim:
        count, extra = given["pos_embed"].shape[1], 0 if model.no_embed_class else model.num_prefix_tokens
        side = round((count - extra) ** 0.5)
        if count != own.shape[1] and side**2 == count - extra:
            given["pos_embed"] = _timm().layers.resample_abs_pos_embed(
                given["pos_embed"], list(model.patch_embed.grid_size), [side, side], extra
            )
    return given
