"""Certification tables: tab-separated rows, radii rounded down, readable by existing analysis scripts."""

import csv
import math
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from smoothing.storage import line_of, replacing

#: The six columns that every certification table starts with.
COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")

#: Decimals of a radius in the six usual columns. Further columns have all their digits, so that rows can be verified.
DIGITS = 6

#: Longest duration, in seconds, and longest line that are taken seriously.
MOST_SECONDS, MOST_CHARACTERS = 1e11, 4096

#: Numbers as programs print them. `int` and `float` also read 0_7 and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

_DAYS = re.compile(r"(\d+) days?", re.ASCII)

_TRUTH = {"true": 1, "false": 0}

_BETWEEN = {",": "commas", ";": "semicolons"}


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
        Wall time spent on the image; NaN where it is unknown.
    extra : mapping of str to array of shape (n,)
        Further columns, in the file's order: int64, float64 or text.
    lines : int array of shape (n,), optional
        Where each row stands in the file that was read.
    """

    idx: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    correct: Int64[np.ndarray, " n"]
    seconds: Float64[np.ndarray, " n"]
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    lines: Int64[np.ndarray, " n"] | None = None


def floor_text(value: float, digits: int = DIGITS) -> str:
    """Write a number rounded DOWN to so many decimals, never up: 0.2999999 with 6 digits is "0.299999".

    The float64 that is read back from the text is never larger than the value, and is written as the same text again.
    """
    number = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR)
    text = format(number, "f").rstrip("0")
    return text + "0" if text.endswith(".") else text


def time_text(seconds: float) -> str:
    """Write a duration as hours, minutes and microsecond-precise seconds: 0:00:13.736080; "nan" where it is unknown."""
    if not 0 <= seconds <= MOST_SECONDS:
        return "nan"
    minutes, rest = divmod(round(seconds * 1e6), 60_000_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}"


def parse_time(text: str) -> float:
    """Read a duration as seconds: plain seconds, hours:minutes:seconds, or Python's 1 day, 0:00:03.25.

    Raises
    ------
    ValueError
        Where the text is none of these, or the duration is negative, not finite or longer than any can be.
    """
    days, comma, rest = text.rpartition(",")
    number = _DAYS.fullmatch(days.strip()) if comma else None
    parts = rest.strip().split(":")
    if (comma and number is None) or len(parts) > 3 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError(f"{text[:60]!r} is not a duration")
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + float(part)
    seconds += 86_400 * float(number[1]) if number else 0
    if not 0 <= seconds <= MOST_SECONDS or any(part.startswith("-") for part in parts):
        raise ValueError(f"{text[:60]!r} is not a duration")
    return seconds


def rows_of(table: CertificateTable) -> list[tuple[str, ...]]:
    """Return a table's rows as text, without the header: radii rounded down to `DIGITS` decimals, `extra` exact."""
    columns = [list(map(str, values.tolist())) for values in (table.idx, table.label, table.predict)]
    columns.append([floor_text(radius) for radius in table.radius.tolist()])
    columns.append(list(map(str, table.correct.tolist())))
    columns.append([time_text(seconds) for seconds in table.seconds.tolist()])
    columns += [list(map(str, values.tolist())) for values in table.extra.values()]
    return list(zip(*columns, strict=True))


def write_certificates(path: str | PathLike[str], table: CertificateTable) -> None:
    """Write a certification table: the radius rounded down to `DIGITS` decimals, further columns with all digits."""
    write_rows(Path(path), [*COLUMNS, *table.extra], rows_of(table))


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a tab-separated file with a header, whole or not at all."""
    with replacing(path) as stream:
        stream.writelines(line_of(row).encode() for row in [header, *rows])


def read_certificates(path: str | PathLike[str]) -> CertificateTable:
    """Read a certification table, ours or another tool's that names the same columns.

    What cannot change the meaning of a row is let pass: columns in another order, further columns and none for the
    time, capital letters and spaces around names and numbers, a byte order mark (UTF-16 is read too), empty lines,
    lines that begin with #, empty fields at the end of a row, quotes around fields, whole numbers written as 7.0, and
    True for 1. A column `correct` that counts the images that are right so far is read as 0 or 1 for each.

    Raises
    ------
    ValueError
        Naming the file and line where the header or a row is not what it should be.
    OSError
        Where the file cannot be read.
    """
    path = Path(path)
    content = path.read_bytes()
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        known = encoding.removesuffix("-sig").upper()
        raise ValueError(
            f"{path} is not a certification log: byte {error.start} is not {known}; give tab-separated text"
        ) from error
    return parse_certificates(path, text)


def parse_certificates(path: Path, text: str) -> CertificateTable:
    """Read a certification table from its text; `path` is what errors name. See `read_certificates`."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [
        (number, _fields(path, number, line))
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise ValueError(f"{path}, line 1: the header is missing; expected {' '.join(COLUMNS)}, separated by tabs")
    header = _header(path, *rows[0])
    numbers, found = [], []
    for number, fields in rows[1:]:
        numbers.append(number)
        found.append(_row(path, number, fields, header))
    columns = {name: [row[i] for row in found] for i, name in reversed(list(enumerate(header)))}

    def parsed(name: str, parse: Callable[[str], float], kind: type) -> np.ndarray:
        pairs = zip(numbers, columns[name], strict=True)
        return np.array([_parse(path, number, name, text, parse) for number, text in pairs], kind)

    idx, label, predict = (parsed(name, _whole, np.int64) for name in ("idx", "label", "predict"))
    radius = parsed("radius", _number, np.float64)
    right = (predict == label).astype(np.int64)
    counts = parsed("correct", _count, np.int64)
    running = right.sum() > 1 and (counts == np.cumsum(right)).all()
    correct = right if running else parsed("correct", _truth, np.int64)
    return CertificateTable(
        idx=idx,
        label=label,
        predict=predict,
        radius=radius,
        correct=correct,
        seconds=np.array([_seconds(text) for text in columns.get("time", [""] * len(found))], np.float64),
        extra={name: _guess(columns[name]) for name in dict.fromkeys(header) if name and name not in COLUMNS},
        lines=np.array(numbers, np.int64),
    )


