"""A network that runs through ``torch.compile``, and as it is where that fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from noisy_student.errors import ConfigWarning
from noisy_student.learning.models.network import Network

_EAGER: Final = "force_non_lazy_backward_lowering"
"""torch's private setting (2.11 to 2.15 have it) that compiles the backward pass together with the forward one."""


class Compiled(nn.Module):
    """A network whose ``forward`` and ``features`` run through ``torch.compile``, on the network's own parameters.

    Where compiling fails, be it of the backward pass (no C++ compiler, an operation the compiler does not know), a
    warning says so once, and the network runs as it is.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self._fast: dict[str, Callable[[Tensor], Tensor]] = {}
        try:
            # What was compiled for earlier networks of this process is of no use here and counts against a limit.
            torch.compiler.reset()
            # The compiler's own generator would draw another dropout than an uncompiled step of the same seed.
            fast = partial(torch.compile, options={"fallback_random": True})
            self._fast = {"forward": fast(network.forward), "features": fast(network.features)}
        except RuntimeError as error:  # a Python or system that torch.compile does not support
            self._give_up(error)

    def forward(self, images: Tensor) -> Tensor:
        """Return what the network's ``forward`` returns."""
        return self._run("forward", images)

    def features(self, images: Tensor) -> Tensor:
        """Return what the network's ``features`` returns."""
        return self._run("features", images)

    def _run(self, name: str, images: Tensor) -> Tensor:
        from torch._dynamo.exc import TorchDynamoException  # a second to import, for those who compile
        from torch._functorch import config as functorch

        if name in self._fast:
            try:
                # Else the backward pass would be compiled when the loss asks for it, where nothing can be done.
                with functorch.patch({_EAGER: True}) if hasattr(functorch, _EAGER) else nullcontext():
                    return self._fast[name](images)
            except TorchDynamoException as error:
                self._give_up(error)
        run: Callable[[Tensor], Tensor] = getattr(self.network, name)
        return run(images)

    def _give_up(self, error: Exception) -> None:
        said = str(error).splitlines()[:2] or [type(error).__name__]
        reason = " ".join(said) if said[0].endswith(":") else said[0]  # "backend raised:", and what
        warnings.warn(
            f"compile: the network could not be compiled and runs as it is ({reason})", ConfigWarning, stacklevel=4
        )
        self._fast.clear()
