from decimal import Decimal

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from smoothing import certified_radius, lower_confidence_bound, top_two_p_value, upper_confidence_bound
from smoothing.confidence import shared_alpha, signed_radius, tail_margin

from .oracles import binomial_tail, binomial_tail_decimal, normal_cdf, normal_quantile


def bound(k: int, n: int, alpha: float) -> float:
    return float(lower_confidence_bound(np.array([k]), n, alpha)[0])


@given(st.integers(1, 60), st.data(), st.floats(1e-9, 0.5))
def test_the_bound_is_below_the_exact_one_and_no_further_than_its_margin(n, data, alpha):
    k = data.draw(st.integers(1, n))
    p = bound(k, n, alpha)
    assert binomial_tail(n, k, p) <= alpha  # not above the exact bound, in exact arithmetic
    # and not far below it: the tail grows at least as p**0.69, so lowering p by 3 margins lowers it by 2
    assert binomial_tail(n, k, p * (1 + 6e-11)) > alpha


@pytest.mark.parametrize(
    ("n", "k"), [(1000, 993), (10_000, 9_950), (10_000, 10_000), (100_000, 99_990), (20_000, 18_000)]
)
@pytest.mark.parametrize("alpha", [0.001, 1e-7])
def test_the_bound_is_below_the_exact_one_for_many_samples(n, k, alpha):
    p = bound(k, n, alpha)
    assert binomial_tail_decimal(n, k, p) <= Decimal(alpha)
    assert binomial_tail_decimal(n, k, p * (1 + 4e-11)) > Decimal(alpha)


def test_every_count_may_have_an_alpha_of_its_own():
    counts, alphas = np.array([0, 3, 9, 10]), np.array([1e-100, 1e-3, 0.05, 0.9])
    for call in (lower_confidence_bound, upper_confidence_bound):
        found = call(counts, 10, alphas[:, None])
        assert found.shape == (4, 4)
        for row, alpha in zip(found, alphas, strict=True):
            assert np.array_equal(row, call(counts, 10, alpha))
        assert np.array_equal(call(5, 10, alphas), [call(5, 10, alpha) for alpha in alphas])


def test_alphas_that_do_not_fit_are_refused():
    for alpha in (1.5, 0.0, 1e-101, float("nan")):
        with pytest.raises(ValueError, match=f"alpha = {alpha}"):
            lower_confidence_bound([5, 6], 10, [0.01, alpha])
    with pytest.raises(ValueError, match=r"counts of shape \(2,\) and alpha of shape \(3,\): no one shape"):
        upper_confidence_bound([5, 6], 10, [0.01, 0.02, 0.03])


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


#: Everything from the smallest number to 1, dense near 0, 1/2 and 1.
PROBABILITIES = st.one_of(
    st.floats(0, 1),
    st.floats(-323, 0).map(lambda x: 10.0**x),
    st.floats(-53, -1).map(lambda x: 1 - 2.0**x),
    st.tuples(st.floats(-53, -1), st.sampled_from([-1, 1])).map(lambda t: 0.5 + t[1] * 2.0 ** t[0]),
)


@given(st.floats(1e-3, 1e3), PROBABILITIES.filter(lambda p: 0 < p < 1), PROBABILITIES.filter(lambda p: 0 < p < 1))
@example(1.0, 5e-324, 5e-324)
@example(1.0, 1 - 2.0**-53, 5e-324)
@example(1.0, 0.5, 0.5)
@example(1.0, 0.5, float(np.nextafter(0.5, 0)))
@example(1.0, 0.3, 0.29999999999)
@example(0.25, 2e-5, 1e-5)
def test_the_radius_of_two_bounds_is_below_the_exact_one(sigma, low, high):
    radius, signed = float(certified_radius(sigma, low, high)), float(signed_radius(sigma, low, high))
    with mpmath.workdps(60):
        first, second = normal_quantile(low), normal_quantile(high)
        exact = mpmath.mpf(sigma) / 2 * (first - second)
        assert signed <= exact
        assert signed >= exact - mpmath.mpf(sigma) * (abs(first) + abs(second)) * 2.0**-36
    assert radius == max(signed, 0.0)


@given(PROBABILITIES.filter(lambda p: p < 1))
def test_the_complement_as_an_upper_bound_gives_the_one_sided_radius(p):
    one, two = certified_radius(0.7, p), certified_radius(0.7, p, 1 - p)
    assert two == one if p >= 0.5 else two == 0


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.0, 1.0), (0.9, 1.0), (0.0, 5e-324), (0.3, 0.3), (0.2, 0.4)])
def test_no_radius_where_nothing_is_known(low, high):
    radius, signed = certified_radius(0.5, low, high), signed_radius(0.5, low, high)
    assert radius == 0
    assert not np.signbit(radius)
    assert signed == -np.inf if low == 0 or high == 1 else -np.inf < signed <= 0


