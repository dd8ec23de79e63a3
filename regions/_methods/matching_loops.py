"""Compiled: minimum-cost perfect matching on the bipartite double cover of a sparse graph, by augmenting paths.

Vertices i' and j'' stand for the points, twice. An edge {i, j} of the graph gives i'j'' and j'i'' at cost d_ij; every
point gives i'i'' at cost 2 c_i. Potentials u, v keep every reduced cost d_ij - u_i - v_j >= 0; they are feasible from
the start (u = v = any feasible radii) and stay so, which is why nothing has to be recovered at the end.
O(n (m + n log n)) at worst; in practice each path sees a small neighbourhood.

The method is that of Jonker and Volgenant (1987), on sparse rows with a binary heap; it begins with their augmenting
row reduction, and where searches go far, an auction (Bertsekas 1988) improves the potentials first.
"""

from typing import no_type_check

import numpy as np

from regions._arithmetic.loops import compiled


@compiled
@no_type_check
def match(start, neighbour, distance, caps, order, patience, u, v, mate_row, mate_column):
    """Complete a matching to a perfect one of minimum cost, or leave out rows whose search goes on for too long.

    start, neighbour, distance : adjacency of the graph in compressed rows
    caps : (n,) the loop at i costs 2 caps[i]
    order : the order in which rows without a mate are given one
    patience : columns that one search may take from the heap
    u, v : (n,) potentials of rows i' and columns j''; feasible on entry and on return, optimal once all rows have mates
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
        left = patience
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
                if left == 0:
                    break
                left -= 1
                column = heap[0]
                size = _drop(heap, place, length, size)
                place[column] = _DONE
                base = length[column]
                if mate_column[column] < 0:
                    end = column
                    break
            row = mate_column[column]
        if end >= 0:
            u[root] += base
        for k in range(reached):
            other = seen[k]
            if end >= 0 and place[other] == _DONE and other != end:
                v[other] -= base - length[other]
                u[mate_column[other]] += base - length[other]
            length[other] = np.inf
            place[other] = _UNSEEN
        if end >= 0:
            _exchange(root, end, parent, mate_row, mate_column)


_UNSEEN = -1
_DONE = -2


@compiled
@no_type_check
def _exchange(root, end, parent, mate_row, mate_column):
    """Exchange matched and unmatched edges along the path from the free row `root` to the free column `end`."""
    row, column = -1, end
    while row != root:
        row = parent[column]
        previous = mate_row[row]
        mate_row[row] = column
        mate_column[column] = row
        column = previous


@compiled
@no_type_check
def bid(start, neighbour, distance, caps, order, part, steps, u, v, mate_row, mate_column, loose):
    """Rows without a mate bid for their cheapest column, and take it from its mate, which bids next, for some steps.

    A bid lowers v until the row's second cheapest column is as good, so potentials stay feasible and the row's new edge
    is tight: augmenting row reduction. If `part` > 0, it lowers v by that part of the row's cap more (an auction, in
    which close contests end sooner); the edge is then not tight, and the row `loose`, to be released. A row to which
    two columns are the same takes its cheapest only if that is free: otherwise nothing would be gained.

    loose : (n,) bool; other arguments as for `match`
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
            fall = second - cost + part * caps[row]
            if loser >= 0 and fall <= 1e-12 * (abs(second) + abs(cost)):
                break
            u[row] = second
            v[column] -= fall
            mate_row[row] = column
            mate_column[column] = row
            loose[row] = part > 0.0
            if loser >= 0:
                mate_row[loser] = -1
                loose[loser] = False
            row = loser


@compiled
@no_type_check
def release(start, neighbour, distance, caps, u, v, mate_row, mate_column, loose):
    """Raise u of loose rows as far as it goes, and part those from their mates whose edges are then not tight."""
    for row in range(loose.size):
        if loose[row]:
            loose[row] = False
            mate = mate_row[row]
            own = 2.0 * caps[row] - v[row]
            least = own
            for e in range(start[row], start[row + 1]):
                cost = distance[e] - v[neighbour[e]]
                least = min(least, cost)
                if neighbour[e] == mate:
                    own = cost
            u[row] = least
            if own - least > 1e-12 * (abs(own) + abs(least)):
                mate_row[row] = -1
                mate_column[mate] = -1


@compiled
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


@compiled
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


@compiled
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


@compiled
@no_type_check
def _drop(heap, place, key, size):
    """Drop the first entry of the heap; return how many are left."""
    size -= 1
    if size > 0:
        heap[0] = heap[size]
        place[heap[0]] = 0
        _sink(heap, place, key, size)
    return size
