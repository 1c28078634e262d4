from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from noisy_student.config import Config, NoiseConfig
from noisy_student.config import load as config_load
from noisy_student.config.base import Section
from noisy_student.config.load import check_same, config_hash, load, read_snapshot, relocate, resolved, to_yaml
from noisy_student.errors import ConfigError
from noisy_student.labels import OBSERVATIONS
from noisy_student.runs import write_json


@pytest.fixture
def write(tmp_path: Path) -> Iterator[object]:
    def written(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def fails(path: Path | None, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return caught.value


def sections(model: type[Section], name: str = "") -> Iterator[tuple[str, type[Section]]]:
    yield name, model
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections(field.annotation, f"{name}.{key}" if name else key)


# -- the models ----------------------------------------------------------------------------------------------------


def test_every_key_of_every_section_is_documented() -> None:
    found = dict(sections(Config))
    assert {"data", "data.columns", "teacher.optim", "student.noise", "pseudo"} <= set(found)
    bare = [
        f"{name}.{key}" for name, model in found.items() for key, f in model.model_fields.items() if not f.description
    ]
    assert bare == []
    assert [name for name, model in found.items() if not (model.__doc__ or "").strip()] == []


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


def test_defaults_are_valid_and_the_macro_mean_falls_back_on_all_labels() -> None:
    config = load(None)
    assert config == Config()
    assert config.macro_labels() == OBSERVATIONS
    assert load(None, ["evaluation.macro_labels=[Edema]"]).macro_labels() == ("Edema",)


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_file_is_laid_over_the_defaults(write) -> None:
    config = load(write("seed: 7\nteacher: {optim: {lr: 1e-4, steps: 12}}\n"))
    assert config.seed == 7
    assert config.teacher.optim.lr == 1e-4  # PyYAML hands over the text '1e-4'
    assert config.teacher.optim.steps == 12
    assert config.teacher.optim.batch_size == Config().teacher.optim.batch_size
    assert config.student == Config().student


def test_setting_one_key_of_the_student_leaves_its_other_defaults() -> None:
    before, after = Config().student, load(None, ["student.optim.steps=5"]).student
    assert before.pos_weight_cap == after.pos_weight_cap == 1
    assert Config().teacher.pos_weight_cap > 1


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n"])
def test_an_empty_file_is_the_defaults(write, text: str) -> None:
    assert load(write(text)) == Config()


def test_a_missing_file_names_its_neighbour(write, tmp_path: Path) -> None:
    write("")
    error = fails(tmp_path / "confg.yaml")
    assert error.message == f"{tmp_path / 'confg.yaml'}: no such config file"
    assert error.hint == f"Did you mean {tmp_path / 'config.yaml'}?"
    assert "--config" in fails(tmp_path / "other" / "x.yaml").hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "holds a list, not a table of keys"),
        ("just words", "holds a str, not a table of keys"),
        ("a: [", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("data: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("1: x", "1: Keys should be strings"),
    ],
)
def test_a_file_that_is_no_table_of_keys(write, text: str, says: str) -> None:
    path = write(text)
    error = fails(path)
    assert error.message.startswith(f"{path}: ")
    assert says in error.message
    assert "\n" not in error.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read" in fails(tmp_path).message
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xff")
    assert "cannot be read" in fails(tmp_path / "latin.yaml").message


def test_an_unknown_key_names_the_nearest_known_one(write) -> None:
    path = write("teacher:\n  optim: {learning_rate: 1}\nsed: 3\n")
    lines = fails(path).message.splitlines()
    assert f"{path}: unknown key 'sed'; did you mean 'seed'?" in lines
    assert any(line.startswith(f"{path}: unknown key 'teacher.optim.learning_rate'; ") for line in lines)
    assert fails(None, "data.imagesize=3").message.endswith("unknown key 'data.imagesize'; did you mean 'image_size'?")


def test_an_unknown_key_without_a_neighbour_lists_the_known_ones() -> None:
    message = fails(None, "data.columns.zzzz=3").message
    assert message == (
        "the command line: unknown key 'data.columns.zzzz'; known: image, patient, study, split, view, projection, "
        "sex, age, site, date"
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=x", "seed: Input should be a valid integer, unable to parse string as an integer (given: 'x')"),
        ("seed=-1", "seed: Input should be greater than or equal to 0 (given: -1)"),
        ("seed=1.5", "seed: Input should be a valid integer, got a number with a fractional part (given: 1.5)"),
        ("data.channels=2", "data.channels: Input should be 1 or 3 (given: 2)"),
        ("teacher=5", "(given: 5)"),
        ("teacher.optim.lr=.nan", "teacher.optim.lr: Input should be a finite number (given: nan)"),
        ("teacher.optim.lr=.inf", "teacher.optim.lr: Input should be a finite number (given: inf)"),
        ("teacher.optim.steps=0", "teacher.optim: steps: must be above 0"),
        ("data.labels=[]", "data: labels: name at least one label"),
        ("data.labels=[Edema, Edema]", "data: labels: a label is named twice"),
        ("data.labels=[5]", "data.labels.0: Input should be a valid string (given: 5)"),
        ("data.source=chexpert", "data: root: source 'chexpert' needs the folder of the data set; set data.root"),
        ("split.fractions=[0.5, 0.5, 0.5]", "split: fractions: three shares that sum to 1"),
        ("split={labelled_images: 3, labelled_fraction: 0.1}", "split: give only one of labelled_patients"),
        ("evaluation.macro_labels=[Hernia]", "evaluation.macro_labels: 'Hernia' is not in data.labels (No Finding,"),
        ("targets.uncertain_by_label={Hernia: ones}", "targets.uncertain_by_label: 'Hernia' is not in data.labels"),
        ("pseudo.labels={Hernia: false}", "pseudo.labels: 'Hernia' is not in data.labels"),
        ("pseudo.prevalence={Edema: 1}", "pseudo.prevalence.Edema: 1.0 is not between 0 and 1"),
        ("teacher.start=teacher", "teacher.start: generation 0 has no teacher to start from; use 'weights'"),
        ("teacher.members=3", "teacher.members: Input should be a list, such as [A, B] (given: 3)"),
        ("teacher.members=[{}]", "teacher: members: one member is no ensemble; name two or more, or leave members out"),
        ("student.members=[{}, {members: []}]", "student: members.1.members: a member is one network and has no"),
        ("teacher.members=[{}, {model: {nam: x}}]", "unknown key 'teacher.members.1.model.nam'; did you mean 'name'?"),
        (
            "teacher.members=[{}, {start: teacher}]",
            "teacher.members.1.start: generation 0 has no teacher",
        ),
        (
            "generations.2.members=[{}, {optim: {batch_size: 1}}]",
            "generations.2.members.1.optim.batch_size: Input should be",
        ),
        ("generations.2.members=[{}, {optim: {stps: 9}}]", "unknown key 'generations.2.members.1.optim.stps'; did you"),
        ("evaluation.aggregation=frontl", "Input should be 'mean', 'max' or 'frontal'; did you mean 'frontal'?"),
    ],
)
def test_wrong_values_are_named_with_their_key(override: str, says: str) -> None:
    message = fails(None, override).message
    assert message.startswith("the command line: ")
    assert says in message
    assert "\n" not in message


