"""The rows of a run: what was drawn and counted. Everything that a run reports is computed from these."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import Certificates, SigmaChoice
from smoothing.storage import appending, whole_lines
from smoothing.tables import parse_time, time_text, write_rows

SELECTION, LEVELS, ESTIMATION = "selection.tsv", "levels.tsv", "estimation.tsv"

_SELECTION = ("idx", "label", "sigma", "clean", "class", "radius", "samples", "time")
_LEVELS = ("idx", "sigma")
_ESTIMATION = ("idx", "sigma", "class", "count", "n", "time")

_WHOLE = re.compile("-?[0-9]{1,30}")

#: Of int64, and a time in seconds that no run takes.
_LEAST, _MOST, _LONGEST = -(2**63), 2**63 - 1, 1e9

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, eq=False)
class Record:
    """What a run drew and counted, for n images and k levels.

    Attributes
    ----------
    sigmas : array of shape (k,)
        The grid.
    idx, label : int arrays of shape (n,)
        Index in the data set, true class.
    clean, classes : int arrays of shape (n, k)
        Class without noise, and the most voted class of the selection samples, which is the one to certify.
    ranked : array of shape (n, k)
        What the rule ranks by, from selection samples.
    level : int array of shape (n,)
        Where the run certifies each image.
    counts, drawn : int arrays of shape (n, k)
        Votes for `classes` among so many estimation samples; 0 and 0 at levels that were not certified.
    seconds : array of shape (n,)
        Each image's share of the wall time of choosing its level and certifying it there.
    stages : dict of str to float
        Wall time of "select" and "certify", all images together.
    """

    sigmas: Float64[np.ndarray, " k"]
    idx: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    clean: Int64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "n k"]
    ranked: Float64[np.ndarray, "n k"]
    level: Int64[np.ndarray, " n"]
    counts: Int64[np.ndarray, "n k"]
    drawn: Int64[np.ndarray, "n k"]
    seconds: Float64[np.ndarray, " n"]
    stages: dict[str, float]

    @property
    def own_level(self) -> Int64[np.ndarray, " n"]:
        """The level that the rule chooses for each image by itself; another than `level` only where chosen jointly."""
        return np.asarray(self.ranked.argmax(axis=1))

    @property
    def certified(self) -> Bool[np.ndarray, "n k"]:
        """Which images were certified at which level."""
        return np.asarray(self.drawn > 0)


@dataclass(frozen=True, eq=False)
class SelectionRows:
    """`selection.tsv` as far as it is whole; fields as in `Record`."""

    label: Int64[np.ndarray, " n"]
    clean: Int64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "n k"]
    ranked: Float64[np.ndarray, "n k"]
    seconds: Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Limits:
    """What a run's settings say about its rows: classes, selection samples at most, estimation samples exactly."""

    num_classes: int
    n0: int
    n: int


