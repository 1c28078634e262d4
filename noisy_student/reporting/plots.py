"""Small SVG panels for a page: drawn by matplotlib's SVG backend, coloured by the page's CSS variables.

Every function returns one ``<svg>`` element. Equal input gives equal bytes: identifiers are salted with a fixed word
and no date is written. Text stays text; colours are placeholders that become ``var(--...)``, so that a panel follows
the light or dark page it stands in.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, RULE, ACCENT, SOFT = "#010101", "#020202", "#030303", "#040404", "#050505"
COLOURS: Final = {INK: "ink", MUTED: "muted", RULE: "rule", ACCENT: "accent", SOFT: "soft"}
"""Placeholder -> name of the CSS variable it becomes."""
SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "noisy_student",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "path.simplify": False,
}
Point = tuple[float | None, Sequence[float] | None]
"""A figure and its interval, either of which may be undefined."""
Mark = tuple[str, float, float]
"""An operating point ("youden", "sensitivity" or "specificity") and its place."""
MARKERS: Final = {"youden": "o", "sensitivity": "^", "specificity": "s"}


_PLACES: Final = re.compile(r"(\d\.\d\d)\d+")


def _remembered(draw: Callable[..., Markup]) -> Callable[..., Markup]:
    """Return ``draw`` with a memory: the page of a run shows panels that the pages of its generations have shown."""

    @lru_cache(maxsize=512)
    def again(arguments: str) -> Markup:
        return draw(*json.loads(arguments))

    @wraps(draw)
    def ask(*arguments: Any) -> Markup:
        return again(json.dumps(arguments))

    return ask


def _panel(
    name: str, alt: str, size: tuple[float, float], margins: Sequence[float], draw: Callable[[Axes], None]
) -> Markup:
    """Return one panel of ``size`` (width, height in points at 72 dpi); ``margins`` are left, bottom, right, top."""
    width, height = size
    left, bottom, right, top = margins
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes(
            (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
        )
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(RULE)
        axes.tick_params(colors=MUTED, length=0, labelsize=9, pad=4)
        draw(axes)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(stream.getvalue().decode(), name, alt)


def _inline(svg: str, name: str, alt: str) -> Markup:
    """Return a matplotlib SVG document as an element for a page that may hold many of them."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]*)"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    body = svg[svg.index(">") + 1 :]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    # Groups carry names such as axes_1 that would repeat from panel to panel; only what is referred to keeps an id.
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    for colour, variable in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r">\s+<", "><", body)
    # Matplotlib writes six decimals of a point; two are more than a screen shows, and a page has a hundred panels.
    body = re.sub(r' d="[^"]*"', lambda m: _PLACES.sub(r"\1", m[0]).replace("\n", ""), body)
    return Markup(f'<svg viewBox="{view[1]}" role="img" aria-label="{escape(alt)}">{body}')


