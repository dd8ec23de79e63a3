"""Shared out among workers, everything is the same, bit for bit: threads, joblib's loky, and two real Dask workers."""

import joblib
import numpy as np
import pytest
from hypothesis import given, settings

from regions import _allocate, allocate, allocate_graph, overlap_graph
from regions._methods import matching as _matching
from regions._methods.parts import parts as parts_of
from regions._search import shards as _shards
from tests import strategies

METHODS = [{"method": "lp"}, {"method": "matching"}, {"method": "auto"}, {"method": "greedy"}]


def instance(rng, n, d):
    """Clusters, large and small balls, duplicates and points without a ball."""
    points = rng.random((60, d))[rng.integers(60, size=n)] + 0.05 * rng.standard_normal((n, d))
    points[:40] = points[40:80]
    R = rng.uniform(0.05, 0.35, size=n) * np.sqrt(d / 40) * (rng.random(n) > 0.05)
    R[7] = 1.5
    return points, R, rng.integers(12, size=n)


def arrays(answer):
    """All that an answer says, but for the seconds."""
    graph = getattr(answer, "graph", answer)
    found = [graph.R, graph.i, graph.j, graph.distance]
    if graph is not answer:
        found += [answer.radii, np.array([answer.objective, answer.upper_bound or 0.0])]
        if answer.certificate is not None:
            found += [answer.certificate.partner, answer.certificate.nearest]
    return found


def assert_same(one, other):
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def many_parts(monkeypatch):
    for module, name, value in (
        (_shards, "_FEWEST", 256),
        (_shards, "_EACH", 1 << 20),
        (_matching, "_EDGES", 64),
        (_matching, "_EACH", 1 << 20),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(_matching, "_PATIENCE", 0)  # so that there are auctions


@pytest.mark.usefixtures("many_parts", "impatient")
class TestThreads:
    """Threads of this process are enough to see whether cutting changes anything."""

    @pytest.mark.parametrize("options", METHODS, ids=lambda options: options["method"])
    @settings(max_examples=60)
    @given(instance=strategies.grouped_instances(max_points=14))
    def test_small_instances(self, options, instance):
        points, R, groups = instance
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_shards, "_FEWEST", 2)
            patch.setattr(_matching, "_EDGES", 1)
            shared = allocate(points, R, groups=groups or None, parallel="threading", **options)
        assert_same(shared, allocate(points, R, groups=groups or None, **options))

    @pytest.mark.parametrize("d", [3, 40])
    @pytest.mark.parametrize("grouped", [False, True])
    def test_many_points(self, rng, d, grouped):
        points, R, labels = instance(rng, 2000, d)
        groups = labels if grouped else None
        graph = overlap_graph(points, R, groups=groups)
        assert graph.n_edges > 1000
        assert_same(overlap_graph(points, R, groups=groups, parallel="threading"), graph)
        for options in ({"method": "lp"}, {"method": "matching"}, {"method": "matching", "start": R / 2}):
            assert_same(allocate_graph(graph, parallel="threading", **options), allocate_graph(graph, **options))

    def test_the_search_is_cut(self, rng):
        points, R, _ = instance(rng, 2000, 40)
        frame, parts = _shards.shards(points, R, np.empty(0, dtype=np.int64), 2)
        assert frame is not None
        assert len(parts) > 20
        graph = overlap_graph(points[:, :3], R / 10)
        pieces = list(parts_of(graph.components, graph.i, graph.j, 64))
        assert len(pieces) > 3
        vertices = np.concatenate([members for members, *_ in pieces])
        np.testing.assert_array_equal(np.sort(vertices), np.flatnonzero(graph.degree))
        edges = np.concatenate([which for _, which, *_ in pieces])
        np.testing.assert_array_equal(np.sort(edges), np.arange(graph.n_edges))
        for members, which, i, j in pieces:
            np.testing.assert_array_equal(members[i], graph.i[which])
            np.testing.assert_array_equal(members[j], graph.j[which])

    @pytest.mark.parametrize("method", ["lp", "matching"])
    def test_generated_rows(self, rng, monkeypatch, method):
        monkeypatch.setattr(_allocate, "sparse_enough", lambda *_: False)
        points, R = rng.normal(size=(400, 100)), np.full(400, 30.0)  # in high dimension all pairs overlap
        for groups in (None, rng.integers(2, size=400)):
            serial = allocate(points, R, method, groups=groups)
            assert serial.stats["rounds"] > 1
            assert_same(allocate(points, R, method, groups=groups, parallel="threading"), serial)

    @pytest.mark.parametrize("n", [0, 5])
    @pytest.mark.parametrize("d", [3, 12])
    def test_nothing_to_search(self, rng, n, d):
        assert overlap_graph(rng.random((n, d)), np.zeros(n), parallel="threading").n_edges == 0

    def test_progress_reaches_the_total(self, rng):
        points, R, _ = instance(rng, 1000, 40)
        seen = []
        overlap_graph(points, R, parallel="threading", progress=lambda *event: seen.append(event))
        assert [done for _, done, _ in seen] == list(range(1, len(seen) + 1))
        assert seen[-1][1] == seen[-1][2] > 1


@pytest.mark.usefixtures("many_parts")
@pytest.mark.parametrize("stored", [False, True])
def test_loky(rng, tmp_path, stored):
    points, R, labels = instance(rng, 2500, 40)
    if stored:
        np.save(tmp_path / "points.npy", points.astype(np.float32))
        points = np.load(tmp_path / "points.npy", mmap_mode="r")
    for method in ("lp", "matching"):
        serial = allocate(points, R, method, groups=labels)
        assert_same(allocate(points, R, method, groups=labels, parallel=2), serial)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert_same(overlap_graph(points, R, parallel=-1), overlap_graph(points, R))


@pytest.mark.usefixtures("many_parts")
def test_two_dask_workers(rng, tmp_path):
    from distributed import Client, LocalCluster, get_task_stream

    points, R, labels = instance(rng, 2500, 40)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            local_directory=str(tmp_path),
        ) as cluster,
        Client(cluster) as client,
    ):
        for method in ("lp", "matching"):
            with get_task_stream(client) as stream:
                shared = allocate(points, R, method, groups=labels, parallel="dask")
            assert len({task["worker"] for task in stream.data}) == 2
            assert_same(shared, allocate(points, R, method, groups=labels))


def test_a_backend_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="parallel = 'abacus': joblib cannot use this backend here") as caught:
        overlap_graph([[0.0], [1.0]], [1.0, 1.0], parallel="abacus")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="parallel = 'abacus': joblib cannot use this backend here"):
        allocate_graph(overlap_graph([[0.0], [1.0]], [1.0, 1.0]), parallel="abacus")


def test_joblib_is_loaded_only_where_it_is_asked_for():
    import subprocess
    import sys

    script = """
import sys, regions
points, R = [[0.0], [1.0]], [1.0, 1.0]
regions.allocate(points, R, "matching")
assert "joblib" not in sys.modules
regions.allocate(points, R, "matching", parallel=2)
assert "joblib" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
