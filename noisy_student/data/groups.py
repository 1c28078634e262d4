"""Groups of films by what the manifest says of patient, view and place, for figures by subgroup."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.data.manifest import Manifest

Flags = npt.NDArray[np.bool_]

COLUMNS: Final = ("sex", "age", "view", "projection", "site")
"""Columns of the manifest by which films are grouped, in the order of the report."""


def of_films(films: Manifest, age_bands: Sequence[int]) -> dict[str, dict[str, Flags]]:
    """Return, per column that is known of any film, its groups and which films (N,) are in them.

    Ages are in bands: below the first of ``age_bands``, from each to the next, and from the last on; bands without a
    film are left out. Films of which a column is not known are in none of its groups.
    """
    found = {}
    for column in COLUMNS:
        values = films.frame[column].to_numpy()
        parts = _bands(values.astype(np.float64), age_bands) if column == "age" else _values(values)
        if parts:
            found[column] = parts
    return found


def _values(values: npt.NDArray[np.object_]) -> dict[str, Flags]:
    return {name: values == name for name in sorted({str(value) for value in values} - {""})}


def _bands(ages: npt.NDArray[np.float64], first_years: Sequence[int]) -> dict[str, Flags]:
    names = [f"under {first_years[0]}"]
    names += [f"{low}-{high - 1}" for low, high in pairwise(first_years)]
    names.append(f"{first_years[-1]} and over")
    band = np.where(np.isnan(ages), -1, np.searchsorted(first_years, ages, side="right"))
    return {name: band == place for place, name in enumerate(names) if (band == place).any()}
