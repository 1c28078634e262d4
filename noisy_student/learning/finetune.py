"""What learns in a stretch of a training: the classifier, the highest blocks, or everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from noisy_student.config.learning import FinetuneConfig
from noisy_student.errors import ConfigError


def depths(blocks: Sequence[Sequence[str]], prefix: str = "backbone") -> dict[str, int]:
    """Return the block of each parameter of a backbone by the network's name of it, counted from the output (1).

    ``blocks`` are the names of each block within the backbone, from input to output.
    """
    return {f"{prefix}.{key}": len(blocks) - number for number, block in enumerate(blocks) for key in block}


def learning_names(network: nn.Module, does: FinetuneConfig, depth: Mapping[str, int]) -> frozenset[str]:
    """Return the names of the parameters that learn in a stretch; ``depth`` is that of :func:`depths`.

    Raises:
        ConfigError: more blocks are asked for than the backbone has.
    """
    names = [name for name, _ in network.named_parameters()]
    if does.trainable == "all":
        return frozenset(names)
    highest = 0 if does.trainable == "head" else does.trainable
    if highest > max(depth.values(), default=0):
        raise ConfigError(
            f"optim.phases: trainable: {highest} asks for more blocks than the {max(depth.values(), default=0)} of "
            "the backbone",
            "Lower it, or set it to 'all'.",
        )
    # What is not in a block of the backbone is the classifier.
    return frozenset(name for name in names if depth.get(name, 0) <= highest)


def has_statistics(network: nn.Module) -> bool:
    """Return whether a layer of ``network`` has BatchNorm statistics, which can be kept."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def standing_still(network: nn.Module) -> frozenset[str]:
    """Return the names of the BatchNorm layers whose statistics :func:`set_trainable` has frozen."""
    return frozenset(
        name for name, module in network.named_modules() if isinstance(module, _BatchNorm) and not module.training
    )


def set_trainable(network: nn.Module, learning: frozenset[str], freeze_bn: bool, *, noise: bool = True) -> None:
    """Put ``network`` into training mode with gradients for the parameters ``learning`` alone.

    Without ``noise`` all but its BatchNorm layers are in evaluation mode: dropout and stochastic depth do nothing.

    BatchNorm layers of which no parameter learns keep their statistics, and so do all of the backbone with
    ``freeze_bn``; those of a head have none to keep.
    """
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in learning)
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm):
            module.training = noise
            continue
        own = list(module.parameters(recurse=False))
        if (freeze_bn and name.startswith("backbone.")) or (
            own and not any(parameter.requires_grad for parameter in own)
        ):
            module.eval()
