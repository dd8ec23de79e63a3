import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from regions import allocate, overlap_graph
from regions._search import pairs as pair_search
from regions._search import products
from tests import oracles, strategies


def small_tiles(monkeypatch, size):
    for module in (pair_search, products):
        monkeypatch.setattr(module, "TILE", size)


def pairs(graph):
    return list(zip(graph.i.tolist(), graph.j.tolist(), strict=True))


@given(strategies.grouped_instances(max_points=14))
def test_edges_are_exactly_the_overlapping_conflicts(instance):
    points, R, groups = instance
    graph = overlap_graph(points, R, groups=groups or None)
    assert pairs(graph) == oracles.edges(points, R, groups)


@given(strategies.grouped_instances(max_points=14), st.integers(0, 2**32 - 1), st.data())
def test_a_restricted_graph_is_the_one_that_a_search_finds(instance, seed, data):
    points, R, groups = instance
    first = groups[: data.draw(st.integers(0, len(groups)), label="groups of the graph")]
    more = groups[len(first) :]
    rng = np.random.default_rng(seed)
    smaller = R * rng.choice([0.0, 0.5, 1.0, np.nextafter(1.0, 0.0), rng.random()], size=len(R))  # ties stay ties
    restricted = overlap_graph(points, R, groups=first or None).restricted(smaller, groups=more or None)
    assert pairs(restricted) == oracles.edges(points, smaller, groups)
    searched = overlap_graph(points, smaller, groups=groups or None)
    for name in ("R", "i", "j", "distance", "points", "adjacency", "components"):
        np.testing.assert_equal(getattr(restricted, name), getattr(searched, name))
    assert restricted.distance_error == searched.distance_error


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
@pytest.mark.parametrize("d", [2, 784])
def test_restricted_to_balls_that_touch(rng, d, dtype):
    # steps of 3 and 4 on a lattice: halves of the distance 5 touch, one unit in the last place more overlaps
    points = np.repeat(rng.integers(0, 9, size=(1, d)), 3, axis=0)
    points[1:, :2] += [[3, 4], [6, 8]]
    graph = overlap_graph(points.astype(dtype), [3.0, 3.0, 3.0])
    assert pairs(graph) == [(0, 1), (1, 2)]
    assert pairs(graph.restricted([2.5, 2.5, np.nextafter(2.5, 3.0)])) == [(1, 2)]
    assert pairs(graph.restricted([2.5, 2.5, np.nextafter(2.5, 3.0)]).restricted([2.5] * 3)) == []


def test_a_restricted_graph_of_lengths_where_squares_underflow():
    points = np.array([[0.0], [3.0], [6.0]]) * 1e-300
    graph = overlap_graph(points, np.full(3, 2e-300))
    assert pairs(graph.restricted(np.array([1.0, 2.0, 1.0 + 2**-52]) * 1e-300)) == oracles.edges(
        points, np.array([1.0, 2.0, 1.0 + 2**-52]) * 1e-300
    )


