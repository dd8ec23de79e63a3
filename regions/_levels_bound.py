"""An upper bound on the joint choice of levels and radii, by messages along a few edges of every point.

Leaving out edges only raises the optimum, so any of them give a valid bound; those to the nearest neighbours carry
nearly all of it. On them, every edge charges each level and radius of its ends: the sum of the largest balances of all
points and edges bounds the optimum whatever the charges (docs/levels.md). Sequential tree-reweighted message passing
(Kolmogorov 2006) chooses the charges; the bound is then computed from the charges alone, rounded upwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from regions._allocation import relative_gap
from regions._levels_search import LevelProblem

_NEIGHBOURS = (3, 12, 48, 1 << 40)
"""Edges that every point keeps, stage by stage, until the gap is small enough."""
_ENOUGH = 5e-3
_FEW_DIGITS = 1e-290
"""Radii below this, which float64 holds with fewer digits, are bounded by their sum alone."""
_FEWEST, _STEPS = 4, 48
"""Into how many steps a message divides the radii of each level."""
_WORK = 1 << 26
"""Operations of a sweep, a fraction of a second: finer steps and further stages are left out beyond it."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A graph in compressed rows; `back` is the same edge in the other end's row, `later` counts neighbours j > i."""

    start: Int64[np.ndarray, " rows"]
    neighbour: Int64[np.ndarray, " ends"]
    distance: Float64[np.ndarray, " ends"]
    back: Int64[np.ndarray, " ends"]
    later: Int64[np.ndarray, " n"]


def upper_bound(problem: LevelProblem, sweeps: int, objective: float, elsewhere: float) -> float:
    """No levels and radii have a larger sum.

    Stops early where `objective` comes close enough, both counted with the sum `elsewhere` of points not in conflict.

    A sweep costs O(m K^2) steps for the m edges kept, at first 3 for every point.
    """
    from regions import _levels_messages

    graph = problem.graph
    bound = _total_up(problem.R.max(axis=1))
    nearest = np.argsort(graph.distance, kind="stable")
    kept = 0
    fine = problem.R.max(initial=0.0) > _FEW_DIGITS
    for count in _NEIGHBOURS if sweeps and fine else ():
        keep = np.zeros(graph.n_edges, dtype=bool)
        _levels_messages.nearest_edges(graph.i, graph.j, nearest, count, keep)
        edges = int(np.count_nonzero(keep))
        steps = min(_STEPS, _WORK // (2 * max(1, edges) * problem.R.shape[1] ** 2))
        if relative_gap(objective, bound + elsewhere) <= _ENOUGH or edges == kept or (kept and steps < 2 * _FEWEST):
            break
        network = rows(graph.n, graph.i[keep], graph.j[keep], graph.distance_upper[keep])
        bound = min(bound, _stage(problem, network, sweeps, max(steps, _FEWEST)))
        kept = edges
    return bound


def _stage(problem: LevelProblem, network: Rows, sweeps: int, steps: int) -> float:
    from regions import _levels_messages

    R, labels = problem.R, problem.labels
    earlier = np.diff(network.start) - network.later
    share = 1.0 / np.maximum(1, np.maximum(network.later, earlier))
    messages = np.zeros((network.neighbour.size, R.shape[1], steps + 1))
    forward = np.arange(problem.graph.n)
    backward = forward[::-1].copy()
    for _ in range(sweeps):
        for order in (backward, forward):  # each is its own inverse
            _levels_messages.sweep(
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


def rows(
    n: int, i: Int64[np.ndarray, " m"], j: Int64[np.ndarray, " m"], distance_upper: Float64[np.ndarray, " m"]
) -> Rows:
    """Compressed rows of the edges i < j."""
    ends = np.concatenate([i, j])
    order = np.argsort(ends, kind="stable")
    position = np.argsort(order)
    start = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))])
    return Rows(
        start=start,
        neighbour=np.concatenate([j, i])[order],
        distance=np.concatenate([distance_upper, distance_upper])[order],
        back=position[(order + i.size) % max(1, ends.size)],
        later=np.bincount(i, minlength=n),
    )


def value(
    network: Rows,
    R: Float64[np.ndarray, "n K"],
    labels: Int64[np.ndarray, "n K c"],
    share: Float64[np.ndarray, " n"],
    messages: Float64[np.ndarray, "ends K nodes"],
) -> float:
    """The bound that ANY messages and shares prove, 0 <= share <= 1 / later; rounded upwards."""
    from regions import _levels_messages

    at_point, at_edge = np.zeros(len(R)), np.zeros(network.neighbour.size)
    _levels_messages.terms(
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
    total = math.fsum(terms)  # exact for one term, or none
    return math.nextafter(total, math.inf) if np.count_nonzero(terms) > 1 else total
