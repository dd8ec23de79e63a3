"""Levels that agree: the theorem, against classifiers whose smoothed answers are known everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from smoothing import agreeing_radius

STEP = 1 / 64  # all numbers are multiples of it, so comparisons are exact
PLACES = np.arange(-320, 321) * STEP


class World:
    """Inputs on a line, the image at 0. Level k returns class 0 within r_k of the image, and another one from there on.

    The level used at an input is any of those that are allowed there: k from t_k on, and s everywhere.
    """

    def __init__(self, rng, levels):
        self.radius = rng.integers(0, 200, levels) * STEP
        self.clearance = rng.integers(0, 200, levels) * STEP
        self.own = int(rng.integers(levels))

    def certified(self):
        row = np.arange(1)
        return float(agreeing_radius(self.radius[None], self.clearance[None], row + self.own)[0])

    def may_break_at(self, distance):
        """Whether some level that may be used at this distance returns another class."""
        allowed = [k for k in range(len(self.radius)) if k == self.own or distance >= self.clearance[k]]
        return any(distance >= self.radius[k] for k in allowed)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_no_allowed_level_breaks_within_the_radius_and_one_does_at_it(seed, levels):
    world = World(np.random.default_rng(seed), levels)
    rho = world.certified()
    moves = np.abs(PLACES)
    broken = np.array([world.may_break_at(distance) for distance in moves])
    assert not broken[moves < rho].any()
    # the radius is the largest that these numbers prove: at rho itself a level that is allowed there breaks
    assert world.may_break_at(rho)


def test_what_each_part_of_the_formula_is_for():
    # radius, clearance, level, and the radius when worked out by hand
    cases = [
        ([0.5, 0.9], [0.0, 0.0], 0, 0.5),  # both agree: the smaller radius
        ([0.9, 0.5], [0.0, 0.0], 0, 0.5),
        ([0.9, 0.0], [0.0, 0.3], 0, 0.3),  # the other level is not certified: it must not decide
        ([0.9, 0.5], [0.0, 0.3], 0, 0.5),  # it decides from 0.3 on, and agrees up to 0.5
        ([0.9, 0.2], [0.0, 0.3], 0, 0.3),
        ([0.0, 0.9], [0.0, 0.9], 0, 0.0),  # nothing is certified at the image's own level
        ([0.4, 0.9], [0.7, 0.0], 0, 0.4),  # the clearance of the image's own level means nothing
        ([0.9, 0.1], [0.0, np.inf], 0, 0.9),  # a level that is nowhere used
    ]
    for radius, clearance, level, wanted in cases:
        found = agreeing_radius(np.array([radius]), np.array([clearance]), np.array([level]))
        assert found.tolist() == [wanted]


@given(st.integers(0, 2**32 - 1))
def test_at_least_the_smaller_of_the_distance_to_another_level_and_the_radius(seed):
    rng = np.random.default_rng(seed)
    radius, clearance, level = rng.random((20, 5)), rng.random((20, 5)), rng.integers(5, size=20)
    found = agreeing_radius(radius, clearance, level)
    others = np.where(np.arange(5) == level[:, None], np.inf, clearance).min(axis=1)
    own = radius[np.arange(20), level]
    assert (found >= np.minimum(others, own)).all()
    assert (found <= own).all()


def test_arguments_stay_as_they_are():
    radius, clearance = np.array([[0.5, 0.9]]), np.array([[0.1, 0.2]])
    agreeing_radius(radius, clearance, np.array([0]))
    assert radius.tolist() == [[0.5, 0.9]]
    assert clearance.tolist() == [[0.1, 0.2]]


@pytest.mark.parametrize("dependent", [False, True])
def test_the_number_of_levels_costs_no_confidence(dependent, rng):
    # Each level's radius is too large with probability alpha: by as much as it likes, at once or independently.
    # No more than alpha of the radii may be too large, though with probability up to 1 - (1 - alpha)**8 some level is.
    alpha, levels, n = 0.1, 8, 40_000
    true, clearance = np.tile(rng.random(levels), (n, 1)), np.tile(rng.random(levels) * 0.5, (n, 1))
    own = np.zeros(n, dtype=int)
    rho = agreeing_radius(true, clearance, own)
    wrong = rng.random((n, 1 if dependent else levels)) < alpha
    claimed = np.where(wrong, 10.0, true - 1e-3)  # all others are barely right
    broken = int((agreeing_radius(claimed, clearance, own) > rho).sum())
    assert broken <= binom.isf(1e-9, n, alpha)
    assert broken >= binom.ppf(1e-9, n, alpha) or not dependent
