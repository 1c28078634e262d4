"""The rules of import, as tables. A new module of the package has to find its place in ``LEVELS``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import noisy_student

PACKAGE = Path(noisy_student.__file__).parent
NAME = "noisy_student"
LONGEST = 400

LEVELS: tuple[tuple[str, ...], ...] = (
    ("labels", "errors", "launch", "randomness"),
    ("runs",),
    ("best", "config"),
    ("stats",),
    ("data",),
    ("targets", "origins"),
    ("learning",),
    ("measures",),
    ("event_files", "preparation", "scoring", "workplace"),
    ("evaluation", "prediction"),
    ("gallery", "plan", "preflight", "promotion"),
    ("illustration", "training"),
    ("external", "ranks", "teaching"),
    ("comparison", "recalibration"),
    ("stages",),
    ("generations",),
    ("deploy",),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""A unit (a module or folder of the package) imports only from levels above it in this list, and from itself."""

REPORTING_IMPORTS = {"runs", "best", "stats", "labels", "errors"}
REPORTING_USERS = {"stages", "generations", "deploy", "api", "cli"}
"""Reports are made from the files of a run alone, so ``reporting`` stands beside the levels."""

TENSORS = {"torch", "torchvision", "kornia", "timm", "torchxrayvision", "onnx", "onnxruntime", "onnxscript"}
LAZY_TENSORS = {"workplace", "prediction", "training", "illustration", "deploy.model", "cli.doctor"}
"""Outside ``learning``, these import tensors, and only inside functions: everything else starts without torch."""

LEARNING_MEETS_IN = {"course", "fit", "goals", "state", "sweep", "predict", "asking"}
"""Training (its loop, what it minimises, where it stands, its learning-rate sweep) and prediction."""
LEARNING_PAIRS = {
    ("batches", "distributed"),
    ("objectives", "distributed"),
    ("checkpoint", "models"),
    ("models", "blocks"),
    ("onnx_graph", "deployed"),
}
"""Modules of ``learning`` do not import each other, but these."""