def test_a_student_starts_from_its_teacher_only_with_the_same_network() -> None:
    assert load(None, ["student.start=teacher"]).student.start == "teacher"
    message = fails(None, "student.start=teacher", "student.model.name=resnet18").message
    assert "needs the same network" in message
    assert "generation 0 has another (network small_resnet)" in message


def test_members_lay_their_changes_over_their_phase(write) -> None:
    path = write("teacher: {optim: {steps: 9}, members: [{}, {model: {name: resnet18}, optim: {lr: 1e-4}}]}\n")
    config = load(path)
    first, second = config.networks(0)
    assert first == config.teacher.model_copy(update={"members": ()})
    assert (second.model.name, second.optim.lr, second.optim.steps) == ("resnet18", 1e-4, 9)
    assert config.networks(1) == (config.student,)
    assert load(None, ["folds=3"]).networks(0) == (Config().teacher,) * 3
    assert load(write(to_yaml(config))) == config
    over = load(path, ["generations.0.members=[]"])
    assert over.networks(0) == (over.phase(0),)


def test_members_and_folds_exclude_each_other() -> None:
    message = fails(None, "folds=2", "student.members=[{}, {}]").message
    assert "student.members: a cross-fitted run (folds: 2) has 2 networks in every generation already" in message


@pytest.mark.parametrize(
    ("overrides", "wrong"),
    [
        (["teacher.members=[{}, {model: {name: resnet18}}]"], None),
        (["teacher.members=[{}, {model: {name: resnet18}}]", "student.members=[{}, {}]"], "student.members.1.start"),
        (["teacher.members=[{model: {name: resnet18}}, {}]"], "student.start"),
        (["teacher.members=[{}, {}]", "student.members=[{}, {}, {}]"], None),
        (["teacher.members=[{}, {model: {name: resnet18}}]", "student.start=weights"], None),
        (["student.members=[{}, {model: {name: resnet18}}]"], "student.members.1.start"),
        (["student.members=[{}, {model: {name: resnet18}, start: weights}]"], None),
        (["student.members=[{}, {model: {name: resnet18}, start: weights}]", "generations.2.members=[]"], None),
    ],
)
def test_each_network_starts_from_the_teachers_of_its_number(overrides: list[str], wrong: str | None) -> None:
    if wrong is None:
        assert load(None, overrides).phase(1) is not None
        return
    assert f"{wrong}: 'teacher' needs the same network" in fails(None, *overrides).message


