"""docs/use.md against the commands: every line parses, and every option is written about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from command_lines import REPOSITORY, code_lines, commands, parse

TEXT = (REPOSITORY / "docs" / "use.md").read_text(encoding="utf-8")
LINES = [line for line in code_lines(TEXT) if line.startswith("ns ")]
COMMANDS = {" ".join(path): command for path, command in commands()}


@pytest.mark.parametrize("line", LINES)
def test_commands_are_ones_that_ns_takes(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    if "--calibration" in words:
        named = Path(words[words.index("--calibration") + 1])
        named.parent.mkdir(parents=True)
        named.touch()
    assert parse(line).info_name == words[1]


@pytest.mark.parametrize("name", ["predict", "export"])
def test_every_option_of_its_own_is_written_about(name: str) -> None:
    everywhere = {"--device", "--json", "--quiet"}
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option) and not everywhere & set(option.opts):
            assert any(re.search(rf"(^|[ `]){re.escape(word)}\b", TEXT, re.MULTILINE) for word in option.opts), (
                option.opts
            )


def test_there_is_something_to_check() -> None:
    assert {line.split()[1] for line in LINES} == {"predict", "export"}