def _ticks(axes: Axes, low: float, high: float) -> None:
    """Put at most five round ticks, each with a faint rule, on the upright axis."""
    span = high - low
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if span / s <= 4.01)
    values = [round(k * step, 4) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    axes.set_yticks(values, [f"{value:g}" for value in values])
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def auroc_range(points: Sequence[Point]) -> tuple[float, float]:
    """Return the value axis, in steps of 0.05, that holds all ``points`` and their intervals."""
    ends = [end for value, ci in points if value is not None for end in (value, *(ci or ()))]
    if not ends:
        return 0.5, 1.0
    low, high = math.floor(min(ends) * 20 - 1e-9) / 20, math.ceil(max(ends) * 20 + 1e-9) / 20
    return max(0.0, low), min(1.0, max(high, low + 0.1))


def by_generation(
    name: str,
    alt: str,
    generations: Sequence[int],
    test: Sequence[Point],
    valid: Sequence[Point] | None,
    limits: tuple[float, float],
    references: Sequence[tuple[str, Point]],
    small: bool,
) -> Markup:
    """Return AUROC over generations: test filled with its interval, validation smaller and grey beside it.

    ``references`` are dashed lines with their names.
    """

    def series(axes: Axes, points: Sequence[Point], shift: float, colour: str, filled: bool) -> None:
        known = [
            (g + shift, value, ci) for g, (value, ci) in zip(generations, points, strict=True) if value is not None
        ]
        axes.plot([x for x, _, _ in known], [value for _, value, _ in known], color=colour, linewidth=1.1, alpha=0.55)
        for x, value, ci in known:
            if ci:
                axes.plot([x, x], list(ci), color=colour, linewidth=1.4 if filled else 0.9, solid_capstyle="round")
            size = 4.0 if small else 5.5
            axes.plot([x], [value], "o", color=colour, markersize=size if filled else size - 1.5)

    def draw(axes: Axes) -> None:
        for title, (value, _) in references:
            if value is not None:
                axes.axhline(value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
                axes.annotate(title, (max(generations) + 0.5, value), (0, 3), color=INK, ha="right", fontsize=9,
                              textcoords="offset points")  # fmt: skip
        if valid is not None:
            series(axes, valid, 0.14, MUTED, filled=False)
        series(axes, test, 0.0, ACCENT, filled=True)
        axes.set_xlim(min(generations) - 0.35, max(generations) + 0.5)
        axes.set_ylim(*limits)
        axes.set_xticks(list(generations), [str(g) for g in generations])
        _ticks(axes, *limits)
        axes.spines["left"].set_visible(False)
        if not small:
            axes.set_xlabel("generation", color=MUTED, labelpad=4)

    if small:
        return _panel(name, alt, (150, 112), (28, 18, 4, 6), draw)
    return _panel(name, alt, (380, 215), (32, 36, 8, 8), draw)


def _thin(x: Sequence[float], y: Sequence[float], limit: int = 120) -> tuple[Any, Any]:
    """Return the curve at no more than ``limit`` of its points, evenly along its length, ends included."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if len(xs) <= limit:
        return xs, ys
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(xs)) + np.abs(np.diff(ys)))])
    keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], limit)).clip(0, len(xs) - 1))
    keep = np.unique(np.concatenate([[0], keep, [len(xs) - 1]]))
    return xs[keep], ys[keep]


def _unit(axes: Axes, *, diagonal: bool = True) -> None:
    if diagonal:
        axes.plot([0, 1], [0, 1], color=RULE, linewidth=1.0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def _marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Mark operating points: Youden's is a filled dot, a fixed sensitivity a triangle, a fixed specificity a square."""
    for kind, x, y in marks:
        filled = kind == "youden"
        size = 5.0 if filled else 4.2
        face = INK if filled else "none"
        axes.plot([x], [y], MARKERS[kind], color=INK, markerfacecolor=face, markersize=size, markeredgewidth=1.0,
                  clip_on=False, zorder=7)  # fmt: skip


def roc(name: str, alt: str, curve: dict[str, Any], other: dict[str, Any] | None, marks: Sequence[Mark] = ()) -> Markup:
    """Return a ROC curve (``fpr``, ``tpr``), with that of an earlier generation in grey where there is one."""

    def draw(axes: Axes) -> None:
        _unit(axes)
        if other:
            axes.plot(*_thin(other["fpr"], other["tpr"]), color=MUTED, linewidth=0.9, alpha=0.8)
        axes.plot(*_thin(curve["fpr"], curve["tpr"]), color=ACCENT, linewidth=1.7, clip_on=False, zorder=5)
        _marks(axes, marks)

    return _panel(name, alt, (150, 140), (24, 18, 7, 7), draw)


def precision_recall(
    name: str, alt: str, curve: dict[str, Any], other: dict[str, Any] | None, share: float, marks: Sequence[Mark]
) -> Markup:
    """Return precision over recall, a line at the ``share`` of positives, and the curve of an earlier generation."""

    def draw(axes: Axes) -> None:
        _unit(axes, diagonal=False)
        axes.axhline(share, color=RULE, linewidth=1.0)
        if other:
            axes.plot(*_thin(other["recall"], other["precision"]), color=MUTED, linewidth=0.9, alpha=0.8)
        axes.plot(*_thin(curve["recall"], curve["precision"]), color=ACCENT, linewidth=1.7, clip_on=False, zorder=5)
        _marks(axes, marks)

    return _panel(name, alt, (150, 140), (24, 18, 7, 7), draw)


@_remembered
def reliability(name: str, alt: str, bins: dict[str, Any], before: dict[str, Any] | None = None) -> Markup:
    """Return a reliability diagram: observed frequency over predicted probability, area of a dot by its films.

    ``before`` is that of the output before calibration, drawn in grey.
    """

    def series(axes: Axes, content: dict[str, Any], colour: str) -> None:
        rows = [
            row
            for row in zip(content["probability"], content["frequency"], content["count"], strict=True)
            if row[0] is not None and row[1] is not None and row[2]
        ]
        most = max((row[2] for row in rows), default=1)
        axes.plot([row[0] for row in rows], [row[1] for row in rows], color=colour, linewidth=1.1, alpha=0.55)
        for probability, frequency, amount in rows:
            size = 1.5 + 2.7 * math.sqrt(amount / most)
            axes.plot([probability], [frequency], "o", color=colour, markersize=size, clip_on=False, zorder=5)

    def draw(axes: Axes) -> None:
        _unit(axes)
        if before:
            series(axes, before, MUTED)
        series(axes, bins, ACCENT)

    return _panel(name, alt, (150, 140), (24, 18, 7, 7), draw)


@_remembered
def histogram(
    name: str, alt: str, edges: Sequence[float], counts: Sequence[float], expected: float | None = None
) -> Markup:
    """Return a histogram of pseudo-targets; heights go with the square root, or the rare positives would vanish.

    A line stands at the ``expected`` prevalence.
    """

    def draw(axes: Axes) -> None:
        heights = [math.sqrt(value) for value in counts]
        axes.stairs(heights, edges, fill=True, color=ACCENT, alpha=0.75, linewidth=0)
        if expected is not None:
            axes.axvline(expected, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, max([*heights, 1.0]) * 1.05)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)

    return _panel(name, alt, (150, 84), (7, 18, 7, 5), draw)


def _thinned(values: npt.NDArray[np.float64], limit: int = 120) -> npt.NDArray[np.float64]:
    if len(values) <= limit:
        return values
    return np.array([part.mean() for part in np.array_split(values, limit)])


def _short(value: float) -> str:
    """Return a number of any size in at most six characters or so: ``0.612``, ``834``, ``3.2e-4``."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 0.01 or value == 0:
        return f"{value:.3g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


@_remembered
def training(name: str, alt: str, curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Markup:
    """Return the training log of each network, (steps, values); more than 120 points are averaged in blocks."""
    drawn = [(np.asarray(steps, float), np.asarray(values, float)) for steps, values in curves]
    last = max(float(xs.max()) for xs, _ in drawn)
    drawn = [(_thinned(xs), _thinned(ys)) for xs, ys in drawn]
    thin = len(drawn) > 1

    def draw(axes: Axes) -> None:
        for xs, ys in drawn:
            axes.plot(xs, ys, color=ACCENT, linewidth=0.8 if thin else 1.3, solid_joinstyle="round")
            if len(xs) <= 12 and not thin:
                axes.plot(xs, ys, "o", color=ACCENT, markersize=3.2, clip_on=False, zorder=5)
        low, high = (float(limit([limit(ys) for _, ys in drawn])) for limit in (np.min, np.max))
        room = max((high - low) * 0.08, abs(high) * 0.003, 1e-12)
        axes.set_ylim(low - room, high + room)
        ends = [low, high] if high > low else [high]
        axes.set_yticks(ends, [_short(end) for end in ends])
        axes.set_xlim(0, last)
        axes.set_xticks([0, last], ["0", f"{last:,.0f}"])
        axes.get_xticklabels()[1].set_horizontalalignment("right")

    return _panel(name, alt, (220, 120), (36, 18, 8, 6), draw)
