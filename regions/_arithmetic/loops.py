"""Compiled arithmetic: squared distances, and comparisons and differences of two numbers without rounding errors.

`compiled` is the decorator of all compiled loops, which stand in the files of their algorithms. They run without the
interpreter lock, so that threads can share the work.

Source. TwoSum, which finds the rounding error of a sum: Knuth, 1969, and Møller, 1965.
"""

import logging
import math
from functools import cache
from typing import no_type_check

import numpy as np
from numba import njit
from numba.core import event

# The compiler may change the order of summation: the error bounds of `distances` hold for any order.
_fast_sum = njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
#: The decorator of every compiled loop whose order of operations matters.
compiled = njit(cache=True, nogil=True)


class _Compiling(event.Listener):
    """Tells those who listen to the logger "regions" when our loops are compiled."""

    def on_start(self, event: event.Event) -> None:
        if event.data["dispatcher"].py_func.__module__.startswith("regions."):
            _say_once()

    def on_end(self, event: event.Event) -> None:
        pass


@cache
def _say_once() -> None:
    logging.getLogger("regions").info(
        "compiling loops, which takes some seconds, once: later programs load them from Numba's cache"
    )


event.register("numba:compile", _Compiling())  # type: ignore[no-untyped-call]

_SHORT = 2.0**-400  # differences below this are scaled in two steps
_STEP = 600  # exponent of the first step
_BLOCK = 128  # coordinates that are summed before the sum is compared with the bound at which to stop


@_fast_sum
@no_type_check
def squared_distances(x, y, i, j, stop, out):
    """Set out[k] = |x[i[k]] - y[j[k]]|^2, or to a partial sum that exceeds stop[k].

    Coordinates of any real type are converted to float64 one by one. The innermost loop indexes slices from 0, which
    tells the compiler that no index is negative; it then uses vector instructions, which are seven times as fast.
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
    """Set out[k] = |x[i[k]] - y[j[k]]|^2 / 4^exponent[k], with exponents such that out[k] >= 1/4, or 0 if it is 0."""
    for k in range(i.size):
        a, b = x[i[k]], y[j[k]]
        largest = 0.0
        for c in range(a.size):
            largest = max(largest, abs(np.float64(a[c]) - np.float64(b[c])))
        # the factor may exceed the largest float64: multiply by two powers of two, which is exact
        up = 2.0**_STEP if largest < _SHORT else 1.0
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
    """Return a float c with b + c <= a in exact arithmetic: the largest such float, or the one below it."""
    c = a - b
    total = b + c
    rest = (b - (total - (total - b))) + (c - (total - b))  # total + rest = b + c exactly (TwoSum)
    if total > a or (total == a and rest > 0):
        c = np.nextafter(c, -np.inf)
    return c


@compiled
@no_type_check
def add_down(a, b):
    """Return the largest float that is at most a + b in exact arithmetic."""
    total = a + b
    rest = (a - (total - (total - a))) + (b - (total - a))  # total + rest = a + b exactly (TwoSum)
    return np.nextafter(total, -np.inf) if rest < 0 else total


@compiled
@no_type_check
def exceeds(a, b, limit):
    """Whether a + b > limit in exact arithmetic."""
    total = a + b
    rest = (a - (total - (total - a))) + (b - (total - a))
    return total > limit or (total == limit and rest > 0)
