"""Tables of points, CSV and Parquet: columns by name in, the same columns and the radii out.

A table from somebody else is hostile until it is checked: what does not fit is refused with its row and column. Parquet
needs pyarrow, which the extra `parquet` brings.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions.extras import need
from regions.files import whole_file
from srs.text import visible

if TYPE_CHECKING:
    import pyarrow as pa

#: Suffixes of tables, and what separates the values of a line where a table is written anew.
SUFFIXES: Mapping[str, str] = {".csv": ",", ".tsv": "\t", ".parquet": ""}

#: Largest CSV file that is read, and most cells of any table: a Python text for each of them fits into memory.
MOST_BYTES, MOST_CELLS = 1 << 28, 1 << 25

#: Most bytes that a Parquet file may unpack to, and rows that are unpacked at once.
MOST_UNPACKED, ROWS = 1 << 32, 1 << 12

#: Numbers as programs print them. `float` also reads 0_7, nan and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

_WITH_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)

#: Names of coordinates that need not be given: x, y, z, or x0, x1, ...
_AXES = ("x", "y", "z")
_NUMBERED = re.compile(r"x(0|[1-9]\d{0,8})", re.ASCII)


@dataclass(frozen=True, eq=False)
class PointTable:
    """A table whose columns are asked for by name.

    Attributes
    ----------
    path : Path
        The file, for messages.
    columns : mapping of str to list of str, or to pyarrow arrays
        In the file's order.
    lines : list of int
        Line of the file in which each row ends; empty where the file has no lines.
    delimiter : str
        What separates values; "" where nothing does.
    """

    path: Path
    columns: Mapping[str, Any]
    lines: Sequence[int] = ()
    delimiter: str = ""
    _numbers: dict[str, Float64[np.ndarray, " n"]] = field(default_factory=dict, init=False)

    def coordinates(self, names: Sequence[str] = ()) -> Float64[np.ndarray, "n d"]:
        """Return the points: from the columns of these names, or else x, y, z, or else x0, x1, ..."""
        chosen = list(names) or [name for name in _AXES if name in self.columns]
        if chosen == ["x"] or not chosen:
            numbered = sorted((int(name[1:]), name) for name in self.columns if _NUMBERED.fullmatch(name))
            chosen = [name for _, name in numbered] or chosen
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"--columns {' '.join(names)}: names a column twice")
        if not chosen:
            raise ValueError(
                f"{self.path} has no columns x, y or x0, x1: name those of the coordinates, as in --columns "
                f"{' '.join(list(self.columns)[:2])}; {self._held()}"
            )
        return np.stack([self.numbers(name) for name in chosen], axis=1)

    def numbers(self, name: str, *, signed: bool = True) -> Float64[np.ndarray, " n"]:
        """Return a column as finite float64, also >= 0 unless `signed`; `ValueError` with row and column otherwise."""
        column = self._column(name)
        values = self._parsed(name, column) if isinstance(column, list) else self._unpacked(name, column)
        wrong = ~np.isfinite(values) | ((values < 0) & (not signed))
        if wrong.any():
            k = int(wrong.argmax())
            kind = "a finite number" if signed else "a finite number >= 0"
            raise ValueError(f"{self._at(k, name)}: {values[k]:g} is not {kind}")
        self._numbers[name] = values
        return values

    def labels(self, name: str) -> Int64[np.ndarray, " n"]:
        """Return a column as labels, numbered from 0 in the order of their first rows; equal means the same text."""
        column = self._column(name)
        values = column if isinstance(column, list) else self._unpacked_labels(name, column)
        numbers: dict[Any, int] = {}
        for k, value in enumerate(values):
            if value is None or value != value or value == "":
                raise ValueError(f"{self._at(k, name)}: no label; give a point without one a unique one")
            numbers.setdefault(value, len(numbers))
        return np.array([numbers[value] for value in values], dtype=np.int64)

    def _column(self, name: str) -> Any:
        if name not in self.columns:
            raise ValueError(f"{self.path} has no column {visible(name)!r}: {self._held()}")
        return self.columns[name]

    def _held(self) -> str:
        names = [visible(name) for name in self.columns]
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        return f"its columns are {', '.join(name[:40] for name in names[:12])}{more}"

    def _at(self, k: int, name: str) -> str:
        place = f"line {self.lines[k]}" if self.lines else f"row {k + 1}"
        return f"{self.path}, {place}, column {visible(name)[:40]}"

    def _parsed(self, name: str, column: list[str]) -> Float64[np.ndarray, " n"]:
        values = np.empty(len(column))
        for k, text in enumerate(column):
            if not _NUMBER.fullmatch(text):
                remedy = "; write decimals with a point" if _WITH_COMMA.fullmatch(text) else ""
                what = f"{text[:40]!r} is no number" if text else "no value"
                raise ValueError(f"{self._at(k, name)}: {what}{remedy}")
            values[k] = float(text)
        return values

    def _unpacked(self, name: str, column: pa.ChunkedArray) -> Float64[np.ndarray, " n"]:
        from pyarrow import compute, types

        if not (types.is_integer(column.type) or types.is_floating(column.type)):
            raise ValueError(f"{self.path}, column {visible(name)[:40]}: holds {column.type}, no numbers")
        if column.null_count:
            missing = compute.is_null(column).to_numpy()
            raise ValueError(f"{self._at(int(missing.argmax()), name)}: no value")
        return np.asarray(column.to_numpy(), dtype=np.float64)

    def _unpacked_labels(self, name: str, column: pa.ChunkedArray) -> list[Any]:
        from pyarrow import types

        if types.is_nested(column.type):
            raise ValueError(f"{self.path}, column {visible(name)[:40]}: holds {column.type}, no labels")
        return list(column.to_pylist())

    def write_with(self, path: Path, name: str, radii: Float64[np.ndarray, " n"]) -> None:
        """Write the table, and the radii in one more column of this name, as the suffix says. Whole or not at all."""
        if path.suffix == ".parquet":
            texts = {name for name, column in self.columns.items() if isinstance(column, list)}
            read = {name: values for name, values in self._numbers.items() if name in texts}
            _write_parquet(path, {**self.columns, **read, name: radii})
        else:
            own = self.delimiter if path.suffix == self.path.suffix else ""
            _write_csv(path, {**self.columns, name: radii}, own or SUFFIXES[path.suffix])


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name says that it is a table."""
    return Path(path).suffix in SUFFIXES


