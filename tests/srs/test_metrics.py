import numpy as np
import pytest

from srs.evaluation.metrics import average_certified_radius, certified_accuracy, radius_grid


def test_certified_accuracy_is_strict_since_balls_are_open():
    radius, correct = np.array([0.0, 0.25, 0.5, 0.9]), np.array([1, 1, 0, 1])
    assert certified_accuracy(radius, correct, np.array([0.0, 0.25, 0.5])).tolist() == [0.5, 0.25, 0.25]
    assert average_certified_radius(radius, correct) == pytest.approx((0.25 + 0.9) / 4)


@pytest.mark.parametrize(("largest", "last"), [(0.0, 2.25), (2.2, 2.25), (2.25, 2.25), (2.3, 2.5), (4.0, 4.0)])
def test_the_radius_grid_reaches_the_largest_radius(largest, last):
    grid = radius_grid(largest)
    assert grid[0] == 0
    assert grid[-1] == last
    assert np.all(np.diff(grid) == 0.25)
