"""What is checked before a run, so that nothing fails only when training gets there: networks, weights, the device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noisy_student import origins
from noisy_student.config import Config, PhaseConfig
from noisy_student.errors import ConfigError, ConfigWarning, NoisyStudentError


def weight_folders(config: Config) -> list[Path]:
    """Return the folders in which a relative weights file is looked up, in order."""
    folders = [Path(os.environ["NS_WEIGHTS"])] if os.environ.get("NS_WEIGHTS") else []
    folders.append(Path.cwd())
    if config.data.root is not None:
        folders += [config.data.root, config.data.root.resolve().parent / "weights"]
    return folders


def check_settings(config: Config, device: str, *, weights: bool = True) -> None:
    """Check what would otherwise fail only when training gets there: the networks, their weights, the device.

    Weights that may have seen labels of the pool or the test films are warned of.

    Raises:
        ConfigError: a network is not known, or not with these settings, has fewer blocks than are to learn, or its
            normalisation contradicts its weights.
        WeightsError: the weights are not there, or belong to another network.
        UsageError: there is no such device.
    """
    from noisy_student.learning import finetune, models, predict
    from noisy_student.learning.blocks import blocks

    predict.best_device(device)
    folders = weight_folders(config)
    cautions: dict[str | None, None] = {}
    networks = [
        (generation, number, phase)
        for generation in config.phases()
        for number, phase in enumerate(config.networks(generation))
        if config.folds == 1 or number in (0, config.folds)  # those of folds are alike
    ]
    for generation, number, phase in networks:
        model = phase.model
        with _placed(config, generation, number):
            network = models.build(model, config.data.labels, config.data.channels, config.data.image_size, seed=0)
            if phase.optim.bn_images == 1 and finetune.has_statistics(network):
                raise ConfigError(
                    "optim.bn_images: 1 film has no variance, which batch norm needs", "Set it to 0 or to 2 and more."
                )
            if phase.optim.freeze_bn and not finetune.has_statistics(network.backbone):
                raise ConfigError(
                    f"optim.freeze_bn: {model.name} has no batch norm whose statistics could be kept",
                    "Leave it out.",
                )
            depth = finetune.depths(blocks(network.backbone))
            for part in phase.phases():
                finetune.learning_names(network, part, depth)
            if phase.start == "weights" and not config.starts_from_pretraining(generation, number):
                _check_untaught(phase, max(depth.values(), default=0))
            if weights or model.weights in origins.BY_NAME:
                models.check_weights(network, model, folders)
            if phase.start == "weights" and (weights or model.weights.startswith(origins.XRV)):
                cautions[origins.caution(config, model.weights, folders)] = None
    for sentence in filter(None, cautions):
        warnings.warn(sentence, ConfigWarning, stacklevel=2)


def _check_untaught(phase: PhaseConfig, count: int) -> None:
    """Raise where the first stretch leaves blocks (of ``count``) as they are that ``lowest`` begins anew."""
    kept, first = phase.model.pretrained_blocks, phase.phases()[0].trainable
    if kept is not None and isinstance(first, int) and first < count - kept:
        raise ConfigError(
            f"optim.phases: the first of them (trainable: {first}) leaves layers as they start, and of {count} blocks "
            f"the highest {count - kept} begin anew (model.pretrained_blocks: {kept})",
            f"Give {count - kept} or more, or 'all'.",
        )


@contextmanager
def _placed(config: Config, generation: int, number: int) -> Iterator[None]:
    """Put the phase or the member in front of an error about a key of a network: ``student.members.1.model.name``."""
    try:
        yield
    except NoisyStudentError as error:
        section = error.message.partition(".")[0]
        if section not in PhaseConfig.model_fields:
            raise
        base = "teacher" if generation == 0 else "student"
        own = getattr(config.networks(generation)[number], section)
        changes = config.generations.get(generation, {})
        if own == getattr(getattr(config, base), section):
            place = base
        elif own == getattr(config.phase(generation), section):
            place = f"generations.{generation}"
        else:
            kind = "members" if config.phase(generation).members else "refit"
            place = f"generations.{generation}" if kind in changes else base
            place += f".members.{number}" if kind == "members" else ".refit"
        raise type(error)(f"{place}.{error.message}", error.hint) from error
