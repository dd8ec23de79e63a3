"""Search for levels by block moves: one point goes to another level and takes neighbours along.

In the compiled loops, `network` is (start, neighbour, distance, R, labels): the overlap graph at the largest bounds in
compressed rows, nearest neighbour first; R (n, K); and labels (n, K, c), the groups of each point at each level. A
point at a level with R = 0 is empty and conflicts with nobody.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from regions._arithmetic.loops import compiled
from regions._levels.problem import LevelProblem, State, conflict

_SIZES = np.array([0, 1, 3, 8, 20, 64, 1 << 40])
"""Neighbours that a block move takes along."""


def improve(problem: LevelProblem, state: State, rng: np.random.Generator | None = None) -> bool:
    """One round of block moves, the points that miss most first, or in random order; then exact radii."""
    missing = problem.R.max(axis=1) - state.radii
    tolerance = 1e-9 * float(problem.R.max(initial=0.0))
    order = np.argsort(-missing, kind="stable") if rng is None else rng.permutation(missing.size)
    order = order[missing[order] > tolerance]
    level, radii = state.level.copy(), state.radii.copy()
    _improve(problem.network, _SIZES, order, tolerance, level, radii)
    return state.take(problem, level, problem.allocate(level).radii)


@compiled
@no_type_check
def _improve(network, sizes, order, tolerance, level, radius):
    """One round of block moves; changes level and radius in place, keeps them feasible, returns what was gained.

    A point that could have a larger radius at another level moves there, alone or with the nearest 1, 3, ... (`sizes`)
    of the neighbours that stand in its way, if the sum of radii grows by more than `tolerance` when all others keep
    their levels. Members of the block take what others leave them, or more at the cost of one of these; others grow
    into what the block leaves.
    """
    start, neighbour, distance, R, labels = network
    n, K = R.shape
    seen = np.full(n, -1, np.int64)  # the attempt in which a point was last written down
    touched, old_level, old_radius = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n)
    block = np.empty(n, np.int64)
    undo = (seen, touched, old_level, old_radius)
    attempt = 0
    gained = 0.0
    for i in order:
        for k in range(K):
            if k == level[i] or R[i, k] <= radius[i] + tolerance:
                continue
            block[0] = i
            count = 1
            for size in sizes:
                wanted = size + 1
                if count == 1 and wanted > 1:  # list those in the way, once, nearest first
                    for e in range(start[i], start[i + 1]):
                        j = neighbour[e]
                        if R[i, k] + radius[j] > distance[e] and conflict(R, labels, i, k, j, level[j]):
                            block[count] = j
                            count += 1
                taken = min(wanted, count)
                moved = False
                for push in range(2):
                    attempt += 1
                    gain, changed = _try(network, block, taken, k, push == 1, attempt, undo, level, radius)
                    if gain > tolerance:
                        gained += gain
                        moved = True
                        break
                    for c in range(changed):
                        level[touched[c]] = old_level[c]
                        radius[touched[c]] = old_radius[c]
                if moved or (wanted > 1 and count <= wanted):
                    break
    return gained


@compiled
@no_type_check
def _note(undo, attempt, count, j, level, radius):
    seen, touched, old_level, old_radius = undo
    if seen[j] != attempt:
        seen[j] = attempt
        touched[count] = j
        old_level[count] = level[j]
        old_radius[count] = radius[j]
        count += 1
    return count


@compiled
@no_type_check
def _try(network, block, size, k, push, attempt, undo, level, radius):
    """Move the block to level k. Returns (gain, number of points written down); -inf where that is infeasible."""
    start, neighbour, distance, R, labels = network
    count = 0
    gain = 0.0
    for b in range(size):
        i = block[b]
        count = _note(undo, attempt, count, i, level, radius)
        gain -= radius[i]
        level[i] = k
        radius[i] = 0.0
    for b in range(size):
        i = block[b]
        # what the others leave, what they leave but for one of them, and what they leave when all are empty
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
                    count = _note(undo, attempt, count, j, level, radius)
                    gain += distance[e] - r - radius[j]
                    radius[j] = distance[e] - r
    for b in range(size):
        i = block[b]
        for e in range(start[i], start[i + 1]):
            j = neighbour[e]
            if radius[j] < R[j, level[j]]:
                r = _room(network, j, level, radius)
                if r > radius[j]:
                    count = _note(undo, attempt, count, j, level, radius)
                    gain += r - radius[j]
                    radius[j] = r
    return gain, count


@compiled
@no_type_check
def _room(network, i, level, radius):
    start, neighbour, distance, R, labels = network
    room = R[i, level[i]]
    for e in range(start[i], start[i + 1]):
        j = neighbour[e]
        if distance[e] < room + radius[j] and conflict(R, labels, i, level[i], j, level[j]):
            room = distance[e] - radius[j]
            if room <= radius[i]:
                break
    return room
