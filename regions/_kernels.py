"""Compiled loops: what NumPy cannot say in one pass. Arrays in, arrays out, no allocation of Python objects.

All run without the interpreter lock, so that callers may share blocks among threads.
"""

import heapq
from typing import no_type_check

import numpy as np
from numba import njit

# Sums may be reassociated for speed: the error bounds of `_distance` hold for any order of summation.
_fast_sum = njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
_strict = njit(cache=True, nogil=True)
_BLOCK = 128  # coordinates between two looks at the stopping bound


@_fast_sum
@no_type_check
def squared_distances(x, y, i, j, stop, out):
    """Set out[k] = |x[i[k]] - y[j[k]]|^2, or any partial sum above stop[k] once that is exceeded.

    Coordinates of any real type, converted to float64 one by one. The innermost loop runs over slices from their start:
    only so does the compiler know that no index is negative, and use vector instructions (seven times as fast).
    """
    d = x.shape[1]
    for k in range(i.size):
        a, b = x[i[k]], y[j[k]]
        total = 0.0
        start = 0
        while start < d and total <= stop[k]:
            p, q = a[start : start + _BLOCK], b[start : start + _BLOCK]
            part = 0.0
            for c in range(p.size):
                difference = np.float64(p[c]) - np.float64(q[c])
                part += difference * difference
            total += part
            start += _BLOCK
        out[k] = total


@_strict
@no_type_check
def adjacency(i, j, distance, start, neighbour, length):
    """Both directions of every edge in compressed rows: those in which a point comes first, then the others.

    start : (n + 1,) zeros on entry
    """
    for e in range(i.size):
        start[i[e] + 1] += 1
        start[j[e] + 1] += 1
    for k in range(1, start.size):
        start[k] += start[k - 1]
    following = start[:-1].copy()
    for ends, others in ((i, j), (j, i)):
        for e in range(i.size):
            k = following[ends[e]]
            neighbour[k], length[k] = others[e], distance[e]
            following[ends[e]] = k + 1


@_strict
@no_type_check
def nearest(i, j, distance, neighbour, least):
    """Lower `least` to the distance of every point's nearest neighbour, and set `neighbour` to the first of these."""
    for e in range(i.size):
        a, b = i[e], j[e]
        if distance[e] < least[a]:
            least[a], neighbour[a] = distance[e], b
        if distance[e] < least[b]:
            least[b], neighbour[b] = distance[e], a


@_strict
@no_type_check
def subtract_down(a, b):
    """Return a float c <= a - b with b + c <= a in exact arithmetic; the largest such, or the one below it."""
    c = a - b
    total = b + c
    rest = (b - (total - (total - b))) + (c - (total - b))  # total + rest = b + c exactly (TwoSum)
    if total > a or (total == a and rest > 0):
        c = np.nextafter(c, -np.inf)
    return c


@_strict
@no_type_check
def exceeds(a, b, limit):
    """Whether a + b > limit in exact arithmetic."""
    total = a + b
    rest = (a - (total - (total - a))) + (b - (total - a))
    return total > limit or (total == limit and rest > 0)


@_strict
@no_type_check
def greedy(start, neighbour, distance, bounds, order, sliver, radii):
    """Eq. 11: in the given order, every ball takes what the non-empty balls of its neighbours leave.

    start, neighbour, distance: adjacency of the overlap graph in compressed rows. On entry `radii` holds what the balls
    that are still to come have reserved (0 in Eq. 11 itself), on return the result. Room of less than `sliver` of a
    distance counts as none.
    """
    for k in order:
        room = bounds[k]
        for e in range(start[k], start[k + 1]):
            other = radii[neighbour[e]]
            if other > 0.0:
                room = min(room, subtract_down(distance[e], other))
                if room <= sliver * distance[e]:
                    room = 0.0
                    break
        radii[k] = room


@_strict
@no_type_check
def cut(which, earlier, distance, other, sliver, room, cutter, away):
    """Lower room[which] to what the balls `earlier` of radii `other` leave at these distances, as `greedy` does.

    Where that is less, `cutter` and `away` become the ball and its distance.
    """
    for e in range(which.size):
        k = which[e]
        left = subtract_down(distance[e], other[e])
        if left < room[k]:
            room[k] = left if left > sliver * distance[e] else 0.0
            cutter[k], away[k] = earlier[e], distance[e]


@_strict
@no_type_check
def rise(start, neighbour, distance, bounds, radii):
    """Set radii to the max-min fair ones: all rise together, each until its bound or a ball that it touches.

    A ball stops at its bound, half-way to a neighbour that rises too, or at one that has stopped. That only moves up
    when neighbours stop, so what the heap says is never too late, and is looked at again when its turn comes.
    """
    stopped = np.zeros(radii.size, np.bool_)
    heap = [(_stop(start, neighbour, distance, bounds, radii, stopped, k), k) for k in range(radii.size)]
    heapq.heapify(heap)
    while heap:
        level, k = heapq.heappop(heap)
        now = _stop(start, neighbour, distance, bounds, radii, stopped, k)
        if now > level:
            heapq.heappush(heap, (now, k))
        else:
            radii[k] = now
            stopped[k] = True


@_strict
@no_type_check
def _stop(start, neighbour, distance, bounds, radii, stopped, k):
    room = bounds[k]
    for e in range(start[k], start[k + 1]):
        j = neighbour[e]
        room = min(room, subtract_down(distance[e], radii[j]) if stopped[j] else distance[e] / 2)
    return room


@_strict
@no_type_check
def trim(i, j, distance, empty, radii):
    """Shrink radii until r_i + r_j <= distance for every edge; unless `empty`, where both balls are non-empty.

    One pass is enough: radii only fall, so an edge that holds keeps holding.
    """
    for e in range(i.size):
        a, b = i[e], j[e]
        if (empty or (radii[a] > 0.0 and radii[b] > 0.0)) and exceeds(radii[a], radii[b], distance[e]):
            if radii[a] < radii[b]:
                a, b = b, a
            radii[a] = max(0.0, subtract_down(distance[e], radii[b]))


@_strict
@no_type_check
def fill(start, neighbour, distance, bounds, order, radii):
    """Grow every ball in turn to what its neighbours and its bound leave. Keeps feasible radii feasible."""
    for k in order:
        room = bounds[k]
        for e in range(start[k], start[k + 1]):
            room = min(room, subtract_down(distance[e], radii[neighbour[e]]))
            if room <= radii[k]:
                break
        radii[k] = max(radii[k], room)


@_strict
@no_type_check
def first_overlap(i, j, distance, radii):
    """Index of the first edge whose non-empty balls overlap, or -1."""
    for e in range(i.size):
        a, b = radii[i[e]], radii[j[e]]
        if a > 0.0 and b > 0.0 and exceeds(a, b, distance[e]):
            return e
    return -1
