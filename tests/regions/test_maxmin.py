"""The fairest radii: against linear programs, one after the other, and by the property that makes them unique."""

import numpy as np
import pytest
from hypothesis import given, settings

from regions import _allocate, allocate, verify
from tests import oracles, strategies


@settings(max_examples=40)
@given(instance=strategies.grouped_instances(max_points=7))
def test_equals_linear_programs_one_after_the_other(instance):
    points, R, groups = instance
    radii = allocate(points, R, "max-min", groups=groups or None).radii
    expected = oracles.max_min(points, R, groups)
    np.testing.assert_allclose(radii, expected, rtol=0, atol=1e-6 * R.max(initial=0.0))


@settings(max_examples=200)
@given(instance=strategies.grouped_instances(max_points=14))
def test_whoever_could_be_larger_touches_one_that_is_no_larger(instance):
    points, R, groups = instance
    radii = allocate(points, R, "max-min", groups=groups or None).radii
    assert oracles.overlaps(points, radii, groups) == []
    for i in np.flatnonzero(radii < R):
        j = np.flatnonzero((R > 0) & (radii <= radii[i] * (1 + 1e-12)) & (np.arange(len(R)) != i))
        j = np.array([k for k in j if oracles.conflicts(groups, i, k)], dtype=int)
        distance = np.linalg.norm(points[j] - points[i], axis=1)
        assert (radii[i] + radii[j] >= distance * (1 - 1e-11) - 1e-140).any()


def test_a_row_of_points():
    # 0 and 1 meet half-way; 2 is stopped by 1, which has stopped; 3 reaches its bound
    radii = allocate([[0.0], [1.0], [3.0], [9.0]], [5.0, 5.0, 5.0, 2.0], "max-min").radii
    np.testing.assert_allclose(radii, [0.5, 0.5, 1.5, 2.0], rtol=1e-12)


@pytest.mark.parametrize("d", [3, 100])
def test_it_is_the_same_where_not_all_pairs_are_listed(rng, monkeypatch, d):
    points, R = rng.normal(size=(400, d)), np.full(400, 30.0)
    listed = allocate(points, R, "max-min")
    monkeypatch.setattr(_allocate, "sparse_enough", lambda *_: False)
    generated = allocate(points, R, "max-min")
    assert generated.graph.n_edges < listed.graph.n_edges / 2
    np.testing.assert_allclose(generated.radii, listed.radii, rtol=1e-12)
    assert verify(points, generated.radii, R)
    assert generated.gap <= 0.5


def test_the_smallest_radius_is_larger_than_that_of_the_largest_sum(rng):
    points, R = rng.random((300, 2)), rng.random(300) * 0.2
    fair, largest = allocate(points, R, "max-min"), allocate(points, R)
    assert fair.radii.min() > largest.radii.min()
    assert largest.objective / 2 <= fair.objective <= largest.objective
