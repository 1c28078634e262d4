"""Weights of torchxrayvision (Cohen et al. 2022), where it is installed and has downloaded them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from noisy_student.errors import WeightsError
from noisy_student.learning.models.backbones import reason
from noisy_student.origins import XRV


@dataclass(frozen=True)
class Found:
    """Weights by their name, and the labels of their classifier ("" where a row means nothing)."""

    name: str
    labels: tuple[str, ...]
    models: Any

    def read(self) -> tuple[dict[str, Tensor], Mapping[str, Tensor]]:
        """Return the backbone's state dict and the classifier's ("weight", "bias").

        torchxrayvision unpickles its own file, whole modules among them; nothing else here does.
        """
        try:
            if self.name.startswith("resnet"):
                model: nn.Module = self.models.ResNet(weights=self.name).model
            else:
                model = self.models.DenseNet(weights=self.name)
        except Exception as error:  # whatever its unpickling raises
            raise WeightsError(
                f"model.weights: torchxrayvision cannot read its file of {self.name} ({reason(error)})",
                "Remove the file and fetch it again.",
            ) from error
        head = "fc" if self.name.startswith("resnet") else "classifier"
        state = {key: value for key, value in model.state_dict().items() if key != "op_threshs"}
        rows = {kind: state[f"{head}.{kind}"] for kind in ("weight", "bias")}
        return {key: value for key, value in state.items() if not key.startswith(f"{head}.")}, rows


def find(weights: str, name: str) -> Found:
    """Return the weights ``xrv:NAME`` for the backbone ``name``.

    Raises:
        WeightsError: torchxrayvision is not installed, does not know them, or has not downloaded them; or they belong
            to another backbone.
    """
    asked = weights.removeprefix(XRV)
    try:
        with warnings.catch_warnings():  # importing it silences all warnings of the process
            import torchxrayvision
    except ImportError as error:
        raise WeightsError(
            f"model.weights: {weights} needs the package torchxrayvision ({reason(error)})",
            "Run: pip install torchxrayvision",
        ) from error
    known = {key: entry for key, entry in torchxrayvision.models.model_urls.items() if "-res" in key}
    if asked not in known:
        raise WeightsError(
            f"model.weights: torchxrayvision has no classifier {asked}", f"Known: {', '.join(map(XRV.__add__, known))}."
        )
    if (architecture := asked.split("-")[0]) != name:
        raise WeightsError(
            f"model.weights: {weights} are weights of {architecture}, and model.name is {name}",
            f"Set model.name to {architecture}.",
        )
    url = known[asked]["weights_url"]
    file = Path(torchxrayvision.utils.get_cache_dir()).expanduser() / url.rpartition("/")[2]
    if not file.is_file():
        raise WeightsError(
            f"model.weights: {weights} is not on this machine; looked at {file}",
            f"Nothing is downloaded here. Fetch {url} and put it there, or run where there is a network: "
            f'python -c "import torchxrayvision as x; x.models.get_weights({asked!r})"',
        )
    return Found(asked, tuple(known[asked]["labels"]), torchxrayvision.models)
