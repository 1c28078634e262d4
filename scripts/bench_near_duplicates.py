"""The search for near duplicates: its time beyond the decoding, and what it finds of planted copies.

    python scripts/bench_near_duplicates.py --films 20000
    python scripts/bench_near_duplicates.py --folder /data/nih/images --json

A tenth of the films gets a copy, by turns compressed again, resized, cut by up to 4 % on each side, brightened,
darkened, or all of it. Precision counts a pair as right when one film is the planted copy of the other. Made films are
one a patient; among real ones a pair that was not planted may still be a true one.
"""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from PIL import Image

from noisy_student.data import near_duplicates
from noisy_student.data.decode import DecodeSettings, decode

Film = npt.NDArray[np.uint8]
KINDS = ("compressed", "resized", "cropped", "brighter", "darker", "all")


def changed(film: Film, kind: str, draw: np.random.Generator) -> Film:
    """Return a copy of a film as somebody may have made it."""
    if kind in ("cropped", "all"):
        high, wide = film.shape
        top, bottom, left, right = draw.uniform(0, 0.04, 4)
        film = film[round(top * high) : round((1 - bottom) * high), round(left * wide) : round((1 - right) * wide)]
    if kind in ("resized", "all"):
        film = np.asarray(Image.fromarray(film).resize((film.shape[1] * 2 // 3, film.shape[0] * 2 // 3)))
    if kind in ("brighter", "darker", "all"):
        gain, offset = {"brighter": (1.1, 12.0), "darker": (0.75, 0.0), "all": (0.9, 5.0)}[kind]
        film = np.clip(film * gain + offset, 0, 255).astype(np.uint8)
    if kind in ("compressed", "all"):
        stream = io.BytesIO()
        Image.fromarray(film).save(stream, "JPEG", quality=60 if kind == "all" else 40)
        film = np.asarray(Image.open(stream))
    return film


def phantoms(count: int) -> list[Film]:
    """Return one phantom of each of ``count`` patients."""
    from noisy_student.data.synthetic import render
    from noisy_student.data.synthetic.dataset import rows_of

    first = {row.case.patient: row.case for row in reversed(list(rows_of(3, "valid", range(1, count + 1))))}
    cases = [first[patient] for patient in sorted(first)]
    return [film for start in range(0, len(cases), 64) for film in render(cases[start : start + 64], 128)]


@click.command()
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Films to use; else made."
)
@click.option("--films", default=20000, show_default=True, help="Phantoms to make.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(folder: Path | None, films: int, as_json: bool) -> None:
    """Measure the search for near duplicates."""
    if folder is None:
        base = phantoms(films)
    else:
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
        base = [decode(path, DecodeSettings(224, 1))[0] for path in paths]
    draw = np.random.default_rng(0)
    originals = list(range(0, len(base), 10))
    kinds = [KINDS[number % len(KINDS)] for number in range(len(originals))]
    copies = [changed(base[row], kind, draw) for row, kind in zip(originals, kinds, strict=True)]
    start = time.process_time()
    thumbnails = np.stack([near_duplicates.thumbnail(film[None]) for film in (*base, *copies)])
    shrinking = time.process_time() - start
    start, wall = time.process_time(), time.perf_counter()
    pairs, _ = near_duplicates.find(thumbnails)
    searching, wall = time.process_time() - start, time.perf_counter() - wall
    right = {(row, len(base) + number): kind for number, (row, kind) in enumerate(zip(originals, kinds, strict=True))}
    found = {(int(first), int(second)) for first, second in pairs}
    recall = {kind: float(np.mean([pair in found for pair, made in right.items() if made == kind])) for kind in KINDS}
    result: dict[str, Any] = {
        "films": len(thumbnails),
        "thumbnails_cpu_s": round(shrinking, 2),
        "search_cpu_s": round(searching, 2),
        "search_wall_s": round(wall, 2),
        "pairs": len(found),
        "precision": round(len(found & set(right)) / max(1, len(found)), 4),
        "recall": {kind: round(share, 4) for kind, share in recall.items()},
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<18} {value}")


if __name__ == "__main__":
    main()
