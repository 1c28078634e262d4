"""Reading a configuration: YAML file, ``--set`` overrides, errors in words, the stored snapshot and its hash."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from noisy_student.config import Config
from noisy_student.errors import ConfigError
from noisy_student.runs import read_json, text_hash

_NO_KEYS: Final = ("[key]", "int", "constrained-int")
WHERE_NOT_WHAT: Final = (("data", "root"), ("data", "cache_dir"))
"""Keys that say where things are: they may change between a run and its resumption and stay out of the hash."""
MEASURES: Final = (
    ("seed",),
    ("targets", "blank"),
    *(("evaluation", key) for key in ("replicates", "confidence", "bins", "stratify", "smallest_difference")),
)
"""Keys that say how tables of scores and finished runs are measured."""

DEMO: Final = Path(__file__).with_name("demo.yaml")
"""The demonstration, which runs where no configuration is named."""


def load(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of a YAML file (or the defaults) with ``a.b=value`` overrides applied in order.

    Raises:
        ConfigError: the file cannot be read, a key is unknown (its nearest known one is named) or a value is wrong.
    """
    tree = {} if path is None else _read_yaml(path)
    raw: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, text = _split_override(override)
        _assign(tree, keys, _parse_value(override, text))
        raw[keys] = text
    source = "the command line" if path in (None, DEMO) else str(path)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        # A folder called 2024 reaches us as a number: where text was wanted, take the words as they were typed.
        wanted_text = [
            keys
            for item in error.errors()
            if item["type"] in ("path_type", "string_type") and (keys := tuple(map(str, item["loc"]))) in raw
        ]
        if not wanted_text:
            raise ConfigError(_explain(error, source), "Run ns iterate --help, or see configs/ for examples.") from None
        for keys in wanted_text:
            _assign(tree, keys, raw[keys])
        return _validate(tree, source)


def _validate(tree: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, source), "See configs/ for examples.") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.glob("*.yaml")], n=1)
        hint = f"Did you mean {path.parent / near[0]}?" if near else "Give the path of a YAML file to --config."
        raise ConfigError(f"{path}: no such config file", hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds a {type(tree).__name__}, not a table of keys", "Write 'key: value' lines.")
    return tree


def _parse_yaml(text: str, source: str) -> Any:
    """Return what YAML ``text`` holds; a key given twice is an error, where PyYAML would take the last one."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_double_keys(node, source)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_double_keys(node: yaml.Node, source: str) -> None:
    # Before the values are built: merge keys (<<) are still apart then, and may be overruled by keys beside them.
    waiting, seen = [(node, "")], set()
    while waiting:
        node, name = waiting.pop()
        if id(node) in seen:  # an anchor is the same node wherever it is named
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(entry, name) for entry in reversed(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}  # where a key stands first
        below = [f"{name}.{key.value}" if name else str(key.value) for key, _ in node.value]
        waiting += reversed([(value, place) for (_, value), place in zip(node.value, below, strict=True)])
        for (key, _), place in zip(node.value, below, strict=True):
            if not isinstance(key, yaml.ScalarNode):
                continue
            line, word = key.start_mark.line + 1, (key.tag, key.value)
            if word in lines:
                raise ConfigError(
                    f"{source}: key '{place}' is given twice (lines {lines[word]} and {line})", "Keep one of them."
                )
            lines[word] = line


def _split_override(override: str) -> tuple[tuple[str, ...], str]:
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"--set {override}: is not of the form a.b=value")
    return tuple(key.strip().split(".")), text


def _parse_value(override: str, text: str) -> Any:
    try:
        return _parse_yaml(text, f"--set {override}")
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: the value is not valid YAML", "Quote it.") from None


def _assign(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for depth, key in enumerate(keys[:-1]):
        below = tree.get(key, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: '{'.'.join(keys[: depth + 1])}' is a value, not a section")
        # A copy: teacher and student may share one section through a YAML anchor, and only one of them is meant.
        tree[key] = tree = dict(below)
    tree[keys[-1]] = value


def _explain(error: ValidationError, source: str) -> str:
    lines = []
    for item in error.errors():
        location = [str(part) for part in item["loc"]]
        name = ".".join(location)
        if item["type"] == "extra_forbidden":
            known = _known_keys(location[:-1])
            near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.4)
            advice = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
            lines.append(f"{source}: unknown key '{name}'; {advice}")
        else:
            # What pydantic adds to the place of a mistake is not a key: which side of a union it tried, and so on.
            name = ".".join(part for part in location if part not in _NO_KEYS and not part.startswith("literal["))
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] == "missing" and isinstance(item["loc"][-1], int):  # a place of a list
                name, message = name.rpartition(".")[0], "The list has too few values"
            if item["type"] == "tuple_type":
                message = "Input should be a list, such as [A, B]"
            if item["type"] == "literal_error" and isinstance(item["input"], str):
                near = difflib.get_close_matches(item["input"], re.findall("'([^']*)'", message), n=1)
                message += f"; did you mean '{near[0]}'?" if near else ""
            given = "" if isinstance(item["input"], dict) else f" (given: {item['input']!r})"
            lines.append(f"{source}: {name}: {message}{given}" if name else f"{source}: {message}")
    return "\n".join(dict.fromkeys(lines))


def _known_keys(location: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Config
    if location[:1] == ["generations"]:  # what is below a generation's number is laid over a phase
        location = ["student", *location[2:]]
    if "members" in location:  # what is below a member's number is laid over the phase that names it
        at = location.index("members")
        location = [*location[:at], *location[at + 2 :]]
    location = [part for part in location if part != "refit"]  # is laid over the phase that names it, too
    for part in location:
        if part.isdecimal():  # a place of a list, whose sections are those that the list holds
            continue
        annotation = model.model_fields[part].annotation
        annotation = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
        assert isinstance(annotation, type), "only sections hold keys"
        assert issubclass(annotation, BaseModel), "only sections hold keys"
        model = annotation
    return list(model.model_fields)


def resolved(config: Config) -> dict[str, Any]:
    """Return the whole configuration as plain JSON values, defaults included."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    return tree


def config_hash(config: Config) -> str:
    """Return 16 hexadecimal digits that change with anything that changes what a run computes."""
    return text_hash(json.dumps(_without_places(resolved(config)), sort_keys=True))


def to_yaml(config: Config) -> str:
    """Return the configuration as YAML that :func:`load` reads back to an equal one."""
    text: str = yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True)
    return text


