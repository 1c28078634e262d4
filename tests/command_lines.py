"""Lines of documentation that call ``ns``: found in texts, and parsed by the real commands without running them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from noisy_student.cli import cli

REPOSITORY = Path(__file__).parents[1]


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below ``group`` with the words that call it, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def code_lines(markdown: str) -> list[str]:
    """Return the lines of the code blocks of a Markdown text, indented or fenced, without their indent."""
    found, fenced = [], False
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            found.append(line.strip())
    return found


def parse(line: str) -> click.Context:
    """Return the context of a line ``ns ...`` after its options and arguments were read; nothing is run.

    Raises:
        click.UsageError: the line is not one that ``ns`` takes.
    """
    words = shlex.split(line, comments=True)
    assert words[0] == "ns", line
    command: click.Command = cli
    rest = words[1:]
    context = click.Context(cli, info_name="ns")
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        below = command.get_command(context, rest[0])
        if below is None:
            raise click.UsageError(f"no such command: {line}")
        command, rest = below, rest[1:]
        context = click.Context(command, parent=context)
    return command.make_context(command.name, list(rest))


def check_line(line: str) -> None:
    """Fail unless ``ns`` takes ``line`` and the configuration it names is in the repository."""
    context = parse(line)
    named = context.params.get("config_path")
    assert named is None or (REPOSITORY / named).is_file(), f"{line}: there is no {named}"
    for pair in context.params.get("overrides", ()):
        assert re.fullmatch(r"[a-z0-9_.]+=.+", pair), f"{line}: {pair} sets nothing"
