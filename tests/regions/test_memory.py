"""Points stay where they are: memory maps are read in blocks, and the answer is that of the same array in memory."""

import tracemalloc

import numpy as np
import pytest

from regions import _verify, allocate, allocate_levels, overlap_graph, verify
from regions._search import embedding as _frame
from regions._search import pairs as _search
from regions._search import products

DTYPES = (np.float32, np.float64, np.uint8)
CALLS = {
    "graph": lambda x, R: overlap_graph(x, R),
    "faiss": lambda x, R: overlap_graph(x, R, search="faiss"),
    "matching": lambda x, R: allocate(x, R, "matching"),
    "lp": lambda x, R: allocate(x, R, "lp"),
    "greedy": lambda x, R: allocate(x, R, "greedy"),
    "levels": lambda x, R: allocate_levels(x, [0.5, 1.0], np.column_stack([R, R[::-1]]), sweeps=0),
    "verify": lambda x, R: verify(x, R / 2),
}


def stored(folder, values):
    """The same values as a read-only memory map."""
    np.save(folder / "points.npy", values)
    return np.load(folder / "points.npy", mmap_mode="r")


def instance(rng, n, d, dtype):
    """A few close pairs among many points, far from each other and side by side; values from 0 to 255."""
    points = rng.integers(256, size=(n, d), dtype=np.uint8)
    points[-n // 2 :: 2] = points[1 - n // 2 :: 2] ^ 1
    points[: n // 10] = points[n // 10 : 2 * (n // 10)] ^ 1
    return points.astype(dtype), rng.uniform(0.3, 1.0, size=n) * 2 * np.sqrt(d)


def comparable(answer):
    """Every array of an answer."""
    if hasattr(answer, "overlapping"):
        return [answer.overlapping]
    if hasattr(answer, "radii"):
        return [answer.radii, np.array([answer.objective, answer.upper_bound or 0.0])]
    return [answer.i, answer.j, answer.distance]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [4, 60])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_memory_map_gives_what_the_array_gives(rng, tmp_path, dtype, d, call):
    points, R = instance(rng, 700, d, dtype)
    expected = comparable(call(points, R))
    for given, found in zip(comparable(call(stored(tmp_path, points), R)), expected, strict=True):
        np.testing.assert_array_equal(given, found)
    for given, found in zip(comparable(call(points.astype(np.float64), R)), expected, strict=True):
        np.testing.assert_allclose(given, found, rtol=1e-12)  # one float64 sum may be ordered otherwise
    assert any(array.size for array in expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [3, 60])
def test_exact_decisions_are_those_of_the_values(rng, dtype, d):
    points = np.zeros((300, d), dtype=dtype)
    points[:, :2] = rng.integers(0, 120, size=(300, 2))
    R = np.full(300, 2.5)  # distances of 5 touch
    graph, reference = overlap_graph(points, R), overlap_graph(points.astype(np.float64), R)
    np.testing.assert_array_equal(graph.i, reference.i)
    np.testing.assert_array_equal(graph.j, reference.j)
    squared = ((points[:, None, :2].astype(int) - points[None, :, :2]) ** 2).sum(axis=2)
    assert graph.n_edges == np.count_nonzero(np.triu(squared < 25, 1))
    assert (squared == 25).any()
    result = verify(points, R)
    assert len(result.overlapping) == graph.n_edges


@pytest.mark.parametrize("d", [60, 400])
def test_blocks_do_not_change_the_result(rng, monkeypatch, d):
    points, R = instance(rng, 800, d, np.float32)
    answers = [comparable(call(points, R)) for call in CALLS.values()]
    dense = comparable(allocate(points, R * 20, "matching"))
    monkeypatch.setattr(_search, "_HELD", 1 << 16)
    monkeypatch.setattr(_search, "_FEWEST", 16)
    monkeypatch.setattr(_frame, "_COORDINATES", 1)
    monkeypatch.setattr(_verify, "_ROWS", 100)
    for expected, call in zip(answers, CALLS.values(), strict=True):
        for given, found in zip(comparable(call(points, R)), expected, strict=True):
            np.testing.assert_array_equal(given, found)
    assert comparable(allocate(points, R * 20, "matching"))[1][0] == pytest.approx(dense[1][0], rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_memory_does_not_grow_with_a_copy(rng, tmp_path, monkeypatch, dtype, call):
    # NumPy reports its arrays to tracemalloc; FAISS's index, which it does not see, holds one of the blocks
    monkeypatch.setattr(_search, "_HELD", 1 << 19)
    for module in (_search, products):
        monkeypatch.setattr(module, "TILE", 128)
    monkeypatch.setattr(_frame, "_COORDINATES", 64 * 600)
    monkeypatch.setattr(_verify, "_ROWS", 64)
    few, many, d = 600, 1800, 600
    mapped, R = stored(tmp_path, instance(rng, many, d, dtype)[0]), rng.random(many)
    call(mapped[:few], R[:few])  # compiles
    peak = {}
    for n in (few, many):
        tracemalloc.start()
        call(mapped[:n], R[:n])
        peak[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak[many] - peak[few] < (many - few) * d * 8 / 6  # a copy as float64, or even as float32, takes more


def test_verify_converts_fewer_points_at_once_the_more_coordinates_they_have(rng, monkeypatch):
    n, d = 400, 20_000
    points, R = rng.integers(256, size=(n, d), dtype=np.uint8), np.ones(n)
    monkeypatch.setattr(_verify, "_COORDINATES", 10 * d)
    tracemalloc.start()
    found = verify(points, R)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found
    assert peak < n * d * 8 / 2  # all points as float64 take twice that


@pytest.mark.parametrize("options", [{"method": "matching"}, {"method": "greedy", "reserve": True}])
def test_where_every_pair_overlaps_they_are_not_all_held(rng, monkeypatch, options):
    n = 1500
    points, R = rng.normal(size=(n, 300)), np.full(n, 40.0)
    allocate(points[:600], R[:600], **options)  # compiles
    for module in (_search, products):
        monkeypatch.setattr(module, "TILE", 256)
    monkeypatch.setattr(_search, "_TOGETHER", 1 << 16)
    tracemalloc.start()
    allocation = allocate(points, R, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert allocation.objective < R.sum() / 2  # so balls do get into each other's way
    assert peak < n * (n - 1) / 2 * 24  # their indices and distances take more, even without an adjacency
