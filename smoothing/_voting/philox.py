"""Philox4x32-10: random words that are a function of a counter and a key, in integer operations only.

J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, Parallel random numbers: as easy as 1, 2, 3 (SC 2011). Integer
operations give the same bits on every processor and accelerator, and any word can be made without the others.
"""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import UInt64

from smoothing._voting.noise import STAGES

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)

#: Image indices and sample numbers are words of the counter.
LARGEST = 2**32 - 1


class Philox:
    """The words of one seed.

    Sample s of an image has one 64-bit word for every pixel, in the order (H, W, C). A block of Philox makes two: with
    half = (pixels + 1) // 2, pixel p < half takes the first word of the block with counter (p, s, index, last), and
    pixel p >= half the second word of counter (p - half, s, index, last), where last = 16 extra + stage. The key and
    `extra`, 92 bits in all, are hashed from the seed.

    Parameters
    ----------
    seed : int
        At least 0, of any size.
    """

    name = "philox4x32"

    def __init__(self, seed: int) -> None:
        low, high, extra = map(int, np.random.SeedSequence(seed, spawn_key=(0x7068,)).generate_state(3))
        self.keys = key_schedule(low, high)
        self.extra = extra >> 4

    def last(self, stage: str) -> int:
        """Return the counter's last word: 28 bits of the seed, 4 of the stage."""
        return self.extra << 4 | STAGES[stage]

    def words(self, stage: str, index: int, first: int, out: UInt64[np.ndarray, "count pixels"]) -> None:
        """Fill `out` with the words of samples first, first + 1, ... of one image."""
        check_range(index, first + len(out) - 1)
        fill(np.uint64(first), np.uint64(index), np.uint64(self.last(stage)), self.keys, out)


def check_range(index: int, sample: int) -> None:
    """Raise `ValueError` where an image's index or a sample's number does not fit into its word of the counter."""
    if not 0 <= index <= LARGEST:
        raise ValueError(f"index = {index}: stream 'philox4x32' numbers images from 0 to {LARGEST}")
    if not 0 <= sample <= LARGEST:
        raise ValueError(f"sample number {sample}: stream 'philox4x32' has samples 0 to {LARGEST} of an image")


def key_schedule(low: int, high: int) -> UInt64[np.ndarray, "10 2"]:
    """Return the two words of the key for each round."""
    steps = np.arange(ROUNDS, dtype=np.uint64)[:, None]
    return (np.array([low, high], np.uint64) + steps * np.array(WEYL, np.uint64)) & np.uint64(0xFFFFFFFF)


@no_type_check
@numba.njit(cache=True, nogil=True, inline="always")
def block(c0, c1, c2, c3, keys):
    """Return the block of a counter of four words, all of them uint64 numbers below 2**32."""
    m0, m1 = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
    low, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    for r in range(ROUNDS):
        p0, p1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (p1 >> word) ^ c1 ^ keys[r, 0], p1 & low, (p0 >> word) ^ c3 ^ keys[r, 1], p0 & low
    return c0, c1, c2, c3


@no_type_check
@numba.njit(cache=True, nogil=True)
def fill(first, index, last, keys, out):
    """Write the words of samples first, first + 1, ... into the rows of `out`."""
    word = np.uint64(32)
    count, pixels = out.shape
    half = (pixels + 1) // 2
    for sample in range(count):
        for pair in range(half):
            r0, r1, r2, r3 = block(np.uint64(pair), first + np.uint64(sample), index, last, keys)
            out[sample, pair] = (r0 << word) | r1
            if half + pair < pixels:
                out[sample, half + pair] = (r2 << word) | r3