@dataclass(frozen=True)
class Import:
    """One imported module, where it stands, and whether it is imported when the file is."""

    target: str
    line: int
    at_once: bool


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Yield what ``source``, the text of ``module``, imports; a name taken from a package counts as its module."""
    tree = ast.parse(source)
    late = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_for_types(node)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno, node not in late)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".") if is_package else module.split(".")[:-1]
                above = parts[: len(parts) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for name in node.names:
                yield Import(f"{base}.{name.name}", node.lineno, node not in late)
        elif isinstance(node, ast.Call) and _imports_by_name(node):
            argument = node.args[0]
            text = argument.values[0] if isinstance(argument, ast.JoinedStr) else argument
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                yield Import(text.value.rstrip("."), node.lineno, node not in late)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imports_by_name(node: ast.Call) -> bool:
    return bool(node.args) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")


def level_of(unit: str) -> int | None:
    """Return the level of a unit, ``None`` where it has none."""
    return next((number for number, units in enumerate(LEVELS) if unit in units), None)


def complaint(module: str, found: Import) -> str | None:
    """Return what is wrong with an import of ``module`` (without the package's name), ``None`` if nothing is."""
    unit, root = module.split(".")[0], found.target.split(".")[0]
    if root in TENSORS and unit != "learning":
        if module not in LAZY_TENSORS:
            return "only learning imports tensors"
        return "torch is imported inside functions here" if found.at_once else None
    if root != NAME:
        return None
    path = found.target.split(".")[1:]
    if not path or path[0] == "__version__":
        return None
    return _within(module.split("."), path, found.at_once)


def _within(module: list[str], target: list[str], at_once: bool) -> str | None:
    unit, other = module[0], target[0]
    if unit == other:
        pair = (module[1] if len(module) > 1 else "", target[1] if len(target) > 1 else "")
        if unit != "learning" or pair[0] in LEARNING_MEETS_IN or pair in LEARNING_PAIRS or pair[0] == pair[1]:
            return None
        return "modules of learning meet in fit and predict"
    if unit == "reporting":
        return None if other in REPORTING_IMPORTS else "reporting reads the files of a run and imports nothing else"
    if other == "reporting":
        return None if unit in REPORTING_USERS else "reports are made by stages and commands"
    own, others = level_of(unit), level_of(other)
    if own is None or others is None:
        return f"'{unit if own is None else other}' has no place in LEVELS of {Path(__file__).name}"
    if others >= own:
        return "imports run one way"
    if other == "learning" and at_once:
        return "learning brings torch: import it inside functions"
    return None


def modules() -> Iterator[tuple[Path, str]]:
    """Yield every file of the package and the name of its module without the package's name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield path, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(path: str, module: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return one line per forbidden import: file, line, what is imported, and the rule."""
    if not module:
        # noisy_student/__init__.py: everything imports it, so it imports nothing of ours at once.
        found = (item for item in imports(source, NAME, is_package=True) if item.at_once)
        return [
            f"{path}:{item.line}: imports {item.target} (the package itself imports nothing at once)"
            for item in found
            if item.target.split(".")[0] in TENSORS | {NAME}
        ]
    return [
        f"{path}:{item.line}: {module} imports {item.target} ({wrong})"
        for item in imports(source, f"{NAME}.{module}", is_package=is_package)
        if (wrong := complaint(module, item)) is not None
    ]


def test_imports_run_one_way() -> None:
    found = []
    for path, module in modules():
        source, name = path.read_text(encoding="utf-8"), str(path.relative_to(PACKAGE.parent))
        found += violations(name, module, source, is_package=path.name == "__init__.py")
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "bad"),
    [
        ("stats.metrics", "from noisy_student.data import manifest", "noisy_student.data.manifest"),
        ("stats.metrics", "from noisy_student.errors import DataError", None),
        ("labels", "import noisy_student.errors", "noisy_student.errors"),
        ("config.load", "from noisy_student.runs import read_json", None),
        ("runs", "from noisy_student.config import Config", "noisy_student.config.Config"),
        ("data.cache", "def f():\n    import noisy_student.targets.table", "noisy_student.targets.table"),
        ("data.cache", "from ..targets import table", "noisy_student.targets.table"),
        ("data.cache", "from . import decode", None),
        ("data.cache", "from noisy_student.data.decode import decode", None),
        ("data.cache", "def f():\n    import torch", "torch"),
        ("targets.table", "import kornia.geometry as k", "kornia.geometry"),
        ("data.decode", "if True:\n    from torchvision.io import decode_image", "torchvision.io.decode_image"),
        ("data.decode", "from importlib import import_module\nimport_module('torch.nn')", "torch.nn"),
        ("cli", "import_module(f'noisy_student.cli.{name}')", None),
        ("stages", "import torch", "torch"),
        ("training", "import timm", "timm"),
        ("training", "def f():\n    import torch", None),
        ("training", "if TYPE_CHECKING:\n    import torch", None),
        ("stages", "from noisy_student.learning import fit", "noisy_student.learning.fit"),
        ("stages", "def f():\n    from noisy_student.learning import fit", None),
        ("generations", "def f():\n    import torch", "torch"),
        ("cli.doctor", "async def f():\n    import torch", None),
        ("cli.runs", "class A:\n    import torch", "torch"),
        ("learning.optim", "import torch", None),
        ("learning.optim", "from noisy_student.learning import models", "noisy_student.learning.models"),
        ("learning.optim", "from noisy_student.learning.models import build", "noisy_student.learning.models.build"),
        ("learning.models", "from noisy_student.learning import checkpoint", "noisy_student.learning.checkpoint"),
        ("learning.checkpoint", "from noisy_student.learning.models import build", None),
        ("learning.fit", "from noisy_student.learning import augment, optim", None),
        ("learning.fit", "from noisy_student import evaluation", "noisy_student.evaluation"),
        ("reporting.report", "from noisy_student.config import Config", "noisy_student.config.Config"),
        ("reporting.report", "from noisy_student.runs import Run", None),
        ("reporting.report", "from noisy_student.reporting import page", None),
        ("evaluation", "from noisy_student.reporting import report", "noisy_student.reporting.report"),
        ("generations", "from noisy_student.reporting import report", None),
        ("generations", "from noisy_student.cli import main", "noisy_student.cli.main"),
        ("preparation", "from noisy_student import __version__", None),
        ("preparation", "from noisy_student import evaluation", "noisy_student.evaluation"),
        ("gadgets", "from noisy_student import labels", "noisy_student.labels"),
        ("", "from noisy_student.api import load", "noisy_student.api.load"),
        ("", "def __getattr__(name):\n    from noisy_student.api import load", None),
    ],
)
def test_the_check_catches_a_planted_import(module: str, source: str, bad: str | None) -> None:
    found = violations("planted.py", module, "'''Words.'''\n" + source, is_package=module in ("", "cli"))
    if bad is None:
        assert found == []
    else:
        (line,) = found
        number = source.count("\n") + 2
        assert line.startswith(f"planted.py:{number}: ")
        assert f"imports {bad} (" in line


def test_a_module_without_a_place_is_told_where_to_find_one() -> None:
    (line,) = violations("gadgets.py", "gadgets", "from noisy_student import labels")
    assert "'gadgets' has no place in LEVELS of test_architecture.py" in line


def test_every_module_but_learning_starts_without_torch() -> None:
    names = [
        ".".join([NAME, module]).rstrip(".") for _, module in modules() if not module.startswith(("learning", "__"))
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += (
        "    loaded = {'torch', 'torchvision', 'kornia'} & set(sys.modules)\n    assert not loaded, (name, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(names) > 20


def test_no_module_is_longer_than_can_be_read() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path, _ in modules()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}
