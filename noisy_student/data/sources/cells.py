"""Tables and their cells, shared by the readers: every message names the file, the line and the column."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from noisy_student.errors import DataError
from noisy_student.labels import canonical

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]

SEXES: Final = {"": "", "unknown": "", "nan": "", "f": "F", "female": "F", "m": "M", "male": "M", "o": ""}
"""Words for a patient's sex."""
SPLITS: Final = {
    "": "", "train": "train", "training": "train", "valid": "valid", "val": "valid", "validate": "valid",
    "validation": "valid", "test": "test", "testing": "test",
}  # fmt: skip
"""Words for a split."""

OLDEST: Final = 150
"""Age in years above which a cell is no age."""
_EXACT: Final = 2.0**53
"""Whole numbers from here on are rounded as floats."""
_BLANK: Final = ("", "nan")
_PARQUET: Final = (".parquet", ".pq")
_PACKED: Final[dict[str, Callable[[Path], Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BATCH: Final = 4096
_DATE: Final = r"^(\d{4})(?:-?(\d{2})(?:-?(\d{2}))?)?$"


def read_table(path: Path, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Return a CSV (also compressed) or Parquet file as text, blanks as empty strings.

    A row may be shorter than the header, or end in blank cells behind its last column; empty lines are passed over.

    Args:
        path: the file; ``.parquet`` is read as Parquet.
        columns: read only these, where they are there; a table of reports is ten times as large as what is needed.

    Raises:
        DataError: the file is missing, empty, damaged or not a table, its cells are separated by something else than
            commas, a column is there twice, or a row has a filled cell behind the last column.
    """
    wanted = None if columns is None else set(columns)
    try:
        return _read_parquet(path, wanted) if path.suffix.lower() in _PARQUET else _read_csv(path, wanted)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: is missing", "Name the table's own path, or set data.root to the folder that holds it."
        ) from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder, not a table", "Name a CSV or Parquet file.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not a CSV table ({error})", "Save it as UTF-8 CSV with a header row.") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read ({error})", "Copy or write it again: it is damaged, or not what its ending says."
        ) from error


def _read_csv(path: Path, wanted: set[str] | None) -> pd.DataFrame:
    # Python's reader and not pandas's: that takes the first column for an index where rows are longer than the header,
    # shifts all others, and does not say on which line a row is. In batches it takes twice as long: 1 s for CheXpert's.
    records = _records(path)
    _, header = next(records, (0, []))
    if not header:
        raise DataError(f"{path}: is not a CSV table (it is empty)", "Save it as UTF-8 CSV with a header row.")
    refuse_other_separators(path, header)
    _refuse_doubles(path, header)
    names = [name if name.strip() else f"Unnamed: {k}" for k, name in enumerate(header)]
    keep = [k for k, name in enumerate(names) if wanted is None or name in wanted]
    schema = pa.schema([pa.field(names[k], pa.large_string()) for k in keep])
    parts = [schema.empty_table()]
    while batch := [_of_width(path, len(names), *record) for record in islice(records, _BATCH)]:
        columns = list(zip(*batch, strict=True))
        parts.append(pa.table([pa.array(columns[k], pa.large_string()) for k in keep], schema=schema))
    frame: pd.DataFrame = pa.concat_tables(parts).to_pandas()
    return frame


def refuse_other_separators(path: Path, header: Sequence[str]) -> None:
    """Raise :class:`DataError` where a table's first line, read by commas, shows that others separate its cells."""
    first = ",".join(header).strip()
    if header[0].strip().lower().startswith("sep=") and not any(map(str.strip, header[1:])):
        raise DataError(
            f"{path}: its first line is '{first}', which only spreadsheets understand",
            "Remove that line, and save the table with commas between cells.",
        )
    if len(header) == 1:
        for separator, name in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
            if separator in header[0]:
                raise DataError(f"{path}: is separated by {name}", "Save it with commas between cells.")


def _of_width(path: Path, width: int, line: int, record: list[str]) -> list[str]:
    """Return the cells of a record, filled up with blanks, or cut where all further ones are blank."""
    if len(record) == width:
        return record
    if any(map(str.strip, record[width:])):
        raise DataError(
            f"{path}, line {line}: has {len(record)} cells, and the header has {width}",
            "Put texts with commas in quotes, or give every column a name.",
        )
    return (record + [""] * width)[:width]


def _read_parquet(path: Path, wanted: set[str] | None) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
        _refuse_doubles(path, table.column_names)
        frame: pd.DataFrame = table.select(
            [name for name in table.column_names if wanted is None or name in wanted]
        ).to_pandas(ignore_metadata=True)  # a column that pandas took for the index is one like the others
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is not a Parquet file ({error})", "Write the table again.") from error
    for name in frame.columns:
        column = frame[name]
        blank = column.isna()
        if pd.api.types.is_float_dtype(column.dtype) and bool((column.dropna() % 1 == 0).all()):
            if bool((column.abs() >= _EXACT).any()):
                what = f"{path}: column '{name}' has decimal numbers of 2^53 and more, which are rounded"
                raise DataError(what, "Write them as text or as integers.")
            column = column.astype("Int64")  # identifiers with blanks between them come as floats
        frame[name] = column.astype("str").mask(blank, "")
    return frame


def _refuse_doubles(path: Path, names: Iterable[str]) -> None:
    double = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if double:
        raise DataError(f"{path}: has two columns '{double[0]}'", "Rename or remove one of them.")


def _text(path: Path) -> IO[str]:
    """Return the text of a table, unpacked as its ending says."""
    ending = path.suffix.lower()
    if ending == ".zip":
        binary = _zipped(path)
    elif ending in (".zst", ".tar", ".tgz", ".7z", ".xls", ".xlsx"):
        raise DataError(
            f"{path}: tables of the ending {ending} are not read",
            f"Save it as CSV, as it is or packed ({', '.join((*_PACKED, '.zip'))}), or as Parquet.",
        )
    else:
        binary = _PACKED[ending](path) if ending in _PACKED else path.open("rb")
    return io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")


def _zipped(path: Path) -> IO[bytes]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise DataError(f"{path}: holds {len(names)} files; one is read", "Unpack it and name the table.")
        try:
            return archive.open(names[0])
        except RuntimeError as error:  # it has a password, or is packed in a way that Python does not know
            raise DataError(f"{path}: cannot be unpacked ({error})", "Unpack it and name the table.") from error


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Return the line on which each record of a CSV begins, and its cells; without records that are all blank."""
    with _text(path) as stream:
        reader, begin = csv.reader(stream, strict=True), 1
        try:
            for record in reader:
                if any(map(str.strip, record)):
                    yield begin, record
                begin = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}, line {begin}: is not a CSV table ({error})",
                "Save it as UTF-8 CSV, texts with quotes in quotes.",
            ) from error


def place(path: Path, wrong: Flags) -> str:
    """Return the file and the line of the first row that is true (the header of a CSV is line 1), for messages.

    A row that extends over several lines is named by its first. In Parquet it is the row's number, from 1.
    """
    if path.suffix.lower() in _PARQUET:
        return row_place(path, wrong)
    row = int(np.argmax(wrong))
    line, _ = next(islice(_records(path), row + 1, None))  # read once more: tables do not carry their lines along
    return f"{path}, line {line}"


def row_place(path: Path, wrong: Flags) -> str:
    """Return the file and the number, from 1, of the first row that is true."""
    return f"{path}, row {int(np.argmax(wrong)) + 1}"


def missing_column(path: Path, column: str, there: Iterable[str], key: str) -> DataError:
    """Return the error for a table without ``column``, which the configuration ``key`` asks for."""
    optional = key.startswith("data.columns.") and not key.endswith((".image", ".patient"))
    null = ", to null if it has no such column" if optional else ""
    return DataError(
        f"{path}: has no column '{column}'; its columns are {', '.join(map(str, there))}",
        f"Set {key} to what the table has{null}, or add the column.",
    )


def required(table: pd.DataFrame, path: Path, column: str, key: str, *, blank: bool = False) -> pd.Series[str]:
    """Return the stripped texts of a column, shape (N,).

    Raises:
        DataError: the table has no rows, the column is missing, or a cell is blank and may not be.
    """
    if table.empty:
        raise DataError(f"{path}: has no rows", "Check data.root and the table: only its header is there.")
    if column not in table.columns:
        raise missing_column(path, column, table.columns, key)
    texts = table[column].str.strip()
    empty = (texts == "").to_numpy(dtype=bool)
    if not blank and empty.any():
        raise DataError(
            f"{place(path, empty)}: column '{column}' is blank ({int(empty.sum())} such rows)",
            "Fill the cells or remove the rows.",
        )
    return texts


def factorize(texts: Any) -> tuple[Codes, list[str]]:
    """Return a code per cell and the distinct stripped texts: a table has few, and only those need looking at."""
    codes, words = pd.factorize(texts, use_na_sentinel=False)
    return codes.astype(np.int64), [str(word).strip() for word in words]


def mapped(texts: Any, known: Mapping[str, str], path: Path, column: str) -> npt.NDArray[np.object_]:
    """Return ``known[text]`` per cell, upper or lower case alike.

    Raises:
        DataError: a text is not known.
    """
    codes, words = factorize(texts)
    found = [known.get(word.lower()) for word in words]
    wrong = np.isin(codes, [code for code, value in enumerate(found) if value is None])
    if wrong.any():
        raise DataError(
            f"{place(path, wrong)}: column '{column}' is '{words[codes[wrong][0]]}'",
            f"Known values are {', '.join(word for word in known if word not in _BLANK)}, or blank.",
        )
    return np.asarray(found, dtype=object)[codes]


def numbers(texts: Any) -> tuple[npt.NDArray[np.float64], Flags]:
    """Return the numbers of the cells (NaN for a blank), and where a cell is neither a number nor blank."""
    codes, words = factorize(texts)
    blank = np.asarray([word.lower() in _BLANK for word in words], dtype=bool)
    parsed = np.asarray([_number(word) for word in words], dtype=np.float64)
    return parsed[codes], (np.isnan(parsed) & ~blank)[codes]


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def ages(texts: Any, path: Path, column: str) -> npt.NDArray[np.float64]:
    """Return the ages in years, NaN where blank.

    Raises:
        DataError: a cell is not a number from 0 to :data:`OLDEST`.
    """
    years, wrong = numbers(texts)
    wrong |= (years < 0) | (years > OLDEST)
    if wrong.any():
        what = f"{place(path, wrong)}: column '{column}' is '{_cell(texts, wrong)}'"
        raise DataError(what, "An age is a number of years.")
    return years


def dates(texts: Any, path: Path, column: str) -> npt.NDArray[np.object_]:
    """Return dates as YYYY, YYYY-MM or YYYY-MM-DD, so that their texts sort by time; blank where blank.

    Raises:
        DataError: a cell is not of that form, with or without hyphens.
    """
    codes, words = factorize(texts)
    series = pd.Series(["" if word.lower() in _BLANK else word for word in words], dtype="str")
    parts = series.str.extract(_DATE)
    unknown = parts[0].isna().to_numpy() & (series != "").to_numpy()
    month = pd.to_numeric(parts[1]).between(1, 12) | parts[1].isna()
    day = pd.to_numeric(parts[2]).between(1, 31) | parts[2].isna()
    wrong = (unknown | ~month.to_numpy(dtype=bool) | ~day.to_numpy(dtype=bool))[codes]
    if wrong.any():
        raise DataError(
            f"{place(path, wrong)}: column '{column}' is '{_cell(texts, wrong)}'",
            "Write a date as 2017, 2017-05 or 2017-05-31.",
        )
    joined = ["-".join(part for part in row if isinstance(part, str)) for row in parts.itertuples(index=False)]
    return np.asarray(joined, dtype=object)[codes]


def label_columns(
    table: pd.DataFrame, path: Path, labels: tuple[str, ...], where: Callable[[Path, Flags], str] = place
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the values of each label, float32 (N,), NaN where blank; columns are matched by name and known aliases.

    Args:
        table: the table, N rows.
        path: its file, for messages.
        labels: the labels.
        where: names the file and place of a wrong row.

    Raises:
        DataError: a label has no column or two, or a cell is neither blank, -1, nor a number from 0 to 1.
    """
    found = {}
    for label, column in label_names(table.columns, path, labels).items():
        parsed, wrong = numbers(table[column])
        wrong |= ~(np.isnan(parsed) | (parsed == -1) | ((parsed >= 0) & (parsed <= 1)))
        if wrong.any():
            raise DataError(
                f"{where(path, wrong)}: column '{column}' is '{_cell(table[column], wrong)}'",
                "A label is 1, 0, -1 (uncertain), blank (not mentioned), or a number from 0 to 1.",
            )
        found[label] = parsed.astype(np.float32)
    return found


def label_names(columns: Iterable[str], path: Path, labels: tuple[str, ...]) -> dict[str, str]:
    """Return the column of each label, matched by name and known aliases.

    Raises:
        DataError: a label has no column, or two that mean it.
    """
    there = [str(column) for column in columns]
    named = {}
    for label in labels:
        same = [column for column in there if canonical(column) == canonical(label)]
        if not same:
            raise missing_column(path, label, there, "data.labels")
        if len(same) > 1:
            raise DataError(
                f"{path}: columns '{same[0]}' and '{same[1]}' mean the same label", "Rename or remove one of them."
            )
        named[label] = same[0]
    return named


def known(found: Mapping[str, npt.NDArray[np.float32]]) -> Flags:
    """Return which rows (N,) have a value for any label."""
    return np.asarray(~np.isnan(np.stack(list(found.values()), axis=1)).all(axis=1), dtype=bool)


def parse_sets(texts: pd.Series[str], path: Path, parse: Callable[[str], set[str]]) -> tuple[Codes, list[set[str]]]:
    """Return a code per cell (N,) and the distinct sets of terms that cells list; a cell has set ``sets[code]``.

    Args:
        texts: cells (N,).
        path: the table, for messages.
        parse: turns a cell into its terms; for one that it cannot read it raises what ``ast.literal_eval`` does.

    Raises:
        DataError: a cell cannot be read.
    """
    codes, words = pd.factorize(texts)
    sets: list[set[str]] = []
    for code, word in enumerate(words):
        try:
            sets.append(parse(str(word)))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise DataError(
                f"{place(path, codes == code)}: column '{texts.name}' is '{str(word)[:80]}', which is no list of terms",
                "Correct the cell or remove the row.",
            ) from error
    return codes.astype(np.int64), sets


def listed(codes: Codes, sets: Sequence[set[str]], terms: Iterable[str]) -> npt.NDArray[np.float32]:
    """Return 1 where a cell (N,) lists one of ``terms``, else 0; codes and sets are those of :func:`parse_sets`."""
    wanted = set(terms)
    return np.asarray([not found.isdisjoint(wanted) for found in sets], dtype=np.float32)[codes]


def _cell(texts: Any, wrong: Flags) -> str:
    return str(np.asarray(texts, dtype=object)[int(np.argmax(wrong))]).strip()
