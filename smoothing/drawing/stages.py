"""Rows that several processes write and that a kill does not lose: parts while they are written, one file at the end.

A stage is a table with the same number of rows for every image of a run. A process appends the rows of its share of
the images to a part, `FILE.part0` and so on. When all rows are there, they are put together as `FILE`, in the order of
the images, and the parts are removed. Whatever was killed in between, and however many processes began the run, what is
in the parts counts.
"""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float64, Int64

from smoothing.storage import Append, appending, whole_lines
from smoothing.tables import parse_time, write_rows

_WHOLE = re.compile("-?[0-9]{1,30}")

_PART = re.compile(r"\.part[0-9]{1,9}", re.ASCII)

#: Of int64, and a time in seconds that no run takes.
_LEAST, _MOST, _LONGEST = -(2**63), 2**63 - 1, 1e9

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Share:
    """The images that one of several processes works on: every `of`-th, from the `number`-th on.

    Attributes
    ----------
    number : int, default=0
        Which process, from 0.
    of : int, default=1
        How many processes.
    """

    number: int = 0
    of: int = 1

    def positions(self, n: int) -> Int64[np.ndarray, " share"]:
        """Return the share of n images."""
        return np.arange(self.number, n, self.of)

    def __str__(self) -> str:
        """Return what people call it, 1/4 for the first of four."""
        return f"{self.number + 1}/{self.of}"


class Table:
    """Columns of a tab-separated file by name, with errors that name file and line."""

    def __init__(self, path: Path, header: Sequence[str], lines: Sequence[str]) -> None:
        self.path = path
        if lines and lines[0] != "\t".join(header):
            raise ValueError(f"{path}, line 1: the header is {lines[0][:200]!r}; expected {' '.join(header)}")
        rows = [line.split("\t") for line in lines[1:]]
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise ValueError(f"{path}, line {number}: {len(row)} fields where the header has {len(header)}")
        self._columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}

    def texts(self, name: str) -> list[str]:
        """Return a column as it is written."""
        return self._columns[name]

    def integers(self, name: str, least: int = _LEAST, most: int = _MOST) -> Int64[np.ndarray, " rows"]:
        """Return a column of whole numbers, each in [least, most]."""
        values = self._parsed(name, _whole)
        for row, value in enumerate(values):
            if not least <= value <= most:
                wanted = str(least) if least == most else f"from {least} to {most}"
                raise self.error(row, f"{name} = {str(value)[:40]}: must be {wanted} in this run")
        return np.array(values, dtype=np.int64)

    def floats(self, name: str) -> Float64[np.ndarray, " rows"]:
        """Return a column of finite numbers >= 0."""
        values = np.array(self._parsed(name, float), dtype=np.float64)
        for row in np.flatnonzero(~np.isfinite(values) | (values < 0))[:1].tolist():
            raise self.error(row, f"{name} = {values[row]}: must be finite and >= 0")
        return values

    def durations(self, name: str) -> Float64[np.ndarray, " rows"]:
        """Return a column of times in seconds."""
        values = np.array(self._parsed(name, parse_time), dtype=np.float64)
        for row in np.flatnonzero(~((values >= 0) & (values <= _LONGEST)))[:1].tolist():
            raise self.error(row, f"{name} = {values[row]} seconds: must be from 0 to {_LONGEST:g}")
        return values

    def error(self, row: int, reason: str) -> ValueError:
        """Return an error about a row, counted from 0 below the header."""
        return ValueError(f"{self.path}, line {row + 2}: {reason}")

    def _parsed(self, name: str, parse: Callable[[str], Number]) -> list[Number]:
        values = []
        for row, text in enumerate(self._columns[name]):
            try:
                values.append(parse(text))
            except (ValueError, OverflowError) as error:
                raise self.error(row, f"{name} = {text[:40]!r} is not a number") from error
        return values


