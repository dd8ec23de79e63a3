"""Degrees in the overlap graph, by counting its edges without listing them.

What is computed. The number of conflicting balls that overlap each ball. Two shortcuts avoid looking at pairs. A ball
whose R exceeds the diameter of the set of points overlaps every ball it conflicts with. And points that are equal in
coordinates, R and labels have the same degree, so only one of them is searched.

Guarantee. The degrees are exactly those of `overlap_graph`.

Cost. Memory O(n) and blocks of the search; time at most that of a search among all points.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Real
from numpy.typing import ArrayLike

from regions import _validate
from regions._graph import overlaps
from regions._search.pairs import Progress, distinct

_SPARE = 1e-9  # more than the relative error of a computed diagonal

Labels = tuple[Int64[np.ndarray, " n"], ...]


def overlap_degrees(points: ArrayLike, R: ArrayLike, *, groups: Any = None) -> Int64[np.ndarray, " n"]:
    """Count the edges of every point in the overlap graph: `overlap_graph(...).degree`, but in memory O(n).

    Parameters
    ----------
    points : array-like, shape (n, d) or (n, ...)
        Centres, as for `overlap_graph`.
    R : array-like, shape (n,)
        Upper bounds of the radii, finite and >= 0.
    groups : array-like, shape (n,), or a list or tuple of such arrays, default=None
        Pairs that share a label in ANY of the arrays are not edges.

    Returns
    -------
    (n,) int64

    Raises
    ------
    ValueError
        If an argument is not as described; the message names the value.
    """
    x = _validate.as_points(points)
    return degrees(x, _validate.as_radii(R, len(x)), _validate.as_groups(groups, len(x)))


def degrees(
    x: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], labels: Labels, progress: Progress | None = None
) -> Int64[np.ndarray, " n"]:
    """`overlap_degrees` of validated arguments."""
    degree = np.zeros(R.size, dtype=np.int64)
    positive = np.flatnonzero(R > 0)
    if not positive.size:
        return degree
    wide = _diameter(x) < R
    everybody = _rivals(positive, positive, labels)
    degree[positive] = np.where(wide[positive], everybody, 0)
    narrow = np.flatnonzero((R > 0) & ~wide)
    degree[narrow] = _rivals(narrow, np.flatnonzero(wide), labels)
    rows, member = distinct(x, narrow, R, *labels)
    copies = np.bincount(member, minlength=rows.size)
    among = np.zeros(rows.size)
    one = tuple(label[rows] for label in labels)
    for i, j, _ in overlaps(x[rows], R[rows], one, progress) if rows.size else ():
        among += np.bincount(i, copies[j], rows.size) + np.bincount(j, copies[i], rows.size)
    if not labels:
        among += copies - 1  # copies overlap each other; with labels they share one, so they do not conflict
    degree[narrow] += among.astype(np.int64)[member]
    return degree


def _diameter(x: Real[np.ndarray, "n d"]) -> float:
    """An upper bound on the distance of any two points: the diagonal of their bounding box, rounded upwards."""
    side = x.max(axis=0).astype(np.float64) - x.min(axis=0)
    largest = float(side.max())
    return largest * float(np.linalg.norm(side / largest)) * (1 + _SPARE) if largest > 0 else 0.0


def _rivals(which: Int64[np.ndarray, " k"], among: Int64[np.ndarray, " m"], labels: Labels) -> Int64[np.ndarray, " k"]:
    """For each point of `which`, count the other points of `among` that share no label with it.

    By inclusion and exclusion over the arrays of labels.
    """
    count = np.full(which.size, among.size)
    if not labels:
        return count - np.isin(which, among)
    for size in range(1, len(labels) + 1):
        for some in itertools.combinations(labels, size):
            table = np.column_stack([np.concatenate([label[which], label[among]]) for label in some])
            key = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
            alike = np.bincount(key[which.size :], minlength=int(key.max(initial=-1)) + 1)
            count += (-1) ** size * alike[key[: which.size]]  # a point shares labels with itself: not counted either
    return count
