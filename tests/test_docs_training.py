"""``docs/training.md`` against the settings: every loss and setting is in it, its examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from command_lines import REPOSITORY, check_line, code_lines

from noisy_student.config import Config, LossConfig, ModelConfig
from noisy_student.config.load import load
from noisy_student.config.loss import USED_BY
from noisy_student.learning import models
from noisy_student.learning.blocks import blocks

PAGE = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
LOSSES = re.search(r"Literal\[(.*?)\]", str(LossConfig.model_fields["name"].annotation))


def example(number: int, tmp_path: Path) -> Config:
    (tmp_path / "example.yaml").write_text(yaml.safe_dump(EXAMPLES[number]))
    return load(tmp_path / "example.yaml", ["data.labels=[A, B]"])


def test_every_loss_and_every_setting_of_it_has_its_place() -> None:
    assert LOSSES is not None
    names = re.findall(r"'(\w+)'", LOSSES[1])
    first = PAGE[: PAGE.index("## From logits")]
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", first, re.MULTILINE))
    assert list(rows) == [name for name in rows if name in names]
    assert set(rows) == set(names)
    for key, loss in USED_BY.items():
        default = LossConfig.model_fields[key].default
        shown = "" if default is None else f" m {default}" if key == "shift" else f" {default:g}"
        assert f"`{key}`{shown}" in rows[loss]
    undone = PAGE[PAGE.index("## From logits") :]
    assert all(f"| `{name}` |" in undone for name in [*names, "smoothing", "sampler"])


def test_the_examples_load_and_do_what_the_text_says(tmp_path: Path) -> None:
    assert len(EXAMPLES) == 4
    staged = example(0, tmp_path).teacher.stretches(100)
    assert [(part.does.trainable, part.first, part.stop) for part in staged] == [("head", 0, 200), ("all", 200, 2000)]
    gradual = example(1, tmp_path).teacher.stretches(100)
    assert [part.does.trainable for part in gradual] == ["head", 1, 2, "all"]
    assert gradual[-1].stop == 1000
    losses = example(2, tmp_path)
    assert (losses.teacher.loss.name, losses.teacher.pos_weight_cap) == ("asymmetric", 1)
    assert losses.student.loss.smoothing == 0.02
    assert example(3, tmp_path).teacher.sampler.positives == 2


def test_the_defaults_it_names() -> None:
    pretrained = load(None, ["teacher.model={name: resnet18, weights: imagenet}", "student.start=weights"]).teacher
    head, whole = pretrained.stretches(100)
    assert "for a tenth of the steps and\nthen everything at a tenth of the rate" in PAGE
    assert (head.does.trainable, head.stop * 10, whole.does.lr_ratio) == ("head", pretrained.optim.steps, 0.1)


@pytest.mark.parametrize(
    ("name", "count"), re.findall(r"\b(\w+) (?:has\n)?(\d+)(?=,|;)", PAGE.split("transformer. ")[1][:90])
)
def test_blocks_are_as_many_as_it_says(name: str, count: str) -> None:
    network = models.build(ModelConfig(name=name), ("a",), 3, 224, seed=0)
    assert len(blocks(network.backbone)) == int(count)


@pytest.mark.parametrize("line", [line for line in code_lines(PAGE) if line.startswith("ns ")])
def test_commands_are_ones_that_ns_takes(line: str) -> None:
    check_line(line)
