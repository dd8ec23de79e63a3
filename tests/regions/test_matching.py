"""The combinatorial solver: its optimum, its certificate, and the greedy start with a guarantee."""

import dataclasses

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions import Certificate, allocate, allocate_graph, overlap_graph, verify
from regions._methods import matching as _matching
from tests import oracles, strategies

INSTANCES = st.one_of(strategies.grouped_instances(max_points=12), strategies.assembled_instances())


HASTE = st.sampled_from([(32, 16), (32, 0), (0, 0)])
"""Bids in a row, and columns that a search may look at before there is an auction: as they are, or next to none."""


def check_against_the_lp(graph, haste):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_matching, "_BIDS", haste[0])
        patch.setattr(_matching, "_PATIENCE", haste[1])
        matching = allocate_graph(graph, "matching")
    assert matching.objective == pytest.approx(allocate_graph(graph, "lp").objective, rel=1e-9, abs=1e-300)
    assert matching.gap <= 1e-11


@settings(max_examples=500)
@given(INSTANCES, HASTE)
def test_equals_the_lp(instance, haste):
    points, R, groups = instance
    check_against_the_lp(overlap_graph(points, R, groups=groups or None), haste)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(INSTANCES, HASTE)
def test_equals_the_lp_on_thousands_of_instances(instance, haste):
    points, R, groups = instance
    check_against_the_lp(overlap_graph(points, R, groups=groups or None), haste)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([0.05, 0.2, 1.0]), st.booleans(), HASTE)
def test_equals_the_lp_on_larger_instances(seed, d, largest, lattice, haste):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 6, size=(300, d)) / 6 if lattice else rng.random((300, d))
    R = rng.random(300) * largest if not lattice else rng.integers(0, 4, size=300) / 6
    check_against_the_lp(overlap_graph(points, R, groups=rng.integers(4, size=300) if seed % 2 else None), haste)


@pytest.mark.parametrize("length", [3, 4, 5, 7, 8, 31])
def test_cycles(length):
    # a regular polygon of side 1: half-integral on odd cycles; the optimum is length / 2 either way
    angle = 2 * np.pi * np.arange(length) / length
    points = np.c_[np.cos(angle), np.sin(angle)] / (2 * np.sin(np.pi / length))
    allocation = allocate(points, np.ones(length), "matching", groups=_all_but_cycle(length))
    assert allocation.graph.n_edges == length
    assert allocation.objective == pytest.approx(length / 2, rel=1e-12)


def _all_but_cycle(length):
    """Labels such that exactly the neighbours on the cycle conflict: one array for every other pair."""
    arrays = []
    for i in range(length):
        for j in range(i + 2, length):
            if (i, j) != (0, length - 1):
                labels = np.arange(length)
                labels[j] = i
                arrays.append(labels)
    return arrays or None


def test_nested_clusters_and_stars_over_many_scales(rng):
    points = np.concatenate([rng.normal(size=(40, 3)) * 10.0**-k + k for k in range(7)])
    R = rng.random(280) * 3
    matching, lp = allocate(points, R, "matching"), allocate(points, R, "lp")
    assert matching.objective >= lp.objective * (1 - 1e-9)
    assert matching.gap <= 1e-12


def test_a_graph_that_groups_made_incomplete_needs_the_caps():
    # 0 and 2 conflict with 1 only; without r_1 >= 0 the sum would gain from a negative radius at 1
    points, R = [[0.0], [1.0], [2.0]], [5.0, 5.0, 5.0]
    allocation = allocate(points, R, "matching", groups=["a", "b", "a"])
    assert allocation.radii.tolist() == pytest.approx([1.0, 0.0, 1.0])
    assert allocation.objective == pytest.approx(oracles.optimum(points, R, (["a", "b", "a"],)))


class TestStart:
    @settings(max_examples=200)
    @given(strategies.grouped_instances(max_points=12), st.integers(0, 2**32 - 1))
    def test_any_start_gives_the_optimum(self, instance, seed):
        points, R, groups = instance
        rng = np.random.default_rng(seed)
        best = oracles.optimum(points, R, groups)
        cold = allocate(points, R, "matching", groups=groups or None)
        largest = max(R.max(initial=0.0), 1e-300)
        for start in (np.zeros(len(R)), cold.radii, rng.random(len(R)) * R, np.full(len(R), 10 * largest)):
            warm = allocate(points, R, "matching", groups=groups or None, start=start)
            assert warm.objective == pytest.approx(best, rel=1e-9, abs=1e-300)
            assert warm.objective == pytest.approx(cold.objective, rel=1e-12, abs=1e-300)
            assert warm.gap <= 1e-11
            checked = verify(points, warm.radii, R, groups=groups or None, certificate=warm.certificate)
            assert checked
            assert checked.upper_bound >= warm.objective

    @pytest.mark.parametrize("change", [0.0, 1e-9, 1e-3, 0.3])
    def test_earlier_radii_for_other_bounds(self, rng, change):
        points, R = rng.random((2000, 3)), rng.random(2000) * 0.2
        earlier = allocate(points, R, "matching").radii
        changed = R * (1 + change * rng.uniform(-1, 1, size=2000))
        cold = allocate(points, changed, "matching")
        warm = allocate(points, changed, "matching", start=earlier)
        assert warm.objective == pytest.approx(cold.objective, rel=1e-13)
        assert warm.gap <= 1e-11
        assert verify(points, warm.radii, changed, certificate=warm.certificate)

    def test_it_is_used(self, rng):
        # where the optimum is not unique, the start decides which one is found
        points, R = [[0.0], [1.0]], [1.0, 1.0]
        for start in ([1.0, 0.0], [0.0, 1.0], [0.25, 0.75]):
            assert allocate(points, R, "matching", start=start).radii.tolist() == pytest.approx(start)


