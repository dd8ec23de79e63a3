"""Balls that are added one at a time, and what is around a point: distances by float64, decisions exact."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from regions._online.nearby import BallFilter
from regions._online.store import StoredRegions

_CHUNK = 1024  # rows held in one array ...
_COORDINATES = 1 << 22  # ... unless they have more coordinates than this together
_FEW = 64  # balls that are all measured
_SAMPLE = 2048  # balls whose principal directions are taken
_GROWN = 8  # times as many balls as the filter was made for, and another one is made


class GrowingBalls:
    """Centres, radii, sigmas and classes in order of arrival.

    Balls count from one assignment on, after all of them are in place. What an exception leaves behind is beyond the
    count and is written again.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._rows = max(1, min(_CHUNK, _COORDINATES // dimension))
        self._chunks: list[Float64[np.ndarray, "c d"]] = []  # all full but the last; never copied
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
        """Noise levels."""
        return self._columns["sigma"][: self._count]

    @property
    def classes(self) -> Int64[np.ndarray, " n"]:
        """Classes."""
        return self._columns["classes"][: self._count]

    def centres(self, which: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, "k d"]:
        """Some centres, copied."""
        found = np.empty((which.size, self.dimension))
        for k, i in enumerate(which.tolist()):
            found[k] = self._chunks[i // self._rows][i % self._rows]
        return found

    def add(self, rows: StoredRegions) -> None:
        """Append balls."""
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
        """Balls from `start` on, among them every one with |x - centre| < radius + reach.

        With each, a lower bound of |x - centre| - radius, by which they are sorted.
        """
        if self._count - start <= _FEW:
            return np.arange(start, self._count), np.full(self._count - start, -np.inf)
        found, slack = self._whole_filter().near(x, self.radii, reach)
        kept = np.flatnonzero((found >= start) & (slack < reach))
        kept = kept[np.argsort(slack[kept], kind="stable")]
        return found[kept], slack[kept]

    def prepare(self) -> None:
        """Build what the first look would have to wait for."""
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
