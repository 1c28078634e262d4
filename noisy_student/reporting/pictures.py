"""Pictures of a generation as data URIs, within a size that keeps the page easy to pass on."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Final

from PIL import Image

from noisy_student.errors import NoisyStudentError
from noisy_student.runs import read_json

ROOM: Final = 1_400_000
"""Bytes of pictures a page may hold (a third more as base64); the page as a whole stays below 3 MB."""
WIDE: Final = 1100
"""Pixels to which the picture of augmented films is cut down when its file is large."""


class Pictures:
    """What the page of one generation may still embed. ``left_out`` counts what found no room."""

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.left_out = 0

    def gallery(self, folder: Path) -> list[dict[str, Any]]:
        """Return the entries of ``gallery.json`` with ``thumb`` and ``map`` as data URIs (``None`` without a map).

        Each has the ``threshold`` of its label, ``None`` where none is on record. The name of the film is dropped,
        since it can name a patient.

        Raises:
            NoisyStudentError: a picture is missing or lies outside ``folder``.
        """
        path = folder / "gallery.json"
        if not path.is_file():
            return []
        found, content = [], read_json(path)
        thresholds = content.get("thresholds", {})
        for entry in content["entries"]:
            files = [_below(folder, entry[key]) for key in ("thumb", "map") if entry.get(key)]
            needed = sum(file.stat().st_size for file in files)
            if needed > self.room:
                self.left_out += 1
                continue
            self.room -= needed
            shown = {key: entry[key] for key in ("label", "kind", "probability", "truth")}
            pictures = [_uri(file.read_bytes(), file.suffix) for file in files]
            shown |= {"threshold": thresholds.get(entry["label"])}
            found.append(shown | {"thumb": pictures[0], "map": pictures[1] if len(pictures) > 1 else None})
        return found

    def augmented(self, folder: Path) -> str | None:
        """Return ``augmented.png`` as a data URI, smaller and as JPEG where the file is too large; else ``None``."""
        path = folder / "augmented.png"
        if not path.is_file():
            return None
        data = path.read_bytes()
        if len(data) <= 300_000:
            return _uri(data, ".png")
        with Image.open(path) as picture:
            small = picture.convert("RGB" if picture.mode not in ("L", "I;16") else "L")
        small.thumbnail((WIDE, WIDE * 3))
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=82, optimize=True)
        return _uri(stream.getvalue(), ".jpg")


def _below(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise NoisyStudentError(f"{folder / 'gallery.json'}: '{name}' lies outside the generation", "Remove the entry.")
    if not path.is_file():
        raise NoisyStudentError(f"{path}: is missing", "Do the gallery again with ns iterate --resume.")
    return path


def _uri(data: bytes, suffix: str) -> str:
    kind = "jpeg" if suffix.lower() in (".jpg", ".jpeg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