def _fields(path: Path, number: int, line: str) -> list[str]:
    """Split a line at its tabs; spaces and quotes around fields do not count."""
    if "\0" in line:
        raise ValueError(f"{path}, line {number}: holds a NUL character: the file is damaged, copy it again")
    if len(line) > MOST_CHARACTERS:
        raise ValueError(
            f"{path}, line {number}: has {len(line):,} characters, which no row of a certification log has"
        )
    if '"' not in line:
        return [field.strip() for field in line.split("\t")]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter="\t", strict=True))]
    except csv.Error:
        raise ValueError(f"{path}, line {number}: a quotation mark is out of place; remove it") from None


def _header(path: Path, number: int, fields: list[str]) -> list[str]:
    """Return the names of the columns: ours in small letters, others as they are."""
    header = [name.lower() if name.lower() in COLUMNS else name for name in fields]
    while header and not header[-1]:
        header.pop()
    missing = [name for name in COLUMNS if name not in header and name != "time"]
    where = f"{path}, line {number}: the header is {_short(' '.join(fields))}"
    if missing and len(fields) == 1 and all(name in fields[0].lower() for name in COLUMNS[:5]):
        between = next((name for mark, name in _BETWEEN.items() if mark in fields[0]), "spaces")
        raise ValueError(f"{where}: columns are separated by {between}; write the file anew with tabs between them")
    if missing:
        raise ValueError(f"{where}; expected {' '.join(COLUMNS)}, separated by tabs; it lacks {' '.join(missing)}")
    twice = next((name for name in COLUMNS if header.count(name) > 1), None)
    if twice:
        raise ValueError(f"{where}: it names {twice} twice; leave one out")
    return header


def _row(path: Path, number: int, fields: list[str], header: list[str]) -> list[str]:
    """Return a row with one field for each column."""
    width = len(header)
    whole = fields[:width] if not any(fields[width:]) else fields
    if len(whole) == width - 1 and header[-1] == "time":
        whole = [*whole, ""]
    if len(whole) != width:
        count = "1 field" if len(whole) == 1 else f"{len(whole)} fields"
        raise ValueError(
            f"{path}, line {number}: {count} where the header has {width}: {_short(' '.join(fields))} is no whole "
            "row; remove it, or copy the file again"
        )
    if whole[header.index("idx")].lower() == "idx":
        raise ValueError(f"{path}, line {number}: the header stands here again: give each log in a file of its own")
    return whole


def _parse(path: Path, line: int, name: str, text: str, parse: Callable[[str], float]) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: {name} = {_short(text)} is not {error}") from None


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) and text.lower() not in ("nan", "inf", "-inf"):
        raise ValueError("a number; decimals are written with a point" if "," in text else "a number")
    return float(text)


def _whole(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError("a whole number")
    value = Decimal(text)
    if value.adjusted() > 17:  # Decimal would write out all digits of 1e999999
        raise ValueError("a number that an index or a class can be")
    if value != value.to_integral_value():
        raise ValueError("a whole number")
    return int(value)


def _count(text: str) -> int:
    known = _TRUTH.get(text.lower())
    return _whole(text) if known is None else known


def _truth(text: str) -> int:
    value = _count(text)
    if value not in (0, 1):
        raise ValueError("0 or 1")
    return value


def _seconds(text: str) -> float:
    """Read a time; NaN where it says nothing. No certificate depends on it."""
    try:
        return parse_time(text)
    except ValueError:
        return math.nan


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]} ...")


def _guess(texts: list[str]) -> np.ndarray:
    """Read a column of unknown kind: int64 if it can be, else float64, else text."""
    for parse, kind in ((_whole, np.int64), (float, np.float64)):
        try:
            return np.array([parse(text) for text in texts], kind)
        except ValueError:
            continue
    return np.array(texts)
