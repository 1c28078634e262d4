"""docs/models.md and docs/prediction.md: lines parse, examples load, no setting is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from command_lines import REPOSITORY, check_line, code_lines

from noisy_student.config import ModelConfig, PredictionConfig
from noisy_student.config.load import load
from noisy_student.learning import models
from noisy_student.learning.blocks import blocks

PAGES = {name: (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("models", "prediction")}
LINES = [line for text in PAGES.values() for line in code_lines(text) if line.startswith("ns ")]


@pytest.mark.parametrize("line", LINES)
def test_commands_are_ones_that_ns_takes(line: str) -> None:
    check_line(line)


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", "".join(PAGES.values()), re.DOTALL))
def test_examples_load_and_change_what_they_name(example: str, tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(example)
    loaded, default = load(tmp_path / "example.yaml", ["data.labels=[A, B]"]), load(None, ["data.labels=[A, B]"])
    for section, said in yaml.safe_load(example).items():
        given, usual = getattr(loaded, section), getattr(default, section)
        assert given != usual
        assert all(getattr(given, key) != getattr(usual, key) for key in (said if isinstance(said, dict) else ()))


def test_every_setting_is_written_about() -> None:
    model = [key for key in ModelConfig.model_fields if not re.search(rf"`(model\.)?{key}\b", PAGES["models"])]
    assert model == []
    assert all(f"prediction.{key}" in PAGES["prediction"] for key in PredictionConfig.model_fields)


@pytest.mark.slow
def test_backbones_it_names_have_as_many_blocks_as_it_says() -> None:
    text = PAGES["models"]
    told = re.search(
        r"ResNet-18 has (\d+), ResNet-50 (\d+), DenseNet-121 (\d+).*?EfficientNet-B0 (\d+), ViT-B/16\s+(\d+)",
        text,
        re.S,
    )
    assert told is not None
    for name, count in zip(
        ("resnet18", "resnet50", "densenet121", "efficientnet_b0", "vit_b_16"), told.groups(), strict=True
    ):
        assert len(blocks(models.build(ModelConfig(name=name), ("a",), 3, 224, seed=0).backbone)) == int(count)
