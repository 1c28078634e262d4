from __future__ import annotations

import pytest

from noisy_student.config import PseudoConfig
from noisy_student.reporting import learned, words


@pytest.mark.parametrize(
    ("value", "ci", "text"),
    [
        (0.9124, (0.8871, 0.9339), "0.912 (0.887–0.934)"),
        (0.5, None, "0.500"),
        (None, None, "–"),
        (0.01, (-0.0201, 0.04), "0.010 (−0.020 to 0.040)"),
    ],
)
def test_interval(value, ci, text):
    assert words.interval(value, ci) == text


@pytest.mark.parametrize(
    ("value", "ci", "text"),
    [
        (0.0124, (-0.003, 0.0271), "+0.012 (−0.003 to +0.027)"),
        (-0.5, None, "−0.500"),
        (-0.0001, None, "0.000"),
        (None, None, "–"),
    ],
)
def test_signed(value, ci, text):
    assert words.signed(value, ci) == text


def test_counts_and_shares():
    assert [words.count(v) for v in (5232, 12.5, 12.001, None)] == ["5,232", "12.5", "12", "–"]
    assert [words.plural(n, w) for n, w in ((1, "film"), (1200, "film"), (2, "study"))] == [
        "1 film",
        "1,200 films",
        "2 studies",
    ]
    assert words.percent(0.95).replace("\N{NO-BREAK SPACE}", " ") == "95 %"
    assert words.percent(0.975).startswith("97.5")
    assert [words.listed(x) for x in ([1], [1, 2], [1, 2, 3])] == ["1", "1 and 2", "1, 2 and 3"]


def paired(difference, ci, reason=None):
    macro = {"difference": difference, "ci": ci, "reason": reason}
    return {"index": 2, "paired": {"against": 1, "split": "test", "macro": macro}}


def test_paired_sentence_says_whether_zero_is_inside():
    assert "leaves out zero" in words.on_test(paired(0.02, [0.001, 0.04]), "image")
    assert "leaves out zero" in words.on_test(paired(-0.02, [-0.04, -0.001]), "image")
    assert "includes zero" in words.on_test(paired(0.02, [-0.001, 0.04]), "image")
    assert "same test studies" in words.on_test(paired(0.02, None), "study")
    assert "undefined: one patient" in words.on_test(paired(None, None, "one patient"), "image")
    assert words.on_test({"paired": None}, "image") == ""


@pytest.mark.parametrize(
    ("verdict", "lead"),
    [
        ("better", "Yes. S."),
        ("worse", "No. S."),
        ("undecided", "Undecided. S."),
        ("first", "This is the first"),
        (None, "This has not"),
    ],
)
def test_better_than_last(verdict, lead):
    entry = {"verdict": verdict, "paired": None, "promotion": {"sentence": "S."}}
    assert words.better_than_last(entry, "image").startswith(lead)


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ({"reason": "one film"}, "one film"),
        ({"positives": 0, "negatives": 5}, "no positives"),
        ({"positives": 5, "negatives": 0}, "no negatives"),
        ({}, "no reason on record"),
    ],
)
def test_reason_of_an_undefined_cell(cell, why):
    assert words.left_undefined(cell) == why


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, ""),
        ({"folds": 1}, ""),
        ({"folds": 3, "teacher": {"refit": None}}, "by networks that have not learned from it."),
        (
            {"folds": 3, "teacher": {"refit": {}}},
            "by networks of the folds that have not learned from it, not by the one that",
        ),
    ],
)
def test_the_reader_is_told_whose_the_figures_on_validation_are(config, said):
    text = learned.judges({"config": config})
    assert (said in text) if said else text == ""


