"""Searching with nearest-neighbour caps at once must lose nothing, nor must listing only the pairs that matter."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions import _allocate, _validate, allocate, allocate_graph, overlap_graph, verify
from regions._dense import caps as _capped
from regions._dense import row_generation as _rows
from regions._dense.caps import near_graph
from regions._methods.bounds import caps_as_bounds
from regions._search import pairs as _search
from regions._search import products
from tests import oracles, strategies

CAPPED = [{"method": "lp"}, {"method": "matching"}, {"method": "greedy", "reserve": True}]


@pytest.fixture
def always(monkeypatch):
    sparse = itertools.cycle([False, True])  # with all of R: no; once it is cut: yes
    monkeypatch.setattr(_allocate, "sparse_enough", lambda *_: next(sparse))


@pytest.fixture
def generated(monkeypatch):
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

    @pytest.mark.parametrize(("d", "cells_from"), [(3, 20_000), (60, 20_000), (60, 1000)])
    def test_many_points(self, rng, monkeypatch, d, cells_from):
        monkeypatch.setattr(_search, "_CELLS_FROM", cells_from)
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

    def test_plain_greedy_sees_every_overlap(self, rng):
        points, R = rng.random((200, 2)), rng.random(200)
        expected = allocate_graph(overlap_graph(points, R), "greedy")
        found = allocate(points, R, "greedy")
        assert found.graph.n_edges < expected.graph.n_edges
        np.testing.assert_allclose(found.radii, expected.radii, rtol=1e-12)


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


def all_constraints_hold(points, R, radii, groups=()):
    """Eq. 10 for every conflicting pair of positive R, empty balls included, exactly."""
    i, j = np.triu_indices(len(R), 1)
    apart = (R[i] > 0) & (R[j] > 0)
    for labels in groups:
        apart &= labels[i] != labels[j]
    near = np.linalg.norm(points[i] - points[j], axis=1) < (radii[i] + radii[j]) * (1 + 1e-9) + 1e-300
    return all(
        oracles.squared_distance(points[a], points[b]) >= (oracles.Fraction(radii[a]) + oracles.Fraction(radii[b])) ** 2
        for a, b in zip(i[apart & near], j[apart & near], strict=True)
    )


def same_as_listed(points, R, groups, order):
    """Greedy with a reserve by row generation: its radii must be those of the graph under caps that it did not list.

    Up to rounding: a pair that holds without rounding is not listed, where listed it is rounded once more. Where two
    conflicting points have the same place, a ball that just touches them counts for degrees in one of the two ways
    alone, so that an order by degree may be another.
    """
    allocation = allocate(points, R, "greedy", groups=groups or None, order=order, reserve=True)
    assert "rounds" in allocation.stats
    x, labels = _validate.as_points(points), _validate.as_groups(groups or None, len(R))
    caps = caps_as_bounds(near_graph(x, np.asarray(R, dtype=float), labels))
    expected = allocate_graph(overlap_graph(points, caps, groups=groups or None), "greedy", order=order, reserve=True)
    of_one_place = bool((np.asarray(R) > 0)[caps < 1e-300].any())
    if not (of_one_place and isinstance(order, str) and order != "arrival"):
        np.testing.assert_allclose(allocation.radii, expected.radii, rtol=1e-12, atol=1e-12 * np.max(R, initial=0.0))
    assert allocation.method == expected.method
    assert all_constraints_hold(points, R, allocation.radii, groups)
    return allocation


def instance(name, rng):
    """Dense even under caps: points and R."""
    if name == "all alike":  # in high dimension all distances are
        return rng.normal(size=(300, 300)), np.full(300, 40.0)
    if name == "duplicates":
        return rng.random((15, 12))[rng.integers(15, size=350)], rng.random(350) * 3
    if name == "clusters":
        return rng.random((5, 40))[rng.integers(5, size=350)] + rng.normal(size=(350, 40)) * 0.1, rng.random(350) * 2
    points = np.append(rng.normal(size=(349, 3)) * 0.1, [[9.0, 0.0, 0.0]], axis=0)  # "one far", in a tree's dimension
    return points, np.full(350, 10.0)


@pytest.mark.usefixtures("generated")
class TestRows:
    """Rows generated until none is violated: the same as with all of them."""

    @pytest.mark.parametrize("method", ["matching", "lp"])
    @settings(max_examples=150)
    @given(instance=strategies.grouped_instances(max_points=14), seed=st.integers(0, 2**32 - 1))
    def test_the_optimum_is_the_same(self, method, instance, seed):
        points, R, groups = instance
        weights = np.random.default_rng(seed).exponential(size=len(R)).round(1) if method == "lp" else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_rows, "_ROWS", 1)
            patch.setattr(_rows, "_KEPT", 2)
            patch.setattr(_capped, "_NEIGHBOURS", 1)
            allocation = allocate(points, R, method, groups=groups or None, weights=weights)
        best = oracles.optimum(points, R, groups, weights)
        assert allocation.objective == pytest.approx(best, rel=1e-9, abs=1e-300)
        assert allocation.objective <= allocation.upper_bound
        assert allocation.upper_bound >= best * (1 - 1e-9)
        assert allocation.gap <= 1e-9
        assert all_constraints_hold(points, R, allocation.radii, groups)
        checked = verify(points, allocation.radii, R, groups=groups or None, certificate=allocation.certificate)
        assert checked
        assert method == "lp" or allocation.objective <= checked.upper_bound <= best * (1 + 1e-9) + 1e-140

    @pytest.mark.parametrize("name", ["all alike", "duplicates", "clusters", "one far"])
    @pytest.mark.parametrize("labels", [None, 2, 40])
    def test_dense_instances(self, rng, name, labels):
        points, R = instance(name, rng)
        groups = None if labels is None else rng.integers(labels, size=len(R))
        full = overlap_graph(points, R, groups=groups)
        weights = rng.integers(1, 4, size=len(R)).astype(float)
        for method, given_weights in (("matching", None), ("lp", None), ("auto", weights)):
            expected = allocate_graph(full, "matching" if given_weights is None else "lp", weights=given_weights)
            allocation = allocate(points, R, method, groups=groups, weights=given_weights)
            assert allocation.stats["edges"] < full.n_edges / 2
            assert allocation.objective == pytest.approx(expected.objective, rel=1e-9)
            assert allocation.upper_bound == pytest.approx(expected.upper_bound, rel=1e-9)
            assert allocation.gap <= 1e-9
            assert verify(points, allocation.radii, R, groups=groups)
            assert all_constraints_hold(points, R, allocation.radii, () if groups is None else (groups,))

    @settings(max_examples=150)
    @given(
        instance=strategies.grouped_instances(max_points=14),
        order=st.sampled_from(["ascending", "descending", "arrival", "shuffled"]),
    )
    def test_greedy_with_reserve_is_the_same(self, instance, order):
        points, R, groups = instance
        order = np.random.default_rng(0).permutation(len(R)) if order == "shuffled" else order
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_rows, "_ROWS", 1)
            patch.setattr(_rows, "_KEPT", 2)
            patch.setattr(_capped, "_NEIGHBOURS", 1)
            allocation = same_as_listed(points, R, groups, order)
        best = oracles.optimum(points, R, groups)
        assert best / 2 * (1 - 1e-9) <= allocation.objective <= best * (1 + 1e-9)
        assert allocation.upper_bound >= best * (1 - 1e-9)

    @pytest.mark.parametrize("name", ["all alike", "duplicates", "clusters", "one far"])
    @pytest.mark.parametrize("labels", [None, 2, 40])
    @pytest.mark.parametrize("order", ["ascending", "descending", "arrival"])
    def test_greedy_with_reserve_on_dense_instances(self, rng, name, labels, order):
        points, R = instance(name, rng)
        groups = () if labels is None else (rng.integers(labels, size=len(R)),)
        full = overlap_graph(points, R, groups=groups or None)
        assert same_as_listed(points, R, groups, order).stats["edges"] < full.n_edges / 2

    def test_neighbours_that_share_a_label_leave_everything_to_the_rows(self, rng):
        # ten nearest neighbours are of the same label: no pair to start with
        points = np.repeat(rng.normal(size=(2, 20)), 300, axis=0) + rng.normal(size=(600, 20)) * 1e-3
        R, groups = np.full(600, 50.0), np.repeat([0, 1], 300)
        expected = allocate_graph(overlap_graph(points, R, groups=groups), "matching")
        allocation = allocate(points, R, "matching", groups=groups)
        assert allocation.stats["rounds"] > 1
        assert allocation.objective == pytest.approx(expected.objective, rel=1e-12)
        assert allocation.stats["edges"] < expected.stats["edges"] / 2

    def test_blocks_do_not_change_the_radii(self, rng, monkeypatch):
        points, R = instance("clusters", rng)
        whole = allocate(points, R, "matching")
        monkeypatch.setattr(_rows, "_KEPT", 100)
        for module in (_search, products):
            monkeypatch.setattr(module, "TILE", 16)
        monkeypatch.setattr(_search, "_TOGETHER", 1)
        parts = allocate(points, R, "matching")
        np.testing.assert_array_equal(parts.graph.i, whole.graph.i)
        np.testing.assert_array_equal(parts.radii, whole.radii)

    def test_a_solver_that_stops_leaves_feasible_radii_and_a_valid_bound(self, rng, monkeypatch):
        from regions._methods import solvers

        points, R = instance("all alike", rng)
        best = allocate_graph(overlap_graph(points, R), "matching").objective
        real, calls = solvers.solve, []

        def first_only(*args):
            solution = real(*args)
            calls.append(args)
            return replace(solution, optimal=False, status="broken: mend it") if len(calls) > 1 else solution

        monkeypatch.setattr(solvers, "solve", first_only)
        with pytest.warns(RuntimeWarning, match="highs stopped before the optimum: broken: mend it") as caught:
            allocation = allocate(points, R)
        assert len(caught) == 1
        assert allocation.status == "broken: mend it"
        assert len(calls) == allocation.stats["rounds"] == 2
        assert 0.5 * best < allocation.objective <= best * (1 + 1e-12)
        assert allocation.upper_bound >= best
        assert all_constraints_hold(points, R, allocation.radii)

    def test_a_time_limit_ends_the_rounds(self, rng):
        points, R = instance("clusters", rng)
        with pytest.warns(RuntimeWarning, match="time limit reached"):
            allocation = allocate(points, R, time_limit=1e-9)
        assert allocation.stats["rounds"] == 1
        assert verify(points, allocation.radii, R)
        assert allocation.upper_bound >= allocate(points, R).objective


def test_rows_are_generated_where_caps_leave_a_dense_graph(rng):
    points, R = rng.normal(size=(600, 300)), np.full(600, 40.0)  # enough for a sample
    allocation = allocate(points, R, "matching")
    assert allocation.stats["rounds"] >= 2
    np.testing.assert_array_equal(allocation.graph.R, R)
    assert "rounds" not in allocate(points[:, :3], R, "matching").stats
    assert allocate(points, R, "greedy", reserve=True).stats["rounds"] >= 2


@pytest.mark.parametrize("method", ["lp", "matching", "max-min"])
def test_points_of_one_place_still_constrain_others_under_their_caps(monkeypatch, method):
    # The near graph lists one of the three pairs of the last point; its cap is 0 all the same.
    monkeypatch.setattr(_allocate, "sparse_enough", lambda x, R, labels: R.max() < 0.5 or (R < 0.5).any())
    monkeypatch.setattr(_capped, "_NEIGHBOURS", 1)
    labels = np.array([0, 0, 0, 1])
    found = allocate(np.zeros((4, 1)), np.full(4, 0.5), method, groups=labels)
    assert found.radii.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert found.upper_bound == 0.0
