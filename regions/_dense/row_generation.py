"""Row generation: solve Eq. 10 over all conflicting pairs while listing only few of its constraints (rows).

What is computed. In high dimension all distances are similar, so every pair may be an edge even under
nearest-neighbour caps. But most constraints r_i + r_j <= d_ij are then satisfied anyway, because radii near half of a
distance are typical. So the method is run with the edges to near neighbours alone. A search finds the pairs that its
radii violate, the worst of these become edges, and the method is run again, until no pair is violated.

Guarantee. Leaving out constraints can only raise the optimum, so the upper bound of every round is valid for the whole
problem. When no pair is violated, the radii, the bound and the certificate are those of the whole problem
(docs/mathematics.md, section "Row generation").

Cost. One run of the method and one search in each round, in practice a handful of rounds.

Source. Row generation, also known as the cutting-plane method (Dantzig, Fulkerson and Johnson, 1954).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions._graph import Edges, OverlapGraph, from_blocks, overlaps
from regions._methods.minimum import admitted, admitting
from regions._methods.problem import Answer, Problem
from regions._methods.repair import trim, trim_edges
from regions._search.pairs import Progress

_ROWS = 10
"""Violated pairs that one round adds for each point."""
_KEPT = 1 << 22
"""When more violated pairs than this are held, all but the worst of each point are dropped."""


def generate_rows(
    method: Callable[[Problem], Answer],
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    search: str,
    progress: Progress | None,
    problem: Problem,
) -> Answer:
    """Return what `method` would answer if the problem's graph had an edge for EVERY conflicting pair of points.

    The method must keep r_i + r_j <= d_ij on all edges, including those where a radius is 0. Plain greedy does not; all
    others do. A round adds about ten edges for each point, which bounds the memory.
    """
    graph, began = admitting(problem.graph, points, problem.r_min), time.perf_counter()
    seconds, rounds, upper_bound = 0.0, 0, np.inf
    best: Float64[np.ndarray, " n"] | None = None
    while True:
        rounds += 1
        left = None if problem.time_limit is None else max(0.0, began + problem.time_limit - time.perf_counter())
        answer = method(replace(problem, graph=graph, time_limit=left))
        seconds += answer.stats["seconds_solve"]
        upper_bound = min(upper_bound, np.inf if answer.upper_bound is None else answer.upper_bound)
        radii = trim(graph, answer.radii.clip(0.0, answer.bounds))
        violated, feasible = _violated(points, labels, graph, radii, search, progress, problem)
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
    problem: Problem,
) -> tuple[OverlapGraph, Float64[np.ndarray, " n"]]:
    """Search for the conflicting pairs, not yet in the graph, that these radii violate.

    Returns the pairs that are most violated at each point, and a copy of the radii lowered until no pair is violated. A
    ball that contains the centre of an empty ball with R > 0 violates the constraint too. One pass over the pairs
    suffices to lower the radii: they only fall, so a satisfied constraint stays satisfied. A pair that forbids the
    problem's `r_min` is an error.
    """
    feasible = radii.copy()
    tenth = np.full(radii.size, -np.inf)  # excess of the tenth worst pair of each point, as far as known
    held: list[Edges] = []
    centres = np.flatnonzero((graph.R > 0) & (radii == 0))
    for i, j, lower in overlaps(points, radii, labels, progress, centres, graph, problem.parallel, search):
        distance = admitted(points, i, j, lower, problem.r_min)
        trim_edges(i, j, distance, True, problem.r_min, feasible)
        excess = radii[i] + radii[j] - distance
        worst = (excess >= tenth[i]) | (excess >= tenth[j])
        held.append((i[worst], j[worst], distance[worst]))
        if sum(part[0].size for part in held) > _KEPT:
            held = [_worst(held, radii, tenth)]
    return from_blocks(graph.R, graph.distance_error, [_worst(held, radii, tenth)] if held else []), feasible


def _worst(blocks: list[Edges], radii: Float64[np.ndarray, " n"], tenth: Float64[np.ndarray, " n"]) -> Edges:
    """The edges that are among the ten most violated at one of their ends.

    Ties are decided by index, so the result does not depend on how edges are divided into blocks. `tenth` is set to the
    excess of the tenth edge of each point that has ten.
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