def test_what_it_was_trained_on_names_the_whole_label_budget():
    report = {
        "budget": {
            "images": 70, "patients": 35, "labelled_images": 40, "labelled_patients": 20, "valid_images": 30,
            "valid_patients": 15,
        },
        "split": {"counts": {"pool": {"images": 900, "patients": 1}}},
        "generations": [{"index": index, "role": role, "model": {"networks": 1}}
                        for index, role in enumerate(("teacher", "student"))],
        "config": {},
    }  # fmt: skip
    text = learned.trained_on(report)
    for part in ("40 films of 20 patients", "Generation 1 also", "900 films of 1 patient ", "70 films of 35 patients"):
        assert part in text
    assert "networks" not in text
    report["generations"] = report["generations"][:1]
    assert "900" not in learned.trained_on(report)
    report["config"]["folds"] = 4
    assert "the mean of 4 networks, each trained without a part of all these labelled patients" in learned.trained_on(
        report
    )
    report["config"]["teacher"] = {"refit": {}}
    text = learned.trained_on(report)
    assert "Every generation is one network that learned from all these labelled patients. 4 others" in text
    assert "the mean of" not in text
    assert ", and decided whether it teaches." in text
    report["generations"].append({"index": 1, "role": "student", "model": {"networks": 1}})
    report["config"] |= {"generations": {"1": {"judges": "stay"}}, "promotion": {"rule": "always"}}
    assert "; they are the same in every generation." in learned.trained_on(report)
    report["config"] |= {"generations": {"1": {"judges": "learn"}}, "student": {"judges": "stay"}}
    assert "gave its calibration and thresholds." in learned.trained_on(report)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "probabilities, their mean moved to the expected prevalence, become soft targets for the films without "
         "labels. The least certain weigh least."),
        ({"align": False, "temperature": 0.5, "weight": "right"},
         "probabilities become sharpened targets for the films without labels. Each weighs the probability that"),
        ({"temperature": 2}, "become flattened targets for"),
        ({"hard": True, "weight_power": 0},
         "targets of 0 and 1 for the films without labels: cut at one half. All weigh alike."),
        ({"hard": True, "weight_power": 0, "select": {"rule": "prevalence"}, "loss_weight": 0.1},
         "labels: of each label the most probable films are positive, as many as the expected prevalence says. "
         "All weigh alike, 0.1 of what a label weighs."),
        ({"hard": True, "select": {"rule": "f1"}, "weight": "resolution", "loss_weight": 0.5},
         "labels: cut where F1 is best on the judging films. Those of a finding weigh more, the better the teacher "
         "tells it from its prevalence, at most 0.5 of what a label weighs."),
        ({"select": {"rule": "fixed", "confidence": 0.95, "negatives": False}},
         "labels: from 0.95 on and up to 0.05, and what lies between is left out; likely negatives are left out."),
        ({"select": {"rule": "two_sided", "precision": 0.9}, "weight": "right"},
         "90\N{NO-BREAK SPACE}% of the judging films are as they say, and what lies between is left out."),
        ({"pool_share": [0.5, 1.0]}, "labels: of either side only the most confident are taken."),
    ],
)  # fmt: skip
def test_the_reader_is_told_what_pseudo_labels_this_run_has(settings, said):
    known = PseudoConfig.model_validate(settings).model_dump(mode="json")  # as a resolved configuration has it
    text = learned.pseudo_labels({"config": {"pseudo": known}})
    assert said in text
    assert "figures are means" not in text
    assert text == learned.pseudo_labels({"config": {"pseudo": settings}})  # an earlier version's has fewer keys


def test_each_network_of_folds_has_pseudo_labels_of_its_own_unless_one_speaks():
    assert "had not seen the same labelled patients" in learned.pseudo_labels({"config": {"folds": 3}})
    assert "had not seen" not in learned.pseudo_labels({"config": {"folds": 3, "teacher": {"refit": {}}}})


def test_a_threshold_is_said_where_it_is_on_record():
    assert words.called_positive(0.1243) == "called positive from 0.124 on"
    assert words.called_positive(0.0) == "called positive from 0.000 on"
    assert words.called_positive(None) == ""


def test_thresholds_of_a_gallery_are_of_films_where_the_tables_are_of_studies():
    films = [{"threshold": 0.2, "chosen_on": "validation"}]
    assert "of films, as the tables by study" in words.gallery_thresholds(films, "study")
    assert words.gallery_thresholds(films, "image").endswith("chosen on validation, as in the tables.")


