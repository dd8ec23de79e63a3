"""An upper bound on the sum of radii over all choices of levels, from messages along a few edges of every point.

What is computed. The problem is split into independent small problems: one for every point, and one for every edge.
The sum of their maxima bounds the optimum, because the optimum solves all of them at once. To make the bound small, a
message along an edge moves value between the problem of the edge and the problem of its end: a number for each level
and radius of that end, added to the point's problem and subtracted from the edge's. The sum of both is the same, so the
bound is valid whatever the messages are (docs/levels.md, Eq. L2: a charge is value that moves from a point to an
edge). Leaving out edges removes constraints, so the bound stays valid. The edges to nearest neighbours matter most and
are kept first.

Guarantee. The bound is computed from the final messages alone and rounded upwards. An error in how the messages were
found makes it weaker, not wrong.

Source. Sequential tree-reweighted message passing (Kolmogorov, 2006) chooses the messages.

Cost. A sweep takes at most O(m K^2 G) operations for the m edges kept, K levels and G steps of the radii.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from regions._allocation import relative_gap
from regions._levels.messages import nearest_edges, sweep, terms
from regions._levels.problem import LevelProblem

_NEIGHBOURS = (3, 12, 48, 1 << 40)
"""How many edges every point keeps in each stage. No further stage follows once the gap is small enough."""
_ENOUGH = 5e-3
"""A relative gap below this is small enough."""
_FEW_DIGITS = 1e-290
"""Where no bound R is larger than this, float64 lacks digits for messages: the bound is the sum of the largest R."""
_FEWEST, _STEPS = 4, 48
"""The smallest and the largest number of steps into which a message divides the radii of each level."""
_WORK = 1 << 26
"""Operations that one sweep may take: a fraction of a second. More edges are met by coarser steps or fewer stages."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A graph in compressed rows: the neighbours of point i are neighbour[start[i]:start[i + 1]].

    Every edge has two entries, one in the row of each end; `back` leads from either to the other. `later` counts the
    neighbours of each point that have a larger index.
    """

    start: Int64[np.ndarray, " rows"]
    neighbour: Int64[np.ndarray, " ends"]
    distance: Float64[np.ndarray, " ends"]
    back: Int64[np.ndarray, " ends"]
    later: Int64[np.ndarray, " n"]


def upper_bound(problem: LevelProblem, sweeps: int, objective: float, elsewhere: float) -> float:
    """An upper bound on the sum of radii over all choices of levels and radii.

    objective : the sum that was found; once the bound is close enough to it, no further stage follows
    elsewhere : a bound for the points that are not in this problem but count in `objective`
    """
    graph = problem.graph
    bound = _total_up(problem.R.max(axis=1))
    nearest = np.argsort(graph.distance, kind="stable")
    kept = 0
    fine = problem.R.max(initial=0.0) > _FEW_DIGITS
    for count in _NEIGHBOURS if sweeps and fine else ():
        keep = np.zeros(graph.n_edges, dtype=bool)
        nearest_edges(graph.i, graph.j, nearest, count, keep)
        edges = int(np.count_nonzero(keep))
        steps = min(_STEPS, _WORK // (2 * max(1, edges) * problem.R.shape[1] ** 2))
        if relative_gap(objective, bound + elsewhere) <= _ENOUGH or edges == kept or (kept and steps < 2 * _FEWEST):
            break
        network = neighbours(graph.n, graph.i[keep], graph.j[keep], graph.distance_upper[keep])
        bound = min(bound, _stage(problem, network, sweeps, max(steps, _FEWEST)))
        kept = edges
    return bound


def _stage(problem: LevelProblem, network: Neighbours, sweeps: int, steps: int) -> float:
    R, labels = problem.R, problem.labels
    earlier = np.diff(network.start) - network.later
    share = 1.0 / np.maximum(1, np.maximum(network.later, earlier))
    messages = np.zeros((network.neighbour.size, R.shape[1], steps + 1))
    forward = np.arange(problem.graph.n)
    backward = forward[::-1].copy()
    for _ in range(sweeps):
        for order in (backward, forward):  # both permutations are their own inverses: order and place are the same
            sweep(
                order,
                order,
                network.start,
                network.neighbour,
                network.distance,
                network.back,
                R,
                labels,
                share,
                messages,
            )
    return value(network, R, labels, share, messages)


def neighbours(
    n: int, i: Int64[np.ndarray, " m"], j: Int64[np.ndarray, " m"], distance_upper: Float64[np.ndarray, " m"]
) -> Neighbours:
    """Compressed rows of the edges i < j."""
    ends = np.concatenate([i, j])
    order = np.argsort(ends, kind="stable")
    position = np.argsort(order)
    start = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))])
    return Neighbours(
        start=start,
        neighbour=np.concatenate([j, i])[order],
        distance=np.concatenate([distance_upper, distance_upper])[order],
        back=position[(order + i.size) % max(1, ends.size)],
        later=np.bincount(i, minlength=n),
    )


def value(
    network: Neighbours,
    R: Float64[np.ndarray, "n K"],
    labels: Int64[np.ndarray, "n K c"],
    share: Float64[np.ndarray, " n"],
    messages: Float64[np.ndarray, "ends K nodes"],
) -> float:
    """The upper bound that these messages prove, rounded upwards.

    The bound is valid for any messages, and for any `share` with 0 <= share <= 1 / later.
    """
    at_point, at_edge = np.zeros(len(R)), np.zeros(network.neighbour.size)
    terms(
        network.start,
        network.neighbour,
        network.distance,
        network.back,
        R,
        labels,
        network.later,
        share,
        messages,
        at_point,
        at_edge,
    )
    return _total_up(np.concatenate([at_point, at_edge]))


def _total_up(terms: Float64[np.ndarray, " t"]) -> float:
    total = math.fsum(terms)  # a single non-zero term is its own sum: no rounding
    return math.nextafter(total, math.inf) if np.count_nonzero(terms) > 1 else total
