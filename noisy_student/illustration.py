"""The stages that give a generation its pictures: the choice of films with their thumbnails, and activation maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

from noisy_student import gallery
from noisy_student.runs import atomic, read_json, write_json
from noisy_student.workplace import Traffic, Workplace, model_files

SIDE: Final = 160
"""Largest side of a picture in pixels."""
OPACITY: Final = 0.6
"""Of the colours at the maximum of a map; where it is 0 the film alone is seen."""


def choose_gallery(work: Workplace, generation: int) -> Traffic:
    """Write ``gallery.json`` and a grey thumbnail of every film in it."""
    from noisy_student.learning import checkpoint, maps

    folder = work.run.generation(generation)
    folders = work.run.networks(generation)
    networks = [checkpoint.load(best, work.config.data.labels)[0] for best in folders]
    mapped = any(maps.has_feature_map(network, work.cache.pixels.shape[1:]) for network in networks)
    content, reads = gallery.choose(work.run, work.config, generation, mapped=mapped)
    writes = []
    for entry, row in zip(content["entries"], _rows(work, content["entries"]), strict=True):
        writes.append(_write(thumbnail(work.cache.pixels[row]), folder / entry["thumb"]))
    write_json(folder / "gallery.json", content)
    return Traffic(
        [*reads, *(path for best in folders for path in model_files(best))], [folder / "gallery.json", *writes]
    )


def draw_maps(work: Workplace, generation: int) -> Traffic:
    """Write the activation map of every film of the gallery that has one, in colours over the film.

    Of several networks the mean of their maps is drawn, of those that have one.
    """
    from noisy_student.learning import augment, checkpoint, machine, maps, predict
    from noisy_student.learning.batches import Films

    machine.prepare(work.config.threads)
    folder, labels = work.run.generation(generation), work.config.data.labels
    folders = work.run.networks(generation)
    entries = [entry for entry in read_json(folder / "gallery.json")["entries"] if entry["map"]]
    networks = [checkpoint.load(best, labels)[0] for best in folders]
    # On the CPU and one by one: some twenty films are quick, fit in any memory, and look the same on every machine.
    films = Films(work.cache.pixels, _rows(work, entries), predict.best_device("cpu"), resident=False)
    writes = []
    for number, entry in enumerate(entries):
        images = augment.to_float(films.gather(np.array([number])))
        found = []
        for network in networks:
            values = maps.activation_maps(network, images, [labels.index(entry["label"])])
            found += [] if values is None else [values[0]]
        assert found, "the stage before has looked whether there are maps"
        film = thumbnail(work.cache.pixels[films.rows[number]])
        writes.append(_write(overlay(film, np.mean(found, axis=0, dtype=np.float32)), folder / entry["map"]))
    return Traffic([folder / "gallery.json", *(path for best in folders for path in model_files(best))], writes)


def thumbnail(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return a film of ``pixels`` (C, H, W) as a grey picture of at most 160 pixels a side."""
    grey = Image.fromarray(np.rint(pixels.mean(axis=0)).astype(np.uint8))
    grey.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return grey


def overlay(film: Image.Image, values: npt.NDArray[np.float32]) -> Image.Image:
    """Return the grey ``film`` with a map ``values`` (H, W) in [0, 1] over it, the more opaque the higher."""
    heat = np.asarray(Image.fromarray(values).resize(film.size, Image.Resampling.BILINEAR), dtype=np.float64)
    heat = heat.clip(0, 1)[..., None]
    colours = matplotlib.colormaps["inferno"](heat[..., 0])[..., :3] * 255
    grey = np.asarray(film, dtype=np.float64)[..., None]
    mixed = grey + OPACITY * heat * (colours - grey)
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _rows(work: Workplace, entries: list[dict[str, Any]]) -> npt.NDArray[np.int64]:
    return work.cache.rows([entry["film"] for entry in entries])


def _write(picture: Image.Image, path: Path) -> Path:
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return path
