"""Standard normal numbers from uniform words, in integer arithmetic: the same bits on every device.

A 64-bit word w stands for u = (w + 1/2) / 2**64, and z = Phi^-1(u) is computed as an integer in units of 2**-28. By
symmetry a word and its complement have opposite z, so only the tail M / 2**65 with M = 2 min(w, ~w) + 1 matters. Its
leading bit and the `CELL_BITS` bits after that name a cell; within a cell |z| is the parabola through the exact values
at both ends and in the middle. The error of z is below 2.5e-9 for all words. |z| goes up to 9.2: no word is cut off.
"""

import functools
import math
from typing import no_type_check

import mpmath
import numba
import numpy as np
from jaxtyping import Float32, Int64, UInt64
from llvmlite import ir
from numba.extending import intrinsic
from scipy import special

#: z is an integer in units of 2**-SCALE_BITS; the table has GUARD_BITS more.
SCALE_BITS, GUARD_BITS = 28, 6

#: Every factor of two of the tail's probability is divided into 2**CELL_BITS cells.
CELL_BITS = 8

#: Position in a cell, in bits.
PLACE_BITS = 31

#: Bits of a noise level: |z| < 2**4 in units of 2**-28 times sigma's 31 bits stay below 2**63.
SIGMA_BITS = 31

#: Noise levels whose power of two is a normal float32 number.
LEAST_SIGMA, LARGEST_SIGMA = 2.0**-64, 2.0**64


@functools.cache
def coefficients() -> Int64[np.ndarray, "cells 3"]:
    """Return the parabolas a + f (b + f c), for f from 0 to 1 in each cell, in units of 2**-(SCALE_BITS + GUARD_BITS).

    Row e * 2**CELL_BITS + i is the cell of M = 2**(63 - e) (1 + (i + f) / 2**CELL_BITS). Its three values of |z| are
    correctly rounded, so that the table is the same on every machine: SciPy's quantile is far more exact than that, and
    the few values that come near the middle between two integers are computed with 40 digits.
    """
    halves = np.arange(2 * 2**CELL_BITS + 1) / 2 ** (CELL_BITS + 1)
    tail = np.ldexp(1 + halves, -2 - np.arange(64)[:, None])
    scaled = np.ldexp(-special.ndtri(tail), SCALE_BITS + GUARD_BITS)
    rounded = np.rint(scaled)
    unclear = np.abs(np.abs(scaled - rounded) - 0.5) <= 1e-14 * scaled
    with mpmath.workdps(40):
        for place in zip(*np.nonzero(unclear), strict=True):
            p, z = mpmath.mpf(float(tail[place])), mpmath.ldexp(float(scaled[place]), -SCALE_BITS - GUARD_BITS)
            z += (mpmath.ncdf(-z) - p) / mpmath.npdf(z)  # Newton's method doubles the number of right digits
            rounded[place] = int(mpmath.nint(mpmath.ldexp(z, SCALE_BITS + GUARD_BITS)))
    z = rounded.astype(np.int64)
    start, middle, end = z[:, :-1:2], z[:, 1::2], z[:, 2::2]
    c = 2 * start - 4 * middle + 2 * end
    return np.stack([start, end - start - c, c], axis=-1).reshape(-1, 3)


def split_sigma(sigma: float) -> tuple[int, int]:
    """Return m, e with sigma = m 2**-e but for half a unit of m, an integer of 31 bits."""
    if not LEAST_SIGMA <= sigma <= LARGEST_SIGMA:
        raise ValueError(f"sigma = {sigma:g}: sampler 'gaussian' takes noise levels from 2**-64 to 2**64")
    fraction, exponent = math.frexp(sigma)
    return round(math.ldexp(fraction, SIGMA_BITS)), SIGMA_BITS - exponent


def normal(words: UInt64[np.ndarray, " n"], out: Int64[np.ndarray, " n"]) -> None:
    """Write z, in units of 2**-SCALE_BITS, into `out`, which may be the same memory as `words`."""
    _normal(words, coefficients(), out)


def add_noise(
    z: Int64[np.ndarray, "count pixels"],
    image: Float32[np.ndarray, " pixels"],
    sigma: float,
    out: Float32[np.ndarray, "count pixels"],
) -> None:
    """Write image + sigma z into `out`: the product in integers, rounded once to float32, and one sum of float32."""
    m, exponent = split_sigma(sigma)
    _add(z, image, np.int64(m), np.float32(2.0 ** -(SCALE_BITS + exponent)), out)


@no_type_check
@intrinsic
def _leading_zeros(typing_context, word):
    """Count the zeros before the first 1 of a uint64 number other than 0."""

    @no_type_check
    def code(context, builder, signature, arguments):
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return numba.uint64(numba.uint64), code


@no_type_check
@numba.njit(cache=True, nogil=True)
def _normal(words, table, out):
    one, high = np.uint64(1), np.uint64(64 - CELL_BITS)
    bits, rest = np.uint64(CELL_BITS), np.uint64(64 - PLACE_BITS)
    for i in range(words.size):
        word = words[i]
        sign = np.int64(word) >> 63  # -1 in the upper half, where z > 0
        tail = ((word ^ np.uint64(sign)) << one) | one
        octave = _leading_zeros(tail)
        fraction = (tail << octave) << one
        cell = np.int64((octave << bits) | (fraction >> high))
        f = np.int64((fraction << bits) >> rest)
        z = table[cell, 0] + ((f * (table[cell, 1] + ((f * table[cell, 2]) >> PLACE_BITS))) >> PLACE_BITS)
        z = (z + (1 << (GUARD_BITS - 1))) >> GUARD_BITS
        out[i] = (z ^ ~sign) - ~sign


@no_type_check
@numba.njit(cache=True, nogil=True)
def _add(z, image, m, unit, out):
    for sample in range(z.shape[0]):
        for place in range(z.shape[1]):
            out[sample, place] = image[place] + np.float32(z[sample, place] * m) * unit