def test_views_are_a_word_or_a_number() -> None:
    assert load(None, ["prediction.tta=4"]).prediction.tta == 4
    assert load(None, ["prediction.tta=flip"]).prediction.tta == "flip"
    assert load(None).prediction.tta == "none"
    words = fails(None, "prediction.tta=mirror").message
    assert "prediction.tta: Input should be 'none' or 'flip' (given: 'mirror')" in words
    assert "constrained" not in words
    assert (
        "prediction.tta: Input should be greater than or equal to 2 (given: 1)"
        in fails(None, "prediction.tta=1").message
    )


# -- noise ---------------------------------------------------------------------------------------------------------


def test_one_key_of_an_operation_leaves_its_other_defaults() -> None:
    default = Config().student.noise.blur
    assert (default.optional, default.probability) == (True, 1.0)
    found = load(None, ["student.noise.blur.range=3", "student.noise.count=4"]).student.noise
    assert (found.blur.range, found.blur.optional, found.blur.probability) == (3.0, True, 1.0)
    assert found.flip.probability == 0.5
    assert found.model_copy(update={"blur": default, "count": 2}) == Config().student.noise


def test_an_unknown_operation_names_the_nearest_known_one() -> None:
    message = fails(None, "student.noise.rotat.range=20").message
    assert message.endswith("unknown key 'student.noise.rotat'; did you mean 'rotate'?")
    message = fails(None, "student.noise.rotate.angle=20").message
    assert message.endswith("unknown key 'student.noise.rotate.angle'; did you mean 'range'?")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("strength=11", "noise.strength: Input should be less than or equal to 10 (given: 11)"),
        ("count=-1", "noise.count: Input should be greater than or equal to 0 (given: -1)"),
        ("rotate.probability=2", "noise.rotate.probability: Input should be less than or equal to 1 (given: 2)"),
        ("rotate.range=181", "noise: rotate.range: 181 is above 180, the most that it can"),
        ("mixup.optional=true", "noise: mixup.optional: mixing takes two films and is no optional operation"),
        ("rotate=20", "noise.rotate: "),
        ("rotate=[]", "noise.rotate: "),
    ],
)
def test_noise_that_cannot_be(override: str, says: str) -> None:
    assert says in fails(None, f"teacher.noise.{override}").message
    assert "noise: Input should be a valid dictionary" in fails(None, "teacher.noise=3").message


