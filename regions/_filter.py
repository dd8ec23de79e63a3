"""Which of many balls may be near a point: inner products in float32, with margins that provably miss nothing.

|t - q|^2 < (r + R)^2 is t.q + r R + (r^2 - |t|^2) / 2 > (|q|^2 - R^2) / 2: with r and (r^2 - |t|^2) / 2 as two more
coordinates, FAISS compares all balls with one threshold. t and q are projections, which only shrink distances; all
rounding is on the safe side (docs/mathematics.md, Eq. M15). Balls are appended; the projection is chosen anew only when
there are many times as many as it was chosen for.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64, Int64

from regions._projection import principal_directions

_DIRECTIONS = 64
_SKEW = 1e-12  # how far from orthonormal the directions may be
_UNIT32 = 2.0**-24
_TINY = 1e-30  # more than float32 may lose to underflow, in scaled units
_WILD = 1e15  # scaled lengths beyond this could overflow float32 when they are squared


class BallFilter:
    """Projected centres of balls, chosen for a sample of them."""

    def __init__(self, sample: Float64[np.ndarray, "s d"]) -> None:
        import faiss  # loaded only where something is searched

        d = sample.shape[1]
        self._centre = sample.mean(axis=0)
        z = sample - self._centre
        self._scale = math.ldexp(1.0, min(1000, -math.frexp(float(np.abs(z).max()))[1]))
        self._basis = principal_directions(z, _DIRECTIONS, _SKEW) if d >= 2 * _DIRECTIONS else None
        m = d if self._basis is None else self._basis.shape[1]
        self._moved = 2 * _UNIT32 + 16 * (d + m) * (math.sqrt(m) + 1) * 2.0**-53  # by rounding, relative to the norm
        self._width = m + (self._basis is not None)
        self._error = 2 * (self._width + 10) * _UNIT32
        self._index = faiss.IndexFlatIP(self._width + 2)
        self._norms = np.empty(0)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, centres: Float64[np.ndarray, "k d"], radii: Float64[np.ndarray, " k"]) -> None:
        """Append balls."""
        mapped, norms = self._map(centres)
        with np.errstate(over="ignore"):
            reach = radii * self._scale * (1 + 2 * _SKEW) + self._moved * norms + _TINY
        wild = ~(np.maximum(norms, reach) < _WILD)  # always candidates
        mapped[wild], reach[wild] = 0.0, 0.0
        rows = np.empty((radii.size, self._width + 2), dtype=np.float32)
        rows[:, :-2] = mapped
        rows[:, -2] = _up(reach)
        rounded = rows[:, :-1].astype(np.float64)
        reach, norms[wild] = rounded[:, -1], 0.0
        square = np.einsum("nk,nk->n", rounded[:, :-1], rounded[:, :-1])
        rows[:, -1] = _up((reach**2 - square) / 2 + self._error * (norms**2 + reach**2))
        rows[wild, -1], norms[wild] = np.inf, np.inf
        start, end = len(self), len(self) + radii.size
        if end > self._norms.size:
            self._norms = np.append(self._norms, np.empty(max(self._norms.size, radii.size)))
        self._norms[start:end] = norms
        self._index.add(rows)

    def near(
        self, x: Float64[np.ndarray, " d"], radii: Float64[np.ndarray, " n"], reach: float
    ) -> tuple[Int64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
        """Balls, among them every one with |x - centre| < radius + reach, and lower bounds of |x - centre| - radius."""
        mapped, norms = self._map(x[None])
        norm = float(norms[0])
        least = reach * self._scale * (1 + 2 * _SKEW) + self._moved * norm + _TINY
        if not max(norm, least) < _WILD:
            return np.arange(len(self)), np.full(len(self), -np.inf)
        query = np.concatenate([mapped[0].astype(np.float32), _up(np.array([least])), np.ones(1, dtype=np.float32)])
        point, least = query[:-2].astype(np.float64), float(query[-2])
        threshold = (point @ point - least**2) / 2 - self._error * (norm**2 + least**2) - _TINY
        limit = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
        found = self._index.range_search(query[None], limit)[2]
        distance = np.linalg.norm(self._index.reconstruct_batch(found)[:, :-2] - point, axis=1) * (1 - 1e-12)
        below = (distance - self._moved * (self._norms[found] + norm) - _TINY) / (self._scale * (1 + 2 * _SKEW))
        return found, below * (1 - np.copysign(1e-12, below)) - radii[found] * (1 + 1e-12)

    def _map(self, points: Float64[np.ndarray, "k d"]) -> tuple[Float64[np.ndarray, "k w"], Float64[np.ndarray, " k"]]:
        """Projected points, and upper bounds of their norms, in scaled units."""
        with np.errstate(over="ignore", invalid="ignore"):
            z = (points - self._centre) * self._scale
            norms = np.sqrt(np.einsum("nd,nd->n", z, z)) * (1 + 1e-9)
            if self._basis is None:
                return z, norms
            product = np.matmul if len(z) > 1 else _by_one_thread
            inside = product(z, self._basis)
            rest = np.linalg.norm(z - product(inside, self._basis.T), axis=1)
            return np.column_stack([inside, rest]), norms


def _by_one_thread(a: Float64[np.ndarray, "1 d"], b: Float64[np.ndarray, "d m"]) -> Float64[np.ndarray, "1 m"]:
    """A @ b without waking BLAS's threads, which on a busy machine takes longer than the product."""
    return np.asarray(np.einsum("nd,dm->nm", a, b))


def _up(values: Float64[np.ndarray, " k"]) -> Float32[np.ndarray, " k"]:
    """The next float32 above, at least."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
