"""``docs/scaling.md`` against the formula, the configurations and the commands it names."""

from __future__ import annotations

import re
import shlex

import pytest
from command_lines import REPOSITORY, check_line, code_lines
from torch.distributed.run import get_args_parser

from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.learning.batches import RESIDENT_SHARE

PAGE = (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
LINES = code_lines(PAGE)
FILMS = 223_414 + 234 + 668
DECODED = 2560
NUMBER = r"([\d.]+)"
HOURS = re.findall(
    rf"^\| `(\w+)` \| (\d+) \| `(\S+)`(?:, (\d) rounds?)? \| {NUMBER} \| {NUMBER} "
    rf"\| (\d+), {NUMBER} \| {NUMBER} \| (.*) \|$",
    PAGE,
    re.MULTILINE,
)
BYTES = re.findall(r"^\| (\d+) \| (\d) \| ([\d.]+) GB \| ([\d.]+) GB \|$", PAGE, re.MULTILINE)


def hours(config: Config, rounds: int, v: float, u: float, processes: int, efficiency: float) -> float:
    """Return the formula of the page; with epochs, of the films that a student of this configuration learns from."""
    teacher, student = config.teacher, config.student
    seen = (teacher.total_steps(None) or 0) * teacher.optim.batch_size
    steps = student.total_steps(FILMS)
    assert steps is not None
    seen += rounds * steps * student.optim.batch_size
    asked = (rounds + 1) * FILMS
    return (config.folds * (seen / v + asked / u) / (processes * efficiency) + FILMS / DECODED) / 3600


@pytest.mark.parametrize("row", HOURS, ids=lambda row: f"{row[0]}-{row[1]}-{row[6]}")
def test_hours_are_those_of_the_formula(row: tuple[str, ...]) -> None:
    name, size, path, rounds, v, u, processes, efficiency, said, note = row
    config = load(REPOSITORY / path)
    assert (config.student.model.name, config.data.image_size) == (name, int(size))
    found = hours(config, int(rounds or 3), float(v), float(u), int(processes), float(efficiency))
    assert float(said) == (round(found, 1) if found < 10 else round(found))
    assert ("CPU" in note) != ("**not measured**" in note)


def test_there_are_rows_and_the_numbers_of_the_configuration_are_its_own() -> None:
    assert len(HOURS) == 6
    config = load(REPOSITORY / "configs" / "chexpert.yaml")
    for phase, words in ((config.teacher, "2,000, 64"), (config.student, "20,000, 128")):
        assert f"{phase.optim.steps:,}, {phase.optim.batch_size}" == words
        assert f"| {words} |" in PAGE
    assert f"| {FILMS:,} |" in PAGE
    assert (config.folds, config.prediction.tta) == (1, "none")


@pytest.mark.parametrize("row", BYTES, ids="-".join)
def test_memory_is_a_byte_for_each_pixel(row: tuple[str, ...]) -> None:
    size, channels, decoded, free = row
    found = FILMS * int(channels) * int(size) ** 2
    assert (float(decoded), float(free)) == (round(found / 1e9, 1), round(found / RESIDENT_SHARE / 1e9, 1))


def test_what_is_said_of_residence() -> None:
    assert len(BYTES) == 4
    assert f"at most {RESIDENT_SHARE:g} of what is free" in PAGE


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("torchrun ")])
def test_torchrun_takes_its_options_and_ns_the_rest(line: str) -> None:
    given = get_args_parser().parse_args(shlex.split(line)[1:])
    assert (given.module, given.training_script) == (True, "noisy_student")
    processes = int(given.nnodes.split(":")[-1]) * int(given.nproc_per_node)
    check_line(shlex.join(["ns", *given.training_script_args]))
    named = given.training_script_args[given.training_script_args.index("--config") + 1]
    config = load(REPOSITORY / named)
    assert config.teacher.optim.batch_size % processes == config.student.optim.batch_size % processes == 0


@pytest.mark.parametrize("line", [line for line in LINES if re.search(r"(^| )(sbatch|python) ", line)])
def test_scripts_and_configurations_are_there(line: str) -> None:
    words = shlex.split(line, comments=True)
    script = next(word for word in words if word.startswith("scripts/"))
    text = (REPOSITORY / script).read_text(encoding="utf-8")
    after = words[words.index(script) + 1 :]
    if script.endswith(".sbatch"):
        check_line(shlex.join(["ns", "iterate", *after]))
        for name, value in (word.split("=", 1) for word in words if word.startswith("NS_")):
            assert f"${{{name}:-" in text
            assert not value.endswith(".yaml") or (REPOSITORY / value).is_file()
    for option in [word for word in after if word.startswith("--")] if script.endswith(".py") else []:
        assert f'"{option}"' in text


def test_every_variable_of_the_slurm_script_is_named() -> None:
    text = (REPOSITORY / "scripts" / "slurm" / "iterate.sbatch").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(NS_\w+)", text)) == set(re.findall(r"`(NS_\w+)`", PAGE)) - {"NS_CACHE"}


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) < 120
