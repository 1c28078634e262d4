"""What the readers of tables share: files, cells, dates, and paths of CheXpert, against plain Python."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisy_student.config import ColumnsConfig, DataConfig
from noisy_student.data import manifest as manifests
from noisy_student.data import sources
from noisy_student.data.sources import cells, chexpert
from noisy_student.errors import DataError

COLUMNS = ColumnsConfig(image="image", patient="patient", split="split", site="site", date="date", sex="sex", age="age")


def load(root: Path, table: str, **changes: Any) -> manifests.Manifest:
    values = {"labels": ("A", "B"), "columns": COLUMNS, **changes}
    return sources.load(DataConfig(source="csv", root=root, csv=table, **values))


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": ["1.png", "2.png"], "patient": [1, 2], "split": ["train", None], "site": ["Ulm", "Bern"],
            "date": ["20170531", "2018-02"], "sex": ["F", None], "age": [41.0, np.nan], "A": [1.0, np.nan],
            "B": [-1, 0],
        }
    )  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.xz", "parquet"])
def test_a_table_reads_alike_in_every_format(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        frame().to_parquet(tmp_path / "t.parquet")
    else:
        frame().to_csv(tmp_path / f"t.{ending}", index=False)
    manifest = load(tmp_path, f"t.{ending}")
    assert manifest.frame["patient"].tolist() == ["1", "2"]
    assert manifest.frame["site"].tolist() == ["Ulm", "Bern"]
    assert manifest.frame["date"].tolist() == ["2017-05-31", "2018-02"]
    assert manifest.frame["sex"].tolist() == ["F", ""]
    np.testing.assert_array_equal(manifest.frame["age"], [41, np.nan])
    np.testing.assert_array_equal(manifests.values(manifest), [[1, -1], [np.nan, 0]])


def test_identifiers_with_gaps_in_parquet_stay_whole(tmp_path: Path) -> None:
    frame().assign(patient=[7.0, 8.0], B=[0.5, np.nan]).to_parquet(tmp_path / "t.parquet")
    manifest = load(tmp_path, "t.parquet")
    assert manifest.frame["patient"].tolist() == ["7", "8"]
    np.testing.assert_array_equal(manifests.values(manifest)[:, 1], [0.5, np.nan])


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(DataError, match=r"t.parquet: is not a Parquet file"):
        cells.read_table(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"u.parquet: is missing"):
        cells.read_table(tmp_path / "u.parquet")
    (tmp_path / "t.csv.gz").write_text("no")
    with pytest.raises(DataError, match=r"t.csv.gz: is not a CSV table"):
        cells.read_table(tmp_path / "t.csv.gz")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match=r"t.csv: is not a CSV table .*line 3"):
        cells.read_table(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"is a folder, not a table"):
        cells.read_table(tmp_path)


def test_a_row_that_is_too_short_ends_in_blanks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,patient,split,site,date,sex,age,A,B\n1.png,1,train\n2.png,2,test,,,,,1,0\n")
    np.testing.assert_array_equal(manifests.values(load(tmp_path, "t.csv")), [[np.nan, np.nan], [1, 0]])


@pytest.mark.parametrize("date", ["2017-13", "2017-00-01", "17-01-01", "31.05.2017", "2017-01-32", "yesterday"])
def test_a_date_of_another_form_is_named(tmp_path: Path, date: str) -> None:
    frame().assign(date=["2017", date]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=r"t.csv, line 3: column 'date' is '" + re.escape(date)):
        load(tmp_path, "t.csv")


# -- properties ----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8).map(str.strip)
VALUES = st.sampled_from(["", "1", "0", "-1", "1.0", "0.0", "-1.0", "0.25", " 1 ", "nan"])


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            TEXT.filter(lambda text: text not in ("", ".", "..") and not re.search(r"[\\/:]|\.\.", text)),
            VALUES,
            VALUES,
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_a_csv_reads_as_pythons_own_reader_has_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    root = tmp_path_factory.mktemp("table")
    text = io.StringIO()
    csv.writer(text).writerows([("image", "patient", "A", "B"), *((name, "p" + name, a, b) for name, a, b in rows)])
    (root / "t.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    manifest = load(root, "t.csv", columns=ColumnsConfig(split=None))
    assert manifest.frame["image"].tolist() == [name for name, _, _ in rows]
    assert manifest.frame["patient"].tolist() == ["p" + name for name, _, _ in rows]
    expected = [[float(cell) if cell.strip() else math.nan for cell in row[1:]] for row in rows]
    np.testing.assert_array_equal(manifests.values(manifest), np.array(expected, dtype=np.float32))


PIECES = st.sampled_from(
    [
        "CheXpert-v1.0",
        "train",
        "valid",
        "test",
        "patient00001",
        "patient123456",
        "patient12",
        "study1",
        "study",
        "study12",
        "view1_frontal.jpg",
        "view2_lateral.png",
        "view1_frontal.JPG",
        "view_frontal.jpg",
        "view1_oblique.jpg",
        "a b",
        "é",
        "",
    ]
)
WHOLE = re.compile(
    r"(?:.*/)?((train|valid|test)/((patient\d{5,})/study\d+)/view\d+_(frontal|lateral)\.(?:jpg|jpeg|png))"
)


@settings(deadline=None, max_examples=200)
@given(
    paths=st.lists(
        st.one_of(
            st.lists(PIECES, min_size=1, max_size=6).map("/".join),
            st.tuples(
                st.sampled_from(["", "CheXpert-v1.0-small/", "a/train/patient00001/"]),
                st.sampled_from(["train", "valid", "test", "dev"]),
                st.integers(0, 99999),
                st.integers(1, 20),
                st.integers(1, 3),
                st.sampled_from(["frontal", "lateral"]),
            ).map(lambda part: f"{part[0]}{part[1]}/patient{part[2]:05d}/study{part[3]}/view{part[4]}_{part[5]}.jpg"),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_paths_of_chexpert_equal_pythons_regular_expressions(paths: list[str]) -> None:
    parts = chexpert.split_paths(pd.Series(paths, dtype="str"))
    for path, row in zip(paths, parts.to_dict("records"), strict=True):
        match = WHOLE.fullmatch(path)
        expected = match.groups() if match else (None,) * 5
        found = tuple(
            row[name] if isinstance(row[name], str) else None for name in ("image", "split", "study", "patient", "view")
        )
        assert found == expected


def test_a_root_one_folder_too_high_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "CheXpert-v1.0-small").mkdir()
    (tmp_path / "CheXpert-v1.0-small" / "train.csv").touch()
    with pytest.raises(DataError, match=r"train.csv: is missing") as caught:
        sources.load(DataConfig(source="chexpert", root=tmp_path))
    assert caught.value.hint == f"Set data.root to {tmp_path / 'CheXpert-v1.0-small'}."


def test_one_table_of_chexpert_alone_takes_its_splits_from_the_paths(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text(
        "Path,Edema\nvalid/patient64541/study1/view1_frontal.jpg,1\ntest/patient64741/study1,0\n"
        "train/patient00001/study1/view1_frontal.jpg,\n"
    )
    config = DataConfig(source="chexpert", root=tmp_path, csv="some.csv", labels=("Edema",))
    manifest = sources.load(config, images=False)
    assert manifest.frame["split"].tolist() == ["valid", "test", "train"]
    assert manifest.frame["image"].tolist()[1] == "test/patient64741/study1"
    assert manifest.frame["view"].tolist() == ["frontal", "", "frontal"]
    with pytest.raises(DataError, match="the study's folder has no films"):
        sources.load(config)
    (tmp_path / "some.csv").write_text("Path,Edema\ntrain/patient00001/study1,1\n")
    with pytest.raises(DataError, match=r"some.csv, line 2: Path is not of the form"):
        sources.load(config)
