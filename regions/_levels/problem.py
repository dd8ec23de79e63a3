"""What the algorithms for the joint choice of levels and radii share: the problem, and the best answer so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int64

from regions._allocate import allocate_graph
from regions._allocation import Allocation
from regions._arithmetic.loops import compiled
from regions._arithmetic.rounding import UNIT
from regions._graph import OverlapGraph

GAIN = 1e-9
"""A relative gain below this may be rounding error, and counts as none."""


@dataclass(frozen=True, eq=False)
class LevelProblem:
    """The joint choice of levels and radii, for all points or for some of them, numbered from 0.

    graph : the overlap graph where every point has its largest bound
    R : the bound of every point at every level
    labels : the labels of every point at every level, in each of c arrays of labels
    """

    graph: OverlapGraph
    R: Float64[np.ndarray, "n K"]
    labels: Int64[np.ndarray, "n K c"]

    def radii_problem(self, level: Int64[np.ndarray, " n"]) -> OverlapGraph:
        """The overlap graph of the bounds at these levels.

        It may also list pairs that touch without overlapping. These constrain nothing that r <= R does not.
        """
        graph = self.graph
        R = at_level(self.R, level)
        keep = np.empty(graph.n_edges, dtype=bool)
        _mark_conflicts(self.R, self.labels, level, graph.i, graph.j, keep)
        keep &= R[graph.i] + R[graph.j] > graph.distance * (1 - 8 * UNIT)
        return replace(graph, R=R, i=graph.i[keep], j=graph.j[keep], distance=graph.distance[keep])

    def allocate(self, level: Int64[np.ndarray, " n"]) -> Allocation:
        """Optimal radii at these levels."""
        return allocate_graph(self.radii_problem(level), "matching")

    def restricted(self, members: Int64[np.ndarray, " p"], edges: Int64[np.ndarray, " q"]) -> LevelProblem:
        """The problem for the points `members` and the edges `edges` between them, indices in ascending order."""
        i, j = (np.searchsorted(members, end[edges]) for end in (self.graph.i, self.graph.j))
        graph = OverlapGraph(self.graph.R[members], i, j, self.graph.distance[edges], self.graph.distance_error)
        return LevelProblem(graph, self.R[members], self.labels[members])

    @cached_property
    def network(self) -> tuple[Any, ...]:
        """What the compiled loops take: (start, neighbour, distance, R, labels).

        The first three are the graph in compressed rows, with each point's nearest neighbour first.
        """
        start, neighbour, distance = self.graph.adjacency
        row = np.repeat(np.arange(self.graph.n), np.diff(start))
        order = np.lexsort((neighbour, distance, row))
        return start, neighbour[order], distance[order], self.R, self.labels


@dataclass(eq=False)
class State:
    """The best levels found so far, with optimal radii for these levels."""

    level: Int64[np.ndarray, " n"]
    radii: Float64[np.ndarray, " n"]

    @classmethod
    def best_levels(cls, problem: LevelProblem) -> State:
        """Every point at the level of its largest bound, with optimal radii."""
        level = problem.R.argmax(axis=1)
        return cls(level, problem.allocate(level).radii)

    @classmethod
    def common_levels(cls, problem: LevelProblem) -> State:
        """All points of a component at the level with the largest sum of bounds. Equal levels do not conflict."""
        K = problem.R.shape[1]
        component = problem.graph.components
        sums = np.stack([np.bincount(component, problem.R[:, k]) for k in range(K)])
        level = sums.argmax(axis=0)[component]
        return cls(level, at_level(problem.R, level))

    def take(self, problem: LevelProblem, level: Int64[np.ndarray, " n"], radii: Float64[np.ndarray, " n"]) -> bool:
        """Replace levels and radii in every component where the new sum of radii is larger.

        No edge leads from one component to another, so each may take the better of two answers. Returns whether any
        component improved.
        """
        component = problem.graph.components
        gain = np.bincount(component, radii) - np.bincount(component, self.radii)
        tolerance = GAIN * np.bincount(component, self.radii)
        better = (gain > tolerance)[component]
        self.level = np.where(better, level, self.level)
        self.radii = np.where(better, radii, self.radii)
        return bool(better.any())


def at_level(values: Float64[np.ndarray, "n K"], level: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """values[j, level[j]] for every point j."""
    return np.ascontiguousarray(values[np.arange(level.size), level])


@compiled
@no_type_check
def conflict(R, labels, i, k, j, m):
    """Whether point i at level k and point j at level m must not overlap."""
    if k == m or R[i, k] <= 0.0 or R[j, m] <= 0.0:
        return False
    shared = False
    for c in range(labels.shape[2]):
        shared |= labels[i, k, c] == labels[j, m, c]
    return not shared


@compiled
@no_type_check
def _mark_conflicts(R, labels, level, i, j, out):
    """Set out[e] to whether the ends of edge e conflict at their levels."""
    for e in range(i.size):
        out[e] = conflict(R, labels, i[e], level[i[e]], j[e], level[j[e]])
