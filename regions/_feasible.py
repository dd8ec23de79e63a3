"""Making radii strictly feasible, whatever a solver returned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from regions._graph import OverlapGraph


def trim(graph: OverlapGraph, radii: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """A copy with r_i + r_j <= d_ij, in exact arithmetic, for every edge whose two balls are non-empty. O(m)."""
    from regions import _kernels

    radii = radii.copy()
    _kernels.trim(graph.i, graph.j, graph.distance, False, radii)
    return radii


def fill(
    graph: OverlapGraph, bounds: Float64[np.ndarray, " n"], radii: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """A copy in which every ball, by ascending degree, has grown to what neighbours and bounds leave. O(m)."""
    from regions import _kernels

    radii = radii.copy()
    order = np.argsort(graph.degree, kind="stable")
    _kernels.fill(*graph.adjacency, bounds, order, radii)
    return radii


def first_overlap(graph: OverlapGraph, radii: Float64[np.ndarray, " n"]) -> int:
    """Index of an edge whose non-empty balls overlap, or -1."""
    from regions import _kernels

    return int(_kernels.first_overlap(graph.i, graph.j, graph.distance, radii))
