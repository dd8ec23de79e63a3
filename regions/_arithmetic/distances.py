"""Distances of given pairs of points, and whether each is smaller than the sum of two radii.

What is computed. Distances in float64, rounded down, and an exact decision for each pair. Pairs for which the error
bound leaves the decision open are decided by integer arithmetic (`exact`).

Guarantee. A sum of d rounded squares of rounded differences, in any order, has a relative error of at most
(d + 2) u / (1 - (d + 2) u) with u = 2^-53; the square root halves that and rounds once more (docs/mathematics.md,
Eq. M10). `relative_error` is more than twice this, so that a second computation of the same kind confirms the first.

Cost. O(d) for each pair, with all cores.
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
"""Squares below this may have lost digits to underflow: such pairs are scaled and measured again."""
_SUBNORMAL = 2.0**-1070
"""More than the rounding error of a subnormal length, which float64 holds with fewer digits."""
_COORDINATES = 1 << 20  # coordinates that one thread subtracts at a time


def relative_error(d: int) -> float:
    """Bound on the relative error of a float64 distance in d dimensions, and on half that of its square."""
    return (d + 8) * UNIT


def raised(distance: Float64[np.ndarray, " k"], error: float) -> Float64[np.ndarray, " k"]:
    """Upper bounds on the true distances. `distance` comes from `distances_below`, `error` from `relative_error`."""
    return np.asarray(distance * (1 + 4 * error) + np.where(distance > 0, _SUBNORMAL, 0.0))


def margins_below(
    radii: Float64[np.ndarray, " k"], distance: Float64[np.ndarray, " k"], d: int
) -> Float64[np.ndarray, " k"]:
    """How far points lie inside balls: radius minus distance, rounded down.

    `distance` comes from `distances_below`.
    """
    return np.asarray(np.maximum(np.nextafter(radii - raised(distance, relative_error(d)), 0.0), 0.0))


def distances_below(
    x: Real[np.ndarray, "n d"],
    y: Real[np.ndarray, "m d"],
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
    a: Float64[np.ndarray, " k"],
    b: Float64[np.ndarray, " k"],
) -> tuple[Bool[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Decide exactly which pairs have |x_i - y_j| < a + b, and compute their distances, rounded down.

    Returns
    -------
    closer : (k,) bool
        Whether |x_i - y_j| < a + b, without any rounding.
    distance : (k,) float64
        For the pairs that are closer: at most the true distance, and at least (1 - 2 relative_error(d)) times it.
        (Distances below 1e-290, which float64 holds with fewer digits, may be lower.) It is 0 only where the points are
        equal. For the other pairs it means nothing.
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
    # `squared` errs by less than 2 error, `reach` and these products by less than 4 u
    surely_closer = squared * (1 + 2 * error) < reach * (1 - 4 * UNIT)
    surely_not = squared * (1 - 2 * error) > reach * (1 + 4 * UNIT)
    closer = surely_closer
    undecided = np.flatnonzero(~surely_closer & ~surely_not)
    if undecided.size:
        closer[undecided] = closer_than(x, y, i[undecided], j[undecided], a[undecided], b[undecided])
    # the loop stops early for some pairs with an incomplete sum; these are not closer, so their distance is not used
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
    """Measure pairs so close that squares of their differences underflow, each in a unit of its own.

    The unit is a power of two near the largest difference of coordinates. In it, squares do not underflow. (Differences
    of floats never lose digits to underflow.) Returns squared distances and squared reaches in these units, and
    distances, rounded down, in the unit of the points.
    """
    squared, exponent = np.empty(i.size), np.empty(i.size, dtype=np.int64)
    scaled_squared_distances(x, y, i, j, squared, exponent)
    with np.errstate(over="ignore"):
        reach = (np.ldexp(a, -exponent) + np.ldexp(b, -exponent)) ** 2
    root = np.sqrt(squared) * (1 - error)
    distance = np.ldexp(root, exponent)
    distance = np.where(np.ldexp(distance, -exponent) > root, np.nextafter(distance, 0.0), distance)
    # different points are at least the smallest positive float apart, since all coordinates are multiples of it
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