def test_two_bounds_certify_without_a_majority():
    assert certified_radius(1.0, 0.4, 0.2) == pytest.approx(0.29413706525, rel=1e-9)
    assert np.array_equal(certified_radius([1.0, 2.0], 0.4, [[0.2], [0.5]]) > 0, [[True, True], [False, False]])


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_no_majority_no_radius(p):
    assert certified_radius(np.array([1.0]), np.array([p])) == 0


@given(st.integers(0, 40), st.integers(0, 40))
def test_p_value_is_the_exact_two_sided_one_rounded_up(a, b):
    first, second = max(a, b), min(a, b)
    exact = min(1, 2 * binomial_tail(first + second, first, 0.5))
    found = float(top_two_p_value(np.array([first]), np.array([second]))[0])
    assert exact <= found <= exact * (1 + 1e-9)


def extreme_tail(n: int, k: int, p: float) -> mpmath.mpf:
    """P(Binomial(n, p) >= k) for k within a few of 1 or n: few terms, with digits to spare."""
    with mpmath.workdps(160):
        q = mpmath.mpf(p)

        def terms(counts):
            return mpmath.fsum(mpmath.binomial(n, j) * q**j * (1 - q) ** (n - j) for j in counts)

        return 1 - terms(range(k)) if k < n / 2 else terms(range(k, n + 1))


@pytest.mark.parametrize("alpha", [1e-100, 1e-97, 1e-60, 1e-20, 1e-3, 0.5, 0.627, 0.9, 1 - 1e-9, 1 - 2.0**-53])
@pytest.mark.parametrize("n", [1, 2, 3, 13, 100, 10**4, 10**6, 667_412_308, 10**9])
def test_the_bound_holds_at_the_rim(n, alpha):
    for k in {k for k in (1, 2, 3, n - 2, n - 1, n) if 1 <= k <= n}:
        assert extreme_tail(n, k, bound(k, n, alpha)) <= alpha, k


@pytest.mark.parametrize("alpha", [1e-100, 1e-98, 4e-98, 1e-97, 1e-50])
def test_the_bound_holds_where_the_inverse_is_wrong(alpha):
    for n in (5, 12, 13, 20):
        for k in range(1, n + 1):
            assert extreme_tail(n, k, bound(k, n, alpha)) <= alpha, (n, k)


@pytest.mark.parametrize("n", [10, 10**9])
def test_the_upper_bound_holds_at_the_rim(n):
    for alpha in (1e-100, 1e-3, 0.9):
        for k in (0, 1, 2, n - 2, n - 1, n):
            p = float(upper_confidence_bound(k, n, alpha))
            assert p == 1 if k == n else 1 - extreme_tail(n, k + 1, p) <= alpha


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1e-3, 1e-101, 1e-320, float("nan"), float("inf"), True])
def test_alpha_that_no_bound_is_computed_for_is_refused(alpha):
    for call in (lower_confidence_bound, upper_confidence_bound):
        with pytest.raises(ValueError, match="alpha") as caught:
            call(5, 10, alpha)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="alpha"):
        shared_alpha(alpha, 1)


def test_a_share_of_alpha_that_no_bound_is_computed_for_is_refused():
    assert 1e-100 < shared_alpha(1e-96, 1000) <= 1e-99 * (1 + 1e-15)
    with pytest.raises(ValueError, match=r"alpha = 1e-97 shared among 10,000: 1e-101 each is below 1e-100"):
        shared_alpha(1e-97, 10_000)


@pytest.mark.parametrize(
    "counts",
    [
        [1, 5, 10],
        (1, 5, 10),
        [1.0, 5.0, 10.0],
        np.array([1, 5, 10], dtype=">u2"),
        np.array([10, 5, 1], dtype=np.uint8)[::-1],
        torch.tensor([1, 5, 10]),
        [torch.tensor(1), torch.tensor(5), torch.tensor(10)],
        torch.tensor([1.0, 5.0, 10.0], requires_grad=True),
        torch.tensor([1, 5, 10], dtype=torch.bfloat16),
    ],
)
def test_votes_come_as_any_array(counts):
    expected = lower_confidence_bound(np.array([1, 5, 10]), 10, 0.001)
    assert np.array_equal(lower_confidence_bound(counts, 10, 0.001), expected)
    assert np.array_equal(lower_confidence_bound(counts, np.full(3, 10), 0.001), expected)
    assert np.array_equal(top_two_p_value(counts, 1), top_two_p_value(np.array([1, 5, 10]), np.array([1, 1, 1])))


def test_one_vote_count_is_an_array_without_dimensions():
    assert lower_confidence_bound(np.int32(7), np.uint8(10), 0.001).shape == ()
    assert lower_confidence_bound([[7], [8]], [10, 20], 0.001).shape == (2, 2)


