"""Exact integer noise, and the classifier that fools float noise."""

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from smoothing import SmoothedClassifier, make_sampler
from smoothing._voting.discrete import noise_table, resolve
from smoothing._voting.samplers import make_noise

from .oracles import normal_cdf

SAMPLER = make_noise("discrete", "sfc64", 0)


def exact_cdf(k: int, sigma: float) -> Decimal:
    """Phi((k + 1/2) / (255 sigma)) from a power series, with some 70 digits."""
    with localcontext() as context:
        context.prec = 80
        return normal_cdf((Decimal(k) + Decimal("0.5")) / (255 * Decimal(sigma)))


def leading_bits(k: int, sigma: float, bits: int) -> int:
    """So many binary digits of the distribution function at k + 1/2."""
    with localcontext() as context:
        context.prec = 80
        return int(exact_cdf(k, sigma) * 2**bits)


def draw(seed, shape):
    return np.random.SFC64(seed).random_raw(int(np.prod(shape))).reshape(shape)


def add(words, sigma, pixel=0):
    """Noise for a column of words, as integers, at one 8-bit pixel value."""
    words = np.asarray(words, dtype=np.uint64).reshape(-1, 1, 1, 1)
    image = np.full((1, 1, 1), np.float32(pixel) / np.float32(255))
    out = np.full(words.shape, -1e9, np.float32)
    SAMPLER.add(words, image, sigma, out)
    integers = np.rint(out.ravel().astype(np.float64) * 255).astype(int)
    np.testing.assert_array_equal(out.ravel(), integers.astype(np.float32) / np.float32(255))  # nothing off the grid
    return integers - pixel


@pytest.mark.parametrize("sigma", [0.01, 0.0628, 0.12, 0.25, 1.0])
def test_thresholds_are_the_distribution_function_cut_to_64_bits(sigma):
    table = noise_table(sigma)
    s = 255 * sigma
    for k in {-int(5 * s), -7, -2, -1, 0, 1, 2, 7, int(5 * s)}:
        assert int(table.thresholds[k - table.lowest]) == leading_bits(k, sigma, 64)


@pytest.mark.parametrize("sigma", [0.001, 0.12, 1.0, 4.0])
def test_thresholds_increase_from_the_lowest_number_to_the_highest(sigma):
    thresholds = noise_table(sigma).thresholds
    assert np.all(thresholds[1:] >= thresholds[:-1])
    assert thresholds[0] == 0
    assert thresholds[-1] == 2**64 - 1
    assert np.all(thresholds == ~thresholds[::-1])  # Phi(x) + Phi(-x) = 1


@given(st.sampled_from([0.004, 0.12, 0.5]), st.integers(0, 2**64 - 1), st.integers(0, 255))
def test_any_word_gets_the_smallest_k_above_it(sigma, word, pixel):
    table = noise_table(sigma)
    if word in (int(t) for t in table.thresholds):
        return
    expected = table.lowest + sum(int(t) < word for t in table.thresholds)
    assert add([word], sigma, pixel).tolist() == [expected]


@pytest.mark.parametrize("sigma", [0.004, 0.25])
@pytest.mark.parametrize("k", [-3, 0, 2])
def test_words_beside_a_threshold(sigma, k):
    threshold = int(noise_table(sigma).thresholds[k - noise_table(sigma).lowest])
    assert add([threshold - 1, threshold + 1], sigma).tolist() == [k, k + 1]


@pytest.mark.parametrize("k", [-30, -1, 0, 5, 40])
def test_a_word_on_a_threshold_is_decided_by_the_words_after_it(k):
    sigma = 0.25
    table = noise_table(sigma)
    value = leading_bits(k, sigma, 192)
    word, second, third = value >> 128, (value >> 64) % 2**64, value % 2**64
    assert word == int(table.thresholds[k - table.lowest])
    assert resolve(word, iter([second - 1]), table.s) == k
    assert resolve(word, iter([second + 1]), table.s) == k + 1
    assert resolve(word, iter([second, third - 1]), table.s) == k
    assert resolve(word, iter([second, third + 1]), table.s) == k + 1


def test_the_tails_go_on_beyond_the_table():
    table = noise_table(0.25)
    assert resolve(0, iter([2**32]), table.s) < table.lowest
    assert resolve(2**64 - 1, iter([2**64 - 2**32]), table.s) >= table.lowest + len(table.thresholds)
    lowest, highest = (add([word], 0.25)[0] for word in (0, 2**64 - 1))
    s = 255 * 0.25
    assert -14 * s < lowest < -9 * s  # 64 further bits: not below Phi(-14) but once in 10^24
    assert 9 * s < highest < 14 * s


def test_undecided_words_do_not_depend_on_how_samples_share_a_batch():
    k = next(k for k in range(-20, 20) if 0.3 < leading_bits(k, 0.25, 128) % 2**64 / 2**64 < 0.7)
    threshold = leading_bits(k, 0.25, 64)
    words = np.random.default_rng(0).integers(0, 2**64, (20, 2, 2, 1), dtype=np.uint64)
    words[:, 1, 0, 0] = threshold
    image, whole, parts = (np.zeros(shape, np.float32) for shape in ((2, 2, 1), words.shape, words.shape))
    SAMPLER.add(words, image, 0.25, whole)
    for cut in (slice(0, 7), slice(7, 8), slice(8, 20)):
        SAMPLER.add(words[cut], image, 0.25, parts[cut])
    np.testing.assert_array_equal(parts, whole)
    assert not np.isnan(whole).any()
    assert set(np.rint(whole[:, 1, 0, 0] * 255)) == {k, k + 1}  # one of them alone: less than 1 in 1,000, words fixed


