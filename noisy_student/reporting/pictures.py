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
SMALL: Final = 12_000
"""Bytes up to which a film or a map stays the PNG it is; a larger one becomes a JPEG."""


class Pictures:
    """What the page of one generation may still embed. ``left_out`` counts what found no room."""

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.left_out = 0

    def gallery(self, folder: Path) -> list[dict[str, Any]]:
        """Return the entries of ``gallery.json`` with ``thumb`` and ``map`` as data URIs (``None`` without a map).

        Each has the ``threshold`` of its label and the films that it was ``chosen_on``, ``None`` where they are not on
        record, and ``before`` and ``labels`` as far as they are on record. The name of the film is dropped, since it
        can name a patient.

        Raises:
            NoisyStudentError: a picture is missing or lies outside ``folder``.
        """
        path = folder / "gallery.json"
        if not path.is_file():
            return []
        found, content = [], read_json(path)
        thresholds, chosen_on = content.get("thresholds", {}), content.get("chosen_on", {})
        for entry in content["entries"]:
            files = [_below(folder, entry[key]) for key in ("thumb", "map") if entry.get(key)]
            pictures = [_compact(file) for file in files]
            needed = sum(len(data) for data, _ in pictures)
            if needed > self.room:
                self.left_out += 1
                continue
            self.room -= needed
            shown = {key: entry[key] for key in ("label", "kind", "probability", "truth")}
            shown |= {"before": entry.get("before"), "labels": entry.get("labels", {})}
            shown |= {"threshold": thresholds.get(entry["label"]), "chosen_on": chosen_on.get(entry["label"])}
            uris = [_uri(*picture) for picture in pictures]
            found.append(shown | {"thumb": uris[0], "map": uris[1] if len(uris) > 1 else None})
        return found

    def augmented(self, folder: Path) -> str | None:
        """Return ``augmented.png`` as a data URI, smaller and as JPEG where the file is too large; else ``None``."""
        path = folder / "augmented.png"
        if not path.is_file():
            return None
        data = path.read_bytes()
        if len(data) <= 300_000:
            return _uri(data, ".png")
        return _uri(_jpeg(path, (WIDE, WIDE * 3)), ".jpg")


def _below(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise NoisyStudentError(f"{folder / 'gallery.json'}: '{name}' lies outside the generation", "Remove the entry.")
    if not path.is_file():
        raise NoisyStudentError(f"{path}: is missing", "Do the gallery again with ns iterate --resume.")
    return path


def _compact(path: Path) -> tuple[bytes, str]:
    """Return the bytes and the suffix under which a picture of the gallery is embedded."""
    data = path.read_bytes()
    return (data, path.suffix) if len(data) <= SMALL else (_jpeg(path, (WIDE, WIDE)), ".jpg")


def _jpeg(path: Path, size: tuple[int, int]) -> bytes:
    with Image.open(path) as picture:
        small = picture.convert("RGB" if picture.mode not in ("L", "I;16") else "L")
    small.thumbnail(size)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=82, optimize=True)
    return stream.getvalue()


def _uri(data: bytes, suffix: str) -> str:
    kind = "jpeg" if suffix.lower() in (".jpg", ".jpeg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
