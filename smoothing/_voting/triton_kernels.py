"""The samplers as fused Triton kernels: from counters to noisy images, and nothing in between leaves the registers.

A program makes `PAIRS` pairs of pixels of one sample. The kernels take the tables that `device_operations` takes, and
give the same bits. With `GIVEN` words are read instead of drawn.
"""

from typing import no_type_check

import triton
import triton.language as tl

from smoothing._voting import philox as host
from smoothing._voting import quantile

ROUNDS = tl.constexpr(host.ROUNDS)
MULTIPLIER_0, MULTIPLIER_1 = (tl.constexpr(multiplier) for multiplier in host.MULTIPLIERS)
WEYL_0, WEYL_1 = (tl.constexpr(step) for step in host.WEYL)
CELL_BITS = tl.constexpr(quantile.CELL_BITS)
PLACE_BITS = tl.constexpr(quantile.PLACE_BITS)
GUARD_BITS = tl.constexpr(quantile.GUARD_BITS)
ROUNDING = tl.constexpr(2 ** (quantile.GUARD_BITS - 1))


@no_type_check
@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Return the block of Philox4x32-10 for a counter and a key of uint32 numbers."""
    for _ in tl.static_range(ROUNDS):
        p0 = c0.to(tl.uint64) * MULTIPLIER_0
        p1 = c2.to(tl.uint64) * MULTIPLIER_1
        c0 = (p1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = p1.to(tl.uint32)
        c3 = p0.to(tl.uint32)
        k0 = (k0.to(tl.uint64) + WEYL_0).to(tl.uint32)
        k1 = (k1.to(tl.uint64) + WEYL_1).to(tl.uint32)
    return c0, c1, c2, c3


@no_type_check
@triton.jit
def word_pairs(pair, sample, index, key):
    """Return the two words of each pair of pixels; `key` points to the key and the counter's last word, as int64."""
    zero = tl.zeros_like(pair).to(tl.uint32)
    c0, c1, c2, c3 = philox(
        pair.to(tl.uint32),
        zero + sample.to(tl.uint32),
        zero + index.to(tl.uint32),
        zero + tl.load(key + 2).to(tl.uint32),
        zero + tl.load(key).to(tl.uint32),
        zero + tl.load(key + 1).to(tl.uint32),
    )
    return (c0.to(tl.uint64) << 32) | c1.to(tl.uint64), (c2.to(tl.uint64) << 32) | c3.to(tl.uint64)


@no_type_check
@triton.jit
def cell_of_word(word):
    """Return whether a word is in the upper half, its cell, and its place there in units of 2**-31."""
    upper = (word >> 63) != 0
    leading = (tl.where(upper, ~word, word) << 1) | 1  # to be shifted until its first bit is 1
    octave = tl.zeros_like(word).to(tl.int32)
    for log in tl.static_range(6):
        short = (leading >> (64 - (32 >> log))) == 0
        leading = tl.where(short, leading << (32 >> log), leading)
        octave = tl.where(short, octave + (32 >> log), octave)
    fraction = leading << 1
    cell = (octave << CELL_BITS) | (fraction >> (64 - CELL_BITS)).to(tl.int32)
    return upper, cell, ((fraction << CELL_BITS) >> (64 - PLACE_BITS)).to(tl.int64)


@no_type_check
@triton.jit
def pair_of(row, sample, index, key, PAIRS: tl.constexpr):
    """Return a program's sample, its pairs of pixels and image, and the two words of each pair."""
    place = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)
    image = tl.load(row + place)
    lower, higher = word_pairs(pair, tl.load(sample + place), tl.load(index + image), key)
    return place, pair, image, lower, higher


@no_type_check
@triton.jit
def one_of_pair(place, pair, lower, higher, given, pixels, half, which: tl.constexpr, GIVEN: tl.constexpr):
    """Return the first or second pixel of each pair, whether there is one, and its word, drawn or given."""
    pixel = pair + which * half
    inside = (pair < half) & (pixel < pixels)
    if GIVEN:
        word = tl.load(given + place * pixels + pixel, mask=inside, other=0).to(tl.uint64, bitcast=True) ^ (1 << 63)
    elif which == 0:
        word = lower
    else:
        word = higher
    return pixel, inside, word


