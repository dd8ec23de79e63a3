"""Whether to search in a projection, and in which: decided by what it would cost on a sample.

Any orthonormal projection is safe, since it only shrinks distances. A good one has few components and still tells most
far pairs apart: the leading principal directions of the data.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from regions._search.embedding import SKEW

SAMPLE = 512  # points whose pairs are looked at
_SIZES = (16, 32, 64, 128)  # numbers of components that are tried
_FEWEST_POINTS = 2000  # below, a search takes no time worth saving

# Nanoseconds on one machine of two cores; only their proportions matter, and they only affect speed.
_PAIR = 0.5  # looking at one float32 product
_PAIR_COMPONENT = 0.0085  # computing it, per component
_CANDIDATE = 10.0  # listing one candidate ...
_CANDIDATE_COORDINATE = 0.07  # ... and measuring it in float64, per coordinate
_MAP = 0.025  # projecting one point, per coordinate and component


def choose_basis(
    z: Float64[np.ndarray, "s d"], radii: Float64[np.ndarray, " s"], n: int
) -> Float64[np.ndarray, "d m"] | None:
    """Orthonormal columns to project on, or None where searching all coordinates is estimated to be faster.

    z, radii : centred points, a sample of n, and their radii
    """
    d = z.shape[1]
    if n < _FEWEST_POINTS or d <= 2 * _SIZES[0]:
        return None
    values, vectors = _components(z)
    inside = vectors * np.sqrt(np.maximum(values, 0.0))
    squared = np.einsum("nd,nd->n", z, z)
    i, j = np.triu_indices(len(z), 1)
    reach = (radii[i] + radii[j]) ** 2
    pairs = n / 2  # per point
    best, size = _PAIR + _PAIR_COMPONENT * d, 0
    for m in _SIZES:
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
    """The m leading principal directions of centred points, in order, or None where they are not orthonormal."""
    return _orthonormal(z.T @ _components(z)[1][:, :m])


def _components(z: Float64[np.ndarray, "s d"]) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, "s s"]]:
    """Squared singular values of z, largest first, and its left singular vectors."""
    values, vectors = np.linalg.eigh(z @ z.T)
    return values[::-1], vectors[:, ::-1]


def _orthonormal(directions: Float64[np.ndarray, "d m"]) -> Float64[np.ndarray, "d m"] | None:
    basis = np.linalg.qr(directions)[0]
    return basis if np.abs(basis.T @ basis - np.eye(basis.shape[1])).sum(axis=1).max() <= SKEW / 2 else None
