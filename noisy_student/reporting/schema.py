"""The form of ``report.json``, written once as a table and checked by a small validator (docs/report-schema.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

Check = Callable[[Any, str], None]

VERSION: Final = 1
"""Version of the form; it grows when a field changes its meaning or goes."""
VERDICTS: Final = ("first", "better", "undecided", "worse", "unjudged")


def check(report: Mapping[str, Any]) -> None:
    """Return nothing when ``report`` has the documented form.

    Raises:
        ValueError: a field is missing, of another type, not finite, or undefined without a reason; the message
            starts with the path of the field, such as ``generations[1].test.macro.auroc``.
    """
    _REPORT(report, "")
    indices = [entry["index"] for entry in report["generations"]]
    if indices != sorted(set(indices)):
        raise ValueError(f"generations: indices {indices} do not rise")
    for key in ("best", "shown"):
        if report[key] not in indices:
            raise ValueError(f"{key}: generation {report[key]} is not in generations ({indices})")


def _fail(path: str, message: str) -> None:
    raise ValueError(f"{path or 'report'}: {message}")


def _text(value: Any, path: str) -> None:
    if not isinstance(value, str):
        _fail(path, f"{value!r} is not text")


def _flag(value: Any, path: str) -> None:
    if not isinstance(value, bool):
        _fail(path, f"{value!r} is not true or false")


def _anything(value: Any, path: str) -> None:
    """Accept any JSON; numbers must be finite all the same."""
    if isinstance(value, float) and not math.isfinite(value):
        _fail(path, f"{value} is not finite; undefined is null")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        _anything(part, f"{path}[{key}]" if isinstance(key, int) else _join(path, key))


def _number(low: float = -math.inf, high: float = math.inf, whole: bool = False) -> Check:
    def checker(value: Any, path: str) -> None:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            _fail(path, f"{value!r} is not a {'whole ' if whole else ''}number")
        if not math.isfinite(value):
            _fail(path, f"{value} is not finite; undefined is null")
        if not low <= value <= high:
            _fail(path, f"{value} is not between {low:g} and {high:g}")

    return checker


def _one_of(*values: Any) -> Check:
    def checker(value: Any, path: str) -> None:
        if value not in values:
            _fail(path, f"{value!r} is not one of {', '.join(map(repr, values))}")

    return checker


def _or_null(inner: Check) -> Check:
    return lambda value, path: None if value is None else inner(value, path)


def _list(inner: Check) -> Check:
    def checker(value: Any, path: str) -> None:
        if not isinstance(value, list):
            _fail(path, f"{value!r} is not a list")
        for index, part in enumerate(value):
            inner(part, f"{path}[{index}]")

    return checker


def _map(inner: Check) -> Check:
    def checker(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            _fail(path, f"{value!r} is not an object")
        for key, part in value.items():
            inner(part, _join(path, key))

    return checker


def _object(**fields: Check) -> Check:
    def checker(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            _fail(path, f"{value!r} is not an object")
        for key, inner in fields.items():
            if key not in value:
                _fail(_join(path, key), "is missing")
            inner(value[key], _join(path, key))
        _anything(value, path)

    return checker


def _interval(value: Any, path: str) -> None:
    _list(_number())(value, path)
    if len(value) != 2 or value[0] > value[1]:
        _fail(path, f"{value} is not [low, high]")


def _reasoned(figure: str, inner: Check) -> Check:
    """Ask for a reason where ``figure`` is null."""

    def checker(value: Any, path: str) -> None:
        inner(value, path)
        if value[figure] is None and not value["reason"]:
            _fail(_join(path, "reason"), f"is empty although {figure} is null")

    return checker


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


_share = _number(0, 1)
_amount = _number(0)
_whole = _number(0, whole=True)
_ci = _or_null(_interval)
_reason = _or_null(_text)

_COUNTS = ("tp", "fp", "fn", "tn")
_RATES = ("sensitivity", "specificity", "ppv", "npv", "f1")
_POINT = _object(
    threshold=_or_null(_number()),
    **{name: _or_null(_amount) for name in _COUNTS},
    **{name: _or_null(_share) for name in _RATES},
    reason=_reason,
)
_CELL = _reasoned(
    "auroc",
    _object(
        auroc=_or_null(_share),
        ci=_ci,
        ap=_or_null(_share),
        brier=_or_null(_share),
        ece=_or_null(_share),
        delong_ci=_ci,
        undefined_replicates=_or_null(_share),
        ece_width=_or_null(_share),
        ece_debiased=_or_null(_number()),
        brier_parts=_or_null(_map(_or_null(_number()))),
        before=_or_null(_map(_anything)),
        operating_points=_or_null(_map(_or_null(_POINT))),
        positives=_amount,
        negatives=_amount,
        positive_patients=_or_null(_amount),
        negative_patients=_or_null(_amount),
        reason=_reason,
    ),
)
_MACRO = _reasoned(
    "auroc",
    _object(
        auroc=_or_null(_share),
        ci=_ci,
        labels=_list(_text),
        undefined_labels=_or_null(_list(_text)),
        ap=_or_null(_share),
        brier=_or_null(_share),
        log_loss=_or_null(_amount),
        ece=_or_null(_share),
        reason=_reason,
    ),
)
_LEVEL = _object(n=_whole, patients=_whole, macro=_MACRO, labels=_map(_CELL))
_DIFFERENCE = _reasoned("difference", _object(difference=_or_null(_number(-1, 1)), ci=_ci, reason=_reason))
_PAIRED = _object(
    against=_whole, split=_text, macro=_DIFFERENCE, labels=_map(_object(difference=_or_null(_number(-1, 1)), ci=_ci))
)
_AREA = _object(auroc=_or_null(_share), ci=_ci, reason=_reason)
_GROUP = _object(
    group=_text,
    n=_whole,
    patients=_whole,
    small=_flag,
    macro=_reasoned("auroc", _AREA),
    labels=_map(_reasoned("auroc", _AREA)),
)
_GAP = _object(difference=_or_null(_number(-1, 1)), ci=_ci, reason=_reason)
_SUBGROUPS = _object(columns=_map(_object(groups=_list(_GROUP), gap=_or_null(_reasoned("difference", _GAP)))))
_ARM = _object(auroc=_share, ci=_ci, source=_or_null(_text))
_ENTRY = _object(
    index=_whole,
    role=_one_of("teacher", "student"),
    promoted=_or_null(_flag),
    verdict=_one_of(*VERDICTS, None),
    test=_LEVEL,
    valid=_LEVEL,
    paired=_or_null(_PAIRED),
    paired_first=_or_null(_PAIRED),
    subgroups=_or_null(_SUBGROUPS),
    pseudo=_or_null(_object(labelled=_amount, pseudo=_amount, teachers=_list(_whole), labels=_map(_anything))),
    pool=_or_null(_anything),
    competition=_or_null(_anything),
    promotion=_or_null(_anything),
    calibration=_or_null(_anything),
    uncertainty=_or_null(_anything),
    model=_object(networks=_whole, name=_or_null(_text), origin=_or_null(_text), images_seen=_or_null(_amount)),
    training=_object(steps=_whole, loss=_or_null(_number()), films_per_second=_or_null(_amount)),
)
_AMOUNTS = _object(
    images=_whole,
    patients=_whole,
    labelled_images=_whole,
    labelled_patients=_whole,
    valid_images=_whole,
    valid_patients=_whole,
)


def _some_generations(value: Any, path: str) -> None:
    _list(_ENTRY)(value, path)
    if not value:
        _fail(path, "is empty")


_REPORT = _object(
    schema=_one_of(VERSION),
    kind=_one_of("run", "generation"),
    title=_text,
    level=_one_of("image", "study"),
    confidence=_share,
    generations=_some_generations,
    shown=_whole,
    best=_whole,
    best_reason=_text,
    budget=_AMOUNTS,
    split=_map(_anything),
    config=_map(_anything),
    environment=_map(_anything),
    references=_or_null(_object(supervised_few=_or_null(_ARM), supervised_all=_or_null(_ARM))),
)
