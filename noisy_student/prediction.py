"""What the networks of a generation say of films: their logits, and the stages that write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from noisy_student import preparation, scoring
from noisy_student.data import manifest, predictions
from noisy_student.data.cache import Cache
from noisy_student.data.manifest import Manifest
from noisy_student.randomness import generator, text_ids
from noisy_student.stats import consensus
from noisy_student.targets import folds
from noisy_student.targets.uncertainty import self_trained
from noisy_student.workplace import Stage, Traffic, Workplace, device_of, group_of, model_files

Floats32 = npt.NDArray[np.float32]

_STUDIES = 0x535455  # separates its stream of random numbers


def predict_networks(
    work: Workplace, generation: int, films: Manifest, pixels: Cache, title: str, only: Sequence[int] | None = None
) -> list[Floats32]:
    """Return the logits (N, K) of each network of a generation on ``films``, whose pixels are in ``pixels``.

    ``only`` names those of all that were trained to ask; :func:`said` is what the generation says. With test-time
    augmentation a network's logits are the mean over the views of a film. Several processes share the films of the
    run's own data set; others the first process predicts alone.
    """
    trained = work.run.trained(generation)
    asked = [trained.index(one) for one in work.run.networks(generation)] if only is None else list(only)
    if not len(films):
        return [np.empty((0, len(work.config.data.labels)), dtype=np.float32) for _ in asked]
    image_id = text_ids([str(image) for image in films.frame["image"]])
    job = generation, asked, preparation.film_rows(pixels, films), image_id
    if pixels is not work.decoded:
        return logits(replace(work, group=None), *job, title, pixels)
    with group_of(work).sharing("predict", *job):
        return logits(work, *job, title)


def logits(
    work: Workplace,
    generation: int,
    asked: Sequence[int],
    rows: npt.NDArray[np.int64],
    image_id: npt.NDArray[np.int64],
    title: str = "",
    pixels: Cache | None = None,
) -> list[Floats32]:
    """Return what the networks ``asked`` say of the films in ``rows`` of ``pixels``, of the run's where not given."""
    import torch

    from noisy_student.learning import checkpoint, course, predict
    from noisy_student.learning.batches import Films

    config, device, folders = work.config, device_of(work), work.run.trained(generation)
    films = Films((pixels or work.cache).pixels, rows, device, resident=False)
    views = predict.views(config.prediction.tta, image_id, films, seed=config.seed)
    found = []
    for number in asked:
        network, _ = checkpoint.load(folders[number], config.data.labels)
        network.to(device).to(memory_format=torch.channels_last)
        found.append(
            predict.predict(
                network,
                films,
                autocast=course.autocaster(device, config.precision),
                views=views,
                title=title if len(asked) == 1 else f"{title} ({folders[number].parent.parent.name})",
                progress=work.progress,
                stop=work.stop,
                group=group_of(work),
            )
        )
    return found


def said(work: Workplace, generation: int, logits: Sequence[Floats32]) -> Floats32:
    """Return the logits (C, N, K) to calibrate, from those of every network (N, K): each member's, else their mean."""
    if work.config.phase(generation).members:
        return np.stack(logits)
    mean: Floats32 = np.mean(logits, axis=0, dtype=np.float32)
    return mean[None]


