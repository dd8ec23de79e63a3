"""Answers known by other means. Shares no code with what it checks."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import scipy.sparse
from scipy.optimize import linprog


def _flat(points):
    points = np.asarray(points, dtype=float)
    return points.reshape(len(points), int(np.prod(points.shape[1:])))


def conflicts(groups, i, j):
    """Whether points i and j must not overlap: they share a label in no array of labels."""
    return all(labels[i] != labels[j] for labels in groups)


def squared_distance(x, y):
    """Exactly, as a fraction."""
    return sum(((Fraction(float(p)) - Fraction(float(q))) ** 2 for p, q in zip(x, y, strict=True)), Fraction())


def edges(points, R, groups=()):
    """Exact overlap graph: pairs of positive bounds with |x_i - x_j| < R_i + R_j."""
    points = _flat(points)
    return [
        (i, j)
        for i, j in combinations(range(len(points)), 2)
        if R[i] > 0
        and R[j] > 0
        and conflicts(groups, i, j)
        and squared_distance(points[i], points[j]) < (Fraction(float(R[i])) + Fraction(float(R[j]))) ** 2
    ]


def overlaps(points, radii, groups=()):
    """Exact list of conflicting pairs of non-empty balls that overlap."""
    return edges(points, radii, groups)


def optimum(points, R, groups=(), weights=None, r_min=0.0):
    """Optimal value of Eq. 10 over ALL conflicting pairs of positive bounds, by scipy on lengths scaled to 1.

    With `r_min`: under the further constraint that no radius is below it, which must be possible.
    """
    points = _flat(points)
    R = np.asarray(R, dtype=float)
    n = len(R)
    weights = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    if not n or not R.max():
        return 0.0
    scale = R.max()
    pairs = [(i, j) for i, j in combinations(range(n), 2) if R[i] > 0 and R[j] > 0 and conflicts(groups, i, j)]
    bounds = np.column_stack([np.full(n, r_min / scale), R / scale])
    rows = None
    limits = None
    if pairs:
        i, j = np.array(pairs).T
        k = np.arange(len(pairs))
        rows = scipy.sparse.csr_array((np.ones(2 * k.size), (np.r_[k, k], np.r_[i, j])), shape=(k.size, n))
        limits = np.linalg.norm(points[i] - points[j], axis=1) / scale
    result = linprog(-weights, A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
    assert result.status == 0
    return -result.fun * scale


def max_min(points, R, groups=()):
    """Lexicographic max-min radii by linear programs, up to about 1e-6 of the largest bound.

    Find the largest level that all who may still rise can reach together; who cannot exceed it alone, while the others
    keep what they have, stays there.
    """
    points, R = _flat(points), np.asarray(R, dtype=float)
    n = len(R)
    scale = R.max(initial=0.0) or 1.0
    pairs = [(i, j) for i, j in combinations(range(n), 2) if R[i] > 0 and R[j] > 0 and conflicts(groups, i, j)]
    A = np.zeros((len(pairs), n + 1))
    for k, (i, j) in enumerate(pairs):
        A[k, [i, j]] = 1
    b = np.array([np.linalg.norm(points[i] - points[j]) for i, j in pairs]) / scale
    lower, upper = np.zeros(n), R / scale
    rising = list(range(n))

    def most(k, rows, limits):
        bounds = [*zip(lower, upper, strict=True), (0, None)]
        result = linprog(-np.eye(n + 1)[k], A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
        return -result.fun

    while rising:
        floor = np.zeros((len(rising), n + 1))
        floor[np.arange(len(rising)), rising] = -1
        floor[:, n] = 1
        level = most(n, np.vstack([A, floor]), np.append(b, np.zeros(len(rising))))
        lower[rising] = max(level - 1e-9, 0.0)
        stopped = [k for k in rising if most(k, A, b) <= level + 1e-6]
        assert stopped
        upper[stopped] = np.minimum(upper[stopped], level)
        lower[stopped] = np.minimum(lower[stopped], upper[stopped])
        rising = [k for k in rising if k not in stopped]
    return lower * scale


def greedy(points, R, order, groups=()):
    """Eq. 11 as the paper writes it, ball by ball over all earlier balls.

    A room of less than 1e-12 of the largest bound is rounding and counts as none: it would make the ball non-empty.
    """
    points = _flat(points)
    radii = np.zeros(len(R))
    placed = []
    for k in order:
        room = R[k]
        for i in placed:
            if radii[i] > 0 and conflicts(groups, i, k):
                room = min(room, np.linalg.norm(points[i] - points[k]) - radii[i])
        radii[k] = room if room > 1e-12 * max(R) else 0.0
        placed.append(k)
    return radii