class RecordFiles:
    """The files of a record in a run's folder. They may come from somebody else: all that is read is checked.

    Parameters
    ----------
    folder : path
    idx : int array of shape (n,)
        The images of the run, in order.
    sigmas : array of shape (k,)
        The grid.
    chosen_only : bool
        Whether `estimation.tsv` holds each image's own level alone.
    limits : Limits
        Of the numbers in the rows.
    """

    def __init__(
        self,
        folder: Path,
        idx: Int64[np.ndarray, " n"],
        sigmas: Float64[np.ndarray, " k"],
        chosen_only: bool,
        limits: Limits,
    ) -> None:
        self.folder, self.idx, self.sigmas = folder, idx, sigmas
        self.chosen_only, self.limits = chosen_only, limits
        self._each = 1 if chosen_only else len(sigmas)

    @classmethod
    def existing(
        cls, folder: Path, sigmas: Float64[np.ndarray, " k"], chosen_only: bool, limits: Limits
    ) -> "RecordFiles":
        """Return the files of a record whose images are those of its `levels.tsv`."""
        table = Table(folder / LEVELS, _LEVELS, whole_lines(folder / LEVELS))
        idx = table.integers("idx", 0)
        if len(np.unique(idx)) < len(idx):
            raise ValueError(f"{folder / LEVELS} is damaged: it has an image twice; restore it")
        return cls(folder, idx, sigmas, chosen_only, limits)

    @contextmanager
    def append_selection(self) -> Iterator[Callable[[slice, np.ndarray, np.ndarray, SigmaChoice, float], None]]:
        """Give a function of (images, labels, clean classes, choice, seconds) that appends to `selection.tsv`."""
        with appending(self.folder / SELECTION, _SELECTION, len(self.sigmas)) as append:

            def add(images: slice, label: np.ndarray, clean: np.ndarray, choice: SigmaChoice, seconds: float) -> None:
                idx = self.idx[images]
                share = time_text(seconds / (len(idx) * len(self.sigmas)))
                append(
                    (
                        str(idx[j]),
                        str(label[j]),
                        repr(float(sigma)),
                        str(clean[j, k]),
                        str(choice.classes[j, k]),
                        repr(float(choice.radii[j, k])),
                        str(choice.samples[j, k]),
                        share,
                    )
                    for j in range(len(idx))
                    for k, sigma in enumerate(self.sigmas)
                )

            yield add

    @contextmanager
    def append_estimation(self) -> Iterator[Callable[[slice, np.ndarray, Sequence[Certificates], float], None]]:
        """Give a function of (images, classes, certificates, seconds) that appends to `estimation.tsv`.

        One column of classes and one `Certificates` for every level, or one alone.
        """
        with appending(self.folder / ESTIMATION, _ESTIMATION, self._each) as append:

            def add(images: slice, classes: np.ndarray, found: Sequence[Certificates], seconds: float) -> None:
                idx = self.idx[images]
                share = time_text(seconds / (len(idx) * len(found)))
                append(
                    (
                        str(idx[j]),
                        repr(float(column.sigma[j])),
                        str(classes[j, k]),
                        str(column.counts[j]),
                        str(column.n[j]),
                        share,
                    )
                    for j in range(len(idx))
                    for k, column in enumerate(found)
                )

            yield add

    def write_levels(self, level: Int64[np.ndarray, " n"]) -> None:
        """Write `levels.tsv`."""
        rows = ((str(j), repr(float(sigma))) for j, sigma in zip(self.idx, self.sigmas[level], strict=True))
        write_rows(self.folder / LEVELS, _LEVELS, rows)

    def selected(self) -> SelectionRows:
        """Return the rows of `selection.tsv`; the images of a run that was killed may be fewer than the run's."""
        k = len(self.sigmas)
        table = self._read(SELECTION, _SELECTION, k, np.repeat(self.idx, k), np.tile(self.sigmas, len(self.idx)))
        most = self.limits.num_classes - 1
        table.integers("samples", 0, self.limits.n0)
        label = table.integers("label", 0, most).reshape(-1, k)
        if (label != label[:, :1]).any():
            raise ValueError(f"{self.folder / SELECTION} gives an image several labels: begin in another folder")
        return SelectionRows(
            label=label[:, 0],
            clean=table.integers("clean", 0, most).reshape(-1, k),
            classes=table.integers("class", 0, most).reshape(-1, k),
            ranked=table.floats("radius").reshape(-1, k),
            seconds=table.durations("time").reshape(-1, k).sum(axis=1),
        )

    def levels(self) -> Int64[np.ndarray, " n"] | None:
        """Return each image's level, or None where they are not chosen yet."""
        if not (self.folder / LEVELS).exists():
            return None
        table = self._read(LEVELS, _LEVELS, 1, self.idx, None)
        sigma = table.floats("sigma")
        level = np.searchsorted(self.sigmas, sigma).clip(0, len(self.sigmas) - 1)
        if len(sigma) < len(self.idx) or (self.sigmas[level] != sigma).any():
            raise ValueError(f"{self.folder / LEVELS} is damaged: restore it, or begin in another folder")
        return level

    def estimated(self, selected: SelectionRows, level: Int64[np.ndarray, " n"]) -> int:
        """Return how many images' rows `estimation.tsv` holds; `ValueError` where they are not of these choices."""
        return len(self._estimation(selected, level)[1].integers("idx")) // self._each

    def read(self) -> Record:
        """Return the whole record; `ValueError` where it is damaged, or where the run has not come to its end."""
        selected, level, n, k = self.selected(), self.levels(), len(self.idx), len(self.sigmas)
        if level is None or len(selected.label) < n:
            raise ValueError(f"{self.folder}: the run has not come to its end; go on with srs-certify --resume")
        where, table = self._estimation(selected, level)
        count, drawn, seconds = table.integers("count"), table.integers("n"), table.durations("time")
        if len(count) < n * self._each:
            raise ValueError(f"{self.folder}: the run has not come to its end; go on with srs-certify --resume")
        tables = np.zeros((3, n, k))
        tables[(slice(None), *where)] = count, drawn, seconds
        return Record(
            sigmas=self.sigmas,
            idx=self.idx,
            label=selected.label,
            clean=selected.clean,
            classes=selected.classes,
            ranked=selected.ranked,
            level=level,
            counts=tables[0].astype(np.int64),
            drawn=tables[1].astype(np.int64),
            seconds=selected.seconds + tables[2][np.arange(n), level],
            stages={"select": float(selected.seconds.sum()), "certify": float(seconds.sum())},
        )

    def _estimation(
        self, selected: SelectionRows, level: Int64[np.ndarray, " n"]
    ) -> tuple[tuple[np.ndarray, np.ndarray], "Table"]:
        """Return image and level of every row that `estimation.tsv` is to hold, and the rows that it holds."""
        n, k = len(self.idx), len(self.sigmas)
        at = level[:, None] if self.chosen_only else np.tile(np.arange(k), (n, 1))
        where = np.repeat(np.arange(n), self._each), at.ravel()
        table = self._read(ESTIMATION, _ESTIMATION, self._each, self.idx[where[0]], self.sigmas[where[1]])
        table.integers("n", self.limits.n, self.limits.n)
        found = table.integers("class", 0, self.limits.num_classes - 1)
        table.integers("count", 0, self.limits.n)
        if (found != selected.classes[where][: len(found)]).any():
            raise ValueError(f"{self.folder / ESTIMATION} does not belong to {SELECTION}: begin in another folder")
        return where, table

    def _read(
        self,
        name: str,
        header: Sequence[str],
        together: int,
        idx: Int64[np.ndarray, " rows"],
        sigma: Float64[np.ndarray, " rows"] | None,
    ) -> "Table":
        """Read the whole rows of a file and see that they are those of the first of these images and levels."""
        table = Table(self.folder / name, header, whole_lines(self.folder / name, together))
        found = table.integers("idx")
        if len(found) > len(idx) or (found != idx[: len(found)]).any():
            raise ValueError(f"{self.folder / name} holds rows of other images: begin in another folder")
        if sigma is not None and (table.floats("sigma") != sigma[: len(found)]).any():
            raise ValueError(f"{self.folder / name} holds rows of other noise levels: begin in another folder")
        return table


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

    def integers(self, name: str, least: int = _LEAST, most: int = _MOST) -> Int64[np.ndarray, " rows"]:
        """Return a column of whole numbers, each in [least, most]."""
        values = self._parsed(name, _whole)
        for row, value in enumerate(values):
            if not least <= value <= most:
                wanted = str(least) if least == most else f"from {least} to {most}"
                raise ValueError(f"{self._at(row)}: {name} = {str(value)[:40]}: must be {wanted} in this run")
        return np.array(values, dtype=np.int64)

    def floats(self, name: str) -> Float64[np.ndarray, " rows"]:
        """Return a column of finite numbers >= 0."""
        values = np.array(self._parsed(name, float), dtype=np.float64)
        for row in np.flatnonzero(~np.isfinite(values) | (values < 0))[:1].tolist():
            raise ValueError(f"{self._at(row)}: {name} = {values[row]}: must be finite and >= 0")
        return values

    def durations(self, name: str) -> Float64[np.ndarray, " rows"]:
        """Return a column of times in seconds."""
        values = np.array(self._parsed(name, parse_time), dtype=np.float64)
        for row in np.flatnonzero(~((values >= 0) & (values <= _LONGEST)))[:1].tolist():
            raise ValueError(f"{self._at(row)}: {name} = {values[row]} seconds: must be from 0 to {_LONGEST:g}")
        return values

    def _parsed(self, name: str, parse: Callable[[str], Number]) -> list[Number]:
        values = []
        for row, text in enumerate(self._columns[name]):
            try:
                values.append(parse(text))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{self._at(row)}: {name} = {text[:40]!r} is not a number") from error
        return values

    def _at(self, row: int) -> str:
        return f"{self.path}, line {row + 2}"


def _whole(text: str) -> int:
    """Read a whole number as we write it; Python's own reading takes underscores, spaces and other scripts as well."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)
