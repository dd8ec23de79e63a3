"""Mapping points to few float32 coordinates in which no distance grows by more than a known bound.

What is computed, in three steps:

1. z = (x - centre) * scale, where scale is a power of two such that |z_k| <= 1 for the points the frame was made for.
2. T(z) = (Q^T z, |z - Q Q^T z|) for a basis Q with orthonormal columns: the part of z inside the span of Q, and the
   norm of the part outside. Without a basis, T(z) = z. Both are rounded to float32.
3. `lift` turns the test "the distance is smaller than the sum of two radii" into an inner product and a comparison.

Guarantee. T lengthens no distance (docs/mathematics.md, Eq. M11). `Frame.moved` bounds what rounding may add to it, and
`lift` allows for the error of a float32 inner product (Eq. M12, M16 and M17). So balls that overlap pass the test.

Cost. O(d m) for each point, with m columns of Q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, Real

from regions._arithmetic.rounding import UNIT

SKEW = 1e-12  # twice the largest permitted norm of Q^T Q - I
TINY = 1e-30  # more than underflow may change in float32, in scaled units
_UNIT32 = 2.0**-24  # unit roundoff of float32
_SPARE = 1e-9  # more than the relative error of a norm computed in float64
_SAMPLE = 1024  # the centre is the mean of this many points
_COORDINATES = 1 << 19  # coordinates that are mapped at once


@dataclass(frozen=True)
class Frame:
    """How points are mapped: a centre, a scale, and the basis to project on (None: no projection)."""

    centre: Float64[np.ndarray, " d"]
    scale: float
    basis: Float64[np.ndarray, "d m"] | None = None

    @classmethod
    def around(cls, points: Real[np.ndarray, "n d"], rows: Int64[np.ndarray, " p"], least: float = 0.0) -> Frame:
        """The frame for these rows of the points.

        Its scale is such that no coordinate of any point exceeds 1 in magnitude, and neither does the length `least`.
        """
        if not rows.size:
            return cls(np.zeros(points.shape[1]), 1.0)
        sample = rows[np.linspace(0, rows.size - 1, min(_SAMPLE, rows.size)).astype(np.int64)]
        centre = points[sample].mean(axis=0, dtype=np.float64)
        # a file of bytes need not be read for this
        lowest, highest = (0.0, 255.0) if points.dtype == np.uint8 else (float(points.min()), float(points.max()))
        above, below = highest - centre.min(), centre.max() - lowest
        return cls(centre, math.ldexp(1.0, min(1000, -math.frexp(max(above, below, least))[1])))

    @property
    def width(self) -> int:
        """Number of mapped coordinates."""
        return self.centre.size if self.basis is None else self.basis.shape[1] + 1

    @property
    def moved(self) -> float:
        """Bound on the distance between T(z) as computed and T(z) without rounding, relative to the norm of z."""
        if self.basis is None:
            return 3 * _UNIT32
        d, m = self.basis.shape
        return 2 * _UNIT32 + 2 * math.sqrt(4 * (d + m + 8) * (math.sqrt(m) + 1) * UNIT + SKEW)

    def map(
        self, points: Real[np.ndarray, "n d"], rows: Int64[np.ndarray, " p"]
    ) -> tuple[Float32[np.ndarray, "p w"], Float64[np.ndarray, " p"]]:
        """Map these rows of the points. Returns T(z) for each, and an upper bound on the norm of each z.

        Numbers too large for float32 or float64 become infinite or NaN, and so do their norms.
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
        """Radii in scaled units, at most `most`, raised by the bound on how far rounding moves the mapped centres."""
        with np.errstate(over="ignore"):
            return np.minimum(radii * self.scale, most) * (1 + 2 * SKEW) + self.moved * norms + TINY

    def lift(
        self,
        mapped: Float32[np.ndarray, "p w"],
        reach: Float64[np.ndarray, " p"],
        norms: Float64[np.ndarray, " p"],
    ) -> Float32[np.ndarray, "p v"]:
        """Rows (t, r, w), one for each ball, in which one inner product tells whether two balls may overlap.

        If two balls overlap, (t, r, w) . (t', r', 1) > -w' (Eq. M12) and (t, r, w, 1) . (t', r', 1, w') > 0 (Eq. M16).
        Both hold as computed in float32, for any order of summation. `reach` and `norms` are what the methods above
        return.
        """
        rows = np.empty((reach.size, self.width + 2), dtype=np.float32)
        rows[:, :-2] = mapped
        rows[:, -2] = _up(reach)
        rounded = rows[:, :-1].astype(np.float64)
        reach, square = rounded[:, -1], np.einsum("nk,nk->n", rounded[:, :-1], rounded[:, :-1])
        error = 2 * (self.width + 10) * _UNIT32  # Eq. M17, for width + 3 products: each ball adds its own share
        rows[:, -1] = _up((reach**2 - square) / 2 + error * (norms**2 + reach**2) + TINY)
        return rows


def asked(lifted: Float32[np.ndarray, "p v"]) -> tuple[Float32[np.ndarray, "p v"], Float32[np.ndarray, " p"]]:
    """Split lifted rows (t, r, w) into queries (t, r, 1) and thresholds -w.

    The inner product of a query with the lifted row of another ball must exceed the query's threshold (Eq. M12).
    """
    queries = lifted.copy()
    queries[:, -1] = 1.0
    return queries, -lifted[:, -1]


def _by_one_thread(a: Float64[np.ndarray, "1 d"], b: Float64[np.ndarray, "d m"]) -> Float64[np.ndarray, "1 m"]:
    """A @ b in this thread alone: waking BLAS's threads on a busy machine takes longer than this product."""
    return np.asarray(np.einsum("nd,dm->nm", a, b))


def _up(values: Float64[np.ndarray, " k"]) -> Float32[np.ndarray, " k"]:
    """Float32 numbers that are larger than the values, by at most two units in the last place."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
