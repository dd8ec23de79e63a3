"""The samplers in plain PyTorch operations: the same bits on every device, eager or compiled.

Words of 32 bits lie in int64 tensors. A multiplier M is replaced by M - 2**32 < 0, so that no product of two words
leaves the range of int64; its high word is then (product >> 32) plus the other factor. The pixels' counters are an
argument and not made inside: TorchInductor computes an `arange` times a constant in 32 bits (seen in PyTorch 2.15 on
CPUs).
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, Int64, Shaped, UInt8
from torch import Tensor, nn

from smoothing._voting.device_tables import on_device, tables_on_device
from smoothing._voting.philox import MULTIPLIERS, ROUNDS, Philox, key_schedule
from smoothing._voting.quantile import CELL_BITS, GUARD_BITS, PLACE_BITS

WORD = 0xFFFFFFFF
LARGEST = 2**63 - 1

#: Numbers that are worked on at once, by type of device; each takes some 150 bytes meanwhile.
MOST_NUMBERS = defaultdict(lambda: 2**21, cpu=2**18)


def philox(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, keys: Int64[Tensor, "10 2"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the block of Philox4x32-10 for counters in [0, 2**32), int64 tensors of shapes that broadcast."""
    m0, m1 = (multiplier - 2**32 for multiplier in MULTIPLIERS)
    for r in range(ROUNDS):
        p0, p1 = c0 * m0, c2 * m1
        c0, c1, c2, c3 = (
            ((p1 >> 32) + c2) ^ c1 ^ keys[r, 0],
            p1 & WORD,
            ((p0 >> 32) + c0) ^ c3 ^ keys[r, 1],
            p0 & WORD,
        )
    return c0, c1, c2, c3


def blocks(counters: Int64[Tensor, "n 4"], low: int, high: int, *, compiled: bool) -> Int64[Tensor, "n 4"]:
    """Return the blocks of Philox4x32-10 for counters and one key."""
    keys = on_device(key_schedule(low, high).astype(np.int64), counters.device)
    function: Callable[..., tuple[Tensor, ...]] = torch.compile(philox, dynamic=True) if compiled else philox
    return torch.stack(function(*counters.unbind(dim=1), keys), dim=1)


def words(
    pairs: Int64[Tensor, " half"],
    sample: Int64[Tensor, " b"],
    index: Int64[Tensor, " b"],
    last: Int64[Tensor, ""],
    keys: Int64[Tensor, "10 2"],
) -> Int64[Tensor, "b twice_half"]:
    """Return the words of one sample a row, minus 2**63; `pairs` counts from 0."""
    r0, r1, r2, r3 = philox(pairs[None, :], sample[:, None], index[:, None], last, keys)
    return torch.stack([((r0 - 2**31) << 32) | r1, ((r2 - 2**31) << 32) | r3], dim=1).flatten(1)


def cell_of_word(
    word: Int64[Tensor, "b pixels"], powers: Int64[Tensor, "63"], leading: Int64[Tensor, "64"]
) -> tuple[Bool[Tensor, "b pixels"], Int64[Tensor, "b pixels"], Int64[Tensor, "b pixels"]]:
    """Return whether a word is in the upper half, its cell, and its place there in units of 2**-31.

    `powers` are 2**0 to 2**62, `leading` those after a 0: the leading bit of numbers of 0, 1, 2, ... bits.
    """
    tail = (word ^ ~(word >> 63)) & LARGEST
    length = torch.bucketize(tail, powers, right=True)
    octave = 63 - length
    fraction = ((2 * (tail - leading[length]) + 1) << octave) & LARGEST
    cell = (octave << CELL_BITS) | (fraction >> (63 - CELL_BITS))
    return word >= 0, cell, (fraction >> (63 - CELL_BITS - PLACE_BITS)) & (2**PLACE_BITS - 1)


def gaussian(
    word: Int64[Tensor, "b pixels"],
    image: Float32[Tensor, "b pixels"],
    level: Int64[Tensor, " b"],
    powers: Int64[Tensor, "63"],
    leading: Int64[Tensor, "64"],
    coefficients: Int64[Tensor, "3 cells"],
    factor: Int64[Tensor, " levels"],
    unit: Float32[Tensor, " levels"],
) -> tuple[Float32[Tensor, "b pixels"], Int64[Tensor, ""]]:
    """Return image + sigma z, and that no word is undecided."""
    upper, cell, f = cell_of_word(word, powers, leading)
    z = (f * (coefficients[1][cell] + ((f * coefficients[2][cell]) >> PLACE_BITS))) >> PLACE_BITS
    z = (coefficients[0][cell] + z + 2 ** (GUARD_BITS - 1)) >> GUARD_BITS
    noise = torch.where(upper, z, -z) * factor[level][:, None]
    return image + noise.to(torch.float32) * unit[level][:, None], torch.zeros_like(level[0])


