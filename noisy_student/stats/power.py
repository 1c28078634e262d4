"""What a comparison means in words, how many patients would settle it, and Holm's adjustment for many labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from scipy.special import ndtri

from noisy_student.stats.intervals import Difference

POWER: Final = 0.8
"""Chance of finding the difference with the number of patients that is named."""


def patients_needed(
    patients: int, sd: float, difference: float, confidence: float, power: float = POWER, tests: int = 1
) -> int:
    """Return how many patients it takes to find ``difference`` at two-sided ``confidence`` with chance ``power``.

    The standard deviation of a paired difference falls as one over the root of the number of patients. So from its
    bootstrap value ``sd`` with ``patients`` patients it follows for any other number, and the normal test finds a
    difference when it is z(1 - alpha/2) + z(power) standard deviations long: ``patients * ((z + z) * sd /
    difference)**2`` (the sample size of Hanley and McNeil 1983 and Obuchowski and McClish 1997 with the resampled
    variance in place of a binormal one).

    Where it is one of several ``tests`` adjusted by Holm, alpha is divided by their number, which is what the first of
    them has to pass: enough whatever the others find.
    """
    reach = float(ndtri(1 - (1 - confidence) / (2 * tests)) + ndtri(power))
    return max(2, math.ceil(patients * (reach * sd / difference) ** 2))


def sentence(
    found: Difference,
    patients: int,
    smallest: float,
    confidence: float,
    p_value: float | None = None,
    few: str | None = None,
    tests: int = 1,
) -> str:
    """Return "better", "worse", "cannot be told apart with N patients; a difference of D would need about M patients",
    or why neither can be said. ``few`` says that a class has too few patients for either word.

    It is the interval that decides, and ``p_value``, adjusted for so many ``tests``, where one is given. D is
    ``smallest``, set beforehand: the number of patients for the difference that was seen would say no more than the
    p-value does (Hoenig and Heisey 2001). M is what it takes after the adjustment.
    """
    if found.value is None or found.ci is None:
        return f"cannot be compared: {found.reason}"
    if few is not None:
        return f"cannot be told apart: {few}"
    shown = not found.ci[0] <= 0 <= found.ci[1]
    if p_value is not None:
        shown = shown and p_value <= 1 - confidence
    if shown:
        return "better" if found.value > 0 else "worse"
    text = f"cannot be told apart with {patients:,} patient{'' if patients == 1 else 's'}"
    if not found.sd:
        return f"{text}; the difference is the same in every resample"
    needed = _rounded(patients_needed(patients, found.sd, smallest, confidence, tests=tests))
    return f"{text}; a difference of {smallest:g} would need about {needed:,} patients"


def _rounded(count: int) -> int:
    """Return ``count`` to two digits: more would claim what a resampled variance does not know."""
    digits = max(0, len(str(count)) - 2)
    return round(count, -digits)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the p-values adjusted for looking at all of them (Holm 1979); None stays None and counts as not tested.

    The i-th smallest of m is multiplied by m - i + 1, and none is smaller than one before it.
    """
    tested = sorted((value, name) for name, value in p_values.items() if value is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    largest = 0.0
    for rank, (value, name) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * value))
        adjusted[name] = largest
    return adjusted
