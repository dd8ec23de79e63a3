"""What the regions cost: how much of its radius each image loses, and to which neighbour."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

import regions


@dataclass(frozen=True, eq=False)
class Losses:
    """One row per image.

    Attributes
    ----------
    lost : array of shape (n,)
        R - r.
    neighbour : int array of shape (n,)
        Of those whose regions must not overlap the image's: what leaves it least room. -1 where nothing is lost.
    distance : array of shape (n,)
        l2 distance to that neighbour; NaN where there is none.
    """

    lost: Float64[np.ndarray, " n"]
    neighbour: Int64[np.ndarray, " n"]
    distance: Float64[np.ndarray, " n"]


def losses(R: Float64[np.ndarray, " n"], left: Float64[np.ndarray, " n"], allocation: regions.Allocation) -> Losses:
    """Find what each image loses and to whom, given the radii R of its certificates and the radii r that are left.

    The neighbour is the one with the smallest |x_i - x_j| - r_i - r_j among the pairs of the allocation's graph: 0, up
    to rounding, where the regions touch, negative where the image's is empty inside the other. With a level outside
    every region, an image without a region may lose as well; no pair of the graph says to whom.
    """
    graph, r = allocation.graph, allocation.radii
    i, j = np.concatenate([graph.i, graph.j]), np.concatenate([graph.j, graph.i])
    d = np.concatenate([graph.distance, graph.distance])
    order = np.lexsort([j, d - r[i] - r[j], i])
    first, where = np.unique(i[order], return_index=True)
    neighbour, distance = np.full(len(r), -1), np.full(len(r), np.nan)
    neighbour[first], distance[first] = j[order][where], d[order][where]
    lost = R - left
    kept = lost <= 0
    neighbour[kept], distance[kept] = -1, np.nan
    return Losses(lost, neighbour, distance)
