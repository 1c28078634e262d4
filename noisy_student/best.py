"""Which generation of a run is its best: one rule for reports, comparisons, predictions and exports."""

from __future__ import annotations

from noisy_student.runs import Run, read_json


def passes(verdict: str | None, rule: str = "bound") -> bool:
    """Return whether a generation with this verdict can be the best; the latest of those that can is.

    That is any verdict but "worse", and by the promotion rule "always" any at all.
    """
    return verdict is not None and (rule == "always" or verdict != "worse")


def best_generation(run: Run) -> int | None:
    """Return the best generation by the decisions of the run, ``None`` where there is none yet.

    The decisions (``promotion.json``) come before the report, which can be of a time when there were fewer generations;
    a run of which only the report is left is taken at its word.
    """
    paths = {number: run.generation(number) / "promotion.json" for number in run.generations()}
    verdicts = {number: read_json(path).get("verdict") for number, path in paths.items() if path.is_file()}
    if any(verdicts.values()):
        settings = run.path / "config.resolved.json"
        stored = read_json(settings).get("promotion", {}) if settings.is_file() else {}
        passed = [number for number, said in verdicts.items() if passes(said, stored.get("rule", "bound"))]
        return passed[-1] if passed else next(iter(verdicts))
    report = run.path / "report.json"
    return int(read_json(report)["best"]) if report.is_file() else None
