"""From student to teacher: the comparison with the teacher on films that judge both, and who teaches next."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from noisy_student import scoring
from noisy_student.config import PromotionConfig
from noisy_student.data import manifest
from noisy_student.runs import Run, read_json, write_json
from noisy_student.stats.comparison import difference_json
from noisy_student.stats.intervals import PairedComparison, compare
from noisy_student.workplace import Traffic, Workplace

Floats = npt.NDArray[np.float64]
DEFAULT: Final = PromotionConfig()


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
        own = [folder / "predictions" / "valid.parquet", *scoring.calibration_files(run, generation)]
        sentence = "Generation 0 is the first teacher: there is nothing to compare it with."
        write_json(path, decision(0, [], None, config.promotion, sentence))
        return Traffic(own, [path])
    teachers = teachers_of(run, generation)
    if config.stays(generation, 0):
        sentence = (
            f"The networks that judge are those of generation {generation - 1}, so labelled films do not tell whether "
            f"generation {generation} is better; next to teach: generation {generation}."
        )
        write_json(path, decision(generation, teachers, None, config.promotion, sentence))
        return Traffic([run.generation(generation - 1) / "promotion.json"], [path])
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
    if config.phase(generation).refit is not None:
        who = "labelled and validation patients, out of fold and by the networks of the folds,"
    write_json(path, decision(generation, teachers, found, config.promotion, who=who))
    reads = [run.manifest, run.generation(generation - 1) / "promotion.json"]
    for index in (generation, *teachers):
        reads += scoring.calibration_files(run, index)
        reads += [scoring.predictions_path(run, index, name) for name in parts]
    return Traffic(reads, [path])


def verdict(found: PairedComparison, config: PromotionConfig = DEFAULT) -> str:
    """Return "better", "worse" or "undecided" from macro AUROC, log loss or both, as ``config`` says.

    A student is worse when one of those that decide shows it worse and none shows it better; better the other way
    round.
    """
    better, worse = shown(found, "better", config), shown(found, "worse", config)
    return "undecided" if bool(better) == bool(worse) else "better" if better else "worse"


def shown(found: PairedComparison, word: str, config: PromotionConfig = DEFAULT) -> list[str]:
    """Return which of the measures that decide ("macro AUROC", "log loss") show the student "better" or "worse".

    A one-sided bound shows it where it lies on that side of 0 (so the two-sided ``ci`` beside it may hold 0); by the
    rule ``estimate`` the difference does.
    """
    names = []
    for name, key, difference, good in (
        ("macro AUROC", "auroc", found.auroc, 1),
        ("log loss", "log_loss", found.log_loss, -1),
    ):
        sign = good if word == "better" else -good
        nearest = difference.lower if sign > 0 else difference.upper
        if config.rule == "estimate":
            nearest = difference.value
        if config.measure in ("both", key) and nearest is not None and sign * nearest > 0:
            names.append(name)
    return names


def decision(
    generation: int,
    teachers: list[int],
    found: PairedComparison | None,
    config: PromotionConfig = DEFAULT,
    sentence: str = "",
    who: str = "validation patients",
) -> dict[str, Any]:
    """Return the content of ``promotion.json``: the verdict, and which generations teach next.

    Better: the student alone. Worse: the teacher stays. Undecided: the mean of teacher and student (all generations so
    far that were not worse), the student alone or the teacher, as ``config.undecided`` says. By the rule ``always`` it
    is the student whatever the verdict. Where nothing was ``found``, as of the first teacher and of a student whose
    judges stay, the ``sentence`` says why.
    """
    against: int | list[int] | None = teachers if len(teachers) > 1 else teachers[0] if teachers else None
    if found is None:
        role, word = ("student", "unjudged") if teachers else ("teacher", "first")
        return {
            "generation": generation, "role": role, "verdict": word, "promoted": True, "against": against,
            "teachers": [generation], "auroc": None, "log_loss": None, "sentence": sentence,
        }  # fmt: skip
    word = verdict(found, config)
    unsure = {"mean": [*teachers, generation], "student": [generation], "teacher": teachers}[config.undecided]
    following = {"better": [generation], "worse": teachers, "undecided": unsure}[word]
    if config.rule == "always":
        following = [generation]
    return {
        "generation": generation,
        "role": "student",
        "verdict": word,
        "promoted": generation in following,
        "against": against,
        "teachers": following,
        "auroc": difference_json(found.auroc),
        "log_loss": difference_json(found.log_loss),
        "sentence": _sentence(generation, teachers, found, word, following, who, config),
    }


def _sentence(
    generation: int,
    teachers: list[int],
    found: PairedComparison,
    word: str,
    following: list[int],
    who: str,
    config: PromotionConfig,
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
    measured = (("macro AUROC", found.auroc.value), ("log loss", found.log_loss.value))
    changes = ", ".join(f"{name} {value:+.3f}".replace("-", "−") for name, value in measured if value is not None)
    change = f" ({changes})" if changes else ""
    if word != "undecided":
        said += f", by {' and '.join(shown(found, word, config))}, than"
    return (
        f"On {found.patients} {who} generation {generation} {said} {named(teachers)}{change}; "
        f"next to teach: {named(following)}.{_without_bounds(found, config)}"
    )


def _without_bounds(found: PairedComparison, config: PromotionConfig) -> str:
    """Return why the macro AUROC took no part in the verdict and what is left, as a sentence; empty where it did, or
    was not to.
    """
    by_value = config.rule == "estimate"
    decides, left = ((one.value if by_value else one.lower) for one in (found.auroc, found.log_loss))
    if config.measure == "log_loss" or decides is not None:
        return ""
    why = f"is undefined, {found.auroc.reason}" if found.auroc.value is None else f"has {found.auroc.reason}"
    loss = config.measure == "both" and left is not None
    return f" The macro AUROC {why}: {'the log loss alone decides' if loss else 'nothing is left to decide by'}."
