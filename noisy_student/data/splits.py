"""Who is labelled, pool, validation and test: always whole patients, always the same for the same seed.

Every draw permutes the sorted patient identifiers with a generator of its own, so it does not depend on the order of
the table's rows or on the other draws.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student import randomness
from noisy_student.config import SplitConfig
from noisy_student.data import manifest as manifests
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError

Texts = npt.NDArray[np.object_]
Flags = npt.NDArray[np.bool_]

PARTS: Final = ("labelled", "pool", "valid", "test")
"""The parts of a split, as :func:`parts` names them."""


def assign(manifest: Manifest, config: SplitConfig) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest with its splits and labelled flags, and the content of ``split.json``.

    In order: empty splits are filled by ``config.fractions``, over the patients (those without any label join train);
    the labelled patients are drawn from train; with ``validation: carve`` as many others become the validation set, and
    the official one becomes the test set where there is none, else it is left out; validation is cut to
    ``config.valid_images``. The rest of train is the pool. Films that a cut leaves out are not in the result.

    A film whose labels are all blank and whose ``labelled`` flag is false carries no labels: in train it goes to the
    pool, elsewhere it is left out.

    The second value has ``seed``, ``counts`` (images and patients of each of :data:`PARTS`), ``budget`` (what had to be
    labelled: labelled and validation), ``dropped`` (images left out) and ``hash`` (SHA-256 of image, split, labelled).

    Raises:
        DataError: a patient is in two splits, a part other than the pool would be empty, or more patients or films are
            asked for than there are.
    """
    manifests.check(manifest)
    frame = manifest.frame
    patient = frame["patient"].to_numpy(dtype=object)
    carries = frame["labelled"].to_numpy(dtype=bool) | ~np.isnan(manifests.values(manifest)).all(axis=1)
    split = _fill(frame["split"].to_numpy(dtype=object), patient, carries, config)
    keep = carries | (split == "train")

    if not (split == "train").any():
        raise _empty("train")
    candidates = (split == "train") & carries
    order = _shuffled(patient[candidates], config.seed, "split.labelled")
    images = frame["image"].to_numpy(dtype=object)
    labelled, used = _draw_labelled(order, images, patient, candidates, config)
    keep &= labelled | ~_is_in(patient, used) | ~candidates

    if config.validation == "carve":
        if len(order) < 2 * len(used):
            raise DataError(
                f"split.validation: carve needs {len(used)} labelled and {len(used)} validation patients, and train "
                f"has {len(order)} with labels",
                "Lower split.labelled_patients, labelled_images or labelled_fraction, or use validation: official.",
            )
        official = split == "valid"
        if (split == "test").any():
            keep &= ~official
        split[official] = "test"
        split[candidates & _is_in(patient, order[len(used) : 2 * len(used)])] = "valid"
        # A carved patient's film without labels is no validation film, and the pool may not share a patient with it.
        keep &= ~((split == "train") & _is_in(patient, order[len(used) : 2 * len(used)]))

    if config.valid_images is not None:
        rows = (split == "valid") & keep
        valid_order = _shuffled(patient[rows], config.seed, "split.valid")
        chosen, _ = _take_images(valid_order, images, patient, rows, config.valid_images, "split.valid_images")
        keep &= chosen | ~rows

    result = manifests.rows(manifests.replace(manifest, split=split, labelled=labelled), keep)
    summary = _summary(result, config.seed, dropped=int((~keep).sum()))
    for part in ("labelled", "valid", "test"):
        if not summary["counts"][part]["images"]:
            raise _empty(part)
    manifests.check(result)
    return result, summary


def parts(manifest: Manifest) -> dict[str, Flags]:
    """Return, for each of :data:`PARTS`, which films (N,) belong to it."""
    split = manifest.frame["split"].to_numpy()
    labelled = manifest.frame["labelled"].to_numpy(dtype=bool)
    return {
        "labelled": (split == "train") & labelled,
        "pool": (split == "train") & ~labelled,
        "valid": split == "valid",
        "test": split == "test",
    }


def check_classes(
    target: npt.NDArray[np.floating[Any]], weight: npt.NDArray[np.floating[Any]], labels: tuple[str, ...]
) -> None:
    """Check that the labelled films show both classes of every label.

    Args:
        target: (N, K), from 0 to 1; a soft target counts as the class it is nearer to.
        weight: (N, K); 0 means that the target is not known.
        labels: the K names.

    Raises:
        DataError: a label has one class only, or no known target.
    """
    problems = []
    for column, name in enumerate(labels):
        known = target[weight[:, column] > 0, column]
        positive, negative = bool((known >= 0.5).any()), bool((known < 0.5).any())
        if not positive and not negative:
            problems.append(f"'{name}' has no known targets")
        elif not positive or not negative:
            problems.append(f"'{name}' has only {'positive' if positive else 'negative'} targets")
    if problems:
        raise DataError(
            f"labelled films: {'; '.join(problems)}",
            "Label more patients, try another split.seed or another policy (targets.uncertain, targets.blank), or drop "
            "the label from data.labels.",
        )


