"""The rows of a run: what was drawn and counted. Everything that a run reports is computed from these."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import Certificates, SigmaChoice
from smoothing.appending import appending, whole_lines
from smoothing.tables import parse_time, time_text, write_rows

SELECTION, LEVELS, ESTIMATION = "selection.tsv", "levels.tsv", "estimation.tsv"

_SELECTION = ("idx", "label", "sigma", "clean", "class", "radius", "samples", "time")
_LEVELS = ("idx", "sigma")
_ESTIMATION = ("idx", "sigma", "class", "count", "n", "time")


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


class RecordFiles:
    """The files of a record in a run's folder.

    Parameters
    ----------
    folder : path
    idx : int array of shape (n,)
        The images of the run, in order.
    sigmas : array of shape (k,)
        The grid.
    chosen_only : bool
        Whether `estimation.tsv` holds each image's own level alone.
    """

    def __init__(
        self, folder: Path, idx: Int64[np.ndarray, " n"], sigmas: Float64[np.ndarray, " k"], chosen_only: bool
    ) -> None:
        self.folder, self.idx, self.sigmas = folder, idx, sigmas
        self.chosen_only = chosen_only
        self._each = 1 if chosen_only else len(sigmas)

    @classmethod
    def existing(cls, folder: Path, sigmas: Float64[np.ndarray, " k"], chosen_only: bool) -> "RecordFiles":
        """Return the files of a record whose images are those of its `levels.tsv`."""
        idx = _Table(folder / LEVELS, _LEVELS, whole_lines(folder / LEVELS)).integers("idx")
        return cls(folder, idx, sigmas, chosen_only)

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
        return SelectionRows(
            label=table.integers("label")[::k],
            clean=table.integers("clean").reshape(-1, k),
            classes=table.integers("class").reshape(-1, k),
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

    def estimated(self) -> int:
        """Return how many images' rows `estimation.tsv` holds."""
        return max(0, len(whole_lines(self.folder / ESTIMATION, self._each)) - 1) // self._each

    def read(self) -> Record:
        """Return the whole record; `ValueError` where it is damaged, or where the run has not come to its end."""
        selected, level, n, k = self.selected(), self.levels(), len(self.idx), len(self.sigmas)
        if level is None or len(selected.label) < n or self.estimated() < n:
            raise ValueError(f"{self.folder}: the run has not come to its end; go on with srs-certify --resume")
        at = level[:, None] if self.chosen_only else np.tile(np.arange(k), (n, 1))
        rows = np.repeat(np.arange(n), self._each)
        where = rows, at.ravel()
        table = self._read(ESTIMATION, _ESTIMATION, self._each, self.idx[rows], self.sigmas[at.ravel()])
        count, drawn, seconds = table.integers("count"), table.integers("n"), table.durations("time")
        if (table.integers("class") != selected.classes[where]).any() or (count > drawn).any() or (count < 0).any():
            raise ValueError(f"{self.folder / ESTIMATION} does not belong to {SELECTION}: begin in another folder")
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

    def _read(
        self,
        name: str,
        header: Sequence[str],
        together: int,
        idx: Int64[np.ndarray, " rows"],
        sigma: Float64[np.ndarray, " rows"] | None,
    ) -> "_Table":
        """Read the whole rows of a file and see that they are those of the first of these images and levels."""
        table = _Table(self.folder / name, header, whole_lines(self.folder / name, together))
        found = table.integers("idx")
        if len(found) > len(idx) or (found != idx[: len(found)]).any():
            raise ValueError(f"{self.folder / name} holds rows of other images: begin in another folder")
        if sigma is not None and (table.floats("sigma") != sigma[: len(found)]).any():
            raise ValueError(f"{self.folder / name} holds rows of other noise levels: begin in another folder")
        return table


class _Table:
    """Columns of a tab-separated file by name, with errors that name file and line."""

    def __init__(self, path: Path, header: Sequence[str], lines: Sequence[str]) -> None:
        self.path = path
        if lines and lines[0] != "\t".join(header):
            raise ValueError(f"{path}, line 1: the header is {lines[0]!r}; expected {' '.join(header)}")
        rows = [line.split("\t") for line in lines[1:]]
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise ValueError(f"{path}, line {number}: {len(row)} fields where the header has {len(header)}")
        self._columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}

    def integers(self, name: str) -> Int64[np.ndarray, " rows"]:
        return np.array(self._parsed(name, int), dtype=np.int64)

    def floats(self, name: str) -> Float64[np.ndarray, " rows"]:
        values = np.array(self._parsed(name, float), dtype=np.float64)
        for row in np.flatnonzero(~np.isfinite(values) | (values < 0))[:1]:
            raise ValueError(f"{self.path}, line {row + 2}: {name} = {values[row]}: must be finite and >= 0")
        return values

    def durations(self, name: str) -> Float64[np.ndarray, " rows"]:
        return np.array(self._parsed(name, parse_time), dtype=np.float64)

    def _parsed(self, name: str, parse: Callable[[str], float]) -> Iterable[float]:
        values = []
        for number, text in enumerate(self._columns[name], start=2):
            try:
                values.append(parse(text))
            except ValueError as error:
                raise ValueError(f"{self.path}, line {number}: {name} = {text!r} is not a number") from error
        return values
