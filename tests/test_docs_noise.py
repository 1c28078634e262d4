"""``docs/noise.md`` against the policy: its table has every operation as it is, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from command_lines import REPOSITORY

from noisy_student.config import NoiseConfig
from noisy_student.config.load import load
from noisy_student.config.noise import OPERATIONS

PAGE = (REPOSITORY / "docs" / "noise.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| (always|optional|off)(?:, probability ([\d.]+))? \| ([\d.]+) \|", PAGE, re.MULTILINE)
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_has_every_operation_in_order() -> None:
    assert [row[0] for row in ROWS] == list(OPERATIONS)


@pytest.mark.parametrize(("name", "used", "probability", "reach"), ROWS)
def test_the_table_says_what_an_operation_does(name: str, used: str, probability: str, reach: str) -> None:
    operation = NoiseConfig().operations()[name]
    assert operation.optional == (used == "optional")
    assert operation.probability == float(probability or 1)
    assert (operation.probability == 0) == (used == "off")
    assert operation.range == float(reach)


def test_the_defaults_it_names() -> None:
    assert f"{NoiseConfig().strength:g} (the default" in PAGE
    assert f"`count` ({NoiseConfig().count} by default)" in PAGE


def test_the_examples_load_and_do_what_the_text_says(tmp_path: Path) -> None:
    one, by_generation = (yaml.safe_load(text) for text in EXAMPLES)
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(one))
    noise = load(path).student.noise
    assert (noise.strength, noise.count, noise.flip.probability) == (6, 1, 0)
    assert noise.rotate.range == 10
    assert noise.rotate.probability == 1
    assert noise.gaussian.range == NoiseConfig().gaussian.range
    assert not noise.gaussian.optional
    path.write_text(yaml.safe_dump(by_generation))
    config = load(path)
    phases = [config.phase(generation).noise for generation in range(5)]
    assert [noise.strength for noise in phases[1:4]] == [4, 7, 9]
    assert [noise.mixup.probability for noise in phases[1:]] == [0, 0.3, 0.5, 0]
    assert phases[0] == config.teacher.noise
    assert phases[4] == config.student.noise
