"""From student to teacher: the comparison with the teacher on films that judge both, and who teaches next."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from noisy_student import scoring
from noisy_student.data import manifest
from noisy_student.runs import Run, read_json, write_json
from noisy_student.stats.comparison import difference_json
from noisy_student.stats.intervals import PairedComparison, compare
from noisy_student.workplace import Traffic, Workplace

Floats = npt.NDArray[np.float64]


def teachers_of(run: Run, generation: int) -> list[int]:
    """Return the generations whose mean teaches ``generation``: what the promotion of the one before decided."""
    if generation == 0:
        return []
    teachers: list[int] = read_json(run.generation(generation - 1) / "promotion.json")["teachers"]
    return teachers


def promote(work: Workplace, generation: int) -> Traffic:
    """Compare the generation with its teacher and write who teaches next to ``promotion.json``.

    The films are those of validation; the labelled films too in a cross-fitted run.
    """
    run, config = work.run, work.config
    folder = run.generation(generation)
    path = folder / "promotion.json"
    if generation == 0:
        own = [folder / "predictions" / "valid.parquet", folder / "calibration.json"]
        sentence = "Generation 0 is the first teacher: there is nothing to compare it with."
        write_json(path, decision(0, [], None, config.promotion.undecided, sentence))
        return Traffic(own, [path])
    teachers = teachers_of(run, generation)
    parts = scoring.judging_films(config, manifest.read(run.manifest))

    def said(index: int) -> Floats:
        return np.concatenate([scoring.probabilities(run, index, name, part) for name, part in parts.items()])

    truth = np.concatenate(
        [scoring.known_truth(manifest.values(part), config.targets.blank) for part in parts.values()]
    )
    patients = np.concatenate([part.frame["patient"] for part in parts.values()])
    student, teacher = said(generation), np.mean([said(index) for index in teachers], axis=0)
    found = compare(
        truth,
        teacher,
        student,
        scoring.codes(patients),
        [config.data.labels.index(name) for name in config.macro_labels()],
        config.evaluation.replicates,
        config.seed,
        config.promotion.confidence,
        probability_a=teacher,
        probability_b=student,
        names=config.data.labels,
    )
    who = "validation patients" if config.folds == 1 else "labelled and validation patients, out of fold,"
    write_json(path, decision(generation, teachers, found, config.promotion.undecided, who=who))
    reads = [run.manifest, run.generation(generation - 1) / "promotion.json"]
    files = ["calibration.json", *(f"predictions/{name}.parquet" for name in parts)]
    reads += [run.generation(index) / name for index in (generation, *teachers) for name in files]
    return Traffic(reads, [path])


def verdict(found: PairedComparison) -> str:
    """Return "better", "worse" or "undecided" from macro AUROC and log loss together.

    A student is worse when a one-sided bound shows one of the two worse and none shows the other better; better the
    other way round.
    """
    better, worse = shown(found, "better"), shown(found, "worse")
    return "undecided" if bool(better) == bool(worse) else "better" if better else "worse"


def shown(found: PairedComparison, word: str) -> list[str]:
    """Return by which measures ("macro AUROC", "log loss") a bound shows the student "better" or "worse"."""
    area, loss = found.auroc, found.log_loss
    signs = {
        "better": (area.lower is not None and area.lower > 0, loss.upper is not None and loss.upper < 0),
        "worse": (area.upper is not None and area.upper < 0, loss.lower is not None and loss.lower > 0),
    }[word]
    return [name for name, holds in zip(("macro AUROC", "log loss"), signs, strict=True) if holds]


def decision(
    generation: int,
    teachers: list[int],
    found: PairedComparison | None,
    undecided: str,
    sentence: str = "",
    who: str = "validation patients",
) -> dict[str, Any]:
    """Return the content of ``promotion.json``: the verdict, and which generations teach next.

    Better: the student alone. Worse: the teacher stays. Undecided: the mean of teacher and student (all generations so
    far that were not worse), or the student alone, as ``undecided`` ("mean" or "student") says.
    """
    if found is None:
        return {
            "generation": generation, "role": "teacher", "verdict": "first", "promoted": True, "against": None,
            "teachers": [generation], "auroc": None, "log_loss": None, "sentence": sentence,
        }  # fmt: skip
    word = verdict(found)
    mean = [*teachers, generation]
    following = {
        "better": [generation],
        "worse": teachers,
        "undecided": mean if undecided == "mean" else [generation],
    }[word]
    against: int | list[int] = teachers[0] if len(teachers) == 1 else teachers
    return {
        "generation": generation,
        "role": "student",
        "verdict": word,
        "promoted": word != "worse",
        "against": against,
        "teachers": following,
        "auroc": difference_json(found.auroc),
        "log_loss": difference_json(found.log_loss),
        "sentence": _sentence(generation, teachers, found, word, following, who),
    }


def _sentence(
    generation: int, teachers: list[int], found: PairedComparison, word: str, following: list[int], who: str
) -> str:
    def named(indices: list[int]) -> str:
        if len(indices) == 1:
            return f"generation {indices[0]}"
        return "the mean of generations " + ", ".join(str(index) for index in indices)

    said = {
        "better": "is better",
        "worse": "is worse",
        "undecided": "cannot be told apart from",
    }[word]
    change = "" if found.auroc.value is None else f" (macro AUROC {found.auroc.value:+.3f}"
    change += "" if found.log_loss.value is None or not change else f", log loss {found.log_loss.value:+.3f}"
    change = f"{change})".replace("-", "−") if change else ""
    if word != "undecided":
        said += f", by {' and '.join(shown(found, word))}, than"
    return (
        f"On {found.patients} {who} generation {generation} {said} {named(teachers)}{change}; "
        f"next to teach: {named(following)}.{_without_bounds(found)}"
    )


def _without_bounds(found: PairedComparison) -> str:
    """Return why the macro AUROC took no part in the verdict and what is left, as a sentence; empty where it did."""
    if found.auroc.value is None or found.auroc.lower is not None:
        return ""
    left = "the log loss alone decides" if found.log_loss.lower is not None else "nothing is left to decide by"
    return f" The macro AUROC has {found.auroc.reason}: {left}."
