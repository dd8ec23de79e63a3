"""Rows of runs that versions before 0.2 wrote: they kept the votes for one class, and are read but not gone on with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from smoothing.drawing.files import ESTIMATION, LEVELS, SELECTION
from smoothing.drawing.stages import Table
from smoothing.storage import whole_lines
from smoothing.votes import Counts
from srs.run.votes import NOT_FINISHED, Record

_SELECTION = ("idx", "label", "sigma", "clean", "class", "radius", "samples", "time")
_LEVELS = ("idx", "sigma")
_ESTIMATION = ("idx", "sigma", "class", "count", "n", "time")


@dataclass(frozen=True, eq=False)
class OldRows:
    """The files of such a run, and what its settings say about them. All that is read is checked.

    Attributes
    ----------
    folder : path
    idx : int array of shape (n,)
        The images of the run, in order.
    sigmas : array of shape (k,)
        The grid.
    chosen_only : bool
        Whether `estimation.tsv` holds each image's own level alone.
    num_classes, n0, n : int
        Classes, selection samples at most, estimation samples exactly.
    """

    folder: Path
    idx: Int64[np.ndarray, " n"]
    sigmas: Float64[np.ndarray, " k"]
    chosen_only: bool
    num_classes: int
    n0: int
    n: int

    def read(self) -> Record:
        """Return the record of the run; `ValueError` where it is damaged or not finished."""
        n, k, most = len(self.idx), len(self.sigmas), self.num_classes - 1
        images, levels = np.arange(n), np.arange(k)
        rows = self._rows(SELECTION, _SELECTION, np.repeat(images, k), np.tile(levels, n))
        rows.integers("samples", 0, self.n0)
        label = rows.integers("label", 0, most).reshape(n, k)
        if (label != label[:, :1]).any():
            raise ValueError(f"{self.folder / SELECTION} gives an image several labels: restore it")
        classes = rows.integers("class", 0, most).reshape(n, k)
        level = self._levels()
        where = np.repeat(images, k), np.tile(levels, n)
        if self.chosen_only:
            where = images, level
        found = self._rows(ESTIMATION, _ESTIMATION, *where)
        if (found.integers("class", 0, most) != classes[where]).any():
            raise ValueError(f"{self.folder / ESTIMATION} does not belong to {SELECTION}: restore both")
        own, drawn = np.zeros((2, 1, n, k), dtype=np.int64)
        own[0][where] = found.integers("count", 0, self.n)
        drawn[0][where] = found.integers("n", self.n, self.n)
        times = np.zeros((n, k))
        times[where] = found.durations("time")
        choosing = rows.durations("time").reshape(n, k).sum(axis=1)
        return Record(
            sigmas=self.sigmas,
            idx=self.idx,
            label=label[:, 0],
            clean=rows.integers("clean", 0, most).reshape(n, k),
            classes=classes,
            expected_radius=rows.floats("radius").reshape(n, k),
            expected_radius_one_sided=rows.floats("radius").reshape(n, k),
            samples=rows.integers("samples", 1, self.n0).reshape(n, k),
            share=np.zeros((n, k)),
            level=level,
            counts=Counts(drawn, own, None, np.full((n, k), -1)),
            seconds=choosing + times[images, level],
            stages={"select": float(choosing.sum()), "certify": float(times.sum())},
        )

    def _levels(self) -> Int64[np.ndarray, " n"]:
        table = self._table(LEVELS, _LEVELS)
        sigma = table.floats("sigma")
        level = np.searchsorted(self.sigmas, sigma).clip(0, len(self.sigmas) - 1)
        if (self.sigmas[level] != sigma).any():
            raise ValueError(f"{self.folder / LEVELS} is damaged: restore it")
        return level

    def _rows(
        self, name: str, header: Sequence[str], images: Int64[np.ndarray, " rows"], levels: Int64[np.ndarray, " rows"]
    ) -> Table:
        """Read a file, and see that its rows are of these images and levels."""
        table = self._table(name, header)
        found = table.integers("idx")
        if len(found) < len(images):
            raise ValueError(f"{self.folder}: {NOT_FINISHED}")
        if len(found) > len(images) or (found != self.idx[images]).any():
            raise ValueError(f"{self.folder / name} holds rows of other images: restore it")
        if (table.floats("sigma") != self.sigmas[levels]).any():
            raise ValueError(f"{self.folder / name} holds rows of other noise levels: restore it")
        return table

    def _table(self, name: str, header: Sequence[str]) -> Table:
        return Table(self.folder / name, header, whole_lines(self.folder / name))