def predict_split(split: str) -> Stage:
    """Return the stage that predicts the films of ``split`` ("valid", "test" or "pool").

    A cross-fitted generation says the mean of its networks' logits, or what the one says that learnt from all folds,
    except of its own label budget: there every film is predicted by the network that was trained without its patient,
    and "valid" writes the labelled films too. What each network says of the pool is kept: it teaches the network of the
    same fold.

    Where a teacher's word stands for uncertain labels, "valid" writes the labelled films too. Of an ensemble the logits
    of every member are kept. Where several networks said something of the pool or the test films, their spread is
    written beside; that of the validation films waits for the calibration.
    """

    def stage(work: Workplace, generation: int) -> Traffic:
        run, config, films = work.run, work.config, manifest.read(work.run.manifest)
        title = f"generation {generation}: predicting {split}"
        crossed, refit = config.folds > 1, config.phase(generation).refit is not None
        asked = run.trained(generation) if crossed and split in ("valid", "pool") else run.networks(generation)
        reads = [run.manifest, *(path for network in asked for path in model_files(network))]
        writes: list[Path] = []

        def write(folder: Path, name: str, chosen: Manifest, logits: Floats32, members: Floats32 | None = None) -> None:
            images = chosen.frame["image"].to_numpy(dtype=object)
            writes.append(folder / "predictions" / f"{name}.parquet")
            predictions.write(predictions.Predictions(images, config.data.labels, logits, members), writes[-1])

        folder = run.generation(generation)
        stays = config.stays(generation, 0)

        def before(name: str, chosen: Manifest, fold: int | None = None) -> Floats32:
            reads.append(scoring.predictions_path(run, generation - 1, name, fold))
            return predictions.read(reads[-1], scoring.images(chosen)).logits

        if split == "valid" and crossed:
            reads.append(run.folds)
            for name, chosen in scoring.judging_films(config, films).items():
                logits = before(name, chosen) if stays else _out_of_fold(work, generation, chosen, title)
                write(folder, name, chosen, logits)
            return Traffic(reads, writes)
        chosen = manifest.pool(films) if split == "pool" else manifest.select(films, split=split)
        everyone = range(len(asked)) if split == "pool" and crossed else None
        if everyone is not None and stays:
            found = [before(split, chosen, number) for number in range(config.folds)]
            found += predict_networks(work, generation, chosen, work.cache, title)
        else:
            found = predict_networks(work, generation, chosen, work.cache, title, everyone)
        if everyone is not None:
            for number in range(config.folds):
                write(run.network(generation, number), split, chosen, found[number])
            found = found[-1:] if refit else found
        several = bool(config.phase(generation).members)
        members = said(work, generation, found) if several else None
        write(folder, split, chosen, np.mean(found, axis=0, dtype=np.float32), members)
        if split == "valid" and self_trained(config.data.labels, config.targets).any():
            labelled = manifest.select(films, split="train", labelled=True)
            own = predict_networks(work, generation, labelled, work.cache, title)
            members = said(work, generation, own) if several else None
            write(folder, "labelled", labelled, np.mean(own, axis=0, dtype=np.float32), members)
        if split != "valid" and len(found) > 1:
            reads.append(folder / "calibration.json")
            spread = consensus.spread(scoring.calibrations(run, generation).each(np.stack(found)))
            images = chosen.frame["image"].to_numpy(dtype=object)
            writes.append(predictions.spread_path(folder / "predictions" / f"{split}.parquet"))
            predictions.write_spread(images, config.data.labels, spread, writes[-1])
        return Traffic(reads, writes)

    return stage


def _out_of_fold(work: Workplace, generation: int, films: Manifest, title: str) -> Floats32:
    """Return the logits (N, K) of ``films``, each of the network that was trained without its patient."""
    fold = folds.read(work.run.folds, films.frame["image"].to_numpy(dtype=object))
    logits = np.empty((len(films), len(work.config.data.labels)), dtype=np.float32)
    for number in range(work.config.folds):
        own = fold == number
        logits[own] = predict_networks(work, generation, manifest.rows(films, own), work.cache, title, [number])[0]
    return logits


def whole_studies(films: Manifest, count: int, seed: int) -> Manifest:
    """Return all films of studies that are drawn blindly until their films are ``count`` or more; all where fewer."""
    study = scoring.codes(films.frame["study"])
    size = np.bincount(study)
    order = generator(_STUDIES, seed).permutation(len(size))
    before = np.cumsum(size[order]) - size[order]
    return manifest.rows(films, np.isin(study, order[before < count]))