@pytest.mark.parametrize("sigma", [0.004, 0.12, 1.0])
def test_noise_has_the_rounded_distribution(sigma):
    # Chi-square over cells of at least 50 expected; false alarm: 1 in 10,000, seed fixed.
    raw = draw(1, (128, 40, 40, 1))
    k, counts = np.unique(add(raw.ravel(), sigma), return_counts=True)
    s, total = 255 * sigma, raw.size
    cells = np.arange(-int(6 * s) - 2, int(6 * s) + 3)
    expected = total * np.diff(stats.norm.cdf((np.append(cells, cells[-1] + 1) - 0.5) / s))
    observed = np.zeros(len(cells))
    observed[k - cells[0]] = counts
    middle = expected >= 50
    rest, rare = total - expected[middle].sum(), total - observed[middle].sum()
    statistic = ((observed - expected) ** 2 / expected)[middle].sum() + (rare - rest) ** 2 / max(rest, 1)
    assert statistic < stats.chi2.isf(1e-4, middle.sum())


def test_levels_are_coupled():
    raw = draw(0, (128, 5, 5, 1)).ravel()
    order = np.argsort(raw)
    for sigma in (0.1, 0.4, 1.0):
        assert np.all(np.diff(add(raw[order], sigma)) >= 0)


def test_all_8_bit_pixels_are_accepted_however_they_were_divided():
    grid = np.arange(256)
    for pixels in (
        torch.arange(256, dtype=torch.uint8).float() / 255,
        torch.from_numpy((grid / 255).astype(np.float32)),
        torch.from_numpy(grid.astype(np.float32) / np.float32(255)),
    ):
        SAMPLER.check(pixels.reshape(1, 1, 16, 16))


@pytest.mark.parametrize("value", [1 / 16, 0.5, np.nextafter(np.float32(1), np.float32(0))])
def test_other_pixels_are_refused(value):
    images = torch.zeros((2, 1, 2, 2))
    images[1, 0, 1, 0] = float(value)
    smoothed = SmoothedClassifier(LowBits(), 2, sampler="discrete")
    with pytest.raises(ValueError, match=r"images\[1, 0, 1, 0\] = .*: sampler 'discrete' is for 8-bit images"):
        smoothed.certify(images, 0.25, n0=10, n=10)


def test_a_level_beyond_all_sense_is_refused():
    with pytest.raises(ValueError, match="sigma = 1000: too large for sampler 'discrete'"):
        SmoothedClassifier(LowBits(), 2, sampler="discrete").certify(torch.zeros((1, 1, 2, 2)), 1000.0, n0=10, n=10)


class LowBits(nn.Module):
    """Class 1 where some pixel is not a multiple of 2^-30.

    Exact Gaussian noise makes this class 1 with probability 1 at every image, so its smoothed classifier is constant.
    Float noise on a black image is just the noise, whose small values have bits below 2^-30. On pixels of
    c = 4/255 > t = 2^-6 it never has: floats of magnitude t/2 or more are multiples of 2^-30; where |e| >= t/2, e and c
    are, and so is the rounded sum; where |e| < t/2, |c + e| > t/2.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scaled = images.double() * 2**30
        fine = (scaled != scaled.round()).flatten(1).any(dim=1)
        return torch.stack([~fine, fine], dim=1).float()


def test_float_noise_certifies_what_is_false_and_discrete_noise_does_not():
    # 28 x 28 pixels, sigma = 0.25, n = 10,000: certified at 0.80, and another class at 0.44. No attack is needed: the
    # second image is constant.
    black, grey = torch.zeros((1, 1, 28, 28)), torch.full((1, 1, 28, 28), 4 / 255)
    distance = float((grey - black).double().norm())
    assert distance < 0.44

    gaussian = SmoothedClassifier(LowBits(), 2, stream="sfc64")
    found = gaussian.certify(black, 0.25, n0=100, n=10_000, alpha=0.001)
    assert found.predict[0] == 1
    assert found.radius[0] > 0.79 > distance
    assert gaussian.predict(grey, 0.25, n=1000, alpha=0.001).votes.tolist() == [
        [1000, 0]
    ]  # false: inside the certified ball

    discrete = SmoothedClassifier(LowBits(), 2, sampler="discrete")
    found = discrete.certify(black, 0.25, n0=100, n=10_000, alpha=0.001)
    assert found.predict[0] == 1
    assert found.radius[0] > distance
    assert discrete.predict(grey, 0.25, n=1000, alpha=0.001).predict[0] == 1


def test_a_float_pixel_is_off_by_no_more_than_the_lookup_error_says():
    off = [abs(Fraction(float(np.float32(k) / np.float32(255))) - Fraction(k, 255)) for k in range(256)]
    # two images, the certified one and the one asked about: each is off by so much in every coordinate
    assert 2 * max(off) <= Fraction(SAMPLER.lookup_error(1))
    assert make_sampler("gaussian").lookup_error(3072) == 0


@given(st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_distances_of_float_images_are_those_of_the_exact_ones_up_to_the_lookup_error(d, seed):
    p, q = np.random.default_rng(seed).integers(0, 256, (2, d))
    x, y = (np.float32(values) / np.float32(255) for values in (p, q))
    exact = sum(Fraction(int(a - b), 255) ** 2 for a, b in zip(p, q, strict=True))
    seen = sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(x, y, strict=True))
    with localcontext() as context:
        context.prec = 40
        roots = [(Decimal(v.numerator) / Decimal(v.denominator)).sqrt() for v in (exact, seen)]
        assert abs(roots[0] - roots[1]) <= Decimal(SAMPLER.lookup_error(d))