def test_a_policy_of_some_operations() -> None:
    noise = NoiseConfig(strength=4).only("blur", "grid", range=0.1)
    used = {name: (op.probability, op.range) for name, op in noise.operations().items() if op.probability}
    assert used == {"blur": (1.0, 0.1), "grid": (1.0, 0.1)}
    assert not any(operation.optional for operation in noise.operations().values())
    assert noise.strength == 4


# -- phases --------------------------------------------------------------------------------------------------------


def test_without_changes_generations_are_teacher_and_students() -> None:
    config = load(None, ["student.noise.strength=8"])
    assert config.phase(0) is config.teacher
    assert config.phase(1) is config.phase(7) is config.student
    assert list(config.phases()) == [0, 1]


def test_a_generation_lays_its_changes_over_its_phase(write) -> None:
    path = write(
        "teacher: {optim: {lr: 1e-4}}\nstudent: {noise: {strength: 6, blur: {range: 3}}}\n"
        "generations:\n  0: {noise: {strength: 2}}\n  2: {noise: {strength: 8, blur: {probability: 0.5}}}\n"
    )
    config = load(path, ["generations.2.optim.steps=9", "generations.3.noise.count=1"])
    assert config.phase(0) == config.teacher.model_copy(
        update={"noise": config.teacher.noise.model_copy(update={"strength": 2.0})}
    )
    second = config.phase(2)
    assert (second.noise.strength, second.noise.blur.range, second.noise.blur.probability) == (8, 3, 0.5)
    assert (second.optim.steps, second.start, second.pos_weight_cap) == (9, "teacher", 1)
    assert config.phase(1) == config.phase(4) == config.student
    assert config.phase(3).noise.count == 1
    assert list(config.phases()) == [0, 1, 2, 3, 4]
    assert load(write(to_yaml(config))) == config
    assert config_hash(load(None, ["generations.2.optim.steps=9"])) != config_hash(Config())


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("generations.2.noise.strenght=8", "unknown key 'generations.2.noise.strenght'; did you mean 'strength'?"),
        ("generations.2.noize.strength=8", "unknown key 'generations.2.noize'; did you mean 'noise'?"),
        ("generations.2.noise.strength=11", "generations.2.noise.strength: Input should be less than or equal to 10"),
        ("generations.-1.noise.strength=8", "greater than or equal to 0 (given: '-1')"),
        ("generations.last.noise.strength=8", "generations.last: Input should be a valid integer"),
        ("generations.2=8", "generations.2: Input should be a valid dictionary (given: 8)"),
        ("generations=8", "generations: Input should be a valid dictionary (given: 8)"),
        ("generations.0.start=teacher", "generations.0.start: generation 0 has no teacher to start from"),
        ("generations.2.model.name=resnet18", "generations.2.start: 'teacher' needs the same network"),
        ("generations.0.model.name=resnet18", "student.start: 'teacher' needs the same network"),
    ],
)
def test_wrong_changes_of_a_generation_are_named(override: str, says: str) -> None:
    assert says in fails(None, override).message


def test_after_a_generation_with_another_network_none_starts_from_its_teacher() -> None:
    given = ["generations.2.model.name=resnet18", "generations.2.start=weights"]
    assert "student.start: 'teacher' needs the same network" in fails(None, *given).message
    assert load(None, [*given, "student.start=weights"]).phase(2).model.name == "resnet18"
    assert load(None, [*given, "generations.3.start=weights", "student.start=weights"]).phase(3).start == "weights"


def test_weights_of_a_student_that_takes_its_teachers_are_refused() -> None:
    """But for those that the teacher starts from: one YAML anchor often serves both."""
    given = ["student.start=teacher", "teacher.model.weights=a.pth"]
    assert load(None, [*given, "student.model.weights=a.pth"]).phase(1).start == "teacher"
    assert "student.model.weights: 'b.pth' does nothing" in fails(None, *given, "student.model.weights=b.pth").message
    other = "generations.2.model.weights=b.pth"
    assert "generations.2.model.weights: 'b.pth' does nothing" in fails(None, *given, other).message
    assert load(None, [*given, other, "generations.2.start=weights", "student.start=weights"]).phase(2).model.weights


