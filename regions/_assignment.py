"""Compiled: minimum-cost perfect matching on the bipartite double cover of a sparse graph, by augmenting paths.

Vertices i' and j'' stand for the points, twice. An edge {i, j} of the graph gives i'j'' and j'i'' at cost d_ij; every
point gives i'i'' at cost 2 c_i. Potentials u, v keep every reduced cost d_ij - u_i - v_j >= 0; they are feasible from
the start (u = v = any feasible radii) and stay so, which is why nothing has to be recovered at the end.
O(n (m + n log n)) at worst; in practice each path sees a small neighbourhood.

The method is that of Jonker and Volgenant (1987), on sparse rows with a binary heap; it begins with their augmenting
row reduction.
"""

from typing import no_type_check

import numpy as np
from numba import njit

_compiled = njit(cache=True, nogil=True)


@_compiled
@no_type_check
def match(start, neighbour, distance, caps, order, u, v, mate_row, mate_column):
    """Complete a matching to a perfect one of minimum cost.

    start, neighbour, distance : adjacency of the graph in compressed rows
    caps : (n,) the loop at i costs 2 caps[i]
    order : the order in which rows without a mate are given one
    u, v : (n,) potentials of rows i' and columns j''; feasible on entry and, optimal, on return
    mate_row, mate_column : (n,) the mate of each row and column or -1; on entry every matched edge must be tight
    """
    n = caps.size
    length = np.full(n, np.inf)  # of the shortest alternating path to each column found so far
    parent = np.empty(n, np.int64)  # the row before it
    place = np.full(n, _UNSEEN)  # in the heap
    heap = np.empty(n, np.int64)
    near = np.empty(n, np.int64)  # columns as near as `row`, which need no heap
    seen = np.empty(n, np.int64)
    for root in order:
        if mate_row[root] >= 0:
            continue
        size = waiting = reached = 0  # entries of heap, near and seen
        row = root
        base = 0.0  # length of the shortest path to `row`
        end = -1  # the first free column
        while True:
            # the loop first, then the edges of the row
            for e in range(start[row] - 1, start[row + 1]):
                column = row if e < start[row] else neighbour[e]
                if place[column] == _DONE:
                    continue
                cost = 2.0 * caps[row] if e < start[row] else distance[e]
                candidate = base + max(0.0, cost - u[row] - v[column])
                if candidate < length[column]:
                    parent[column] = row
                    if place[column] == _UNSEEN:
                        seen[reached] = column
                        reached += 1
                        if candidate > base:
                            place[column] = size
                            heap[size] = column
                            size += 1
                    elif candidate <= base:
                        length[column] = -1.0
                        _rise(heap, place, length, place[column])
                        size = _drop(heap, place, length, size)
                    length[column] = candidate
                    if candidate > base:
                        _rise(heap, place, length, place[column])
                        continue
                    place[column] = _DONE
                    if mate_column[column] < 0:
                        end = column
                        break
                    near[waiting] = column
                    waiting += 1
            if end >= 0:
                break
            if waiting > 0:
                waiting -= 1
                column = near[waiting]
            else:
                column = heap[0]
                size = _drop(heap, place, length, size)
                place[column] = _DONE
                base = length[column]
                if mate_column[column] < 0:
                    end = column
                    break
            row = mate_column[column]
        u[root] += base
        for k in range(reached):
            other = seen[k]
            if place[other] == _DONE and other != end:
                v[other] -= base - length[other]
                u[mate_column[other]] += base - length[other]
            length[other] = np.inf
            place[other] = _UNSEEN
        column = end
        while True:  # exchange matched and unmatched edges along the path
            row = parent[column]
            previous = mate_row[row]
            mate_row[row] = column
            mate_column[column] = row
            if row == root:
                break
            column = previous


_UNSEEN = -1
_DONE = -2


@_compiled
@no_type_check
def reduce_rows(start, neighbour, distance, caps, order, steps, u, v, mate_row, mate_column):
    """Augmenting row reduction: rows without a mate bid for their cheapest column, and take it from its mate.

    A row's bid lowers v until its second cheapest column is as good, so potentials stay feasible and its new edge is
    tight. The row that lost bids next, and so on for so many steps. A row to which two columns are the same takes its
    cheapest only if that is free: otherwise nothing would be gained. Arguments as for `match`.
    """
    for root in order:
        row = root if mate_row[root] < 0 else -1
        step = 0
        while row >= 0 and step < steps:
            step += 1
            column, cost, second = row, 2.0 * caps[row] - v[row], np.inf
            for e in range(start[row], start[row + 1]):
                candidate = distance[e] - v[neighbour[e]]
                if candidate < cost:
                    column, cost, second = neighbour[e], candidate, cost
                elif candidate < second:
                    second = candidate
            if start[row] == start[row + 1]:
                second = cost  # nothing but the loop, for which nobody else bids
            loser = mate_column[column]
            if loser >= 0 and second - cost <= 1e-12 * (abs(second) + abs(cost)):
                break
            u[row] = second
            v[column] -= second - cost
            mate_row[row] = column
            mate_column[column] = row
            if loser >= 0:
                mate_row[loser] = -1
            row = loser


@_compiled
@no_type_check
def match_tight(start, neighbour, distance, caps, radii, order, mate_row, mate_column):
    """Match along loops and edges that are tight for u = v = radii, as they come: a start for `match`."""
    for k in order:
        if radii[k] >= caps[k]:
            mate_row[k] = k
            mate_column[k] = k
    for k in order:
        if mate_row[k] < 0:
            for e in range(start[k], start[k + 1]):
                j = neighbour[e]
                if mate_column[j] < 0 and distance[e] - radii[k] - radii[j] <= 1e-12 * distance[e]:
                    mate_row[k] = j
                    mate_column[j] = k
                    break


@_compiled
@no_type_check
def _rise(heap, place, key, k):
    node = heap[k]
    while k > 0:
        above = (k - 1) >> 1
        if key[heap[above]] <= key[node]:
            break
        heap[k] = heap[above]
        place[heap[k]] = k
        k = above
    heap[k] = node
    place[node] = k


@_compiled
@no_type_check
def _sink(heap, place, key, size):
    k = 0
    node = heap[0]
    while 2 * k + 1 < size:
        below = 2 * k + 1
        if below + 1 < size and key[heap[below + 1]] < key[heap[below]]:
            below += 1
        if key[heap[below]] >= key[node]:
            break
        heap[k] = heap[below]
        place[heap[k]] = k
        k = below
    heap[k] = node
    place[node] = k


@_compiled
@no_type_check
def _drop(heap, place, key, size):
    """Drop the first entry of the heap; return how many are left."""
    size -= 1
    if size > 0:
        heap[0] = heap[size]
        place[heap[0]] = 0
        _sink(heap, place, key, size)
    return size