def test_what_restricted_refuses(rng):
    graph = overlap_graph([[0.0], [1.0]], [1.0, 1.0])
    with pytest.raises(ValueError, match=r"R\[1\] = 1.5 exceeds this graph's R\[1\] = 1.0: call overlap_graph anew"):
        graph.restricted([1.0, 1.5])
    with pytest.raises(ValueError, match=r"R has shape \(3,\): expected \(2,\)"):
        graph.restricted([1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"groups has shape \(3,\): expected \(2,\)"):
        graph.restricted([1.0, 1.0], groups=[1, 2, 3])
    generated = allocate(rng.random((700, 200)), np.full(700, 30.0), "matching").graph  # not every pair is listed
    assert generated.n_edges < 700 * 699 / 2
    with pytest.raises(ValueError, match="this graph does not list every overlapping pair: call overlap_graph first"):
        generated.restricted(np.zeros(700))


@given(strategies.instances(max_points=10))
def test_distances_are_rounded_down_and_bracketed(instance):
    points, R = instance
    graph = overlap_graph(points, R)
    for i, j, lower, upper in zip(graph.i, graph.j, graph.distance, graph.distance_upper, strict=True):
        true = oracles.squared_distance(points[i], points[j])
        assert oracles.Fraction(float(lower)) ** 2 <= true <= oracles.Fraction(float(upper)) ** 2
        assert upper <= lower * (1 + 1e-12) or upper <= 1e-144


@pytest.mark.parametrize("d", [1, 3, 784, 3072])
def test_many_points_against_all_distances(rng, d):
    # buckets, blocks and early stopping all take part: radii over two orders of magnitude, clusters of near points
    centres = rng.normal(size=(40, d))
    points = centres[rng.integers(40, size=900)] + rng.normal(size=(900, d)) * 0.3
    R = rng.exponential(0.15 * np.sqrt(d), size=900)
    all_distances = squareform(pdist(points))
    i, j = np.nonzero(np.triu(all_distances < R[:, None] + R, 1))
    graph = overlap_graph(points, R)
    np.testing.assert_array_equal(np.c_[graph.i, graph.j], np.c_[i, j])
    np.testing.assert_allclose(graph.distance, all_distances[i, j], rtol=1e-11)
    assert 0 < graph.n_edges < 900 * 899 / 2


@pytest.mark.parametrize("offset", [1e6, -3e7])
def test_close_pairs_far_from_the_origin(rng, offset):
    # float32 has steps of 0.06 at 1e6: uncentred float32 search cannot see distances of 1e-3
    base = offset + rng.normal(size=(300, 64))
    base = np.round(base * 2**20) / 2**20  # exact in float64 with the shifts below
    direction = np.zeros(64)
    direction[7] = 2.0**-10
    points = np.concatenate([base, base + direction])
    graph = overlap_graph(points, np.full(600, 0.6 * 2.0**-10))
    assert pairs(graph) == [(k, k + 300) for k in range(300)]
    np.testing.assert_allclose(graph.distance, 2.0**-10, rtol=1e-13)


def test_clusters_at_a_million_with_distances_of_a_thousandth(rng):
    points = np.repeat(rng.choice([-1e6, 1e6], size=(200, 8)), 2, axis=0)
    points[1::2, 0] += 2.0**-10
    graph = overlap_graph(points, np.full(400, 2.0**-10))
    expected = {(i, j) for i, j in oracles.edges(points, np.full(400, 2.0**-10))}
    assert set(pairs(graph)) == expected
    assert {(2 * k, 2 * k + 1) for k in range(200)} <= expected


@pytest.mark.parametrize("ulps", [-1, 0, 1])
@pytest.mark.parametrize("d", [1, 2, 5, 784])
def test_touching_balls_do_not_overlap(rng, d, ulps):
    # distance exactly 5 from a (3, 4) step on a lattice; R_i + R_j = 5 up to one unit in the last place
    points = rng.integers(-8, 8, size=(1, d)).astype(float).repeat(2, axis=0)
    points[1, : min(d, 2)] += [3.0, 4.0][:d] if d > 1 else [5.0]
    R = np.array([2.5, 2.5])
    R[0] += ulps * np.spacing(2.5)
    assert overlap_graph(points, R).n_edges == (1 if ulps > 0 else 0)


def test_equally_spaced_tenths_are_decided_exactly():
    points = 0.1 * np.arange(200)[:, None]  # the rounded multiples are not equally spaced
    R = np.full(200, 0.05)
    assert pairs(overlap_graph(points, R)) == oracles.edges(points, R)


def test_large_lattice_of_touching_balls_has_no_edge():
    points = np.stack(np.meshgrid(np.arange(60.0), np.arange(60.0)), axis=-1).reshape(-1, 2)
    assert overlap_graph(points, np.full(3600, 0.5)).n_edges == 0


def test_one_large_radius_among_small_ones(rng):
    points = rng.random((2000, 3))
    R = np.full(2000, 0.005)
    R[77] = 5.0
    graph = overlap_graph(points, R)
    assert graph.degree[77] == 1999
    i, j = np.nonzero(np.triu(squareform(pdist(points)) < R[:, None] + R, 1))
    np.testing.assert_array_equal(np.c_[graph.i, graph.j], np.c_[i, j])


def test_radii_far_beyond_the_points():
    points = np.tile([[0.99], [-0.99]], (30, 40))  # in two opposite corners
    for R in (10.0, 1e100):
        assert overlap_graph(points, np.full(60, R)).n_edges == 60 * 59 // 2


@pytest.mark.parametrize("d", [1, 3, 10, 11])
def test_lengths_whose_squares_underflow(rng, d):
    points = np.zeros((40, d))
    points[:, 0] = np.repeat(10.0 ** rng.uniform(-164, -150, size=20), 2) * np.tile([1.0, 2.0], 20)
    R = np.repeat(points[::2, 0], 2) * rng.choice([0.4999, 0.5001], size=40)
    assert pairs(overlap_graph(points, R)) == oracles.edges(points, R)
    diagonal = np.repeat([[0.0], [1.6e-162]], 10, axis=1)
    assert overlap_graph(diagonal, np.full(2, 2.55e-162)).n_edges == 1  # 5.06e-162 apart


def test_zero_radius_constrains_nobody():
    graph = overlap_graph([[0.0], [0.1], [0.2]], [1.0, 0.0, 1.0])
    assert pairs(graph) == [(0, 2)]


@pytest.mark.parametrize("d", [6, 40])
def test_blocks_do_not_change_the_result(rng, monkeypatch, d):
    from regions._arithmetic import distances as _distance
    from regions._search import trees as _trees

    points, R = rng.random((700, d)), rng.random(700) * 0.2 * d**0.5
    whole = overlap_graph(points, R)
    assert whole.n_edges > 700
    small_tiles(monkeypatch, 16)
    monkeypatch.setattr(_trees, "_CANDIDATES", 1)
    monkeypatch.setattr(_trees, "_FEWEST", 16)
    monkeypatch.setattr(_distance, "_COORDINATES", 1)
    parts = overlap_graph(points, R)
    assert pairs(parts) == pairs(whole)
    np.testing.assert_array_equal(parts.distance, whole.distance)


class TestProjection:
    """In high dimension the search runs in a projection: it must still miss nothing."""

    def brute_force(self, points, R):
        return np.argwhere(np.triu(squareform(pdist(points)) < R[:, None] + R, 1))

    def forced(self, monkeypatch, m):
        from regions._search import pairs as _search
        from regions._search import projection as _projection

        def leading(z, radii, n):
            return _projection.principal_directions(z, m)

        monkeypatch.setattr(_search, "choose_basis", leading)

    @pytest.mark.parametrize("m", [1, 16, 64])
    @pytest.mark.parametrize("offset", [0.0, 1e6])
    def test_every_edge_is_found(self, rng, monkeypatch, m, offset):
        low_rank = rng.normal(size=(600, 12)) @ rng.normal(size=(12, 200)) * 0.05
        points = np.round((low_rank + rng.normal(size=(600, 200)) * 0.02) * 2**24) / 2**24 + offset
        R = rng.exponential(0.5, size=600)
        expected = self.brute_force(points, R)
        assert 1000 < len(expected) < 100_000
        self.forced(monkeypatch, m)
        graph = overlap_graph(points, R)
        np.testing.assert_array_equal(np.c_[graph.i, graph.j], expected)

    def test_pairs_that_differ_only_outside_the_projection(self, rng, monkeypatch):
        points = np.zeros((200, 100))
        points[:, :4] = rng.normal(size=(200, 4)) * 100
        points[100:] = points[:100]
        points[:100, 50] = 1.0  # 100 close pairs, apart in a direction the four leading ones do not see
        self.forced(monkeypatch, 4)
        assert pairs(overlap_graph(points, np.full(200, 0.6))) == [(k, k + 100) for k in range(100)]
        assert pairs(overlap_graph(points, np.full(200, 0.4))) == []

    def test_it_is_chosen_where_it_pays_and_only_there(self, rng):
        from regions._search.projection import choose_basis

        spread = rng.normal(size=(500, 400))
        low_rank = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 400))
        R = np.full(500, 0.5)
        assert choose_basis(low_rank, R, 4000) is not None
        # radii so large that the projection tells no two points apart
        assert choose_basis(spread, np.full(500, 14.0), 4000) is None
        assert choose_basis(low_rank, R, 1000) is None

    def test_large_instance_takes_the_projection(self, rng, monkeypatch):
        from regions._search import pairs as _search

        chosen = []
        choose = _search.choose_basis
        monkeypatch.setattr(_search, "choose_basis", lambda *args: chosen.append(choose(*args)) or chosen[-1])
        points = rng.normal(size=(2500, 10)) @ rng.normal(size=(10, 300)) + rng.normal(size=(2500, 300)) * 0.1
        R = rng.random(2500) * 25
        graph = overlap_graph(points, R)
        assert chosen[0] is not None
        np.testing.assert_array_equal(np.c_[graph.i, graph.j], self.brute_force(points, R))
        assert graph.n_edges > 1000