def test_all_problems_are_told_at_once() -> None:
    lines = fails(None, "seed=x", "threads=y", "zzz=1").message.splitlines()
    assert len(lines) == 3


# -- overrides -----------------------------------------------------------------------------------------------------


def test_overrides_win_over_the_file_and_later_ones_over_earlier(write) -> None:
    path = write("seed: 1\nteacher: {optim: {steps: 10}}\n")
    config = load(path, ["seed=2", "teacher.optim.lr=1e-4", "seed=3"])
    assert (config.seed, config.teacher.optim.steps, config.teacher.optim.lr) == (3, 10, 1e-4)


def test_an_override_of_the_student_spares_a_teacher_that_shares_its_section(write) -> None:
    path = write("teacher:\n  model: &model {dropout: 0.1}\nstudent:\n  model: *model\n")
    config = load(path, ["student.model.dropout=0.5"])
    assert (config.teacher.model.dropout, config.student.model.dropout) == (0.1, 0.5)


def test_a_value_may_hold_an_equals_sign_and_be_empty() -> None:
    config = load(None, ["data.csv=a=b.csv", "data.root=", "data.columns.split=null"])
    assert (config.data.csv, config.data.root, config.data.columns.split) == ("a=b.csv", None, None)


def test_words_that_yaml_takes_for_something_else_stay_words() -> None:
    given = ["data.root=2024", "data.cache_dir=2024-01-31", "data.csv=no", "data.columns.study=on", "data.source=csv"]
    data = load(None, given).data
    assert (data.root, data.cache_dir, data.csv, data.columns.study) == (Path("2024"), Path("2024-01-31"), "no", "on")


def test_a_number_where_text_is_wanted_does_not_hide_another_error() -> None:
    assert "unknown key 'sed'" in fails(None, "data.root=2024", "sed=1").message


@pytest.mark.parametrize("override", ["seed", "=3", " =3"])
def test_an_override_needs_a_key_and_a_value(override: str) -> None:
    assert fails(None, override).message == f"--set {override}: is not of the form a.b=value"


def test_an_override_cannot_go_below_a_value() -> None:
    assert fails(None, "seed=1", "seed.x=2").message == "--set seed.x: 'seed' is a value, not a section"


def test_an_override_that_is_no_yaml_should_be_quoted() -> None:
    error = fails(None, "data.csv=[")
    assert error.message == "--set data.csv=[: the value is not valid YAML"
    assert error.hint == "Quote it."


# -- snapshot and hash ---------------------------------------------------------------------------------------------


def test_yaml_and_json_snapshots_give_the_same_configuration_back(tmp_path: Path, write) -> None:
    config = load(
        None,
        ["data.root=/data/ä", "data.source=csv", "data.csv=on", "teacher.optim.lr=1e-5", "pseudo.prevalence.Edema=0.3"],
    )
    assert load(write(to_yaml(config))) == config
    write_json(tmp_path / "config.resolved.json", resolved(config))
    assert read_snapshot(tmp_path / "config.resolved.json") == config
    assert list(yaml.safe_load(to_yaml(config))) == list(Config.model_fields)


def test_a_snapshot_of_another_version_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "config.resolved.json"
    write_json(path, resolved(Config()) | {"colour": 1})
    with pytest.raises(ConfigError, match=rf"{path}: unknown key 'colour'"):
        read_snapshot(path)


