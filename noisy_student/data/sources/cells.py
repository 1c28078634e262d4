"""Tables and their cells, shared by the readers: every message names the file, the line and the column."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

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

_BLANK: Final = ("", "nan")
_DATE: Final = r"^(\d{4})(?:-?(\d{2})(?:-?(\d{2}))?)?$"


def read_table(path: Path, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Return a CSV (also compressed) or Parquet file as text, blanks as empty strings.

    Args:
        path: the file; ``.parquet`` is read as Parquet.
        columns: read only these, where they are there; a table of reports is ten times as large as what is needed.

    Raises:
        DataError: the file is missing, empty or not a table.
    """
    wanted = None if columns is None else set(columns)
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path, wanted)
        # As text: numbers would lose the zeros in front of an identifier, and words like NA would turn into blanks.
        return pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            usecols=None if wanted is None else lambda name: name in wanted,
        ).fillna("")
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing", "Set data.root to the folder that holds this table.") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder, not a table", "Name a CSV or Parquet file.") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError) as error:
        raise DataError(f"{path}: is not a CSV table ({error})", "Save it as UTF-8 CSV with a header row.") from error


def _read_parquet(path: Path, wanted: set[str] | None) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: is not a Parquet file ({error})", "Write the table again.") from error
    frame: pd.DataFrame = table.select(
        [name for name in table.column_names if wanted is None or name in wanted]
    ).to_pandas()
    for name in frame.columns:
        column = frame[name]
        blank = column.isna()
        if pd.api.types.is_float_dtype(column.dtype) and bool((column.dropna() % 1 == 0).all()):
            column = column.astype("Int64")  # identifiers with blanks between them come as floats
        frame[name] = column.astype("str").mask(blank, "")
    return frame


def missing_column(path: Path, column: str, there: Iterable[str], key: str) -> DataError:
    """Return the error for a table without ``column``, which the configuration ``key`` asks for."""
    return DataError(
        f"{path}: has no column '{column}'; its columns are {', '.join(map(str, there))}",
        f"Set {key} to what the table has, or add the column.",
    )


def required(table: pd.DataFrame, path: Path, column: str, key: str, *, blank: bool = False) -> pd.Series[str]:
    """Return the stripped texts of a column, shape (N,).

    Raises:
        DataError: the column is missing, or a cell is blank and may not be.
    """
    if column not in table.columns:
        raise missing_column(path, column, table.columns, key)
    texts = table[column].str.strip()
    empty = (texts == "").to_numpy(dtype=bool)
    if not blank and empty.any():
        raise DataError(
            f"{path}, line {line(empty)}: column '{column}' is blank ({int(empty.sum())} such rows)",
            "Fill the cells or remove the rows.",
        )
    return texts


def line(wrong: Flags) -> int:
    """Return the line number in the file (the header is line 1) of the first row that is true."""
    return int(np.argmax(wrong)) + 2


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
            f"{path}, line {line(wrong)}: column '{column}' is '{words[codes[wrong][0]]}'",
            f"Known values are {', '.join(word for word in known if word)}, or blank.",
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
        DataError: a cell is not a number from 0 to 150.
    """
    years, wrong = numbers(texts)
    wrong |= (years < 0) | (years > 150)
    if wrong.any():
        raise DataError(
            f"{path}, line {line(wrong)}: column '{column}' is '{_cell(texts, wrong)}'", "An age is a number of years."
        )
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
            f"{path}, line {line(wrong)}: column '{column}' is '{_cell(texts, wrong)}'",
            "Write a date as 2017, 2017-05 or 2017-05-31.",
        )
    joined = ["-".join(part for part in row if isinstance(part, str)) for row in parts.itertuples(index=False)]
    return np.asarray(joined, dtype=object)[codes]


def label_columns(table: pd.DataFrame, path: Path, labels: tuple[str, ...]) -> dict[str, npt.NDArray[np.float32]]:
    """Return the values of each label, float32 (N,), NaN where blank; columns are matched by name and known aliases.

    Raises:
        DataError: a label has no column, or a cell is neither blank, -1, nor a number from 0 to 1.
    """
    by_name = {canonical(str(column)): str(column) for column in table.columns}
    found = {}
    for label in labels:
        column = label if label in table.columns else by_name.get(canonical(label))
        if column is None:
            raise missing_column(path, label, table.columns, "data.labels")
        parsed, wrong = numbers(table[column])
        wrong |= ~(np.isnan(parsed) | (parsed == -1) | ((parsed >= 0) & (parsed <= 1)))
        if wrong.any():
            raise DataError(
                f"{path}, line {line(wrong)}: column '{column}' is '{_cell(table[column], wrong)}'",
                "A label is 1, 0, -1 (uncertain), blank (not mentioned), or a number from 0 to 1.",
            )
        found[label] = parsed.astype(np.float32)
    return found


def known(found: Mapping[str, npt.NDArray[np.float32]]) -> Flags:
    """Return which rows (N,) have a value for any label."""
    return np.asarray(~np.isnan(np.stack(list(found.values()), axis=1)).all(axis=1), dtype=bool)


def parse_sets(texts: pd.Series[str], path: Path, parse: Callable[[str], set[str]]) -> tuple[Codes, list[set[str]]]:
    """Return a code per cell (N,) and the distinct sets of terms that cells list; a cell has set ``sets[code]``.

    Args:
        texts: cells (N,).
        path: the table, for messages.
        parse: turns a cell into its terms; it raises ``ValueError`` or ``SyntaxError`` for one it cannot read.

    Raises:
        DataError: a cell cannot be read.
    """
    codes, words = pd.factorize(texts)
    sets: list[set[str]] = []
    for code, word in enumerate(words):
        try:
            sets.append(parse(str(word)))
        except (ValueError, SyntaxError) as error:
            raise DataError(
                f"{path}, line {line(codes == code)}: column '{texts.name}' is '{str(word)[:80]}', which is no list of "
                "terms",
                "Correct the cell or remove the row.",
            ) from error
    return codes.astype(np.int64), sets


def listed(codes: Codes, sets: Sequence[set[str]], terms: Iterable[str]) -> npt.NDArray[np.float32]:
    """Return 1 where a cell (N,) lists one of ``terms``, else 0; codes and sets are those of :func:`parse_sets`."""
    wanted = set(terms)
    return np.asarray([not found.isdisjoint(wanted) for found in sets], dtype=np.float32)[codes]


def _cell(texts: Any, wrong: Flags) -> str:
    return str(np.asarray(texts, dtype=object)[int(np.argmax(wrong))]).strip()
