"""Every search lists the same edges, bit for bit, and they are those of exact arithmetic."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from regions import _allocate, allocate, overlap_graph
from regions._search import pairs as pair_search
from regions._search import products
from tests import oracles

SEARCHES = ("auto", "faiss", "blocks", "tree")


def edges(graph):
    return np.column_stack([graph.i, graph.j])


def assert_same(graphs):
    first = graphs[0]
    for graph in graphs[1:]:
        for name in ("i", "j", "distance"):
            np.testing.assert_array_equal(getattr(graph, name), getattr(first, name))


@st.composite
def instances(draw):
    """Points in 1 to 200 dimensions: a cloud, copies, a lattice of touching balls, or far clusters."""
    d = draw(st.one_of(st.integers(1, 13), st.integers(14, 200)))
    n = draw(st.integers(0, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["cloud", "copies", "lattice", "clusters"]))
    cloud = rng.normal(size=(n, d))
    if kind == "cloud":
        points, R = cloud, rng.exponential(0.7 * d**0.5, size=n)
    elif kind == "copies":
        points, R = cloud[rng.integers(max(n, 1), size=n) // 3], rng.choice([0.0, 1e-9, 0.5, 2.0], size=n)
    elif kind == "lattice":  # steps of 3, 4 and 5
        points = np.zeros((n, d))
        points[:, 0], points[:, -1] = 3.0 * rng.integers(3, size=n), 4.0 * rng.integers(3, size=n)
        R = rng.choice([0.0, 1.0, 1.5, 2.0, 2.5, np.nextafter(2.5, 3.0)], size=n)
    else:
        points = np.sign(cloud) * 1e3 + 1e-4 * rng.normal(size=(n, d))
        R = rng.choice([0.0, 1.0], size=n, p=[0.1, 0.9]) * rng.exponential(1e-4 * d**0.5, size=n)
    shift = draw(st.sampled_from([0.0, 0.0, 1e6]))
    scale = draw(st.sampled_from([1.0, 2.0**-40, 1e-140, 1e140]))
    return (points + shift) * scale, R * scale


@settings(max_examples=150)
@given(instances())
def test_all_searches_list_the_exact_edges(instance):
    points, R = instance
    graphs = [overlap_graph(points, R, search=search) for search in SEARCHES]
    assert list(map(tuple, edges(graphs[0]).tolist())) == oracles.edges(points, R)
    assert_same(graphs)


@pytest.mark.parametrize("d", [2, 40, 300])
def test_many_points_in_small_tiles(rng, monkeypatch, d):
    points = rng.normal(size=(20, d))[rng.integers(20, size=700)] + rng.normal(size=(700, d)) * 0.3
    R = rng.exponential(0.15 * d**0.5, size=700) * (rng.random(700) > 0.1)
    expected = np.argwhere(np.triu(squareform(pdist(points)) < R[:, None] + R, 1) & np.outer(R > 0, R > 0))
    whole = [overlap_graph(points, R, search=search) for search in SEARCHES]
    for module in (pair_search, products):
        monkeypatch.setattr(module, "TILE", 48)
    graphs = whole + [overlap_graph(points, R, search=search) for search in SEARCHES]
    np.testing.assert_array_equal(edges(graphs[0]), expected)
    assert 700 < len(expected) < 700 * 699 / 2
    assert_same(graphs)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("d", [1, 12, 200, 3072])
def test_margins_cover_float32(rng, d, search):
    # pairs a ten-millionth closer than their radii reach, far from the mean: products in float32 are wrong by more
    far = np.sign(rng.normal(size=(150, d))) * 100 + rng.normal(size=(150, d)) * 1e-3
    direction = rng.normal(size=(150, d))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = np.concatenate([far, far + direction * 2e-4 * (1 - 1e-7)])
    graph = overlap_graph(points, np.full(300, 1e-4), search=search)
    assert {(k, k + 150) for k in range(150)} <= set(map(tuple, edges(graph).tolist()))


def test_without_a_margin_products_would_miss_pairs(rng, monkeypatch):
    # the instances above can fail: with no room for float32, FAISS and NumPy both lose pairs
    from regions._search import embedding

    far = np.sign(rng.normal(size=(150, 200))) * 100 + rng.normal(size=(150, 200)) * 1e-3
    points, R = np.concatenate([far, far]), np.full(300, 1e-6)
    expected = [(k, k + 150) for k in range(150)]
    searches = ("faiss", "blocks")
    for search in searches:
        assert list(map(tuple, edges(overlap_graph(points, R, search=search)).tolist())) == expected
    monkeypatch.setattr(embedding, "_UNIT32", 0.0)
    for search in searches:
        assert overlap_graph(points, R, search=search).n_edges < 150


class TestSample:
    """In a long search, `auto` times both products on the first tiles."""

    @pytest.fixture
    def used(self, monkeypatch):
        """Small tiles, every search long; how often each backend was asked."""
        for module in (pair_search, products):
            monkeypatch.setattr(module, "TILE", 32)
        monkeypatch.setattr(products, "_SAMPLED_FROM", 0)
        return {}

    def slowed(self, monkeypatch, used, slow):
        """Both backends, one of them slow by the clock that the sample reads."""
        clock = [0.0]
        monkeypatch.setattr(products.time, "perf_counter", lambda: clock[0])
        for name in ("by_blocks", "by_faiss"):
            real = getattr(products, name)

            def backend(queries, name=name, real=real):
                find = real(queries)

                def found(targets):
                    used[name] = used.get(name, 0) + 1
                    clock[0] += 2.0 if name == slow else 1.0
                    return find(targets)

                return found

            monkeypatch.setattr(products, name, backend)

    @pytest.mark.parametrize(("slow", "fast"), [("by_blocks", "by_faiss"), ("by_faiss", "by_blocks")])
    def test_the_quicker_one_does_the_rest(self, rng, monkeypatch, used, slow, fast):
        points, R = rng.normal(size=(400, 30)), np.full(400, 3.0)
        expected = overlap_graph(points, R, search="blocks")
        self.slowed(monkeypatch, used, slow)
        assert_same([expected, overlap_graph(points, R)])
        assert used[slow] == products._TRIALS < 10 < used[fast]

    def test_a_short_search_does_not_load_faiss(self):
        script = """