def test_a_sentence_of_the_comparison_is_said_and_the_first_generation_is_compared_too():
    entry = paired(0.02, [0.001, 0.04])
    entry["paired"]["macro"]["sentence"] = "better"
    told = "cannot be told apart with 60 patients; a difference of 0.010 would need about 900 patients"
    first = {"difference": 0.01, "ci": [-0.01, 0.03], "reason": None, "sentence": told}
    entry["paired_first"] = {"against": 0, "split": "test", "macro": first}
    text = words.on_test(entry, "image")
    said = "On the same test films, generation 2 against generation 1: better; macro AUROC +0.020 (+0.001 to +0.040)."
    assert text.startswith(f"{said} On the same")
    assert text.endswith(f"against generation 0: {told}; macro AUROC +0.010 (−0.010 to +0.030).")
    assert "zero" not in text


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # A one-sided bound above 0 in a two-sided interval that holds 0.
        ((0.011, 0.002, 0.02, (-0.001, 0.023)), "+0.011 (at least +0.002 with 90 % confidence)"),
        ((-0.012, -0.018, -0.006, None), "−0.012 (at most −0.006 with 90 % confidence)"),
        ((0.004, -0.015, 0.024, None), "+0.004 (at least −0.015 and at most +0.024, each with 90 % confidence)"),
        ((0.004, 0.0002, 0.024, None), "+0.004 (at least +0.0002 with 90 % confidence)"),
        ((0.0, 0.0, 0.0, None), "0.000 (at least 0.000 and at most 0.000, each with 90 % confidence)"),
        ((0.004, None, None, None), "+0.004"),
        ((0.004, None, None, (-0.01, 0.02)), "+0.004 (−0.010 to +0.020)"),  # by an earlier version
    ],
)
def test_a_decision_is_shown_with_the_bounds_that_decide(found, expected):
    score = dict(zip(("difference", "lower", "upper", "ci"), found, strict=True))
    assert words.bounded(score, 0.9).replace("\N{NO-BREAK SPACE}", " ") == expected
    assert "confidence" not in words.bounded(score, None)


@pytest.mark.parametrize(
    ("ci", "reason", "first", "last"),
    [
        ((0.61, 0.7), None, "Better than guessing. Generation 2 reaches", "interval in brackets."),
        ((0.5, 0.7), None, "No better than guessing, as far as can be told: the interval holds 0.5.", "in brackets."),
        ((0.3, 0.45), None, "Worse than guessing: the interval lies below 0.5,", "in brackets."),
        (None, "no interval: only 1 patient with A", "Generation 2 reaches", "no interval: only 1 patient with A."),
        (None, None, "Generation 2 reaches", "without interval."),
        ((1.0, 1.0), None, "Generation 2 reaches", "interval in brackets."),
    ],
)
def test_how_good_starts_with_the_answer(ci, reason, first, last):
    macro = {"auroc": 0.65, "ci": ci, "reason": reason, "labels": ["A"]}
    entry = {"index": 2, "test": {"n": 9, "patients": 8, "macro": macro, "labels": {"A": {}}}}
    text = words.how_good({"level": "image", "confidence": 0.95}, entry)
    assert text.startswith(first)
    assert text.split(" It is the mean over")[0].endswith(last)


def test_resamples_without_a_class_name_the_labels_at_fault():
    macro = {"ci": [0.6, 0.7], "undefined_replicates": 0.0214, "undefined_labels": ["Lung Lesion", "Fracture"]}
    text = words.resamples(macro).replace("\N{NO-BREAK SPACE}", " ")
    assert "2.1 % lack positives or negatives of Lung Lesion and Fracture; the macro interval leaves them out." in text
    assert "by an earlier version, has the mean over the other labels" in words.resamples(
        macro | {"undefined_labels": None}
    )
    assert "less than 0.1" in words.resamples(macro | {"undefined_replicates": 0.0001})
    for nothing in ({"undefined_replicates": 0.0}, {"undefined_replicates": None}, {"ci": None}):
        assert words.resamples(macro | nothing) == ""


