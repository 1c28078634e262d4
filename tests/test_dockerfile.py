"""The Dockerfile, which no test can build: what it says, and that what it copies is enough to install."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from command_lines import REPOSITORY

from noisy_student import __version__

TEXT = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
STEPS = [
    (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
    for line in TEXT.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def said(word: str) -> list[str]:
    return [text for name, text in STEPS if name == word]


def test_it_runs_ns_as_a_user_without_rights() -> None:
    assert STEPS[0][0] == "FROM"
    (user,) = said("USER")
    assert user not in ("root", "0")
    assert any(re.search(rf"useradd .*\b{user}\b", text) for text in said("RUN"))
    names = [name for name, _ in STEPS]
    assert "RUN" not in names[names.index("USER") :]
    (entry,) = said("ENTRYPOINT")
    assert json.loads(entry) == ["ns"]
    assert "ns" in PROJECT["scripts"]


def test_its_python_is_one_that_the_package_takes() -> None:
    (image,) = said("FROM")
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim", image)
    assert version is not None
    assert (int(version[1]), int(version[2])) >= tuple(map(int, PROJECT["requires-python"].strip(">=").split(".")))


def test_it_is_one_pip_install_without_addresses_or_places_of_a_machine() -> None:
    installs = [text for text in said("RUN") if "pip install" in text]
    assert len(installs) == 1
    extras = re.search(r'"/source\[([a-z,-]+)\]"', installs[0])
    assert extras is not None
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert not re.search(r"://|index|/home/(?!ns)|/Users|/tmp|/mnt", TEXT)


def test_what_it_copies_is_there_passes_dockerignore_and_installs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    let_in = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    for text in said("COPY"):
        *names, target = text.split()
        for name in names:
            assert any(fnmatch(name, pattern) for pattern in let_in)
            if (REPOSITORY / name).is_dir():
                skip = shutil.ignore_patterns("__pycache__")
                shutil.copytree(REPOSITORY / name, source / target.removeprefix("/source/"), ignore=skip)
            else:
                shutil.copy(REPOSITORY / name, source / target.removeprefix("/source/"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "--target", str(tmp_path / "site"), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    command = [str(tmp_path / "site" / "bin" / "ns"), "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert shown.stdout == f"ns, version {__version__}\n", shown.stderr
    assert (tmp_path / "site" / "noisy_student" / "config" / "demo.yaml").is_file()
