from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, precision_score, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

import noisy_student
from noisy_student import evaluation, measures, preparation, scoring
from noisy_student.config import Config
from noisy_student.config.load import load
from noisy_student.data import manifest, predictions
from noisy_student.data.manifest import Manifest
from noisy_student.errors import DataError
from noisy_student.labels import COMPETITION
from noisy_student.runs import Run, read_json, write_json
from noisy_student.stats.calibration import Calibration, Platt
from noisy_student.targets import table
from noisy_student.targets.table import Targets

LABELS = (*COMPETITION, "Fracture")
SLOPE, INTERCEPT = 1.5, -0.25
PARTS = {"labelled": 12, "pool": 30, "valid": 40, "test": 60}


def films_of(part: str, stream: np.random.Generator) -> dict[str, Any]:
    count = PARTS[part]
    patient = [f"{part}{number // 4}" for number in range(count)]
    truth = (stream.random((count // 2, len(LABELS))) < 0.4).astype(np.float32).repeat(2, axis=0)
    truth[0::10, 1], truth[1::10, 1] = -1, -1  # both views of every fifth study are uncertain
    if part in ("valid", "test"):
        truth[:, -1] = 0  # no Fracture, as in CheXpert's validation set
    return {
        "image": [f"{part}/{number}.jpg" for number in range(count)],
        "patient": patient,
        "study": [f"{part}-study{number // 2}" for number in range(count)],
        "split": [part if part in ("valid", "test") else "train"] * count,
        "labelled": [part == "labelled"] * count,
        **{label: truth[:, k] for k, label in enumerate(LABELS)},
    }


def make_films() -> Manifest:
    stream = np.random.default_rng(5)
    parts = [films_of(part, stream) for part in PARTS]
    return manifest.build({key: [value for part in parts for value in part[key]] for key in parts[0]}, LABELS)


def write_generation(run: Run, films: Manifest, generation: int) -> None:
    folder, stream = run.generation(generation), np.random.default_rng(generation)
    frame = films.frame
    train = (frame["split"] == "train").to_numpy()
    chosen = {
        "valid": (frame["split"] == "valid").to_numpy(),
        "test": (frame["split"] == "test").to_numpy(),
        "pool": train & ~frame["labelled"].to_numpy(),
    }
    for split, keep in chosen.items():
        part = manifest.rows(films, keep)
        logits = manifest.values(part) * (0.4 + 0.3 * generation) + stream.normal(size=(len(part), len(LABELS)))
        images = part.frame["image"].to_numpy(dtype=object)
        stored = predictions.Predictions(images, LABELS, logits.astype(np.float32))
        predictions.write(stored, folder / "predictions" / f"{split}.parquet")
    platt = Platt(0.0, SLOPE, INTERCEPT, False, 10, 10)
    write_json(folder / "calibration.json", Calibration(LABELS, (platt,) * len(LABELS)).to_json())
    used = manifest.rows(films, train if generation else train & frame["labelled"].to_numpy())
    pseudo = ~used.frame["labelled"].to_numpy()
    # The pool in reverse order: the diagnostic must go by the name of the film, not by its place.
    order = np.concatenate([np.flatnonzero(~pseudo), np.flatnonzero(pseudo)[::-1]])
    target = stream.random((len(used), len(LABELS))).astype(np.float32)
    images = used.frame["image"].to_numpy(dtype=object)[order]
    table.write(Targets(images, LABELS, target, np.ones_like(target), pseudo[order]), folder / "targets.parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made, films = Run(tmp_path_factory.mktemp("runs") / "tiny"), make_films()
    made.create()
    seen, sealed = manifest.seal(films)
    manifest.write(seen, made.manifest)
    manifest.write(sealed, made.sealed)
    for generation in (0, 1):
        write_generation(made, films, generation)
    return made


@pytest.fixture(scope="module")
def config() -> Config:
    names = ", ".join(LABELS)
    return load(None, [f"data.labels=[{names}]", "evaluation.replicates=200", "evaluation.level=study"])


@pytest.fixture(scope="module")
def student(run: Run, config: Config) -> dict[str, Any]:
    return evaluation.evaluate_generation(run, config, 1)[0]


def expected(run: Run, split: str, generation: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Truth with NaN for uncertain, and calibrated probability, without the code under test."""
    films = make_films().frame.query("split == @split")
    path = run.generation(generation) / "predictions" / f"{split}.parquet"
    logits = predictions.read(path, films["image"].to_numpy(dtype=object)).logits.astype(np.float64)
    truth = films[list(LABELS)].to_numpy(dtype=np.float64)
    return np.where(truth == -1, np.nan, truth), 1 / (1 + np.exp(-(SLOPE * logits + INTERCEPT)))


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("level", ["image", "study"])
def test_figures_equal_those_of_scikit_learn(run: Run, student: dict[str, Any], split: str, level: str) -> None:
    truth, probability = expected(run, split)
    if level == "study":
        truth, probability = truth[::2], (probability[::2] + probability[1::2]) / 2
    found = student["splits"][split][level]
    assert found["n"] == len(truth)
    assert found["patients"] == PARTS[split] // 4
    areas = []
    for k, label in enumerate(COMPETITION):
        known = ~np.isnan(truth[:, k])
        given, score = truth[known, k], probability[known, k]
        entry = found["labels"][label]
        areas.append(roc_auc_score(given, score))
        assert entry["auroc"] == pytest.approx(areas[-1])
        assert entry["ap"] == pytest.approx(average_precision_score(given, score))
        assert entry["brier"] == pytest.approx(brier_score_loss(given, score))
        assert entry["log_loss"] == pytest.approx(sklearn_log_loss(given, score))
        assert entry["unknown"] == (~known).sum()
        low, high = entry["ci"]
        assert low < entry["auroc"] < high
    assert np.isnan(truth[:, 1]).any()
    assert found["macro"]["auroc"] == pytest.approx(np.mean(areas))


def test_what_is_undefined_is_null_with_a_reason_and_stays_out_of_the_macro_mean(student: dict[str, Any]) -> None:
    entry = student["splits"]["test"]["study"]["labels"]["Fracture"]
    assert (entry["auroc"], entry["ci"], entry["positives"]) == (None, None, 0)
    assert entry["reason"] == "no positives among 30 films"
    assert entry["brier"] is not None
    assert student["splits"]["test"]["study"]["macro"]["labels"] == list(COMPETITION)
    paired = student["paired"]["labels"]["Fracture"]
    assert (paired["difference"], paired["ci"], paired["p"]) == (None, None, None)
    assert paired["reason"]


def test_the_competition_figure_is_the_mean_over_its_labels_per_study(student: dict[str, Any]) -> None:
    assert student["competition"]["labels"] == list(COMPETITION)
    macro = student["splits"]["test"]["study"]["macro"]
    assert student["competition"]["auroc"] == pytest.approx(macro["auroc"])
    low, high = student["competition"]["ci"]
    assert low < macro["auroc"] < high


def test_there_is_no_competition_figure_where_one_of_its_labels_is_undefined(run: Run, config: Config) -> None:
    truth, probability = expected(run, "test")
    truth[:, 0] = 0
    assert measures.competition(truth, probability, np.arange(len(truth)), config) is None


def test_a_student_is_compared_with_the_generation_before(run: Run, student: dict[str, Any]) -> None:
    paired = student["paired"]
    assert (paired["against"], paired["split"]) == (0, "test")
    for k, label in enumerate(COMPETITION):
        areas = []
        for generation in (0, 1):
            truth, probability = expected(run, "test", generation)
            truth, probability = truth[::2, k], (probability[::2, k] + probability[1::2, k]) / 2
            areas.append(roc_auc_score(truth[~np.isnan(truth)], probability[~np.isnan(truth)]))
        assert paired["labels"][label]["difference"] == pytest.approx(areas[1] - areas[0])
    low, high = paired["macro"]["ci"]
    assert low < paired["macro"]["difference"] < high


def test_the_pool_diagnostic_measures_the_pseudo_targets_against_the_sealed_labels(
    run: Run, student: dict[str, Any]
) -> None:
    films, stored = make_films().frame.set_index("image"), table.read(run.generation(1) / "targets.parquet")
    pool = student["pool"]
    assert "Diagnostic only" in pool["note"]
    for k, label in enumerate(LABELS):
        truth = films.loc[list(stored.images[stored.pseudo]), label].to_numpy()
        target = stored.target[stored.pseudo, k].astype(np.float64)
        known = truth >= 0
        entry = pool["labels"][label]
        assert entry["auroc"] == pytest.approx(roc_auc_score(truth[known], target[known]))
        assert entry["brier"] == pytest.approx(brier_score_loss(truth[known], target[known]))
        assert entry["pseudo_share"] == pytest.approx(target[known].mean())
        assert entry["true_share"] == pytest.approx(truth[known].mean())
        assert entry["positives"] + entry["negatives"] == known.sum()
        positive = target[known] >= 0.5
        assert entry["right_positives"] == pytest.approx(precision_score(truth[known], positive))
        assert entry["right_negatives"] == pytest.approx(precision_score(1 - truth[known], ~positive))
    assert pool["macro"]["auroc"] == pytest.approx(np.mean([pool["labels"][name]["auroc"] for name in LABELS]))


def test_a_teacher_has_neither_a_comparison_nor_a_pool_diagnostic(run: Run, config: Config) -> None:
    content, reads = evaluation.evaluate_generation(run, config, 0)
    assert (content["paired"], content["pool"]) == (None, None)
    assert all(path.is_file() for path in reads)
    assert not any("gen-1" in str(path) for path in reads)


def test_it_names_every_file_it_reads(run: Run, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: set[Path] = set()

    def watched(read: Any) -> Any:
        def reading(path: Path, *more: Any) -> Any:
            opened.add(path)
            return read(path, *more)

        return reading

    for module, name in ((manifest, "read"), (predictions, "read"), (table, "read"), (scoring, "read_json")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    reads = evaluation.evaluate_generation(run, config, 1)[1]
    assert opened <= set(reads)
    assert run.sealed in opened


def test_it_can_be_stored_as_json(student: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "evaluation.json", student)
    assert read_json(tmp_path / "evaluation.json") == student


def test_missing_predictions_are_named(run: Run, config: Config) -> None:
    with pytest.raises(DataError, match=r"gen-7/predictions/valid\.parquet: is missing"):
        evaluation.evaluate_generation(run, config, 7)


def test_only_0_and_1_count_as_known() -> None:
    values = np.array([[1, 0, -1, np.nan, 0.5]], dtype=np.float32)
    unmentioned = scoring.known_truth(values, "ignore")
    np.testing.assert_array_equal(unmentioned, [[1, 0, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(scoring.known_truth(values, "zeros"), [[1, 0, np.nan, 0, np.nan]])


def test_codes_are_equal_for_equal_names_alone() -> None:
    found = scoring.codes(["b", "a", "b", "10", "9"])
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 4


# -- the seal ------------------------------------------------------------------------------------------------------

PACKAGE = Path(noisy_student.__file__).parent
SEALED_USERS = {"runs.py", "preparation.py", "evaluation.py"}
"""runs names the path, preparation writes the file, evaluation reads it."""


def uses_of_the_seal(source: str) -> list[int]:
    """Return the lines that use an attribute ``sealed``, or name the file outside a docstring."""
    tree = ast.parse(source)
    texts = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # docstrings
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "sealed")
        or (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in texts
            and re.search(r"\bsealed(\.parquet)?$", node.value)
        )
    ]


def test_the_search_for_the_seal_finds_it() -> None:
    assert uses_of_the_seal("x = run.sealed") == [1]
    assert uses_of_the_seal("\ny = path / 'sealed.parquet'\nz = getattr(run, 'sealed')") == [2, 3]
    assert uses_of_the_seal("'''The sealed.parquet'''\nsealed = 1") == []


def test_nothing_but_evaluation_reads_the_sealed_labels() -> None:
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in sorted(PACKAGE.rglob("*.py"))
        if (lines := uses_of_the_seal(path.read_text(encoding="utf-8")))
    }
    assert set(found) == SEALED_USERS, f"the sealed labels are used in {found}"
    writer = ast.parse((PACKAGE / "preparation.py").read_text(encoding="utf-8"))
    reads = [
        node for node in ast.walk(writer) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("read")
    ]
    assert reads == [], "preparation writes the sealed labels and reads none"


def test_a_student_is_trained_and_predicts_without_the_sealed_file(tmp_path: Path) -> None:
    from noisy_student.generations import TRAINING, run_stages
    from noisy_student.stages import Workplace

    sizes = "train_patients: 24, valid_patients: 8, test_patients: 8, size: 32, seed: 13"
    optim = "optim: {steps: 2, batch_size: 8, bn_images: 8, eval_every: 2, save_every: 2}"
    config = load(
        None,
        [
            "data.labels=[Lung Opacity, Support Devices]",
            "data.image_size=32",
            f"data.synthetic={{{sizes}}}",
            "split.labelled_patients=10",
            f"teacher={{{optim}}}",
            f"student={{{optim}}}",
            "evaluation.replicates=100",
            "threads=1",
        ],
    )
    run = Run(tmp_path / "run")
    run.create()
    work = Workplace(run, config, preparation.prepare(run, config), device="cpu")
    run.sealed.unlink()
    run_stages(work, 0, (*TRAINING, "predict-pool", "predict-test"))
    run_stages(work, 1, (*TRAINING, "predict-pool", "predict-test"))
    assert table.read(run.generation(1) / "targets.parquet").pseudo.any()
    with pytest.raises(DataError, match=r"sealed\.parquet: is missing"):
        run_stages(work, 1, ("evaluate",))
