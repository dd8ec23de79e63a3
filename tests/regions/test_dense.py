"""Where very many balls overlap: the answers of the listed graph, without listing it, or one clear line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions import (
    TooManyOverlaps,
    _allocate,
    _verify,
    allocate,
    allocate_graph,
    allocate_levels,
    overlap_degrees,
    overlap_graph,
    verify,
)
from regions._dense import greedy_stream as _greedy_stream
from regions._levels import allocate_levels as _levels
from tests import strategies

ORDERS = ("ascending", "descending", "arrival", "shuffled")


def shape(name, rng, n):
    """Points and bounds of instances in which most pairs overlap."""
    if name == "identical":
        return np.zeros((n, 2)), np.ones(n)
    if name == "identical, own R":
        return np.full((n, 3), 0.1), rng.random(n)
    if name == "two clusters":
        return np.repeat([[0.0, 0.0], [1.0, 0.0]], [n // 2, n - n // 2], axis=0), np.full(n, 0.75)
    if name == "line":
        return np.arange(n, dtype=float)[:, None], np.full(n, 1e6)
    if name == "star":
        return np.append(rng.random((n - 1, 2)) * n, [[n / 2, n / 2]], axis=0), np.append(np.full(n - 1, 0.1), 2.0 * n)
    return rng.random((n, 784)).astype(np.float32), np.full(n, 1e6)


SHAPES = ("identical", "identical, own R", "two clusters", "line", "star", "high dimension")


@settings(max_examples=150)
@given(strategies.grouped_instances(max_points=14))
def test_degrees_are_those_of_the_graph(instance):
    points, R, groups = instance
    expected = overlap_graph(points, R, groups=groups or None).degree
    np.testing.assert_array_equal(overlap_degrees(points, R, groups=groups or None), expected)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("arrays", [0, 1, 2])
def test_degrees_where_most_pairs_overlap(rng, name, arrays):
    points, R = shape(name, rng, 120)
    R[::11] = 0.0
    R[5] = 1e9
    groups = [rng.integers(3, size=120) for _ in range(arrays)]
    expected = overlap_graph(points, R, groups=groups or None).degree
    np.testing.assert_array_equal(overlap_degrees(points, R, groups=groups or None), expected)


@settings(max_examples=150)
@given(strategies.grouped_instances(max_points=14), st.sampled_from(ORDERS), st.sampled_from([2, 512]))
def test_greedy_is_that_of_the_graph(instance, order, block):
    points, R, groups = instance
    order = np.random.default_rng(0).permutation(len(R)) if order == "shuffled" else order
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_allocate, "sparse_enough", lambda *_: False)
        patch.setattr(_greedy_stream, "_BLOCK", block)
        found = allocate(points, R, "greedy", groups=groups or None, order=order)
    expected = allocate_graph(overlap_graph(points, R, groups=groups or None), "greedy", order=order)
    np.testing.assert_allclose(found.radii, expected.radii, rtol=1e-12, atol=1e-12 * np.max(R, initial=0.0))
    assert verify(points, found.radii, R, groups=groups or None)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("order", ["ascending", "descending", "arrival"])
@pytest.mark.parametrize("grouped", [False, True])
def test_greedy_where_most_pairs_overlap(rng, name, order, grouped):
    points, R = shape(name, rng, 700)  # enough for a sample
    groups = rng.integers(3, size=700) if grouped else None
    found = allocate(points, R, "greedy", groups=groups, order=order)
    expected = allocate_graph(overlap_graph(points, R, groups=groups), "greedy", order=order)
    np.testing.assert_allclose(found.radii, expected.radii, rtol=1e-12)
    assert found.method == expected.method
    assert verify(points, found.radii, R, groups=groups)
    if name != "star":
        assert found.graph.n_edges < 700 < expected.graph.n_edges


METHODS = (
    {"method": "lp"},
    {"method": "matching"},
    {"method": "max-min"},
    {"method": "greedy", "reserve": True},
)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("options", METHODS)
def test_methods_that_keep_every_constraint(rng, name, options):
    points, R = shape(name, rng, 520)
    found = allocate(points, R, **options)
    if options["method"] in ("lp", "matching"):
        expected = allocate_graph(overlap_graph(points, R), "matching")  # an LP of all pairs takes a minute
        assert found.objective == pytest.approx(expected.objective, rel=1e-9, abs=1e-100)
    assert found.objective <= found.upper_bound
    x = points.astype(np.float64)
    for k in range(520):  # Eq. 10, empty balls included; R > 0 everywhere
        distance = np.linalg.norm(np.delete(x, k, axis=0) - x[k], axis=1)
        assert (found.radii[k] + np.delete(found.radii, k) <= distance * (1 + 1e-12)).all()
    assert verify(points, found.radii, R)


@pytest.mark.parametrize("options", [*METHODS, {"method": "greedy"}, {"method": "greedy", "order": "descending"}])
def test_many_identical_points_look_at_few_pairs(monkeypatch, options):
    n = 3000
    looked_at = []
    measure = _greedy_stream.distances_below

    def counted(x, y, i, j, a, b):
        looked_at.append(i.size)
        return measure(x, y, i, j, a, b)

    for module in ("_graph", "_dense.caps", "_dense.greedy_stream"):
        monkeypatch.setattr(f"regions.{module}.distances_below", counted)
    radii = allocate(np.zeros((n, 3)), np.ones(n), **options).radii
    assert verify(np.zeros((n, 3)), radii)
    assert sum(looked_at) < 100 * n + 512**2  # all pairs are 1,500 for each point; a sample is looked at beforehand


def test_a_graph_that_is_too_large_is_refused_before_it_is_listed():
    points, R = np.zeros((300, 2)), np.ones(300)
    with pytest.raises(TooManyOverlaps, match="more than 1,000 pairs of balls overlap, too many to list: lower R"):
        overlap_graph(points, R, most=1000)
    assert overlap_graph(points, R, most=300 * 299 // 2).n_edges == 300 * 299 // 2
    with pytest.raises(ValueError, match="most = -1: expected an integer >= 0"):
        overlap_graph(points, R, most=-1)


@pytest.mark.parametrize("name", SHAPES)
def test_levels_fall_back_on_the_simple_answers(rng, monkeypatch, name):
    points, R = shape(name, rng, 100)
    table = np.column_stack([R, R * rng.random(100) * 1.5])
    labels = rng.integers(2, size=(100, 2))
    searched = allocate_levels(points, [0.25, 0.5], table, groups=labels)
    monkeypatch.setattr(_levels, "_MOST_EDGES", 10)
    found = allocate_levels(points, [0.25, 0.5], table, groups=labels)
    assert "no search, because more than" in found.status
    simple = max(searched.stats["objective_best_level"], searched.stats["objective_common_level"])
    assert found.objective == pytest.approx(simple, rel=1e-9)
    assert found.objective <= searched.upper_bound * (1 + 1e-12) <= found.upper_bound * (1 + 2e-12)
    own = [found.level, labels[np.arange(100), found.level]]
    assert verify(points, found.radii, table[np.arange(100), found.level], groups=own)


@pytest.mark.parametrize("n", [300, 6000])  # products, trees
def test_verify_stops_where_nearly_all_overlap(monkeypatch, n):
    monkeypatch.setattr(_verify, "_MOST", 1000)
    found = verify(np.zeros((n, 2)), np.ones(n))
    assert not found
    assert len(found.overlapping) == 1000
    assert found.status.endswith("(1000 pairs or more)")
