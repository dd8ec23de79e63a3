"""Greedy with a reserve where even nearest-neighbour caps leave a dense graph: no edge list, the same radii.

Row generation with two things that only all pairs can tell, taken from one pass over them in blocks: degrees, for the
order, and every point's nearest neighbour, for what is reserved (docs/mathematics.md, after Eq. M9).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int64, Real

from regions._dense.row_generation import generate_rows
from regions._graph import OverlapGraph, from_blocks, overlaps
from regions._methods import greedy
from regions._methods.bounds import caps_above
from regions._methods.problem import Answer, Problem
from regions._search.pairs import Progress


def generate_reserve(
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    search: str,
    progress: Progress | None,
    problem: Problem,
) -> Answer:
    """What greedy with a reserve gives, up to rounding, on the graph under caps, whose edges are never held together.

    The problem's graph has the edges to near neighbours. Memory: ten edges a point and round, and blocks of the search.
    """
    graph, degree = _survey(points, labels, search, progress, problem)
    order = greedy.permutation(degree, greedy.chosen(problem))

    def in_this_order(smaller: Problem) -> Answer:
        return greedy.solve(replace(smaller, order=order))

    answer = generate_rows(in_this_order, points, labels, search, progress, replace(problem, graph=graph))
    return replace(answer, method=greedy.name(problem))


def _survey(
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    search: str,
    progress: Progress | None,
    problem: Problem,
) -> tuple[OverlapGraph, Int64[np.ndarray, " n"]]:
    """The graph with the edge to every point's nearest neighbour added, and the degrees under its caps."""
    graph = problem.graph
    degree = np.zeros(graph.n, dtype=np.int64)
    nearest, neighbour = np.full(graph.n, np.inf), np.full(graph.n, graph.n)
    coincident = np.flatnonzero(graph.nearest[1] == 0)  # of radius 0 by Eq. 10, so their own pairs are not looked at
    caps = caps_above(graph)
    caps[coincident] = 0.0
    blocks = overlaps(points, caps, labels, progress, coincident, parallel=problem.parallel, search=search)
    for i, j, distance in blocks:
        for a, b in ((i, j), (j, i)):
            degree += np.bincount(a, minlength=graph.n)
            before = nearest[a]
            np.minimum.at(nearest, a, distance)
            neighbour[a[nearest[a] < before]] = graph.n  # farther than one in this block
            closest = distance == nearest[a]
            np.minimum.at(neighbour, a[closest], b[closest])  # of several, the first, whatever order they come in
    a = np.flatnonzero(neighbour < graph.n)
    b = neighbour[a]
    key = np.append(graph.i * graph.n + graph.j, np.minimum(a, b) * graph.n + np.maximum(a, b))
    key, first = np.unique(key, return_index=True)
    i, j = np.divmod(key, max(1, graph.n))
    distance = np.append(graph.distance, nearest[a])[first]
    return from_blocks(graph.R, graph.distance_error, [(i, j, distance)]), degree
