"""Model folders (``model.safetensors`` and ``meta.json``) and the state from which training goes on (``resume.pt``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from noisy_student.config import ModelConfig
from noisy_student.errors import WeightsError
from noisy_student.learning.models import Network, Normalisation, build, parameter_count
from noisy_student.origins import FORMAT, read_meta
from noisy_student.runs import atomic, write_json

__all__ = [
    "FORMAT",
    "load",
    "load_resume",
    "load_together",
    "load_weights_into",
    "read_meta",
    "save",
    "save_resume",
    "save_together",
]


def save(folder: Path, network: Network, config: ModelConfig, info: dict[str, Any]) -> None:
    """Write ``network`` to ``folder``: weights, and a ``meta.json`` that is enough to build it again.

    ``info`` adds what the caller knows (origin of the start weights, pos_weight, config hash, cache key).
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic(folder / "model.safetensors") as temporary:
        temporary.write_bytes(serialise(tensors))  # save_file would report a full disk as an error of its own kind
    meta = {
        "format": FORMAT,
        "model": config.model_dump(mode="json"),
        "labels": list(network.labels),
        "channels": network.channels,
        "image_size": network.size,
        **network.statistics.to_meta(),
        "parameters": parameter_count(network),
    }
    write_json(folder / "meta.json", meta | info)


def load(folder: Path, labels: tuple[str, ...] | None = None) -> tuple[Network, dict[str, Any]]:
    """Return the network of a model folder, in evaluation mode on the CPU, and its ``meta.json``.

    Raises:
        WeightsError: the folder is damaged, or holds a model of other labels than ``labels``.
    """
    meta = read_meta(folder)
    stored = tuple(meta["labels"])
    if labels is not None and stored != labels:
        raise WeightsError(
            f"{folder}: the model has the labels {', '.join(stored)}; asked for are {', '.join(labels)}",
            "Set data.labels to the model's labels, or train a new model.",
        )
    network = build(ModelConfig(**meta["model"]), stored, meta["channels"], meta["image_size"], seed=0)
    load_weights_into(network, folder)
    return network.eval(), meta


def load_weights_into(network: Network, folder: Path) -> None:
    """Load the weights of a model folder into ``network`` (same architecture and labels), and its normalisation."""
    path = folder / "model.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise WeightsError(f"{path}: is missing", "Train the generation again with --overwrite.") from None
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{path}: does not hold this model ({str(error).splitlines()[0]})") from error
    network.normalise(Normalisation.of_meta(read_meta(folder)))


def save_together(path: Path, networks: Sequence[Network]) -> None:
    """Write the weights of several networks to one file: those of network M as ``networks.M.NAME``."""
    tensors = {
        f"networks.{number}.{name}": tensor.detach().cpu().contiguous()
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }
    with atomic(path) as temporary:
        temporary.write_bytes(serialise(tensors, {"format": "pt"}))  # the tag by which other tools know PyTorch's


def load_together(path: Path, metas: Sequence[Mapping[str, Any]]) -> list[Network]:
    """Return the networks that :func:`save_together` wrote, in evaluation mode; ``metas`` build them, in order.

    Raises:
        WeightsError: the file is missing, damaged, or holds other networks.
    """
    networks = []
    try:
        with safe_open(path, "pt") as stored:
            for number, meta in enumerate(metas):
                labels = tuple(meta["labels"])
                network = build(ModelConfig(**meta["model"]), labels, meta["channels"], meta["image_size"], seed=0)
                prefix = f"networks.{number}."
                names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118 - it is no dict
                network.load_state_dict({name.removeprefix(prefix): stored.get_tensor(name) for name in names})
                network.normalise(Normalisation.of_meta(meta))
                networks.append(network.eval())
    except FileNotFoundError:
        raise WeightsError(f"{path}: is missing", "Export the run again.") from None
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise WeightsError(f"{path}: does not hold this model ({str(error).splitlines()[0]})") from error
    return networks


def save_resume(path: Path, state: dict[str, Any]) -> None:
    """Write the state from which training goes on (tensors, numbers and text only)."""
    # Given a path, torch.save writes the (temporary) file's name into the archive; a stream keeps equal states equal.
    with atomic(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)


def load_resume(path: Path) -> dict[str, Any] | None:
    """Return the state that :func:`save_resume` wrote, or ``None`` where there is none."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, UnpicklingError) as error:
        hint = "Remove it to train the generation from its start."
        raise WeightsError(f"{path}: is damaged ({str(error).splitlines()[0]})", hint) from error
    return state
