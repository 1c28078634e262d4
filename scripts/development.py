"""Films on which teachers are compared: tables with a split, made of the data sets that the comparison knows.

Choices are made on the development table, whose test films come from official training and validation patients; the
official test films are in the other one alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

FOLDS: Final = 5
"""Folds of nih1000's patients; a seed is the fold that is the test set."""
NIH_LABELS: Final = ("Atelectasis", "Edema", "Effusion", "Infiltration", "Pneumonia")
"""The findings of nih1000 on 20 official test films and more."""


def kermany160(root: Path, seed: int, *, official: bool) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of kermany160 and what it changes of the configuration, which is made for it.

    Development: official validation patients beyond those that calibrate become the test set, the same for every seed.
    """
    del seed
    table = pd.read_csv(root / "labels.csv")
    if official:
        return table, []
    table = table[table["split"] != "test"].copy()
    valid = table[table["split"] == "valid"]
    patients = valid["patient"].drop_duplicates().to_numpy()
    np.random.default_rng(0).shuffle(patients)
    films = valid.groupby("patient").size().loc[patients].cumsum()
    kept = set(films.index[films <= 70])  # 52 of them are drawn, whole patients
    table.loc[(table["split"] == "valid") & ~table["patient"].isin(kept), "split"] = "test"
    return table, []


def nih1000(root: Path, seed: int, *, official: bool) -> tuple[pd.DataFrame, list[str]]:
    """Return the table of nih1000 and what it changes of the configuration.

    Development: of five folds of the patients of the train and validation lists, number ``seed`` is the test set and
    the next one calibrates.
    """
    entries = pd.read_csv(root / "Data_Entry_2017_v2020.csv")
    found = entries["Finding Labels"].str.get_dummies("|")
    table = found.reindex(columns=list(NIH_LABELS), fill_value=0)
    table.insert(0, "image", "images/" + entries["Image Index"])
    table.insert(1, "patient", entries["Patient ID"].astype(str))
    table.insert(2, "split", "")
    for split in ("train", "val", "test"):
        listed = (root / f"{split}_list.txt").read_text(encoding="utf-8").split()
        table.loc[entries["Image Index"].isin(listed), "split"] = {"val": "valid"}.get(split, split)
    if not official:
        table = table[table["split"] != "test"].copy()
        patients = np.sort(table["patient"].unique())
        np.random.default_rng(0).shuffle(patients)
        fold = table["patient"].map({patient: number % FOLDS for number, patient in enumerate(patients)})
        table["split"] = "train"
        table.loc[fold == seed % FOLDS, "split"] = "test"
        table.loc[fold == (seed + 1) % FOLDS, "split"] = "valid"
    names = f"[{', '.join(NIH_LABELS)}]"
    return table, [f"data.labels={names}", f"evaluation.macro_labels={names}", "split.valid_images=null"]


TABLES: Final[dict[str, Callable[..., tuple[pd.DataFrame, list[str]]]]] = {"kermany160": kermany160, "nih1000": nih1000}
"""Data set -> its table."""
