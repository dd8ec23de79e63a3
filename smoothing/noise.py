"""Gaussian noise from named streams.

The noise for sample s of an image is fixed by (seed, stage, image index, s) and by nothing else: not by the batch size,
the order of the images, the number of processes, or by how often a run was interrupted. Samples are drawn in blocks of
`BLOCK`, each from a generator of its own, so that any block can be drawn again without those before it.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

#: Samples per block. Part of the streams' definition: another value gives other noise.
BLOCK = 128

#: Stages never share samples. Each name's number is part of the streams' definition.
STAGES = {"select": 0, "estimate": 1, "predict": 2}


def noise_blocks(
    seed: int, stage: str, index: int, n: int, shape: tuple[int, ...]
) -> Iterator[Float32[np.ndarray, "block *shape"]]:
    """Yield n samples of standard normal noise for one image, in blocks of at most `BLOCK`.

    The first n samples of a stream do not depend on n. The noise has unit variance: scaling the same samples
    by several sigmas is what makes levels comparable on one image.

    Parameters
    ----------
    seed : int
        The run's seed, in [0, 2**128).
    stage : {"select", "estimate", "predict"}
        What the samples are for.
    index : int
        The image's index in its data set, in [0, 2**32).
    n : int
        How many samples.
    shape : tuple of int
        Shape of one sample, such as (C, H, W).

    Notes
    -----
    `SeedSequence` hashes seed and name to 128 bits; torch's CPU generator would keep only 32 bits of a seed, few enough
    for two of a run's streams to coincide.
    """
    stage_number = STAGES[stage]
    for block in range(-(-n // BLOCK)):
        name = np.random.SeedSequence(seed, spawn_key=(stage_number, index, block))
        count = min(BLOCK, n - block * BLOCK)
        yield np.random.Generator(np.random.SFC64(name)).standard_normal((count, *shape), dtype=np.float32)