def read_table(path: Path) -> PointTable:
    """Read a CSV, TSV or Parquet file by its suffix.

    The first line of CSV names the columns. Values are separated by commas, semicolons or tabs, whichever the first
    line has; text is UTF-8.

    Raises
    ------
    ValueError
        Where the file is no such table, or larger than what is read; the message names the line.
    FileNotFoundError
        If there is no such file.
    MissingExtra
        For Parquet without pyarrow.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file: name a table")  # reading a pipe might wait forever
    return _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)


def arrays_as_table(path: Path, points: Real[np.ndarray, "n ..."], R: Real[np.ndarray, " n"]) -> PointTable:
    """Return arrays as the table that would be read as them: coordinates x, y, z, or x0, x1, ..., and R."""
    x = np.asarray(points, dtype=np.float64).reshape(len(points), -1)
    d = x.shape[1]
    names = _AXES[:d] if 2 <= d <= len(_AXES) else [f"x{k}" for k in range(d)]
    return PointTable(path, {**dict(zip(names, x.T, strict=True)), "R": np.asarray(R, dtype=np.float64)})


def _read_csv(path: Path) -> PointTable:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} has more than {MOST_BYTES:,} bytes: save it as .parquet or .npy")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: byte {error.start} is not UTF-8; save it as CSV in UTF-8") from error
    delimiter = _delimiter(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    cells: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not row:
                continue
            if not header:
                header = _header(path, reader.line_num, row)
                cells = [[] for _ in header]
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(row)} values for the {len(header)} columns of the first line"
                )
            if (len(lines) + 1) * len(header) > MOST_CELLS:
                raise ValueError(f"{path} has more than {MOST_CELLS:,} cells: save it as .parquet or .npy")
            lines.append(reader.line_num)
            for column, value in zip(cells, row, strict=True):
                column.append(value.strip())
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if not header:
        raise ValueError(f"{path} is empty: its first line names the columns, such as x,y,R")
    return PointTable(path, dict(zip(header, cells, strict=True)), lines, delimiter)


def _delimiter(path: Path, text: str) -> str:
    if path.suffix == ".tsv":
        return "\t"
    first = text.lstrip("\r\n").split("\n", 1)[0]
    counts = {delimiter: first.count(delimiter) for delimiter in (",", ";", "\t")}
    return max(counts, key=lambda delimiter: counts[delimiter])


def _header(path: Path, line: int, row: Sequence[str]) -> list[str]:
    names = [name.strip() for name in row]
    known: set[str] = set()
    for name in names:
        if name in known:
            raise ValueError(f"{path}, line {line}: two columns are named {visible(name)[:40]!r}; rename one")
        known.add(name)
    return names


def _read_parquet(path: Path) -> PointTable:
    need("parquet", str(path))
    import pyarrow as pa
    from pyarrow import parquet

    batches, size = [], 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if file.metadata.num_rows * max(1, len(names)) > MOST_CELLS << 4:
                raise ValueError(f"{path} has {file.metadata.num_rows:,} rows: leave out columns, or save it as .npy")
            for batch in file.iter_batches(batch_size=ROWS):
                size += batch.nbytes
                if size > MOST_UNPACKED:
                    raise ValueError(f"{path} unpacks to more than {MOST_UNPACKED:,} bytes: leave out columns")
                batches.append(batch)
            table = pa.Table.from_batches(batches, file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged, or no Parquet file") from error
    return PointTable(path, dict(zip(_header(path, 1, names), table.columns, strict=True)))


def _write_csv(path: Path, columns: Mapping[str, Any], delimiter: str) -> None:
    values = [column if isinstance(column, list) else _texts(column) for column in columns.values()]
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*values, strict=True))


def _texts(column: Any) -> list[str]:
    """Return values as text from which the same float64 is read again."""
    values = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
    return ["" if value is None else str(value) for value in values]


def _write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with whole_file(path) as partial:
        parquet.write_table(pa.table(dict(columns)), partial)
