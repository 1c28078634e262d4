"""``ns doctor``: what this machine offers, and a check that the parts work together on it."""

from __future__ import annotations

import shutil
from typing import Any

import click

from noisy_student.cli import options


@click.command()
@options.as_json
@options.example("ns doctor")
def doctor(as_json: bool) -> None:
    """Say what this machine offers and whether ns works on it.

    Exits with 1 when a check fails.
    """
    facts, checks = examine()
    failed = [name for name, result in checks.items() if result != "ok"]
    if as_json:
        options.print_json({"facts": facts, "checks": checks, "ok": not failed})
    else:
        for name, value in (facts | checks).items():
            click.echo(f"{name:<22}{value}")
        click.echo("All checks passed." if not failed else f"Failed: {', '.join(failed)}")
    if failed:
        raise click.exceptions.Exit(1)


def examine() -> tuple[dict[str, Any], dict[str, str]]:
    """Return facts about the machine, and checks by name with "ok" or what went wrong."""
    from noisy_student import preparation
    from noisy_student.config import DataConfig

    facts: dict[str, Any] = dict(preparation.environment())
    checks: dict[str, str] = {}
    try:
        import torch

        facts["torch threads"] = torch.get_num_threads()
        facts["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (training runs on the CPU)"
        checks["one training step"] = _one_step()
    except (ImportError, RuntimeError, OSError) as error:
        checks["one training step"] = f"{type(error).__name__}: {error}"
    folder = preparation.cache_folder(DataConfig())
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    facts["cache folder"] = str(folder)
    facts["free for the cache"] = f"{shutil.disk_usage(existing).free / 1e9:.0f} GB"
    return facts, checks


def _one_step() -> str:
    import numpy as np
    import torch

    from noisy_student.config import ModelConfig, NoiseConfig
    from noisy_student.learning import augment, losses, models

    network = models.build(ModelConfig(), ("a", "b"), 1, 32, seed=0)
    noise = augment.Augment(NoiseConfig(), size=32, channels=1, device=torch.device("cpu"), seed=0, generation=0)
    places = np.arange(4, dtype=np.int64)
    films = noise(torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8), places, places)
    target, weight = torch.rand(4, 2), torch.ones(4, 2)
    total, _ = losses.weighted_bce(network(films), target, weight, None)
    total.backward()  # type: ignore[no-untyped-call]
    return "ok" if bool(torch.isfinite(total)) else "the loss is not finite"