@no_type_check
@triton.jit(do_not_specialize=["cells", "pixels", "half"])
def gaussian_kernel(
    out,
    given,
    row,
    sample,
    level,
    index,
    images,
    key,
    coefficients,
    factor,
    unit,
    cells,
    pixels,
    half,
    GIVEN: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Write image + sigma z."""
    place, pair, image, lower, higher = pair_of(row, sample, index, key, PAIRS)
    m = tl.load(factor + tl.load(level + place))
    scale = tl.load(unit + tl.load(level + place))
    for which in tl.static_range(2):
        pixel, inside, word = one_of_pair(place, pair, lower, higher, given, pixels, half, which, GIVEN)
        upper, cell, f = cell_of_word(word)
        a = tl.load(coefficients + cell)
        b = tl.load(coefficients + cells + cell)
        c = tl.load(coefficients + 2 * cells + cell)
        z = (a + ((f * (b + ((f * c) >> PLACE_BITS))) >> PLACE_BITS) + ROUNDING) >> GUARD_BITS
        noise = (tl.where(upper, z, -z) * m).to(tl.float32) * scale
        value = tl.load(images + image * pixels + pixel, mask=inside, other=0.0)
        tl.store(out + place * pixels + pixel, value + noise, mask=inside)


@no_type_check
@triton.jit(do_not_specialize=["cells", "steps", "pixels", "half"])
def discrete_kernel(
    out,
    given,
    row,
    sample,
    level,
    index,
    images,
    key,
    thresholds,
    first,
    shift,
    grey,
    steps,
    undecided,
    cells,
    pixels,
    half,
    GIVEN: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Write the noisy pixels, and count the words that equal a threshold and so do not decide."""
    place, pair, image, lower, higher = pair_of(row, sample, index, key, PAIRS)
    sigma = tl.load(level + place)
    moved = tl.load(shift + sigma)
    for which in tl.static_range(2):
        pixel, inside, word = one_of_pair(place, pair, lower, higher, given, pixels, half, which, GIVEN)
        upper, cell, _ = cell_of_word(word)
        signed = (word ^ (1 << 63)).to(tl.int64, bitcast=True)
        at = tl.load(first + sigma * 2 * cells + tl.where(upper, cell + cells, cell))
        for passed in range(steps):  # at the end, the first threshold that is not below the word
            step = 1 << (steps - 1 - passed)
            at = tl.where(tl.load(thresholds + at + step - 1) < signed, at + step, at)
        value = tl.load(images + image * pixels + pixel, mask=inside, other=0).to(tl.int64)
        tl.store(out + place * pixels + pixel, tl.load(grey + value + at + moved, mask=inside, other=0.0), mask=inside)
        ties = tl.sum((inside & (tl.load(thresholds + at) == signed)).to(tl.int64))
        tl.atomic_add(undecided, ties, mask=ties > 0)


@no_type_check
@triton.jit
def blocks_kernel(out, counters, key):
    """Write the block of one counter."""
    place = tl.program_id(0).to(tl.int64)
    zero = tl.zeros((1,), tl.uint32)
    first = tl.zeros((1,), tl.int64) + 4 * place
    r0, r1, r2, r3 = philox(
        zero + tl.load(counters + first).to(tl.uint32),
        zero + tl.load(counters + first + 1).to(tl.uint32),
        zero + tl.load(counters + first + 2).to(tl.uint32),
        zero + tl.load(counters + first + 3).to(tl.uint32),
        zero + tl.load(key).to(tl.uint32),
        zero + tl.load(key + 1).to(tl.uint32),
    )
    tl.store(out + first, r0.to(tl.int64))
    tl.store(out + first + 1, r1.to(tl.int64))
    tl.store(out + first + 2, r2.to(tl.int64))
    tl.store(out + first + 3, r3.to(tl.int64))
