"""Gaussian noise on the grid of 8-bit pixels, without rounding errors.

The base classifier is taken to be h = f after rounding its input to multiples of 1/255. At an image x = p / 255, p
integer, round(255 (x + sigma e)) = p + round(255 sigma e): it is enough to draw the integer k = round(255 sigma e),

    P(k) = Phi((k + 1/2) / s) - Phi((k - 1/2) / s),    s = 255 sigma,

and what f is given, float32(p + k) / 255, is a function of the integer p + k alone. So the votes drawn at an 8-bit
image are those of h under exact Gaussian noise, and the theorem for h loses nothing at such images.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import no_type_check

import mpmath
import numba
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt64
from scipy import special
from torch import Tensor

from smoothing._voting.noise import Words

#: Values per pixel: 0 to 255.
TOP = 255

#: The guide looks at so many leading bits of a random number; few of its cells contain a threshold.
GUIDE_BITS = 16

#: Probabilities are integers in units of 2**-FIXED_BITS while a table is made.
FIXED_BITS = 192

#: Largest table, in thresholds; sigma = 200 would need it.
MOST_THRESHOLDS = 2**20


@dataclass(frozen=True, eq=False)
class Table:
    """The distribution function of k, cut to 64 bits.

    Attributes
    ----------
    s : mpmath number
        255 sigma, exactly.
    lowest : int
        The first threshold belongs to k = lowest.
    thresholds : uint64 array of shape (t,)
        floor(2**64 Phi((k + 1/2) / s)) for k = lowest, lowest + 1, ...
    first : int32 array of shape (2**GUIDE_BITS,)
        For each value of the leading bits, the first threshold that is not below all words with these bits.
    """

    s: mpmath.mpf
    lowest: int
    thresholds: UInt64[np.ndarray, " t"]
    first: Int32[np.ndarray, " cells"]


class DiscretePixels:
    """image + round(255 sigma e) / 255 for images of 8-bit pixels, exactly distributed.

    Exact given independent uniform bits: a random number of 64 bits decides k but with probability about s * 2**-60,
    and then further bits decide, hashed from the sample's own. The support is not cut off.
    """

    name = "discrete"
    raw: type[np.generic] = np.uint64

    def check(self, images: Float[Tensor, "n c h w"]) -> None:
        """Raise `ValueError` for the first pixel that is not a multiple of 1/255, as float32."""
        pixels = images.numpy()
        on_grid = np.rint(pixels * TOP).astype(np.float32) / np.float32(TOP) == pixels
        if not on_grid.all():
            where = np.unravel_index(int(np.argmin(on_grid)), pixels.shape)
            raise ValueError(
                f"images[{', '.join(map(str, where))}] = {pixels[where]:.9g}: sampler 'discrete' is for 8-bit images, "
                "pixels that were divided by 255; use sampler='gaussian' for others"
            )

    def add(
        self,
        raw: UInt64[np.ndarray, "count h w c"],
        image: Float32[np.ndarray, "h w c"],
        sigma: float,
        out: Float32[np.ndarray, "count h w c"],
    ) -> None:
        """Write float32(p + k) / 255 into `out`, for p = 255 image and k drawn at noise level sigma."""
        table = noise_table(sigma)
        pixels = np.rint(image * TOP).astype(np.int64).ravel()
        flat = out.reshape(len(raw), -1)
        words = raw.reshape(flat.shape)
        if _fill(words, pixels, table.lowest, table.thresholds, table.first, flat):
            for sample, place in np.argwhere(np.isnan(flat)).tolist():
                k = resolve(int(words[sample, place]), _more_bits(words[sample], place), table.s)
                flat[sample, place] = np.float32(pixels[place] + k) / np.float32(TOP)

    def lookup_error(self, d: int) -> float:
        """Return 2**-24 sqrt(d), rounded up: votes are about p / 255, and distances are taken between float32(p / 255).

        For p from 0 to 255 the two differ by at most 2**-25, half a unit in the last place of numbers from 1/2 to 1.
        """
        return math.nextafter(2.0**-24 * math.sqrt(d), math.inf)


class DiscreteNoise(DiscretePixels):
    """The sampler on a stream's words, which every noise level uses: larger ones are larger k at each."""

    def __init__(self, words: Words) -> None:
        self.words = words
        self.stream = words.name

    def draw(self, stage: str, index: int, first: int, out: UInt64[np.ndarray, "count h w c"]) -> None:
        """Fill `out` with the words of samples first, first + 1, ... of one image."""
        self.words.words(stage, index, first, out.reshape(len(out), -1))


@functools.lru_cache(maxsize=128)
def noise_table(sigma: float) -> Table:
    """Return the table for a noise level; raises `ValueError` where it would be too large.

    Entries are known with an error of less than 2**-110, and each is checked to be clear of rounding.
    """
    with mpmath.workdps(60):
        s = mpmath.mpf(sigma) * TOP
        half = int(mpmath.ceil(s * mpmath.mpf("9.3"))) + 2  # Phi(-9.3) < 2**-64
        if 2 * half > MOST_THRESHOLDS:
            raise ValueError(f"sigma = {sigma:g}: too large for sampler 'discrete'; pixels lie in [0, 1]")
        lower = [_floor(value) for value in _tails(s, half)]
    # Phi(x) + Phi(-x) = 1, and neither is a multiple of 2**-64
    thresholds = np.array([*reversed(lower), *(2**64 - 1 - value for value in lower)], dtype=np.uint64)
    cells = np.arange(2**GUIDE_BITS, dtype=np.uint64) << np.uint64(64 - GUIDE_BITS)
    return Table(s, -half, thresholds, np.searchsorted(thresholds, cells).astype(np.int32))