@pytest.mark.parametrize(
    ("positives", "negatives", "said"), [(29, 90, "few positives"), (30, 90, ""), (90, 3, "few negatives"), (0, 90, "")]
)
def test_rare_labels(positives, negatives, said):
    assert words.rare({"positives": positives, "negatives": negatives}) == said


def test_gap_between_groups_does_not_read_as_a_test():
    found = {"difference": 0.02, "ci": [0.01, 0.03], "between": ["F", "M"], "reason": None}
    told = "differ by +0.020 (+0.010 to +0.030) in macro AUROC; some gap is expected by chance, and this is no test."
    assert words.gap(found, 4) == f"The two furthest apart of 4 groups, F and M, {told}"
    assert words.gap(found, 2) == f"The two groups, F and M, {told}"
    assert "zero" not in words.gap(found | {"ci": [-0.01, 0.03]}, 4)
    assert "(no interval: few); some gap is expected" in words.gap(found | {"ci": None, "reason": "few"}, 3)
    assert words.gap({"difference": None, "reason": "one group"}, 1) == "No gap can be given: one group."
    assert words.gap(None, 0) == ""


@pytest.mark.parametrize(
    ("targets", "uncertain", "blank"),
    [
        ({"uncertain": "ones", "blank": "zeros"}, "positive", "negative"),
        ({"uncertain": "ones", "uncertain_by_label": {"A": "zeros"}, "blank": "ignore"}, "negative", "no target"),
        ({"uncertain": "smooth_ones", "smooth_ones": [0.5, 0.8], "blank": "zeros", "blank_weight": 0.3},
         "a number from 0.5 to 0.8", "negative, with weight 0.3"),
        ({"uncertain": "literature"}, "positive for Atelectasis and Edema, else negative", "negative"),
        ({"uncertain": "ignore"}, "no target", "negative"),
        ({"uncertain": "selftrained"}, "no target for the first teacher, then the teacher's probability", "negative"),
    ],
)  # fmt: skip
def test_policies_in_words(targets, uncertain, blank):
    assert words.uncertain_policy("A", targets) == uncertain
    assert words.blank_policy(targets) == blank


def test_commands_quote_the_name_of_the_run():
    report = {"title": "a run; rm x", "generations": [{"index": 0}, {"index": 3}]}
    assert words.commands(report) == [
        "ns iterate --config 'a run; rm x'/config.yaml --rounds 3 --output 'a run; rm x-again'",
        "ns report 'a run; rm x'",
    ]


def test_limits_name_what_is_rare_small_or_undefined():
    cells = {
        "A": {"auroc": 0.8, "positives": 12},
        "B": {"auroc": None, "positives": 0},
        "C": {"auroc": 0.9, "positives": 80},
    }
    groups = [{"group": "F", "small": True}, {"group": "M", "small": False}]
    entry = {"test": {"patients": 100, "labels": cells}, "subgroups": {"columns": {"sex": {"groups": groups}}}}
    report = {"config": {"data": {"source": "csv"}}, "budget": {"patients": 30, "valid_patients": 10}}
    text = " ".join(words.limits(report, entry))
    for part in ("Nothing can be said of B: it has no AUROC", "Fewer than 30 positives in the test set: A.",
                 "Small groups, too few to judge: sex F.", "rest on 10 validation patients"):  # fmt: skip
        assert part in text
    assert "drawn by a program" not in text
    report["config"] = {"data": {"source": "synthetic"}, "folds": 3}
    text = " ".join(words.limits(report, entry | {"subgroups": None}))
    assert "drawn by a program" in text
    assert "rest on 30 labelled patients" in text
    assert "No subgroup was measured" in text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("true positive", "true positive, probability 0.700"),
        ("most uncertain", "most uncertain, probability 0.700, labelled negative"),
        ("biggest change", "biggest change, probability 0.700 after 0.100, labelled negative"),
    ],
)
def test_answer_on_a_film(kind, said):
    assert words.answer({"kind": kind, "probability": 0.7, "before": 0.1, "truth": 0}) == said
