"""Compiled loops of the enumeration: list the choices of levels that could be better than the present answer."""

from typing import no_type_check

import numpy as np

from regions._arithmetic.loops import compiled
from regions._levels.problem import conflict


@compiled
@no_type_check
def arrange(network, most, points, score):
    """Sort the points of a component, in place, so that a bad partial choice loses much after a few points.

    The next point is always the one whose largest ball overlaps the largest balls of the points before it most.

    score : (n,) scratch, 0 at all of the points
    """
    start, neighbour, distance = network[:3]
    for a in range(points.size):
        best = a
        for b in range(a + 1, points.size):
            if score[points[b]] > score[points[best]]:
                best = b
        points[a], points[best] = points[best], points[a]
        p = points[a]
        for e in range(start[p], start[p + 1]):
            score[neighbour[e]] += max(0.0, most[p] + most[neighbour[e]] - distance[e])


@compiled
@no_type_check
def enumerate_levels(network, most, choice, points, budget, nodes, level, place, found):
    """List the choices of levels of a component that lose less than `budget`, depth first.

    A point loses the difference between its largest bound (`most`) and its bound at the chosen level. A conflicting
    pair (i, j) loses R_i + R_j - d_ij where that is positive. The losses of several pairs may be added only if no point
    belongs to two of them, so every point is paired with at most one earlier point: the one without a partner for which
    the loss is largest. A partial choice that has lost `budget` or more is not extended.

    distance in `network` : rounded up
    choice : (n, K) the levels of every point, in descending order of its bounds
    level : (n,) scratch, -1 at all of the points, on entry and on return
    place : (n,) scratch
    found : (capacity, at least the number of points); the choices, one in each row, points in the order of `points`

    Returns (number of choices, number of partial choices looked at). The first number is -1 where `found` cannot hold
    all choices, or where more than `nodes` partial choices had to be looked at.
    """
    start, neighbour, distance, R, labels = network
    size, K = points.size, R.shape[1]
    turn = np.full(size, -1)
    mate = np.full(size, -1)  # at each depth: the depth of the earlier point it is paired with, or -1
    taken = np.zeros(size, np.bool_)  # at each depth: whether the point there belongs to a pair
    for a in range(size):
        place[points[a]] = a
    lost = np.zeros(size + 1)
    listed = visited = depth = 0
    while depth >= 0:
        p = points[depth]
        if mate[depth] >= 0:
            taken[mate[depth]] = taken[depth] = False
            mate[depth] = -1
        level[p] = -1
        turn[depth] += 1
        if turn[depth] == K or lost[depth] + most[p] - R[p, choice[p, turn[depth]]] >= budget:
            turn[depth] = -1
            depth -= 1
            continue
        visited += 1
        if visited > nodes:
            listed = -1
            break
        k = choice[p, turn[depth]]
        level[p] = k
        worst, other = 0.0, -1
        for e in range(start[p], start[p + 1]):
            q = neighbour[e]
            if level[q] >= 0 and not taken[place[q]]:
                excess = R[p, k] + R[q, level[q]] - distance[e]
                if excess > worst and conflict(R, labels, p, k, q, level[q]):
                    worst, other = excess, place[q]
        total = lost[depth] + most[p] - R[p, k] + worst
        if total >= budget:
            continue
        if other >= 0:
            mate[depth] = other
            taken[other] = taken[depth] = True
        if depth + 1 < size:
            depth += 1
            lost[depth] = total
        elif listed == found.shape[0]:
            listed = -1
            break
        else:
            for a in range(size):
                found[listed, a] = level[points[a]]
            listed += 1
    for p in points:
        level[p] = -1
    return listed, visited
