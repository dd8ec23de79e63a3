"""What the solvers of Eq. 10 share: caps on the radii, the edges that matter under them, and bounds by weak duality."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int64

from regions._arithmetic.rounding import UNIT
from regions._graph import OverlapGraph


def nearest_caps(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """c_i = min(R_i, distance to the nearest neighbour), Eq. M4. No feasible radius exceeds it: r_i <= d_ij - r_j."""
    return np.asarray(np.minimum(graph.R, graph.nearest[1]))


def caps_above(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """`nearest_caps` rounded upwards: for upper bounds."""
    return graph.caps_above()


def caps_as_bounds(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """`caps_above`, for use as the bounds R of another graph of the same points.

    Two conflicting points at the same place have the cap 0. As a bound, 0 would mean that they constrain no other
    point; but no ball may contain them. So they get the smallest positive number instead.
    """
    return np.where(graph.R > 0, np.maximum(caps_above(graph), np.nextafter(0.0, 1.0)), 0.0)


def competing(graph: OverlapGraph, caps: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
    """Indices of the edges that radii within the caps can violate. The other edges are redundant."""
    return np.flatnonzero(caps[graph.i] + caps[graph.j] > graph.distance * (1 - 4 * UNIT))


def dual_value(graph: OverlapGraph, weights: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " m"]) -> float:
    """An upper bound on the optimum of Eq. 10 from dual variables y of the edges (docs/mathematics.md, Eq. M5).

    It is valid for any numbers y; negative and non-finite ones count as 0. Its value is the sum of d_ij y_ij plus the
    sum of c_i z_i, for the caps c and the least z that makes (y, z) feasible for the dual problem, rounded upwards.
    """
    used = np.flatnonzero((y > 0) & (y < np.inf))
    i, j, y = graph.i[used], graph.j[used], y[used]
    covered = np.bincount(i, y, graph.n) + np.bincount(j, y, graph.n)
    terms = np.bincount(i, minlength=graph.n) + np.bincount(j, minlength=graph.n)
    least = 1 - (terms + 4) * UNIT  # rounding cannot make a sum of so many terms smaller than this part of it
    z = np.maximum(weights - covered * least, 0.0) * (1 + 4 * UNIT)
    lengths = np.concatenate([graph.raised_distance(used), caps_above(graph)])
    factors = np.concatenate([y, z])
    terms = np.nextafter(lengths * factors, np.inf)[(lengths > 0) & (factors > 0)]
    return math.fsum(terms) * (1 + 4 * UNIT)
