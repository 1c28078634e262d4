"""Who is labelled, pool, validation and test: always whole patients, always the same for the same seed.

Every draw has an order of patients of its own (:mod:`noisy_student.data.draws`), so it depends neither on the order of
the table's rows nor on the other draws.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student.config import SplitConfig
from noisy_student.data import draws, split_files
from noisy_student.data import manifest as manifests
from noisy_student.data.draws import Flags, Ints
from noisy_student.data.manifest import SPLITS, Manifest
from noisy_student.errors import DataError

Texts = npt.NDArray[np.object_]

PARTS: Final = ("labelled", "pool", "valid", "test")
"""The parts of a split, as :func:`parts` names them."""
MISSING_SHARE: Final = 0.01
"""Share of the films of a split file that the data set may lack, unless the caller says otherwise."""

_KEY_HINT: Final = {
    "site": "Sources csv and dicom (with a table) read sites from the column data.columns.site; others have none: use "
    "their own splits, or a file made by ns data split.",
    "date": "Source csv reads dates from the column data.columns.date, and mimic and padchest have their own; other "
    "sources have none: use their own splits, or a file made by ns data split.",
}


def assign(
    manifest: Manifest, config: SplitConfig, missing_share: float = MISSING_SHARE
) -> tuple[Manifest, dict[str, Any]]:
    """Return the manifest with its splits and labelled flags, and the content of ``split.json``.

    With ``config.file`` the split is that of the file. Else, in order: ``config.sites`` or ``config.dates`` take the
    place of the data set's own splits; empty splits are filled by ``config.fractions``, over the patients (those
    without any label join train); a validation split below ``config.min_valid_images`` is drawn anew from it and
    train; the labelled patients are drawn from train; ``validation: carve`` takes validation from the labelled
    patients or from as many others, and the official one becomes the test set where there is none, else it is left
    out; validation is cut to ``config.valid_images``. The rest of train is the pool, of whose patients
    ``config.pool_fraction`` stay. Films that a cut leaves out are not in the result.

    A film whose labels are all blank and whose ``labelled`` flag is false carries no labels: in train it goes to the
    pool, elsewhere it is left out.

    The second value has ``seed``, ``counts`` (images and patients of each of :data:`PARTS`), ``budget`` (what had to be
    labelled: labelled and validation), ``dropped`` (images left out) and ``hash`` (SHA-256 of image, split, labelled).

    Raises:
        DataError: a patient is in two splits, a part other than the pool would be empty, more patients or films are
            asked for than there are, or the split file is not of these films.
    """
    if config.file is not None:
        manifests.check(manifest)
        result, stored = split_files.apply(manifest, config.file, missing_share)
        # The hash is of the films in use: another than the file's where some of its films are missing.
        more = {"file": config.file.name, "file_hash": stored["hash"], "missing": stored["missing"]}
        return _finished(result, int(stored["seed"]), len(manifest) - len(result), more)
    frame = manifest.frame
    patient = pd.factorize(frame["patient"], sort=True)[0].astype(np.int64)
    images = frame["image"].to_numpy(dtype=object)
    carries = _carries(manifest)
    if config.sites or config.dates:
        split, keep = _by_key(frame, patient, config)
        # Checked after: who is in two of the data set's own splits does not matter here.
        manifests.check(manifests.rows(manifests.replace(manifest, split=split), keep))
    else:
        manifests.check(manifest)
        split, keep = frame["split"].to_numpy(dtype=object).copy(), np.ones(len(frame), dtype=bool)
        _fill(split, patient, carries, config)
    _renew_valid(split, patient, carries & keep, config)
    keep &= carries | (split == "train")

    candidates = (split == "train") & carries & keep
    if not (split[keep] == "train").any():
        raise _empty("train")
    order = draws.shuffled(patient[candidates], config.seed, "split.labelled")
    if config.stratify:
        positive = manifests.values(manifest)[candidates] >= 0.5
        order = draws.stratified(order, patient[candidates], positive, config.seed)
    labelled, used = _draw_labelled(order, images, patient, candidates, config)
    keep &= labelled | ~draws.members(patient, used) | ~candidates
    if config.validation == "carve":
        _carve(split, labelled, keep, patient, candidates, order, used, config)
    if config.valid_images is not None:
        rows = (split == "valid") & keep
        asked = config.valid_images
        count = min(int(labelled.sum()), int(rows.sum())) if asked == "labelled" else asked
        if count:
            valid_order = draws.shuffled(patient[rows], config.seed, "split.valid")
            chosen, _ = draws.take_images(valid_order, images, patient, rows, count, "split.valid_images")
            keep &= chosen | ~rows
    if config.pool_fraction < 1:
        pool = (split == "train") & ~labelled & keep
        order = draws.shuffled(patient[pool], config.seed, "split.pool")
        keep &= ~pool | draws.members(patient, order[: max(1, round(config.pool_fraction * len(order)))])
    result = manifests.rows(manifests.replace(manifest, split=split, labelled=labelled), keep)
    return _finished(result, config.seed, int((~keep).sum()), {})


def films_to_measure(manifest: Manifest, config: SplitConfig, missing_share: float = MISSING_SHARE) -> Manifest:
    """Return the films on which a model from elsewhere is measured; no labelled set, pool or validation is needed.

    They are the test films of ``config.file``, of ``config.sites`` or ``config.dates``, or of the data set's own
    splits; all films where the data set has no splits; else, as in :func:`assign`, the official validation split with
    ``validation: carve``, or the test share of the films without a split. Films that carry no labels are left out.

    Raises:
        DataError: there are no such films, or the split file is not of these films.
    """
    carries = _carries(manifest)
    if config.file is not None:
        manifests.check(manifest)
        chosen, _ = split_files.apply(manifest, config.file, missing_share)
        found = manifests.rows(chosen, (chosen.frame["split"] == "test").to_numpy())
    else:
        patient = pd.factorize(manifest.frame["patient"], sort=True)[0].astype(np.int64)
        split = manifest.frame["split"].to_numpy(dtype=object).copy()
        if config.sites or config.dates:
            split, keep = _by_key(manifest.frame, patient, config)
            carries &= keep
        elif (split == "").all():
            split[:] = "test"
        elif not (split == "test").any():
            _fill(split, patient, carries, config)
        if config.validation == "carve" and not (split[carries] == "test").any():
            split[split == "valid"] = "test"
        found = manifests.rows(manifests.replace(manifest, split=split), (split == "test") & carries)
    if not len(found):
        raise DataError(
            "the data set has no test films with labels",
            "Give the table test rows or no split column at all, or use split.validation: carve (the official "
            "validation set then is the test set).",
        )
    manifests.check(found)
    return found


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


def one_class(
    target: npt.NDArray[np.floating[Any]], weight: npt.NDArray[np.floating[Any]], labels: tuple[str, ...]
) -> list[str]:
    """Return one sentence per label that has not both classes among its known targets.

    Args:
        target: (N, K), from 0 to 1; a soft target counts as the class it is nearer to.
        weight: (N, K); 0 means that the target is not known.
        labels: the K names.
    """
    problems = []
    for column, name in enumerate(labels):
        known = target[weight[:, column] > 0, column]
        positive, negative = bool((known >= 0.5).any()), bool((known < 0.5).any())
        if not positive and not negative:
            problems.append(f"'{name}' has no known targets")
        elif not positive or not negative:
            problems.append(f"'{name}' has only {'positive' if positive else 'negative'} targets")
    return problems


def check_classes(
    target: npt.NDArray[np.floating[Any]], weight: npt.NDArray[np.floating[Any]], labels: tuple[str, ...]
) -> None:
    """Check that the labelled films show both classes of every label; the arguments are those of :func:`one_class`.

    Raises:
        DataError: a label has one class only, or no known target.
    """
    problems = one_class(target, weight, labels)
    if problems:
        raise DataError(
            f"labelled films: {'; '.join(problems)}",
            "Label more patients, try another split.seed, split.stratify or another policy (targets.uncertain, "
            "targets.blank), or drop the label from data.labels.",
        )


# -- steps of the assignment; each changes the arrays it is given --------------------------------------------------


def _carries(manifest: Manifest) -> Flags:
    """Return which films (N,) carry labels: flagged ones, and those with a label that is not blank."""
    flagged = manifest.frame["labelled"].to_numpy(dtype=bool)
    return np.asarray(flagged | ~np.isnan(manifests.values(manifest)).all(axis=1))


def _by_key(frame: pd.DataFrame, patient: Ints, config: SplitConfig) -> tuple[Texts, Flags]:
    """Return splits (N,) by site or date, and which films stay: those in the latest split of their patient."""
    key = "site" if config.sites else "date"
    values = frame[key]
    blank = int((values == "").sum())
    if blank:
        raise DataError(
            f"split.{key}s: {blank} of {len(frame)} films have no {key}",
            _KEY_HINT[key] if blank == len(frame) else f"Fill in the {key} of those films, or leave them out.",
        )
    if config.sites:
        of = {site: split for split, sites in config.sites.items() for site in sites}
        unknown = sorted(set(of) - set(values))
        if unknown:
            raise DataError(
                f"split.sites: there is no site '{unknown[0]}'; the sites are {', '.join(sorted(set(values)))}",
                "Correct split.sites.",
            )
        split = values.map(of).fillna("" if "train" in config.sites else "train").to_numpy(dtype=object)
    else:
        split = np.full(len(frame), "train", dtype=object)
        for name, first in config.dates.items():
            coarse = values.map(lambda value, first=first: len(value) < len(first) and first.startswith(value))
            if coarse.any():
                raise DataError(
                    f"split.dates.{name}: {int(coarse.sum())} films are dated {values[coarse].iloc[0]}, which may be "
                    f"before or after {first}",
                    f"Write the dates of these films out, or set the key to a date as short, such as {first[:4]}.",
                )
            later = (values >= first).to_numpy(dtype=bool)
            split[later & ((name == "test") | (split != "test"))] = name
    rank = pd.Series(split).map({"": -1, **{name: place for place, name in enumerate(SPLITS)}}).to_numpy(dtype=np.int64)
    latest = np.full(int(patient.max(initial=0)) + 1, -1, dtype=np.int64)
    np.maximum.at(latest, patient, rank)
    return split, np.asarray((rank >= 0) & (rank == latest[patient]))


def _fill(split: Texts, patient: Ints, carries: Flags, config: SplitConfig) -> None:
    """Fill empty splits by patient: with that of the patient's other films, else drawn; patients without a label join
    train.
    """
    empty = split == ""
    if empty.any() and not empty.all():
        own = pd.Series(split[~empty], index=patient[~empty])
        split[empty] = pd.Series(patient[empty]).map(own[~own.index.duplicated()]).fillna("").to_numpy(dtype=object)
        empty = split == ""
    if not empty.any():
        return
    order = draws.shuffled(patient[empty & carries], config.seed, "split.fractions")
    _, valid, test = (max(1, round(share * len(order))) if share else 0 for share in config.fractions)
    split[empty] = "train"
    split[empty & draws.members(patient, order[:valid])] = "valid"
    split[empty & draws.members(patient, order[valid : valid + test])] = "test"


def _renew_valid(split: Texts, patient: Ints, usable: Flags, config: SplitConfig) -> None:
    """Join a validation split that is too small with train, and draw another from both."""
    if int(((split == "valid") & usable).sum()) >= config.min_valid_images:
        return
    split[split == "valid"] = "train"
    order = draws.shuffled(patient[(split == "train") & usable], config.seed, "split.renewed")
    train, valid, _ = config.fractions
    if valid:
        count = max(1, round(valid / (train + valid) * len(order)))
        split[(split == "train") & draws.members(patient, order[:count])] = "valid"


def _draw_labelled(
    order: Ints, images: Texts, patient: Ints, candidates: Flags, config: SplitConfig
) -> tuple[Flags, Ints]:
    """Return which films (N,) are labelled, and their patients."""
    if config.labelled_images is not None:
        return draws.take_images(order, images, patient, candidates, config.labelled_images, "split.labelled_images")
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
    return candidates & draws.members(patient, used), used


def _carve(
    split: Texts, labelled: Flags, keep: Flags, patient: Ints, candidates: Flags, order: Ints, used: Ints,
    config: SplitConfig,
) -> None:  # fmt: skip
    """Make validation of labelled patients, or of as many others of train, in place of the official one."""
    if config.carve_share is not None:
        chosen = draws.every(used, config.carve_share)
        if not 0 < len(chosen) < len(used):
            raise DataError(
                f"split.carve_share: {config.carve_share:g} of {len(used)} labelled patients leaves validation or the "
                "labelled set empty",
                "Label more patients, or change the share.",
            )
    else:
        if len(order) < 2 * len(used):
            raise DataError(
                f"split.validation: carve needs {len(used)} labelled and {len(used)} validation patients, and train "
                f"has {len(order)} with labels",
                "Lower split.labelled_patients, labelled_images or labelled_fraction, set split.carve_share, or use "
                "validation: official.",
            )
        chosen = order[len(used) : 2 * len(used)]
    official = split == "valid"
    if (split[keep] == "test").any():
        keep &= ~official
    split[official] = "test"
    theirs = draws.members(patient, chosen)
    split[candidates & theirs] = "valid"
    labelled &= ~theirs
    # A carved patient's film without labels is no validation film, and the pool may not share a patient with it.
    keep &= ~((split == "train") & theirs)


def _finished(manifest: Manifest, seed: int, dropped: int, more: dict[str, Any]) -> tuple[Manifest, dict[str, Any]]:
    """Return the checked manifest and its summary."""
    summary = _summary(manifest, seed, dropped)
    for part in ("labelled", "valid", "test"):
        if not summary["counts"][part]["images"]:
            raise _empty(part)
    manifests.check(manifest)
    return manifest, summary | more


def _empty(part: str) -> DataError:
    fixes = {
        "train": "Give the table train rows, or raise the first of split.fractions.",
        "labelled": "Label some train films: their label columns are blank throughout.",
        "valid": "Give the table valid rows, use split.validation: carve or split.min_valid_images: 1, or raise the "
        "second of split.fractions.",
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
        "hash": split_files.digest(manifest),
    }
