"""Optimal levels and radii of small components, by enumeration.

What is computed. If every point of a component had its largest bound as radius, the sum of radii would be M. Every
actual choice of levels loses part of M, for two reasons: a point's bound at the chosen level may be smaller than its
largest, and two conflicting points whose bounds exceed their distance cannot both have their bounds. Levels are chosen
point by point, depth first, and these losses are added up. A partial choice that has already lost more than the answer
at hand loses in total cannot lead to a better one, so it is not extended (docs/levels.md, Eq. L3). Matching then finds
the optimal radii of the complete choices that remain.

Guarantee. Where the enumeration completes, no choice has a sum that is larger by more than a part of 2**-36 of M.

Cost. Exponential in the worst case, so it is limited: a component that exceeds the limit keeps what the search found.

Source. Branch and bound, a standard method (Land and Doig, 1960); the bound is Eq. L3.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Int64

from regions._arithmetic.distances import raised
from regions._arithmetic.rounding import UNIT
from regions._levels.enumeration_loops import arrange, enumerate_levels
from regions._levels.problem import LevelProblem, State

_POINTS = 40
"""Components with more points are not enumerated."""
_NODES, _LEAVES = 1 << 16, 256
"""Limits for one component: partial choices to look at, and complete choices whose radii are computed."""
_ALL_NODES, _LEAF = 1 << 23, 1 << 12
"""Limit for all components together, in partial choices (a second or two). A complete choice counts as _LEAF."""
_TOLERANCE = 2.0**-36
"""A choice that is better by a smaller part of M need not be found. Rounding errors are far below this."""


def settle(problem: LevelProblem, state: State) -> tuple[Bool[np.ndarray, " n"], float]:
    """Give small components their optimal levels and radii, in place, beginning with the smallest component.

    Returns
    -------
    proven : (n,) bool
        Whether the point is in a component whose sum is now proven optimal, up to the tolerance.
    bound : float
        An upper bound on the sum of the radii of the proven points.
    """
    graph, component = problem.graph, problem.graph.components
    sizes = np.bincount(component)
    members, edges = _by_component(component, sizes.size), _by_component(component[graph.i], sizes.size)
    most = problem.R.max(axis=1)
    total, reached = np.bincount(component, most), np.bincount(component, state.radii)
    budget = total * (1 - _TOLERANCE) - reached
    proven = (sizes <= _POINTS) & (budget <= 0)
    bounds = np.minimum(reached + 2 * _TOLERANCE * total, total * (1 + 128 * UNIT))
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
        arrange(network, most, points, score)
        listed, visited = enumerate_levels(
            network, most, choice, points, budget[c], min(left, _NODES), level, place, found
        )
        left -= visited + _LEAF * max(listed, 0)
        proven[c] = listed >= 0
        if listed > 0:
            part = problem.restricted(members[c], edges[c])
            choices = found[:listed, np.argsort(points)]
            bounds[c] = max(bounds[c], _take_best(part, state, members[c], choices))
    settled = math.fsum(bounds[proven])
    return proven[component], math.nextafter(settled, math.inf) if settled > 0 else settled


def _by_component(component: Int64[np.ndarray, " k"], count: int) -> list[Int64[np.ndarray, " _"]]:
    """Indices of each component's elements, ascending."""
    ends = np.cumsum(np.bincount(component, minlength=count))
    return np.split(np.argsort(component, kind="stable"), ends[:-1]) if count else []


def _take_best(
    part: LevelProblem, state: State, points: Int64[np.ndarray, " p"], choices: Int64[np.ndarray, "listed p"]
) -> float:
    """Give the component the best of these choices of levels, where it beats the present one.

    Returns the largest of the choices' upper bounds, which bounds them all.
    """
    answers = [part.allocate(levels) for levels in choices]
    best = max(range(len(answers)), key=lambda a: answers[a].objective)
    if answers[best].objective > math.fsum(state.radii[points]):
        state.level[points], state.radii[points] = choices[best], answers[best].radii
    return max(math.inf if answer.upper_bound is None else answer.upper_bound for answer in answers)
