"""The cheap baseline: logistic regression on the features of start weights, which learn nothing."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from noisy_student import preflight, preparation
from noisy_student.data.manifest import Manifest
from noisy_student.learning import course, models, predict
from noisy_student.learning.batches import Films
from noisy_student.randomness import text_ids
from noisy_student.workplace import Workplace

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
FOLDS: Final = 4
STRENGTHS: Final = np.logspace(-4, 1, 6)
"""Inverse strengths of the penalty that cross-validation chooses from."""
FALLBACK: Final = 0.01
"""The one where folds of patients cannot choose: fewer patients on either side than folds, or a fold of one class."""


def features(work: Workplace, *films: Manifest) -> list[Floats]:
    """Return the features (N, D) of each of ``films``: what the teacher's network says with its start weights.

    With all of them, also where the teacher begins some of its blocks anew: those would say nothing before they learn.
    As of the other arms it is the mean over the views of ``prediction.tta``.
    """
    config, cache, device = work.config, work.cache, predict.best_device("auto")
    whole = {"initialise": "pretrained", "pretrained_blocks": None}
    model, data = config.teacher.model.model_copy(update=whole), config.data
    network = models.build(model, data.labels, data.channels, data.image_size, seed=config.seed)
    models.load_weights(network, model, preflight.weight_folders(config), seed=config.seed)
    network.classifier = torch.nn.Identity()
    network.to(device)
    autocast = course.autocaster(device, config.precision)
    found = []
    for some in films:
        shown = Films(cache.pixels, preparation.film_rows(cache, some), device)
        views = predict.views(config.prediction.tta, text_ids(some.frame["image"].tolist()), shown, seed=config.seed)
        found.append(predict.predict(network, shown, autocast=autocast, views=views).astype(np.float64))
    return found


def regress(seen: Floats, target: Singles, weight: Singles, patients: npt.NDArray[Any], asked: Floats) -> Floats:
    """Return probabilities (N, K) of the films with features ``asked`` (N, D), one regression per label.

    ``target`` and ``weight`` (M, K) are those of the films with features ``seen`` (M, D) and ``patients`` (M,); a film
    counts by its weight, as positive from 1/2 on. The penalty is chosen by log loss over folds of patients, or is
    :data:`FALLBACK`. A label with films of one class is 1/2 throughout: no film is told from another.
    """
    columns = []
    for known, weights in zip(target.T, weight.T, strict=True):
        use = weights > 0
        truth = known[use] >= 0.5
        if truth.all() or not truth.any():
            columns.append(np.full(len(asked), 0.5))
            continue
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=FALLBACK, max_iter=5000))
        found = _chosen(regression, seen[use], truth, weights[use], patients[use])
        columns.append(found.predict_proba(asked)[:, 1])
    return np.stack(columns, axis=1)


def _chosen(
    regression: Pipeline, seen: Floats, truth: npt.NDArray[np.bool_], weights: Singles, patients: npt.NDArray[Any]
) -> Any:
    counted = {"logisticregression__sample_weight": weights}
    either = min(len(np.unique(patients[truth])), len(np.unique(patients[~truth])))
    if either < FOLDS:
        return regression.fit(seen, truth, **counted)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    if any(len(np.unique(truth[part])) < 2 for _, part in folds.split(seen, truth, patients)):
        return regression.fit(seen, truth, **counted)  # a fold of one class has no log loss
    search = GridSearchCV(
        regression, {"logisticregression__C": STRENGTHS}, scoring="neg_log_loss", cv=folds, error_score="raise"
    )
    return search.fit(seen, truth, groups=patients, **counted)
