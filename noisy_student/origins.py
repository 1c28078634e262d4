"""Start weights as files: where a run or a file of that name is, and which labels weights have seen before.

A model folder is ``model.safetensors`` and ``meta.json``, written by :mod:`noisy_student.learning.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from noisy_student.best import best_generation
from noisy_student.config import Config, PhaseConfig
from noisy_student.config.load import resolved
from noisy_student.data import split_files
from noisy_student.errors import ConfigError, WeightsError
from noisy_student.runs import PRETRAINING, Run, read_json

FORMAT: Final = 1
"""Of ``meta.json``."""
OF_RUN: Final = "weights of "
"""How the origin of a network begins that goes on from another of its own run, whose name follows."""
BY_NAME: Final = ("none", "imagenet")
"""``model.weights`` that are no place on disk and have seen no films of ours."""
XRV: Final = "xrv:"

_XRV_COLLECTIONS: Final[dict[str, tuple[str, ...]]] = {
    # RSNA's, Google's and SIIM's films are films of NIH ChestX-ray14 with labels of their own.
    "densenet121-res224-all": ("chexpert", "mimic", "nih", "openi", "padchest", "rsna"),
    "densenet121-res224-chex": ("chexpert",),
    "densenet121-res224-mimic_ch": ("mimic",),
    "densenet121-res224-mimic_nb": ("mimic",),
    "densenet121-res224-nih": ("nih",),
    "densenet121-res224-pc": ("padchest",),
    "densenet121-res224-rsna": ("nih", "rsna"),
    "resnet50-res512-all": ("nih", "padchest", "rsna", "siim", "vindr"),
}
"""torchxrayvision's weights (``torchxrayvision.models.model_urls``) -> the collections that they were trained on."""

_SAME_FILMS: Final = {"chexpert_plus": "chexpert"}
_OWN_TABLES: Final = ("csv", "folders", "dicom")
_ONLY_PIXELS: Final = ("root", "cache_dir", "image_size", "channels", "fit", "window", "max_bad_share")


def find(name: str, search: Sequence[Path]) -> Path:
    """Return the weights file, or the model folder, that ``name`` stands for.

    Args:
        name: a file, a run, a generation of it or a model folder: absolute, or below one of the folders ``search``.
        search: looked at in order.

    Raises:
        WeightsError: there is nothing of that name (the places are named), or a folder that holds no model.
    """
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() else [folder / path for folder in search]
    for place in places:
        if place.is_file():
            ours = place.name == "model.safetensors" and (place.parent / "meta.json").is_file()
            return place.parent if ours else place
        if place.is_dir():
            return model_folder(place)
    looked = ", ".join(str(place) for place in places) or "nowhere: no folder was given"
    raise WeightsError(
        f"model.weights: there is no file and no run {name}; looked at {looked}",
        "Give an absolute path, or set NS_WEIGHTS to the folder of the file.",
    )


