"""Max-min fair radii: the smallest radius is as large as possible, then the second smallest, and so on.

What is computed. All radii grow together from 0. A ball stops growing at its bound, or when it touches another ball.
This is known as progressive filling.

Guarantee. The radii are the unique lexicographic max-min optimum over the constraints of Eq. 10, up to rounding: a
radius could be larger only if one that is no larger became smaller (docs/mathematics.md, Eq. M14). Every radius is at
least half of the largest that is feasible for its ball, so their sum is at least half of the optimum.

Cost. O((n + m) log n) if each ball looks at its neighbours a few times.

Source. Progressive filling: Bertsekas and Gallager, "Data Networks", 1992, section 6.5.
"""

from __future__ import annotations

import heapq
import time
from typing import no_type_check

import numpy as np

from regions._arithmetic.loops import compiled, subtract_down
from regions._methods.bounds import caps_above, dual_value
from regions._methods.problem import Answer, Problem


def solve(problem: Problem) -> Answer:
    """Max-min fair radii over the constraints of Eq. 10, with an upper bound on the sum of any feasible radii."""
    graph, began = problem.graph, time.perf_counter()
    radii = np.zeros(graph.n)
    _rise(*graph.adjacency, graph.R, radii)
    weights = np.ones(graph.n) if problem.weights is None else problem.weights
    return Answer(
        radii=radii,
        bounds=np.minimum(graph.R, caps_above(graph)),
        method="max-min",
        status="max-min fair: a radius could grow only if one no larger shrank; method='lp' gives the largest sum",
        upper_bound=dual_value(graph, weights, np.zeros(graph.n_edges)),
        stats={"seconds_solve": time.perf_counter() - began},
    )


@compiled
@no_type_check
def _rise(start, neighbour, distance, bounds, radii):
    """Set `radii` to the max-min fair radii: all grow together, each until its bound or until it touches a ball.

    A ball stops at its bound, half-way to a neighbour that still grows, or at a neighbour that has stopped. The heap
    holds the radius at which each ball would stop, as last computed. When a neighbour stops, that radius can only
    increase. So the smallest entry is computed again, and put back into the heap if it has increased; otherwise the
    ball stops.
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
