"""Random bits from named streams.

The randomness of sample s of an image is fixed by (seed, stage, image index, s) and by nothing else: not by the batch
size, the order of the images, the number of processes, or by how often a run was interrupted. With "philox4x32" every
number has a counter of its own. With "sfc64" samples are drawn in blocks of `BLOCK`, each from a generator of its own,
so that any block can be drawn again without those before it.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt64

#: The streams by name: integer counters, the same bits on every device, and NumPy's generator, for runs made before.
STREAMS = ("philox4x32", "sfc64")
DEFAULT_STREAM = "philox4x32"

#: Samples per block. Part of the definition of "sfc64": another value gives other noise.
BLOCK = 128

#: Stages never share samples. Each name's number is part of the streams' definition.
STAGES = {"select": 0, "estimate": 1, "predict": 2}


def stream(seed: int, stage: str, index: int, block: int) -> np.random.SFC64:
    """Return the generator of samples `block * BLOCK` to `(block + 1) * BLOCK - 1` of one image.

    Parameters
    ----------
    seed : int
        The run's seed, in [0, 2**128).
    stage : {"select", "estimate", "predict"}
        What the samples are for.
    index : int
        The image's index in its data set, in [0, 2**32).
    block : int
        Which block of samples, >= 0.

    Notes
    -----
    `SeedSequence` hashes seed and name to 128 bits; torch's CPU generator would keep only 32 bits of a seed, few enough
    for two of a run's streams to coincide.
    """
    return np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(STAGES[stage], index, block)))


@runtime_checkable
class Words(Protocol):
    """Uniform words of one seed."""

    name: str  # of the stream

    def words(self, stage: str, index: int, first: int, out: UInt64[np.ndarray, "count pixels"]) -> None:
        """Fill `out` with the words of samples first, first + 1, ... of one image, all in one block."""
        ...


class Sfc64:
    """NumPy's SFC64, one generator for each block of samples.

    Numbers within a block follow each other: where samples from the middle of a block are asked for, those before them
    are drawn too.
    """

    name = "sfc64"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def words(self, stage: str, index: int, first: int, out: UInt64[np.ndarray, "count pixels"]) -> None:
        """Fill `out` with the words of samples first, first + 1, ... of one image, all in one block."""
        block, skipped = divmod(first, BLOCK)
        bits = stream(self.seed, stage, index, block)
        out.reshape(-1)[:] = bits.random_raw((skipped + len(out)) * out.shape[1])[skipped * out.shape[1] :]

    def normal(self, stage: str, index: int, first: int, out: Float32[np.ndarray, "count h w c"]) -> None:
        """Fill `out` with standard normal numbers by NumPy's ziggurat."""
        block, skipped = divmod(first, BLOCK)
        drawn = np.empty((skipped + len(out), *out.shape[1:]), np.float32) if skipped else out
        np.random.Generator(stream(self.seed, stage, index, block)).standard_normal(out=drawn, dtype=np.float32)
        if skipped:
            out[:] = drawn[skipped:]