def _whole(text: str) -> int:
    """Read a whole number as we write it; Python's own reading takes underscores, spaces and other scripts as well."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


class Stage:
    """One table of a run: `each` rows for every image, with the column idx and one called time.

    Parameters
    ----------
    file : path
        Where the table is when it is whole.
    header : sequence of str
        Its columns.
    idx : int array of shape (n,)
        The images' indices, in the order of the run, none twice.
    each : int
        Rows for each image.
    """

    def __init__(self, file: Path, header: Sequence[str], idx: Int64[np.ndarray, " n"], each: int) -> None:
        self.file, self.header, self.idx, self.each = file, tuple(header), idx, each
        self._order = np.argsort(idx, kind="stable")

    def parts(self) -> list[Path]:
        """Return every process's rows, also those of earlier starts with more processes."""
        beside = self.file.parent.glob(f"{glob.escape(self.file.name)}.part*")
        return sorted(file for file in beside if _PART.fullmatch(file.name[len(self.file.name) :]))

    def tables(self) -> list[tuple[Table, Int64[np.ndarray, " images"]]]:
        """Return what is on disk: tables, and which images of the run their rows are of.

        Raises
        ------
        ValueError
            Where rows are of other images, or not together.
        """
        whole = self.file.exists()
        found = [self._read(file, whole) for file in ([self.file] if whole else self.parts())]
        # another process may have put the parts together meanwhile
        return found if whole or not self.file.exists() else self.tables()

    def _read(self, file: Path, whole: bool) -> tuple[Table, Int64[np.ndarray, " images"]]:
        table = Table(file, self.header, whole_lines(file, self.each))
        idx = table.integers("idx").reshape(-1, self.each)
        at = self._order[np.searchsorted(self.idx, idx[:, 0], sorter=self._order).clip(0, len(self.idx) - 1)]
        if (idx != self.idx[at][:, None]).any():
            raise ValueError(f"{file} holds rows of other images: begin in another folder")
        if len(np.unique(at)) < len(at):
            raise ValueError(f"{file} is damaged: it has an image twice; restore it, or begin in another folder")
        if whole and not np.array_equal(at, np.arange(len(self.idx))):
            raise ValueError(f"{file} is damaged: it holds rows of {len(at)} of {len(self.idx)} images; restore it")
        return table, at

    def done(self) -> Int64[np.ndarray, " images"]:
        """Return which images of the run have their rows on disk, in increasing order."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(at for _, at in self.tables())]))

    def missing(self) -> Int64[np.ndarray, " images"]:
        """Return which images of the run lack their rows, in increasing order."""
        return np.setdiff1d(np.arange(len(self.idx)), self.done())

    @contextmanager
    def appending(self, share: Share) -> Iterator[Append]:
        """Give a function that appends rows to a process's part; the caller sees to it that it is the only one."""
        with appending(self.part(share), self.header, self.each) as append:
            yield append

    def part(self, share: Share) -> Path:
        """Return the file of a process."""
        return self.file.with_name(f"{self.file.name}.part{share.number}")

    def merge(self) -> None:
        """Put all parts together, in the order of the images; every image must have its rows."""
        if self.file.exists():
            self._forget_parts()  # a kill may have left them
            return
        rows: dict[int, list[tuple[str, ...]]] = {}
        for table, images in self.tables():
            lines = list(zip(*(table.texts(name) for name in self.header), strict=True))
            for number, image in enumerate(images.tolist()):
                mine = lines[number * self.each : (number + 1) * self.each]
                if self._but_for_time(rows.setdefault(image, mine)) != self._but_for_time(mine):
                    raise ValueError(
                        f"{table.path} and another part have different rows of image {self.idx[image]}: delete one"
                    )
        write_rows(self.file, self.header, (row for image in range(len(self.idx)) for row in rows[image]))
        self._forget_parts()

    def _forget_parts(self) -> None:
        for part in self.parts():
            part.unlink(missing_ok=True)

    def _but_for_time(self, rows: Sequence[Sequence[str]]) -> list[list[str]]:
        time = self.header.index("time")
        return [[text for column, text in enumerate(row) if column != time] for row in rows]
