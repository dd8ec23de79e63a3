"""What every solver of Eq. 10 shares: nearest-neighbour caps, redundant edges, and bounds by weak duality."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float64

from regions._graph import OverlapGraph


def nearest_caps(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """min(R_i, distance to the nearest neighbour), Eq. M4: r_j >= 0 implies r_i <= d_ij, so nothing is lost."""
    return _caps(graph, graph.distance)


def caps_above(graph: OverlapGraph) -> Float64[np.ndarray, " n"]:
    """The same, rounded upwards: for bounds, and to build other graphs of the same points."""
    return _caps(graph, graph.distance_upper)


def competing(graph: OverlapGraph, caps: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " m"]:
    """The edges that the caps do not make redundant."""
    return np.asarray(caps[graph.i] + caps[graph.j] > graph.distance * (1 - 2.0**-51))


def dual_value(graph: OverlapGraph, weights: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " m"]) -> float:
    """An upper bound on Eq. 10 from any numbers on the edges, rounded upwards (docs/mathematics.md, Eq. M5).

    Negative and non-finite numbers count as 0; with the caps c and the least z that makes (y, z) dual feasible it is
    sum d_ij y_ij + sum c_i z_i.
    """
    y = np.maximum(np.nan_to_num(y, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    covered = np.bincount(graph.i, y, graph.n) + np.bincount(graph.j, y, graph.n)
    least = 1 - (graph.degree + 4) * 2.0**-53  # summing `degree` terms errs by less
    z = np.maximum(weights - covered * least, 0.0) * (1 + 2.0**-51)
    terms = np.concatenate([graph.distance_upper * y, caps_above(graph) * z])
    return math.fsum(np.nextafter(terms, np.inf)[terms > 0]) * (1 + 2.0**-51)


def _caps(graph: OverlapGraph, distance: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " n"]:
    caps = graph.R.copy()
    np.minimum.at(caps, graph.i, distance)
    np.minimum.at(caps, graph.j, distance)
    return caps
