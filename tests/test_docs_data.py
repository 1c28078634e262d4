"""``docs/`` against what there is: its commands parse, and settings and sources of ``data.md`` are all there."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from command_lines import REPOSITORY, check_line, code_lines, parse

from noisy_student.config import DataConfig, SplitConfig, TargetsConfig
from noisy_student.config.load import load

PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "docs").glob("*.md"))}
CALLS = {
    name: [line for line in code_lines(page) if re.match(r"(\.venv/bin/)?ns ", line)] for name, page in PAGES.items()
}
PAGE = PAGES["data.md"]


def test_the_pages_with_commands_are_read() -> None:
    assert {name for name, lines in CALLS.items() if lines} >= {"benchmarks.md", "data.md", "noise.md", "phantoms.md"}


@pytest.mark.parametrize(
    ("name", "line"),
    [(name, line) for name, lines in CALLS.items() for line in lines if name != "use.md"],  # test_docs_use.py has those
)
def test_commands_are_ones_that_ns_takes(name: str, line: str) -> None:
    check_line(line)
    context = parse(line)
    given = context.params
    # A word in capitals, such as seed=SEED, stands for a number.
    overrides = [pair for pair in given["overrides"] if not pair.split("=")[1].isupper()]
    if context.info_name == "synthetic":
        load(None, [f"data.synthetic.{pair}" for pair in overrides])
        return
    source = given.get("source")
    more = [f"data.source={source}", "data.root=."] if source else []
    load(given["config_path"] and REPOSITORY / given["config_path"], [*more, *overrides])


def test_every_source_has_a_command() -> None:
    sources = set(get_args(DataConfig.model_fields["source"].annotation)) - {"synthetic"}
    named = set(re.findall(r"source[= ](\w+)", " ".join(CALLS["data.md"])))
    for config in re.findall(r"configs/(\S+\.yaml)", " ".join(CALLS["data.md"])):
        named.add(load(REPOSITORY / "configs" / config).data.source)
    assert sources - named <= {"dicom"}


def test_the_settings_it_names_exist() -> None:
    split = set(re.findall(r"^\| `([^|]*)` \|", PAGE.split("| setting of `split`")[1].split("\n\n")[0], re.MULTILINE))
    keys = {key.split(":")[0] for row in split for key in row.split("`, `")}
    assert keys <= set(SplitConfig.model_fields)
    assert len(keys) >= 10
    for key in re.findall(r"`targets\.(\w+)`", PAGE):
        assert key in TargetsConfig.model_fields
