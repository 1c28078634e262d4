"""``docs/data.md`` against what there is: its commands parse, its settings exist, every source has a section."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from command_lines import REPOSITORY, check_line, code_lines, parse

from noisy_student.config import DataConfig, SplitConfig, TargetsConfig
from noisy_student.config.load import load

PAGE = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
CALLS = [line for line in code_lines(PAGE) if line.startswith("ns ")]


@pytest.mark.parametrize("line", CALLS)
def test_commands_are_ones_that_ns_takes(line: str) -> None:
    check_line(line)
    given = parse(line).params
    if given["config_path"] is None:
        more = [f"data.source={given['source']}", "data.root=."] if given["source"] else []
        load(None, [*more, *given["overrides"]])


def test_every_source_has_a_command() -> None:
    sources = set(get_args(DataConfig.model_fields["source"].annotation)) - {"synthetic"}
    named = set(re.findall(r"source[= ](\w+)", " ".join(CALLS)))
    for config in re.findall(r"configs/(\S+\.yaml)", " ".join(CALLS)):
        named.add(load(REPOSITORY / "configs" / config).data.source)
    assert sources - named <= {"dicom"}


def test_the_settings_it_names_exist() -> None:
    split = set(re.findall(r"^\| `([^|]*)` \|", PAGE.split("| setting of `split`")[1].split("\n\n")[0], re.MULTILINE))
    keys = {key.split(":")[0] for row in split for key in row.split("`, `")}
    assert keys <= set(SplitConfig.model_fields)
    assert len(keys) >= 10
    for key in re.findall(r"`targets\.(\w+)`", PAGE):
        assert key in TargetsConfig.model_fields
