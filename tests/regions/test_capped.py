"""Searching with nearest-neighbour caps at once must lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings

from regions import _allocate, allocate, allocate_graph, overlap_graph, verify
from tests import oracles, strategies

CAPPED = [{"method": "lp"}, {"method": "matching"}, {"method": "greedy", "reserve": True}]


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(_allocate, "sparse_enough", lambda *_: False)


@pytest.mark.usefixtures("always")
class TestForced:
    @settings(max_examples=150)
    @given(instance=strategies.grouped_instances(max_points=14))
    def test_the_optimum_is_the_same(self, instance):
        points, R, groups = instance
        allocation = allocate(points, R, "matching", groups=groups or None)
        best = oracles.optimum(points, R, groups)
        assert allocation.objective == pytest.approx(best, rel=1e-9, abs=1e-300)
        assert allocation.upper_bound >= best * (1 - 1e-9)
        checked = verify(points, allocation.radii, R, groups=groups or None, certificate=allocation.certificate)
        assert checked
        assert checked.upper_bound >= allocation.objective

    @pytest.mark.parametrize("d", [3, 60])
    def test_many_points(self, rng, d):
        points = rng.random((6, d))[rng.integers(6, size=2500)] + rng.normal(size=(2500, d)) * 0.05
        points[:30] = points[30:60]  # duplicates
        R = rng.random(2500) * 0.4
        labels = rng.integers(4, size=2500)
        for groups in (None, labels):
            full = allocate_graph(overlap_graph(points, R, groups=groups), "matching")
            capped = allocate(points, R, "matching", groups=groups)
            assert capped.graph.n_edges < full.graph.n_edges
            assert capped.objective == pytest.approx(full.objective, rel=1e-12)
            assert verify(points, capped.radii, R, groups=groups)

    def test_plain_greedy_needs_every_overlap(self, rng):
        points, R = rng.random((200, 2)), rng.random(200)
        graph = overlap_graph(points, R)
        assert allocate(points, R, "greedy").graph.n_edges == graph.n_edges
        np.testing.assert_array_equal(allocate(points, R, "greedy").radii, allocate_graph(graph, "greedy").radii)


@pytest.mark.parametrize("options", CAPPED)
def test_dense_instances_are_capped_and_sparse_ones_listed(rng, options):
    points = rng.random((1500, 3))
    dense = allocate(points, np.full(1500, 2.0), **options)
    assert dense.graph.n_edges < 100 * 1500
    assert (dense.graph.R < 1.0).all()
    assert verify(points, dense.radii)
    sparse_R = np.full(1500, 0.05)
    sparse = allocate(points, sparse_R, **options)
    np.testing.assert_array_equal(sparse.graph.R, sparse_R)
    assert sparse.graph.n_edges == overlap_graph(points, sparse_R).n_edges
