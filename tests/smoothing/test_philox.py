"""The stream of counters: published answers, big integers, and where each word goes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smoothing._voting.noise import STAGES
from smoothing._voting.philox import Philox, fill, key_schedule

#: From the authors' file kat_vectors (Random123): counter, key, answer.
KNOWN = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""


def philox(counter, key):
    """Philox4x32-10 with Python's integers, as the paper has it."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize("line", KNOWN.split("\n")[1:-1])
def test_published_answers(line):
    numbers = [int(word, 16) for word in line.split()]
    assert philox(numbers[:4], numbers[4:6]) == tuple(numbers[6:])


def test_numba_gives_the_published_answer_that_a_first_pixel_can_have():
    counter, key = [0, 0, 0, 0], [0, 0]
    out = np.empty((1, 2), np.uint64)
    fill(*(np.uint64(c) for c in counter[1:]), key_schedule(*key), out)
    assert [f"{word:016x}" for word in out[0].tolist()] == ["6627e8d5e169c58d", "bc57ac4c9b00dbd8"]


@given(
    seed=st.integers(0, 2**128 - 1),
    stage=st.sampled_from(sorted(STAGES)),
    index=st.integers(0, 2**32 - 1),
    first=st.integers(0, 2**32 - 4),
    pixels=st.sampled_from([1, 2, 3, 27, 785]),
)
def test_every_word_is_that_of_its_counter(seed, stage, index, first, pixels):
    out = np.empty((3, pixels), np.uint64)
    Philox(seed).words(stage, index, first, out)
    *key, extra = map(int, np.random.SeedSequence(seed, spawn_key=(0x7068,)).generate_state(3))
    last = extra >> 4 << 4 | {"select": 0, "estimate": 1, "predict": 2}[stage]
    half = (pixels + 1) // 2
    for sample in range(3):
        for pixel in {0, half - 1, min(half, pixels - 1), pixels - 1}:
            block = philox((pixel % half, first + sample, index, last), key)
            high, low = block[:2] if pixel < half else block[2:]
            assert int(out[sample, pixel]) == high << 32 | low


def test_seeds_and_stages_have_counters_of_their_own():
    names = {(seed, stage): Philox(seed) for seed in (0, 1, 2**32, 2**64, 2**127) for stage in STAGES}
    counters = {(*stream.keys[0].tolist(), stream.last(stage)) for (_, stage), stream in names.items()}
    assert len(counters) == len(names)
    assert all(last < 2**32 for *_, last in counters)


@pytest.mark.parametrize(
    ("index", "first", "message"),
    [
        (2**32, 0, "index = 4294967296: stream 'philox4x32' numbers images from 0 to 4294967295"),
        (-1, 0, "index = -1: stream 'philox4x32' numbers images"),
        (0, 2**32 - 1, "sample number 4294967296: stream 'philox4x32' has samples 0 to 4294967295"),
    ],
)
def test_a_counter_that_does_not_fit_is_refused(index, first, message):
    with pytest.raises(ValueError, match=message):
        Philox(0).words("estimate", index, first, np.empty((2, 4), np.uint64))


def test_bytes_are_uniform_at_every_place_of_a_word():
    # Chi-square with 255 degrees of freedom, 8 times; false alarm: 8 in 100,000, seed fixed.
    out = np.empty((64, 4097), np.uint64)
    Philox(1).words("estimate", 2, 3, out)
    for counts in (np.bincount(place, minlength=256) for place in out.view(np.uint8).reshape(-1, 8).T):
        assert stats.chisquare(counts).pvalue > 1e-5


def test_neighbours_are_not_correlated():
    # Pixels, samples, images, stages and seeds side by side; false alarm: 5 in 100,000, seed fixed.
    base, others = np.empty((40, 1000), np.uint64), np.empty((4, 40, 1000), np.uint64)
    Philox(1).words("estimate", 2, 3, base)
    Philox(1).words("estimate", 2, 43, others[0])
    Philox(1).words("estimate", 3, 3, others[1])
    Philox(1).words("select", 2, 3, others[2])
    Philox(2).words("estimate", 2, 3, others[3])
    for other in (*others, np.roll(base, 1, axis=1)):
        x, y = (words.ravel().astype(np.float64) for words in (base, other))
        assert stats.pearsonr(x, y).pvalue > 1e-5
