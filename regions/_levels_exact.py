"""Small components of the joint choice of levels, by enumeration: optimal, and proven to be.

What is lost against every point's largest bound can be counted while levels are chosen one point after the other. So
nearly all choices that cannot beat the present one are ruled out early, and the rest get their optimal radii
(docs/levels.md). A component where that takes too long keeps what the search found.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int64

from regions._distance import raised
from regions._levels_search import LevelProblem, State

_POINTS = 40
"""Larger components are not tried."""
_NODES, _LEAVES = 1 << 16, 256
"""What a component may take: partial choices that are looked at, and choices whose radii are computed."""
_ALL_NODES, _LEAF = 1 << 23, 1 << 12
"""What all may take together, a second or two, and what a choice whose radii are computed counts for."""
_TOLERANCE = 2.0**-36
"""Choices that are better by less, relatively, need not be found. Rounding is far below it."""


def settle(problem: LevelProblem, state: State) -> tuple[Bool[np.ndarray, " n"], float]:
    """Optimal levels and radii for small components, in place; smallest first, as long as that takes little.

    Returns the points of the components where no choice has a larger sum than the tolerance above what is now there,
    and an upper bound of the sum over these.
    """
    from regions import _levels_tree

    graph, component = problem.graph, problem.graph.components
    sizes = np.bincount(component)
    members, edges = _by_component(component, sizes.size), _by_component(component[graph.i], sizes.size)
    most = problem.R.max(axis=1)
    total, reached = np.bincount(component, most), np.bincount(component, state.radii)
    budget = total * (1 - _TOLERANCE) - reached
    proven = (sizes <= _POINTS) & (budget <= 0)
    bounds = np.minimum(reached + 2 * _TOLERANCE * total, total * (1 + 2.0**-46))
    start, neighbour, distance, R, labels = problem.network
    network = (start, neighbour, raised(distance, graph.distance_error), R, labels)
    choice = np.argsort(-R, axis=1, kind="stable")
    score, level, place = np.zeros(graph.n), np.full(graph.n, -1), np.empty(graph.n, dtype=np.int64)
    found = np.empty((_LEAVES, _POINTS), dtype=np.int64)
    left = _ALL_NODES
    for c in np.argsort(sizes, kind="stable").tolist():
        if sizes[c] > _POINTS or left <= 0:
            break
        if proven[c]:
            continue
        points = members[c].copy()
        _levels_tree.arrange(network, most, points, score)
        rows, visited = _levels_tree.enumerate_levels(
            network, most, choice, points, budget[c], min(left, _NODES), level, place, found
        )
        left -= visited + _LEAF * max(rows, 0)
        proven[c] = rows >= 0
        if rows > 0:
            part = problem.restricted(members[c], edges[c])
            choices = found[:rows, np.argsort(points)]
            bounds[c] = max(bounds[c], _take_best(part, state, members[c], choices))
    settled = math.fsum(bounds[proven])
    return proven[component], math.nextafter(settled, math.inf) if settled > 0 else settled


def _by_component(component: Int64[np.ndarray, " k"], count: int) -> list[Int64[np.ndarray, " _"]]:
    """Indices of each component's elements, ascending."""
    ends = np.cumsum(np.bincount(component, minlength=count))
    return np.split(np.argsort(component, kind="stable"), ends[:-1]) if count else []


def _take_best(
    part: LevelProblem, state: State, points: Int64[np.ndarray, " p"], choices: Int64[np.ndarray, "rows p"]
) -> float:
    """Take over the best of these levels of a component, if better; returns the largest bound among them."""
    answers = [part.allocate(levels) for levels in choices]
    best = max(range(len(answers)), key=lambda a: answers[a].objective)
    if answers[best].objective > math.fsum(state.radii[points]):
        state.level[points], state.radii[points] = choices[best], answers[best].radii
    return max(math.inf if answer.upper_bound is None else answer.upper_bound for answer in answers)