def test_degrees_components_and_networkx_agree(rng):
    points, R = rng.random((300, 2)), np.full(300, 0.03)
    graph = overlap_graph(points, R)
    reference = nx.Graph()
    reference.add_nodes_from(range(300))
    reference.add_edges_from(oracles.edges(points, R))
    exported = graph.to_networkx()
    assert nx.utils.graphs_equal(nx.Graph(exported.edges), nx.Graph(reference.edges))
    assert len(exported) == 300
    assert exported.nodes[5]["R"] == 0.03
    i, j = pairs(graph)[0]
    assert exported.edges[i, j]["distance"] == graph.distance[0]
    assert [d for _, d in sorted(reference.degree)] == graph.degree.tolist()
    assert graph.n_components == nx.number_connected_components(reference)
    for component in nx.connected_components(reference):
        assert len({graph.components[k] for k in component}) == 1


def test_progress_reaches_the_total(rng):
    seen = []
    overlap_graph(rng.random((600, 4)), rng.random(600), progress=lambda *event: seen.append(event))
    assert {stage for stage, _, _ in seen} == {"search"}
    assert seen[-1][1] == seen[-1][2]
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.parametrize("sigma", [[0.25, 0.25, 0.5], ["a", "a", "b"]])
def test_a_shared_label_removes_the_conflict(sigma):
    points, R = [[0.0], [1.0], [2.0]], [2.0, 2.0, 2.0]
    assert pairs(overlap_graph(points, R, groups=sigma)) == [(0, 2), (1, 2)]
    assert pairs(overlap_graph(points, R, groups=(sigma, [7, 8, 7]))) == [(1, 2)]
    assert pairs(overlap_graph(points, R, groups=list(np.array([[0, 0, 1], [7, 8, 7]])))) == [(1, 2)]
