"""``docs/method.md`` against the settings: every option is in it with its default, its examples do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from command_lines import REPOSITORY

from noisy_student.config import (
    ConsistencyConfig,
    FinetuneConfig,
    PretrainConfig,
    PromotionConfig,
    PseudoConfig,
    SamplerConfig,
    SelectConfig,
)
from noisy_student.config.load import load

PAGE = (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
FILMS, START = (
    PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    for title in ("Which films a student sees", "A start without labels")
)


def choices(section: type[Any], key: str) -> tuple[str, ...]:
    return get_args(section.model_fields[key].annotation)


@pytest.mark.parametrize("section", [PseudoConfig, SelectConfig, ConsistencyConfig, PromotionConfig])
def test_every_setting_is_named(section: type[Any]) -> None:
    for key in section.model_fields:
        assert re.search(rf"`(?:\w+\.)*{key}\b", PAGE), key


def test_every_setting_of_the_start_is_named_with_its_default() -> None:
    start = PretrainConfig()
    for key in PretrainConfig.model_fields:
        assert f"`pretrain.{key}" in START, key
    for key in ("method", "pairs"):
        for choice in choices(PretrainConfig, key):
            assert (f"**`{choice}`**" if choice == getattr(start, key) else f"{choice}`") in START
    assert f"with {start.optim.steps:,} steps at a rate of 2e-3" in START
    assert start.optim.lr == 2e-3
    assert f"`pretrain.hidden` and `pretrain.width` ({start.hidden:,} and {start.width}) " in START


def test_settings_that_say_which_films_a_student_sees_are_named_with_their_defaults() -> None:
    assert f"`sampler.pool_balance` (**{SamplerConfig().pool_balance:g}**)" in FILMS
    assert (FinetuneConfig().films, FinetuneConfig().noise) == ("all", True)
    for words in ("`films: labelled`", "`films` is **`all`**", "`noise: false`", "`noise` is **`true`**"):
        assert words in FILMS


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
    default, page = section.model_fields[key].default, PAGE.replace(START, "")  # its default is a `none` too
    for choice in choices(section, key):
        assert f"**`{choice}`**" in page if choice == default else f"`{choice}`" in page


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
