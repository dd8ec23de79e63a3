"""Search for levels by expansion moves, each of which is a minimum cut.

What is computed. A fusion move is given two answers, the present one and a target, and lets every point either stay
with its present level and radius or move to those of the target; radii may shrink. Which points should move, so that
the sum of radii is largest, is a minimum cut on a grid of radii. An expansion move is the fusion with the target in
which all points have one common level and their full bounds. After every move, matching computes the optimal radii for
the new levels.

Guarantee. Radii stay feasible, and their sum never falls. Each cut is optimal up to its grid of radii and to rounded
capacities; the sequence of moves need not end at the optimum.

Cost. A maximum flow (SciPy) in a network with `new + old` nodes for every point.

Source. Expansion moves: Boykov, Veksler and Zabih, 2001. Fusion moves: Lempitsky, Rother, Roth and Blake, 2010. The
grid of radii is ours: docs/levels.md.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from regions._levels.problem import LevelProblem, State

COARSE, FINE = (4, 2), (8, 4)
"""Steps into which a cut divides the radius of a point that moves, and of a point that stays."""
_CAPACITY = 2.0**30
"""The capacity of all slices together, and of every arc that must not be cut. SciPy's flows are 32-bit integers."""
_SPARE = 1e-12
"""More than the relative error of the rounded lengths from which slices are counted."""
_LEAST_SUM = 1e-290
"""Capacities are scaled as if the radii summed to at least this, so that the scale stays finite."""
_SOURCE, _SINK = 0, 1


def expand_all(problem: LevelProblem, state: State, slices: tuple[int, int]) -> None:
    """Make expansion moves to every level in turn, until a whole turn has gained nothing."""
    K = problem.R.shape[1]
    idle = 0
    for k in itertools.cycle(np.argsort(-problem.R.sum(axis=0), kind="stable").tolist()):
        target = State(np.full(problem.graph.n, k, dtype=np.int64), np.ascontiguousarray(problem.R[:, k]))
        idle = 0 if fuse(problem, state, target, slices) else idle + 1
        if idle >= K:
            return


def fuse(problem: LevelProblem, state: State, target: State, slices: tuple[int, int]) -> bool:
    """Move the best set of points to their levels in `target`, then compute optimal radii.

    In the target, no two points may overlap where they conflict. Returns whether the state improved.
    """
    level = np.where(_cut(problem, state, target, *slices), target.level, state.level)
    if np.array_equal(level, state.level):
        return False
    return state.take(problem, level, problem.allocate(level).radii)


def _cut(problem: LevelProblem, state: State, target: State, new: int, old: int) -> Bool[np.ndarray, " n"]:
    """Which points to move, found by a minimum cut on a grid of radii (docs/levels.md).

    The radius of a point in `target` is divided into `new` equal slices, its present radius into `old` equal slices. A
    point that moves keeps some of the former, a point that stays some of the latter. Neither answer has an overlap, so
    two points that both move need not shrink for each other, nor need two that both stay. Only a point that moves and a
    point that stays compete for room. A minimum cut finds the set of slices that fit beside each other and are worth
    most.
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
    # A point without any slice has radius 0 whether it moves or stays. If it lies inside the ball of a point that
    # moves, it must move as well: at its present level it would conflict with that ball.
    radius = moved.sum(axis=1) * (moving / new)
    empty = ~moves & ~stayed[:, 0]
    for a, b in ((graph.i, graph.j), (graph.j, graph.i)):
        moves[a[empty[a] & (radius[b] > graph.distance)]] = True
    return np.asarray(moves)


class _Grid:
    """The network whose minimum cut decides which points move.

    Its nodes are a source, a sink, and every point's slices for moving and for staying. A cut puts each node on the
    side of the source or of the sink. A slice for moving is kept if it is on the source's side, a slice for staying if
    it is on the sink's side. A slice that is not kept costs its thickness: the capacity of its arc from the source, or
    to the sink. An arc that must not be cut, from node p to node q, forces q to the source's side wherever p is there.
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
        """Add the arcs within each point: the worth of its slices, and that keeping a slice needs the slices below."""
        move, stay = self.nodes_moving[self.can_move], self.nodes_staying[self.can_stay]
        self.add(_SOURCE, move, (self.moving[self.can_move] * (self.scale / self.new))[:, None])
        self.add(stay, _SINK, (self.staying[self.can_stay] * (self.scale / self.old))[:, None])
        self.add(move[:, 1:], move[:, :-1])
        self.add(stay[:, :-1], stay[:, 1:])
        both = self.can_move & self.can_stay  # a point that keeps a slice for moving keeps none for staying
        self.add(self.nodes_moving[both, 0], self.nodes_staying[both, 0])

    def connect_conflicts(
        self, a: Int64[np.ndarray, " m"], b: Int64[np.ndarray, " m"], distance: Float64[np.ndarray, " m"]
    ) -> None:
        """Add the arcs between each point of `a`, if it moves, and the point of `b` beside it, if that stays.

        An arc leads from each slice of a to the first slice of b that no longer fits beside it.
        """
        left = distance[:, None] - self.moving[a, None] * (np.arange(1, self.new + 1) / self.new)
        kept = np.floor(np.maximum(left, 0.0) / self.staying[b, None] * self.old * (1 + _SPARE))
        row, column = np.nonzero(kept < self.old)
        slices = kept[row, column].astype(np.int64)
        self.add(self.nodes_moving[a[row], column], self.nodes_staying[b[row], slices])

    def solve(self) -> tuple[Bool[np.ndarray, "n new"], Bool[np.ndarray, "n old"]]:
        """Which slices a minimum cut keeps: those for moving, and those for staying."""
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
    """Whether points a and b conflict at these levels, where their bounds are known to be positive."""
    k, m = level_a[a], level_b[b]
    return np.asarray((k != m) & (problem.labels[a, k] != problem.labels[b, m]).all(axis=1))
