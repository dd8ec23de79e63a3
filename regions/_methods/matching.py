"""Eq. 10 for equal weights by minimum-cost matching, without a linear programming solver.

What is computed. A permutation of the points of least cost, in which sending point i to point j costs d_ij, and is
possible if {i, j} is an edge, and leaving i in place costs 2 c_i. This is an assignment problem. Its optimal dual
variables, the potentials u and v, give the radii (u + v) / 2.

Guarantee. The radii are optimal: their sum is half the cost of the permutation, and half the cost of any permutation
bounds the sum of any feasible radii (docs/mathematics.md, Eq. M6 and M7). So the permutation is a certificate that
`verify` checks by addition.

Cost. O(n (m + n log n)) at worst, close to O(m) where augmenting paths are short.

Source. Eppstein, "Maximizing the sum of radii of disjoint balls or disks", 2016. The assignment problem is solved by
the method of Jonker and Volgenant (1987), with an auction (Bertsekas, 1988) for hard cases: `matching_loops`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64

from regions import _workers
from regions._allocation import NEGLIGIBLE, Certificate
from regions._graph import OverlapGraph
from regions._methods import greedy
from regions._methods.bounds import competing, dual_value, nearest_caps
from regions._methods.matching_loops import Matching, Network, bid, match, match_tight, release
from regions._methods.parts import parts
from regions._methods.problem import Answer, Problem
from regions._methods.repair import fill, trim

_BIDS = 32
"""Longest chain of bids before shortest paths are searched."""
_PATIENCE = 16
"""Columns that the first search for a path may take from the heap. A row that needs more joins an auction instead."""
_AUCTION, _AUCTION_BIDS = (1e-2, 1e-3, 1e-4), 1000
"""Increments of the auction, one in each round, as parts of the caps; and its longest chain of bids."""
_EDGES = 1 << 16
"""A part with this many edges is worth sending to a worker."""
_EACH = 8
"""Parts for each worker: many, because some take longer than others."""


def solve(problem: Problem) -> Answer:
    """Optimal radii of Eq. 10 for equal weights, with the permutation that proves them optimal.

    The solver starts from feasible radii: those of greedy with a reserve, or `problem.start`, made feasible by
    shrinking balls and then growing them. Bids come next, then shortest augmenting paths.
    """
    graph = problem.graph
    weight = 1.0 if problem.weights is None else float(problem.weights.max(initial=0.0))
    caps = nearest_caps(graph)
    rows = competing(graph, caps)
    reduced = OverlapGraph(caps, graph.i[rows], graph.j[rows], graph.distance[rows], graph.distance_error)
    began = time.perf_counter()
    potentials, partner = _assign_parts(reduced, problem.start, problem.parallel)
    stats = {"rows": reduced.n_edges, "seconds_solve": time.perf_counter() - began}

    radii = fill(reduced, caps, trim(reduced, np.clip(potentials, 0.0, caps)))
    halves = np.bincount(rows[_edges(reduced, partner)], minlength=graph.n_edges) / 2
    upper_bound = dual_value(graph, np.full(graph.n, weight), weight * halves)
    status = "optimal: proven by a permutation of the points"
    if problem.gap(radii, upper_bound) > NEGLIGIBLE:
        status = "not proven optimal: float64 lacks digits at this scale, see gap; rescale points and radii"
    return Answer(
        radii=radii,
        bounds=caps,
        method="matching",
        status=status,
        upper_bound=upper_bound,
        certificate=Certificate(partner, graph.nearest[0]),
        stats=stats,
    )


def _assign_parts(
    graph: OverlapGraph, earlier: Float64[np.ndarray, " n"] | None, parallel: _workers.Workers | None
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """`_assign` for the whole graph, or shared out by connected components. The outcome is the same."""
    if parallel is None:
        return _assign(graph, earlier)
    potentials, partner = graph.R.copy(), np.arange(graph.n)  # right for vertices without an edge
    edges = max(_EDGES, graph.n_edges // (_EACH * _workers.count(parallel)))
    members: list[Int64[np.ndarray, " p"]] = []

    def calls() -> Iterator[_workers.Call]:
        for v, e, i, j in parts(graph.components, graph.i, graph.j, edges):
            members.append(v)
            part = OverlapGraph(graph.R[v], i, j, graph.distance[e], graph.distance_error)
            yield _assign, (part, None if earlier is None else earlier[v])

    for number, (u, mates) in enumerate(_workers.results(parallel, calls())):
        potentials[members[number]] = u
        partner[members[number]] = members[number][mates]
    return potentials, partner


def _assign(
    graph: OverlapGraph, earlier: Float64[np.ndarray, " n"] | None
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Solve the assignment problem in which leaving a point in place costs twice its bound in the graph.

    Returns the radii (u + v) / 2 of optimal potentials, and the optimal permutation. `earlier` are radii to start from.
    """
    order = np.argsort(graph.degree, kind="stable")
    if earlier is None:
        start = greedy.with_reserve(graph, order)
    else:
        start = fill(graph, graph.R, trim(graph, np.minimum(earlier, graph.R)))
    network = Network(*graph.adjacency, graph.R)
    matching = Matching(start.copy(), start.copy(), np.full(graph.n, -1), np.full(graph.n, -1))
    match_tight(network, start, order, matching.mate_row, matching.mate_column)
    loose = np.zeros(graph.n, dtype=bool)
    for _ in range(2):
        bid(network, order, 0.0, _BIDS, matching, loose)
    match(network, order, _PATIENCE, matching)
    for part in _AUCTION if (matching.mate_row < 0).any() else ():
        bid(network, order, part, _AUCTION_BIDS, matching, loose)
        release(network, matching, loose)
        for _ in range(2):
            bid(network, order, 0.0, _BIDS, matching, loose)
    match(network, order, graph.n, matching)
    return (matching.u + matching.v) / 2, matching.mate_row


def _edges(graph: OverlapGraph, partner: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
    """For every point that the permutation moves, the index of the edge {i, partner[i]}."""
    i = np.flatnonzero(partner != np.arange(graph.n))
    j = partner[i]
    return np.asarray(np.searchsorted(graph.i * graph.n + graph.j, np.minimum(i, j) * graph.n + np.maximum(i, j)))
