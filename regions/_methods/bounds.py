"""What the solvers of Eq. 10 share: caps of the radii, edges that matter under them, and bounds by weak duality."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int64

from regions._arithmetic.distances import raised
from regions._arithmetic.rounding import UNIT
from regions._graph import OverlapGraph


def nearest_caps(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """c_i = min(R_i, distance to the nearest neighbour), Eq. M4. No feasible radius is larger: r_i <= d_ij - r_j."""
    return np.asarray(np.minimum(graph.R, graph.nearest[1]))


def caps_above(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """`nearest_caps` rounded upwards: for upper bounds."""
    return np.asarray(np.minimum(graph.R, raised(graph.nearest[1], graph.distance_error)))


def caps_as_bounds(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """`caps_above`, to build another graph of the same points with.

    Where two points have the same place, both caps are 0. But a point with the bound 0 would constrain no other, and
    these two still do: no ball may hold them. So they get the smallest positive number instead.
    """
    return np.where(graph.R > 0, np.maximum(caps_above(graph), np.nextafter(0.0, 1.0)), 0.0)


def competing(graph: OverlapGraph, caps: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
    """The edges that can be violated by radii within the caps; the others constrain nothing."""
    return np.flatnonzero(caps[graph.i] + caps[graph.j] > graph.distance * (1 - 4 * UNIT))


def dual_value(graph: OverlapGraph, weights: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " m"]) -> float:
    """An upper bound on Eq. 10 from any numbers on the edges, rounded upwards (docs/mathematics.md, Eq. M5).

    Negative and non-finite numbers count as 0; with the caps c and the least z that makes (y, z) dual feasible it is
    sum d_ij y_ij + sum c_i z_i.
    """
    used = np.flatnonzero((y > 0) & (y < np.inf))
    i, j, y = graph.i[used], graph.j[used], y[used]
    covered = np.bincount(i, y, graph.n) + np.bincount(j, y, graph.n)
    terms = np.bincount(i, minlength=graph.n) + np.bincount(j, minlength=graph.n)
    least = 1 - (terms + 4) * UNIT  # summing so many terms errs by less
    z = np.maximum(weights - covered * least, 0.0) * (1 + 4 * UNIT)
    lengths = np.concatenate([raised(graph.distance[used], graph.distance_error), caps_above(graph)])
    factors = np.concatenate([y, z])
    terms = np.nextafter(lengths * factors, np.inf)[(lengths > 0) & (factors > 0)]
    return math.fsum(terms) * (1 + 4 * UNIT)
