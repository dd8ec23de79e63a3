"""Search for levels by block moves: a point changes its level together with some of its neighbours.

What is computed. Point i tries a level k if its bound there exceeds its present radius. The neighbours whose balls
would conflict with the larger ball, and overlap it, are in the way. Point i moves to level k alone first, then together
with the nearest 1, 3, 8, ... neighbours in the way, which move to level k as well. A move that increases the sum of the
radii is kept.

Guarantee. Radii stay feasible, and their sum never falls. The result need not be optimal.

Cost. One attempt looks at the edges of the points in the block, and at the edges of their neighbours.

Source. This project; docs/levels.md.

In the compiled loops, `network` is (start, neighbour, distance, R, labels): the overlap graph at the largest bounds in
compressed rows, with each point's nearest neighbour first; the bounds R of shape (n, K); and the labels of shape
(n, K, c) that say which groups each point belongs to at each level. A point at a level with R = 0 has an empty ball and
conflicts with no other.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np

from regions._arithmetic.loops import compiled
from regions._levels.problem import GAIN, LevelProblem, State, conflict

_SIZES = np.array([0, 1, 3, 8, 20, 64, 1 << 40])
"""How many neighbours move together with a point, in the order in which the sizes are tried."""


class _Answer(NamedTuple):
    """Level and radius of every point. The loops change both in place."""

    level: np.ndarray
    radius: np.ndarray


class _Undo(NamedTuple):
    """A record from which an attempt can be undone.

    `touched` lists the points that the attempt has changed; `level` and `radius` hold what each had before. `seen`
    holds, for every point, the number of the last attempt that changed it, so that an attempt records a point once.
    """

    seen: np.ndarray
    touched: np.ndarray
    level: np.ndarray
    radius: np.ndarray


def improve(problem: LevelProblem, state: State, rng: np.random.Generator | None = None) -> bool:
    """Make one round of block moves, then compute optimal radii. Returns whether the state improved.

    The point whose radius is farthest below its largest bound comes first. With `rng`, the order is random.
    """
    missing = problem.R.max(axis=1) - state.radii
    tolerance = GAIN * float(problem.R.max(initial=0.0))
    order = np.argsort(-missing, kind="stable") if rng is None else rng.permutation(missing.size)
    order = order[missing[order] > tolerance]
    answer = _Answer(state.level.copy(), state.radii.copy())
    _improve(problem.network, _SIZES, order, tolerance, answer)
    return state.take(problem, answer.level, problem.allocate(answer.level).radii)


@compiled
@no_type_check
def _improve(network, sizes, order, tolerance, answer):
    """Try each of the points in `order` at every level; keep a move whose gain is above `tolerance`.

    Each block is tried in two ways. First its members take only the room that the balls around them leave. Then each
    member may also push: it takes as much room as if its tightest neighbour were absent, and that neighbour shrinks.
    """
    n, K = network[3].shape
    undo = _Undo(np.full(n, -1), np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n))
    block = np.empty(n, np.int64)
    attempt = 0
    for i in order:
        for k in range(K):
            if k == answer.level[i] or network[3][i, k] <= answer.radius[i] + tolerance:
                continue
            block[0] = i
            count = 1
            for size in sizes:
                wanted = size + 1
                if count == 1 and wanted > 1:
                    count = _list_in_the_way(network, i, k, answer, block)
                moved = False
                for push in range(2):
                    attempt += 1
                    members = block[: min(wanted, count)]
                    gain, changed = _try(network, members, k, push == 1, attempt, undo, answer)
                    if gain > tolerance:
                        moved = True
                        break
                    for c in range(changed):
                        answer.level[undo.touched[c]] = undo.level[c]
                        answer.radius[undo.touched[c]] = undo.radius[c]
                if moved or (wanted > 1 and count <= wanted):
                    break


@compiled
@no_type_check
def _list_in_the_way(network, i, k, answer, block):
    """Write the neighbours in the way of point i into block[1:], nearest first; return 1 + their number.

    A neighbour is in the way if it conflicts with point i at level k and overlaps the ball of radius R[i, k] around it.
    """
    start, neighbour, distance, R, labels = network
    count = 1
    for e in range(start[i], start[i + 1]):
        j = neighbour[e]
        if R[i, k] + answer.radius[j] > distance[e] and conflict(R, labels, i, k, j, answer.level[j]):
            block[count] = j
            count += 1
    return count


@compiled
@no_type_check
def _note(undo, attempt, count, j, answer):
    """Record level and radius of point j before they change; returns how many points are recorded."""
    if undo.seen[j] != attempt:
        undo.seen[j] = attempt
        undo.touched[count] = j
        undo.level[count] = answer.level[j]
        undo.radius[count] = answer.radius[j]
        count += 1
    return count


@compiled
@no_type_check
def _try(network, block, k, push, attempt, undo, answer):
    """Move the block to level k.

    With `push`, the neighbour that leaves a member the least room shrinks for it. Returns (gain, number of points
    recorded); the gain is -inf where no radii are feasible.
    """
    start, neighbour, distance, R, labels = network
    level, radius = answer
    count = 0
    gain = 0.0
    for i in block:
        count = _note(undo, attempt, count, i, answer)
        gain -= radius[i]
        level[i] = k
        radius[i] = 0.0
    for i in block:
        # the room that all neighbours leave, the room that all but the tightest leave, the room if all were empty
        first, second, limit = R[i, k], R[i, k], R[i, k]
        for e in range(start[i], start[i + 1]):
            j = neighbour[e]
            if distance[e] < R[i, k] + radius[j] and conflict(R, labels, i, k, j, level[j]):
                room = distance[e] - radius[j]
                limit = min(limit, distance[e])
                if room < first:
                    second = first
                    first = room
                elif room < second:
                    second = room
        r = min(second, limit) if push else first
        if r < 0.0:
            return -np.inf, count
        radius[i] = r
        gain += r
        if push and r > first:
            for e in range(start[i], start[i + 1]):
                j = neighbour[e]
                if distance[e] < r + radius[j] and conflict(R, labels, i, k, j, level[j]):
                    count = _note(undo, attempt, count, j, answer)
                    gain += distance[e] - r - radius[j]
                    radius[j] = distance[e] - r
    for i in block:  # neighbours may grow, because the block has left its former level
        for e in range(start[i], start[i + 1]):
            j = neighbour[e]
            if radius[j] < R[j, level[j]]:
                r = _room(network, j, answer)
                if r > radius[j]:
                    count = _note(undo, attempt, count, j, answer)
                    gain += r - radius[j]
                    radius[j] = r
    return gain, count


@compiled
@no_type_check
def _room(network, i, answer):
    """The largest radius that the conflicting balls leave point i at its level.

    If that is not larger than the present radius, some other value that is not larger is returned instead.
    """
    start, neighbour, distance, R, labels = network
    level, radius = answer
    room = R[i, level[i]]
    for e in range(start[i], start[i + 1]):
        j = neighbour[e]
        if distance[e] < room + radius[j] and conflict(R, labels, i, level[i], j, level[j]):
            room = distance[e] - radius[j]
            if room <= radius[i]:
                break
    return room
