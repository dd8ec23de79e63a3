import numpy as np
import pytest
from hypothesis import given
from scipy.spatial.distance import pdist, squareform

from regions import _verify, verify
from tests import oracles, strategies


@given(strategies.grouped_instances(max_points=12))
def test_finds_exactly_the_overlaps(instance):
    points, radii, groups = instance
    result = verify(points, radii, groups=groups or None)
    expected = oracles.overlaps(points, radii, groups)
    assert [tuple(pair) for pair in result.overlapping.tolist()] == expected
    assert bool(result) == (not expected)


@pytest.mark.parametrize("d", [1, 2, 64, 784])
def test_one_unit_in_the_last_place_is_an_overlap(rng, d):
    x = rng.integers(-4, 4, size=d).astype(float)
    y = x.copy()
    y[: min(d, 2)] += [3.0, 4.0] if d > 1 else [5.0]
    radii = np.array([1.75, 3.25])
    assert verify([x, y], radii)
    radii[0] = np.nextafter(1.75, 2)
    result = verify([x, y], radii)
    assert not result
    assert result.status.startswith("balls 0 and 1 overlap: radii 1.7500000000000002 + 3.25 exceed their distance 5.0")


@pytest.mark.parametrize("d", [2, 3])
def test_tree_and_products_agree(rng, monkeypatch, d):
    points = rng.random((6000, d))
    radii = rng.exponential(0.008 if d == 2 else 0.02, size=6000) * (rng.random(6000) > 0.1)
    radii[:3] = 0.2, 1e-30, 0.1
    monkeypatch.setattr(_verify, "_PAIRS", 5000)  # more than one block
    with_tree = verify(points, radii)
    monkeypatch.setattr(_verify, "_TREE_POINTS", 10**9)
    with_products = verify(points, radii)
    np.testing.assert_array_equal(with_tree.overlapping, with_products.overlapping)
    i, j = np.nonzero(np.triu((squareform(pdist(points)) < radii[:, None] + radii) & (radii[:, None] * radii > 0), 1))
    np.testing.assert_array_equal(with_tree.overlapping, np.c_[i, j])
    assert len(i) > 1000


def test_blocks_do_not_change_the_result(rng, monkeypatch):
    points, radii = rng.random((500, 12)), rng.random(500) * 0.6
    whole = verify(points, radii)
    monkeypatch.setattr(_verify, "_ROWS", 17)
    np.testing.assert_array_equal(verify(points, radii).overlapping, whole.overlapping)
    assert len(whole.overlapping) > 10


def test_overlaps_that_underflow_when_squared():
    assert not verify([[0.0], [3.44e-162]], [1.8e-162, 1.8e-162])
    assert verify([[0.0], [3.44e-162]], [1.7e-162, 1.7e-162])


def test_radii_above_their_bounds():
    result = verify([[0.0], [5.0]], [1.0, np.nextafter(2.0, 3)], R=[1.0, 2.0])
    assert not result
    assert result.out_of_bounds.tolist() == [1]
    assert result.status == "radii[1] = 2.0000000000000004 exceeds its bound R[1] = 2.0 (1 in all)"


def test_balls_inside_one_another_and_empty_balls():
    assert not verify([[0.0], [0.1]], [5.0, 1e-3])
    assert verify([[0.0], [0.1]], [5.0, 0.0])
    assert verify([[1.0], [1.0]], [0.0, 7.0])
    assert not verify([[1.0], [1.0]], [1e-300, 1e-300])


def test_nothing_to_verify():
    assert verify(np.zeros((0, 3)), [])
    assert verify([[0.0]], [1.0]).status == "no overlap among 1 non-empty balls"
