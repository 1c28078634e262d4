"""What the readers of tables share: files, cells, dates, and paths of CheXpert, against plain Python."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
import re
import zipfile
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


def test_view_and_projection_can_have_a_column_each(tmp_path: Path) -> None:
    table = frame().assign(side=["frontal", "lateral"], beam=["ap", "LL"])
    table.to_csv(tmp_path / "t.csv", index=False)
    both = ColumnsConfig(view="side", projection="beam")
    manifest = load(tmp_path, "t.csv", columns=both)
    assert manifest.frame["view"].tolist() == ["frontal", "lateral"]
    assert manifest.frame["projection"].tolist() == ["AP", "LL"]
    assert load(tmp_path, "t.csv", columns=ColumnsConfig(view="side")).frame["projection"].tolist() == ["", ""]
    with pytest.raises(DataError, match=r"t.csv, line 2: column 'side' is 'frontal'"):
        load(tmp_path, "t.csv", columns=ColumnsConfig(projection="side"))
    with pytest.raises(DataError, match="has no column 'ray'") as caught:
        load(tmp_path, "t.csv", columns=ColumnsConfig(projection="ray"))
    assert "data.columns.projection" in caught.value.hint


def test_identifiers_with_gaps_in_parquet_stay_whole(tmp_path: Path) -> None:
    frame().assign(patient=[7.0, 8.0], B=[0.5, np.nan]).to_parquet(tmp_path / "t.parquet")
    manifest = load(tmp_path, "t.parquet")
    assert manifest.frame["patient"].tolist() == ["7", "8"]
    np.testing.assert_array_equal(manifests.values(manifest)[:, 1], [0.5, np.nan])


def test_an_index_in_parquet_is_a_column_and_rounded_numbers_are_refused(tmp_path: Path) -> None:
    frame().set_index("image").to_parquet(tmp_path / "t.parquet")
    assert load(tmp_path, "t.parquet").frame["image"].tolist() == ["1.png", "2.png"]
    frame().assign(patient=[2.0**63, 3.0]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: column 'patient' has decimal numbers of 2\^53 and more"):
        load(tmp_path, "t.parquet")


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("no")
    with pytest.raises(DataError, match=r"t.parquet: is not a Parquet file"):
        cells.read_table(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"u.parquet: is missing"):
        cells.read_table(tmp_path / "u.parquet")
    (tmp_path / "t.csv.gz").write_text("no")
    with pytest.raises(DataError, match=r"t.csv.gz: cannot be read \(Not a gzipped file"):
        cells.read_table(tmp_path / "t.csv.gz")
    (tmp_path / "t.csv").write_text('a,b\n1,2\n\n1,"2\n')
    with pytest.raises(DataError, match=r"t.csv, line 4: is not a CSV table \(unexpected end of data\)"):
        cells.read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"t.csv: has no rows"):
        load(tmp_path, "t.csv", columns=ColumnsConfig(image="a", patient="b"))
    with pytest.raises(DataError, match=r"is a folder, not a table"):
        cells.read_table(tmp_path)


def test_a_row_that_is_too_short_ends_in_blanks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,patient,split,site,date,sex,age,A,B\n1.png,1,train\n2.png,2,test,,,,,1,0\n")
    np.testing.assert_array_equal(manifests.values(load(tmp_path, "t.csv")), [[np.nan, np.nan], [1, 0]])


def test_a_row_that_ends_in_commas_keeps_its_columns(tmp_path: Path) -> None:
    # Such rows once made pandas take the first column for an index, so that every label moved one column to the left.
    (tmp_path / "t.csv").write_text("image,patient,A,B\n1.png,1,1,0,\n2.png,2,0,1, ,,,,,,\n,,,,\n3.png,3,-1,,\n")
    manifest = load(tmp_path, "t.csv", columns=ColumnsConfig())
    assert manifest.frame["image"].tolist() == ["1.png", "2.png", "3.png"]
    np.testing.assert_array_equal(manifests.values(manifest), [[1, 0], [0, 1], [-1, np.nan]])


@pytest.mark.parametrize("rows", ["1.png,1,1,0,1\n", "2.png,2,1,0\n\n1.png,1,1,0,,,,,,x\n"])
def test_a_row_with_a_cell_too_many_is_refused(tmp_path: Path, rows: str) -> None:
    (tmp_path / "t.csv").write_text("image,patient,A,B\n" + rows)
    where = 1 + rows.count("\n")
    for columns in (None, ("image", "A")):
        with pytest.raises(DataError, match=rf"t.csv, line {where}: has \d+ cells, and the header has 4") as caught:
            cells.read_table(tmp_path / "t.csv", columns)
        assert "quotes" in caught.value.hint


def test_the_line_that_is_named_counts_blank_lines_and_quoted_newlines(tmp_path: Path) -> None:
    text = '\nimage,patient,site,A,B\n\n  \n1.png,1,"Ulm,\nGermany\n",1,0\n\n2.png,2,"a\nb",1,no\n'
    (tmp_path / "t.csv").write_text(text)
    expected = 1 + text[: text.index("2.png")].count("\n")
    with pytest.raises(DataError, match=rf"t.csv, line {expected}: column 'B' is 'no'"):
        load(tmp_path, "t.csv", columns=ColumnsConfig(site="site"))
    (tmp_path / "t.csv").write_text(text.replace("no", "1"))
    manifest = load(tmp_path, "t.csv", columns=ColumnsConfig(site="site"))
    assert manifest.frame["site"].tolist() == ["Ulm,\nGermany", "a\nb"]
    frame().assign(B=["1", "no"]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t.parquet, row 2: column 'B' is 'no'"):
        load(tmp_path, "t.parquet")


def test_two_columns_for_one_label_are_refused(tmp_path: Path) -> None:
    columns = ColumnsConfig(split=None)
    (tmp_path / "t.csv").write_text("image,patient,Effusion,Pleural_Effusion\n1.png,1,0,1\n")
    for label in ("Pleural Effusion", "Effusion"):
        with pytest.raises(DataError, match=r"t.csv: columns 'Effusion' and 'Pleural_Effusion' mean the same label"):
            load(tmp_path, "t.csv", columns=columns, labels=(label,))
    (tmp_path / "t.csv").write_text("image,patient,A,A\n1.png,1,0,1\n")
    with pytest.raises(DataError, match=r"t.csv: has two columns 'A'"):
        load(tmp_path, "t.csv", columns=columns, labels=("A",))
    (tmp_path / "t.csv").write_text("image,patient,,A,\n1.png,1,x,0,y\n")
    assert manifests.values(load(tmp_path, "t.csv", columns=columns, labels=("A",))).item() == 0
    with pytest.raises(ValueError, match="labels: 'effusion' and 'Pleural Effusion' are the same label"):
        DataConfig(source="csv", root=tmp_path, labels=("effusion", "Edema", "Pleural Effusion"))


def _packed(path: Path, ending: str, text: bytes) -> Path:
    path = path / f"t.csv.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/", "")
            archive.writestr("folder/t.csv", text)
    else:
        path.write_bytes({"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[ending](text))
    return path


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
def test_a_damaged_packed_table_is_named(tmp_path: Path, ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 10**9, 2000)
    text = "a,b\n" + "".join(f"{number},1\n" for number in noise)
    path = _packed(tmp_path, ending, text.encode())
    assert cells.read_table(path)["a"].tolist() == [str(number) for number in noise]
    whole = path.read_bytes()
    half = len(whole) // 2
    for damaged in (whole[:half], b"no"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"t.csv.{ending}: cannot be read .*") as caught:
            cells.read_table(path)
        assert "damaged" in caught.value.hint
    # Bytes changed in the middle may unpack to other text, which is no table, or fails its checksum at the end.
    for start in range(40, len(whole) - 40, len(whole) // 20):
        path.write_bytes(whole[:start] + bytes(byte ^ 255 for byte in whole[start : start + 8]) + whole[start + 8 :])
        with pytest.raises(DataError, match=rf"t.csv.{ending}"):
            cells.read_table(path)


def test_packed_files_that_hold_no_single_table_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        archive.writestr("b.csv", "a\n1\n")
    with pytest.raises(DataError, match=r"t.zip: holds 2 files; one is read"):
        cells.read_table(tmp_path / "t.zip")
    path = _packed(tmp_path, "zip", b"a\n1\n")
    data = bytearray(path.read_bytes())
    for start in re.finditer(b"PK\x03\x04", bytes(data)):
        data[start.start() + 6] |= 1  # the flag of a password
    for start in re.finditer(b"PK\x01\x02", bytes(data)):
        data[start.start() + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"t.csv.zip: cannot be unpacked \(.*password"):
        cells.read_table(path)
    (tmp_path / "t.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(DataError, match=r"t.csv.zst: tables of the ending .zst are not read") as caught:
        cells.read_table(tmp_path / "t.csv.zst")
    assert ".gz, .bz2, .xz, .zip" in caught.value.hint


def test_a_damaged_parquet_table_is_not_called_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": [str(number) for number in range(5000)]}).to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 64 + whole[68:])
    with pytest.raises(DataError, match=r"t.parquet: (cannot be read|is not a Parquet file) \(") as caught:
        cells.read_table(path)
    assert "CSV" not in f"{caught.value} {caught.value.hint}"


def test_a_table_without_the_default_split_column_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,patient,A,B\n1.png,1,0,1\n")
    assert load(tmp_path, "t.csv", columns=ColumnsConfig()).frame["split"].tolist() == [""]
    for columns, name in ((ColumnsConfig(split="part"), "part"), (ColumnsConfig(view="view"), "view")):
        with pytest.raises(DataError, match=rf"t.csv: has no column '{name}'") as caught:
            load(tmp_path, "t.csv", columns=columns)
        assert "to null if it has no such column" in caught.value.hint
    # A split in another spelling must not be passed over in silence.
    (tmp_path / "t.csv").write_text("image,patient,Split,A,B\n1.png,1,test,0,1\n")
    with pytest.raises(DataError, match=r"t.csv: has no column 'split'; its columns are image, patient, Split"):
        load(tmp_path, "t.csv", columns=ColumnsConfig())


def test_known_values_do_not_list_nan(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("AP/PA\nXX\n")
    with pytest.raises(DataError, match=r"line 2: column 'AP/PA' is 'XX'") as caught:
        cells.mapped(pd.Series(["XX"]), chexpert.PROJECTIONS, tmp_path / "t.csv", "AP/PA")
    assert caught.value.hint == "Known values are ap, pa, ll, rl, or blank."


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
            st.lists(st.sampled_from(["", " "]), max_size=3),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_a_csv_reads_as_pythons_own_reader_has_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, list[str], int]]
) -> None:
    root = tmp_path_factory.mktemp("table")
    text = io.StringIO()
    csv.writer(text).writerow(("image", "patient", "A", "B"))
    for name, a, b, trailing, blank_lines in rows:
        csv.writer(text).writerow((name, "p" + name, a, b, *trailing))
        text.write("\r\n" * blank_lines)
    (root / "t.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    manifest = load(root, "t.csv", columns=ColumnsConfig(split=None))
    assert manifest.frame["image"].tolist() == [row[0] for row in rows]
    assert manifest.frame["patient"].tolist() == ["p" + row[0] for row in rows]
    expected = [[float(cell) if cell.strip() else math.nan for cell in row[1:3]] for row in rows]
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Path;Edema\na;1\n", "is separated by ';'"),
        ("Path\tEdema\na\t1\n", "is separated by tabs"),
        ("Path|Edema\na|1\n", r"is separated by '\|'"),
        ("sep=,\nPath,Edema\na,1\n", "its first line is 'sep=,'"),
        ("sep=;\nPath;Edema\na;1\n", "its first line is 'sep=;'"),
    ],
)
def test_a_table_with_other_separators_is_told_from_one_without_columns(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"t\.csv: {message}") as caught:
        cells.read_table(path)
    assert "commas" in str(caught.value.hint)
    path.write_text("a;b,c\n1;2,3\n", encoding="utf-8")  # a semicolon in a name among others is a name
    assert list(cells.read_table(path).columns) == ["a;b", "c"]
