"""The map to float32 that searches see: it never lengthens a distance by more than it says, and may forget directions.

z = (x - centre) * scale, with scale a power of two so that |z_k| <= 1 for the points it was made for; then, given a
basis Q with orthonormal columns, T(z) = (Q^T z, |z - Q Q^T z|): the norm of what Q leaves out bounds its share of a
distance from below. One more step, `lift`, turns "closer than the sum of two radii" into an inner product
(docs/mathematics.md, Eq. M11 and M12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, Real

from regions._arithmetic.rounding import UNIT

SKEW = 1e-12  # how far from orthonormal a basis may be
TINY = 1e-30  # more than float32 may lose to underflow, in scaled units
_UNIT32 = 2.0**-24  # unit roundoff of float32
_SPARE = 1e-9  # more than the relative error of a norm computed in float64
_SAMPLE = 1024  # points whose mean is the centre
_COORDINATES = 1 << 19  # mapped at once


@dataclass(frozen=True)
class Frame:
    """A centre, a scale, and the directions that are kept (None: all)."""

    centre: Float64[np.ndarray, " d"]
    scale: float
    basis: Float64[np.ndarray, "d m"] | None = None

    @classmethod
    def around(cls, points: Real[np.ndarray, "n d"], rows: Int64[np.ndarray, " p"], least: float = 0.0) -> Frame:
        """Centre of these rows, and a scale that takes no coordinate, nor the length `least`, beyond 1."""
        if not rows.size:
            return cls(np.zeros(points.shape[1]), 1.0)
        sample = rows[np.linspace(0, rows.size - 1, min(_SAMPLE, rows.size)).astype(np.int64)]
        centre = points[sample].mean(axis=0, dtype=np.float64)
        above, below = float(points.max()) - centre.min(), centre.max() - float(points.min())
        return cls(centre, math.ldexp(1.0, min(1000, -math.frexp(max(above, below, least))[1])))

    @property
    def width(self) -> int:
        """Number of mapped coordinates."""
        return self.centre.size if self.basis is None else self.basis.shape[1] + 1

    @property
    def moved(self) -> float:
        """How far rounding may move a mapped point, relative to the norm of z."""
        if self.basis is None:
            return 3 * _UNIT32
        d, m = self.basis.shape
        return 2 * _UNIT32 + 2 * math.sqrt(4 * (d + m + 8) * (math.sqrt(m) + 1) * UNIT + SKEW)

    def map(
        self, points: Real[np.ndarray, "n d"], rows: Int64[np.ndarray, " p"]
    ) -> tuple[Float32[np.ndarray, "p w"], Float64[np.ndarray, " p"]]:
        """Mapped rows of the points, and upper bounds of the norms of their z.

        What float32, or even float64, cannot hold becomes infinite or NaN, and so does its norm.
        """
        mapped, norms = np.empty((rows.size, self.width), dtype=np.float32), np.empty(rows.size)
        step = max(16, _COORDINATES // max(1, self.centre.size))
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, rows.size, step):
                part = slice(start, start + step)
                z = points[rows[part]].astype(np.float64, copy=False)
                z -= self.centre
                if self.scale != 1.0:
                    z *= self.scale
                squared = np.einsum("nd,nd->n", z, z)
                norms[part] = np.sqrt(squared) * (1 + _SPARE)
                if self.basis is None:
                    mapped[part] = z
                    continue
                inside = _by_one_thread(z, self.basis) if len(z) == 1 else z @ self.basis
                mapped[part, :-1] = inside
                mapped[part, -1] = np.sqrt(np.maximum(squared - np.einsum("nm,nm->n", inside, inside), 0.0))
        return mapped, norms

    def reach(
        self, radii: Float64[np.ndarray, " p"], norms: Float64[np.ndarray, " p"], most: float = math.inf
    ) -> Float64[np.ndarray, " p"]:
        """Radii in scaled units, `most` at most, with what moving the mapped centres may cost."""
        with np.errstate(over="ignore"):
            return np.minimum(radii * self.scale, most) * (1 + 2 * SKEW) + self.moved * norms + TINY

    def lift(
        self,
        mapped: Float32[np.ndarray, "p w"],
        reach: Float64[np.ndarray, " p"],
        norms: Float64[np.ndarray, " p"],
    ) -> Float32[np.ndarray, "p v"]:
        """Rows (t, r, w) such that balls that overlap have (t, r, w) . (t', r', 1) > -w', also as float32 computes it.

        (t, r, w, 1) . (t', r', 1, w') > 0 holds for them as well. For any order of summation; `reach` and `norms` as
        the methods above return them.
        """
        rows = np.empty((reach.size, self.width + 2), dtype=np.float32)
        rows[:, :-2] = mapped
        rows[:, -2] = _up(reach)
        rounded = rows[:, :-1].astype(np.float64)
        reach, square = rounded[:, -1], np.einsum("nk,nk->n", rounded[:, :-1], rounded[:, :-1])
        error = 2 * (self.width + 10) * _UNIT32  # of width + 3 products, each ball paying for its own size
        rows[:, -1] = _up((reach**2 - square) / 2 + error * (norms**2 + reach**2) + TINY)
        return rows


def asked(lifted: Float32[np.ndarray, "p v"]) -> tuple[Float32[np.ndarray, "p v"], Float32[np.ndarray, " p"]]:
    """Queries (t, r, 1) for the rows of other balls, and the thresholds -w that products with them must exceed."""
    queries = lifted.copy()
    queries[:, -1] = 1.0
    return queries, -lifted[:, -1]


def _by_one_thread(a: Float64[np.ndarray, "1 d"], b: Float64[np.ndarray, "d m"]) -> Float64[np.ndarray, "1 m"]:
    """A @ b without waking BLAS's threads, which on a busy machine takes longer than the product."""
    return np.asarray(np.einsum("nd,dm->nm", a, b))


def _up(values: Float64[np.ndarray, " k"]) -> Float32[np.ndarray, " k"]:
    """The next float32 above, at least."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
