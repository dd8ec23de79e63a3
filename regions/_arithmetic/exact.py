"""Comparing distances with radii in exact arithmetic, for the few pairs that float64 cannot decide.

What is computed. Every float64 number is an integer times a power of two. All numbers of a block are written with one
common power of two, and squares are compared as Python integers, which have any number of digits.

Guarantee. No rounding at all.

Cost. About 0.2 microseconds for each coordinate.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real, Shaped

_BLOCK = 1 << 18  # coordinates that are converted to Python integers at once


def closer_than(
    x: Real[np.ndarray, "n d"],
    y: Real[np.ndarray, "m d"],
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
    *lengths: Float64[np.ndarray, " k"],
    rest: Float64[np.ndarray, "n d"] | None = None,
) -> Bool[np.ndarray, " k"]:
    """Whether |x_i + rest_i - y_j| is smaller than the sum of the lengths, for each pair, without rounding.

    The lengths are >= 0. Without `rest`, it is 0.
    """
    k, d = i.size, x.shape[1]
    result = np.empty(k, dtype=bool)
    size = max(1, _BLOCK // max(d, 1))
    for start in range(0, k, size):
        part = slice(start, start + size)
        rows = [x[i[part]], y[j[part]], *([] if rest is None else [rest[i[part]]])]
        numbers = _integers(
            np.concatenate([*rows, *(length[part, None] for length in lengths)], axis=1, dtype=np.float64)
        )
        difference = numbers[:, :d] - numbers[:, d : 2 * d]
        if rest is not None:
            difference = difference + numbers[:, 2 * d : 3 * d]
        reach = numbers[:, len(rows) * d :].sum(axis=1)
        result[part] = (difference * difference).sum(axis=1) < reach * reach
    return result


def _integers(values: Float64[np.ndarray, "k m"]) -> Shaped[np.ndarray, "k m"]:
    """The values, all multiplied by one power of two that makes them integers, as Python integers."""
    mantissa, exponent = np.frexp(values)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    lowest = exponent[whole != 0].min(initial=0)
    shift = np.where(whole != 0, exponent - lowest, 0)
    return np.asarray(whole.astype(object) << shift.astype(object))
