"""A least radius for all balls, which any method keeps that respects the constraints of Eq. 10 at empty balls too.

What is computed. With r_i = r_min + s_i, Eq. 10 under r_i >= r_min becomes

    maximise  sum_i w_i s_i    subject to    s_i + s_j <= d_ij - 2 r_min for every edge,    0 <= s_i <= R_i - r_min

which is Eq. 10 again, with shorter distances and smaller bounds. The method solves that, and r_min is added.

Guarantee. r_min <= r_i <= R_i and r_i + r_j <= d_ij, in exact arithmetic on the numbers given: the shorter lengths are
rounded down where radii come from them, and up where the upper bound does (docs/mathematics.md, Eq. M22). Two balls of
radius r_min that would overlap, if only by a rounding error, are found exactly, and named.

Cost. O(n + m), besides the method's own.

Source. Eppstein, "Maximizing the sum of radii of disjoint balls or disks", 2016: balls of at least a given radius.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions._arithmetic.distances import distances_below
from regions._arithmetic.loops import add_down, compiled, subtract_down
from regions._arithmetic.rounding import UNIT
from regions._graph import OverlapGraph
from regions._methods.problem import Answer, Problem
from regions._methods.repair import fill, trim_edges


@dataclass(frozen=True, eq=False, kw_only=True)
class _Shortened(OverlapGraph):
    """A graph whose lengths are differences: rounded down as in any graph, and rounded up by themselves."""

    R_above: Float64[np.ndarray, " n"]
    distance_above: Float64[np.ndarray, " m"]

    def raised_distance(self, edges: Int64[np.ndarray, " k"] | slice) -> Float64[np.ndarray, " k"]:
        return np.asarray(self.distance_above[edges])

    def caps_above(self) -> Float64[np.ndarray, " n"]:
        return np.asarray(np.minimum(self.R_above, self.nearest_by(self.distance_above)[1]))


def with_minimum(method: Callable[[Problem], Answer], problem: Problem) -> Answer:
    """What the method answers under the constraint that no radius is below `problem.r_min`.

    All edges of the graph must admit two balls of radius r_min, as `admitting` sees to.
    """
    graph, least = problem.graph, problem.r_min
    shorter = _shortened(graph, least)
    weight = float(graph.n) if problem.weights is None else math.fsum(problem.weights)
    granted = math.nextafter(least * weight * (1 + 4 * UNIT), math.inf)
    start = None if problem.start is None else np.maximum(problem.start - least, 0.0)
    answer = method(replace(problem, graph=shorter, start=start, r_min=0.0, granted=granted))
    excess = answer.radii.clip(0.0, answer.bounds)
    trim_edges(graph.i, graph.j, shorter.distance, True, 0.0, excess)
    radii = np.empty(graph.n)
    _add_down(least, excess, radii)
    # what rounding twice took away: a ball that has its bound gets it to the last digit
    most = np.where(excess > 0, np.minimum(graph.R, radii * (1 + 8 * UNIT)), radii)
    radii = fill(graph, most, radii)
    bound = answer.upper_bound
    return replace(
        answer,
        radii=radii,
        bounds=graph.R,
        upper_bound=None if bound is None else math.nextafter((granted + bound) * (1 + 4 * UNIT), math.inf),
        status=f"{answer.status}; no radius is below {least}",
    )


def check_bounds(R: Float64[np.ndarray, " n"], least: float) -> None:
    """Raise `ValueError` where an upper bound is below the least radius."""
    below = np.flatnonzero(least > R)
    if below.size:
        k = below[0]
        raise ValueError(f"r_min = {least} exceeds R[{k}] = {R[k]}: lower r_min, or leave point {k} out")


def admitting(graph: OverlapGraph, points: Real[np.ndarray, "n d"] | None, least: float) -> OverlapGraph:
    """The graph with no distance below twice `least`, or `ValueError` if two balls of that radius overlap.

    Where the points touch at that radius, the distance that was rounded down is raised to what it is known to be.
    Without points, distances count as they are.
    """
    if not least:
        return graph
    return replace(graph, distance=admitted(points, graph.i, graph.j, graph.distance, least))


def admitted(
    points: Real[np.ndarray, "n d"] | None,
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
    distance: Float64[np.ndarray, " k"],
    least: float,
) -> Float64[np.ndarray, " k"]:
    """`admitting` for the distances of some pairs."""
    close = np.flatnonzero(distance < 2 * least)
    if points is not None:
        radii = np.full(close.size, least)
        close = close[distances_below(points, points, i[close], j[close], radii, radii)[0]]
    if close.size:
        k = close[distance[close].argmin()]
        raise ValueError(
            f"r_min = {least}: points {i[k]} and {j[k]} are {distance[k]} apart, so balls of that radius overlap; give "
            f"r_min up to {distance[k] / 2}, or leave one of the points out"
        )
    return np.asarray(np.maximum(distance, 2 * least))


def _shortened(graph: OverlapGraph, least: float) -> _Shortened:
    R, distance = np.empty(graph.n), np.empty(graph.n_edges)
    _subtract_down(graph.R, least, R)
    _subtract_down(graph.distance, 2 * least, distance)
    return _Shortened(
        R=R,
        i=graph.i,
        j=graph.j,
        distance=distance,
        distance_error=graph.distance_error,
        R_above=np.nextafter(graph.R - least, np.inf),
        distance_above=np.nextafter(graph.distance_upper - 2 * least, np.inf),
    )


@compiled
@no_type_check
def _subtract_down(lengths, amount, out):
    """Set out[k] to a float with out[k] + amount <= lengths[k] in exact arithmetic; 0 where that is the difference."""
    for k in range(lengths.size):
        out[k] = max(0.0, subtract_down(lengths[k], amount))


@compiled
@no_type_check
def _add_down(amount, lengths, out):
    """Set out[k] to the largest float that is at most amount + lengths[k] in exact arithmetic."""
    for k in range(lengths.size):
        out[k] = add_down(amount, lengths[k])
