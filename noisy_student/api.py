"""The Python interface: what ``import noisy_student`` gives. The command line does the same and no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from noisy_student import external, generations, preflight, preparation
from noisy_student.config.load import DEMO, relocate
from noisy_student.config.load import load as load_config
from noisy_student.deploy import answers
from noisy_student.deploy.answers import Written
from noisy_student.deploy.model import Answers, Model, load
from noisy_student.errors import UsageError
from noisy_student.workplace import Workplace

__all__ = ["Answers", "Model", "Written", "evaluate", "iterate", "load", "predict"]

Place = str | PathLike[str]


def predict(
    model: Model | Place,
    films: Place | Sequence[Place],
    output: Place,
    *,
    maps: Place | None = None,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Written:
    """Write what a model says of films to a CSV and return what was written; as ``ns predict``, and as it goes on where
    an interrupted call stopped.

    A row per film: its path, calibrated probability of every label in [0, 1], decisions ``LABEL:KIND`` (1, 0, empty
    where the label has no threshold), ``sd:LABEL`` (empty with one network), and ``far`` (empty, or how the film is far
    from the training films). For probabilities in memory use :meth:`Model.predict`.

    Args:
        model: a model that was loaded, or the path of a run or an exported folder.
        films: files, folders, globs, or CSVs with a column of paths.
        output: the CSV.
        maps: a folder for activation maps.
        overwrite: replace ``output``.
        device: for a path, where it is loaded to.
        progress: show progress on standard error.
        stop: asked between films whether to stop.

    Raises:
        UsageError: there is no such model, or ``output`` is there, or was begun by another model.
        DataError: there are no films. Those that cannot be read are counted in the result and listed beside ``output``.
        StoppedError: ``stop()`` became true.
    """
    ready = model if isinstance(model, Model) else load(model, device=device)
    asked = [films] if isinstance(films, str | PathLike) else films
    return answers.write(
        ready,
        [fspath(one) for one in asked],
        Path(output),
        maps=None if maps is None else Path(maps),
        overwrite=overwrite,
        workers=max(1, preparation.workers() - 1),  # this process has the networks to run
        progress=progress,
        stop=stop,
    )


def iterate(
    config: Place | None = None,
    output: Place | None = None,
    *,
    rounds: int = 3,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = False,
) -> dict[str, Any]:
    """Train a teacher and ``rounds`` students and return the report over all of them (docs/report-schema.md).

    Args:
        config: a YAML file; ``None`` is the synthetic demo.
        output: the run directory; ``None`` is ``runs/<name of the config>``.
        rounds: students after generation 0.
        overrides: settings of single keys, ``"a.b=value"``.
        resume: go on with the run that is there; a finished one is left as it is.
        overwrite: delete the run first.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: show progress on standard error.

    Raises:
        UsageError: there is a run and neither ``resume`` nor ``overwrite``, or no such device.
        ConfigError: a setting is wrong.
        DataError: the films or tables cannot be used.
        DivergedError: the loss is not finite.
    """
    given = None if config is None else Path(config)
    settings = load_config(given or DEMO, overrides)
    preflight.check_settings(settings, device)
    path = Path(output) if output is not None else Path("runs") / (given.stem if given else "demo")
    run = generations.open_run(path, settings, resume=resume, overwrite=overwrite)
    with run.lock():
        cache = preparation.prepare(run, settings, progress=progress)
        return generations.iterate(Workplace(run, settings, cache, device, progress), rounds)


def evaluate(
    run: Place,
    config: Place | None = None,
    *,
    overrides: Sequence[str] = (),
    generation: int | None = None,
    calibration: Place | None = None,
    device: str = "auto",
    progress: bool = False,
) -> dict[str, Any]:
    """Return how good a run is: the report over all generations, after measuring those that are not measured yet, or
    with ``config`` the measures of one generation on the test films of another data set (as ``ns evaluate --config``).

    Args:
        run: a run directory.
        config: YAML of the other data set.
        overrides: settings of the other data set (``data``, ``split``, ``targets.blank`` and
            ``targets.fill_parents``); without one, where the run's own data lies.
        generation, calibration: with ``config``, in place of the best generation and of its own calibration.
        device, progress: as in :func:`iterate`.

    Raises:
        UsageError: there is no run, nothing is trained, or ``generation`` and ``calibration`` without ``config``.
        DataError: the films cannot be used, or the data sets have no label in common.
    """
    if config is None and (generation is not None or calibration is not None):
        raise UsageError("generation and calibration go with config", "A run's own films are measured in full.")
    opened, stored = generations.existing_run(Path(run))
    with opened.lock():
        if config is not None:
            work = Workplace(opened, stored, None, device, progress)
            number = external.chosen_generation(opened, generation)
            fitted = None if calibration is None else Path(calibration)
            return external.evaluate(work, external.load_other(Path(config), overrides), number, fitted)
        settings = relocate(stored, overrides)
        cache = preparation.prepare(opened, settings, progress=progress)
        work = Workplace(opened, settings, cache, device, progress)
        generations.evaluate(work)
        return generations.make_reports(work)