import sys, numpy, regions
points = numpy.random.default_rng(0).normal(size=(300, 20))
regions.overlap_graph(points, [1.0] * 300)
assert "faiss" not in sys.modules
regions.overlap_graph(points, [1.0] * 300, search="faiss")
assert "faiss" in sys.modules
"""
        subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"method": "matching"}, {"method": "lp"}, {"method": "greedy"}, {"method": "greedy", "reserve": True}],
    ids=["matching", "lp", "greedy", "reserve"],
)
def test_allocate_answers_the_same(rng, monkeypatch, options, dense):
    if dense:  # rows are generated, from a survey of all pairs where there is a reserve
        monkeypatch.setattr(_allocate, "sparse_enough", lambda *_: False)
    # a lattice, where every point has several nearest neighbours, in 14 dimensions
    points = np.zeros((250, 14))
    points[:, :3] = rng.permutation(np.argwhere(np.ones((7, 6, 6)))[:250])
    R = rng.choice([0.4, 0.75, 1.5], size=250)
    answers = [allocate(points, R, search=search, **options) for search in SEARCHES]
    assert_same([answer.graph for answer in answers])
    for answer in answers:
        np.testing.assert_array_equal(answer.radii, answers[0].radii)
        assert answer.upper_bound == answers[0].upper_bound


def test_of_many_nearest_neighbours_the_same_one_counts(rng, monkeypatch):
    monkeypatch.setattr(_allocate, "sparse_enough", lambda *_: False)
    points, R = np.eye(60), rng.choice([0.75, 1.0, 1.5], size=60)  # any two are as far apart as any others
    answers = [allocate(points, R, "greedy", reserve=True, search=search) for search in SEARCHES]
    assert answers[0].graph.n_edges < 60 * 59 / 2
    assert_same([answer.graph for answer in answers])


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("d", [3, 40])
def test_shared_out_among_threads(rng, monkeypatch, search, d):
    from regions._search import shards

    monkeypatch.setattr(shards, "_FEWEST", 64)
    points, R = rng.normal(size=(500, d)), rng.exponential(0.2 * d**0.5, size=500)
    assert_same([overlap_graph(points, R), overlap_graph(points, R, search=search, parallel="threading")])


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("n", "d"), [(0, 3), (0, 40), (5, 40), (5, 2)])
def test_nothing_to_search(rng, search, n, d):
    assert overlap_graph(rng.random((n, d)), np.zeros(n), search=search).n_edges == 0
    assert overlap_graph([], [], search=search).n_edges == 0


def test_shared_out_among_processes(rng, monkeypatch):
    from regions._search import shards

    monkeypatch.setattr(shards, "_FEWEST", 256)
    points, R = rng.normal(size=(600, 40)), rng.exponential(1.2, size=600)
    expected = overlap_graph(points, R, search="faiss")  # from here on, FAISS has threads in this process
    assert_same([expected, *(overlap_graph(points, R, search=search, parallel=2) for search in SEARCHES)])


@pytest.mark.parametrize("name", ["ivf", "IVF100,Flat", "hnsw", "HNSW32", "PQ16", "float16", "SQfp16"])
def test_indexes_that_may_miss_a_pair_are_refused(name):
    for call in (overlap_graph, allocate):
        with pytest.raises(ValueError, match=f"search = '{name}': an index that skips or compresses"):
            call([[0.0], [1.0]], [1.0, 1.0], search=name)


def test_an_index_in_place_of_a_name_is_refused():
    # in a process of its own: here the type checker of the tests would complain first
    script = """
import faiss
from regions import allocate, overlap_graph
flat = faiss.IndexFlatIP(4)
missing, otherwise = "may miss a pair", "choose 'auto', 'faiss'"
bad = [(faiss.IndexIVFFlat(flat, 4, 2), missing), (faiss.IndexHNSWFlat(4, 8), missing)]
bad += [(flat, otherwise), (None, otherwise)]
for call in (overlap_graph, allocate):
    for index, why in bad:
        try:
            call([[0.0], [1.0]], [1.0, 1.0], search=index)
        except ValueError as error:
            assert why in str(error) and "search = " in str(error) and "\\n" not in str(error), error
        else:
            raise SystemExit(f"{index} was accepted")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