def discrete(
    word: Int64[Tensor, "b pixels"],
    image: UInt8[Tensor, "b pixels"],
    level: Int64[Tensor, " b"],
    powers: Int64[Tensor, "63"],
    leading: Int64[Tensor, "64"],
    thresholds: Int64[Tensor, " t"],
    first: Int32[Tensor, "levels cells"],
    shift: Int64[Tensor, " levels"],
    pixel: Float32[Tensor, " values"],
    steps: int,
) -> tuple[Float32[Tensor, "b pixels"], Int64[Tensor, ""]]:
    """Return the noisy pixels, and how many words equal a threshold and so do not decide."""
    upper, cell, _ = cell_of_word(word, powers, leading)
    cells = first.shape[1]
    at = first.flatten()[level[:, None] * cells + torch.where(upper, cell + cells // 2, cell)].to(torch.int64)
    for step in reversed(range(steps)):  # at the end, the first threshold that is not below the word
        at = torch.where(thresholds[at + (2**step - 1)] < word, at + 2**step, at)
    return pixel[image.to(torch.int64) + at + shift[level][:, None]], (thresholds[at] == word).sum()


#: The samplers' last step: from words to noisy pixels.
SAMPLERS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {"gaussian": gaussian, "discrete": discrete}


def drawn(
    sampler: str,
    pairs: Int64[Tensor, " half"],
    keys: Int64[Tensor, "10 2"],
    last: Int64[Tensor, ""],
    sample: Int64[Tensor, " b"],
    index: Int64[Tensor, " b"],
    image: Shaped[Tensor, "b pixels"],
    level: Int64[Tensor, " b"],
    *tables: Any,
) -> tuple[Float32[Tensor, "b pixels"], Int64[Tensor, ""]]:
    """Return noisy pixels from counters, for an even number of pixels."""
    return SAMPLERS[sampler](words(pairs, sample, index, last, keys), image, level, *tables)


@functools.cache
def compiled_drawn() -> Callable[..., tuple[Tensor, Tensor]]:
    """Return `drawn` as one compiled function for batches and images of any size."""
    compiled: Callable[..., tuple[Tensor, Tensor]] = torch.compile(drawn, dynamic=True)
    return compiled


class Operations:
    """Makes noise by plain operations, in parts that bound their memory."""

    def __init__(
        self,
        words: Philox,
        sampler: str,
        sigmas: Sequence[float],
        stage: str,
        pixels: int,
        device: torch.device,
        compiled: bool = False,
    ) -> None:
        self.sampler = sampler
        self.compiled = compiled
        self.pairs = torch.arange((pixels + 1) // 2, device=device)
        self.keys = on_device(words.keys.astype(np.int64), device)
        self.last = torch.tensor(words.last(stage), device=device)
        powers = 2 ** torch.arange(63, device=device)
        leading = torch.cat([torch.zeros_like(powers[:1]), powers])
        self.tables = (powers, leading, *tables_on_device(sampler, tuple(sigmas), device))

    def fill(
        self,
        out: Float32[Tensor, "b pixels"],
        row: Int64[Tensor, " b"],
        sample: Int64[Tensor, " b"],
        level: Int64[Tensor, " b"],
        images: Shaped[Tensor, "n pixels"],
        index: Int64[Tensor, " n"],
        given: Int64[Tensor, "b pixels"] | None,
        undecided: Int64[Tensor, ""],
    ) -> None:
        """Write noisy pixels into `out`, and add to `undecided` how many words did not decide."""
        draw = compiled_drawn() if self.compiled else drawn
        size = max(1, MOST_NUMBERS[out.device.type] // out.shape[1])
        for first in range(0, len(out), size):
            part = slice(first, first + size)
            image = images[row[part]]
            if given is None:
                image = nn.functional.pad(image, (0, out.shape[1] % 2))
                noisy, ties = draw(
                    self.sampler,
                    self.pairs,
                    self.keys,
                    self.last,
                    sample[part],
                    index[row[part]],
                    image,
                    level[part],
                    *self.tables,
                )
            else:
                noisy, ties = SAMPLERS[self.sampler](given[part], image, level[part], *self.tables)
            out[part] = noisy[:, : out.shape[1]]
            undecided += ties
