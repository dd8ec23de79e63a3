"""Eq. 10 without a linear programming solver: minimum-cost matching on the bipartite double cover.

For unit weights, twice the optimum of Eq. 10 is the least cost of a permutation of the points, where sending i to j
costs d_ij (an edge of the graph) and leaving i in place costs 2 c_i; the optimal potentials u, v of that assignment
problem give optimal radii (u + v) / 2, and the permutation proves it: docs/mathematics.md, Eq. M6 and M7.
(Eppstein, "Maximizing the sum of radii of disjoint balls or disks", 2016.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64

from regions import _greedy, _parallel
from regions._allocation import NEGLIGIBLE, Answer, Certificate, Problem, relative_gap
from regions._bounds import competing, dual_value, nearest_caps
from regions._feasible import fill, trim
from regions._graph import OverlapGraph

_EDGES = 1 << 16  # worth sending to a worker
_BIDS = 32  # in a row, before shortest paths are searched
_PATIENCE = 16  # columns that one such search may look at, before there is an auction ...
_AUCTION, _AUCTION_BIDS = (1e-2, 1e-3, 1e-4), 1000  # ... by these parts of caps, with so many bids in a row
_EACH = 8  # parts for each worker, since some take longer than others


def solve(problem: Problem) -> Answer:
    """Optimal radii of Eq. 10 for equal weights, with the permutation that proves them.

    From a greedy start, or from the `start` given, cut until it is feasible and then grown: bids, then shortest
    augmenting paths. O(n (m + n log n)) at worst, close to O(m) where paths are short.
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
    if relative_gap(problem.objective(radii), upper_bound) > NEGLIGIBLE:
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
    graph: OverlapGraph, earlier: Float64[np.ndarray, " n"] | None, parallel: _parallel.Workers | None
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """`_assign`, whole or by connected components, which do not interact: the outcome is the same."""
    if parallel is None:
        return _assign(graph, earlier)
    potentials, partner = np.empty(graph.n), np.empty(graph.n, dtype=np.int64)
    parts = list(_parts(graph, max(_EDGES, graph.n_edges // (_EACH * _parallel.count(parallel)))))
    calls = ((_assign, (part, None if earlier is None else earlier[members])) for members, part in parts)
    for (members, _), (u, mates) in zip(parts, _parallel.results(parallel, calls), strict=True):
        potentials[members] = u
        partner[members] = members[mates]
    return potentials, partner


def _parts(graph: OverlapGraph, edges: int) -> Iterator[tuple[Int64[np.ndarray, " p"], OverlapGraph]]:
    """Members and graph of some connected components at a time, with about so many edges, or a single larger one."""
    component = graph.components
    sizes = np.bincount(component[graph.i], minlength=graph.n_components)
    part = (np.cumsum(sizes) // max(1, edges))[component]
    local = np.empty(graph.n, dtype=np.int64)
    for name in np.unique(part):
        members, e = np.flatnonzero(part == name), np.flatnonzero(part[graph.i] == name)
        local[members] = np.arange(members.size)
        ends = local[graph.i[e]], local[graph.j[e]]
        yield members, OverlapGraph(graph.R[members], *ends, graph.distance[e], graph.distance_error)


def _assign(
    graph: OverlapGraph, earlier: Float64[np.ndarray, " n"] | None
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Radii (u + v) / 2 of optimal potentials, and the optimal permutation; loops cost twice the graph's bounds."""
    from regions import _assignment

    order = np.argsort(graph.degree, kind="stable")
    if earlier is None:
        start = _greedy.with_reserve(graph, order)
    else:
        start = fill(graph, graph.R, trim(graph, np.minimum(earlier, graph.R)))
    u, v = start.copy(), start.copy()
    mate_row, mate_column = np.full(graph.n, -1), np.full(graph.n, -1)
    _assignment.match_tight(*graph.adjacency, graph.R, start, order, mate_row, mate_column)
    network, state = (*graph.adjacency, graph.R), (u, v, mate_row, mate_column)
    loose = np.zeros(graph.n, dtype=bool)
    for _ in range(2):
        _assignment.bid(*network, order, 0.0, _BIDS, *state, loose)
    _assignment.match(*network, order, _PATIENCE, *state)
    for part in _AUCTION if (mate_row < 0).any() else ():
        _assignment.bid(*network, order, part, _AUCTION_BIDS, *state, loose)
        _assignment.release(*network, *state, loose)
        for _ in range(2):
            _assignment.bid(*network, order, 0.0, _BIDS, *state, loose)
    _assignment.match(*network, order, graph.n, *state)
    return (u + v) / 2, mate_row


def _edges(graph: OverlapGraph, partner: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
    """Indices of the edges {i, partner[i]} of all points that do not stay in place."""
    i = np.flatnonzero(partner != np.arange(graph.n))
    j = partner[i]
    return np.asarray(np.searchsorted(graph.i * graph.n + graph.j, np.minimum(i, j) * graph.n + np.maximum(i, j)))
