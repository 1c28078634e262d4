"""``ns config``: every setting with its value and what it means, as a YAML file to start from."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import click

from noisy_student.cli import options

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from noisy_student.config.base import Section

_INDENT: Final = "  "
_WIDTH: Final = 110
"""Characters of a line of comment."""


@click.command("config")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="YAML file; without it, the defaults.")
@options.overrides
@options.as_json
@options.example("ns config\nns config --config configs/chexpert.yaml --set seed=1 --json")
def config(config_path: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print every setting with its value and its meaning, as YAML.

    Without --config the values are the defaults (the demo's are in configs/demo.yaml); with it, those of the file and
    the defaults of the rest. The output is itself a file for --config.
    """
    from noisy_student.config.load import load, resolved

    settings = load(config_path, overrides)
    if as_json:
        options.print_json(resolved(settings))
        return
    click.echo("\n".join(_lines(settings, resolved(settings), "")))


def _lines(section: Section, values: dict[str, Any], indent: str) -> Iterator[str]:
    """Yield the lines of a section; ``values`` are its settings as plain values."""
    import yaml

    from noisy_student.config.base import Section

    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        yield from (f"{indent}# {line}" for line in _described(field))
        if isinstance(value, Section):
            yield f"{indent}{key}:"
            yield from _lines(value, values[key], indent + _INDENT)
        else:
            text = yaml.safe_dump(values[key], default_flow_style=True, allow_unicode=True, width=float("inf"))
            text = text.removesuffix("...\n").strip()  # a bare value is followed by an end mark
            text = json.dumps(values[key]) if "\n" in text else text
            yield f"{indent}{key}: {text}"


def _described(field: FieldInfo) -> list[str]:
    """Return the lines that say what a setting means and, of a choice, what there is to choose from."""
    # Documentation is written for several lines of code: joined, and without the marks of reStructuredText.
    text = " ".join((field.description or "").split()).replace("``", "'")
    if get_origin(field.annotation) is Literal:
        text += f" One of {', '.join(map(str, get_args(field.annotation)))}."
    return textwrap.wrap(text, _WIDTH)
