"""Greedy allocation: Eq. 11, one ball after the other."""

from __future__ import annotations

import time
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int64

from regions._arithmetic.loops import compiled, subtract_down
from regions._graph import OverlapGraph
from regions._methods.bounds import dual_value, nearest_caps
from regions._methods.problem import Answer, Problem

#: Room of less than so many times the relative error of a distance counts as none.
_SLIVER = 64


def solve(problem: Problem) -> Answer:
    """Every ball takes what the non-empty balls before it leave (Eq. 11). O(n + m) after sorting.

    A point inside an earlier ball gets r = 0; Eq. 10 would not allow that ball, so its bound does not apply. With
    `reserve` it does.
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
    """The order asked for, or the one by default."""
    return "ascending" if problem.order is None else problem.order


def name(problem: Problem) -> str:
    """What an allocation says of the method."""
    order = chosen(problem)
    return f"greedy{' with reserve' * problem.reserve} ({order if isinstance(order, str) else 'given'} order)"


def permutation(degree: Int64[np.ndarray, " n"], order: str | np.ndarray) -> Int64[np.ndarray, " n"]:
    """The order of treatment: by degree (ties by index), by index, or as given."""
    if not isinstance(order, str):
        return order
    key = {"ascending": degree, "descending": -degree, "arrival": np.zeros_like(degree)}[order]
    return np.argsort(key, kind="stable").astype(np.int64)


def eq11(graph: OverlapGraph, order: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Radii of Eq. 11.

    Distances are rounded down, so where two balls touch exactly, a room of the size of rounding errors can be left. A
    ball in it would not be empty, and balls that come later would have to stay clear of it. So such a room counts as
    none.
    """
    radii = np.zeros(graph.n)
    _take_turns(*graph.adjacency, graph.R, order, _SLIVER * graph.distance_error, radii)
    return radii


def with_reserve(graph: OverlapGraph, order: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Eq. 11 where every ball leaves each ball after it half of that ball's cap c, the least of R and nearest distance.

    The radii are feasible for Eq. 10. In any order, every radius is at least c / 2, and no feasible radius exceeds c:
    so the sum is at least half of the optimum (docs/mathematics.md, Eq. M9).
    """
    caps = nearest_caps(graph)
    radii = caps / 2
    _take_turns(*graph.adjacency, caps, order, 0.0, radii)
    return radii


@compiled
@no_type_check
def _take_turns(start, neighbour, distance, bounds, order, sliver, radii):
    """Eq. 11: in the given order, every ball takes what the non-empty balls of its neighbours leave.

    start, neighbour, distance: adjacency of the overlap graph in compressed rows. On entry `radii` holds what the balls
    that are still to come have reserved (0 in Eq. 11 itself), on return the result. Room of less than `sliver` of a
    distance counts as none.
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
