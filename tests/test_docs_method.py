"""``docs/method.md`` against the settings: every option is in it with its default, its examples do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from command_lines import REPOSITORY

from noisy_student.config import ConsistencyConfig, PromotionConfig, PseudoConfig, SelectConfig
from noisy_student.config.load import load

PAGE = (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def choices(section: type[Any], key: str) -> tuple[str, ...]:
    return get_args(section.model_fields[key].annotation)


@pytest.mark.parametrize("section", [PseudoConfig, SelectConfig, ConsistencyConfig, PromotionConfig])
def test_every_setting_is_named(section: type[Any]) -> None:
    for key in section.model_fields:
        assert re.search(rf"`(?:\w+\.)*{key}\b", PAGE), key


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (SelectConfig, "rule"),
        (ConsistencyConfig, "method"),
        (PromotionConfig, "rule"),
        (PromotionConfig, "measure"),
        (PromotionConfig, "undecided"),
    ],
)
def test_every_choice_is_named_and_the_default_is_bold(section: type[Any], key: str) -> None:
    default = section.model_fields[key].default
    for choice in choices(section, key):
        assert f"**`{choice}`**" in PAGE if choice == default else f"`{choice}`" in PAGE


def test_the_examples_are_read(tmp_path: Path) -> None:
    for number, tree in enumerate(EXAMPLES):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(tree))
        config = load(path, ["data.labels=[A, B]"])
        assert config != load(None, ["data.labels=[A, B]"])
    assert len(EXAMPLES) == 3


def test_the_defaults_it_gives_are_those_of_the_settings() -> None:
    select, term = SelectConfig(), ConsistencyConfig()
    assert f"`confidence` {select.confidence} |" in PAGE
    assert f"`precision` {select.precision} of" in PAGE
    assert f"`confidence` {term.confidence} |" in PAGE
    assert f"`weight` ({term.weight:g})" in PAGE
    assert f"`ramp` ({term.ramp})" in PAGE
    assert f"`strength` ({term.strength:g})" in PAGE
    assert f"`momentum` {term.momentum}" in PAGE
    assert f"`pseudo.weight_power` {PseudoConfig().weight_power}**" in PAGE
