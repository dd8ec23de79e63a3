"""Figures that are never better than the truth, whatever floating point makes of them."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srs.evaluation.metrics import average_certified_radius
from srs.report.numbers import floored, percent, percent_above, raised


@given(st.integers(1, 1_000_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(0, 3))
def test_percentages_are_those_of_the_counts_rounded_down(counts, digits):
    k, n = counts
    expected = Fraction(floor(Fraction(100 * k * 10**digits, n)), 10**digits)
    assert Fraction(percent(k / n, digits)) == expected


@given(st.integers(1, 1_000_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(0, 3))
def test_upper_bounds_in_percent_are_those_of_the_counts_rounded_up(counts, digits):
    k, n = counts
    expected = Fraction(ceil(Fraction(100 * k * 10**digits, n)), 10**digits)
    assert Fraction(percent_above(k / n, digits)) == expected


def test_every_tenth_of_a_percent_is_written_as_itself():
    """In floating point 100 * 0.57 is 56.99999999999999."""
    assert [Fraction(percent(k / 1000)) for k in range(1001)] == [Fraction(k, 10) for k in range(1001)]


@given(st.floats(0, 1e6), st.integers(0, 6))
def test_what_is_kept_is_floored_and_what_is_lost_is_raised(value, digits):
    exact = Fraction(repr(value))
    assert 0 <= exact - Fraction(floored(value, digits)) < Fraction(1, 10**digits)
    assert 0 <= Fraction(raised(value, digits)) - exact < Fraction(1, 10**digits)


def test_numbers_of_arrays_are_written_as_numbers():
    value = np.float64(0.9487)
    assert (floored(value, 3), raised(value, 3), percent(value)) == ("0.948", "0.949", "94.8")


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.7, 1.1, 0.948])
def test_a_radius_that_all_have_is_their_average(radius):
    for n in (3, 10, 60, 1000):
        assert average_certified_radius(np.full(n, radius), np.ones(n, dtype=int)) == radius
