"""Plain greedy (Eq. 11) where very many balls overlap, without listing the pairs.

What is computed. Points are processed in blocks of the given order, and each is measured against the non-empty balls
before it. Only these limit its radius. Where very many balls overlap, few of them remain non-empty.

Guarantee. The radii are those of plain greedy on the whole overlap graph, up to rounding.

Cost. O(n b d) for b balls that are not empty, and the degrees if the order depends on them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions._arithmetic.distances import distances_below, relative_error
from regions._arithmetic.loops import compiled, subtract_down
from regions._dense.degrees import degrees
from regions._graph import from_blocks
from regions._methods import greedy
from regions._methods.problem import Answer, Problem
from regions._search.pairs import Progress

_BLOCK = 512  # points processed at once
_PAIRS = 1 << 20  # pairs measured at once


def stream_greedy(
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    progress: Progress | None,
    problem: Problem,
) -> Answer:
    """Size the balls by plain greedy, over all conflicting pairs.

    The answer's graph has one edge for each ball that was cut: to the ball that left it the least room.
    """
    began = time.perf_counter()
    order = greedy.chosen(problem)
    R = problem.graph.R
    unknown = isinstance(order, str) and order != "arrival"
    degree = degrees(points, R, labels, progress) if unknown else np.zeros(R.size, dtype=np.int64)
    sequence = greedy.permutation(degree, order)
    sequence = sequence[R[sequence] > 0]
    radii, cutter, distance = np.zeros(R.size), np.full(R.size, -1), np.zeros(R.size)
    filled = np.empty(0, dtype=np.int64)
    for start in range(0, sequence.size, _BLOCK):
        block = sequence[start : start + _BLOCK]
        state = _State(block, R[block].copy(), np.full(block.size, -1), np.zeros(block.size))
        room = state.room
        step = max(1, _PAIRS // block.size)
        for first in range(0, filled.size, step):
            earlier = filled[first : first + step]
            open_ = np.flatnonzero(room > 0)
            a, b = np.repeat(open_, earlier.size), np.tile(earlier, open_.size)
            _cut(points, labels, R, state, a, b, radii)
        added = []
        for k in np.flatnonzero(room > 0).tolist():
            if room[k] <= 0:
                continue
            radii[block[k]] = room[k]
            added.append(block[k])
            later = k + 1 + np.flatnonzero(room[k + 1 :] > 0)
            _cut(points, labels, R, state, later, np.full(later.size, block[k]), radii)
        cutter[block], distance[block] = state.cutter, state.distance
        filled = np.append(filled, np.array(added, dtype=np.int64))
        if progress is not None:
            progress("greedy", min(start + _BLOCK, sequence.size), sequence.size)
    status = "greedy allocation complete: no bound is known; method='lp' gives the optimum"
    stats = {"seconds_solve": time.perf_counter() - began}
    cut = np.flatnonzero(cutter >= 0)
    ends = np.minimum(cut, cutter[cut]), np.maximum(cut, cutter[cut])
    graph = from_blocks(R, relative_error(points.shape[1]), [(*ends, distance[cut])])
    return Answer(radii, R, greedy.name(problem), status, None, stats, graph=graph)


@dataclass
class _State:
    """A block of points: the room left for each, the ball that leaves the least room (-1: none), and its distance."""

    block: Int64[np.ndarray, " p"]
    room: Float64[np.ndarray, " p"]
    cutter: Int64[np.ndarray, " p"]
    distance: Float64[np.ndarray, " p"]


def _cut(
    points: Real[np.ndarray, "n d"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    R: Float64[np.ndarray, " n"],
    state: _State,
    a: Int64[np.ndarray, " k"],
    earlier: Int64[np.ndarray, " k"],
    radii: Float64[np.ndarray, " n"],
) -> None:
    """Lower the room of each point block[a] to what the ball `earlier` beside it leaves, if the two conflict."""
    i = state.block[a]
    conflict = np.ones(i.size, dtype=bool)
    for label in labels:
        conflict &= label[i] != label[earlier]
    a, i, earlier = a[conflict], i[conflict], earlier[conflict]
    near, distance = distances_below(points, points, i, earlier, R[i], radii[earlier])
    sliver = greedy._SLIVER * relative_error(points.shape[1])
    a, earlier, distance = a[near], earlier[near], distance[near]
    _lower(a, earlier, distance, radii[earlier], sliver, state.room, state.cutter, state.distance)


@compiled
@no_type_check
def _lower(which, earlier, distance, other, sliver, room, cutter, away):
    """Lower room[which] to what the balls `earlier`, with radii `other`, leave at these distances (Eq. 11).

    Where that lowers the room, `cutter` and `away` are set to the ball and its distance.
    """
    for e in range(which.size):
        k = which[e]
        left = subtract_down(distance[e], other[e])
        if left < room[k]:
            room[k] = left if left > sliver * distance[e] else 0.0
            cutter[k], away[k] = earlier[e], distance[e]
