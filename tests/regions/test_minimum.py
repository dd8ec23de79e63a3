"""`r_min`, the least radius of all balls: kept exactly, optimal, and refused with the pair that forbids it."""

import itertools
import re
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions import OverlapGraph, allocate, allocate_graph, overlap_graph, verify
from regions._arithmetic.distances import relative_error
from regions._arithmetic.loops import add_down, subtract_down
from regions._dense.row_generation import generate_rows
from regions._graph import from_blocks
from regions._methods import lp
from regions._methods.minimum import with_minimum
from regions._methods.problem import Problem
from regions._methods.repair import trim_edges
from tests import oracles
from tests.strategies import SCALES

KEEPING = {
    "lp": {"method": "lp"},
    "lp-cvxpy": {"method": "lp", "solver": "cvxpy"},
    "matching": {"method": "matching"},
    "auto": {"method": "auto"},
    "max-min": {"method": "max-min"},
    "greedy": {"method": "greedy", "reserve": True},
    "greedy-descending": {"method": "greedy", "reserve": True, "order": "descending"},
}
EXACT = ("lp", "matching", "auto")


def forbidding(points, r_min, groups=()):
    """Conflicting pairs that are closer than twice the least radius, exactly."""
    least = (2 * Fraction(float(r_min))) ** 2
    return {
        (i, j)
        for i, j in itertools.combinations(range(len(points)), 2)
        if oracles.conflicts(groups, i, j) and oracles.squared_distance(points[i], points[j]) < least
    }


@st.composite
def problems(draw):
    """(points, R, groups, r_min): lattices or random points; r_min often exactly half of some distance."""
    n, d = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lattice = draw(st.booleans())
    points = rng.integers(0, 4, size=(n, d)).astype(float) if lattice else rng.normal(size=(n, d))
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)] or [1.0]
    r_min = draw(st.sampled_from([min(distances) / 2, min(distances) / 3, np.median(distances) / 2, 0.5, 0.0]))
    r_min = float(np.nextafter(r_min, draw(st.sampled_from([0.0, r_min, np.inf])))) if r_min else 0.0
    R = r_min + rng.exponential(size=n) * rng.integers(0, 2, size=n)
    R[draw(st.integers(0, n - 1))] *= draw(st.sampled_from([1.0, 1.0, 1.0, 0.9]))
    groups = [rng.integers(0, 3, size=n) for _ in range(draw(st.integers(0, 1)))]
    scale = draw(st.sampled_from(SCALES))
    return points * scale, R * scale, groups, r_min * scale


@pytest.mark.parametrize("name", KEEPING)
@given(problem=problems())
def test_kept_to_the_last_digit_or_refused_with_a_pair_that_forbids_it(name, problem):
    points, R, groups, r_min = problem
    forbidden = forbidding(points, r_min, groups)
    try:
        found = allocate(points, R, **KEEPING[name], groups=groups or None, r_min=r_min)
    except ValueError as error:
        message = str(error)
        if (r_min > R).any():
            assert re.fullmatch(r"r_min = \S+ exceeds R\[\d+\] = \S+: lower r_min, or leave point \d+ out", message)
        else:
            pair = re.match(r"r_min = \S+: points (\d+) and (\d+) are \S+ apart", message)
            assert (int(pair[1]), int(pair[2])) in forbidden
        return
    assert not forbidden
    assert (found.radii >= r_min).all()
    assert (found.radii <= R).all()
    assert not oracles.overlaps(points, found.radii, groups)
    best = oracles.optimum(points, R, groups, r_min=r_min)
    assert found.upper_bound >= best * (1 - 1e-7)
    assert found.objective <= found.upper_bound
    assert found.objective >= best * ((1 - 1e-7) if name in EXACT else 0.5)
    if name in EXACT:
        assert found.gap < 1e-9
        assert "optimal: proven" in found.status
    check = verify(points, found.radii, R, groups=groups or None, r_min=r_min, certificate=found.certificate)
    assert check, check.status
    if found.certificate is not None:
        assert best * (1 - 1e-7) <= check.upper_bound <= found.objective * (1 + 1e-9) + 1e-140


def below_half_the_diagonal():
    """The largest float64 below half the diagonal of a unit square, which is none itself."""
    half = np.sqrt(2.0) / 2
    return half if Fraction(half) ** 2 < Fraction(1, 2) else np.nextafter(half, 0)


def test_balls_that_touch_at_the_least_radius_are_decided_exactly():
    points, R, r_min = np.array([[0.0, 0.0], [1.0, 1.0]]), [1.0, 1.0], below_half_the_diagonal()
    assert allocate(points, R, r_min=r_min).radii.tolist() == [r_min, r_min]
    with pytest.raises(ValueError, match="points 0 and 1"):
        allocate(points, R, r_min=np.nextafter(r_min, 1))


def test_a_ball_with_room_gets_its_bound_to_the_last_digit():
    R = [0.75, 0.3, 1 / 3]
    assert allocate([[0.0], [10.0], [20.0]], R, r_min=0.1).radii.tolist() == R


def test_zero_is_no_minimum(rng):
    points, R = rng.random((30, 2)), rng.random(30) * (rng.random(30) > 0.3)
    np.testing.assert_array_equal(allocate(points, R, r_min=0).radii, allocate(points, R).radii)


