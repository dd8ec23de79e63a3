import itertools

import numpy as np
from scipy import stats

from smoothing._voting.noise import BLOCK, STAGES
from smoothing._voting.samplers import make_noise


def draw(seed=0, stage="estimate", index=0, block=0, n=BLOCK, shape=(2, 2, 1)):
    out = np.empty((n, *shape), np.float32)
    make_noise("gaussian", "sfc64", seed).draw(stage, index, block * BLOCK, out)
    return out


def test_a_block_begins_the_same_however_many_samples_are_drawn():
    whole = draw()
    for n in (1, 7, BLOCK - 1):
        np.testing.assert_array_equal(draw(n=n), whole[:n])


def test_every_part_of_a_name_names_another_stream():
    names = itertools.product((0, 1, 2**64), STAGES, (0, 1, 2**31), (0, 1, 1000))
    firsts = [draw(*name, n=1).tobytes() for name in names]
    assert len(set(firsts)) == len(firsts) == 3 * 3 * 3 * 3


def test_noise_is_standard_normal():
    sample = np.concatenate([draw(block=block, shape=(1, 1, 1)) for block in range(160)]).ravel()
    assert stats.kstest(sample.astype(np.float64), "norm").pvalue > 1e-4  # false alarm: 1 in 10,000, seed fixed


def test_gaussian_samples_are_the_image_plus_scaled_noise():
    raw, image = draw(n=5), np.full((2, 2, 1), 0.5, np.float32)
    out = np.full((5, 2, 2, 1), np.nan, np.float32)
    make_noise("gaussian", "sfc64", 0).add(raw, image, 0.25, out)
    np.testing.assert_array_equal(out, np.float32(0.25) * raw + image)
