"""A contact sheet: every observation at falling severity, for a person to judge the films by."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw

from noisy_student.data.synthetic.cases import RATES, Case, Projection, is_female
from noisy_student.data.synthetic.render import render
from noisy_student.labels import OBSERVATIONS
from noisy_student.runs import atomic

SEVERITIES: Final = (1.0, 0.75, 0.5, 0.25)
"""Severities shown of each observation, left to right."""
_COLUMNS: Final = 8
_CAPTION: Final = 13
_LATERAL: Final = ("Cardiomegaly", "Edema", "Consolidation", "Pleural Effusion", "Lung Lesion", "Support Devices")


def sheet_cases(seed: int) -> list[tuple[str, Case]]:
    """Return captions and cases of the sheet: four without finding, four of each observation, a row of laterals."""
    none = (0.0,) * len(OBSERVATIONS)
    entries: list[tuple[str, Case]] = []

    def add(caption: str, projection: Projection, name: str = "", severity: float = 0.0) -> None:
        patient = len(entries) + 1
        case = Case(seed, 0, patient, 1, 1, projection, is_female(seed, 0, patient), none)
        if name:
            case = case.with_severity(**{name.replace(" ", "_"): severity})
        entries.append((caption, case))

    for number in range(len(SEVERITIES)):
        projection: Projection = "AP" if number % 2 else "PA"
        add(f"No Finding ({projection})", projection)
    for name in RATES:
        for number, severity in enumerate(SEVERITIES):
            add(f"{name} {severity:.2f}", "AP" if number % 2 else "PA", name, severity)
    add("lateral: No Finding", "LL")
    add("lateral: No Finding", "LL")
    for name in _LATERAL:
        add(f"lateral: {name}", "LL", name, 0.8)
    return entries


def contact_sheet(path: Path, *, size: int = 128, seed: int = 0) -> None:
    """Return nothing; write a PNG to ``path`` with films of ``size`` pixels under captions, eight in a row."""
    entries = sheet_cases(seed)
    films = render([case for _, case in entries], size)
    rows = -(-len(entries) // _COLUMNS)
    sheet = Image.new("L", (_COLUMNS * (size + 2), rows * (size + _CAPTION + 2)), 0)
    pen = ImageDraw.Draw(sheet)
    for number, ((caption, _), film) in enumerate(zip(entries, films, strict=True)):
        x, y = (number % _COLUMNS) * (size + 2), (number // _COLUMNS) * (size + _CAPTION + 2)
        text = caption.replace("Enlarged Cardiomediastinum", "Enl. Cardiomed.")
        while pen.textlength(text) > size and len(text) > 4:
            text = text[:-1]
        pen.text((x + 1, y), text, fill=255)
        sheet.paste(Image.fromarray(film), (x, y + _CAPTION))
    with atomic(path) as temporary:
        sheet.save(temporary, format="PNG")
