"""Joining any table of scores to any table of truth: keys, labels, patients, and clear errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noisy_student.data import score_joins, score_tables
from noisy_student.data.score_joins import Joined
from noisy_student.errors import DataError

LABELS = ["Edema", "Pleural Effusion"]


def write(path: Path, **columns: Any) -> Path:
    pd.DataFrame({name.replace("__", " "): values for name, values in columns.items()}).to_csv(path, index=False)
    return path


def joined(folder: Path, truth: dict[str, Any], *scores: dict[str, Any]) -> Joined:
    first = score_tables.read(write(folder / "truth.csv", **truth))
    models = [score_tables.read(write(folder / f"scores{k}.csv", **one)) for k, one in enumerate(scores)]
    return score_joins.join(first, models)


def complaint(folder: Path, truth: dict[str, Any], *scores: dict[str, Any]) -> DataError:
    with pytest.raises(DataError) as caught:
        joined(folder, truth, *scores)
    assert caught.value.hint
    assert caught.value.exit_code == 3
    return caught.value


def test_rows_are_joined_by_name_and_labels_whatever_their_order(tmp_path: Path) -> None:
    found = joined(
        tmp_path,
        {"Path": ["a.png", "b.png", "c.png"], "Edema": [1, 0, -1], "Pleural Effusion": [0, "", 1], "Hernia": [0, 0, 0]},
        {"effusion": [0.3, 0.1, 0.2], "PATH": ["c.png", "a.png", "b.png"], "edema": [0.6, 0.4, 0.5], "Mass": 0.1},
    )
    assert found.labels == ("Edema", "Pleural Effusion")
    np.testing.assert_array_equal(found.truth, [[1, 0], [0, np.nan], [np.nan, 1]])
    np.testing.assert_array_equal(found.scores[0], [[0.4, 0.1], [0.5, 0.2], [0.6, 0.3]])
    assert (found.unit, found.joined_on, found.clusters) == ("image", "column 'Path'", "rows")
    assert (found.only_truth, found.only_scores) == (("Hernia",), ("Mass",))
    assert found.patients.tolist() == [0, 1, 2]


def test_chexpert_paths_lose_their_root_and_tell_the_patient(tmp_path: Path) -> None:
    films = [f"test/patient{number}/study{study}/view1_frontal.jpg" for number, study in ((7, 1), (7, 2), (8, 1))]
    found = joined(
        tmp_path,
        {"Path": [f"CheXpert-v1.0-small/{film}" for film in films], "Edema": [1, 0, 1]},
        {"Path": [f"/data/CheXpert-v1.0\\{film}" for film in films[::-1]], "Edema": [0.1, 0.2, 0.3]},
    )
    assert found.scores[0][:, 0].tolist() == [0.3, 0.2, 0.1]
    assert found.patients.tolist() == [0, 0, 1]
    assert found.clusters == "the paths"


@pytest.mark.parametrize("key", ["Path", "Study"])
@pytest.mark.parametrize("tail", ["", "/"])
def test_truth_per_study_takes_the_mean_over_the_studys_films(tmp_path: Path, key: str, tail: str) -> None:
    found = joined(
        tmp_path,
        {key: [f"CheXpert-v1.0/test/patient{n}/study1{tail}" for n in (64741, 64742)], "Edema": [1, 0]},
        {
            "Path": [f"test/patient{n}/study1/view{v}.jpg" for n, v in ((64742, 1), (64741, 1), (64741, 2))],
            "Edema": [0.9, 0.2, 0.4],
        },
    )
    assert found.unit == "study"
    np.testing.assert_allclose(found.scores[0], [[0.3], [0.9]])
    assert found.patients.tolist() == [1, 0] or found.patients.tolist() == [0, 1]


def test_scores_per_study_meet_truth_per_film_where_the_films_agree(tmp_path: Path) -> None:
    studies = ["test/patient1/study1", "test/patient1/study2"]
    found = joined(
        tmp_path,
        {"Path": [f"{study}/view{v}.jpg" for study in studies for v in (1, 2)], "Edema": [1, 1, 0, 1]},
        {"Study": studies[::-1], "Edema": [0.4, 0.7]},
        {"Path": [f"{study}/view{v}.jpg" for study in studies for v in (1, 2)], "Edema": [0.1, 0.3, 0.5, 0.5]},
    )
    np.testing.assert_array_equal(found.truth, [[1], [np.nan]])
    np.testing.assert_allclose(found.scores[0], [[0.7], [0.4]])
    np.testing.assert_allclose(found.scores[1], [[0.2], [0.5]])


def test_a_study_column_joins_what_paths_do_not(tmp_path: Path) -> None:
    found = joined(
        tmp_path,
        {"study_id": ["s1", "s2"], "subject_id": ["p1", "p1"], "Edema": [1, 0]},
        {"image": ["x.png", "y.png", "z.png"], "study_id": ["s1", "s1", "s2"], "Edema": [0.2, 0.4, 0.6]},
    )
    np.testing.assert_allclose(found.scores[0], [[0.3], [0.6]])
    assert (found.unit, found.clusters, found.patients.tolist()) == ("study", "column 'subject_id'", [0, 0])


def test_films_are_joined_as_films_where_both_tables_name_them(tmp_path: Path) -> None:
    columns = {"image": ["x.png", "y.png"], "study": ["s", "s"]}
    found = joined(tmp_path, columns | {"Edema": [1, 0]}, columns | {"Edema": [0.2, 0.4]})
    assert (found.unit, found.scores[0][:, 0].tolist()) == ("image", [0.2, 0.4])


def test_a_column_of_patients_goes_before_the_paths_whichever_table_has_it(tmp_path: Path) -> None:
    films = [f"test/patient{n}/study1/view1_frontal.jpg" for n in (1, 2, 3)]
    found = joined(
        tmp_path,
        {"Path": films, "Edema": [1, 0, 1]},
        {"Path": films, "Patient ID": ["u", "v", "u"], "Edema": [0.1, 0.2, 0.3]},
    )
    assert found.clusters == "column 'Patient ID'"
    assert found.patients[0] == found.patients[2] != found.patients[1]


def test_rows_of_scores_without_truth_are_left_out_and_counted(tmp_path: Path) -> None:
    found = joined(
        tmp_path,
        {"image": ["a", "b"], "Sex": ["F", "M"], "Age": [50, 60], "Edema": [1, 0]},
        {"image": ["a", "b", "c"], "Age": [50, 60, 70], "Edema": [0.1, 0.2, ""]},
    )
    assert found.surplus == 1
    assert (found.labels, found.only_truth, found.only_scores) == (("Edema",), (), ())


def test_errors_name_file_line_and_fix(tmp_path: Path) -> None:
    truth: dict[str, Any] = {"Path": ["a", "b", "c"], "Edema": [1, 0, 1]}
    scores: dict[str, Any] = {"Path": ["a", "b", "c"], "Edema": [0.1, 0.2, 0.3]}
    place = str(tmp_path / "truth.csv")
    twice = complaint(tmp_path, truth | {"Path": ["a", "b", "a"]}, scores)
    assert twice.message == f"{place}, line 4: column 'Path' has a film twice (1 rows too many)"
    assert (
        "scores0.csv, line 3: column 'Path' has a film twice"
        in complaint(tmp_path, truth, scores | {"Path": "a"}).message
    )
    lacking = complaint(tmp_path, truth, scores | {"Path": ["a", "x", "y"]})
    assert "has no row for 2 of 3 films" in lacking.message
    assert f"the first: {place}, line 3" in lacking.message
    nothing = complaint(tmp_path, truth, scores | {"Path": ["x", "y", "z"]})
    assert "none of their films in common" in nothing.message
    assert f"column 'Path' of {tmp_path / 'scores0.csv'} (such as x) and column 'Path' of {place} (such as a)" in str(
        nothing.hint
    )
    assert "no label in common" in complaint(tmp_path, truth, {"Path": ["a"], "Mass": [0.1]}).message
    blank = complaint(tmp_path, truth, scores | {"Edema": [0.1, "", 0.3]})
    assert "line 3: column 'Edema' is blank, and a score is a finite number (1 such rows)" in blank.message
    high = complaint(tmp_path, truth | {"Mass": 0}, {"Mass": 0.5} | scores | {"Edema": [0.1, "high", 0.3]})
    assert "scores0.csv, line 3: column 'Edema' is 'high', and a score is a finite number" in high.message
    odd = complaint(tmp_path, truth | {"Edema": [1, 0, 2]}, scores)
    assert f"{place}, line 4: column 'Edema' is '2', which is neither 1, 0, -1 nor blank" in odd.message
    same = complaint(tmp_path, truth | {"Oedema": 0}, scores)
    assert "columns 'Edema' and 'Oedema' mean the same label" in same.message
    assert "no column names films or studies" in complaint(tmp_path, {"Edema": [1]}, scores).message
    mixed = ["test/patient1/study1", "test/patient1/study2/view1_frontal.jpg"]
    assert "other rows name films" in complaint(tmp_path, {"Path": mixed, "Edema": [1, 0]}, scores).message
    apart = complaint(tmp_path, {"Study": ["s1", "s2"], "Edema": [1, 0]}, scores)
    assert "scores0.csv: column 'Path' does not tell the studies" in apart.message
    owners = {"Study": ["s", "s"], "image": ["a", "b"], "patient": ["p", "q"], "Edema": [1, 1]}
    assert "two patients" in complaint(tmp_path, owners, {"Study": ["s"], "Edema": [0.2]}).message


def test_a_missing_or_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        score_tables.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="has no rows"):
        score_tables.read(write(tmp_path / "empty.csv", Path=[], Edema=[]))


def test_what_is_found_never_names_a_patient(tmp_path: Path) -> None:
    films = [f"test/patient{n}/study1/view1_frontal.jpg" for n in (64741, 64742)]
    for scores in ({"Path": films[:1], "Edema": [0.1]}, {"Path": films * 2, "Edema": 0.1}):
        found = complaint(tmp_path, {"Path": films, "Edema": [1, 0]}, scores)
        assert "6474" not in f"{found.message}{found.hint}"


def test_messages_name_the_column_that_joins(tmp_path: Path) -> None:
    # As MIMIC-CXR-JPG's tables: films and studies, each in a column of its own.
    truth = {"study_id": ["50", "51"], "subject_id": ["1", "2"], "Edema": [1, 0]}
    scores = {"dicom_id": ["02aa", "174f", "2a2b"], "study_id": ["50", "50", "51"], "Edema": [0.1, 0.2, 0.3]}
    assert joined(tmp_path, truth, scores).joined_on == "column 'study_id'"
    apart = complaint(tmp_path, truth, scores | {"study_id": ["s50", "s50", "s51"]})
    assert "column 'study_id' of" in str(apart.hint)
    assert "dicom_id" not in str(apart.hint)
    films = {"dicom_id": ["x", "y"], "study_id": ["50", "51"], "Edema": [1, 0]}
    assert joined(tmp_path, films, films).joined_on == "column 'dicom_id'"


def test_films_are_matched_by_the_column_that_tables_share(tmp_path: Path) -> None:
    both = {"Path": ["f1/a.png", "f2/b.png"], "image": ["a", "b"]}
    for truth, scores in ((both, {"image": ["b", "a"]}), ({"image": ["a", "b"]}, both), (both, both)):
        found = joined(tmp_path, truth | {"Edema": [1, 0]}, scores | {"Edema": [0.1, 0.2]})
        assert len(found.truth) == 2
        assert found.joined_on == ("column 'Path'" if truth is scores else "column 'image'")
    paths = joined(tmp_path, both | {"Edema": [1, 0]}, {"image": ["f2/b.png", "f1/a.png"], "Edema": [0.1, 0.2]})
    assert paths.scores[0][:, 0].tolist() == [0.2, 0.1]  # an image column that holds paths


def test_a_row_that_is_unlike_the_others_is_named_where_it_keeps_tables_apart(tmp_path: Path) -> None:
    studies = [f"test/patient{n}/study1" for n in (64741, 64742, 64743)]
    truth = {"Study": [*studies[:2], "patient64743-1"], "Edema": [1, 0, 1]}
    scores = {"Study": [f"CheXpert-v1.0/{study}" for study in studies], "Edema": [0.1, 0.2, 0.3]}
    apart = complaint(tmp_path, truth, scores)
    assert f"{tmp_path / 'truth.csv'}, line 4: column 'Study' is not of the form of others" in str(apart.hint)
    assert "such as test/patient#####/study#" in str(apart.hint)
    assert "6474" not in f"{apart.message}{apart.hint}"
    films = {"Path": [*(f"{study}/view1.jpg" for study in studies[:2]), "odd.jpg"], "Edema": [0.1, 0.2, 0.3]}
    assert "scores0.csv, line 4: column 'Path' is not of the form" in str(
        complaint(tmp_path, {"Study": studies, "Edema": [1, 0, 1]}, films).hint
    )


def test_blanks_around_names_are_no_part_of_them(tmp_path: Path) -> None:
    found = joined(tmp_path, {"image": ["a", "b"], " Edema": [1, 0]}, {"image": ["a", "b"], "Edema ": [0.1, 0.2]})
    assert found.labels == ("Edema",)
    twice = complaint(tmp_path, {"image": ["a"], " Edema": [1], "Edema": [1]}, {"image": ["a"], "Edema": [0.1]})
    assert "two columns 'Edema'" in twice.message


def test_blanks_of_truth_are_unknown_unless_they_count_as_negative(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", image=["a", "b", "c", "d"], Edema=[1, "", -1, 0.7])
    write(tmp_path / "s.csv", image=["a", "b", "c", "d"], Edema=[0.1, 0.2, 0.3, 0.4])
    truth, scores = score_tables.read(tmp_path / "t.csv"), score_tables.read(tmp_path / "s.csv")
    np.testing.assert_array_equal(score_joins.join(truth, [scores]).truth[:, 0], [1, np.nan, np.nan, np.nan])
    zeros = score_joins.join(truth, [scores], blank="zeros")
    np.testing.assert_array_equal(zeros.truth[:, 0], [1, 0, np.nan, np.nan])
    assert zeros.soft == {"Edema": 1}


def test_labels_that_were_not_asked_for_are_none_that_a_table_lacks(tmp_path: Path) -> None:
    keys = {"image": ["a", "b"]}
    truth = keys | {"Edema": [1, 0], "Fracture": [0, 1], "Effusion": [0, 1], "Hernia": [0, 0]}
    first = keys | {"Edema": [0.1, 0.2], "Fracture": [0.1, 0.2], "Pleural Effusion": [0.1, 0.2], "Mass": [0.1, 0.2]}
    second = keys | {"Edema": [0.1, 0.2], "Fracture": [0.1, 0.2], "Nodule": [0.1, 0.2]}
    write(tmp_path / "t.csv", **truth)
    write(tmp_path / "1.csv", **first)
    write(tmp_path / "2.csv", **second)
    known, *models = [score_tables.read(tmp_path / f"{name}.csv") for name in "t12"]
    for only in ((), ("Edema",)):
        one = score_joins.join(known, models[:1], only=only)
        assert (one.only_truth, one.only_scores) == (("Hernia",), ("Mass",))
        assert one.not_in_all == ("Hernia", "Mass")
        both = score_joins.join(known, models, only=only)
        assert (both.only_truth, both.only_scores) == (("Hernia",), ("Mass", "Nodule"))
        assert both.not_in_all == ("Effusion", "Hernia", "Mass", "Nodule")


def test_rows_that_count_as_patients_are_numbered_whatever_their_order(tmp_path: Path) -> None:
    names = ["c", "a", "d", "b"]
    found = joined(tmp_path, {"image": names, "Edema": [1, 0, 1, 0]}, {"image": names, "Edema": [0.1, 0.2, 0.3, 0.4]})
    assert (found.clusters, found.patients.tolist()) == ("rows", [2, 0, 3, 1])


def test_labels_can_be_named(tmp_path: Path) -> None:
    columns = {"image": ["a", "b"], "Edema": [1, 0], "portable": [0, 1], "Effusion": [0, 1]}
    write(tmp_path / "t.csv", **columns)
    table = score_tables.read(tmp_path / "t.csv")
    found = score_joins.join(table, [table], only=("Pleural Effusion", "edema"))
    assert found.labels == ("Effusion", "Edema")
    assert found.scores[0].tolist() == [[0, 1], [1, 0]]
    with pytest.raises(DataError, match="no label 'Mass' in common"):
        score_joins.join(table, [table], only=("Mass",))
