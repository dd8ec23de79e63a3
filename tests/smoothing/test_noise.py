import itertools

import numpy as np
from scipy import stats

from smoothing.noise import BLOCK, STAGES, noise_blocks


def draw(seed=0, stage="estimate", index=0, n=BLOCK, shape=(1, 2, 2)):
    return np.concatenate(list(noise_blocks(seed, stage, index, n, shape)))


def test_a_stream_begins_the_same_however_many_samples_are_drawn():
    long = draw(n=3 * BLOCK + 5)
    for n in (1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7):
        np.testing.assert_array_equal(draw(n=n), long[:n])


def test_every_part_of_a_name_names_another_stream():
    names = itertools.product((0, 1, 2**64), STAGES, (0, 1, 2**31))
    firsts = [draw(seed, stage, index, n=1).tobytes() for seed, stage, index in names]
    blocks = [block.tobytes() for block in noise_blocks(0, "select", 5, 3 * BLOCK, (1, 2, 2))]
    assert len({*firsts, *blocks}) == len(firsts) + len(blocks)


def test_noise_is_standard_normal():
    sample = draw(n=20_000, shape=(1, 1, 1)).ravel()
    assert stats.kstest(sample.astype(np.float64), "norm").pvalue > 1e-4  # false alarm: 1 in 10,000, seed fixed
