"""Which film stands at which place of the sample sequence: a function of (seed, generation, place) alone.

So training can go on from any step, and what a batch holds depends neither on other batches nor on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from noisy_student.config import SamplerConfig
from noisy_student.config.learning import labelled_places
from noisy_student.errors import ConfigError
from noisy_student.randomness import generator, hash_u64
from noisy_student.targets.table import Targets

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SAMPLING: Final = 0x53414D50  # separates the stream of permutations from those of noise and initialisation
_PARTNERS: Final = 0x50415254
_LABELLED, _PSEUDO, _POSITIVES = 0, 1, 2  # kinds of films; from the last one on, the positives of each label


class Partners:
    """For a film at a place of the sample sequence another film that belongs with it, or itself where there is none."""

    def __init__(self, belonging: Ints, seed: int) -> None:
        """``belonging`` (N,) is equal for films that belong together."""
        _, group, size = np.unique(belonging, return_inverse=True, return_counts=True)
        self._seed = seed
        self._films = np.argsort(group, kind="stable").astype(np.int64)  # those that belong together stand together
        self._first = (np.cumsum(size) - size)[group]
        self._size = size[group]
        self._place = np.empty(len(group), dtype=np.int64)
        self._place[self._films] = np.arange(len(group))
        self._place -= self._first

    def __call__(self, numbers: Ints, position: Ints) -> Ints:
        """Return the partners (B,) of the films ``numbers`` (B,) at the places ``position`` (B,)."""
        others = np.maximum(self._size[numbers] - 1, 1).astype(np.uint64)
        step = (hash_u64(_PARTNERS, self._seed, position) % others).astype(np.int64) + 1
        return self._films[self._first[numbers] + (self._place[numbers] + step) % self._size[numbers]]


@dataclass(frozen=True)
class Sampler:
    """Places of labelled and pseudo-labelled films in the batches of a generation.

    ``labelled`` and ``pseudo`` hold film numbers. Each kind runs through its own endless sequence of permutations;
    the first ``labelled_per_batch`` places of a batch belong to labelled films. Of these, the first ``guaranteed``
    places belong to the positives of each label, and each label's positives run through a sequence of their own.
    """

    labelled: Ints
    pseudo: Ints
    batch_size: int
    labelled_per_batch: int
    seed: int
    generation: int
    share: Floats | None = None
    """How often each of the labelled films is drawn, summing to 1; ``None`` draws all alike."""
    pool_share: Floats | None = None
    """How often each of the pseudo-labelled films is drawn, likewise."""
    positives: tuple[Ints, ...] = ()
    """Film numbers of the labelled positives, of each label that has any."""
    per_label: int = 0
    """Places of a batch that belong to the positives of each label."""

    @property
    def guaranteed(self) -> int:
        """Places of a batch that belong to the positives of some label."""
        return self.per_label * len(self.positives)

    def labelled_alone(self) -> Sampler:
        """Return the sampler that fills its batches with labelled films, where there are any."""
        return replace(self, labelled_per_batch=self.batch_size if len(self.labelled) else 0)

    def film_numbers(self, step: int) -> Ints:
        """Return the film numbers (B,) of batch ``step``."""
        free, rest = self.labelled_per_batch - self.guaranteed, self.batch_size - self.labelled_per_batch
        certain = [
            self._stretch(_POSITIVES + number, films, step * self.per_label, self.per_label)
            for number, films in enumerate(self.positives)
        ]
        return np.concatenate(
            [
                *certain,
                self._stretch(_LABELLED, self.labelled, step * free, free),
                self._stretch(_PSEUDO, self.pseudo, step * rest, rest),
            ]
        )

    def positions(self, step: int) -> Ints:
        """Return the places (B,) of batch ``step`` in the sample sequence."""
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)

    def _stretch(self, kind: int, members: Ints, start: int, count: int) -> Ints:
        if not count:
            return np.empty(0, dtype=np.int64)
        place = np.arange(start, start + count)
        epoch, within = place // len(members), place % len(members)
        out = np.empty(count, dtype=np.int64)
        for value in np.unique(epoch):
            chosen = epoch == value
            out[chosen] = members[self._order(kind, len(members), int(value))[within[chosen]]]
        return out

    def _order(self, kind: int, count: int, epoch: int) -> Ints:
        share = {_LABELLED: self.share, _PSEUDO: self.pool_share}.get(kind)
        if share is not None:
            return _weighted(share.tobytes(), self.seed, self.generation, kind, epoch)
        return _permutation(count, self.seed, self.generation, kind, epoch)


@lru_cache(maxsize=32)
def _permutation(count: int, seed: int, generation: int, kind: int, epoch: int) -> Ints:
    return generator(_SAMPLING, seed, generation, kind, epoch).permutation(count)


@lru_cache(maxsize=8)
def _weighted(share: bytes, seed: int, generation: int, kind: int, epoch: int) -> Ints:
    """Return as many places as there are films, each film in about ``share`` of them, in random order.

    Systematic resampling (Kitagawa 1996): a film with the share q stands in floor(n q) or ceil(n q) of the n places,
    in n q of them on average.
    """
    q = np.frombuffer(share, dtype=np.float64)
    draw = generator(_SAMPLING, seed, generation, kind, epoch)
    order = draw.permutation(len(q))
    edges = np.floor(np.cumsum(q[order]) * len(q) + draw.random()).astype(np.int64)
    edges[-1] = len(q)  # the sum of the shares is 1 within rounding only
    return draw.permutation(np.repeat(order, np.diff(edges, prepend=0)))


def sampler(
    targets: Targets,
    *,
    batch_size: int,
    labelled_share: float,
    seed: int,
    generation: int,
    config: SamplerConfig = SamplerConfig(),  # noqa: B008 - frozen
    unlabelled: bool = False,
) -> Sampler:
    """Return the sampler of a targets table; without pseudo-labelled films every place is labelled.

    Films of the pool of which no target weighs anything are drawn only where there is a use for ``unlabelled`` ones.

    Raises:
        ConfigError: ``config.positives`` of each label are more than a batch has labelled places.
    """
    labelled, pseudo = np.flatnonzero(~targets.pseudo), np.flatnonzero(pool_rows(targets, unlabelled=unlabelled))
    per_batch = batch_size
    if len(pseudo):
        per_batch = labelled_places(batch_size, labelled_share) if len(labelled) else 0
    positive = positives(targets)
    certain: tuple[Ints, ...] = ()
    if config.positives:
        certain = tuple(labelled[column] for column in positive.T if column.any())
        if config.positives * len(certain) > per_batch:
            raise ConfigError(
                f"sampler.positives: {config.positives} of each of {len(certain)} labels are more than the {per_batch} "
                "labelled films of a batch",
                "Lower it, or raise optim.batch_size.",
            )
    share = None
    if config.balance and len(labelled):
        share = _shares(positive, config.balance)
    pool = None
    if config.pool_balance and len(pseudo):
        pool = _shares(((targets.target >= 0.5) & (targets.weight > 0))[pseudo], config.pool_balance)
    return Sampler(labelled, pseudo, batch_size, per_batch, seed, generation, share, pool, certain, config.positives)


@dataclass(frozen=True)
class Staged:
    """Samplers one after the other, of batches of one size: the n-th up to step ``stops[n]`` - 1, the last to the end.

    What stands in a batch is a function of its step alone, as with one sampler.
    """

    samplers: tuple[Sampler, ...]
    stops: tuple[int, ...]

    def film_numbers(self, step: int) -> Ints:
        """Return the film numbers (B,) of batch ``step``."""
        return self._of(step).film_numbers(step)

    def positions(self, step: int) -> Ints:
        """Return the places (B,) of batch ``step`` in the sample sequence."""
        return self._of(step).positions(step)

    def _of(self, step: int) -> Sampler:
        return next(
            (one for one, stop in zip(self.samplers, self.stops, strict=True) if step < stop), self.samplers[-1]
        )


def pool_rows(targets: Targets, *, unlabelled: bool) -> npt.NDArray[np.bool_]:
    """Return which films (N,) of the table are of the pool and of use: all with ``unlabelled``, else those with a
    target that weighs something.
    """
    return targets.pseudo & (unlabelled | (targets.weight > 0).any(axis=1))


def positives(targets: Targets) -> npt.NDArray[np.bool_]:
    """Return which of the labelled films are positive (a known target of 1/2 or more) for which label, (N, K)."""
    return ((targets.target >= 0.5) & (targets.weight > 0))[~targets.pseudo]


def _shares(positive: npt.NDArray[np.bool_], balance: float) -> Floats:
    """Return how often each film (N,) is drawn, summing to 1, by which labels (N, K) it is positive for."""
    each = repeats(positive, positive.sum(axis=0), balance)
    share: Floats = each / each.sum()
    return share


def repeats(positive: npt.NDArray[np.bool_], count: npt.NDArray[np.integer], balance: float) -> Floats:
    """Return how often each film counts, (N,) >= 1, so that films with rare labels come more often.

    It is the largest of (c / c_label) ** ``balance`` over its positive labels, c_label being the number of films that
    are positive for a label and c that of the most frequent one; 1 without a positive label. With 1/2 it is the repeat
    factor of Gupta et al., "LVIS", CVPR 2019, whose threshold is c here.

    Args:
        positive: (N, K), whether a film is positive for a label.
        count: (K,), the number of films that are.
        balance: from 0 (all alike) to 1.
    """
    factor = (count.max(initial=1) / np.maximum(count, 1)) ** balance
    counted: Floats = np.where(positive, factor, 1.0).max(axis=1)
    return counted


def odds_shift(targets: Targets, order: Sampler, balance: float) -> Floats:
    """Return by how much the sampler raises the log-odds of each label among labelled films, (K,).

    For every film of which the label is known, how often it would be drawn with the label is compared with how often
    without it, its other labels as they are. That is the shift of a model's logits where the labels are independent of
    each other given the film; a label without positives, or without negatives, has none.
    """
    positive, known = positives(targets), (targets.weight > 0)[~targets.pseudo]
    count, shift = positive.sum(axis=0), np.zeros(positive.shape[1])
    if order.share is None and not order.positives:
        return shift
    whole = repeats(positive, count, balance).sum()
    free = order.labelled_per_batch - order.guaranteed

    def drawn(label: int, value: bool) -> float:
        """Return how often films of known ``label`` would be drawn for a batch if all of them had ``value`` for it."""
        changed = positive.copy()
        changed[:, label] = value
        each = free * repeats(changed, count, balance) / whole
        drawn_each = each + order.per_label * (changed / np.maximum(count, 1)).sum(axis=1)
        return float(drawn_each[known[:, label]].sum())

    for label in np.flatnonzero((count > 0) & (count < known.sum(axis=0))).tolist():
        shift[label] = np.log(drawn(label, True) / drawn(label, False))
    return shift
