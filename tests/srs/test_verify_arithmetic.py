"""The verifier's own arithmetic, against exact sums and against SciPy, which it does not use."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import special, stats

from smoothing.bounds import runner_up_bounds
from smoothing.confidence import certified_radius
from srs.verify.arithmetic import lower_bound, mp, normal_quantile, student_half_width, tail, upper_bound
from srs.verify.proofs import proof


def exact_tail(k, n, p):
    return sum((math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1)), Fraction())


@pytest.mark.parametrize(("k", "n"), [(0, 5), (1, 5), (5, 5), (6, 5), (3, 40), (37, 40), (40, 40)])
@pytest.mark.parametrize("p", [Fraction(1, 1000), Fraction(1, 3), Fraction(9, 10)])
def test_tails_are_sums(k, n, p):
    exact = exact_tail(k, n, p)
    assert abs(tail(k, n, p) - mp.mpf(exact.numerator) / exact.denominator) <= mp.mpf(2) ** -80 * max(exact, 1e-99)


@pytest.mark.parametrize("alpha", [Fraction(1, 2000), Fraction(7, 10), Fraction(1, 10**30)])
@pytest.mark.parametrize(("k", "n"), [(1, 10), (9, 10), (10, 10), (600, 1000), (999, 1000), (3, 10**5), (9**6, 10**6)])
def test_bounds_are_quantiles(k, n, alpha):
    lower = lower_bound(k, n, alpha)
    assert float(lower) == pytest.approx(special.betaincinv(k, n - k + 1, float(alpha)), rel=1e-9)
    assert float(upper_bound(n - k, n, alpha)) == pytest.approx(float(1 - lower))
    if n <= 1000:  # the tail at the bound, in exact fractions of a number that is near by
        near = Fraction(int(lower * 2**80), 2**80)
        assert float(exact_tail(k, n, near)) == pytest.approx(float(alpha), rel=1e-9)


def test_no_votes_prove_nothing():
    assert lower_bound(0, 10, Fraction(1, 2)) == 0
    assert upper_bound(10, 10, Fraction(1, 2)) == 1
    assert normal_quantile(mp.mpf(0)) == -mp.inf
    assert normal_quantile(mp.mpf(1)) == mp.inf


def test_quantiles():
    for p in (1e-300, 1e-9, 0.02, 0.5, 0.7, 1 - 1e-12):
        z = normal_quantile(mp.mpf(p))
        assert float(z) == pytest.approx(special.ndtri(p), rel=1e-13, abs=1e-13)
        assert abs(mp.erfc(-z / mp.sqrt(2)) / 2 - mp.mpf(p)) <= mp.mpf(2) ** -80 * mp.mpf(p)


def test_intervals_are_students(rng):
    values = rng.random(17)
    half = stats.t.ppf(0.975, 16) * np.std(values, ddof=1) / math.sqrt(17)
    assert student_half_width(values.tolist()) == pytest.approx(half, rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 1 / 32, 0.5])
def test_what_is_certified_lies_between_the_proof_and_its_margins(rng, share):
    """The two implementations, which share nothing: one exact, one in float64 with margins to the safe side."""
    for n in (50, 10_000, 10**6):
        for own in [*rng.integers(0, n + 1, 12).tolist(), n]:
            other, alpha = int(rng.integers(0, n - own + 1)), 0.001
            p_lower, p_upper = runner_up_bounds(own, other, n, alpha, share)
            found = proof(own, other, n, Fraction(alpha), share)
            assert found.lower * (1 - found.slack) <= float(p_lower) <= found.lower
            assert found.upper <= float(p_upper) <= found.upper + found.slack
            radius = float(certified_radius(0.7, p_lower, p_upper))
            assert max(0, 0.7 * found.least) <= radius <= max(0, 0.7 * found.radius)
