"""Greedy allocation: Eq. 11, one ball after the other."""

from __future__ import annotations

import time

import numpy as np
from jaxtyping import Float64, Int64

from regions._allocation import Answer, Problem
from regions._bounds import dual_value, nearest_caps
from regions._graph import OverlapGraph

#: Bounds on a distance's relative error: what is less than so many of them is not told from 0.
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

    Where balls touch, distances that are rounded down can leave a ball a room that is nothing but rounding. It would
    not be empty, and so cut those that come later: it counts as none.
    """
    from regions._kernels import greedy

    radii = np.zeros(graph.n)
    greedy(*graph.adjacency, graph.R, order, _SLIVER * graph.distance_error, radii)
    return radii


def with_reserve(graph: OverlapGraph, order: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Eq. 11 where every ball leaves half of c = min(R, nearest neighbour's distance) to each one after it.

    Feasible for Eq. 10, and every radius is at least c / 2, half of what any feasible one can be, in whatever order:
    docs/mathematics.md, Eq. M9.
    """
    from regions._kernels import greedy

    caps = nearest_caps(graph)
    radii = caps / 2
    greedy(*graph.adjacency, caps, order, 0.0, radii)
    return radii
