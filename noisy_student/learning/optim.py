"""The optimiser and its schedule, the averaged model, and BatchNorm statistics estimated anew."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel

from noisy_student.config.learning import OptimConfig


def optimizer(
    network: nn.Module,
    config: OptimConfig,
    objective: nn.Module | None = None,
    depth: Mapping[str, int] | None = None,
) -> AdamW:
    """Return AdamW (Loshchilov and Hutter 2019) over all parameters of ``network``, in groups with rates of their own.

    Groups are named "classifier", "backbone" or "objective", with "/decay" or "/plain"; with ``depth`` the backbone has
    a group for each depth. :func:`set_rates` sets their rates before a step. Filters and matrices are decayed; biases,
    norms, layer scales, tokens and position tables are not.

    Args:
        network: a module with a submodule ``classifier``; its other parameters are the backbone.
        config: rates and decay.
        objective: what the objective learns besides, at the classifier's rate.
        depth: how many blocks below the classifier a parameter of the backbone is, by name: 1 for the highest block.
    """
    groups: dict[tuple[str, int], list[nn.Parameter]] = {}
    own = () if objective is None else objective.named_parameters(prefix="objective")
    for name, parameter in chain(network.named_parameters(), own):
        part = name.split(".")[0] if name.startswith(("classifier.", "objective.")) else "backbone"
        if not parameter.requires_grad:  # an average that the objective keeps
            continue
        # Norms are named weight too but have one dimension; what else is not decayed is named differently.
        decays = name.endswith("weight") and parameter.ndim >= 2
        below = depth[name] if depth is not None and part == "backbone" else 0
        groups.setdefault((f"{part}/{'decay' if decays else 'plain'}", below), []).append(parameter)
    adamw = AdamW(
        [
            {
                "name": name,
                "depth": below,
                "params": parameters,
                "weight_decay": config.weight_decay if name.endswith("/decay") else 0.0,
            }
            for (name, below), parameters in groups.items()
        ],
        lr=config.lr,
        fused=True,  # one pass over the weights, on GPUs and processors alike
    )
    set_rates(adamw, config.lr, config.backbone_lr_ratio, config.layer_decay)
    return adamw


def set_rates(optimizer: Optimizer, lr: float, backbone_ratio: float, layer_decay: float) -> None:
    """Set the rates of the groups of :func:`optimizer`: ``lr``, and lower ones for the backbone.

    The backbone's is ``lr * backbone_ratio``, times ``layer_decay`` for every block between a parameter and the
    classifier, its own included (Clark et al., "ELECTRA", ICLR 2020; Bao et al., "BEiT", ICLR 2022).
    """
    for group in optimizer.param_groups:
        backbone = group["name"].startswith("backbone/")
        group["lr"] = backbone_ratio * layer_decay ** group["depth"] * lr if backbone else lr


def rate(step: int, config: OptimConfig) -> float:
    """Return the learning rate of ``step`` (0 is the first) as a share of the peak, in (0, 1].

    It rises in a line over the first ``warmup_share`` of the steps and falls as half a cosine (Loshchilov and Hutter
    2017) that would reach 0 one step after the last.
    """
    assert 0 <= step < config.steps, "a step outside the schedule"
    warmup = round(config.warmup_share * config.steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (config.steps - warmup)))


class Average(AveragedModel):
    """An exponential moving average of a network; ``update_parameters`` after each step takes the network in.

    The n-th update after the first, which copies, keeps min(``ema_decay``, (1 + n) / (10 + n)) of the average, so a
    short run forgets its first weights. BatchNorm statistics are averaged with the weights when ``bn_images`` is 0;
    otherwise they are the network's latest, until :func:`reestimate_batchnorm` sets them.
    """

    def __init__(self, network: nn.Module, config: OptimConfig) -> None:
        super().__init__(network, use_buffers=config.bn_images == 0)
        self.requires_grad_(False)
        self._decay = config.ema_decay
        self._pairs: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights of ``model``, always the same network, into the average."""
        # AveragedModel walks through all modules at every step, which on a small network costs 5 % of it.
        if not self._pairs:
            self._pairs = _pairs(self.module, model, buffers=self.use_buffers)
        n = int(self.n_averaged)
        average, current = self._pairs["averaged"]
        if n == 0:
            torch._foreach_copy_(average, current)
        else:
            torch._foreach_lerp_(average, current, 1.0 - min(self._decay, (1 + n) / (10 + n)))
        if self._pairs["copied"][0]:
            torch._foreach_copy_(*self._pairs["copied"])
        self.n_averaged += 1


def _pairs(average: nn.Module, current: nn.Module, *, buffers: bool) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Return the tensors of which an average is kept and those of which the latest is, each with the network's."""
    pairs: dict[str, tuple[list[Tensor], list[Tensor]]] = {"averaged": ([], []), "copied": ([], [])}

    def add(kind: str, own: Tensor, other: Tensor) -> None:
        pairs[kind][0].append(own.detach())
        pairs[kind][1].append(other.detach())

    for own, other in zip(average.parameters(), current.parameters(), strict=True):
        add("averaged", own, other)
    for kept, latest in zip(average.buffers(), current.buffers(), strict=True):
        # Counters of batches have no average.
        add("averaged" if buffers and kept.is_floating_point() else "copied", kept, latest)
    return pairs


@torch.no_grad()
def reestimate_batchnorm(network: nn.Module, batches: Iterable[Tensor], frozen: Container[str] = ()) -> None:
    """Set the BatchNorm statistics of ``network`` to those of ``batches``, each batch counting alike.

    Only the BatchNorm layers work in training mode meanwhile, so dropout and stochastic depth stay off; modes and
    momentum are restored. Without BatchNorm layers, or without a batch, nothing changes and nothing is computed.

    Args:
        network: any module; averaged weights have no statistics of their own.
        batches: float films (B, C, H, W) in [0, 1], B >= 2, on the network's device.
        frozen: names of layers that keep their statistics.
    """
    norms = [
        module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and name not in frozen
    ]
    if not norms:
        return
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    try:
        network.eval()
        for norm in norms:
            norm.momentum = None  # the cumulative mean
            norm.train()
        for index, batch in enumerate(batches):
            if index == 0:
                for norm in norms:
                    norm.reset_running_stats()
            network(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
