"""Compiled arithmetic: squared distances, and sums and differences of two numbers that are rounded to the safe side.

Compiled loops stand beside their algorithms. All run without the interpreter lock, so that callers may share blocks
among threads.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

# Sums may be reassociated for speed: the error bounds of `distances` hold for any order of summation.
_fast_sum = njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
#: What every compiled loop is decorated with, but for those whose sums may be reassociated.
compiled = njit(cache=True, nogil=True)
_SHORT = 2.0**-400  # differences below this are scaled in two steps
_STEP = 600  # exponent of the first step
_BLOCK = 128  # coordinates between two looks at the stopping bound


@_fast_sum
@no_type_check
def squared_distances(x, y, i, j, stop, out):
    """Set out[k] = |x[i[k]] - y[j[k]]|^2, or any partial sum above stop[k] once that is exceeded.

    Coordinates of any real type, converted to float64 one by one. The innermost loop runs over slices from their start:
    only so does the compiler know that no index is negative, and use vector instructions (seven times as fast).
    """
    d = x.shape[1]
    for k in range(i.size):
        a, b = x[i[k]], y[j[k]]
        total = 0.0
        start = 0
        while start < d and total <= stop[k]:
            p, q = a[start : start + _BLOCK], b[start : start + _BLOCK]
            part = 0.0
            for c in range(p.size):
                difference = np.float64(p[c]) - np.float64(q[c])
                part += difference * difference
            total += part
            start += _BLOCK
        out[k] = total


@compiled
@no_type_check
def scaled_squared_distances(x, y, i, j, out, exponent):
    """Set out[k] = |x[i[k]] - y[j[k]]|^2 / 4^exponent[k], at least 1/4 unless the points are equal: then 0."""
    for k in range(i.size):
        a, b = x[i[k]], y[j[k]]
        largest = 0.0
        for c in range(a.size):
            largest = max(largest, abs(np.float64(a[c]) - np.float64(b[c])))
        up = 2.0**_STEP if largest < _SHORT else 1.0  # two steps, since one power of two may not reach; both are exact
        _, own = math.frexp(largest * up)
        scale = math.ldexp(1.0, -own)
        total = 0.0
        for c in range(a.size):
            difference = (np.float64(a[c]) - np.float64(b[c])) * up * scale
            total += difference * difference
        out[k] = total
        if largest == 0.0:
            own = 0
        elif up > 1.0:
            own -= _STEP
        exponent[k] = own


@compiled
@no_type_check
def subtract_down(a, b):
    """Return a float c <= a - b with b + c <= a in exact arithmetic; the largest such, or the one below it."""
    c = a - b
    total = b + c
    rest = (b - (total - (total - b))) + (c - (total - b))  # total + rest = b + c exactly (TwoSum)
    if total > a or (total == a and rest > 0):
        c = np.nextafter(c, -np.inf)
    return c


@compiled
@no_type_check
def exceeds(a, b, limit):
    """Whether a + b > limit in exact arithmetic."""
    total = a + b
    rest = (a - (total - (total - a))) + (b - (total - a))
    return total > limit or (total == limit and rest > 0)