def model_folder(path: Path) -> Path:
    """Return the model folder of a run (its best generation), of a generation, of a network of it, or ``path`` itself.

    Of a generation of several networks it is the first of those that say what it says.

    Raises:
        WeightsError: there is none.
    """
    run = Run(path)
    if run.exists():
        report = path / "report.json"
        if not report.is_file():
            names = ", ".join(str(path / f"gen-{number}") for number in run.generations()) or "none yet"
            raise WeightsError(
                f"model.weights: {path} has no report.json, so its best generation is not known",
                f"Name a generation ({names}), or finish the run with ns evaluate and ns report.",
            )
        best = best_generation(run)
        assert best is not None  # at the least the report names one
        path = run.generation(best)
    number = path.name.removeprefix("gen-")
    several = Run(path.parent).networks(int(number)) if number.isdigit() else []
    for folder in (path, path / "checkpoint" / "best", *several[:1]):
        if (folder / "meta.json").is_file() and (folder / "model.safetensors").is_file():
            return folder
    raise WeightsError(
        f"model.weights: {path} is a folder without a trained model",
        "Give a finished run, a generation of it (runs/NAME/gen-0), or a file of weights.",
    )


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the ``meta.json`` of a model folder."""
    meta: dict[str, Any] = read_json(folder / "meta.json")
    if meta.get("format") != FORMAT:
        raise WeightsError(
            f"{folder / 'meta.json'}: has format {meta.get('format')!r}, this version reads {FORMAT}",
            "Use the version of noisy_student that wrote it.",
        )
    return meta


def run_of(folder: Path) -> Run | None:
    """Return the run that a model folder belongs to, ``None`` where it stands alone."""
    return next((run for run in map(Run, folder.parents) if run.exists()), None)


def name_of(folder: Path) -> str:
    """Return ``run chexpert, gen-2`` for a model folder of a run, and its own name for one that stands alone."""
    run = run_of(folder)
    if run is None:
        return f"model {folder.name}"
    parts = [part for part in folder.relative_to(run.path).parts if part not in ("checkpoint", "best")]
    return ", ".join([f"run {run.path.resolve().name}", *parts])


def labels_seen(weights: str, search: Sequence[Path]) -> tuple[str, ...]:
    """Return the collections with whose labels ``weights`` were trained, sorted; empty where none is on record.

    Of a run: those of its data set, and of the weights that it started from itself.
    """
    if weights in BY_NAME:
        return ()
    if weights.startswith(XRV):
        return _XRV_COLLECTIONS.get(weights.removeprefix(XRV), ())
    folder = find(weights, search)
    if folder.is_file():
        return ()
    meta, run = read_meta(folder), run_of(folder)
    seen = set(meta.get("labels_seen", ()))
    if run is not None and meta.get("generation") != PRETRAINING:
        seen.add(_collection(read_json(run.path / "config.resolved.json")["data"]["source"]))
    return tuple(sorted(seen))


def caution(config: Config, weights: str, search: Sequence[Path]) -> str | None:
    """Return a sentence where ``weights`` may have been trained with labels of this run's pool or test films.

    It is about the same collection under another split: a run of ours on the same data with the same split has seen
    the same labelled films and no others, and gives no reason for caution, unless its own start weights did.

    Raises:
        ConfigError: the run has the same split, and with its ``folds`` or those of ``config`` it has learnt from films
            that are to judge here.
    """
    own = _collection(config.data.source)
    folder = None if weights in BY_NAME or weights.startswith(XRV) else find(weights, search)
    if folder is None or folder.is_file():
        before: Sequence[str] = labels_seen(weights, search)
    else:
        meta, run = read_meta(folder), run_of(folder)
        before = meta.get("labels_seen", ())
        stored = None if run is None else read_json(run.path / "config.resolved.json")
        if stored is not None and meta.get("generation") != PRETRAINING and _same_data(stored, config):
            assert run is not None, "it is where the configuration is from"
            if not _same_split(stored, resolved(config)) or _rewritten(run, config):
                return _sentence(weights, "another split of this run's data set")
            _check_judging_films(weights, stored["folds"], config.folds)
            if carried := meta.get("cautions"):
                return "; ".join(carried)
            before = [name for name in before if name != own]
    return _sentence(weights, own) if own in before else None


def history(
    config: Config, phase: PhaseConfig, start: Path | None, before: Sequence[Path] = (), *, search: Sequence[Path]
) -> dict[str, Sequence[str]]:
    """Return what ``meta.json`` records of the labels that a network's weights, or its teachers, have seen elsewhere.

    Empty where there is nothing to record; ``start`` is the model folder that takes the place of ``phase``'s weights,
    and ``before`` are the model folders of its teachers.
    """
    seen: set[str] = set()
    cautions: dict[str, None] = {}
    if start is None:
        seen |= set(labels_seen(phase.model.weights, search))
        if (own := caution(config, phase.model.weights, search)) is not None:
            cautions[own] = None
    for folder in (start, *before):  # what a teacher has seen reaches its students with the pseudo-labels
        if folder is not None:
            meta = read_meta(folder)
            seen |= set(meta.get("labels_seen", ()))
            cautions |= dict.fromkeys(meta.get("cautions", ()))
    found = {"labels_seen": sorted(seen), "cautions": list(cautions)}
    return {key: value for key, value in found.items() if value}


def _check_judging_films(weights: str, theirs: int, ours: int) -> None:
    """Raise :class:`ConfigError` where a run of the same split, with ``theirs`` folds, learnt from films that judge."""
    if theirs > 1:
        # Each of its networks learnt from the labelled and the validation films of all folds but one.
        why = f"it was cross-fitted (folds: {theirs}), so the validation films taught it too"
        fix = "Take a run of this split with folds: 1" + (" and set folds to 1 here too" if ours > 1 else "")
    elif ours > 1:
        why = f"the labelled films taught it, and with folds: {ours} they judge too"
        fix = "Set folds to 1"
    else:
        return
    raise ConfigError(
        f"model.weights: {weights} knows labels of films that judge this run: it has the same split, and {why}",
        f"{fix}, or set model.weights to something that has not seen these films (imagenet, a run on other films).",
    )


def _sentence(weights: str, on: str) -> str:
    name = weights if weights.startswith(XRV) else Path(weights).name
    return f"{name} was trained on {on}: it may have seen labels of the pool and the test films"


def _collection(source: str) -> str:
    return _SAME_FILMS.get(source, source)


def _same_data(stored: Mapping[str, Any], config: Config) -> bool:
    data, own = stored["data"], config.data
    if _collection(data["source"]) != _collection(own.source):
        return False
    if own.source == "synthetic":
        return bool(data["synthetic"] == resolved(config)["data"]["synthetic"])
    if own.source in _OWN_TABLES:  # any set can be one: the folder tells them apart, a copy of it by its name
        assert own.root is not None, "the configuration asks for a root"
        return Path(data["root"]).resolve().name == own.root.resolve().name
    return True


def _rewritten(run: Run, config: Config) -> bool:
    """Return whether the split file of ``config`` is not what it was when ``run`` of the same configuration read it."""
    path = config.split.file
    read = read_json(run.path / "split.json") if (run.path / "split.json").is_file() else {}
    return path is not None and split_files.stored_hash(path) != read.get("file_hash")


def _same_split(stored: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    tables = [{key: value for key, value in tree["data"].items() if key not in _ONLY_PIXELS} for tree in (stored, own)]
    return bool(tables[0] == tables[1] and stored["split"] == own["split"])
