"""Search for levels by expansion moves, each a minimum cut, with exact radii in between."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from regions._levels.problem import LevelProblem, State

COARSE, FINE = (4, 2), (8, 4)
"""Steps into which a cut divides radii: of points that move, and of points that stay."""
_CAPACITY = 2.0**30


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
    """Which points to move, on a grid of radii: a minimum cut.

    Radii are cut into `new` slices at the target and `old` slices at the present level. Two points that move never
    conflict, nor do two that stay: conflicts join a slice of the one kind to a slice of the other, and the heaviest set
    of slices without conflict is the complement of a minimum cut (docs/levels.md).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    graph, R = problem.graph, target.radii
    stays = np.where(state.level == target.level, np.where(state.radii > R, state.radii, 0.0), state.radii)
    scale = _CAPACITY / max(float(R.sum() + stays.sum()), 1e-300)
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
