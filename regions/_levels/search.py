"""Search for levels by expansion moves, each a minimum cut, with exact radii in between."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from regions._levels.problem import LevelProblem, State

COARSE, FINE = (4, 2), (8, 4)
"""Steps into which a cut divides radii: of points that move, and of points that stay."""
_CAPACITY = 2.0**30
"""Capacity of all slices together, and of arcs that must not be cut; scipy's flows are 32-bit whole numbers."""
_SPARE = 1e-12
"""More than the relative error of the rounded lengths from which slices are counted."""
_LEAST_SUM = 1e-290
"""Capacities are scaled as if the radii summed to at least this, so that the scale stays finite."""
_SOURCE, _SINK = 0, 1


def expand_all(problem: LevelProblem, state: State, slices: tuple[int, int]) -> None:
    """Expansion moves to every level in turn until none helps."""
    K = problem.R.shape[1]
    idle = 0
    for k in itertools.cycle(np.argsort(-problem.R.sum(axis=0), kind="stable").tolist()):
        target = State(np.full(problem.graph.n, k, dtype=np.int64), np.ascontiguousarray(problem.R[:, k]))
        idle = 0 if fuse(problem, state, target, slices) else idle + 1
        if idle >= K:
            return


def fuse(problem: LevelProblem, state: State, target: State, slices: tuple[int, int]) -> bool:
    """Move the best set of points to their levels in `target`, others keeping theirs; then exact radii.

    No two points may conflict at their levels and radii in the target. Whether that improved the state.
    """
    level = np.where(_cut(problem, state, target, *slices), target.level, state.level)
    if np.array_equal(level, state.level):
        return False
    return state.take(problem, level, problem.allocate(level).radii)


def _cut(problem: LevelProblem, state: State, target: State, new: int, old: int) -> Bool[np.ndarray, " n"]:
    """Which points to move, found by a minimum cut on a grid of radii (docs/levels.md).

    A point that moves may get its radius in `target`, in `new` equal slices; a point that stays may keep its present
    radius, in `old` equal slices. Two points that both move never conflict, nor do two that both stay. So a conflict is
    always between a slice of a point that moves and a slice of a point that stays, and the heaviest set of slices
    without a conflict is what a minimum cut leaves.
    """
    moving = target.radii
    larger = np.where(state.radii > moving, state.radii, 0.0)
    staying = np.where(state.level == target.level, larger, state.radii)
    grid = _Grid(moving, staying, new, old)
    grid.connect_own()
    graph = problem.graph
    for a, b in ((graph.i, graph.j), (graph.j, graph.i)):  # a moves, b stays
        e = np.flatnonzero((moving[a] > 0) & (staying[b] > 0) & (moving[a] + staying[b] > graph.distance))
        e = e[_conflicts(problem, target.level, a[e], state.level, b[e])]
        grid.connect_conflicts(a[e], b[e], graph.distance[e])
    moved, stayed = grid.solve()
    moves = moved[:, 0].copy()
    # A point that keeps no slice is empty whether it moves or not. Where a ball that moves holds it, it moves as well:
    # at its present level it would conflict with that ball.
    radius = moved.sum(axis=1) * (moving / new)
    empty = ~moves & ~stayed[:, 0]
    for a, b in ((graph.i, graph.j), (graph.j, graph.i)):
        moves[a[empty[a] & (radius[b] > graph.distance)]] = True
    return np.asarray(moves)


class _Grid:
    """The network of a cut. Its nodes are the source, the sink, the slices of points that move, and of those that stay.

    Cutting a slice off costs what it is thick. An arc of unlimited capacity from slice p to slice q says that p cannot
    be kept unless q is, seen from the source; slices of points that stay are kept where the source does not reach them.
    """

    def __init__(
        self, moving: Float64[np.ndarray, " n"], staying: Float64[np.ndarray, " n"], new: int, old: int
    ) -> None:
        n = moving.size
        self.moving, self.staying, self.new, self.old = moving, staying, new, old
        self.can_move, self.can_stay = moving > 0, staying > 0
        self.nodes_moving = 2 + np.arange(n)[:, None] * new + np.arange(new)
        self.nodes_staying = 2 + n * new + np.arange(n)[:, None] * old + np.arange(old)
        self.scale = _CAPACITY / max(float(moving.sum() + staying.sum()), _LEAST_SUM)
        self.arcs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, tail: Any, head: Any, capacity: Any = _CAPACITY) -> None:
        """Add arcs; capacities are rounded down to whole numbers."""
        parts = np.broadcast_arrays(tail, head, capacity)
        tails, heads, capacities = (part.ravel().astype(np.int32) for part in parts)
        self.arcs.append((tails, heads, capacities))

    def connect_own(self) -> None:
        """Add the arcs that concern one point: what its slices are worth, and that each needs those below it."""
        move, stay = self.nodes_moving[self.can_move], self.nodes_staying[self.can_stay]
        self.add(_SOURCE, move, (self.moving[self.can_move] * (self.scale / self.new))[:, None])
        self.add(stay, _SINK, (self.staying[self.can_stay] * (self.scale / self.old))[:, None])
        self.add(move[:, 1:], move[:, :-1])
        self.add(stay[:, :-1], stay[:, 1:])
        both = self.can_move & self.can_stay  # a point cannot do both
        self.add(self.nodes_moving[both, 0], self.nodes_staying[both, 0])

    def connect_conflicts(
        self, a: Int64[np.ndarray, " m"], b: Int64[np.ndarray, " m"], distance: Float64[np.ndarray, " m"]
    ) -> None:
        """Add an arc from each slice of a, which moves, to the first slice of b, which stays, that has no room then."""
        left = distance[:, None] - self.moving[a, None] * (np.arange(1, self.new + 1) / self.new)
        kept = np.floor(np.maximum(left, 0.0) / self.staying[b, None] * self.old * (1 + _SPARE))
        row, column = np.nonzero(kept < self.old)
        slices = kept[row, column].astype(np.int64)
        self.add(self.nodes_moving[a[row], column], self.nodes_staying[b[row], slices])

    def solve(self) -> tuple[Bool[np.ndarray, "n new"], Bool[np.ndarray, "n old"]]:
        """Which slices a minimum cut keeps: of points that move, and of points that stay."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        size = 2 + self.nodes_moving.size + self.nodes_staying.size
        tails, heads, capacities = (np.concatenate(part) for part in zip(*self.arcs, strict=True))
        matrix = csr_array((capacities, (tails, heads)), shape=(size, size))
        left_over = matrix - maximum_flow(matrix, _SOURCE, _SINK).flow
        left_over.data[left_over.data < 0] = 0
        left_over.eliminate_zeros()
        reached = np.zeros(size, dtype=bool)
        reached[breadth_first_order(left_over, _SOURCE, return_predecessors=False)] = True
        moved = reached[self.nodes_moving] & self.can_move[:, None]
        stayed = ~reached[self.nodes_staying] & self.can_stay[:, None]
        return moved, stayed


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
