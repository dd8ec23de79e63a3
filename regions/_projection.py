"""Whether to search in a projection, and in which: decided by what it would cost on a sample.

Any orthonormal projection is safe, since it only shrinks distances. A good one has few components and still tells most
far pairs apart: the leading principal directions of the data.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, Real

_SAMPLE = 768  # points whose pairs are looked at
_SIZES = (16, 32, 64, 128)  # numbers of components that are tried
_FEWEST_POINTS = 2000  # below, a search takes no time worth saving

# Nanoseconds on one machine of two cores; only their proportions matter, and they only affect speed.
_PAIR = 2.8  # looking at one float32 distance
_PAIR_COMPONENT = 0.009  # computing it, per component
_CANDIDATE_COORDINATE = 0.4  # measuring one candidate in float64, per coordinate
_MAP = 0.04  # projecting one point, per coordinate and component


def choose_basis(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    rows: Int64[np.ndarray, " p"],
    centre: Float64[np.ndarray, " d"],
    skew: float,
) -> Float64[np.ndarray, "d m"] | None:
    """Orthonormal columns to project on, or None where searching all coordinates is estimated to be faster.

    Columns are orthonormal up to `skew` in every entry's sum; deterministic.
    """
    n, d = rows.size, points.shape[1]
    if n < _FEWEST_POINTS or d <= 2 * _SIZES[0]:
        return None
    rng = np.random.default_rng(0)
    sample = np.sort(rng.choice(rows, size=min(_SAMPLE, n), replace=False))
    z = points[sample] - centre
    i, j = np.triu_indices(len(z), 1)
    reach = R[sample][i] + R[sample][j]
    directions = _principal(z, max(size for size in _SIZES if 2 * size <= d), rng)
    inside = z @ directions
    squared = np.einsum("nd,nd->n", z, z)
    pairs = n / 2  # per point
    best, basis = _PAIR + _PAIR_COMPONENT * d, None
    for m in _SIZES:
        if 2 * m > d:
            break
        y = inside[:, :m]
        rest = np.sqrt(np.maximum(squared - np.einsum("nm,nm->n", y, y), 0.0))
        y = np.column_stack([y, rest])
        gram = y @ y.T
        norms = np.diagonal(gram)
        candidates = np.mean(norms[i] + norms[j] - 2 * gram[i, j] < reach**2)
        cost = _PAIR + _PAIR_COMPONENT * m + candidates * _CANDIDATE_COORDINATE * d + _MAP * d * m / pairs
        if cost < best:
            best, basis = cost, directions[:, :m]
    return None if basis is None else _orthonormal(basis, skew)


def principal_directions(z: Float64[np.ndarray, "s d"], m: int, skew: float) -> Float64[np.ndarray, "d m"] | None:
    """About the m leading principal directions of centred points, in order, or None where they are not orthonormal."""
    return _orthonormal(_principal(z, m, np.random.default_rng(0)), skew)


def _orthonormal(basis: Float64[np.ndarray, "d m"], skew: float) -> Float64[np.ndarray, "d m"] | None:
    basis = np.ascontiguousarray(basis)
    return basis if np.abs(basis.T @ basis - np.eye(basis.shape[1])).sum(axis=1).max() <= skew / 2 else None


def _principal(z: Float64[np.ndarray, "s d"], m: int, rng: np.random.Generator) -> Float64[np.ndarray, "d m"]:
    """About the m leading principal directions, in order: randomised subspace iteration (Halko et al., 2011)."""
    basis = rng.normal(size=(z.shape[1], m))
    for _ in range(2):
        basis = np.linalg.qr(z.T @ (z @ basis))[0]
    values, rotation = np.linalg.eigh((z @ basis).T @ (z @ basis))
    return np.linalg.qr(basis @ rotation[:, np.argsort(-values)])[0]
