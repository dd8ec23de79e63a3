"""Bounds of a class and its runner-up: how they are rounded, shared and chosen."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothing import certified_radius, lower_confidence_bound, upper_confidence_bound
from smoothing.bounds import SHARES, alpha_shares, ladder_bounds, runner_up_bounds, split_alpha


@given(st.floats(1e-100, 1, exclude_max=True), st.one_of(st.floats(0, 1, exclude_max=True), st.sampled_from(SHARES)))
def test_shares_of_alpha_are_not_more_than_alpha(alpha, share):
    own, others = alpha_shares(alpha, share)
    assert Fraction(float(own)) + Fraction(float(others)) <= Fraction(alpha)
    assert own >= alpha * (1 - share - 1e-15)
    assert own == alpha if others == 0 else min(own, others) >= 1e-100
    assert others > 0 or min(share, 1 - share) * alpha < 1.01e-100


def test_no_part_of_alpha_is_too_small_for_bounds():
    """Half of 2e-100 is 1e-100, and what is left beside it, rounded down, is less."""
    for alpha in (1e-100, 2e-100, np.nextafter(2e-100, 1), 1e-99, 3.2e-99):
        for share in (0.0, *SHARES, 1 - 2.0**-53):
            p_lower, p_upper = runner_up_bounds(900, 50, 1000, alpha, share)
            assert 0.5 < p_lower < 0.9
            assert 0.05 < p_upper <= 1 - p_lower
    assert split_alpha(60, 20, 100, 3, 1000, 2e-100) == 0
    assert split_alpha(60, 20, 100, 3, 1000, 2.001e-100) == SHARES[1]


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan"), float("inf"), True])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(ValueError, match="share"):
        runner_up_bounds(5, 3, 10, 0.01, share)


def test_the_bounds_are_those_of_clopper_and_pearson_at_their_shares():
    counts, runner_up, share = np.array([70, 70, 70, 0, 100]), np.array([10, 30, 0, 60, 0]), np.array([[0.5], [1 / 32]])
    p_lower, p_upper = runner_up_bounds(counts, runner_up, 100, 0.01, share)
    assert p_lower.shape == p_upper.shape == (2, 5)
    own, others = alpha_shares(0.01, share)
    np.testing.assert_array_equal(p_lower, lower_confidence_bound(counts, 100, own))
    direct = upper_confidence_bound(runner_up, 100, others)
    np.testing.assert_array_equal(p_upper, np.minimum(direct, 1 - p_lower))
    assert p_upper[0, 0] < 1 - p_lower[0, 0]  # the runner-up's own bound
    assert p_upper[1, 1] == 1 - p_lower[1, 1]  # what the class leaves
    assert p_lower[0, 3] == 0


@given(st.integers(1, 2000), st.data(), st.floats(1e-9, 0.5), st.sampled_from([0.0, *SHARES]))
def test_the_others_have_no_more_than_the_class_leaves(n, data, alpha, share):
    k = data.draw(st.integers(0, n))
    second = data.draw(st.integers(0, n - k))
    p_lower, p_upper = (float(bound) for bound in runner_up_bounds(k, second, n, alpha, share))
    assert 0 <= p_lower < 1
    assert 0 < p_upper <= 1
    if p_upper == upper_confidence_bound(second, n, max(share * alpha, 1e-100)):
        assert Fraction(p_upper) <= (1 - Fraction(p_lower)) * (1 + Fraction(2) ** -51)
    else:  # rounded up, where it had to be rounded
        assert 1 - Fraction(p_lower) <= Fraction(p_upper) <= (1 - Fraction(p_lower)) * (1 + Fraction(2) ** -51)
    assert np.isfinite(certified_radius(1.0, p_lower, p_upper))


def test_no_share_is_the_one_sided_bound():
    counts = np.arange(501)
    p_lower, p_upper = runner_up_bounds(counts, 500 - counts, 500, 0.001, 0)
    np.testing.assert_array_equal(p_lower, lower_confidence_bound(counts, 500, 0.001))
    np.testing.assert_array_equal(certified_radius(0.5, p_lower, p_upper), certified_radius(0.5, p_lower))


def test_bounds_of_a_ladder_are_the_best_of_its_rungs():
    counts, runner_up, n = np.array([[40, 9], [75, 9]]), np.array([[3, 5], [20, 5]]), np.array([[50], [100]])
    p_lower, p_upper = ladder_bounds(counts, runner_up, n, 0.02, [0.5, 1 / 32])
    rungs = [runner_up_bounds(counts[k], runner_up[k], n[k], 0.01, [0.5, 1 / 32]) for k in range(2)]
    np.testing.assert_allclose(p_lower, np.maximum(rungs[0][0], rungs[1][0]), rtol=1e-12)
    np.testing.assert_allclose(p_upper, np.minimum(rungs[0][1], rungs[1][1]), rtol=1e-12)
    assert p_upper[0] == pytest.approx(rungs[0][1][0])  # the upper bound of one rung goes with the lower of another
    assert p_lower[0] == pytest.approx(rungs[1][0][0])


def test_a_ladder_has_rungs():
    for counts in (5, np.zeros((0, 3), int)):
        with pytest.raises(ValueError, match="at least one rung"):
            ladder_bounds(counts, counts, 10, 0.01, 0)


@pytest.mark.parametrize(
    ("counts", "runner_up", "n", "message"),
    [
        ([5, 8], [5, 3], 10, r"runner_up\[1\] = 3: more votes for two classes than were drawn"),
        ([5], [-1], 10, r"runner_up\[0\] = -1: votes are whole"),
        ([5.5], [1], 10, r"counts\[0\] = 5.5: votes are whole"),
        ([0], [0], 0, r"n\[0\] = 0: at least one vote"),
        ([5, 5], [1, 1, 1], 10, r"votes of shapes counts \(2,\), runner_up \(3,\), n \(\): no one shape"),
    ],
)
def test_votes_that_are_none_are_named(counts, runner_up, n, message):
    with pytest.raises(ValueError, match=message):
        runner_up_bounds(counts, runner_up, n, 0.01, 0.5)


def test_no_images_no_bounds():
    none = np.zeros(0, int)
    assert split_alpha(none, none, 10, 10, 100, 0.01).shape == (0,)
    assert runner_up_bounds(none, none, 10, 0.01, 0.5)[1].shape == (0,)


def test_the_split_follows_the_selection_votes():
    assert split_alpha(60, 40, 100, 2, 1000, 0.001) == 0  # two classes
    assert split_alpha(60, 40, 100, 3, 1000, 0.001) == SHARES[0]  # all the rest may be the runner-up's
    assert split_alpha(100, 0, 100, 3, 1000, 0.001) == SHARES[0]  # no votes are no certainty
    assert split_alpha(60, 20, 100, 3, 1000, 0.001) == SHARES[1]
    assert split_alpha(40, 40, 100, 3, 1000, 0.001) == SHARES[1]
    assert split_alpha(60, 20, 100, 3, 1000, 1e-100) == 0  # its shares would be too small
    assert split_alpha(60, 20, 100, 3, 1000, 3e-99) == SHARES[1]


def test_the_split_is_that_of_each_cell():
    rng = np.random.default_rng(0)
    votes = np.sort(rng.multinomial(100, [0.6, 0.39, 0.01], size=(20, 4)))
    shares = split_alpha(votes[..., 2], votes[..., 1], 100, 3, 1000, 0.001)
    assert shares.shape == (20, 4)
    assert set(np.unique(shares)) == set(SHARES)
    for cell in np.ndindex(shares.shape):
        assert shares[cell] == split_alpha(votes[cell][2], votes[cell][1], 100, 3, 1000, 0.001)
    mixed = split_alpha([60, 600], [40, 390], [100, 1000], 3, 1000, 0.001)  # as after racing
    assert mixed.tolist() == [SHARES[0], SHARES[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, "num_classes = 1: must be at least 2"),
        ({"alpha": 1.0}, "alpha = 1.0"),
        ({"alpha": 0.0}, "alpha = 0.0"),
        ({"n": 0}, "n = 0: must be at least 1"),
        ({"n": 10**9 + 1}, r"n = 1000000001"),
        ({"runner_up": 41}, "runner_up = 41: more votes for two classes than were drawn"),
    ],
)
def test_a_senseless_split_is_refused(change, message):
    arguments = {"counts": 60, "runner_up": 20, "n0": 100, "num_classes": 3, "n": 1000, "alpha": 0.001, **change}
    with pytest.raises(ValueError, match=message):
        split_alpha(**arguments)


def radii_of_both_bounds(probabilities, n0, n, alpha):
    """Radii with the split and one-sided ones, both for the class that selection votes choose."""
    rng = np.random.default_rng(1)
    rows, num_classes = np.arange(len(probabilities)), probabilities.shape[1]
    selection = rng.multinomial(n0, probabilities)
    a = selection.argmax(axis=1)

    def of(votes):
        others = votes.copy()
        others[rows, a] = 0
        return votes[rows, a], others.max(axis=1)

    share = split_alpha(*of(selection), n0, num_classes, n, alpha)
    counts, runner_up = of(rng.multinomial(n, probabilities))
    one_sided = certified_radius(1.0, lower_confidence_bound(counts, n, alpha))
    return certified_radius(1.0, *runner_up_bounds(counts, runner_up, n, alpha, share)), one_sided


@pytest.mark.parametrize(("n0", "n"), [(100, 1000), (100, 10_000), (1000, 100_000)])
def test_where_the_runner_up_has_all_the_rest_little_is_lost(n0, n):
    p = np.random.default_rng(0).uniform(0.55, 0.999, 2000)
    probabilities = np.stack([p, 1 - p] + 8 * [np.zeros_like(p)], axis=1)
    full, one_sided = radii_of_both_bounds(probabilities, n0, n, 0.001)
    assert np.all(full <= one_sided)
    assert full.mean() >= 0.998 * one_sided.mean()


def test_with_many_classes_much_is_gained():
    probabilities = np.random.default_rng(0).dirichlet(10 * [0.3], 2000)
    full, one_sided = radii_of_both_bounds(probabilities, 100, 10_000, 0.001)
    assert full.mean() >= 1.15 * one_sided.mean()
    worse = full < one_sided
    assert full[worse].sum() >= 0.998 * one_sided[worse].sum()


def test_a_share_too_small_for_bounds_makes_them_one_sided():
    alone = runner_up_bounds(900, 50, 1000, 1e-100, 0.0)
    np.testing.assert_array_equal(runner_up_bounds(900, 50, 1000, 1e-100, 0.5), alone)
    lower, upper = runner_up_bounds([900, 900], [50, 50], 1000, [1e-100, 0.01], 0.5)
    assert (lower[0], upper[0]) == (alone[0], alone[1])
    assert upper[1] < 1 - lower[1]
