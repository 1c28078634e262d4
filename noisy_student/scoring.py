"""What a generation says of films beside what is known of them: from here every measure and decision starts.

Nothing here opens a file of labels; films come with theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from noisy_student.config import Config
from noisy_student.data import manifest, predictions
from noisy_student.data.manifest import Manifest
from noisy_student.measures import Levels
from noisy_student.runs import Run, read_json
from noisy_student.stats import metrics
from noisy_student.stats.consensus import Consensus, Views
from noisy_student.stats.evaluation import Aggregation, by_study

Floats = npt.NDArray[np.float64]

JUDGING: Final = ("valid", "labelled")
"""Predictions of films that judge a generation."""


def known_truth(values: npt.NDArray[np.float32], blank: str) -> Floats:
    """Return labels as 1, 0 or NaN; uncertain (-1) and soft values are unknown to an evaluation.

    ``blank`` is the policy ``targets.blank``. Where a report that does not mention a finding counts as negative in
    training ("zeros"), it must count so here too: the films that mention one are mostly positive, and calibration or
    prevalence measured on those alone would be far too high.
    """
    truth = values.astype(np.float64)
    if blank == "zeros":
        truth[np.isnan(truth)] = 0
    truth[(truth != 0) & (truth != 1)] = np.nan
    return truth


def area(values: npt.NDArray[np.float32], score: Floats, blank: str) -> float:
    """Return the AUROC of ``score`` (N,) for labels ``values`` (N,); unknown labels are left out."""
    return metrics.auroc(known_truth(values[:, None], blank)[:, 0], score)


def codes(names: Any) -> npt.NDArray[np.int64]:
    """Return an integer code per name, equal for equal names."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def views(films: Manifest) -> Views:
    """Return the study of each film, and whether it is frontal."""
    return Views(codes(films.frame["study"]), (films.frame["view"] == "frontal").to_numpy(dtype=bool))


def predictions_path(run: Run, generation: int, split: str, fold: int | None = None) -> Path:
    """Return where the predictions of a generation on ``split`` lie; those of one network of it with ``fold``."""
    return run.network(generation, fold) / "predictions" / f"{split}.parquet"


def calibrations(run: Run, generation: int, split: str = "test", fold: int | None = None) -> Consensus:
    """Return the calibrations of what a generation, or its network of ``fold``, says of films of ``split``."""
    apart = judges_calibration(run, generation)
    judging = fold is not None or split in JUDGING
    path = apart if judging and apart.is_file() else run.generation(generation) / "calibration.json"
    return Consensus.from_json(read_json(path))


def judges_calibration(run: Run, generation: int) -> Path:
    """Return where the calibration of the networks of folds lies, where another one says what a generation says."""
    return run.generation(generation) / "calibration-folds.json"


def calibration_files(run: Run, generation: int) -> list[Path]:
    """Return the files of all calibrations of a generation."""
    apart = judges_calibration(run, generation)
    return [run.generation(generation) / "calibration.json", *([apart] if apart.is_file() else [])]


def probabilities(run: Run, generation: int, split: str, films: Manifest, fold: int | None = None) -> Floats:
    """Return the calibrated probabilities (N, K) of a generation on the films of ``split``; of one network of it with
    ``fold``.
    """
    stored = predictions.read(predictions_path(run, generation, split, fold), images(films))
    return calibrations(run, generation, split, fold).image(stored.each)


def study_probabilities(run: Run, generation: int, split: str, films: Manifest, fold: int | None = None) -> Floats:
    """Return the calibrated probabilities (S, K) of a generation on the studies of ``split``, in the order of the codes
    of their names; of one network of it with ``fold``.
    """
    stored = predictions.read(predictions_path(run, generation, split, fold), images(films))
    return calibrations(run, generation, split, fold).study(stored.each, views(films))


def teaching(
    run: Run, config: Config, generation: int, films: Manifest, fold: int | None = None, split: str = "pool"
) -> Floats:
    """Return what a generation teaches of films of ``split``: probabilities (N, K), a study's own where studies are the
    unit; what one network of it does with ``fold``.
    """
    if config.evaluation.level == "image":
        return probabilities(run, generation, split, films, fold)
    return study_probabilities(run, generation, split, films, fold)[codes(films.frame["study"])]


def judging_films(config: Config, films: Manifest) -> dict[str, Manifest]:
    """Return the films, by name of their predictions, that judge a generation: validation, and the labelled films where
    a cross-fitted run predicts them out of fold.
    """
    chosen = {"valid": manifest.select(films, split="valid")}
    if config.folds > 1:
        chosen["labelled"] = manifest.select(films, split="train", labelled=True)
    return chosen


@dataclass(frozen=True, eq=False)
class Scores:
    """What a generation says of films: ``logits`` (C, N, L) of its calibrated networks, and their calibrations.

    ``columns`` are the K of its L labels that the films have, in the order of theirs.
    """

    films: Manifest
    logits: Floats
    fitted: Consensus
    columns: tuple[int, ...]

    def rows(self, keep: npt.NDArray[np.bool_]) -> Scores:
        """Return what is said of the films ``keep`` (N,)."""
        return replace(self, films=manifest.rows(self.films, keep), logits=self.logits[:, keep])

    def levels(self, blank: str) -> Levels:
        """Return truth, calibrated probability and patients per film and per study."""
        chosen = list(self.columns)
        study = self.fitted.study(self.logits, views(self.films))[:, chosen]
        return by_level(self.films, self.fitted.image(self.logits)[:, chosen], blank, study)

    def uncalibrated(self, blank: str, aggregation: Aggregation) -> Levels:
        """Return the same of the sigmoid of the logits, the mean over networks."""
        chosen, seen = list(self.columns), views(self.films)
        study = expit([seen.aggregate(logits, aggregation) for logits in self.logits]).mean(axis=0)[:, chosen]
        return by_level(self.films, expit(self.logits).mean(axis=0)[:, chosen], blank, study)


def scores_of(run: Run, generation: int, split: str, films: Manifest) -> Scores:
    """Return what a generation says of the films of ``split``."""
    stored = predictions.read(predictions_path(run, generation, split), images(films))
    logits: Floats = np.asarray(stored.each, dtype=np.float64)
    return Scores(films, logits, calibrations(run, generation, split), tuple(range(len(films.labels))))


def by_level(films: Manifest, probability: Floats, blank: str, study: Floats | None = None) -> Levels:
    """Return truth (N, K), probability (N, K) and patient codes (N,) per "image", and the same (S, K) per "study".

    ``study`` is what is said of the studies, in the order of their codes; without it the mean over a study's films.
    """
    truth, patients = known_truth(manifest.values(films), blank), codes(films.frame["patient"])
    known, mean, of_study = by_study(truth, probability, patients, codes(films.frame["study"]))
    return {"image": (truth, probability, patients), "study": (known, mean if study is None else study, of_study)}


def images(films: Manifest) -> npt.NDArray[np.object_]:
    return films.frame["image"].to_numpy(dtype=object)
