"""Sheets for a person to judge the films by: a sample of a data set, and each observation alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from noisy_student.data.synthetic.cases import Case, Projection, is_female
from noisy_student.data.synthetic.dataset import rows_of
from noisy_student.data.synthetic.prevalence import NAMES, Prevalence
from noisy_student.data.synthetic.render import render
from noisy_student.labels import OBSERVATIONS
from noisy_student.runs import atomic

SEVERITIES: Final = (0.3, 0.6, 1.0)
"""Severities at which the second sheet shows each observation."""
_COLUMNS: Final = 8
_FILMS: Final = 48
_CAPTION: Final = 13
_SHORT: Final = (
    ("none", "EnlCM", "CMeg", "Opac", "Les", "Edem", "Cons", "Pneu", "Atel", "PTX", "Eff", "PlOth", "Frac", "Dev")
)  # fmt: skip


def sample_cases(seed: int, prevalence: Prevalence) -> list[tuple[str, Case]]:
    """Return captions (what is truly there) and cases of the first sheet: films of a test split as they come."""
    entries = []
    for row in rows_of(seed, "test", range(1, 2 * _FILMS), prevalence):
        found = [name for name, value in zip(_SHORT, row.case.severity, strict=True) if value]
        entries.append((f"{row.case.projection} {' '.join(found) or 'none'}", row.case))
    return entries[:_FILMS]


def finding_cases(seed: int) -> list[tuple[str, Case]]:
    """Return captions and cases of the second sheet: a row per observation, frontal and lateral of one person.

    Left to right: the frontal film without finding, with it at three severities, the lateral film the same way.
    """
    none = (0.0,) * len(OBSERVATIONS)
    entries: list[tuple[str, Case]] = []
    for number, name in enumerate(NAMES):
        patient = number + 1
        frontal: Projection = "AP" if number % 2 else "PA"
        for view, projection in ((1, frontal), (2, "LL")):
            case = Case(seed, 0, patient, 1, view, projection, bool(is_female(seed, 0, patient)), none)
            entries.append((f"{projection} without", case))
            for severity in SEVERITIES:
                found = case.with_severity(**{name.replace(" ", "_"): severity})
                entries.append((f"{name.replace('Enlarged Cardiom', 'Enl. Cardiom')} {severity}", found))
    return entries


def draw_sheet(path: Path, entries: Sequence[tuple[str, Case]], size: int) -> None:
    """Return nothing; write films of ``size`` pixels under captions to a PNG, eight in a row."""
    films: npt.NDArray[np.uint8] = render([case for _, case in entries], size)
    rows = -(-len(entries) // _COLUMNS)
    sheet = Image.new("L", (_COLUMNS * (size + 2), rows * (size + _CAPTION + 2)), 0)
    pen = ImageDraw.Draw(sheet)
    for number, ((caption, _), film) in enumerate(zip(entries, films, strict=True)):
        x, y = (number % _COLUMNS) * (size + 2), (number // _COLUMNS) * (size + _CAPTION + 2)
        text = caption
        while pen.textlength(text) > size and len(text) > 4:
            text = text[:-1]
        pen.text((x + 1, y), text, fill=255)
        sheet.paste(Image.fromarray(film), (x, y + _CAPTION))
    with atomic(path) as temporary:
        sheet.save(temporary, format="PNG")


def contact_sheet(path: Path, *, size: int = 192, seed: int = 0, prevalence: Prevalence = "enriched") -> None:
    """Return nothing; write a PNG of films as they come, with what is truly there above each."""
    draw_sheet(path, sample_cases(seed, prevalence), size)


def findings_sheet(path: Path, *, size: int = 192, seed: int = 0) -> None:
    """Return nothing; write a PNG of each observation alone at three severities beside the same person without it."""
    draw_sheet(path, finding_cases(seed), size)