def read_snapshot(path: Path) -> Config:
    """Return the configuration stored with a run."""
    return _validate(read_json(path), str(path))


def check_same(stored: Config, asked: Config, where: Path) -> None:
    """Raise :class:`ConfigError`, naming the keys that differ, unless both configurations compute the same."""
    if config_hash(stored) == config_hash(asked):
        return
    old, new = _flat(_without_places(resolved(stored))), _flat(_without_places(resolved(asked)))
    differing = [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in sorted(old | new)
        if old.get(key) != new.get(key)
    ]
    raise ConfigError(
        f"{where}: was made by another configuration\n  " + "\n  ".join(differing),
        "Use the same configuration, another --output, or --overwrite to start again.",
    )


def _without_places(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        section: {key: value for key, value in content.items() if (section, key) not in WHERE_NOT_WHAT}
        if isinstance(content, dict)
        else content
        for section, content in tree.items()
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def relocate(stored: Config, overrides: Sequence[str]) -> Config:
    """Return a run's configuration with new places (``data.root``, ``data.cache_dir``) from ``--set``.

    Raises:
        ConfigError: an override changes what the run computes.
    """
    tree = resolved(stored)
    for override in overrides:
        keys, text = _split_override(override)
        if keys not in WHERE_NOT_WHAT:
            raise ConfigError(
                f"--set {override}: the configuration of a run is fixed once it has started",
                f"Only {' and '.join('.'.join(keys) for keys in WHERE_NOT_WHAT)} can change.",
            )
        _assign(tree, keys, text)
    return _validate(tree, "the command line")


def with_measures(stored: Config, overrides: Sequence[str]) -> Config:
    """Return ``stored`` with settings of measuring (:data:`MEASURES`) from ``--set``.

    Raises:
        ConfigError: an override is about something else.
    """
    tree = resolved(stored)
    for override in overrides:
        keys, text = _split_override(override)
        if keys not in MEASURES:
            raise ConfigError(
                f"--set {override}: does nothing where tables or finished runs are measured",
                f"Set one of {', '.join('.'.join(key) for key in MEASURES)}.",
            )
        _assign(tree, keys, _parse_value(override, text))
    return _validate(tree, "the command line")
