"""Search for candidate pairs by k-d trees in float64.

What is computed. Points are sorted by radius and cut into layers of similar radius. Each layer has a k-d tree, and two
layers are searched against each other with the sum of their largest radii.

Guarantee. No overlapping pair is missed, in any dimension: the threshold is raised by more than rounding can cost.

Cost. Close to O(n log n) plus the pairs found in few dimensions. In more than about ten, nearly all pairs are visited.

Source. k-d trees: Bentley, 1975, as SciPy implements them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions._arithmetic.distances import relative_error

TREE_DIMENSION = 10  # the largest dimension in which trees were measured to be faster than products
_RATIO = 0.8  # the smallest radius of a layer is at least this part of its largest ...
_FEWEST = 256  # ... unless the layer would have fewer points than this
_SPARE = 1e-12  # more than the relative error of a sum of two radii and a factor
_UNDERFLOW = 1e-145  # more than the square root of what underflow takes from a square
_SHORT = 2.0**-300  # if all lengths are below this, their squares may underflow
_CANDIDATES = 1 << 21  # about how many pairs are listed at once

Pairs = tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]


@dataclass(frozen=True)
class Layer:
    """Points of similar radius, their largest radius, and a k-d tree of them."""

    members: Int64[np.ndarray, " m"]
    radius: float
    tree: Any

    @classmethod
    def of(
        cls, points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], members: Int64[np.ndarray, " m"]
    ) -> Layer:
        """The layer of these members of the points."""
        from scipy.spatial import KDTree

        return cls(members, float(R[members].max()), KDTree(points[members]))


def tree_pairs(points: Real[np.ndarray, "n d"], outer: Layer, inner: Layer) -> Iterator[Pairs]:
    """Yield blocks of the pairs from two layers that are closer than the sum of the layers' largest radii.

    If both layers are the same object, each pair comes once. If the outer radius is 0, neither layer has a ball, and
    nothing is yielded.
    """
    from scipy.spatial import KDTree

    if outer.radius == 0:
        return
    # raised by more than a float64 distance errs, underflow included
    reach = (outer.radius + inner.radius) * (1 + _SPARE + relative_error(points.shape[1])) + _UNDERFLOW
    parts = 1 + int(outer.tree.count_neighbors(inner.tree, reach)) // _CANDIDATES
    if outer is inner and parts == 1:
        row, column = outer.tree.query_pairs(reach, output_type="ndarray").T
        yield outer.members[row], outer.members[column]
        return
    for rows in np.array_split(np.arange(outer.members.size), parts):
        tree = outer.tree if parts == 1 else KDTree(points[outer.members[rows]])
        near = tree.sparse_distance_matrix(inner.tree, reach, output_type="ndarray")
        row, column = rows[near["i"]], near["j"]
        once = row < column if outer is inner else slice(None)
        yield outer.members[row[once]], inner.members[column[once]]


def in_units(
    points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, "n ..."]
) -> tuple[Real[np.ndarray, "n d"], Float64[np.ndarray, "n ..."]]:
    """Points and radii, multiplied by a power of two if they are so small that their squares would underflow.

    Squares that underflow to 0 would make all points look near. The multiplication is exact.
    """
    largest = float(R.max(initial=0.0))
    if largest < _SHORT:
        largest = max(largest, float(points.max(initial=0)), -float(points.min(initial=0)))
    if not 0 < largest < _SHORT:
        return points, R
    exponent = -math.frexp(largest)[1]
    return np.ldexp(points.astype(np.float64), exponent), np.ldexp(R, exponent)


def layers(
    R: Float64[np.ndarray, " n"], centres: Int64[np.ndarray, " e"] | None = None
) -> Iterator[Int64[np.ndarray, " m"]]:
    """Yield the indices of each layer: points with R > 0 from the largest radius down, then `centres` if not empty."""
    descending = np.argsort(-R, kind="stable")[: np.count_nonzero(R > 0)]
    sizes = R[descending]
    start = 0
    while start < descending.size:
        end = int(np.searchsorted(-sizes, -_RATIO * sizes[start]))
        end = min(max(end, start + _FEWEST), descending.size)
        yield descending[start:end]
        start = end
    if centres is not None and centres.size:
        yield centres