class TestCertificate:
    @given(strategies.grouped_instances(max_points=10))
    def test_it_proves_the_optimum_by_arithmetic_alone(self, instance):
        points, R, groups = instance
        allocation = allocate(points, R, "matching", groups=groups or None)
        checked = verify(points, allocation.radii, R, groups=groups or None, certificate=allocation.certificate)
        assert checked
        assert checked.upper_bound >= allocation.objective
        assert checked.upper_bound <= allocation.objective * (1 + 1e-9) + 1e-140

    @given(strategies.instances(max_points=8), st.integers(0, 2**32 - 1))
    def test_any_permutation_of_conflicting_points_gives_a_valid_bound(self, instance, seed):
        points, R = instance
        positive = np.flatnonzero(R > 0)
        partner = np.arange(len(R))
        partner[positive] = positive[np.random.default_rng(seed).permutation(positive.size)]
        certificate = Certificate(partner, np.full(len(R), -1))
        bound = verify(points, np.zeros(len(R)), R, certificate=certificate).upper_bound
        assert bound >= oracles.optimum(points, R) * (1 - 1e-9)

    def test_what_is_no_certificate_is_refused(self):
        points, R = [[0.0], [1.0], [2.0]], [1.0, 1.0, 0.0]
        allocation = allocate(points, R, "matching")
        good = allocation.certificate
        with pytest.raises(ValueError, match="certificate without R"):
            verify(points, allocation.radii, certificate=good)
        for changes, message in (
            ({"partner": np.array([0, 0, 2])}, "partner is not a permutation of 0 .. 2"),
            ({"nearest": np.array([3, -1, -1])}, "nearest must hold -1 or indices below 3"),
            ({"nearest": np.array([0, -1, -1])}, "uses points 0 and 0, which do not conflict"),
            ({"partner": np.array([2, 1, 0])}, "uses points 0 and 2, which do not conflict"),
        ):
            with pytest.raises(ValueError, match=message):
                verify(points, allocation.radii, R, certificate=dataclasses.replace(good, **changes))
        with pytest.raises(ValueError, match="uses points 0 and 1, which do not conflict"):
            verify(points, allocation.radii, R, groups=[7, 7, 8], certificate=good)


class TestReserve:
    @settings(max_examples=200)
    @given(strategies.grouped_instances(max_points=12), st.integers(0, 2**32 - 1))
    def test_at_least_half_of_the_optimum_in_any_order(self, instance, seed):
        points, R, groups = instance
        order = np.random.default_rng(seed).permutation(len(R))
        allocation = allocate(points, R, "greedy", order=order, reserve=True, groups=groups or None)
        best = oracles.optimum(points, R, groups)
        assert best / 2 * (1 - 1e-9) <= allocation.objective <= best * (1 + 1e-9)
        assert allocation.upper_bound >= best * (1 - 1e-9)

    def test_plain_greedy_has_no_such_guarantee(self):
        # a long row of points with a ball in the middle that swallows them all, treated first
        n = 41
        points = 10.0 * np.arange(n)[:, None]
        R = np.where(np.arange(n) == 20, 300.0, 5.0)
        order = np.r_[20, np.delete(np.arange(n), 20)]
        plain = allocate(points, R, "greedy", order=order)
        reserved = allocate(points, R, "greedy", order=order, reserve=True)
        assert np.count_nonzero(plain.radii) == 1
        assert np.count_nonzero(reserved.radii) == n
        assert reserved.objective >= 0.5 * allocate(points, R).objective

    def test_it_keeps_every_point_out_of_every_other_ball(self, rng):
        points, R = rng.random((400, 2)), rng.random(400) * 0.5
        allocation = allocate(points, R, "greedy", reserve=True)
        graph = allocation.graph
        assert (allocation.radii[graph.i] + allocation.radii[graph.j] <= graph.distance).all()
        assert (allocation.radii > 0).all()


def test_auto_says_what_it_chose_and_why(rng):
    points, R = rng.random((50, 2)), rng.random(50)
    equal = allocate(points, R, "auto", weights=np.full(50, 3.0))
    assert equal.method == "matching"
    assert equal.status.endswith("(auto chose matching: the weights are equal)")
    assert equal.objective == pytest.approx(3 * allocate(points, R).objective)
    differing = allocate(points, R, "auto", weights=rng.random(50))
    assert differing.method == "lp (highs)"
    assert differing.status.endswith("(auto chose lp: the weights differ, which matching cannot treat)")
    assert differing.certificate is None


def test_against_a_general_matching_library(rng):
    """Half the least cost of a perfect matching of the double cover, by networkx."""
    points, R = rng.random((14, 2)), rng.random(14) * 0.6
    cover = nx.Graph()
    for i in range(14):
        cover.add_edge(("row", i), ("column", i), weight=2 * R[i])
        for j in range(14):
            if i != j:
                cover.add_edge(("row", i), ("column", j), weight=float(np.linalg.norm(points[i] - points[j])))
    mates = nx.bipartite.minimum_weight_full_matching(cover, [("row", i) for i in range(14)])
    cost = sum(cover.edges[("row", i), mates["row", i]]["weight"] for i in range(14))
    assert allocate(points, R, "matching").objective == pytest.approx(cost / 2, rel=1e-12)
