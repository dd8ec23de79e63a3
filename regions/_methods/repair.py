"""Repairing radii, whatever a solver returned, until they are feasible in exact arithmetic."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float64

from regions._arithmetic.loops import compiled, exceeds, subtract_down
from regions._graph import OverlapGraph


def trim(graph: OverlapGraph, radii: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """A copy with r_i + r_j <= d_ij, in exact arithmetic, for every edge whose two balls are non-empty. O(m)."""
    radii = radii.copy()
    trim_edges(graph.i, graph.j, graph.distance, False, 0.0, radii)
    return radii


def fill(
    graph: OverlapGraph, bounds: Float64[np.ndarray, " n"], radii: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """A copy in which balls have grown, one after the other by ascending degree, to what bound and neighbours leave.

    O(n log n + m).
    """
    radii = radii.copy()
    order = np.argsort(graph.degree, kind="stable")
    _grow_in_turn(*graph.adjacency, bounds, order, radii)
    return radii


def first_overlap(graph: OverlapGraph, radii: Float64[np.ndarray, " n"]) -> int:
    """Index of an edge whose non-empty balls overlap, or -1."""
    return int(_first_overlap(graph.i, graph.j, graph.distance, radii))


@compiled
@no_type_check
def trim_edges(i, j, distance, empty, least, radii):
    """Shrink radii, in place, until r_i + r_j <= distance for every edge; none falls below `least`.

    Without `empty`, only edges between two non-empty balls are looked at. No distance may be below twice `least`. One
    pass is enough: radii only fall, so an edge that is satisfied stays satisfied.
    """
    for e in range(i.size):
        a, b = i[e], j[e]
        if (empty or (radii[a] > 0.0 and radii[b] > 0.0)) and exceeds(radii[a], radii[b], distance[e]):
            if radii[a] < radii[b]:
                a, b = b, a
            radii[a] = max(least, subtract_down(distance[e], radii[b]))
            if empty and exceeds(radii[a], radii[b], distance[e]):
                radii[b] = subtract_down(distance[e], radii[a])


@compiled
@no_type_check
def _grow_in_turn(start, neighbour, distance, bounds, order, radii):
    """Grow every ball in turn to what its neighbours and its bound leave. Feasible radii stay feasible."""
    for k in order:
        room = bounds[k]
        for e in range(start[k], start[k + 1]):
            room = min(room, subtract_down(distance[e], radii[neighbour[e]]))
            if room <= radii[k]:
                break
        radii[k] = max(radii[k], room)


@compiled
@no_type_check
def _first_overlap(i, j, distance, radii):
    """Index of the first edge whose non-empty balls overlap, or -1."""
    for e in range(i.size):
        a, b = radii[i[e]], radii[j[e]]
        if a > 0.0 and b > 0.0 and exceeds(a, b, distance[e]):
            return e
    return -1