# -- draws ---------------------------------------------------------------------------------------------------------


def _is_in(patient: Texts, chosen: Texts) -> Flags:
    """Return which rows (N,) belong to the chosen patients (by hashing: NumPy's ``isin`` takes seconds on objects)."""
    return np.asarray(pd.Series(patient, dtype=object).isin(set(chosen)), dtype=bool)


def _shuffled(patients: Texts, seed: int, purpose: str) -> Texts:
    """Return the distinct patients in an order that depends on the seed, the purpose and who they are."""
    names = np.asarray(sorted(set(patients)), dtype=object)
    return names[randomness.generator(seed, randomness.text_id(purpose)).permutation(len(names))]


def _fill(split: Texts, patient: Texts, carries: Flags, config: SplitConfig) -> Texts:
    """Return the splits with empty ones drawn by patient; patients without a label join train."""
    split = split.copy()
    empty = split == ""
    order = _shuffled(patient[empty & carries], config.seed, "split.fractions")
    _, valid, test = (max(1, round(share * len(order))) if share else 0 for share in config.fractions)
    split[empty] = "train"
    split[empty & _is_in(patient, order[:valid])] = "valid"
    split[empty & _is_in(patient, order[valid : valid + test])] = "test"
    return split


def _draw_labelled(
    order: Texts, images: Texts, patient: Texts, candidates: Flags, config: SplitConfig
) -> tuple[Flags, Texts]:
    """Return which films (N,) are labelled, and their patients."""
    if config.labelled_images is not None:
        return _take_images(order, images, patient, candidates, config.labelled_images, "split.labelled_images")
    count = len(order)
    if config.labelled_patients is not None:
        count = config.labelled_patients
        if count > len(order):
            raise DataError(
                f"split.labelled_patients: {count} are asked for, and train has {len(order)} patients with labels",
                "Lower the number.",
            )
    elif config.labelled_fraction is not None and len(order):
        count = max(1, round(config.labelled_fraction * len(order)))
    used = order[:count]
    return candidates & _is_in(patient, used), used


def _take_images(order: Texts, images: Texts, patient: Texts, rows: Flags, count: int, key: str) -> tuple[Flags, Texts]:
    """Return the first ``count`` films of ``rows`` by patient in ``order``, and by path within one; and the patients.

    The last patient may give only some of its films.
    """
    places = np.flatnonzero(rows)
    if len(places) < count:
        raise DataError(
            f"{key}: {count} are asked for, and there are {len(places)} films with labels", "Lower the number."
        )
    rank = {name: place for place, name in enumerate(order)}
    first = sorted(places, key=lambda place: (rank[patient[place]], images[place]))[:count]
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[first] = True
    return chosen, order[: rank[patient[first[-1]]] + 1]


def _empty(part: str) -> DataError:
    fixes = {
        "train": "Give the table train rows, or raise the first of split.fractions.",
        "labelled": "Label some train films: their label columns are blank throughout.",
        "valid": "Give the table valid rows, use split.validation: carve, or raise the second of split.fractions.",
        "test": "Give the table test rows, use split.validation: carve (the official validation set then is the test "
        "set), or raise the third of split.fractions.",
    }
    noun = "labelled set" if part == "labelled" else f"{part} split"
    return DataError(f"split: the {noun} is empty", fixes[part])


def _summary(manifest: Manifest, seed: int, dropped: int) -> dict[str, Any]:
    patient = manifest.frame["patient"]
    counts = {
        part: {"images": int(where.sum()), "patients": int(patient[where].nunique())}
        for part, where in parts(manifest).items()
    }
    labelled, valid = counts["labelled"], counts["valid"]
    rows = sorted(zip(*(manifest.frame[name] for name in ("image", "split", "labelled")), strict=True))
    digest = hashlib.sha256("".join(f"{image}\t{split}\t{int(flag)}\n" for image, split, flag in rows).encode())
    return {
        "seed": seed,
        "counts": counts,
        "budget": {
            "images": labelled["images"] + valid["images"],
            "patients": labelled["patients"] + valid["patients"],
            "labelled_images": labelled["images"],
            "labelled_patients": labelled["patients"],
            "valid_images": valid["images"],
            "valid_patients": valid["patients"],
        },
        "dropped": dropped,
        "hash": digest.hexdigest(),
    }
