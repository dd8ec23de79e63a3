"""Nearest-neighbour caps without listing the whole overlap graph: for when that would be dense.

r_i <= |x_i - x_j| for every conflicting j with R_j > 0, so R_i may be cut to the distance of ANY such j: nothing is
lost for Eq. 10, whichever neighbours a quick search happens to find (docs/mathematics.md, Eq. M4).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions._arithmetic.distances import distances_below, relative_error
from regions._graph import OverlapGraph
from regions._search.pairs import near_neighbours

_NEIGHBOURS = 10
_SAMPLE = 512
_DENSE = 50  # edges per point from which listing them all is not worth it


def sparse_enough(
    points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], labels: tuple[Int64[np.ndarray, " n"], ...]
) -> bool:
    """Whether a sample of pairs suggests fewer than about 50 edges per point."""
    n = len(points)
    if n <= _SAMPLE:
        return True
    rows = np.random.default_rng(0).choice(n, size=_SAMPLE, replace=False)
    i, j = (rows[k] for k in np.triu_indices(_SAMPLE, 1))
    i, j = _conflicting(i, j, R, labels)
    closer, _ = distances_below(points, points, i, j, R[i], R[j])
    return bool(np.count_nonzero(closer) / (_SAMPLE * (_SAMPLE - 1) / 2) * (n - 1) / 2 < _DENSE)


def near_graph(
    points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], labels: tuple[Int64[np.ndarray, " n"], ...]
) -> OverlapGraph:
    """The edges of the overlap graph that lead to one of about ten nearest neighbours."""
    found = [np.empty(0, dtype=np.int64)]
    for a, b in near_neighbours(points, R, _NEIGHBOURS):
        i, j = _conflicting(a, b, R, labels)
        found.append(np.minimum(i, j) * R.size + np.maximum(i, j))
    i, j = np.divmod(np.unique(np.concatenate(found)), max(1, R.size))
    closer, distance = distances_below(points, points, i, j, R[i], R[j])
    return OverlapGraph(R, i[closer], j[closer], distance[closer], relative_error(points.shape[1]))


def _conflicting(
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
    R: Float64[np.ndarray, " n"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
) -> tuple[Int64[np.ndarray, " l"], Int64[np.ndarray, " l"]]:
    conflict = (R[i] > 0) & (R[j] > 0) & (i != j)
    for label in labels:
        conflict &= label[i] != label[j]
    return i[conflict], j[conflict]
