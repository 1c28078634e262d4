"""The stages of a generation: each reads files of the run, writes files of the run, and says which.

Order: pretrain (before generation 0, where it is asked for), targets -> fit -> predict-valid -> calibrate -> promote ->
predict-pool, predict-test -> evaluate -> gallery -> maps -> report. A stage knows of the others only their files.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from noisy_student import evaluation, illustration, prediction, promotion, scoring, teaching, training
from noisy_student.data import manifest, predictions
from noisy_student.reporting import report
from noisy_student.runs import read_json, write_json
from noisy_student.stats import calibration, consensus
from noisy_student.stats.links import Link
from noisy_student.workplace import Stage, Traffic, Workplace, model_files

Floats = npt.NDArray[np.float64]

MATCHED: Final = 1000
"""Films of the pool on which a calibration is matched, at most."""


# -- judgement -----------------------------------------------------------------------------------------------------


def calibrate(work: Workplace, generation: int) -> Traffic:
    """Fit the calibrations on validation, and on labelled films out of fold where there are any; write them.

    Members of an ensemble are calibrated one by one, and how far they differ on the validation films is written too. A
    network that learnt from all folds has no film to be judged on: ``calibration-folds.json`` is of the networks of the
    folds then, and ``calibration.json`` of that network, matched to what they say of films without labels.
    """
    run, config, labels = work.run, work.config, work.config.data.labels
    folder, films = run.generation(generation), manifest.read(run.manifest)
    judged = scoring.judging_films(config, films)
    # The networks of a cross-fitted generation share their loss and its shift, and are calibrated as one.
    models = [path / "meta.json" for path in run.trained(generation)[: 1 if config.folds > 1 else None]]
    reads = [run.manifest, *models]
    found = []
    for name, part in judged.items():
        reads.append(folder / "predictions" / f"{name}.parquet")
        found.append(predictions.read(reads[-1], part.frame["image"].to_numpy(dtype=object)))
    together = manifest.Manifest(pd.concat([part.frame for part in judged.values()], ignore_index=True), labels)
    fitted = consensus.fit(
        np.concatenate([stored.each for stored in found], axis=1),
        scoring.known_truth(manifest.values(together), config.targets.blank),
        scoring.views(together),
        config.evaluation.aggregation,
        [partial(calibration.fit, labels=labels, **_undone(model)) for model in models],
    )
    writes = [folder / "calibration.json"]
    if config.phase(generation).refit is not None:
        writes.append(scoring.judges_calibration(run, generation))
        write_json(writes[-1], fitted.to_json())
        fitted, more = _matched(work, generation, fitted)
        reads += more
    write_json(writes[0], fitted.to_json())
    if found[0].members is not None:
        writes.append(predictions.spread_path(folder / "predictions" / "valid.parquet"))
        spread = consensus.spread(fitted.each(found[0].each))
        predictions.write_spread(found[0].images, labels, spread, writes[-1])
    return Traffic(reads, writes)


def _undone(meta: Path) -> dict[str, Any]:
    """Return what loss and sampler of the network of ``meta`` did to its log-odds, for a calibration to undo."""
    learnt = read_json(meta)
    return {"shift": learnt["shift"], "link": Link.of_loss(learnt["loss"]), "drawn": learnt["drawn"]}


def _matched(work: Workplace, generation: int, judges: consensus.Consensus) -> tuple[consensus.Consensus, list[Path]]:
    """Return the calibration of the network that learnt from all folds, and the files that it comes from.

    Its logits are matched to the probabilities of ``judges``, the mean of the networks of the folds, on films of the
    pool, whose labels nobody has used. Without a pool it has the calibration of the judges.
    """
    run, config, how = work.run, work.config, work.config.evaluation.aggregation
    films = prediction.whole_studies(manifest.pool(manifest.read(run.manifest)), MATCHED, config.seed)
    if not len(films):
        return judges, []
    networks, views = run.trained(generation), scoring.views(films)
    undone = _undone(networks[-1] / "meta.json")
    title = f"generation {generation}: matching the calibration"
    *others, own = prediction.predict_networks(work, generation, films, work.cache, title, range(len(networks)))
    said = np.mean(np.stack(others), axis=0, dtype=np.float64, keepdims=True)

    def match(logits: Floats, probability: Floats) -> calibration.Calibration:
        return calibration.match(logits, probability, config.data.labels, **undone)

    by_image = match(own.astype(np.float64), judges.image(said))
    by_study = match(views.aggregate(own, how), judges.study(said, views))
    found = consensus.Consensus((consensus.Fitted(by_image, by_study, how),))
    return found, [path for network in networks for path in model_files(network)]


def evaluate(work: Workplace, generation: int) -> Traffic:
    """Write ``evaluation.json``."""
    content, reads = evaluation.evaluate_generation(work.run, work.config, generation)
    path = work.run.generation(generation) / "evaluation.json"
    write_json(path, content)
    return Traffic(reads, [path])


def write_report(work: Workplace, generation: int) -> Traffic:
    """Write the report of the generation."""
    folder = work.run.generation(generation)
    writes = report.write_generation(work.run, generation)
    return Traffic([folder / "evaluation.json", folder / "promotion.json"], list(writes))


STAGES: Final[dict[str, Stage]] = {
    "targets": teaching.make_targets,
    "pretrain": training.pretrain,
    "fit": training.train,
    "predict-valid": prediction.predict_split("valid"),
    "calibrate": calibrate,
    "promote": promotion.promote,
    "predict-pool": prediction.predict_split("pool"),
    "predict-test": prediction.predict_split("test"),
    "evaluate": evaluate,
    "gallery": illustration.choose_gallery,
    "maps": illustration.draw_maps,
    "report": write_report,
}
