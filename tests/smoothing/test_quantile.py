"""Normal numbers from integers: how exact, for which words, and the same everywhere."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from smoothing._voting.philox import Philox
from smoothing._voting.quantile import CELL_BITS, add_noise, coefficients, normal, split_sigma

#: What the documentation says about the error of z.
LARGEST_ERROR = 2.5e-9


def quantiles(words):
    out = np.empty(len(words), np.int64)
    normal(np.array(words, np.uint64), out)
    return out


def exact_quantile(word):
    """Phi^-1((word + 1/2) / 2**64), from 40 digits."""
    with mpmath.workdps(40):
        tail = (2 * mpmath.mpf(min(word, 2**64 - 1 - word)) + 1) / 2**65
        z = mpmath.findroot(lambda x: mpmath.log(mpmath.ncdf(-x) / tail), float(-special.ndtri(float(tail))), tol=1e-50)
        return z if word >= 2**63 else -z


@given(st.integers(0, 2**64 - 1), st.integers(0, 63), st.booleans())
def test_words_of_all_magnitudes_get_their_quantile(word, shift, upper):
    word >>= shift
    word = 2**64 - 1 - word if upper else word
    assert abs(quantiles([word])[0] / 2**28 - exact_quantile(word)) < LARGEST_ERROR


@pytest.mark.parametrize("word", [0, 1, 2, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_words_at_the_ends(word):
    assert abs(quantiles([word])[0] / 2**28 - exact_quantile(word)) < LARGEST_ERROR


def test_no_word_has_a_larger_error():
    # A parabola through both ends and the middle of a cell of width h errs by at most h**3 / (72 sqrt(3)) times the
    # largest third derivative of the quantile, (1 + 2 z**2) / phi(z)**3, which is at the end with the smaller tail.
    unit = 2.0**-34
    width = np.ldexp(1.0, -2 - np.arange(64) - CELL_BITS)
    tail = np.ldexp(1 + np.arange(2**CELL_BITS) / 2**CELL_BITS, -2 - np.arange(64)[:, None])
    z = special.ndtri(tail)
    parabola = width[:, None] ** 3 / (72 * math.sqrt(3)) * (1 + 2 * z**2) / stats.norm.pdf(z) ** 3
    table = coefficients()
    rounded_values, floors = 1.25 * 0.5 * unit, 2 * unit
    cut_place = 2.0**-31 * unit * np.abs(table[:, 1:]).sum(axis=1).max()
    assert parabola.max() + rounded_values + floors + cut_place + 2.0**-29 < LARGEST_ERROR


def test_the_parabolas_go_through_correctly_rounded_values():
    table = coefficients()
    rows = np.random.default_rng(0).choice(len(table), 40, replace=False)
    for row in rows.tolist():
        octave, place = divmod(row, 2**CELL_BITS)
        a, b, c = table[row].tolist()
        for f, value in ((0, Fraction(a)), (Fraction(1, 2), a + Fraction(b, 2) + Fraction(c, 4)), (1, a + b + c)):
            with mpmath.workdps(40):
                tail = (1 + (place + mpmath.mpf(float(f))) / 2**CELL_BITS) / 2 ** (octave + 2)
                z = mpmath.findroot(lambda x, p=tail: mpmath.log(mpmath.ncdf(-x) / p), -special.ndtri(float(tail)))
                assert abs(mpmath.mpf(value.numerator) / value.denominator - z * 2**34) <= 0.5


def test_cells_join_and_a_larger_word_never_has_a_smaller_number():
    table = coefficients()
    np.testing.assert_array_equal(table[1:, 0] - table[:-1, 0] > 0, np.arange(1, len(table)) % 2**CELL_BITS == 0)
    ends = table.sum(axis=1).reshape(64, -1)
    np.testing.assert_array_equal(ends[:, :-1], table[:, 0].reshape(64, -1)[:, 1:])
    np.testing.assert_array_equal(ends[1:, -1], table[:: 2**CELL_BITS, 0][:-1])
    words = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    words[::2] >>= np.random.default_rng(1).integers(0, 64, 50_000, dtype=np.uint64)
    assert np.all(np.diff(quantiles(np.sort(words))) >= 0)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20))
def test_a_word_and_its_complement_have_opposite_numbers(words):
    np.testing.assert_array_equal(quantiles(words), -quantiles([2**64 - 1 - word for word in words]))


@pytest.fixture(scope="module")
def sample():
    words = np.empty((300, 3073), np.uint64)
    Philox(7).words("estimate", 9, 0, words)
    return quantiles(words.ravel()) / 2**28


def test_moments_are_those_of_a_standard_normal_variable(sample):
    # Four moments with their exact standard deviations; false alarm: 4 in 100,000, seed fixed.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((sample**power).mean() - mean) < stats.norm.isf(0.5e-5) * math.sqrt(variance / sample.size)


def test_counts_are_those_of_a_standard_normal_variable(sample):
    # Chi-square over cells of at least 50 expected; false alarm: 1 in 100,000, seed fixed.
    edges = np.arange(-4.4, 4.41, 0.01)
    inside = np.diff(stats.norm.cdf(edges))
    expected = sample.size * np.array([stats.norm.cdf(edges[0]), *inside, stats.norm.sf(edges[-1])])
    observed = np.bincount(np.searchsorted(edges, sample, side="right"), minlength=len(expected))
    rare = expected < 50
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert ((observed - expected) ** 2 / expected).sum() < stats.chi2.isf(1e-5, len(expected) - 1)


@given(st.floats(1e-6, 1e3))
def test_a_noise_level_keeps_31_bits(sigma):
    m, exponent = split_sigma(sigma)
    assert 2**30 <= m <= 2**31
    assert abs(Fraction(m) / Fraction(2) ** exponent - Fraction(sigma)) <= Fraction(sigma) / 2**31


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 1e-30, 1e30])
def test_other_noise_levels_are_refused(sigma):
    with pytest.raises(ValueError, match=r"sigma = .*: sampler 'gaussian' takes noise levels from"):
        split_sigma(sigma)


def nearest_float32(value: Fraction) -> np.float32:
    """The float32 number nearest to a fraction of ordinary size, even in a tie."""
    if not value:
        return np.float32(0)
    exponent = math.floor(math.log2(abs(value))) - 30  # no less than needed by one or two bits
    while abs(value) / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    return np.float32(math.ldexp(round(value / Fraction(2) ** exponent), exponent))


@given(
    sigma=st.sampled_from([0.001, 0.12, 0.25, 1.0, 3.0, 2.0**-64, 2.0**64]),
    z=st.lists(st.integers(-(2**32), 2**32), min_size=1, max_size=10),
    pixel=st.floats(0, 1, width=32),
)
def test_product_and_sum_are_each_rounded_once(sigma, z, pixel):
    m, exponent = split_sigma(sigma)
    out = np.empty((len(z), 1), np.float32)
    add_noise(np.array(z).reshape(-1, 1), np.array([pixel], np.float32), sigma, out)
    for found, number in zip(out[:, 0], z, strict=True):
        noise = nearest_float32(Fraction(number * m) / Fraction(2) ** (28 + exponent))
        assert found == np.float32(pixel) + noise


def test_products_just_above_a_tie_are_not_rounded_twice():
    # A product of 62 bits whose last 38 are 2**37 + 1 is rounded up; by way of float64 it would be a tie first.
    found = 0
    for m in range(2**31 - 1, 2**31 - 20_001, -2):
        z = (2**37 + 1) * pow(m, -1, 2**38) % 2**38
        if 2**61 <= z * m < 2**62 and z * m >> 38 & 1 == 0:
            out = np.empty((1, 1), np.float32)
            add_noise(np.array([[z]]), np.zeros(1, np.float32), m / 2**31, out)
            assert out[0, 0] == np.float32(math.ldexp((z * m >> 38) + 1, 38 - 59))
            assert out[0, 0] != np.float32(np.float64(z * m)) * np.float32(2.0**-59)
            found += 1
    assert found > 10
