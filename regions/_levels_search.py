"""Search for levels: expansion moves by minimum cut, block moves, exact radii in between."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from regions._allocate import allocate_graph
from regions._allocation import Allocation
from regions._graph import OverlapGraph

_SIZES = np.array([0, 1, 3, 8, 20, 64, 1 << 40])
"""Neighbours that a block move takes along."""
COARSE, FINE = (4, 2), (8, 4)
"""Steps into which a cut divides radii: of points that move, and of points that stay."""
_CAPACITY = 2.0**30


@dataclass(frozen=True, eq=False)
class LevelProblem:
    """Points that may conflict, renumbered: `graph` is their overlap graph at the largest bounds."""

    graph: OverlapGraph
    R: Float64[np.ndarray, "n K"]
    labels: Int64[np.ndarray, "n K c"]

    def radii_problem(self, level: Int64[np.ndarray, " n"]) -> OverlapGraph:
        """Overlap graph of the bounds at these levels. Pairs that only touch may stay: they constrain nothing."""
        from regions import _levels_kernels

        graph = self.graph
        R = at_level(self.R, level)
        keep = np.empty(graph.n_edges, dtype=bool)
        _levels_kernels.conflicts(self.R, self.labels, level, graph.i, graph.j, keep)
        keep &= R[graph.i] + R[graph.j] > graph.distance * (1 - 2.0**-50)
        return replace(graph, R=R, i=graph.i[keep], j=graph.j[keep], distance=graph.distance[keep])

    def allocate(self, level: Int64[np.ndarray, " n"]) -> Allocation:
        """Optimal radii at these levels."""
        return allocate_graph(self.radii_problem(level), "matching")

    def restricted(self, members: Int64[np.ndarray, " p"], edges: Int64[np.ndarray, " q"]) -> LevelProblem:
        """The problem on some points and edges, both ascending."""
        i, j = (np.searchsorted(members, end[edges]) for end in (self.graph.i, self.graph.j))
        graph = replace(self.graph, R=self.graph.R[members], i=i, j=j, distance=self.graph.distance[edges])
        return LevelProblem(graph, self.R[members], self.labels[members])

    @cached_property
    def network(self) -> tuple[Any, ...]:
        """What the compiled loops take: rows of the graph, nearest neighbours first, bounds and labels."""
        start, neighbour, distance = self.graph.adjacency
        row = np.repeat(np.arange(self.graph.n), np.diff(start))
        order = np.lexsort((neighbour, distance, row))
        return start, neighbour[order], distance[order], self.R, self.labels


@dataclass(eq=False)
class State:
    """The best levels so far, with optimal radii."""

    level: Int64[np.ndarray, " n"]
    radii: Float64[np.ndarray, " n"]

    @classmethod
    def best_levels(cls, problem: LevelProblem) -> State:
        """Every point at the level of its largest bound, with optimal radii."""
        level = problem.R.argmax(axis=1)
        return cls(level, problem.allocate(level).radii)

    @classmethod
    def common_levels(cls, problem: LevelProblem) -> State:
        """Every component of the graph at its best common level: no conflicts."""
        K = problem.R.shape[1]
        component = problem.graph.components
        sums = np.stack([np.bincount(component, problem.R[:, k]) for k in range(K)])
        level = sums.argmax(axis=0)[component]
        return cls(level, at_level(problem.R, level))

    def take(self, problem: LevelProblem, level: Int64[np.ndarray, " n"], radii: Float64[np.ndarray, " n"]) -> bool:
        """Take over every component of the graph whose sum of radii is larger. Components do not interact."""
        component = problem.graph.components
        gain = np.bincount(component, radii) - np.bincount(component, self.radii)
        tolerance = 1e-9 * np.bincount(component, self.radii)
        better = (gain > tolerance)[component]
        self.level = np.where(better, level, self.level)
        self.radii = np.where(better, radii, self.radii)
        return bool(better.any())


def at_level(values: Float64[np.ndarray, "n K"], level: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """values[j, level[j]]."""
    return np.ascontiguousarray(values[np.arange(level.size), level])


def expand_all(problem: LevelProblem, state: State, slices: tuple[int, int]) -> None:
    """Expansion moves to every level in turn until none helps."""
    K = problem.R.shape[1]
    idle = 0
    for k in itertools.cycle(np.argsort(-problem.R.sum(axis=0), kind="stable").tolist()):
        target = State(np.full(problem.graph.n, k, dtype=np.int64), np.ascontiguousarray(problem.R[:, k]))
        idle = 0 if fuse(problem, state, target, slices) else idle + 1
        if idle >= K:
            return


def improve(problem: LevelProblem, state: State, rng: np.random.Generator | None = None) -> bool:
    """One round of block moves, the points that miss most first, or in random order; then exact radii."""
    from regions import _levels_kernels

    missing = problem.R.max(axis=1) - state.radii
    tolerance = 1e-9 * float(problem.R.max(initial=0.0))
    order = np.argsort(-missing, kind="stable") if rng is None else rng.permutation(missing.size)
    order = order[missing[order] > tolerance]
    level, radii = state.level.copy(), state.radii.copy()
    _levels_kernels.improve(problem.network, _SIZES, order, tolerance, level, radii)
    return state.take(problem, level, problem.allocate(level).radii)


def fuse(problem: LevelProblem, state: State, target: State, slices: tuple[int, int]) -> bool:
    """Move the best set of points to their levels in `target`, others keeping theirs; then exact radii.

    No two points may conflict at their levels and radii in the target. Whether that improved the state.
    """
    level = np.where(_cut(problem, state, target, *slices), target.level, state.level)
    if np.array_equal(level, state.level):
        return False
    return state.take(problem, level, problem.allocate(level).radii)


def _cut(problem: LevelProblem, state: State, target: State, new: int, old: int) -> Bool[np.ndarray, " n"]:
    """Which points to move, on a grid of radii: a minimum cut.

    Radii are cut into `new` slices at the target and `old` slices at the present level. Two points that move never
    conflict, nor do two that stay: conflicts join a slice of the one kind to a slice of the other, and the heaviest set
    of slices without conflict is the complement of a minimum cut (docs/levels.md).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    graph, R = problem.graph, target.radii
    stays = np.where(state.level == target.level, np.where(state.radii > R, state.radii, 0.0), state.radii)
    scale = _CAPACITY / max(float(R.sum() + stays.sum()), 1e-290)
    n = graph.n
    moving = 2 + np.arange(n)[:, None] * new + np.arange(new)
    keeping = 2 + n * new + np.arange(n)[:, None] * old + np.arange(old)
    tails: list[np.ndarray] = []
    heads: list[np.ndarray] = []
    capacities: list[np.ndarray] = []

    def arcs(tail: Any, head: Any, capacity: Any = _CAPACITY) -> None:
        for part, values in zip((tails, heads, capacities), np.broadcast_arrays(tail, head, capacity), strict=True):
            part.append(values.ravel().astype(np.int32))

    can_move, can_keep = R > 0, stays > 0
    arcs(0, moving[can_move], (R[can_move] * (scale / new))[:, None])
    arcs(keeping[can_keep], 1, (stays[can_keep] * (scale / old))[:, None])
    arcs(moving[can_move, 1:], moving[can_move, :-1])  # a slice needs those below it
    arcs(keeping[can_keep, :-1], keeping[can_keep, 1:])
    both = can_move & can_keep
    arcs(moving[both, 0], keeping[both, 0])
    for a, b in ((graph.i, graph.j), (graph.j, graph.i)):  # a moves, b keeps
        e = np.flatnonzero(can_move[a] & can_keep[b] & (R[a] + stays[b] > graph.distance))
        e = e[_conflicts(problem, target.level, a[e], state.level, b[e])]
        left = graph.distance[e, None] - R[a[e], None] * (np.arange(1, new + 1) / new)  # what each slice leaves to b
        kept = np.floor(np.maximum(left, 0.0) / stays[b[e], None] * old * (1 + 1e-12))
        row, column = np.nonzero(kept < old)
        arcs(moving[a[e[row]], column], keeping[b[e[row]], kept[row, column].astype(np.int64)])
    size = 2 + n * (new + old)
    matrix = csr_array((np.concatenate(capacities), (np.concatenate(tails), np.concatenate(heads))), shape=(size, size))
    left_over = matrix - maximum_flow(matrix, 0, 1).flow
    left_over.data[left_over.data < 0] = 0
    left_over.eliminate_zeros()
    reached = np.zeros(size, dtype=bool)
    reached[breadth_first_order(left_over, 0, return_predecessors=False)] = True
    moves = can_move & reached[moving[:, 0]]
    # who gets no slice at all is empty on either side: it goes where a ball that moves holds it
    radius = np.where(can_move, reached[moving].sum(axis=1) * (R / new), 0.0)
    empty = ~moves & ~(can_keep & ~reached[keeping[:, 0]])
    for a, b in ((graph.i, graph.j), (graph.j, graph.i)):
        moves[a[empty[a] & (radius[b] > graph.distance)]] = True
    return np.asarray(moves)


def _conflicts(
    problem: LevelProblem,
    level_a: Int64[np.ndarray, " n"],
    a: Int64[np.ndarray, " m"],
    level_b: Int64[np.ndarray, " n"],
    b: Int64[np.ndarray, " m"],
) -> Bool[np.ndarray, " m"]:
    """Whether a and b conflict at these levels, for bounds known to be positive."""
    k, m = level_a[a], level_b[b]
    return np.asarray((k != m) & (problem.labels[a, k] != problem.labels[b, m]).all(axis=1))