def leaves(tree: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_key_but_the_places_is_in_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before, silent = config_hash(Config()), set()
    for key, _ in leaves(resolved(Config())):
        tree = json.loads(json.dumps(resolved(Config())))
        section = tree
        *path, last = key.split(".")
        for part in path:
            section = section[part]
        section[last] = "another value"
        with monkeypatch.context() as patch:
            patch.setattr(config_load, "resolved", lambda _, tree=tree: tree)
            if config_hash(Config()) == before:
                silent.add(key)
    assert silent == {"data.root", "data.cache_dir"}


def test_the_hash_is_short_and_does_not_depend_on_how_the_configuration_was_given(write) -> None:
    assert len(config_hash(Config())) == 16
    assert config_hash(load(write("threads: 0\nseed: 4\n"))) == config_hash(load(None, ["seed=4"]))


def test_check_same_lists_what_differs(tmp_path: Path) -> None:
    stored = load(None, ["data.root=/old", "pseudo.prevalence={Edema: 0.2}"])
    check_same(stored, load(None, ["data.root=/new", "pseudo.prevalence={Edema: 0.2}", "data.cache_dir=/c"]), tmp_path)
    with pytest.raises(ConfigError) as caught:
        check_same(stored, load(None, ["seed=3"]), tmp_path)
    assert caught.value.message.splitlines() == [
        f"{tmp_path}: was made by another configuration",
        "  pseudo.prevalence: None there, {} now",
        "  pseudo.prevalence.Edema: 0.2 there, None now",
        "  seed: 0 there, 3 now",
    ]
    assert "--overwrite" in caught.value.hint


def test_relocate_changes_places_and_nothing_else() -> None:
    stored = load(None, ["data.root=/old", "seed=3"])
    moved = relocate(stored, ["data.root=2024", "data.cache_dir=/cache"])
    assert (moved.data.root, moved.data.cache_dir, moved.seed) == (Path("2024"), Path("/cache"), 3)
    assert config_hash(moved) == config_hash(stored)
    assert relocate(stored, []) == stored
    with pytest.raises(ConfigError, match="--set seed=4: the configuration of a run is fixed") as caught:
        relocate(stored, ["seed=4"])
    assert caught.value.hint == "Only data.root and data.cache_dir can change."


def test_resolved_values_are_plain_json() -> None:
    tree = resolved(load(None, ["data.root=/films"]))
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree


# -- keys given twice ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("seed: 1\nthreads: 1\nseed: 2\n", "seed", "1 and 3"),
        ("teacher:\n  optim: {lr: 1e-3, steps: 12,\n    lr: 1e-4}\n", "teacher.optim.lr", "2 and 3"),
        ("teacher: {optim: {steps: 12}}\nteacher: {optim: {lr: 1e-4}}\n", "teacher", "1 and 2"),
        ("student: &a\n  start: weights\n  start: teacher\nteacher: *a\n", "student.start", "2 and 3"),
        ("generations:\n  2: {start: weights}\n  2: {start: teacher}\n", "generations.2", "2 and 3"),
        ("data:\n  labels: [{A: 1, A: 2}]\n", "data.labels.A", "2 and 2"),
    ],
)
def test_a_key_given_twice_is_refused(write, text: str, key: str, lines: str) -> None:
    path = write(text)
    error = fails(path)
    assert error.message == f"{path}: key '{key}' is given twice (lines {lines})"
    assert error.hint


def test_a_key_given_twice_on_the_command_line_is_refused() -> None:
    error = fails(None, "split={labelled_patients: 3, labelled_patients: 4}")
    assert error.message.startswith("--set split={labelled_patients: 3, labelled_patients: 4}: key 'labelled_patients'")
    assert load(None, ["seed=3", "seed=4"]).seed == 4  # later words of the command line overrule earlier ones


def test_anchors_and_merge_keys_may_be_overruled(write) -> None:
    config = load(
        write(
            "teacher: &base\n  noise: &noise {strength: 2, count: 1}\n  optim: {steps: 12}\n"
            "student:\n  <<: *base\n  noise: {<<: *noise, strength: 5}\n  optim: {<<: {steps: 14}, lr: 1e-4}\n"
        )
    )
    assert (config.teacher.noise.strength, config.student.noise.strength) == (2, 5)
    assert config.student.noise.count == 1
    assert (config.teacher.optim.steps, config.student.optim.steps) == (12, 14)
    assert load(write("# nothing\n")) == Config()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.window=[1]", "data.window: The list has too few values (given: [1])"),
        ("data.window=[]", "data.window: The list has too few values (given: [])"),
        ("split.fractions=[0.5, 0.5]", "split.fractions: The list has too few values (given: [0.5, 0.5])"),
    ],
)
def test_a_list_that_is_too_short_is_said_once(override: str, words: str) -> None:
    assert fails(None, override).message == f"the command line: {words}"