def _tails(s: mpmath.mpf, count: int) -> list[int]:
    """Return Phi(-(k + 1/2) / s) for k = 0, ..., count - 1, in units of 2**-FIXED_BITS.

    The outermost one is mpmath's. From there to the middle, the probabilities between neighbours are added: with phi
    the density, h = 1 / s and m = k h,

        integral of phi from m - h / 2 to m + h / 2 = h phi(m) sum of He_j(m) (h / 2)**j / (j + 1)! over even j,

    in integers. Where s is so small that the sum needs many terms, mpmath computes the few values there are.
    """
    one = 1 << FIXED_BITS
    wanted = range(count) if s < 16 else (0, count - 1)
    exact = [int(mpmath.nint(mpmath.ncdf(-(k + mpmath.mpf(0.5)) / s) * one)) for k in wanted]
    if s < 16:
        return exact
    h = int(mpmath.nint(one / s))
    density = [int(mpmath.nint(mpmath.npdf(1 / s) * one))]  # at h, 2 h, ...
    ratio, step = (int(mpmath.nint(mpmath.exp(-power / s**2) * one)) for power in (mpmath.mpf(1.5), 1))
    for _ in range(count - 2):
        density.append(density[-1] * ratio >> FIXED_BITS)
        ratio = ratio * step >> FIXED_BITS
    places = np.arange(1, count).astype(object) * h
    before, hermite, power, total, j = 0 * places, 0 * places + one, one, 0 * places, 0
    while True:
        if j % 2 == 0:
            term = hermite * power >> FIXED_BITS
            total += term
            if np.abs(term).max() >> (FIXED_BITS - 140) == 0:
                break
        before, hermite = hermite, (places * hermite >> FIXED_BITS) - j * before
        j += 1
        power = (power * h >> (FIXED_BITS + 1)) // (j + 1)
    between = (np.array(density, dtype=object) * total >> FIXED_BITS) * h >> FIXED_BITS
    found = list(itertools.accumulate(between[::-1].tolist(), initial=exact[1]))[::-1]
    if abs(found[0] - exact[0]) >> (FIXED_BITS - 110):
        raise ArithmeticError(f"Phi({-0.5 / s}) was found in two ways that differ")
    return found


def resolve(word: int, more: Iterator[int], s: mpmath.mpf) -> int:
    """Return the k of a uniform number that begins with this 64-bit word and goes on with `more`.

    k is the smallest integer with u < Phi((k + 1/2) / s). Words are added until both ends of the interval in which u is
    known to lie have the same k.
    """
    digits, value = 64, word
    while True:
        digits, value = digits + 64, (value << 64) | next(more)
        with mpmath.workdps(40 + digits // 3):
            ends = [_quantile(mpmath.mpf(end) / 2**digits, s) for end in (value, value + 1)]
        if ends[0] == ends[1]:
            return ends[0]


def _quantile(u: mpmath.mpf, s: mpmath.mpf) -> int:
    """Return the smallest k with u < Phi((k + 1/2) / s), for 0 < u < 1; 0 and 1 are moved inside a little."""
    tiny = mpmath.mpf(2) ** -1000
    u = min(max(u, tiny), 1 - tiny)
    guess = -special.ndtri(float(1 - u)) if u > 0.5 else special.ndtri(float(u))
    k = int(mpmath.nint(s * float(guess)))
    while u < mpmath.ncdf((k - mpmath.mpf(0.5)) / s):
        k -= 1
    while u >= mpmath.ncdf((k + mpmath.mpf(0.5)) / s):
        k += 1
    return k


def _floor(tail: int) -> int:
    """Return floor(2**64 p) for a p in units of 2**-FIXED_BITS that is known but for 2**-110."""
    floor, rest = divmod(tail, 1 << (FIXED_BITS - 64))
    clear = 1 << (FIXED_BITS - 110)
    if (floor and rest < clear) or rest > (1 << (FIXED_BITS - 64)) - clear:
        raise ArithmeticError(f"2**64 * {tail} / 2**{FIXED_BITS} cannot be told from a whole number")
    return floor


def _more_bits(sample: UInt64[np.ndarray, " pixels"], place: int) -> Iterator[int]:
    """Yield 64-bit numbers that depend on the sample and the pixel alone: not on how samples share a batch."""
    bits = np.random.SFC64(np.random.SeedSequence([place, *sample.tolist()]))
    while True:
        yield int(bits.random_raw())


@no_type_check
@numba.njit(cache=True, nogil=True)
def _fill(words, pixels, lowest, thresholds, first, out):
    """Write the noisy pixels, NaN where a word equals a threshold and so does not decide; return how many of those.

    The last threshold is 2**64 - 1, so the search ends.
    """
    shift = np.uint64(64 - GUIDE_BITS)
    top = np.float32(TOP)
    undecided = 0
    for sample in range(words.shape[0]):
        for place in range(words.shape[1]):
            word = words[sample, place]
            at = first[word >> shift]
            while thresholds[at] < word:
                at += 1
            if thresholds[at] == word:
                out[sample, place] = np.nan
                undecided += 1
            else:
                out[sample, place] = np.float32(pixels[place] + lowest + at) / top
    return undecided
