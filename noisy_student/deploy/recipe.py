"""All that asking a trained model takes besides its weights: labels, decoding, calibration, thresholds, views."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from noisy_student import evaluation, external, generations
from noisy_student.config import Config
from noisy_student.data.decode import DecodeSettings
from noisy_student.errors import DataError, UsageError
from noisy_student.measures import Points
from noisy_student.origins import read_meta
from noisy_student.preparation import decode_settings
from noisy_student.runs import Run, read_json, text_hash
from noisy_student.stats.consensus import Consensus
from noisy_student.stats.operating import KINDS, Threshold

FORMAT: Final = 1
"""Of an exported ``config.json``."""
CONFIG: Final = "config.json"
MODEL_TYPE: Final = "noisy_student"
_MODEL: Final = ("model", "labels", "channels", "image_size", "normalisation", "mean", "deviation", "parameters")


@dataclass(frozen=True)
class Recipe:
    """How a model is asked.

    Attributes:
        name: what the model is called.
        generation: which of its run it is.
        labels: the K labels, in the order of the outputs.
        decode: how a file becomes the pixels that the networks see.
        networks: of each network what builds it again: the part of its ``meta.json`` that does.
        calibration: logits to probabilities.
        points: label -> kind of operating point -> threshold, for probabilities of a film.
        tta, seed, precision, threads: as in the configuration of the run.
        weights: a hash of the weights and of the decoding: of all that the networks' own words depend on.
        calibrated_with: the file of ``ns recalibrate`` that stands in for the run's own calibration.
    """

    name: str
    generation: int
    labels: tuple[str, ...]
    decode: DecodeSettings
    networks: tuple[dict[str, Any], ...]
    calibration: Consensus
    points: Points
    tta: str | int
    seed: int
    precision: str
    threads: int
    weights: str
    calibrated_with: str | None = None

    @property
    def key(self) -> str:
        """A hash of all that the answers depend on."""
        return text_hash(json.dumps(self.to_json(), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values, with the keys by which tools of Hugging Face read a ``config.json``."""
        return {
            "model_type": MODEL_TYPE,
            "problem_type": "multi_label_classification",
            "id2label": {str(number): name for number, name in enumerate(self.labels)},
            "label2id": {name: number for number, name in enumerate(self.labels)},
            "format": FORMAT,
            "name": self.name,
            "generation": self.generation,
            "labels": list(self.labels),
            "decode": asdict(self.decode),
            "networks": list(self.networks),
            "calibration": self.calibration.to_json(),
            "calibrated_with": self.calibrated_with,
            "operating_points": {
                label: {kind: asdict(chosen) for kind, chosen in kinds.items()} for label, kinds in self.points.items()
            },
            "prediction": {"tta": self.tta, "seed": self.seed, "precision": self.precision, "threads": self.threads},
            "weights": self.weights,
        }


def of_run(run: Run, config: Config, generation: int, calibration: Path | None = None) -> Recipe:
    """Return the recipe of a calibrated generation of a run, with the calibration of a file of ``ns recalibrate`` in
    place of its own where one is named.

    Thresholds are chosen on the films that judge a generation, as in ``evaluation.json``, in the probabilities of the
    calibration that is used: another calibration moves probabilities and thresholds together, and decisions stay.

    Raises:
        UsageError: the generation is not trained and calibrated, or the file is of other networks.
    """
    if not run.is_complete("calibrate", generation):
        raise UsageError(
            f"{run.path}: generation {generation} is not trained and calibrated",
            f"Choose among {', '.join(map(str, run.generations()))}, or finish it with ns iterate --resume.",
        )
    own = run.generation(generation) / "calibration.json"
    weights = external.weights_of(run, config, generation)
    fitted = None if calibration is None else external.refitted(calibration, generation, weights)
    folders = run.networks(generation)
    metas = tuple(_described(read_meta(folder)) for folder in folders)
    asked = config.prediction
    return Recipe(
        name=run.path.resolve().name,
        generation=generation,
        labels=config.data.labels,
        decode=decode_settings(config.data),
        networks=metas,
        calibration=fitted or Consensus.from_json(read_json(own)),
        points=evaluation.thresholds(run, config, generation, fitted)["image"],
        tta=asked.tta,
        seed=config.seed,
        precision=config.precision,
        threads=config.threads,
        weights=weights,
        calibrated_with=None if calibration is None else calibration.name,
    )


def of_folder(folder: Path) -> Recipe:
    """Return the recipe of an exported folder.

    Raises:
        UsageError: the folder was not written by ``ns export``, or by another version.
    """
    stored = read_json(folder / CONFIG)
    if not isinstance(stored, dict) or stored.get("model_type") != MODEL_TYPE or stored.get("format") != FORMAT:
        raise UsageError(
            f"{folder / CONFIG}: was not written by ns export of this version", "Export the run again, or name a run."
        )
    try:
        decode, asked = stored["decode"], stored["prediction"]
        return Recipe(
            name=stored["name"],
            generation=stored["generation"],
            labels=tuple(stored["labels"]),
            decode=DecodeSettings(**decode | {"window": decode["window"] and tuple(decode["window"])}),
            networks=tuple(stored["networks"]),
            calibration=Consensus.from_json(stored["calibration"]),
            points={
                label: {kind: Threshold(**kinds[kind]) for kind in KINDS}
                for label, kinds in stored["operating_points"].items()
            },
            tta=asked["tta"],
            seed=asked["seed"],
            precision=asked["precision"],
            threads=asked["threads"],
            weights=stored["weights"],
            calibrated_with=stored["calibrated_with"],
        )
    except DataError as error:
        raise DataError(f"{folder / CONFIG}: {error.message}", "Export the run again.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / CONFIG}: is incomplete or damaged ({error})", "Export the run again.") from error


def is_exported(path: Path) -> bool:
    """Return whether ``path`` has the form of a folder by ``ns export``, which other models have too."""
    return (path / CONFIG).is_file() and (path / "model.safetensors").is_file()


def is_ours(path: Path) -> bool:
    """Return whether ``ns export`` wrote the folder ``path``, and not another program in the same form."""
    if not is_exported(path):
        return False
    try:
        stored = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(stored, dict) and stored.get("model_type") == MODEL_TYPE


def opened(path: Path, generation: int | None) -> tuple[Run, Config, int]:
    """Return the run at ``path``, its configuration, and ``generation`` or else its best one.

    Raises:
        UsageError: there is no run, or nothing has been trained.
    """
    run, config = generations.existing_run(path)
    return run, config, external.chosen_generation(run, generation)


def _described(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a ``meta.json`` what builds the network, without the place that its first weights came from."""
    kept = {key: meta[key] for key in _MODEL if key in meta}
    model = dict(meta["model"])
    if model["weights"] != "none":  # a path can name a person or a machine, and the weights are at hand
        model |= {"weights": "none", "initialise": "pretrained", "pretrained_blocks": None}
    return kept | {"model": model}
