"""Intervals over images, and how many certificates of a table may be wrong."""

import math

import numpy as np
import pytest
from scipy import stats

from srs.evaluation.intervals import LEVEL, mean_interval, wrong_at_most


def test_the_interval_is_student_s():
    values = np.array([0.1, 0.4, 0.4, 0.9, 0.0])
    found = mean_interval(values)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(LEVEL)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(0.36)
    assert not mean_interval(values - 0.36).decided
    assert mean_interval(values + 9).decided
    assert mean_interval(-values - 9).decided


def test_it_covers_the_truth_as_often_as_it_says():
    # Certified radii look like this: a third are 0, the others spread. 2,000 samples of 100 images: the share of
    # intervals that miss the mean has a standard deviation of 0.005 around about 0.05.
    rng = np.random.default_rng(0)
    radius = np.where(rng.random((2000, 100)) < 1 / 3, 0.0, rng.uniform(0, 1, (2000, 100)))
    missed = np.mean([not found.low <= 1 / 3 <= found.high for found in map(mean_interval, radius)])
    assert 0.03 < missed < 0.075


def test_one_image_has_no_interval():
    found = mean_interval(np.array([0.5]))
    assert found.mean == 0.5
    assert math.isnan(found.low)
    assert not found.decided


@pytest.mark.parametrize(("n", "alpha"), [(1, 0.001), (360, 0.001), (10_000, 0.001), (500, 0.05), (7, 0.5)])
@pytest.mark.parametrize("delta", [0.001, 0.05])
def test_more_are_wrong_with_probability_delta_at_most(n, alpha, delta):
    most = wrong_at_most(n, alpha, delta)
    mass = [math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(most + 1)]
    assert sum(mass) >= 1 - delta - 1e-12
    assert most == 0 or sum(mass[:-1]) < 1 - delta + 1e-12
