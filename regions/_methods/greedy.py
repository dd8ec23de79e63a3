"""Greedy allocation (paper, Eq. 11).

What is computed. Balls are sized one after the other, in a given order. Each is as large as its bound and the balls
before it permit.

Guarantee. Plain greedy: no two balls overlap; the sum can be far below the optimum. With a reserve: the radii are
feasible for Eq. 10, and their sum is at least half of the optimum in any order (docs/mathematics.md, Eq. M9).

Cost. O(n log n + m) for n points and m edges.
"""

from __future__ import annotations

import time
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int64

from regions._arithmetic.loops import compiled, subtract_down
from regions._graph import OverlapGraph
from regions._methods.bounds import dual_value, nearest_caps
from regions._methods.problem import Answer, Problem

#: Room for a ball counts as none below this many times the relative error of a distance, as a part of the distance.
_SLIVER = 64


def solve(problem: Problem) -> Answer:
    """Size the balls by plain greedy, or greedy with a reserve.

    In plain greedy, a point inside an earlier ball gets r = 0. Eq. 10 forbids a ball that contains another point of
    R > 0, so such radii are not feasible for Eq. 10, and no upper bound is returned.
    """
    graph, began = problem.graph, time.perf_counter()
    order = permutation(graph.degree, chosen(problem))
    if not problem.reserve:
        status = "greedy allocation complete: no bound is known; method='lp' gives the optimum"
        return Answer(eq11(graph, order), graph.R, name(problem), status, None, {})
    weights = np.ones(graph.n) if problem.weights is None else problem.weights
    return Answer(
        radii=with_reserve(graph, order),
        bounds=nearest_caps(graph),
        method=name(problem),
        status="greedy allocation complete: at least half of the optimum; method='lp' gives the optimum",
        upper_bound=dual_value(graph, weights, np.zeros(graph.n_edges)),
        stats={"seconds_solve": time.perf_counter() - began},
    )


def chosen(problem: Problem) -> str | np.ndarray:
    """The order that the problem asks for, or the default order."""
    return "ascending" if problem.order is None else problem.order


def name(problem: Problem) -> str:
    """The text of `Allocation.method`."""
    order = chosen(problem)
    return f"greedy{' with reserve' * problem.reserve} ({order if isinstance(order, str) else 'given'} order)"


def permutation(degree: Int64[np.ndarray, " n"], order: str | np.ndarray) -> Int64[np.ndarray, " n"]:
    """The order in which balls are sized: by degree (ties by index), by index, or as given."""
    if not isinstance(order, str):
        return order
    key = {"ascending": degree, "descending": -degree, "arrival": np.zeros_like(degree)}[order]
    return np.argsort(key, kind="stable").astype(np.int64)


def eq11(graph: OverlapGraph, order: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Radii of Eq. 11.

    Distances are rounded down, so balls are slightly smaller than in exact arithmetic. A point that would lie exactly
    on the boundary of an earlier ball then keeps room as small as a rounding error. Its ball should be empty and must
    not constrain later balls, so room that small counts as none.
    """
    radii = np.zeros(graph.n)
    _take_turns(*graph.adjacency, graph.R, order, _SLIVER * graph.distance_error, radii)
    return radii


def with_reserve(graph: OverlapGraph, order: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Radii of Eq. 11 where each ball keeps out of a reserve around the points that come after it.

    The reserve of point i has the radius c_i / 2, half its cap c_i = min(R_i, distance to the nearest neighbour). The
    resulting radii are feasible for Eq. 10. Each is at least c_i / 2, and no feasible radius exceeds c_i, so their sum
    is at least half of the optimum, whatever the order (docs/mathematics.md, Eq. M9).
    """
    caps = nearest_caps(graph)
    radii = caps / 2
    _take_turns(*graph.adjacency, caps, order, 0.0, radii)
    return radii


@compiled
@no_type_check
def _take_turns(start, neighbour, distance, bounds, order, sliver, radii):
    """Go through the balls in order; each grows to what its bound and its neighbours' non-empty balls leave (Eq. 11).

    start, neighbour, distance : adjacency of the overlap graph in compressed rows
    sliver : room of at most this part of a distance counts as none
    radii : on entry the reserves of all points (0 in plain greedy), on return the result
    """
    for k in order:
        room = bounds[k]
        for e in range(start[k], start[k + 1]):
            other = radii[neighbour[e]]
            if other > 0.0:
                room = min(room, subtract_down(distance[e], other))
                if room <= sliver * distance[e]:
                    room = 0.0
                    break
        radii[k] = room
