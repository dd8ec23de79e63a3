"""The tables of a run as they stand, read without the code that wrote them. They may come from anybody."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from smoothing.storage import check_regular

#: Of one table.
_MOST_BYTES = 2**30

_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?", re.ASCII)
_TIME = re.compile(r"([0-9]{1,6}):([0-5][0-9]):([0-5][0-9])\.([0-9]{6})", re.ASCII)
_VOTES = re.compile(r"[0-9]{1,7}:[0-9]{1,10}( [0-9]{1,7}:[0-9]{1,10})*", re.ASCII)


class Table:
    """Columns of a tab-separated file by name; `ValueError` where it is not what it should be."""

    def __init__(self, file: Path, header: Sequence[str]) -> None:
        check_regular(file)
        if not file.exists():
            raise ValueError(f"{file.name}: no such file")
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{file.name}: has more than {_MOST_BYTES:,} bytes")
        self.name, self.columns = file.name, dict[str, list[str]]()
        try:
            text = file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file.name}: is no text") from error
        lines = text.split("\n")
        if lines.pop():
            raise ValueError(f"{file.name}: its last line is torn")
        rows = [line.split("\t") for line in lines]
        if not rows or rows[0] != list(header):
            raise ValueError(f"{file.name}: the header must be {' '.join(header)}")
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise ValueError(f"{file.name}, line {number}: {len(row)} fields where the header has {len(header)}")
        self.rows = len(rows) - 1
        self.columns = {name: [row[at] for row in rows[1:]] for at, name in enumerate(header)}

    def texts(self, name: str) -> list[str]:
        """Return a column as it is written."""
        return self.columns[name]

    def wholes(self, name: str) -> list[int]:
        """Return a column of whole numbers."""
        return [int(self._matched(row, name, _WHOLE)[0]) for row in range(self.rows)]

    def numbers(self, name: str) -> list[float]:
        """Return a column of numbers >= 0."""
        return [float(self._matched(row, name, _NUMBER)[0]) for row in range(self.rows)]

    def microseconds(self, name: str) -> list[int | None]:
        """Return a column of times; None where one is not known."""
        found: list[int | None] = []
        for row in range(self.rows):
            if self.columns[name][row] == "nan":
                found.append(None)
                continue
            hours, minutes, seconds, rest = map(int, self._matched(row, name, _TIME).groups())
            found.append(((hours * 60 + minutes) * 60 + seconds) * 10**6 + rest)
        return found

    def error(self, row: int, reason: str) -> ValueError:
        """Return an error about a row, counted from 0 below the header."""
        return ValueError(f"{self.name}, line {row + 2}: {reason}")

    def _matched(self, row: int, name: str, wanted: re.Pattern[str]) -> re.Match[str]:
        text = self.columns[name][row]
        found = wanted.fullmatch(text)
        if found is None:
            raise self.error(row, f"{name} = {text[:40]!r} is not written as it should be")
        return found


class Top(NamedTuple):
    """The votes that bounds are made of: for a class, and for the most voted of the others."""

    own: int
    other: int
    rival: int


@dataclass(frozen=True)
class Cell:
    """The votes of an image at a level after each round of drawing.

    Attributes
    ----------
    sizes : tuple of int
        Samples drawn in all after each round.
    votes : tuple of mapping of int to int
        Votes of every class that has any, after each round.
    complete : bool
        Whether votes of all classes are known: runs of format 1 kept those of one.
    """

    sizes: tuple[int, ...]
    votes: tuple[Mapping[int, int], ...]
    complete: bool = True

    def winner(self, after: int = -1) -> int:
        """Return the most voted class after a round, the first of several."""
        votes = self.votes[after]
        return min(votes, key=lambda one: (-votes[one], one))

    def top(self, one: int, after: int = -1) -> Top:
        """Return the votes for a class and for its runner-up, which is -1 where no other class has a vote."""
        votes = self.votes[after]
        rest = {other: count for other, count in votes.items() if other != one}
        if not rest:
            return Top(votes.get(one, 0), 0, -1)
        rival = min(rest, key=lambda other: (-rest[other], other))
        return Top(votes.get(one, 0), rest[rival], rival)


def cells_of(table: Table, rungs: Sequence[int], num_classes: int) -> list[Cell]:
    """Return the columns `n` and `votes` of a table, in which each round must add to the one before it."""
    found = []
    for row, (sizes, votes) in enumerate(zip(table.texts("n"), table.texts("votes"), strict=True)):
        drawn, parts = sizes.split(","), votes.split(",")
        if drawn != [str(rung) for rung in rungs[: len(drawn)]]:
            raise table.error(row, f"n = {sizes[:40]}: must be the first of {', '.join(map(str, rungs))}")
        if len(parts) != len(drawn):
            raise table.error(row, f"votes = {votes[:40]!r}: must have a part for each number of n = {sizes[:40]}")
        rounds: list[Mapping[int, int]] = []
        for size, text in zip(rungs, parts, strict=False):
            if not _VOTES.fullmatch(text):
                raise table.error(row, f"votes = {text[:40]!r} are not written as class:count pairs")
            pairs = [(int(one), int(count)) for one, count in (pair.split(":") for pair in text.split(" "))]
            classes, now = [one for one, _ in pairs], dict(pairs)
            if classes != sorted(now) or classes[-1] >= num_classes:
                raise table.error(row, f"votes = {text[:40]!r}: classes must increase, from 0 to {num_classes - 1}")
            if sum(now.values()) != size or min(now.values()) < 1:
                raise table.error(row, f"votes = {text[:40]!r}: must be from 1 on and add up to {size}")
            if rounds and any(now.get(one, 0) < count for one, count in rounds[-1].items()):
                raise table.error(row, f"votes = {text[:40]!r}: are fewer than after fewer samples")
            rounds.append(now)
        found.append(Cell(tuple(rungs[: len(rounds)]), tuple(rounds)))
    return found
