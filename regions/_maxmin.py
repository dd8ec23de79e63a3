"""The fairest radii: the smallest as large as possible, then the second smallest, and so on."""

from __future__ import annotations

import time

import numpy as np

from regions._allocation import Answer, Problem
from regions._bounds import caps_above, dual_value


def solve(problem: Problem) -> Answer:
    """The lexicographic max-min optimum over the constraints of Eq. 10, up to rounding: progressive filling.

    All radii rise together; one stops at its bound, or where its ball touches another. No radius can be larger unless
    one that is no larger becomes smaller, and the optimum is unique (docs/mathematics.md, Eq. M14). Every radius is at
    least half of what any feasible one can be, so the sum is at least half of the largest. O((n + m) log n) where each
    ball looks at its neighbours a few times.
    """
    from regions import _kernels

    graph, began = problem.graph, time.perf_counter()
    radii = np.zeros(graph.n)
    _kernels.rise(*graph.adjacency, graph.R, radii)
    weights = np.ones(graph.n) if problem.weights is None else problem.weights
    return Answer(
        radii=radii,
        bounds=np.minimum(graph.R, caps_above(graph)),
        method="max-min",
        status="max-min fair: no radius can be larger unless one that is no larger shrinks; method='lp' for the sum",
        upper_bound=dual_value(graph, weights, np.zeros(graph.n_edges)),
        stats={"seconds_solve": time.perf_counter() - began},
    )
