"""Confidence intervals by the bootstrap over patients, and the paired comparison of two models.

Films of one patient are alike, so patients are drawn with replacement and bring all their films (the cluster
bootstrap; Field and Welsh 2007). A draw depends on the seed, the replicate and the number of patients alone: every
label and every model sees the same resamples, which is what makes comparisons paired.

Shapes: ``truth`` and scores (N, K) with NaN for unknown truth, ``patients`` (N,) integer codes, replicates (R, K).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from noisy_student.errors import DataError
from noisy_student.randomness import generator, text_id
from noisy_student.stats import support
from noisy_student.stats.metrics import Floats, Ints, auroc, checked, cross_entropy

NO_CLASSES: Final = "no label has both a positive and a negative film"

BLOCK = 32
"""Replicates drawn from one generator and computed together. 20,000 films x 32 fit into a core's cache; it is a part
of the definition of the resamples, so another value gives other (equally valid) intervals."""

_STREAM = text_id("patient bootstrap")
_WORKERS = min(os.cpu_count() or 1, 8)
_EXACT_FLOAT32 = 2**24

Statistic = Callable[[npt.NDArray[Any]], Floats]
"""Takes multiplicities (P, B) and returns one value per replicate and label (B, K)."""


@dataclass(frozen=True)
class Difference:
    """What the resamples say about a difference ``b - a``; undefined is None, and ``reason`` says why."""

    value: float | None
    ci: tuple[float, float] | None
    """Two-sided interval."""
    lower: float | None
    """One-sided bound: the difference is above it with the chosen confidence."""
    upper: float | None
    """One-sided bound: the difference is below it with the chosen confidence."""
    p_value: float | None
    """Two-sided, for no difference."""
    reason: str | None
    sd: float | None = None
    """Standard deviation of the resampled differences."""
    undefined: float | None = None
    """Share of the resamples that lack a class of a label; they are left out."""
    undefined_labels: tuple[str, ...] = ()
    """The labels of which they lack one, most often first."""


@dataclass(frozen=True)
class PairedComparison:
    """Model b minus model a on the same films: macro AUROC (above 0: b is better), mean log loss (below 0: b is)."""

    auroc: Difference
    log_loss: Difference
    confidence: float
    replicates: int
    patients: int


@dataclass(frozen=True)
class _Clusters:
    of_film: Ints
    """Patient of each film, 0 ... size - 1."""
    size: int
    strata: tuple[Ints, ...]
    """Patients of each stratum."""


def _clusters(patients: npt.ArrayLike, stratify: npt.ArrayLike | None = None) -> _Clusters:
    codes, first, of_film = np.unique(np.asarray(patients), return_index=True, return_inverse=True)
    if not codes.size:
        raise DataError("there are no films to resample", "Check the split: it is empty.")
    stratum = np.zeros(codes.size, dtype=np.int64)
    if stratify is not None:
        values = np.asarray(stratify)
        if values.shape != of_film.shape:
            raise DataError(f"stratify has shape {values.shape} for {of_film.size} films", "Give one stratum per film.")
        if (values != values[first][of_film]).any():
            raise DataError("a patient has films in two strata", "Stratify by a property of the patient.")
        stratum = np.unique(values[first], return_inverse=True)[1].astype(np.int64)
    members = tuple(np.flatnonzero(stratum == index) for index in range(int(stratum.max()) + 1))
    return _Clusters(of_film.astype(np.int64), codes.size, members)


def _draw(clusters: _Clusters, seed: int, block: int) -> Ints:
    """Return the multiplicities (BLOCK, P) of one block of replicates."""
    stream = generator(seed, _STREAM, block)
    counts = np.zeros((BLOCK, clusters.size), dtype=np.int64)
    for members in clusters.strata:
        drawn = stream.integers(0, members.size, size=(BLOCK, members.size), dtype=np.int32)
        position = drawn + np.arange(BLOCK)[:, None] * members.size
        counts[:, members] = np.bincount(position.ravel(), minlength=position.size).reshape(BLOCK, -1)
    return counts


def resample_counts(
    patients: npt.ArrayLike, replicates: int, seed: int, stratify: npt.ArrayLike | None = None
) -> Iterator[Ints]:
    """Return the resamples in blocks (B, P): how often each patient is drawn, patients in the order of their codes.

    ``stratify`` (N,), constant within a patient, keeps the number of patients drawn from each stratum. More replicates
    continue the same sequence.

    Raises:
        DataError: there are no films, or a patient has films in two strata.
    """
    clusters = _clusters(patients, stratify)
    return (_draw(clusters, seed, start // BLOCK)[: replicates - start] for start in range(0, replicates, BLOCK))


def _bootstrap(
    clusters: _Clusters, replicates: int, seed: int, columns: int, statistic: Statistic, dtype: npt.DTypeLike
) -> Floats:
    """Return ``statistic`` of every replicate (R, K); blocks run in threads, as the work is in NumPy and SciPy."""
    result = np.empty((replicates, columns))

    def one(start: int) -> None:
        counts = _draw(clusters, seed, start // BLOCK)[: replicates - start]
        result[start : start + BLOCK] = statistic(np.ascontiguousarray(counts.T, dtype=dtype))

    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(one, range(0, replicates, BLOCK)))
    return result


def _auroc_plan(truth: Floats, score: Floats, clusters: _Clusters) -> tuple[Any, Any] | None:
    """Return the sparse matrices (rows, P) from which the AUROC of any resample of one label follows.

    The positives, in order of score, form runs with no negative between them. Row r of the first matrix adds up the
    positives of run r, row r of the second twice the negatives between run r - 1 and run r; a negative tied with
    positives counts once on either side of them. So ``sum_r positive[r] * cumsum(negative)[r]`` is twice the
    Mann-Whitney statistic, in whole numbers. None where the truth has one class only.
    """
    positive, negative = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    if not positive.size or not negative.size:
        return None
    positive = positive[np.argsort(score[positive], kind="stable")]
    levels, sorted_negative = score[positive], np.sort(score[negative])
    below = np.searchsorted(sorted_negative, levels, "left") + np.searchsorted(sorted_negative, levels, "right")
    run = np.cumsum(np.diff(below, prepend=below[:1]) > 0)
    rows = int(run[-1]) + 2  # the last row takes the negatives above all positives
    run_at = np.append(run, rows - 1)
    sides = [run_at[np.searchsorted(levels, score[negative], side)] for side in ("left", "right")]
    shape = (rows, clusters.size)
    films = np.concatenate([negative, negative])
    return (
        _counting(run, clusters.of_film[positive], shape),
        _counting(np.concatenate(sides), clusters.of_film[films], shape),
    )


def _counting(rows: npt.NDArray[Any], columns: Ints, shape: tuple[int, int]) -> Any:
    return sparse.csr_matrix((np.ones(columns.size, dtype=np.float32), (rows, columns)), shape=shape)


def _auroc_of(plans: Sequence[tuple[Any, Any] | None], counts: npt.NDArray[Any]) -> Floats:
    result = np.full((counts.shape[1], len(plans)), np.nan)
    for column, plan in enumerate(plans):
        if plan is None:
            continue
        positive = plan[0] @ counts  # (rows, B)
        negative = plan[1] @ counts
        np.cumsum(negative, axis=0, out=negative)
        twice = np.einsum("rb,rb->b", positive, negative, dtype=np.float64)
        pairs = positive.sum(axis=0, dtype=np.float64) * negative[-1]
        np.divide(twice, pairs, out=result[:, column], where=pairs > 0)
    return result


def bootstrap_auroc(
    truth: npt.ArrayLike,
    score: npt.ArrayLike,
    patients: npt.ArrayLike,
    replicates: int,
    seed: int,
    stratify: npt.ArrayLike | None = None,
) -> Floats:
    """Return the AUROC of every replicate and label (R, K), exact also with ties; NaN where a class is missing.

    ``stratify`` (N,), constant within a patient, keeps the number of patients drawn from each stratum.

    Raises:
        DataError: the arrays do not fit together, there are no films, or a patient has films in two strata.
    """
    return bootstrap_aurocs([(truth, score, patients)], replicates, seed, stratify)[0]


def bootstrap_aurocs(
    parts: Sequence[tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]],
    replicates: int,
    seed: int,
    stratify: npt.ArrayLike | None = None,
) -> list[Floats]:
    """Return the AUROC of every replicate and label (R, K) for each of several (truth, score, patients).

    The patients of all parts are resampled together, so that parts can be compared replicate by replicate: several
    models on the same films, or several groups of films. ``stratify`` has one value per film of all parts, in order.

    Raises:
        DataError: the arrays of a part do not fit together, there are no films, or a patient has films in two strata.
    """
    arrays = [checked(*part) for part in parts]
    clusters = _clusters(np.concatenate([np.asarray(patients) for _, _, patients in parts]), stratify)
    plans: list[tuple[Any, Any] | None] = []
    ends = np.cumsum([len(truth) for truth, _ in arrays])
    for (truth, score), end in zip(arrays, ends, strict=True):
        own = replace(clusters, of_film=clusters.of_film[end - len(truth) : end])
        plans += [_auroc_plan(truth[:, column], score[:, column], own) for column in range(truth.shape[1])]
    # Twice the largest weight a resample can have: below 2**24 the float32 sums are exact, and twice as fast.
    largest = 2 * clusters.size * int(np.bincount(clusters.of_film).max())
    dtype = np.float32 if largest < _EXACT_FLOAT32 else np.float64
    found = _bootstrap(clusters, replicates, seed, len(plans), partial(_auroc_of, plans), dtype)
    return np.split(found, np.cumsum([truth.shape[1] for truth, _ in arrays])[:-1], axis=1)


def bootstrap_log_loss(
    truth: npt.ArrayLike, probability: npt.ArrayLike, patients: npt.ArrayLike, replicates: int, seed: int
) -> Floats:
    """Return the log loss in nats of every replicate and label (R, K); NaN where no film of the label is known.

    Raises:
        DataError: the arrays do not fit together, or there are no films.
    """
    truth, probability = checked(truth, probability, patients)
    clusters = _clusters(patients)
    known = ~np.isnan(truth)
    by_patient = sparse.csr_matrix(
        (np.ones(len(truth)), (clusters.of_film, np.arange(len(truth)))), shape=(clusters.size, len(truth))
    )
    loss = by_patient @ np.where(known, cross_entropy(truth, probability), 0.0)  # (P, K)
    films = by_patient @ known.astype(np.float64)

    def statistic(counts: npt.NDArray[Any]) -> Floats:
        total, weight = counts.T @ loss, counts.T @ films
        mean: Floats = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
        return mean

    return _bootstrap(clusters, replicates, seed, truth.shape[1], statistic, np.float64)


def interval(values: npt.ArrayLike, confidence: float) -> tuple[float, float] | None:
    """Return the percentile interval of the replicates (R,) that are defined; None where fewer than half are."""
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    if not defined.size or 2 * defined.size < values.size:
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def macro(values: npt.ArrayLike, columns: Sequence[int] | Ints) -> Floats:
    """Return the mean (...) of ``values`` (..., K) over the labels ``columns`` that are not NaN; NaN if all are."""
    chosen = np.asarray(values, dtype=np.float64)[..., np.asarray(columns, dtype=np.int64)]
    defined = ~np.isnan(chosen)
    count = np.asarray(defined.sum(axis=-1))
    total = np.asarray(np.where(defined, chosen, 0.0).sum(axis=-1))
    mean: Floats = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean


def complete(values: Floats) -> Floats:
    """Return the mean (R,) over the labels of ``values`` (R, K), NaN where one is: every mean is of the same labels."""
    mean: Floats = values.mean(axis=1) if values.shape[1] else np.full(len(values), np.nan)
    return mean


def difference(
    value: float,
    first: Floats,
    second: Floats,
    confidence: float,
    undefined: str,
    names: Sequence[str] = (support.THE_FINDING,),
    lacking: str | None = None,
) -> Difference:
    """Return what resamples of K labels say about the difference ``value`` of their means, ``second`` less ``first``.

    Resamples that lack a class of any label are left out: a mean over the others is another figure.

    Args:
        value: the difference; NaN where it is not defined.
        first: a measure per resample and label (R, K), of the labels in ``value`` alone.
        second: the same of the other model.
        confidence: coverage of the interval, and of each bound.
        undefined: the reason where ``value`` is NaN.
        names: what the K labels are called.
        lacking: why there can be no interval, ``None`` where there can.
    """
    if np.isnan(value):
        return Difference(None, None, None, None, None, undefined)
    share, missing = support.incomplete(second - first, names)
    draws = complete(second) - complete(first)
    ci = None if lacking else interval(draws, confidence)
    if ci is None:
        reason = lacking or support.most_incomplete(share, missing)
        nothing = Difference(value, None, None, None, None, f"no interval, {reason}")
        return replace(nothing, undefined=share, undefined_labels=tuple(missing))
    defined = draws[~np.isnan(draws)]
    lower, upper = np.quantile(defined, [1 - confidence, confidence])
    # The sample counts as one more resample, so that p is never 0 (Davison and Hinkley 1997, section 4.2).
    tail = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0)) + 1
    p_value = min(1.0, 2 * tail / (defined.size + 1))
    sd = float(defined.std()) if np.ptp(defined) else 0.0  # of equal numbers it is not always 0 but for rounding
    return Difference(value, ci, float(lower), float(upper), p_value, None, sd, share, tuple(missing))


def compare(
    truth: npt.ArrayLike,
    score_a: npt.ArrayLike,
    score_b: npt.ArrayLike,
    patients: npt.ArrayLike,
    columns: Sequence[int],
    replicates: int,
    seed: int,
    confidence: float,
    *,
    probability_a: npt.ArrayLike | None = None,
    probability_b: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None,
) -> PairedComparison:
    """Return model b minus model a over the labels ``columns``, both measured on the same resamples of patients.

    Scores only need to rank; ``probability_a`` and ``probability_b``, both or neither, add the log loss. Labels without
    both classes do not enter the AUROC, labels without a known film not the log loss. ``names`` are the labels', for
    reasons. A resample counts where every label that enters is defined.

    Raises:
        DataError: the arrays do not fit together, or there are no films.
    """
    chosen = np.asarray(columns, dtype=np.int64)
    called = [f"label {k}" if names is None else names[k] for k in chosen]
    truth = np.asarray(truth, dtype=np.float64)[:, chosen]
    patients = np.asarray(patients)

    def paired(
        a: npt.ArrayLike,
        b: npt.ArrayLike,
        measure: Callable[[Floats, Floats], Floats],
        resample: Callable[[Floats, Floats, npt.ArrayLike, int, int], Floats],
        undefined: str,
        lacking: Callable[[Ints], str | None],
    ) -> Difference:
        pair = [checked(truth, np.asarray(model, dtype=np.float64)[:, chosen], patients) for model in (a, b)]
        values = [measure(*model) for model in pair]
        used = np.flatnonzero(~np.isnan(values[0]))
        first, second = (resample(*model, patients, replicates, seed)[:, used] for model in pair)
        value = float(macro(values[1], used) - macro(values[0], used))
        return difference(value, first, second, confidence, undefined, [called[k] for k in used], lacking(used))

    def one_class(used: Ints) -> str | None:
        counts = support.of_classes(truth[:, used], patients)
        return support.lacking(counts, [called[k] for k in used], support.RESAMPLED)

    def one_patient(used: Ints) -> str | None:
        known = [np.unique(patients[~np.isnan(truth[:, k])]).size for k in used]
        few = [called[k] for k, count in zip(used, known, strict=True) if count < support.RESAMPLED]
        return f"only 1 patient with a known value of {', '.join(few)}" if few else None

    by_auroc = paired(score_a, score_b, auroc_columns, bootstrap_auroc, NO_CLASSES, one_class)
    if (probability_a is None) != (probability_b is None):
        raise DataError("only one of two models has probabilities", "Give probability_a and probability_b, or neither.")
    by_loss = Difference(None, None, None, None, None, "no probabilities were given")
    if probability_a is not None and probability_b is not None:
        no_films = "no label has a film with a known value"
        by_loss = paired(probability_a, probability_b, _log_loss_columns, bootstrap_log_loss, no_films, one_patient)
    return PairedComparison(by_auroc, by_loss, confidence, replicates, np.unique(patients).size)


def auroc_columns(truth: Floats, score: Floats) -> Floats:
    """Return the AUROC of each label (K,) of ``truth`` and ``score`` (N, K); NaN where a class is missing."""
    return np.array([auroc(truth[:, column], score[:, column]) for column in range(truth.shape[1])])


def _log_loss_columns(truth: Floats, probability: Floats) -> Floats:
    return macro(cross_entropy(truth, probability).T, np.arange(len(truth)))
