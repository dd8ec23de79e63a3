"""Row generation: Eq. 10 over all conflicting pairs, from the few that the optimum would otherwise violate.

For when even nearest-neighbour caps leave a dense graph: in high dimension all distances are alike, so every pair is an
edge, but radii near half of them violate few. Leaving out pairs only raises the optimum, so the bound of every round
holds for all pairs; a search among the radii finds those violated. When there are none, radii, bound and certificate
are those of the whole problem (docs/mathematics.md, section "Row generation").
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions._graph import Edges, OverlapGraph, from_blocks, overlaps
from regions._methods.problem import Answer, Problem
from regions._methods.repair import trim, trim_edges
from regions._search.pairs import Progress

_ROWS = 10
"""Violated pairs added for each point in one round."""
_KEPT = 1 << 22
"""Violated pairs held before all but the worst are dropped."""


def generate_rows(
    method: Callable[[Problem], Answer],
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    search: str,
    progress: Progress | None,
    problem: Problem,
) -> Answer:
    """What `method` would answer if the problem's graph had an edge for EVERY conflicting pair of points.

    The method must keep r_i + r_j <= d_ij on all edges it is given, also where a radius is 0: every one but plain
    greedy. One search for each round; a round adds at most ten edges a point, and memory is bounded by these.
    """
    graph, began = problem.graph, time.perf_counter()
    seconds, rounds, upper_bound = 0.0, 0, np.inf
    best: Float64[np.ndarray, " n"] | None = None
    while True:
        rounds += 1
        left = None if problem.time_limit is None else max(0.0, began + problem.time_limit - time.perf_counter())
        answer = method(replace(problem, graph=graph, time_limit=left))
        seconds += answer.stats["seconds_solve"]
        upper_bound = min(upper_bound, np.inf if answer.upper_bound is None else answer.upper_bound)
        radii = trim(graph, answer.radii.clip(0.0, answer.bounds))
        violated, feasible = _violated(points, labels, graph, radii, search, progress, problem.parallel)
        if best is None or problem.objective(feasible) > problem.objective(best):
            best = feasible
        if not violated.n_edges or answer.warning:
            break
        edges = [(g.i, g.j, g.distance) for g in (graph, violated)]
        graph = from_blocks(graph.R, graph.distance_error, edges)
    stats = {**answer.stats, "seconds_solve": seconds, "rounds": rounds}
    return replace(answer, radii=best if violated.n_edges else radii, upper_bound=upper_bound, stats=stats, graph=graph)


def _violated(
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    graph: OverlapGraph,
    radii: Float64[np.ndarray, " n"],
    search: str,
    progress: Progress | None,
    parallel: int | str | None,
) -> tuple[OverlapGraph, Float64[np.ndarray, " n"]]:
    """The pairs most violated at each point, and a copy of the radii cut until no pair is violated.

    Cutting one edge after the other suffices, since radii only fall. A ball may not hold an empty one of R > 0 either.
    """
    feasible = radii.copy()
    tenth = np.full(radii.size, -np.inf)  # largest excess at each point, of the pairs held
    held: list[Edges] = []
    centres = np.flatnonzero((graph.R > 0) & (radii == 0))
    for i, j, distance in overlaps(points, radii, labels, progress, centres, graph, parallel, search):
        trim_edges(i, j, distance, True, feasible)
        excess = radii[i] + radii[j] - distance
        worst = (excess >= tenth[i]) | (excess >= tenth[j])
        held.append((i[worst], j[worst], distance[worst]))
        if sum(part[0].size for part in held) > _KEPT:
            held = [_worst(held, radii, tenth)]
    return from_blocks(graph.R, graph.distance_error, [_worst(held, radii, tenth)] if held else []), feasible


def _worst(blocks: list[Edges], radii: Float64[np.ndarray, " n"], tenth: Float64[np.ndarray, " n"]) -> Edges:
    """The edges that are among the ten most violated at one of their ends; ties by index, so blocks do not matter.

    Raises `tenth` to the excess of the tenth edge of each point.
    """
    i, j, distance = (np.concatenate(part) for part in zip(*blocks, strict=True))
    excess = radii[i] + radii[j] - distance
    ends, others, edge = np.append(i, j), np.append(j, i), np.tile(np.arange(i.size), 2)
    order = np.lexsort((others, -excess[edge], ends))
    ends, edge = ends[order], edge[order]
    rank = np.arange(ends.size) - np.searchsorted(ends, ends)
    last = rank == _ROWS - 1
    tenth[ends[last]] = excess[edge[last]]
    keep = np.zeros(i.size, dtype=bool)
    keep[edge[rank < _ROWS]] = True
    return i[keep], j[keep], distance[keep]
