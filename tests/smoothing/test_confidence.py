from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing import certified_radius, lower_confidence_bound, top_two_p_value

from .oracles import binomial_tail, binomial_tail_decimal, normal_cdf


def bound(k: int, n: int, alpha: float) -> float:
    return float(lower_confidence_bound(np.array([k]), n, alpha)[0])


@given(st.integers(1, 60), st.data(), st.floats(1e-9, 0.5))
def test_the_bound_is_below_the_exact_one_and_no_further_than_its_margin(n, data, alpha):
    k = data.draw(st.integers(1, n))
    p = bound(k, n, alpha)
    assert binomial_tail(n, k, p) <= alpha  # not above the exact bound, in exact arithmetic
    assert binomial_tail(n, k, p * (1 + 4e-11)) > alpha  # and not far below it


@pytest.mark.parametrize(
    ("n", "k"), [(1000, 993), (10_000, 9_950), (10_000, 10_000), (100_000, 99_990), (20_000, 18_000)]
)
@pytest.mark.parametrize("alpha", [0.001, 1e-7])
def test_the_bound_is_below_the_exact_one_for_many_samples(n, k, alpha):
    p = bound(k, n, alpha)
    assert binomial_tail_decimal(n, k, p) <= Decimal(alpha)
    assert binomial_tail_decimal(n, k, p * (1 + 4e-11)) > Decimal(alpha)


def test_all_votes_give_the_nth_root_of_alpha():
    assert bound(100, 100, 0.001) == pytest.approx(0.001 ** (1 / 100), rel=1e-10)


def test_no_votes_give_zero():
    assert bound(0, 100, 0.001) == 0


@given(st.integers(2, 20_000), st.floats(1e-9, 0.5))
def test_more_votes_never_lower_the_bound(n, alpha):
    counts = np.unique(np.linspace(0, n, 200).astype(np.int64))
    assert np.all(np.diff(lower_confidence_bound(counts, n, alpha)) > 0)


@given(st.floats(0.5, 1, exclude_min=True, exclude_max=True), st.floats(1e-3, 10))
def test_the_radius_is_below_the_exact_one(p, sigma):
    radius = float(certified_radius(np.array([sigma]), np.array([p]))[0])
    z = radius / sigma * (1 - 2.0**-50)  # the division may round up
    assert radius >= 0
    assert normal_cdf(z) <= Decimal(p)
    assert normal_cdf(z * (1 + 1e-9) + 1e-300) >= Decimal(p) or p - 0.5 < 1e-300


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_no_majority_no_radius(p):
    assert certified_radius(np.array([1.0]), np.array([p])) == 0


@given(st.integers(0, 40), st.integers(0, 40))
def test_p_value_is_the_exact_two_sided_one_rounded_up(a, b):
    first, second = max(a, b), min(a, b)
    exact = min(1, 2 * binomial_tail(first + second, first, 0.5))
    found = float(top_two_p_value(np.array([first]), np.array([second]))[0])
    assert exact <= found <= exact * (1 + 1e-9)
