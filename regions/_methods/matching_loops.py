"""Minimum-cost perfect matching of a sparse bipartite graph, in compiled loops.

What is computed. Every point i stands on either side: as row i and as column i. An edge {i, j} of the overlap graph
lets row i be matched with column j, and row j with column i, at cost d_ij; the loop of a point matches row i with
column i at cost 2 c_i. The loops start from any matching whose edges are tight and complete it to a perfect one of
minimum cost.

Guarantee. Potentials u of rows and v of columns keep every reduced cost, cost - u[row] - v[column], at or above 0.
That holds on entry (u = v = any feasible radii) and after every step, so the dual solution never has to be recovered.
An edge is called tight where its reduced cost is 0.

Method. Shortest augmenting paths of Jonker and Volgenant (1987), on sparse rows with a binary heap. Their augmenting
row reduction comes first (`bid` without an increment). Where searches go far, an auction (Bertsekas 1988) improves
the potentials before they are tried again (`bid` with an increment, then `release`).

Cost. O(n (m + n log n)) at worst; in practice a path sees few columns.
"""

from typing import NamedTuple, no_type_check

import numpy as np

from regions._arithmetic.loops import compiled


class Network(NamedTuple):
    """The graph: the neighbours of point k are neighbour[start[k]:start[k + 1]]; its loop costs 2 caps[k]."""

    start: np.ndarray
    neighbour: np.ndarray
    distance: np.ndarray
    caps: np.ndarray


class Matching(NamedTuple):
    """Potentials u of the rows and v of the columns, and the mate of each row and column, or -1. Changed in place."""

    u: np.ndarray
    v: np.ndarray
    mate_row: np.ndarray
    mate_column: np.ndarray


class _Search(NamedTuple):
    """Scratch arrays of one search for a shortest alternating path; each has n entries."""

    length: np.ndarray  # of the shortest path to a column found so far, infinity where none was found
    parent: np.ndarray  # the row before that column
    place: np.ndarray  # where the column is in the heap, or _UNSEEN, or _DONE
    heap: np.ndarray  # columns by length
    near: np.ndarray  # columns as near as the row that found them: they need no heap
    seen: np.ndarray  # every column that was found


_UNSEEN = -1
_DONE = -2


@compiled
@no_type_check
def match(network, order, patience, matching):
    """Give a mate to every free row, along shortest augmenting paths.

    A search that would take more than `patience` columns from the heap is given up, and its row stays free. Once all
    rows have mates, the potentials are optimal.

    order : the order in which free rows are treated
    """
    n = network.caps.size
    search = _Search(
        np.full(n, np.inf),
        np.empty(n, np.int64),
        np.full(n, _UNSEEN),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
    )
    u, v, mate_column = matching.u, matching.v, matching.mate_column
    for root in order:
        if matching.mate_row[root] >= 0:
            continue
        end, base, reached = _find_path(root, network, patience, matching, search)
        if end >= 0:
            u[root] += base
        for k in range(reached):
            column = search.seen[k]
            if end >= 0 and search.place[column] == _DONE and column != end:
                v[column] -= base - search.length[column]
                u[mate_column[column]] += base - search.length[column]
            search.length[column] = np.inf
            search.place[column] = _UNSEEN
        if end >= 0:
            _exchange(root, end, search.parent, matching)