@pytest.mark.parametrize(
    ("counts", "n", "message"),
    [
        ([1, 11], 10, r"counts\[1\] = 11: more votes for a class than were drawn"),
        (11, 10, r"counts = 11: more votes"),
        ([-1], 10, r"counts\[0\] = -1: votes are whole numbers from 0 to 1,000,000,000"),
        ([2.5], 10, r"counts\[0\] = 2.5: votes are whole"),
        ([float("nan")], 10, r"counts\[0\] = nan: votes are whole"),
        ([float("inf")], 10, r"counts\[0\] = inf: votes are whole"),
        ([True, False], 10, "counts: type bool"),
        (["5"], 10, "counts: type <U1"),
        (np.ma.masked_array([5, 6], mask=[True, False]), 10, "counts: a masked array, whose mask would be lost"),
        ([5], 0, r"n\[0\] = 0: at least one vote"),
        (0, 10**9 + 1, "n = 1000000001: votes are whole"),
        ([5], True, "n: type bool"),
        ([5, 6], [10, 10, 10], r"n of shape \(3,\) and counts of shape \(2,\): no one shape"),
    ],
)
def test_votes_that_are_none_are_named(counts, n, message):
    for call in (lower_confidence_bound, upper_confidence_bound):
        with pytest.raises(ValueError, match=message) as caught:
            call(counts, n, 0.001)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sigma", "p", "message"),
    [
        (0.0, 0.9, "sigma = 0.0: noise levels must be finite and > 0"),
        ([1.0, -0.5], 0.9, r"sigma\[1\] = -0.5"),
        (float("inf"), 0.9, "sigma = inf"),
        (float("nan"), 0.9, "sigma = nan"),
        (1.0, 1.0, r"p_lower = 1.0: a lower bound of a probability lies in \[0, 1\)"),
        (1.0, [0.9, 1.5], r"p_lower\[1\] = 1.5"),
        (1.0, -0.1, "p_lower = -0.1"),
        (1.0, float("nan"), "p_lower = nan"),
        (1.0, True, "p_lower: type bool"),
    ],
)
def test_radii_of_nonsense_are_refused(sigma, p, message):
    with pytest.raises(ValueError, match=message):
        certified_radius(sigma, p)


@pytest.mark.parametrize(
    ("p_upper", "message"),
    [
        (0.0, r"p_upper = 0.0: an upper bound of a probability lies in \(0, 1\]"),
        ([0.1, 1.5], r"p_upper\[1\] = 1.5"),
        (-0.1, "p_upper = -0.1"),
        (float("nan"), "p_upper = nan"),
        (True, "p_upper: type bool"),
        ([0.1, 0.2, 0.3], r"p_lower of shape \(2,\) and p_upper of shape \(3,\): no one shape"),
    ],
)
def test_upper_bounds_that_are_none_are_refused(p_upper, message):
    with pytest.raises(ValueError, match=message):
        certified_radius([0.5, 1.0], 0.9, p_upper)


@pytest.mark.parametrize("sigma", [5e-324, 1e-320, 1e-300, 1e308])
@pytest.mark.parametrize("p", [0.5000001, 0.7, 0.76, 0.9999999])
def test_radii_are_rounded_down_at_the_ends_of_float64(sigma, p):
    with mpmath.workdps(40):
        exact = mpmath.mpf(sigma) * mpmath.erfinv(2 * mpmath.mpf(p) - 1) * mpmath.sqrt(2)
        assert 0 <= mpmath.mpf(float(certified_radius(sigma, p))) <= exact
        other = mpmath.mpf(sigma) / 2 * (normal_quantile(p) - normal_quantile(0.4))
        assert 0 <= mpmath.mpf(float(certified_radius(sigma, p, 0.4))) <= other


@pytest.mark.parametrize("m", [10**6, 362_047_502 + 361_612_324, 476_631_568 + 476_111_774, 10**9])
def test_p_values_of_many_votes_are_not_below_the_exact_ones(m):
    for z in (8.0, 20.0):
        first = int(m / 2 + z * m**0.5 / 2)
        with mpmath.workdps(40):  # the tail of Binomial(m, 1/2): its first term times a series of falling ratios
            log_term = mpmath.loggamma(m + 1) - mpmath.loggamma(first + 1) - mpmath.loggamma(m - first + 1)
            series, ratio, j = mpmath.mpf(1), mpmath.mpf(1), first
            while ratio > mpmath.mpf(10) ** -25 * series:
                ratio *= mpmath.mpf(m - j) / (j + 1)
                series, j = series + ratio, j + 1
            exact = 2 * mpmath.exp(log_term - m * mpmath.log(2)) * series
        assert exact <= top_two_p_value(first, m - first) <= exact * (1 + 2 * tail_margin(m))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([5], [6], r"second\[0\] = 6: more votes than for the first class"),
        ([5], [-1], r"second\[0\] = -1"),
        ([10**9], [1], r"first \+ second\[0\] = 1000000001"),
    ],
)
def test_votes_of_two_classes_are_checked(first, second, message):
    with pytest.raises(ValueError, match=message):
        top_two_p_value(first, second)


def test_a_p_value_is_never_zero():
    assert top_two_p_value(10**6, 0) > 0
