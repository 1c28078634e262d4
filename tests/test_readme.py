"""The README against what is there: commands parse, files exist, nothing is left out."""

from __future__ import annotations

import os
import re

import click
import pytest
from command_lines import REPOSITORY, check_line, code_lines, commands, parse

from noisy_student.cli import _COMMANDS

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
LINES = code_lines(README)
CALLS = [line for line in LINES if line.startswith("ns ")]
SCRIPTS = [match for line in LINES for match in re.findall(r"(?:^|\s)\./(\S+)", line)]
LINKS = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if not re.match(r"[a-z]+:|#", link)]


def test_there_is_something_to_check() -> None:
    assert len(CALLS) >= 5
    assert {"scripts/demo", "scripts/test"} <= set(SCRIPTS)
    assert LINKS


@pytest.mark.parametrize("line", CALLS)
def test_commands_are_ones_that_ns_takes(line: str) -> None:
    check_line(line)


@pytest.mark.parametrize(
    "line", ["ns iterat", "ns iterate --round 3 --nothing", "ns evaluate", "ns report a b", "ns data x"]
)
def test_a_wrong_line_would_be_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


def test_a_missing_config_would_be_found() -> None:
    with pytest.raises(AssertionError, match=r"there is no configs/none\.yaml"):
        check_line("ns iterate --config configs/none.yaml")


@pytest.mark.parametrize("name", sorted(set(SCRIPTS)))
def test_scripts_are_there_and_executable(name: str) -> None:
    assert os.access(REPOSITORY / name, os.X_OK)


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link: str) -> None:
    assert (REPOSITORY / link.split("#")[0]).exists()


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_is_mentioned(name: str) -> None:
    assert re.search(rf"\bns {name}\b", README)


def test_every_command_below_a_group_is_mentioned() -> None:
    nested = [" ".join(path) for path, _ in commands() if len(path) > 1]
    assert nested
    assert [name for name in nested if f"ns {name}" not in README] == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_command_at_the_head_of_a_config_is_one_that_ns_takes(path: os.PathLike[str]) -> None:
    calls = re.findall(r"^#\s+(ns .*)$", (REPOSITORY / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert calls
    for line in calls:
        check_line(line)
        assert f"configs/{REPOSITORY.joinpath(path).name}" in line