def test_weights_and_a_minimum_together(rng):
    points, R, weights = rng.random((40, 2)), np.full(40, 0.4), rng.exponential(size=40)
    r_min = 0.9 * min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)) / 2
    found = allocate(points, R, weights=weights, r_min=r_min)
    assert found.gap < 1e-9
    assert found.objective == pytest.approx(oracles.optimum(points, R, weights=weights, r_min=r_min), rel=1e-7)
    assert (found.radii == r_min).any()


def test_matching_starts_from_earlier_radii(rng):
    points, R = rng.random((60, 2)), np.full(60, 0.3)
    first = allocate(points, R, "matching", r_min=1e-3)
    again = allocate(points, R, "matching", r_min=2e-3, start=first.radii)
    assert again.objective == pytest.approx(allocate(points, R, "lp", r_min=2e-3).objective, rel=1e-9)


@pytest.fixture(scope="module")
def dense():
    """Points in many dimensions, all of whose pairs overlap, and half of the least distance."""
    rng = np.random.default_rng(5)
    points = rng.normal(size=(560, 40))
    squares = (points**2).sum(axis=1)
    squared = squares[:, None] + squares - 2 * points @ points.T + np.diag(np.full(560, np.inf))
    return points, np.full(560, 20.0), np.sqrt(squared.min()) / 2 * (1 - 1e-9)


@pytest.mark.parametrize("name", ["lp", "matching", "max-min", "greedy"])
def test_row_generation_keeps_it_too(dense, name):
    points, R, most = dense
    found = allocate(points, R, **KEEPING[name], r_min=most)
    assert found.stats["rounds"] >= 1
    assert verify(points, found.radii, R, r_min=most, certificate=found.certificate)
    listed = allocate_graph(overlap_graph(points, R), **KEEPING[name], r_min=most)
    assert found.objective == pytest.approx(listed.objective, rel=1e-9)
    assert found.upper_bound >= listed.objective


def test_row_generation_names_the_pair_that_forbids_it(dense):
    points, R, most = dense
    with pytest.raises(ValueError, match=r"r_min = \S+: points (\d+) and (\d+) are") as refused:
        allocate(points, R, r_min=most * 1.001)
    i, j = map(int, re.search(r"points (\d+) and (\d+)", str(refused.value)).groups())
    assert np.linalg.norm(points[i] - points[j]) < 2 * most * 1.001


def test_row_generation_that_stops_early_keeps_it(dense):
    points, R, most = dense
    with pytest.warns(RuntimeWarning, match="time limit reached"):
        found = allocate(points, R, r_min=most, time_limit=1e-9)
    assert verify(points, found.radii, R, r_min=most)


def test_row_generation_decides_exactly_about_pairs_that_it_did_not_begin_with():
    points, R, r_min = np.array([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]]), np.full(3, 2.0), below_half_the_diagonal()

    def generated(r_min):
        problem = Problem(from_blocks(R, relative_error(2), []), None, r_min=r_min)
        return generate_rows(partial(with_minimum, lp.solve), points, (), "tree", None, problem)

    assert generated(r_min).radii.tolist() == [r_min, r_min, 2.0]
    with pytest.raises(ValueError, match="points 0 and 1"):
        generated(np.nextafter(r_min, 1))


def test_a_graph_of_ones_own(rng):
    """Distances of a graph without points count as they are."""
    graph = OverlapGraph(np.full(3, 4.0), np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([2.0, 3.0, 4.0]), 0.0)
    assert allocate_graph(graph, r_min=1.0).radii.tolist() == [1.0, 1.0, 2.0]
    with pytest.raises(ValueError, match=r"points 0 and 1 are 2\.0 apart.*up to 1\.0"):
        allocate_graph(graph, r_min=1.5)


def test_plain_greedy_and_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"r_min = 0.1: method='greedy' keeps no least radius; add reserve=True"):
        allocate([[0.0], [1.0]], [1.0, 1.0], "greedy", r_min=0.1)
    for wrong in (-1.0, np.nan, np.inf, True):
        with pytest.raises(ValueError, match="r_min = "):
            allocate([[0.0], [1.0]], [1.0, 1.0], r_min=wrong)


def test_verify_finds_radii_below_it():
    check = verify([[0.0], [1.0], [3.0]], [0.5, 0.4, 0.3], r_min=0.4)
    assert not check
    assert check.too_small.tolist() == [2]
    assert check.status == "radii[2] = 0.3 is below r_min = 0.4 (1 in all)"
    assert verify([[0.0], [1.0], [3.0]], [0.5, 0.4, 0.3], r_min=0.3)


LENGTHS = st.floats(0.0, 1e150)


@given(a=LENGTHS, b=LENGTHS | st.floats(0.0, 1.0))
def test_sums_and_differences_are_rounded_down_as_little_as_can_be(a, b):
    total = float(add_down(a, b))
    assert Fraction(total) <= Fraction(a) + Fraction(b) < Fraction(float(np.nextafter(total, np.inf)))
    larger, smaller = max(a, b), min(a, b)
    rest = float(subtract_down(larger, smaller))
    assert rest >= 0
    assert Fraction(smaller) + Fraction(rest) <= Fraction(larger)


def test_repairing_lowers_both_balls_where_lowering_the_larger_is_not_enough():
    radii = np.array([5.0, 4.0])
    trim_edges(np.array([0]), np.array([1]), np.array([3.0]), True, 0.0, radii)
    assert radii.tolist() == [0.0, 3.0]
    radii = np.array([5.0, 4.0])
    trim_edges(np.array([0]), np.array([1]), np.array([4.5]), True, 1.0, radii)
    assert radii.tolist() == [1.0, 3.5]
