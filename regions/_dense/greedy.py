"""Greedy with a reserve on a graph that is dense even under nearest-neighbour caps, without listing its edges.

What is computed. Greedy with a reserve needs the degree of every point, for the order, and its nearest neighbour, for
the reserve. One pass over all overlapping pairs, in blocks, finds both. Row generation does the rest.

Guarantee. The radii are those of greedy with a reserve on the whole graph, up to rounding (docs/mathematics.md, after
Eq. M9).

Cost. One search among all points, and one for each round of row generation. Memory: ten edges for each point and round,
and blocks of the search.
"""

from __future__ import annotations

from collections.abc import Callable
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
    method: Callable[[Problem], Answer],
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    search: str,
    progress: Progress | None,
    problem: Problem,
) -> Answer:
    """Size the balls by `method`, which is greedy with a reserve, over all conflicting pairs.

    `problem.graph` has the edges to near neighbours, from which row generation starts.
    """
    graph, degree = _survey(points, labels, search, progress, problem)
    order = greedy.permutation(degree, greedy.chosen(problem))

    def in_this_order(smaller: Problem) -> Answer:
        return method(replace(smaller, order=order))

    answer = generate_rows(in_this_order, points, labels, search, progress, replace(problem, graph=graph))
    return replace(answer, method=greedy.name(problem))


def _survey(
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    search: str,
    progress: Progress | None,
    problem: Problem,
) -> tuple[OverlapGraph, Int64[np.ndarray, " n"]]:
    """Look at all pairs that overlap under the caps of the problem's graph.

    Returns the graph with the edge from every point to its nearest neighbour added, and the degree of every point.
    """
    graph = problem.graph
    degree = np.zeros(graph.n, dtype=np.int64)
    nearest, neighbour = np.full(graph.n, np.inf), np.full(graph.n, graph.n)
    # points at the place of another have radius 0 by Eq. 10: pairs of two of them are not needed
    coincident = np.flatnonzero(graph.nearest[1] == 0)
    caps = caps_above(graph)
    caps[coincident] = 0.0
    blocks = overlaps(points, caps, labels, progress, coincident, parallel=problem.parallel, search=search)
    for i, j, distance in blocks:
        for a, b in ((i, j), (j, i)):
            degree += np.bincount(a, minlength=graph.n)
            before = nearest[a]
            np.minimum.at(nearest, a, distance)
            neighbour[a[nearest[a] < before]] = graph.n  # this block has a nearer one: forget the one known so far
            closest = distance == nearest[a]
            np.minimum.at(neighbour, a[closest], b[closest])  # the smallest index of several: blocks do not matter
    a = np.flatnonzero(neighbour < graph.n)
    b = neighbour[a]
    key = np.append(graph.i * graph.n + graph.j, np.minimum(a, b) * graph.n + np.maximum(a, b))
    key, first = np.unique(key, return_index=True)
    i, j = np.divmod(key, max(1, graph.n))
    distance = np.append(graph.distance, nearest[a])[first]
    return from_blocks(graph.R, graph.distance_error, [(i, j, distance)]), degree
