"""Choosing a projection in which the search for pairs is fast, or none.

What is computed. The leading principal directions of a sample, as an orthonormal basis, with the number of directions
for which an estimate of the cost is least. Few directions make each product cheap. Many keep far points apart, so that
fewer pairs are proposed in vain.

Guarantee. The choice affects only the time: an orthonormal projection lengthens no distance, so no pair is missed.

Cost. O(s^2 d + s^3) for a sample of s points.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from regions._search.embedding import SKEW

SAMPLE = 512  # number of points from whose pairs the cost is estimated
DIRECTIONS = (16, 32, 64, 128)  # numbers of directions that are tried
_FEWEST_POINTS = 2000  # a search among fewer points takes too little time to be worth a projection

# The cost of each step, in nanoseconds on a machine of two cores. Only their proportions matter.
_PAIR = 0.5  # comparing one float32 product with its threshold
_PAIR_COMPONENT = 0.0085  # computing that product, for each coordinate
_CANDIDATE = 10.0  # listing one candidate pair
_CANDIDATE_COORDINATE = 0.07  # measuring a candidate in float64, for each coordinate
_MAP = 0.025  # projecting one point, for each coordinate and direction


def choose_basis(
    z: Float64[np.ndarray, "s d"], radii: Float64[np.ndarray, " s"], n: int
) -> Float64[np.ndarray, "d m"] | None:
    """Orthonormal columns to project on, or None if a search in all coordinates is estimated to be faster.

    z, radii : a sample of the n points, centred and scaled, and their radii
    """
    d = z.shape[1]
    if n < _FEWEST_POINTS or d <= 2 * DIRECTIONS[0]:
        return None
    values, vectors = _components(z)
    inside = vectors * np.sqrt(np.maximum(values, 0.0))
    squared = np.einsum("nd,nd->n", z, z)
    i, j = np.triu_indices(len(z), 1)
    reach = (radii[i] + radii[j]) ** 2
    pairs = n / 2  # per point
    best, size = _PAIR + _PAIR_COMPONENT * d, 0
    for m in DIRECTIONS:
        if 2 * m > min(d, len(z)):
            break
        y = inside[:, :m]
        rest = np.sqrt(np.maximum(squared - np.einsum("nm,nm->n", y, y), 0.0))
        y = np.column_stack([y, rest])
        gram = y @ y.T
        norms = np.diagonal(gram)
        candidates = np.mean(norms[i] + norms[j] - 2 * gram[i, j] < reach)
        cost = _PAIR + _PAIR_COMPONENT * m + _MAP * d * m / pairs
        cost += candidates * (_CANDIDATE + _CANDIDATE_COORDINATE * d)
        if cost < best:
            best, size = cost, m
    return _orthonormal(z.T @ vectors[:, :size]) if size else None


def principal_directions(z: Float64[np.ndarray, "s d"], m: int) -> Float64[np.ndarray, "d m"] | None:
    """The m leading principal directions of centred points, in order; None if rounding keeps them from orthonormal."""
    return _orthonormal(z.T @ _components(z)[1][:, :m])


def _components(z: Float64[np.ndarray, "s d"]) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, "s s"]]:
    """Squared singular values of z, largest first, and its left singular vectors."""
    values, vectors = np.linalg.eigh(z @ z.T)
    return values[::-1], vectors[:, ::-1]


def _orthonormal(directions: Float64[np.ndarray, "d m"]) -> Float64[np.ndarray, "d m"] | None:
    basis = np.linalg.qr(directions)[0]
    return basis if np.abs(basis.T @ basis - np.eye(basis.shape[1])).sum(axis=1).max() <= SKEW / 2 else None
