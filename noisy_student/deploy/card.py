"""The model card of an exported folder, from the files of its run: what it was made from, how good it is, for whom not.

The form is Hugging Face's: a YAML head that its tools read, then text. No path, patient or machine stands in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from noisy_student import __version__, origins
from noisy_student.config import Config
from noisy_student.deploy.recipe import Recipe
from noisy_student.reporting import report, words
from noisy_student.runs import PRETRAINING, Run, read_json

NAME: Final = "README.md"
NOT_CLINICAL: Final = "**Research software. Not for clinical use.**"
_UNIT: Final = {"image": "films", "study": "studies"}


def card(run: Run, config: Config, recipe: Recipe, *, onnx: bool) -> str:
    """Return the model card of a generation of ``run``; figures are those of its evaluation, where there is one.

    Raises:
        NoisyStudentError: a file of the run is missing or incomplete.
    """
    number = recipe.generation
    measured = (run.generation(number) / "evaluation.json").is_file()
    found = report.gather(run, [number], shown=number) if measured else None
    entry = None if found is None else found["generations"][0]
    sections = [
        _head(config, recipe, entry),
        f"# {recipe.name}, generation {number}",
        NOT_CLINICAL,
        _summary(run, recipe),
        "## Use\n\n" + _use(recipe, onnx),
        "## Data\n\n" + _data(run, config),
        "## Label policy\n\n" + _policy(config),
        "## Training\n\n" + _training(run, number),
        "## Figures\n\n" + _figures(config, entry, recipe.calibrated_with),
        "## Subgroups\n\n" + _subgroups(entry),
        "## Calibration and operating points\n\n" + _points(recipe),
        "## Limits\n\n" + _limits(config, recipe),
    ]
    return "\n\n".join(sections) + "\n"


def _head(config: Config, recipe: Recipe, entry: Mapping[str, Any] | None) -> str:
    head: dict[str, Any] = {
        "library_name": "noisy_student",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "multi-label", "semi-supervised", "noisy-student", "medical", "not-for-clinical-use"],
        "metrics": ["roc_auc", "brier_score"],
    }
    if entry is not None and entry["test"]["macro"]["auroc"] is not None:
        macro = entry["test"]["macro"]
        data = {"type": config.data.source, "name": config.data.source, "split": "test"}
        metric = {"type": "roc_auc", "name": "macro AUROC", "value": round(macro["auroc"], 4)}
        if macro["ci"] is not None:
            metric["name"] += f", {config.evaluation.confidence:.0%} interval {_ci(macro['ci'])}"
        result = {"task": {"type": "image-classification"}, "dataset": data, "metrics": [metric]}
        head["model-index"] = [{"name": recipe.name, "results": [result]}]
    return "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True) + "---"


def _summary(run: Run, recipe: Recipe) -> str:
    backbones = ", ".join(dict.fromkeys(str(meta["model"]["name"]) for meta in recipe.networks))
    parameters = sum(int(meta.get("parameters") or 0) for meta in recipe.networks)
    role = "teacher" if recipe.generation == 0 else f"student {recipe.generation} of {max(run.generations())}"
    return (
        f"A classifier of chest films: {words.plural(len(recipe.networks), 'network')} ({backbones}; "
        f"{parameters / 1e6:.1f} million parameters), the {role} of a self-training by noisy students. Labels: "
        f"{', '.join(recipe.labels)}. Films are seen at {recipe.decode.size} x {recipe.decode.size} pixels, "
        f"{words.plural(recipe.decode.channels, 'channel')}. Made with noisy_student {__version__}."
    )


def _use(recipe: Recipe, onnx: bool) -> str:
    text = (
        "```python\nimport noisy_student\n\n"
        'model = noisy_student.load("this folder")\nprobability = model.predict(["film.jpg"])   # (1, '
        f"{len(recipe.labels)}), columns as model.labels\n```\n\n    ns predict FOLDER films/ -o scores.csv\n"
    )
    side, channels = recipe.decode.size, recipe.decode.channels
    shape = f"(batch, {channels}, {side}, {side})"
    if onnx:
        text += (
            f"\n`model.onnx` takes `films`, uint8 {shape}, decoded as `config.json` says (`decode`), and gives "
            f"`probability`, float32 (batch, {len(recipe.labels)}): scaling, normalisation, the mean over networks and "
            "the calibration are inside.\n"
        )
    return text.rstrip()


def _data(run: Run, config: Config) -> str:
    split = read_json(run.path / "split.json")
    budget = split["budget"]
    rows = [f"Source `{config.data.source}`, split by patient.", "", "| part | patients | films |", "|---|---|---|"]
    rows += [f"| {name} | {part['patients']:,} | {part['images']:,} |" for name, part in split["counts"].items()]
    rows += [
        "",
        f"**Label budget**: {words.films_of_patients(budget)}, labelled and validation films together "
        f"({budget['labelled_images']:,} and {budget['valid_images']:,} films). Labels of the pool and the test films "
        "were seen by the evaluation alone.",
    ]
    return "\n".join(rows)


def _policy(config: Config) -> str:
    targets = config.targets
    own = "".join(f"; {label}: {policy}" for label, policy in targets.uncertain_by_label.items())
    literature = " (1 for Atelectasis and Edema, else 0)" if targets.uncertain == "literature" else ""
    filled = " Parents are filled from their children." if targets.fill_parents else ""
    return (
        f"Uncertain (-1): `{targets.uncertain}`{literature}{own}. Not mentioned (blank): `{targets.blank}`"
        f"{f' with weight {targets.blank_weight:g}' if targets.blank_weight != 1 else ''}.{filled} "
        "In figures, uncertain labels are left out."
    )


def _training(run: Run, number: int) -> str:
    rows = ["| generation | role | verdict |", "|---|---|---|"]
    for index in range(number + 1):
        path = run.generation(index) / "promotion.json"
        decision = read_json(path) if path.is_file() else {}
        mark = " (this one)" if index == number else ""
        role = decision.get("role") or ("teacher" if index == 0 else "student")
        rows.append(f"| {index}{mark} | {role} | {decision.get('verdict') or words.DASH} |")
    metas = [origins.read_meta(folder) for folder in run.networks(number)]
    seen = sorted({name for meta in metas for name in meta.get("labels_seen", ())})
    cautions = list(dict.fromkeys(text for meta in metas for text in meta.get("cautions", ())))
    text = "\n".join(rows) + f"\n\nStart weights: {'; '.join(_starts(run, number)) or 'none on record'}."
    if seen:
        text += f"\n\nWeights, or teachers, were trained with labels of: {', '.join(seen)}."
    return text + "".join(f"\n\n**Caution**: {sentence}." for sentence in cautions)


def _starts(run: Run, number: int) -> list[str]:
    """Return where the weights came from with which networks of generations up to ``number`` began, but for those that
    went on from others of the run.
    """
    folders = [run.generation(PRETRAINING) / "checkpoint" / "best"]
    folders += [folder for index in range(number + 1) for folder in run.trained(index)]
    found = [origins.read_meta(folder).get("origin") for folder in folders if (folder / "meta.json").is_file()]
    first = [str(origin) for origin in found if origin and not str(origin).startswith(origins.OF_RUN)]
    return [report.without_paths(origin) for origin in dict.fromkeys(first)]


def _figures(config: Config, entry: Mapping[str, Any] | None, calibrated_with: str | None) -> str:
    if entry is None:
        return "Not measured: this generation has not been evaluated (`ns evaluate`)."
    test, level = entry["test"], config.evaluation.level
    macro = test["macro"]
    rows = [
        f"Test set: {test['n']:,} {_UNIT[level]} of {test['patients']:,} patients; {config.evaluation.confidence:.0%} "
        "intervals by resampling patients.",
        "",
        "| label | AUROC | average precision | Brier | ECE | positives |",
        "|---|---|---|---|---|---|",
        f"| macro mean | {words.interval(macro['auroc'], macro['ci'])} | {words.number(macro['ap'])} | "
        f"{words.number(macro['brier'])} | {words.number(macro['ece'])} | |",
    ]
    for label, cell in test["labels"].items():
        auroc = (
            words.interval(cell["auroc"], cell["ci"]) if cell["auroc"] is not None else f"undefined: {cell['reason']}"
        )
        figures = " | ".join(words.number(cell[key]) for key in ("ap", "brier", "ece"))
        rows.append(f"| {label} | {auroc} | {figures} | {cell['positives']} |")
    if calibrated_with is not None:
        rows += ["", "Brier score and ECE are those of the run's own calibration, which is not the one in this folder."]
    paired = entry["paired"]
    if paired is not None:
        change = words.signed(paired["macro"]["difference"], paired["macro"]["ci"])
        rows += ["", f"Against generation {paired['against']}, on the same films: {change} macro AUROC."]
    return "\n".join(rows)


def _subgroups(entry: Mapping[str, Any] | None) -> str:
    found = None if entry is None else entry["subgroups"]
    if not found:
        return "Not measured: the data set says nothing of sex, age, view, projection or site, or was not evaluated."
    rows = ["| by | group | patients | macro AUROC |", "|---|---|---|---|"]
    for column, part in found["columns"].items():
        for group in part["groups"]:
            macro, small = group["macro"], " (small)" if group["small"] else ""
            auroc = words.interval(macro["auroc"], macro["ci"])
            rows.append(f"| {column} | {group['group']}{small} | {group['patients']:,} | {auroc} |")
    rows += ["", f"Groups of fewer than {found['smallest']} patients are marked as small."]
    for column, part in found["columns"].items():
        gap = part["gap"]
        if gap["difference"] is not None:
            between = words.listed(gap["between"])
            rows.append(f"Gap by {column}, between {between}: {words.interval(gap['difference'], gap['ci'])}.")
    return "\n".join(rows)


def _points(recipe: Recipe) -> str:
    kinds = {"youden": "Youden", "sensitivity": "sensitivity", "specificity": "specificity"}
    first = next(iter(recipe.points.values()))
    heads = [name if first[kind].target is None else f"{name} {first[kind].target:g}" for kind, name in kinds.items()]
    fitted = "the run's judging films" if recipe.calibrated_with is None else "local films (`ns recalibrate`)"
    rows = [
        f"Probabilities are calibrated on {fitted}. Thresholds were chosen on {first['youden'].chosen_on}.",
        "",
        f"| label | {' | '.join(heads)} |",
        "|---|---|---|---|",
    ]
    for label, points in recipe.points.items():
        rows.append(f"| {label} | {' | '.join(words.number(points[kind].value) for kind in kinds)} |")
    return "\n".join(rows)


def _limits(config: Config, recipe: Recipe) -> str:
    made_up = config.data.source == "synthetic"
    lines = [
        *(["It was trained on synthetic films and says nothing about people."] if made_up else []),
        "It was measured on films of one source. Elsewhere discrimination and calibration can be worse: measure with "
        "`ns evaluate --config`, and fit the probabilities anew with `ns recalibrate`.",
        "Labels of training are those of the data set, with its errors; a model learns these too.",
        "Pseudo-labels carry a teacher's mistakes on, and a finding that few films show is learnt from few films.",
        "It says nothing of findings that are not among its labels. A low probability is no proof of absence.",
        "Films unlike the training films are marked by `ns predict` where `familiar.safetensors` is there; a film that "
        "is not marked can still be one that the model is wrong about.",
        *(["With one network there is no measure of uncertainty by film."] if len(recipe.networks) == 1 else []),
        "It is no medical device and must not be used for diagnosis or treatment.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _ci(bounds: Any) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"
