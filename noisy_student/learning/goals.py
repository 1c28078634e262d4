"""What the training of a generation minimises, and by how much that shifts what the network says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from noisy_student.config import PhaseConfig
from noisy_student.learning import losses, objectives, sampling
from noisy_student.targets.table import Targets


@dataclass(frozen=True, eq=False)
class Goal:
    """The objective of a generation, the class weights of its labelled films (K,), and what shifts the logits (K,)."""

    objective: objectives.Objective
    pos_weight: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float64]
    """How far the loss moves its best logits; 0 where that is not known."""
    drawn: npt.NDArray[np.float64]
    """By how much the sampler raises the log-odds; 0 where that is not known."""


def goal(
    phase: PhaseConfig,
    targets: Targets,
    prevalence: npt.NDArray[np.float64] | None = None,
    steps: int | None = None,
) -> Goal:
    """Return what a generation with this table of ``targets`` minimises.

    ``prevalence`` (K,) is what a consistency term expects of the pool, NaN where that is not known; ``None`` takes the
    labelled films' share of positives. ``steps`` are those of the training, where it learns from a part of the table.

    Labelled films are a part of the batches of a student, and of a teacher that sees the pool: what is theirs alone
    (class weights, the sampler) shifts its logits by less than it says, and is left to Platt.
    """
    loss, labelled, none = phase.loss, ~targets.pseudo, np.zeros(len(targets.labels))
    known = targets.target[labelled], targets.weight[labelled]
    pos_weight = losses.positive_weights(*known, phase.pos_weight_cap)
    if loss.name == "auc_margin":  # scores without a scale of their own: nothing is known of their shift
        margin = objectives.AucMargin(len(targets.labels), loss.margin)
        return Goal(margin, pos_weight, none, none)
    adjustment = losses.prior_adjustment(*known, loss.tau if loss.name == "logit_adjusted" else 0)
    shift, drawn = 0 - adjustment.astype(np.float64), none
    unlabelled = phase.consistency.on
    if not sampling.pool_rows(targets, unlabelled=unlabelled).any():
        order = sampling.sampler(
            targets,
            batch_size=phase.optim.batch_size,
            labelled_share=phase.optim.labelled_share,
            seed=0,
            generation=0,
            config=phase.sampler,
        )
        shift += np.log(pos_weight.astype(np.float64))
        drawn = sampling.odds_shift(targets, order, phase.sampler.balance)
    parts = losses.summed_loss(loss, adjustment), losses.mean_loss
    objective = objectives.supervised(*parts)
    if unlabelled:
        share = torch.from_numpy(share_of_positives(targets) if prevalence is None else prevalence)
        steps = steps or phase.stretches(len(targets.images))[-1].stop
        objective = objectives.Consistency(objectives.cost(*parts), phase.consistency, share, steps)
    return Goal(objective, pos_weight, shift, drawn)


def share_of_positives(targets: Targets) -> npt.NDArray[np.float64]:
    """Return each label's share of positives among the labelled films, by weight, (K,); NaN where none is known."""
    labelled = ~targets.pseudo
    target, weight = targets.target[labelled].astype(np.float64), targets.weight[labelled].astype(np.float64)
    mass = weight.sum(axis=0)
    share: npt.NDArray[np.float64] = np.divide(
        (target * weight).sum(axis=0), mass, out=np.full(len(mass), np.nan), where=mass > 0
    )
    return share
