"""Search for levels by block moves: one point goes to another level and takes neighbours along.

What is computed. A point whose bound at another level is larger than its radius now tries that level: alone, then with
the nearest 1, 3, 8, ... of the neighbours that would be in its way there. A move is kept if the sum of the radii grows.

Guarantee. Radii stay feasible, and the sum never falls. Nothing is claimed about the optimum.

Cost. One attempt looks at the edges of the points in the block and of those that touch them.

In the compiled loops, `network` is (start, neighbour, distance, R, labels): the overlap graph at the largest bounds in
compressed rows, nearest neighbour first; R (n, K); and labels (n, K, c), the groups of each point at each level. A
point at a level with R = 0 is empty and conflicts with no other.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np

from regions._arithmetic.loops import compiled
from regions._levels.problem import GAIN, LevelProblem, State, conflict

_SIZES = np.array([0, 1, 3, 8, 20, 64, 1 << 40])
"""How many neighbours a block takes along, one attempt after the other."""


class _Answer(NamedTuple):
    """Level and radius of every point: changed in place."""

    level: np.ndarray
    radius: np.ndarray


class _Undo(NamedTuple):
    """What an attempt has changed: points in `touched`, with the level and radius they had before.

    `seen` holds the number of the last attempt that touched a point, so that each is written down once.
    """

    seen: np.ndarray
    touched: np.ndarray
    level: np.ndarray
    radius: np.ndarray


def improve(problem: LevelProblem, state: State, rng: np.random.Generator | None = None) -> bool:
    """One round of block moves, then exact radii. Whether that improved the state.

    Points are tried by what they miss of their largest bound, the most first; with `rng`, in random order.
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

    Each block is tried in two ways: its members take the room that others leave them, or they take more, and one of
    the others shrinks for each of them.
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
    """Write the neighbours whose balls overlap that of point i at level k after it into `block`, nearest first."""
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
    """Write point j down before it is changed; returns how many points are written down."""
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
    """Move the block to level k. Returns (gain, number of points written down); -inf where that is infeasible."""
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
        # what others leave it, what they leave if the narrowest of them shrinks, and what they leave if all are empty
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
    for i in block:  # neighbours grow into the room that the block has left
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
    """The largest radius that the conflicting balls leave point i at its level, or any that is not above its radius."""
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
