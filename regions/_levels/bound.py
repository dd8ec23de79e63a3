"""An upper bound on the joint choice of levels and radii, by messages along a few edges of every point.

What is computed. Every edge charges each level and radius of its two ends a price, and pays it to the other end. The
largest balance of every point and of every edge is computed on its own; their sum bounds the optimum whatever the
prices are (docs/levels.md). Edges may be left out: that only raises the optimum, so the bound stays valid. The edges to
the nearest neighbours carry nearly all of it.

Guarantee. The bound is computed from the prices alone and rounded upwards. Nothing rests on how they were found.

Source and cost. Sequential tree-reweighted message passing (Kolmogorov 2006) finds the prices. One sweep costs
O(m K^2) operations for each step of the radii, for the m edges kept.
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
"""How many of its edges every point keeps, one stage after the other, until the gap is small enough."""
_ENOUGH = 5e-3
"""A relative gap that is small enough."""
_FEW_DIGITS = 1e-290
"""Radii below this, which float64 holds with fewer digits, are bounded by their sum alone."""
_FEWEST, _STEPS = 4, 48
"""The smallest and the largest number of steps into which a message divides the radii of each level."""
_WORK = 1 << 26
"""Operations that a sweep may take, a fraction of a second. Beyond it, steps are coarser and stages are left out."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A graph in compressed rows; `back` is the same edge in the other end's row, `later` counts neighbours j > i."""

    start: Int64[np.ndarray, " rows"]
    neighbour: Int64[np.ndarray, " ends"]
    distance: Float64[np.ndarray, " ends"]
    back: Int64[np.ndarray, " ends"]
    later: Int64[np.ndarray, " n"]


def upper_bound(problem: LevelProblem, sweeps: int, objective: float, elsewhere: float) -> float:
    """A number that no choice of levels and radii exceeds in its sum.

    Further stages are left out once the bound is close enough to `objective`; the sum `elsewhere`, of points that are
    not in this problem, is added to the bound before they are compared.
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
        for order in (backward, forward):  # each is its own inverse
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
    """The bound that these messages prove, rounded upwards. Any messages will do, with 0 <= share <= 1 / later."""
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
    total = math.fsum(terms)  # exact for one term, or none
    return math.nextafter(total, math.inf) if np.count_nonzero(terms) > 1 else total
