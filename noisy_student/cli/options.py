"""Options that several commands share, and what they do: output, progress, stopping on SIGTERM."""

from __future__ import annotations

import errno
import inspect
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

config = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="YAML file; without it, the synthetic demo."
)
overrides = click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Set one key; repeatable.")
output = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run directory.  [default: runs/<name of the config>]"
)
resume = click.option("--resume", is_flag=True, help="Go on with the run; a finished one is left as it is.")
overwrite = click.option("--overwrite", is_flag=True, help="Delete the run first (only a directory ns made).")
dry_run = click.option("--dry-run", is_flag=True, help="Check settings and tables, print the plan, write nothing.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
labels = click.option(
    "--labels",
    callback=lambda _context, _option, text: tuple(filter(None, map(str.strip, (text or "").split(",")))),
    metavar="A,B",
    help="With --truth: measure these labels only.  [default: all that the tables have in common]",
)
tensorboard = click.option(
    "--tensorboard", is_flag=True, help="Write the curves of metrics.jsonl for TensorBoard too, to RUN/tensorboard."
)
run_argument = click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
quiet = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")


def verbosity(command: Command) -> Command:
    """Return the command with ``-v`` (every stage) and ``-q`` (nothing but the result)."""
    command = click.option("-v", "--verbose", is_flag=True, help="Name every stage as it ends.")(command)
    return click.option("-q", "--quiet", is_flag=True, help="Print nothing but the result.")(command)


def example(text: str) -> Callable[[Command], Command]:
    """Return a decorator that ends a command's help with an example."""

    def decorate(command: Command) -> Command:
        lines = "\n".join(f"  {line}" for line in text.splitlines())
        command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n\b\nExample:\n{lines}\n"
        return command

    return decorate


def print_json(value: Any) -> None:
    """Print ``value`` on standard output as JSON."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def show_progress(quiet: bool) -> bool:
    """Return whether progress bars make sense: asked for, and somebody is there to see them."""
    return not quiet and sys.stderr.isatty()


@contextmanager
def hint_on_failure(hint: str) -> Iterator[None]:
    """Give a failing write this command's own hint: files outside a run know neither --output nor --resume."""
    from noisy_student.errors import StorageError

    try:
        yield
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free some space, then run the same command again."
        raise StorageError(error.message, hint) from error


def speaker(verbose: bool) -> Callable[[str], None]:
    """Return a function that tells the user, on standard error, what happened; silent unless ``verbose``."""
    return (lambda text: click.echo(text, err=True)) if verbose else (lambda _: None)


@contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM has come: the work then ends at its next safe point."""
    stopped = False

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield lambda: stopped
    finally:
        signal.signal(signal.SIGTERM, before)
