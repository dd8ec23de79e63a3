"""The fairest radii: the smallest as large as possible, then the second smallest, and so on."""

from __future__ import annotations

import heapq
import time
from typing import no_type_check

import numpy as np

from regions._arithmetic.loops import compiled, subtract_down
from regions._methods.bounds import caps_above, dual_value
from regions._methods.problem import Answer, Problem


def solve(problem: Problem) -> Answer:
    """The lexicographic max-min optimum over the constraints of Eq. 10, up to rounding: progressive filling.

    All radii rise together; one stops at its bound, or where its ball touches another. No radius can be larger unless
    one that is no larger becomes smaller, and the optimum is unique (docs/mathematics.md, Eq. M14). Every radius is at
    least half of what any feasible one can be, so the sum is at least half of the largest. O((n + m) log n) where each
    ball looks at its neighbours a few times.
    """
    graph, began = problem.graph, time.perf_counter()
    radii = np.zeros(graph.n)
    _rise(*graph.adjacency, graph.R, radii)
    weights = np.ones(graph.n) if problem.weights is None else problem.weights
    return Answer(
        radii=radii,
        bounds=np.minimum(graph.R, caps_above(graph)),
        method="max-min",
        status="max-min fair: no radius can be larger unless one that is no larger shrinks; method='lp' for the sum",
        upper_bound=dual_value(graph, weights, np.zeros(graph.n_edges)),
        stats={"seconds_solve": time.perf_counter() - began},
    )


@compiled
@no_type_check
def _rise(start, neighbour, distance, bounds, radii):
    """Set radii to the max-min fair ones: all rise together, each until its bound or a ball that it touches.

    A ball stops at its bound, half-way to a neighbour that still rises, or at a neighbour that has stopped. When a
    neighbour stops, the level at which this ball will stop can only go up. So the level in the heap is never too high;
    it is computed again when its turn comes, and put back if it has gone up.
    """
    stopped = np.zeros(radii.size, np.bool_)
    heap = [(_stop(start, neighbour, distance, bounds, radii, stopped, k), k) for k in range(radii.size)]
    heapq.heapify(heap)
    while heap:
        level, k = heapq.heappop(heap)
        now = _stop(start, neighbour, distance, bounds, radii, stopped, k)
        if now > level:
            heapq.heappush(heap, (now, k))
        else:
            radii[k] = now
            stopped[k] = True


@compiled
@no_type_check
def _stop(start, neighbour, distance, bounds, radii, stopped, k):
    room = bounds[k]
    for e in range(start[k], start[k + 1]):
        j = neighbour[e]
        room = min(room, subtract_down(distance[e], radii[j]) if stopped[j] else distance[e] / 2)
    return room
