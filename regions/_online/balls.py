"""A growing set of balls in memory, and the search for those near a point."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from regions._online.nearby import BallFilter
from regions._online.store import StoredRegions

_CHUNK = 1024  # centres kept in one array ...
_COORDINATES = 1 << 22  # ... or fewer, so that the array has no more coordinates than this
_FEW = 64  # among at most this many balls, all are measured and no filter is used
_SAMPLE = 2048  # number of balls whose principal directions the filter uses
_GROWN = 8  # when there are this many times as many balls as a filter was made for, a new one is made


class GrowingBalls:
    """Centres, radii, sigmas and classes in order of arrival.

    `add` first writes the new balls beyond the present count, and then raises the count by one assignment. So an
    exception at any moment leaves a valid set, and what it left beyond the count is overwritten.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._rows = max(1, min(_CHUNK, _COORDINATES // dimension))
        self._chunks: list[Float64[np.ndarray, "c d"]] = []  # all but the last are full; they are never copied
        self._count = 0
        self._columns = {"radii": np.empty(0), "sigma": np.empty(0), "classes": np.empty(0, dtype=np.int64)}
        self._filter: BallFilter | None = None
        self._filter_made_for = 0

    def __len__(self) -> int:
        return self._count

    @property
    def radii(self) -> Float64[np.ndarray, " n"]:
        """Radii, all > 0."""
        return self._columns["radii"][: self._count]

    @property
    def sigma(self) -> Float64[np.ndarray, " n"]:
        """Noise levels of the balls."""
        return self._columns["sigma"][: self._count]

    @property
    def classes(self) -> Int64[np.ndarray, " n"]:
        """Classes certified at the centres."""
        return self._columns["classes"][: self._count]

    def centres(self, which: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, "k d"]:
        """A copy of the centres with these indices."""
        found = np.empty((which.size, self.dimension))
        for k, i in enumerate(which.tolist()):
            found[k] = self._chunks[i // self._rows][i % self._rows]
        return found

    def add(self, rows: StoredRegions) -> None:
        """Append the balls of these regions."""
        end = self._count + rows.radii.size
        for name, column in self._columns.items():
            if end > column.size:
                column = np.append(column, np.empty(max(column.size, end - column.size, _CHUNK), dtype=column.dtype))
                self._columns[name] = column
            column[self._count : end] = getattr(rows, name)
        done = 0
        while done < rows.radii.size:
            chunk, offset = divmod(self._count + done, self._rows)
            if chunk == len(self._chunks):
                self._chunks.append(np.empty((self._rows, self.dimension)))
            part = rows.centres[done : done + self._rows - offset]
            self._chunks[chunk][offset : offset + len(part)] = part
            done += len(part)
        self._count = end

    def near(
        self, x: Float64[np.ndarray, " d"], reach: float, start: int = 0
    ) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
        """Indices, from `start` on, that include every ball with |x - centre| < radius + reach.

        Also returns a lower bound on |x - centre| - radius for each; balls are sorted by it.
        """
        if self._count - start <= _FEW:
            return np.arange(start, self._count), np.full(self._count - start, -np.inf)
        found, slack = self._whole_filter().near(x, self.radii, reach)
        kept = np.flatnonzero((found >= start) & (slack < reach))
        kept = kept[np.argsort(slack[kept], kind="stable")]
        return found[kept], slack[kept]

    def prepare(self) -> None:
        """Build the filter, so that the first call of `near` does not have to wait for that."""
        if self._count > _FEW:
            self._whole_filter()

    def _whole_filter(self) -> BallFilter:
        if self._filter is None or self._count >= _GROWN * self._filter_made_for:
            sample = np.linspace(0, self._count - 1, min(self._count, _SAMPLE)).astype(np.int64)
            self._filter, self._filter_made_for = BallFilter(self.centres(sample)), self._count
        while (done := len(self._filter)) < self._count:
            number, offset = divmod(done, self._rows)
            part = self._chunks[number][offset : offset + self._count - done]
            self._filter.add(part, self.radii[done : done + len(part)])
        return self._filter