@compiled
@no_type_check
def _find_path(root, network, patience, matching, search):
    """Find a free column to which a shortest alternating path leads from the free row `root` (Dijkstra).

    Returns (column, length of the path, number of columns in `search.seen`); column -1 where patience ran out.
    """
    start, neighbour, distance, caps = network
    u, v, mate_column = matching.u, matching.v, matching.mate_column
    length, parent, place, heap, near, seen = search
    size = waiting = reached = 0  # entries of heap, near and seen
    row, base, left = root, 0.0, patience  # base: length of the shortest path to `row`
    while True:
        for e in range(start[row] - 1, start[row + 1]):  # the loop first, then the edges of the row
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
                elif candidate <= base:  # it leaves the heap, because no other column can be nearer
                    length[column] = -1.0
                    _rise(heap, place, length, place[column])
                    size = _drop(heap, place, length, size)
                length[column] = candidate
                if candidate > base:
                    _rise(heap, place, length, place[column])
                    continue
                place[column] = _DONE
                if mate_column[column] < 0:
                    return column, base, reached
                near[waiting] = column
                waiting += 1
        if waiting > 0:
            waiting -= 1
            column = near[waiting]
        else:
            if left == 0:
                return -1, base, reached
            left -= 1
            column = heap[0]
            size = _drop(heap, place, length, size)
            place[column] = _DONE
            base = length[column]
            if mate_column[column] < 0:
                return column, base, reached
        row = mate_column[column]


@compiled
@no_type_check
def _exchange(root, end, parent, matching):
    """Exchange matched and unmatched edges along the path from the free row `root` to the free column `end`."""
    row, column = -1, end
    while row != root:
        row = parent[column]
        previous = matching.mate_row[row]
        matching.mate_row[row] = column
        matching.mate_column[column] = row
        column = previous


@compiled
@no_type_check
def bid(network, order, part, steps, matching, loose):
    """Let free rows bid for columns: each takes its cheapest column, and the row that loses it bids next.

    One chain of bids ends after `steps` bids, or with a column that was free. The price that a bid raises (it lowers v)
    is chosen so that the second cheapest column costs the row as much as the one it takes:

    - `part` = 0: exactly so much. Potentials stay feasible and the new edge is tight: augmenting row reduction. Where
      the two cheapest columns cost the same, the bid could not raise the price, and the row that lost would only win
      the column back. So the row then takes the column only if it is free.
    - `part` > 0: by `part` of the row's cap more. Close contests then end after fewer bids: an auction. The edge is not
      tight; the row is marked in `loose` until `release` looks at it.

    loose : (n,) bool
    """
    start, neighbour, distance, caps = network
    u, v, mate_row, mate_column = matching
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
                second = cost  # the row has its loop alone, for which no other row bids
            loser = mate_column[column]
            fall = second - cost + part * caps[row]
            if loser >= 0 and fall <= _ROUNDING * (abs(second) + abs(cost)):
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


_ROUNDING = 1e-12
"""Costs that differ by less than this part of them count as equal."""


@compiled
@no_type_check
def release(network, matching, loose):
    """Raise u of every loose row as far as it goes, and free the row where the edge to its mate is then not tight."""
    start, neighbour, distance, caps = network
    u, v, mate_row, mate_column = matching
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
            if own - least > _ROUNDING * (abs(own) + abs(least)):
                mate_row[row] = -1
                mate_column[mate] = -1


@compiled
@no_type_check
def match_tight(network, radii, order, mate_row, mate_column):
    """Match rows with columns along loops and edges that are tight for u = v = radii, first come, first served."""
    start, neighbour, distance, caps = network
    for k in order:
        if radii[k] >= caps[k]:
            mate_row[k] = k
            mate_column[k] = k
    for k in order:
        if mate_row[k] < 0:
            for e in range(start[k], start[k + 1]):
                j = neighbour[e]
                if mate_column[j] < 0 and distance[e] - radii[k] - radii[j] <= _ROUNDING * distance[e]:
                    mate_row[k] = j
                    mate_column[j] = k
                    break


# A binary heap of columns: `key` is what they are sorted by, and `place` says where each of them is.


@compiled
@no_type_check
def _rise(heap, place, key, k):
    """Move entry k up to where it belongs after its key has fallen."""
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
    """Move the first entry down to where it belongs."""
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
    """Drop the first entry; return how many are left."""
    size -= 1
    if size > 0:
        heap[0] = heap[size]
        place[heap[0]] = 0
        _sink(heap, place, key, size)
    return size
