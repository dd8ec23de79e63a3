"""A filter that proposes the balls near a point.

What is computed. Balls are mapped, projected and lifted as in the search for pairs (`regions._search.embedding`). For
one point, a float32 inner product with each ball and one threshold then tell which balls may be near; FAISS computes
them.

Guarantee. No ball that is near is missed (docs/mathematics.md, Eq. M11 and M12).

Cost. O(m) for each ball and query, with m mapped coordinates. Balls can be appended; the projection stays that of the
sample the filter was made for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from regions._search.embedding import SKEW, TINY, Frame, asked
from regions._search.projection import principal_directions

_DIRECTIONS = 64  # principal directions to project on, if there are at least twice as many coordinates
_SPARE = 1e-12  # more than the relative errors of the few float64 operations on a lower bound
_WILD = 1e15  # scaled lengths beyond this could overflow float32 when squared


class BallFilter:
    """Lifted balls in a FAISS index. The projection is chosen for a sample of their centres."""

    def __init__(self, sample: Float64[np.ndarray, "s d"]) -> None:
        import faiss  # loaded only where something is searched

        frame = Frame.around(sample, np.arange(len(sample)))
        if sample.shape[1] >= 2 * _DIRECTIONS:
            z = (sample - frame.centre) * frame.scale
            frame = replace(frame, basis=principal_directions(z, _DIRECTIONS))
        self._frame = frame
        self._index = faiss.IndexFlatIP(frame.width + 2)
        self._norms = np.empty(0)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, centres: Float64[np.ndarray, "k d"], radii: Float64[np.ndarray, " k"]) -> None:
        """Append balls."""
        mapped, norms = self._frame.map(centres, np.arange(radii.size))
        reach = self._frame.reach(radii, norms)
        wild = ~(np.maximum(norms, reach) < _WILD)  # too large for float32: these balls are proposed for every point
        mapped[wild], reach[wild], norms[wild] = 0.0, 0.0, 0.0
        rows = self._frame.lift(mapped, reach, norms)
        rows[wild, -1], norms[wild] = np.inf, np.inf
        start, end = len(self), len(self) + radii.size
        if end > self._norms.size:
            self._norms = np.append(self._norms, np.empty(max(self._norms.size, radii.size)))
        self._norms[start:end] = norms
        self._index.add(rows)

    def near(
        self, x: Float64[np.ndarray, " d"], radii: Float64[np.ndarray, " n"], reach: float
    ) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
        """Indices that include every ball with |x - centre| < radius + reach.

        Also returns a lower bound on |x - centre| - radius for each.
        """
        mapped, norms = self._frame.map(x[None], np.zeros(1, dtype=np.int64))
        least = self._frame.reach(np.array([reach]), norms)
        norm = float(norms[0])
        if not max(norm, float(least[0])) < _WILD:
            return np.arange(len(self)), np.full(len(self), -np.inf)
        query, limit = asked(self._frame.lift(mapped, least, norms))
        found = self._index.range_search(query, float(limit[0]))[2]
        centres = self._index.reconstruct_batch(found)[:, :-2]
        distance = np.linalg.norm(centres - mapped[0].astype(np.float64), axis=1) * (1 - _SPARE)
        below = distance - self._frame.moved * (self._norms[found] + norm) - TINY
        below /= self._frame.scale * (1 + 2 * SKEW)
        return found, below * (1 - np.copysign(_SPARE, below)) - radii[found] * (1 + _SPARE)
