"""Distances to points that are stored as multiples of their coordinates, as images are stored in bytes.

What is computed. The stored numbers c stand for the coordinates c / D, without rounding, with an integer D. A query q
lies in the ball of radius r if |q - c / D| < r, which holds if and only if |D q - c| < D r. So queries and radii are
multiplied by D, distances to the stored numbers are measured, and what is returned is divided by D and rounded in the
safe direction.

Guarantee. Decisions are exact, for D up to `LARGEST_DIVISOR`. A product of D and a float64 number is the sum of two:
the number without the last 29 bits of its significand, times D, has at most 24 + 24 bits, and those 29 bits times D
have at most 29 + 24. Both are multiples of the smallest positive float, so underflow costs nothing either. Radii enter
comparisons as such a sum. A query does as its rounded product, with a bound on the length of what rounding took; where
this leaves a decision open, integer arithmetic decides with both parts. A product of D and a float32 number has no more
than 24 + 24 bits: nothing is rounded.

Cost. That of `distances_below`, and O(d) for each query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real

from regions._arithmetic.distances import distances_below, raised, relative_error
from regions._arithmetic.exact import closer_than
from regions._arithmetic.rounding import UNIT

_LAST = np.int64(-1 << 29)  # all bits of a float64 but the last 29
_COORDINATES = 1 << 22  # coordinates of queries that are worked on at once


def multiples(
    values: Float64[np.ndarray, ...], divisor: int
) -> tuple[Float64[np.ndarray, ...], Float64[np.ndarray, ...]]:
    """Two arrays whose sum is divisor * values without any rounding. Both have the sign of the values, or are 0."""
    if divisor == 1:
        return values, np.zeros_like(values)
    first = (values.view(np.int64) & _LAST).view(np.float64)
    return first * divisor, (values - first) * divisor


def multiples_above(values: Float64[np.ndarray, " n"], divisor: int) -> Float64[np.ndarray, " n"]:
    """Products with the divisor, rounded up; values >= 0."""
    if divisor == 1:
        return values
    return np.asarray(np.nextafter(values * divisor, np.where(values > 0, np.inf, 0.0)))


def multiples_below(values: Float64[np.ndarray, " n"], divisor: int) -> Float64[np.ndarray, " n"]:
    """Products with the divisor, rounded down; values >= 0."""
    return values if divisor == 1 else np.asarray(np.nextafter(values * divisor, 0.0))


def divided_below(values: Float64[np.ndarray, ...], divisor: int) -> Float64[np.ndarray, ...]:
    """Quotients by the divisor, rounded down; values >= 0."""
    return values if divisor == 1 else np.asarray(np.nextafter(values / divisor, 0.0))


@dataclass(frozen=True)
class Queries:
    """Points, multiplied by a divisor.

    Attributes
    ----------
    points : (m, d)
        The products, rounded to float64.
    rest : (m, d) float64, or None
        What rounding took from them: products = points + rest, exactly. None: nothing.
    error : (m,) float64
        The length of each row of `rest`, rounded up.
    """

    points: Real[np.ndarray, "m d"]
    rest: Float64[np.ndarray, "m d"] | None
    error: Float64[np.ndarray, " m"]

    def distances(
        self,
        centres: Real[np.ndarray, "n d"],
        i: Int64[np.ndarray, " k"],
        j: Int64[np.ndarray, " k"],
        a: Float64[np.ndarray, " k"],
        b: Float64[np.ndarray, " k"],
    ) -> tuple[Bool[np.ndarray, " k"], Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
        """Decide exactly which queries i are closer than a + b to the centres j; a, b >= 0.

        Returns
        -------
        closer : (k,) bool
        lower, upper : (k,) float64
            For the pairs that are closer, their distance, rounded down and rounded up.
        """
        error = relative_error(centres.shape[1])
        if self.rest is None:
            closer, distance = distances_below(self.points, centres, i, j, a, b)
            return closer, distance, raised(distance, error)
        off = self.error[i]
        # the rounded query is within `off` of the query: whoever is closer than a + b is closer than this
        closer, distance = distances_below(self.points, centres, i, j, np.nextafter(a + b, np.inf), off)
        upper = _sum_above(raised(distance, error), off)
        open_ = np.flatnonzero(closer & ~(upper < np.nextafter(a + b, 0.0)))
        closer[open_] = closer_than(self.points, centres, i[open_], j[open_], a[open_], b[open_], rest=self.rest)
        lower = np.where(off > 0, np.maximum(np.nextafter(distance - off, -np.inf), 0.0), distance)
        return closer, lower, upper


def _sum_above(a: Float64[np.ndarray, " k"], b: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    return np.asarray(np.where(b > 0, np.nextafter(a + b, np.inf), a))


def queries(points: Real[np.ndarray, "m d"], divisor: int) -> Iterator[tuple[slice, Queries]]:
    """Yield blocks of the points, multiplied by the divisor, and which points they are."""
    size = max(1, _COORDINATES // max(1, points.shape[1]))
    for start in range(0, len(points), size):
        part = slice(start, start + size)
        yield part, _multiplied(points[part], divisor)


def _multiplied(points: Real[np.ndarray, "m d"], divisor: int) -> Queries:
    if divisor == 1:
        return Queries(points, None, np.zeros(len(points)))
    if points.dtype != np.float64:
        return Queries(points.astype(np.float64) * divisor, None, np.zeros(len(points)))
    first, last = multiples(points, divisor)
    total = first + last
    rest = last - (total - first)  # exact, because |first| >= |last| or first = 0 (fast TwoSum)
    if not rest.any():
        return Queries(total, None, np.zeros(len(points)))
    # rest is scaled by its largest entry, so that no square underflows
    largest = np.abs(rest).max(axis=1)
    unit = np.where(largest > 0, largest, 1.0)
    length = np.sqrt(np.square(rest / unit[:, None]).sum(axis=1)) * (1 + 4 * relative_error(points.shape[1]))
    error = np.where(largest > 0, np.nextafter(length * largest * (1 + 4 * UNIT), math.inf), 0.0)
    return Queries(total, rest, error)
