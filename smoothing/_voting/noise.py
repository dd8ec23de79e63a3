"""Random bits from named streams.

The randomness of sample s of an image is fixed by (seed, stage, image index, s) and by nothing else: not by the batch
size, the order of the images, the number of processes, or by how often a run was interrupted. Samples are drawn in
blocks of `BLOCK`, each from a generator of its own, so that any block can be drawn again without those before it.
"""

import numpy as np

#: What results call the streams that are defined here.
STREAM = "sfc64"

#: Samples per block. Part of the streams' definition: another value gives other noise.
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
