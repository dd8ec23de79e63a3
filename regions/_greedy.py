"""Greedy allocation: Eq. 11, one ball after the other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from regions._allocation import Answer, Problem
from regions._graph import OverlapGraph


def solve(problem: Problem) -> Answer:
    """Every ball takes what the non-empty balls before it leave (Eq. 11). O(n + m) after sorting.

    A point inside an earlier ball gets r = 0; Eq. 10 would not allow that ball, so Eq. 10's bound does not apply.
    """
    order = "ascending" if problem.order is None else problem.order
    name = order if isinstance(order, str) else "given"
    radii = eq11(problem.graph, problem.graph.R, permutation(problem.graph, order))
    return Answer(
        radii=radii,
        bounds=problem.graph.R,
        method=f"greedy ({name} order)",
        status="greedy allocation complete: no bound is known; method='lp' gives the optimum",
        upper_bound=None,
        stats={},
    )


def permutation(graph: OverlapGraph, order: str | np.ndarray) -> Int64[np.ndarray, " n"]:
    """The order of treatment: by degree (ties by index), by index, or as given."""
    if not isinstance(order, str):
        return order
    key = {"ascending": graph.degree, "descending": -graph.degree, "arrival": np.zeros(graph.n, dtype=np.int64)}[order]
    return np.argsort(key, kind="stable").astype(np.int64)


def eq11(
    graph: OverlapGraph, bounds: Float64[np.ndarray, " n"], order: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Radii of Eq. 11 under the given bounds."""
    from regions._kernels import greedy

    radii = np.empty(graph.n)
    greedy(*graph.adjacency, bounds, order, radii)
    return radii
