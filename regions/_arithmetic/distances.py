"""Float64 distances of listed pairs, with a proven bound on their error, and exact decisions where that is not enough.

The bound (docs/mathematics.md, Eq. M10): a sum of d rounded squares of rounded differences, in any order, errs by
at most (d + 2) u / (1 - (d + 2) u) with u = 2^-53; the square root halves it and rounds once more.
`relative_error` is more than twice that, so that a second computation of the same kind confirms the first.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real

from regions._arithmetic.exact import closer_than
from regions._arithmetic.loops import scaled_squared_distances, squared_distances
from regions._arithmetic.rounding import UNIT

_SMALL = 1e-250
"""Squares below this may have lost digits to underflow: such pairs are measured again, in units of their own."""
_SUBNORMAL = 2.0**-1070
"""More than rounding may move a length that float64 holds with fewer digits than others."""
_COORDINATES = 1 << 20  # differences taken by one thread at a time


def relative_error(d: int) -> float:
    """Bound on the relative error of a float64 distance in d dimensions (and of its square, halved)."""
    return (d + 8) * UNIT


def raised(distance: Float64[np.ndarray, " k"], error: float) -> Float64[np.ndarray, " k"]:
    """Upper bounds on the true distances, from what `distances_below` rounded down with this `relative_error`."""
    return np.asarray(distance * (1 + 4 * error) + np.where(distance > 0, _SUBNORMAL, 0.0))


def margins_below(
    radii: Float64[np.ndarray, " k"], distance: Float64[np.ndarray, " k"], d: int
) -> Float64[np.ndarray, " k"]:
    """Distances to the boundaries of balls that hold a point, rounded down, from what `distances_below` returned."""
    return np.asarray(np.maximum(np.nextafter(radii - raised(distance, relative_error(d)), 0.0), 0.0))


def distances_below(
    x: Real[np.ndarray, "n d"],
    y: Real[np.ndarray, "m d"],
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
    a: Float64[np.ndarray, " k"],
    b: Float64[np.ndarray, " k"],
) -> tuple[Bool[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Which pairs have |x_i - y_j| < a + b, decided exactly, and their distances rounded down.

    Returns
    -------
    closer : (k,) bool, exact
    distance : (k,) float64, at most the true distance and at least (1 - 2 relative_error(d)) times it for the pairs
        that are closer, at any scale, but for the digits that float64 lacks below 1e-290; 0 where the points are equal
        and nowhere else; meaningless for the pairs that are not closer
    """
    error = relative_error(x.shape[1])
    reach = (a + b) ** 2
    squared = _squared(x, y, i, j, reach * (1 + 4 * error))
    distance = np.sqrt(squared) * (1 - error)
    small = np.flatnonzero(squared < _SMALL)
    if small.size:
        squared[small], reach[small], distance[small] = _measured_closely(
            x, y, i[small], j[small], a[small], b[small], error
        )
    # error + 4 u covers the rounding of `reach` and of these products
    surely_closer = squared * (1 + 2 * error) < reach * (1 - 4 * UNIT)
    surely_not = squared * (1 - 2 * error) > reach * (1 + 4 * UNIT)
    closer = surely_closer
    undecided = np.flatnonzero(~surely_closer & ~surely_not)
    if undecided.size:
        closer[undecided] = closer_than(x, y, i[undecided], j[undecided], a[undecided], b[undecided])
    # inexact pairs of the kernel's early stop are not closer, so their distance is never used
    return closer, distance


def _measured_closely(
    x: Real[np.ndarray, "n d"],
    y: Real[np.ndarray, "m d"],
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
    a: Float64[np.ndarray, " k"],
    b: Float64[np.ndarray, " k"],
    error: float,
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Squared distances and reaches, each pair in a power of two as its unit, and distances rounded down.

    Differences of floats lose nothing to underflow; a unit near the largest of them keeps their squares from it too.
    """
    squared, exponent = np.empty(i.size), np.empty(i.size, dtype=np.int64)
    scaled_squared_distances(x, y, i, j, squared, exponent)
    with np.errstate(over="ignore"):
        reach = (np.ldexp(a, -exponent) + np.ldexp(b, -exponent)) ** 2
    root = np.sqrt(squared) * (1 - error)
    distance = np.ldexp(root, exponent)
    distance = np.where(np.ldexp(distance, -exponent) > root, np.nextafter(distance, 0.0), distance)
    # coordinates are multiples of the smallest float, and so is the distance of points that differ at least as large
    return squared, reach, np.where(squared > 0, np.maximum(distance, np.nextafter(0.0, 1.0)), 0.0)


def _squared(
    x: Real[np.ndarray, "n d"],
    y: Real[np.ndarray, "m d"],
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
    stop: Float64[np.ndarray, " k"],
) -> Float64[np.ndarray, " k"]:
    squared = np.empty(i.size)
    pairs = max(256, _COORDINATES // x.shape[1])
    parts = [slice(start, start + pairs) for start in range(0, i.size, pairs)]
    if len(parts) <= 1:
        squared_distances(x, y, i, j, stop, squared)
        return squared
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda p: squared_distances(x, y, i[p], j[p], stop[p], squared[p]), parts):
            pass
    return squared
