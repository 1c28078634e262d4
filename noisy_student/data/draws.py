"""Orders of patients: a seed gives each patient a place, and a budget takes them from the front.

So a smaller budget is always inside a larger one, and nothing depends on the order of the table's rows. Patients are
integers here: their places among the sorted identifiers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from noisy_student import randomness
from noisy_student.errors import DataError

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def shuffled(patient: Ints, seed: int, purpose: str) -> Ints:
    """Return the distinct patients in an order that depends on the seed, the purpose and who they are."""
    names = np.unique(patient)
    return names[randomness.generator(seed, randomness.text_id(purpose)).permutation(len(names))]


def stratified(order: Ints, patient: Ints, positive: Flags, seed: int) -> Ints:
    """Return ``order`` rearranged so that every beginning of it has its share of each label's patients.

    Each stratum (a patient's rarest positive label, or none) is spread evenly over the whole order (systematic
    sampling with a random start, in the order given), so a budget of m among N patients has m / N of a stratum's
    patients give or take one or two, and every patient is as likely to be drawn as any other: no sampling weights are
    needed.

    Args:
        order: the M distinct patients, in random order.
        patient: patient of each film (N,).
        positive: (N, K) where a film is positive for a label.
        seed: seed of the starts.
    """
    stratum = _strata(order, patient, positive)
    start = randomness.generator(seed, randomness.text_id("split.strata")).random(positive.shape[1] + 1)
    key = np.empty(len(order))
    for number in np.unique(stratum):
        members = np.flatnonzero(stratum == number)
        key[members] = (np.arange(len(members)) + start[number]) / len(members)
    return order[np.argsort(key, kind="stable")]


def dealt(order: Ints, patient: Ints, positive: Flags, count: int) -> Ints:
    """Return the hand (M,), from 0 to ``count`` - 1, of each patient of ``order``, dealt stratum by stratum like cards.

    The hands differ by one patient at most, and in each stratum (a patient's rarest positive label, or none) too.

    Args:
        order: the M distinct patients, in random order.
        patient: patient of each film (N,).
        positive: (N, K) where a film is positive for a label.
        count: how many hands.
    """
    hand = np.empty(len(order), dtype=np.int64)
    hand[np.argsort(_strata(order, patient, positive), kind="stable")] = np.arange(len(order)) % count
    return hand


def _strata(order: Ints, patient: Ints, positive: Flags) -> Ints:
    """Return the stratum (M,) of each patient of ``order``: that of its rarest positive label, or that of none."""
    place = np.full(int(order.max(initial=-1)) + 1, -1)
    place[order] = np.arange(len(order))
    has = np.zeros((len(order), positive.shape[1] + 1), dtype=bool)
    rows = place[patient]
    for k in range(positive.shape[1]):
        has[rows[positive[:, k]], k] = True
    has[:, -1] = True  # the stratum of none; every patient has it, so it is never the rarest of another's
    rarest_first = np.append(np.argsort(has[:, :-1].sum(axis=0), kind="stable"), positive.shape[1])
    stratum: Ints = np.argmax(has[:, rarest_first], axis=1)
    return stratum


def members(patient: Ints, chosen: Ints) -> Flags:
    """Return which films (N,) belong to the chosen patients."""
    return np.asarray(np.isin(patient, chosen, kind="table" if len(patient) else None), dtype=bool)


def take_images(
    order: Ints, images: npt.NDArray[np.object_], patient: Ints, rows: Flags, count: int, key: str
) -> tuple[Flags, Ints]:
    """Return the first ``count`` films of ``rows`` by patient in ``order``, and by path within one; and the patients.

    The last patient may give only some of its films.

    Raises:
        DataError: there are fewer films.
    """
    found = int(rows.sum())
    if found < count:
        raise DataError(f"{key}: {count} are asked for, and there are {found} films with labels", "Lower the number.")
    size = np.bincount(patient[rows], minlength=int(order.max()) + 1)[order]
    used = order[: int(np.searchsorted(np.cumsum(size), count)) + 1]
    last = np.flatnonzero(rows & (patient == used[-1]))
    last = last[np.argsort(images[last].astype(str), kind="stable")]
    chosen = rows & members(patient, used)
    chosen[last[count - int(size[: len(used) - 1].sum()) :]] = False
    return chosen, used


def every(order: Ints, share: float) -> Ints:
    """Return the patients at every (1 / share)-th place of ``order``: of a longer order, the same ones and more."""
    places = np.arange(len(order))
    # 0.1 * 30 is a little above 3, and 0.7 * 10 a little below 7.
    chosen: Flags = np.floor((places + 1) * share + 1e-9) > np.floor(places * share + 1e-9)
    return order[chosen]
