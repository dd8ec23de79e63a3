"""Certification tables: tab-separated rows, radii rounded down, readable by existing analysis scripts."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from smoothing.files import replacing

#: The six columns that every certification table starts with.
COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")

#: Decimals of a written radius or probability.
DIGITS = 6

#: Columns that are settings, not bounds: written with every digit they have.
EXACT = frozenset({"sigma"})


@dataclass(frozen=True, eq=False)
class CertificateTable:
    """One row per certified image.

    Attributes
    ----------
    idx, label, predict : int arrays of shape (n,)
        Index in the data set, true class, certified class or -1.
    radius : array of shape (n,)
        Certified l2 radius, 0 where abstained.
    correct : int array of shape (n,)
        1 where predict is label, else 0.
    seconds : array of shape (n,)
        Wall time spent on the image.
    extra : mapping of str to array of shape (n,)
        Further columns, in the file's order: int64, float64 or text.
    """

    idx: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    correct: Int64[np.ndarray, " n"]
    seconds: Float64[np.ndarray, " n"]
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)


def floor_text(value: float, digits: int = DIGITS) -> str:
    """Write a number rounded DOWN to so many decimals, never up: 0.2999999 with 6 digits is "0.299999".

    The float64 that is read back from the text is never larger than the value, and is written as the same text again.
    """
    text = format(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR), "f").rstrip("0")
    return text + "0" if text.endswith(".") else text


def time_text(seconds: float) -> str:
    """Write a duration as hours, minutes and microsecond-precise seconds: 0:00:13.736080."""
    minutes, rest = divmod(round(seconds * 1e6), 60_000_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}"


def parse_time(text: str) -> float:
    """Read a duration, either hours:minutes:seconds or plain seconds, as seconds."""
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def rows_of(table: CertificateTable) -> list[tuple[str, ...]]:
    """Return a table's rows as text, without the header; bounds are rounded down to `DIGITS` decimals."""
    columns = [_texts(values) for values in (table.idx, table.label, table.predict, table.radius, table.correct)]
    columns.append([time_text(seconds) for seconds in table.seconds.tolist()])
    columns += [_texts(values, exact=name in EXACT) for name, values in table.extra.items()]
    return list(zip(*columns, strict=True))


def write_certificates(path: Path, table: CertificateTable) -> None:
    """Write a certification table; bounds are rounded down to `DIGITS` decimals."""
    write_rows(path, [*COLUMNS, *table.extra], rows_of(table))


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a tab-separated file with a header, whole or not at all."""
    with replacing(path) as stream:
        stream.writelines(line_of(row).encode() for row in [header, *rows])


def line_of(fields: Sequence[str]) -> str:
    """Return one line of a tab-separated file. Fields are numbers and names: nothing that would need quotes."""
    return "\t".join(fields) + "\n"


def read_certificates(path: Path) -> CertificateTable:
    """Read a certification table, ours or another tool's with the same six first columns.

    Raises
    ------
    ValueError
        Naming the file and line where the header or a row is not what it should be.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        return parse_certificates(path, stream)


def parse_certificates(path: Path, stream: Iterable[str]) -> CertificateTable:
    """Read a certification table from lines of text; `path` is what errors name. See `read_certificates`."""
    lines = list(csv.reader(stream, delimiter="\t"))
    header = lines[0] if lines else []
    if tuple(header[: len(COLUMNS)]) != COLUMNS:
        raise ValueError(f"{path}, line 1: the header is {header}; expected it to start with {' '.join(COLUMNS)}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise ValueError(f"{path}, line {number}: {len(line)} fields where the header has {len(header)}")
    columns = {name: [line[i] for line in lines[1:]] for i, name in enumerate(header)}

    def parsed(name: str, parse: Callable[[str], float], kind: type) -> np.ndarray:
        return np.array([_parse(path, row, name, text, parse) for row, text in enumerate(columns[name], start=2)], kind)

    return CertificateTable(
        idx=parsed("idx", int, np.int64),
        label=parsed("label", int, np.int64),
        predict=parsed("predict", int, np.int64),
        radius=parsed("radius", float, np.float64),
        correct=parsed("correct", int, np.int64),
        seconds=parsed("time", parse_time, np.float64),
        extra={name: _guess(columns[name]) for name in header[len(COLUMNS) :]},
    )


def _texts(values: np.ndarray, exact: bool = False) -> list[str]:
    """Write a column: whole numbers and exact columns as they are, all others rounded down."""
    as_is = exact or values.dtype.kind == "i"
    return [str(value) if as_is else floor_text(value) for value in values.tolist()]


def _parse(path: Path, line: int, name: str, text: str, parse: Callable[[str], float]) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {name} = {text!r} is not a number") from error


def _guess(texts: list[str]) -> np.ndarray:
    """Read a column of unknown kind: int64 if it can be, else float64, else text."""
    column = np.array(texts)
    for kind in (np.int64, np.float64):
        try:
            return column.astype(kind)
        except ValueError:
            continue
    return column
