"""A whole synthetic data set on disk, in the folders and tables of CheXpert-v1.0-small."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from noisy_student.config import SyntheticConfig
from noisy_student.data.synthetic.cases import SPLITS, TAG_VIEWS, Case, first_age, is_female, projections
from noisy_student.data.synthetic.prevalence import Prevalence, count_studies, draw_studies
from noisy_student.data.synthetic.render import render
from noisy_student.errors import DataError
from noisy_student.labels import OBSERVATIONS
from noisy_student.randomness import uniform
from noisy_student.runs import check_free_space, read_json, storage_errors, write_json, write_text

VERSION: Final = 2
"""Version of the generator; it changes whenever a film or a label does, so that figures stay comparable."""

PREFIX: Final = "CheXpert-v1.0-small"
"""First part of every ``Path``: the name the real data root has."""
FIRST_PATIENT: Final = {"train": 1, "valid": 64541, "test": 64741}
"""Number of the first patient of each split, as in CheXpert."""
COMPLETE: Final = "synthetic.json"
"""Written last: the set is whole and made with these settings."""
STARTED: Final = ".synthetic-started.json"
"""Written first: the folder is ours, and its films are made with these settings."""
COLUMNS: Final = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS)
"""The 19 columns of the official tables, in their order."""
_QUALITY: Final = 92
_BATCH: Final = 64


@dataclass(frozen=True)
class Row:
    """One film of a split: where it lies, how it is rendered, what its table says."""

    path: str  # below the root
    case: Case
    age: int
    labels: tuple[float, ...]


def rows_of(seed: int, split: str, patients: Sequence[int], prevalence: Prevalence = "enriched") -> Iterator[Row]:
    """Yield the films of ``patients`` (official numbers) in table order; what a patient has depends on no other."""
    number, every = SPLITS[split], np.asarray(patients)
    # Valid and test have one study a patient, as in CheXpert, and their tables hold the truth.
    train = split == "train"
    counts = count_studies(seed, number, every, prevalence) if train else np.ones(len(every), dtype=np.int64)
    owner = np.repeat(every, counts)
    study = np.concatenate([np.arange(1, count + 1) for count in counts])
    drawn = draw_studies(seed, number, owner, study, prevalence)
    labels = drawn.told if train else drawn.truth.astype(np.float64)
    ages = np.minimum(90, first_age(seed, number, owner) + (study - 1) // 2)
    u = uniform(seed, TAG_VIEWS, number, owner, study)
    columns = (owner, study, is_female(seed, number, owner), ages, u, drawn.bed, drawn.severity, labels)
    for patient, visit, female, age, draw, bed, severity, told in zip(*(c.tolist() for c in columns), strict=True):
        for view, projection in enumerate(projections(draw, bed), start=1):
            kind = "lateral" if projection == "LL" else "frontal"
            path = f"{split}/patient{patient:05d}/study{visit}/view{view}_{kind}.jpg"
            case = Case(seed, number, patient, visit, view, projection, female, tuple(severity))
            yield Row(path, case, age, tuple(told))


def split_rows(config: SyntheticConfig, split: str) -> list[Row]:
    """Return all films of a split in table order."""
    count = {"train": config.train_patients, "valid": config.valid_patients, "test": config.test_patients}[split]
    first = FIRST_PATIENT[split]
    return list(rows_of(config.seed, split, range(first, first + count), config.prevalence))


def table(rows: list[Row]) -> pd.DataFrame:
    """Return the table of ``rows`` with the 19 official columns."""
    lateral = [row.case.projection == "LL" for row in rows]
    head = pd.DataFrame(
        {
            "Path": [f"{PREFIX}/{row.path}" for row in rows],
            "Sex": ["Female" if row.case.female else "Male" for row in rows],
            "Age": [row.age for row in rows],
            "Frontal/Lateral": ["Lateral" if side else "Frontal" for side in lateral],
            "AP/PA": [None if side else row.case.projection for side, row in zip(lateral, rows, strict=True)],
        }
    )
    labels = pd.DataFrame([row.labels for row in rows], columns=list(OBSERVATIONS), dtype=np.float64)
    return pd.concat([head, labels], axis=1)[list(COLUMNS)]


def _claim(root: Path, settings: dict[str, Any]) -> bool:
    """Make ``root`` ours; return whether a complete set with equal settings is there already."""
    if (root / COMPLETE).is_file():
        if read_json(root / COMPLETE) == settings:
            return True
        raise DataError(
            f"{root}: holds synthetic films made with other settings (see {COMPLETE})",
            "Choose another folder, or remove this one to make the films again.",
        )
    started = root / STARTED
    if root.exists() and not started.is_file() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(
            f"{root}: is not empty and holds no synthetic data set of ours",
            "Choose an empty or new folder (data.root) for the synthetic films.",
        )
    if started.is_file() and read_json(started) != settings:
        # Half a set of other settings: its films are of no use, and everything in these folders is ours.
        for split in SPLITS:
            shutil.rmtree(root / split, ignore_errors=True)
            (root / f"{split}.csv").unlink(missing_ok=True)
    write_json(started, settings)
    return False


def _save(film: np.ndarray[Any, np.dtype[np.uint8]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    Image.fromarray(film).save(temporary, format="JPEG", quality=_QUALITY)
    temporary.replace(path)  # so that a killed process leaves no half film


def write_films(root: Path, rows: Sequence[Row], size: int) -> int:
    """Return the number of ``rows`` after writing their films below ``root``, ``size`` pixels a side."""
    for film, row in zip(render([row.case for row in rows], size), rows, strict=True):
        _save(film, root / row.path)
    return len(rows)


def write_dataset(root: Path, config: SyntheticConfig, *, progress: bool = False) -> None:
    """Return nothing; write the synthetic data set of ``config`` below ``root``, in CheXpert's layout.

    Writes ``train.csv``, ``valid.csv`` and ``test.csv`` (19 columns each), their films as 8-bit grey JPEG at
    ``root/<split>/patientNNNNN/studyN/viewN_<view>.jpg``, and last ``synthetic.json``, which marks the set complete.
    A complete set of equal settings is left as it is; one that was interrupted is continued.

    Args:
        root: the folder that the prefix of ``Path`` stands for; made when absent.
        config: sizes and seed.
        progress: show a progress bar on stderr.

    Raises:
        DataError: ``root`` holds something else, or a complete set of other settings.
        StorageError: the disk is full or ``root`` is not writable.
    """
    settings = {"version": VERSION, "config": config.model_dump(mode="json")}
    if _claim(root, settings):
        return
    tables = {split: split_rows(config, split) for split in SPLITS}
    missing = [row for rows in tables.values() for row in rows if not (root / row.path).is_file()]
    check_free_space(root, len(missing) * (config.size**2 // 2 + 8192), "the synthetic data set")
    with storage_errors(root), tqdm(total=len(missing), unit="film", disable=not progress, desc="synthetic") as bar:
        for start in range(0, len(missing), _BATCH):
            bar.update(write_films(root, missing[start : start + _BATCH], config.size))
    for split, rows in tables.items():
        write_text(root / f"{split}.csv", table(rows).to_csv(index=False, lineterminator="\n"))
    write_json(root / COMPLETE, settings)
    (root / STARTED).unlink(missing_ok=True)
