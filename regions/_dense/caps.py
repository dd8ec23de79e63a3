"""Caps on the radii from a few near neighbours, for instances whose overlap graph is dense.

What is computed. An estimate of the number of edges, and a graph of the edges from every point to about ten near
neighbours. The caps that this graph gives (`nearest_caps`) often leave few pairs that can overlap.

Guarantee. Lowering R to these caps changes neither the feasible set of Eq. 10 nor its optimum: r_i <= |x_i - x_j| for
EVERY conflicting j with R_j > 0, so any such j will do, even if the search missed nearer ones (docs/mathematics.md,
Eq. M4).

Cost. A heuristic search for near neighbours (`near_neighbours`).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions._arithmetic.distances import distances_below, relative_error
from regions._graph import OverlapGraph
from regions._search.pairs import near_neighbours

_NEIGHBOURS = 10  # near neighbours of every point that are searched
_SAMPLE = 512  # number of points from whose pairs the number of edges is estimated
_DENSE = 50  # with this many edges per point, they are not listed


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
    """The edges of the overlap graph from every point to those of about ten near neighbours that conflict with it."""
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
