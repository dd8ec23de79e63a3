"""Minimum-cost perfect matching of a sparse bipartite graph, in compiled loops.

What is computed. The bipartite graph has a row i and a column i for every point i. An edge {i, j} of the overlap graph
allows row i to be matched with column j, and row j with column i, at cost d_ij. Row i may also be matched with column
i, at cost 2 c_i; this pair is called the loop of point i. The functions here complete a given matching to a perfect
matching of minimum cost.

Guarantee. Every row has a potential u and every column a potential v. The reduced cost of a pair, cost - u[row] -
v[column], is never negative. A pair is called tight if its reduced cost is 0. If all matched pairs are tight and the
matching is perfect, it has minimum cost, and u and v are an optimal dual solution. Potentials are feasible on entry
(u = v = any feasible radii) and after every step.

Method. `match` finds shortest augmenting paths (Jonker and Volgenant, 1987) with a binary heap. Before that, `bid`
without an increment matches most rows cheaply; this is their augmenting row reduction. For rows with long paths, `bid`
with an increment and then `release` improve the potentials first; this is an auction (Bertsekas, 1988).

Cost. O(n (m + n log n)) at worst. In practice a search sees few columns.
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
    """Potentials u of the rows and v of the columns, and the mate of each row and column, or -1 if it is free.

    The functions change these arrays in place.
    """

    u: np.ndarray
    v: np.ndarray
    mate_row: np.ndarray
    mate_column: np.ndarray


class _Search(NamedTuple):
    """Scratch arrays of one search for a shortest alternating path; each has n entries."""

    length: np.ndarray  # for each column, length of the shortest path to it found so far, or infinity
    parent: np.ndarray  # for each column, the row before it on that path
    place: np.ndarray  # for each column, its position in the heap, or _UNSEEN, or _DONE
    heap: np.ndarray  # columns that are not done, by length
    near: np.ndarray  # a stack of columns whose length equals that of the present row: they bypass the heap
    seen: np.ndarray  # every column that has been found


_UNSEEN = -1
_DONE = -2


@compiled
@no_type_check
def match(network, order, patience, matching):
    """Give every free row a mate, along shortest augmenting paths.

    A search that would take more than `patience` columns from the heap is given up, and its row stays free. Once all
    rows have mates, the potentials are optimal.

    order : the order in which free rows are processed
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
    """Find the free column with the shortest alternating path from the free row `root`, by Dijkstra's algorithm.

    The length of a path is the sum of the reduced costs of its unmatched pairs. Returns (column, length of the path,
    number of columns in `search.seen`); the column is -1 if patience ran out.
    """
    start, neighbour, distance, caps = network
    u, v, mate_column = matching.u, matching.v, matching.mate_column
    length, parent, place, heap, near, seen = search
    size = waiting = reached = 0  # numbers of entries in heap, near and seen
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
                elif candidate <= base:  # no column can be nearer: take this one out of the heap
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
    """Match the pairs that were unmatched on the path from row `root` to column `end`, and unmatch the others."""
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
    """Let free rows bid for columns, one chain of bids after the other.

    A free row takes the column with the smallest cost - v, its cheapest. If that column had a mate, the mate becomes
    free and bids next. A chain ends when a row takes a free column, or after `steps` bids. Each bid also lowers v of
    the column it takes, which makes the column more expensive for other rows:

    - `part` = 0: the column becomes exactly as expensive for the row as its second cheapest. Potentials stay feasible
      and the new pair is tight. This is augmenting row reduction. If the two cheapest columns cost the same, v does not
      change, and the row that loses the column could win it straight back, without end. In that case the row takes the
      column only if it is free, and otherwise the chain ends.
    - `part` > 0: v falls by a further `part` times the row's cap, so rows that compete for the same few columns settle
      after fewer bids. This is an auction. The new pair is not tight: `loose` marks its row until `release` repairs it.

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
                second = cost  # a row without edges has only its loop, for which no other row bids
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
"""Costs whose relative difference is smaller than this count as equal."""


@compiled
@no_type_check
def release(network, matching, loose):
    """Raise u of every loose row as far as is feasible; free the row if the pair with its mate is still not tight."""
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
    """Match free rows with free columns wherever the pair is tight for u = v = radii: loops first, then edges."""
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


# A binary heap of columns with the smallest `key` first; `place` holds the position of every column in it.


@compiled
@no_type_check
def _rise(heap, place, key, k):
    """Restore the order of the heap after the key of entry k has become smaller."""
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
    """Restore the order of the heap after its first entry has been replaced."""
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
    """Remove the first entry of the heap; return how many are left."""
    size -= 1
    if size > 0:
        heap[0] = heap[size]
        place[heap[0]] = 0
        _sink(heap, place, key, size)
    return size
