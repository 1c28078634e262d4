"""The command line ``ns``: commands are loaded when they are called, so that help is instant."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

import click

from noisy_student import __version__, launch
from noisy_student.errors import ConfigWarning, NoisyStudentError

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "iterate": ("runs", "Train a teacher and several noisy students; report every generation."),
    "train-teacher": ("runs", "Train generation 0 on the labelled films."),
    "pseudo-label": ("runs", "Label the pool with the current teacher."),
    "train-student": ("runs", "Train the next generation on labels and pseudo-labels."),
    "evaluate": ("evaluate", "Measure every trained generation, or any table of scores."),
    "compare": ("compare", "Put runs and tables of scores side by side on the same test cases."),
    "recalibrate": ("recalibrate", "Fit a new calibration to local labels."),
    "predict": ("predict", "Score films with a trained model, as a CSV."),
    "export": ("export", "Write a trained model to a folder that stands alone."),
    "report": ("runs", "Write the reports from the files of a run."),
    "augment-preview": ("augment_preview", "Draw what the input noise does to films of the data set."),
    "data": ("data", "Look at a data set, split it, check it, prepare it."),
    "synthetic": ("synthetic", "Write a synthetic data set in CheXpert's layout."),
    "config": ("settings", "Print every setting with its value and its meaning."),
    "doctor": ("doctor", "Say what this machine offers and whether ns works on it."),
}
"""Command -> (module of this package, first line of its help)."""

_SHARED: Final = {"iterate", "train-teacher", "pseudo-label", "train-student", "evaluate"}
"""Commands that several processes, started by ``torchrun``, do together."""


class _Commands(click.Group):
    """A group that imports the module of a command only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"noisy_student.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        name = args[0] if args else ""
        count = launch.processes()
        if name in _COMMANDS and name not in _SHARED and count > 1:
            raise click.UsageError(f"ns {name} is done by one process, and {count} were started ($WORLD_SIZE).")
        if name and not name.startswith("-") and name not in _COMMANDS:
            near = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ns")
def cli() -> None:
    """Semi-supervised chest X-ray classification: few labels, many films.

    A teacher learns from the labelled films, labels the rest, and noisy students learn from both. Without data,
    `ns iterate` makes synthetic films and runs on them.

    \b
    Example:
      ns iterate --config configs/chexpert.yaml --set data.root=/data/CheXpert-v1.0-small --rounds 3

    Research software. Not for clinical use.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code (0 done, 1 failed, 2 usage, 3 data, 4 diverged, 75, 130)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warner(warnings.showwarning)
            code = cli.main(given, prog_name="ns", standalone_mode=False)
    except NoisyStudentError as error:
        _complain(given, error.message, error.hint, error.exit_code)
    except click.ClickException as error:
        if launch.rank():
            sys.exit(error.exit_code)  # the first process says the same
        if "--json" in given:
            _complain(given, error.format_message(), "See ns --help.", error.exit_code)
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        hint = "Run ns iterate or train-teacher with --resume to go on; the other commands just again."
        _complain(given, "interrupted", hint, 128 + signal.SIGINT)
    # Not in standalone mode, click returns the code of an Exit instead of raising it.
    sys.exit(code if isinstance(code, int) else 0)


def _warner(others: Callable[..., None]) -> Callable[..., None]:
    """Return what prints our warnings as sentences, and hands the others on."""

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, ConfigWarning):
            if launch.rank():
                return  # the first process says the same
            click.echo(f"ns: warning: {message}", err=True)
        else:
            others(message, category, *place)

    return show


def _complain(arguments: list[str], message: str, hint: str, code: int) -> None:
    if "--json" in arguments:
        click.echo(json.dumps({"error": message, "hint": hint, "exit_code": code}))
    click.echo(f"ns: process {launch.rank()}: {message}" if launch.rank() else f"ns: {message}", err=True)
    if hint:
        click.echo(f"    {hint}", err=True)
    sys.exit(code)
