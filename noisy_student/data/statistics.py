"""What a data set holds, in numbers: labels, people, views, studies; for each split and for all."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import SPLITS, VALUES, Manifest

Floats = npt.NDArray[np.float32]


def describe(manifest: Manifest, target: Floats, weight: Floats) -> dict[str, Any]:
    """Return the figures of a manifest as plain values.

    ``splits`` has an entry per split that has films (``unassigned`` for those that wait for one), ``all`` is over all
    films. An entry has ``images``, ``studies``, ``patients``, ``studies_without_frontal``, ``labelled_images``, the
    numbers of films by ``view``, ``projection`` and ``sex`` (``unknown`` where blank), ``age`` (years, per film), and
    per label the films that are ``positive``, ``negative``, ``uncertain``, ``soft`` or ``blank``, the
    ``patients_positive``, and what the policies make of them: ``target_mass`` (sum of target times weight) and
    ``target_weight`` (sum of weights).

    Args:
        manifest: N films with K labels.
        target: targets (N, K) that the policies give.
        weight: their weights (N, K).
    """
    split = manifest.frame["split"].to_numpy(dtype=object)
    values = manifests.values(manifest)
    codes = {name: pd.factorize(manifest.frame[name])[0] for name in ("patient", "study")}
    entries = {}
    for name in (*SPLITS, ""):
        rows = split == name
        if rows.any():
            entries[name or "unassigned"] = _entry(manifest, values, target, weight, codes, rows)
    (whole, *others) = entries.values()
    if others:
        whole = _entry(manifest, values, target, weight, codes, np.ones(len(split), dtype=bool))
    return {"labels": list(manifest.labels), "all": whole, "splits": entries}


def _entry(
    manifest: Manifest,
    values: Floats,
    target: Floats,
    weight: Floats,
    codes: dict[str, npt.NDArray[np.intp]],
    rows: npt.NDArray[np.bool_],
) -> dict[str, Any]:
    frame = manifest.frame
    patient, study = codes["patient"][rows], codes["study"][rows]
    frontal = (frame["view"] == "frontal").to_numpy(dtype=bool)[rows]
    viewed = (frame["view"] != "").to_numpy(dtype=bool)[rows]
    entry: dict[str, Any] = {
        "images": int(rows.sum()),
        "studies": _distinct(study),
        "patients": _distinct(patient),
        "studies_without_frontal": _distinct(study[viewed]) - _distinct(study[frontal]),
        "labelled_images": int(frame["labelled"].to_numpy(dtype=bool)[rows].sum()),
    }
    for column in ("view", "projection", "sex"):
        counts = frame[column][rows].value_counts()
        entry[column] = {name or "unknown": int(counts.get(name, 0)) for name in VALUES[column]}
    entry["age"] = _ages(frame["age"].to_numpy()[rows])
    entry["labels"] = {}
    for k, label in enumerate(manifest.labels):
        value = values[rows, k]
        soft = (value > 0) & (value < 1)
        mass, known = target[rows, k].astype(np.float64), weight[rows, k].astype(np.float64)
        entry["labels"][label] = {
            "positive": int((value == 1).sum()),
            "uncertain": int((value == -1).sum()),
            "negative": int((value == 0).sum()),
            "soft": int(soft.sum()),
            "blank": int(np.isnan(value).sum()),
            "patients_positive": _distinct(patient[value == 1]),
            "target_mass": float((mass * known).sum()),
            "target_weight": float(known.sum()),
        }
    return entry


def _distinct(codes: npt.NDArray[np.intp]) -> int:
    # Codes are small integers: counting them is ten times as fast as sorting or hashing them.
    return int(np.count_nonzero(np.bincount(codes)))


def _ages(years: npt.NDArray[np.float64]) -> dict[str, Any]:
    known = years[~np.isnan(years)]
    quantiles = np.quantile(known, [0, 0.25, 0.5, 0.75, 1]) if len(known) else [None] * 5
    names = ("min", "quarter", "median", "three_quarters", "max")
    found = {name: None if value is None else float(value) for name, value in zip(names, quantiles, strict=True)}
    return {"unknown": len(years) - len(known), "zero": int((known == 0).sum()), **found}


def as_text(figures: dict[str, Any]) -> str:
    """Return the figures of :func:`describe` as a table for a terminal."""
    lines = []
    splits = figures["splits"] if len(figures["splits"]) > 1 else {}
    for name, entry in {**splits, "all": figures["all"]}.items():
        lines.append(f"{name}: {entry['images']:,} films, {entry['studies']:,} studies, {entry['patients']:,} patients")
        if entry["view"]["frontal"]:
            lines.append(f"  studies without a frontal film: {entry['studies_without_frontal']:,}")
        for column in ("view", "projection", "sex"):
            counts = ", ".join(f"{word} {count:,}" for word, count in entry[column].items() if count)
            lines.append(f"  {column:<11}{counts}")
        age = entry["age"]
        if age["min"] is not None:
            lines.append(
                f"  {'age':<11}{age['min']:g} to {age['max']:g}, median {age['median']:g}; unknown {age['unknown']:,}"
            )
        width = max(len(label) for label in entry["labels"])
        soft = ["soft"] if any(counts["soft"] for counts in entry["labels"].values()) else []
        names = ["positive", "uncertain", "negative", *soft, "blank"]
        lines.append(f"  {'':<{width}}" + "".join(f"{word:>11}" for word in (*names, "share", "mass")))
        for label, counts in entry["labels"].items():
            share = counts["target_mass"] / counts["target_weight"] if counts["target_weight"] else float("nan")
            cells = "".join(f"{counts[word]:>11,}" for word in names)
            lines.append(f"  {label:<{width}}{cells}{share:>11.4f}{counts['target_mass']:>11,.0f}")
    return "\n".join(lines)
