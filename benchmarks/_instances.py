"""Overlap graphs to allocate on: real certificates, random clusters, and instances that are hard for one reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _common import load

import regions

SEED = 20260101
REAL = ("mnist catrs", "cifar10 catrs")
# name: points, clusters, coordinates, width of a cluster, largest R; the last is set to reach the number of edges
CLUSTERED = {
    "clustered 5,000": (5_000, 50, 8, 0.05, 0.335),
    "clustered 50,000": (50_000, 500, 8, 0.05, 0.1174),
}
NEIGHBOURS = "10 neighbours, 60,000 x 32"
CUBE = "cube 1,000,000"
HARD = ("ties", "grid", "stars", "nested clusters")
LARGE = (NEIGHBOURS, CUBE)
INSTANCES = (*REAL, *CLUSTERED, *HARD, *LARGE)


def points_and_bounds(instance: str) -> tuple[np.ndarray, np.ndarray]:
    """Points and R of an instance."""
    if instance in REAL:
        points, bounds = load(*instance.split())
        return points, bounds.R
    rng = np.random.default_rng(SEED)
    if instance in CLUSTERED:
        n, clusters, d, width, largest = CLUSTERED[instance]
        centres = rng.random((clusters, d))
        points = centres[rng.integers(clusters, size=n)] + width * rng.standard_normal((n, d))
        return points, largest * rng.uniform(0.2, 1.0, n)
    if instance == "ties":  # on few places, so that distances repeat and many are 0
        return rng.integers(0, 16, size=(6_000, 3)).astype(float), rng.integers(1, 5, size=6_000) / 2
    if instance == "grid":  # every optimum has all distances between neighbours tight, and there are very many
        points = np.stack(np.meshgrid(np.arange(150.0), np.arange(150.0)), axis=-1).reshape(-1, 2)
        return points, np.full(len(points), 1.0)
    if instance == "stars":  # 300 centres with 60 leaves that conflict with their centre alone
        leaves = rng.standard_normal((300, 60, 32))
        leaves /= np.linalg.norm(leaves, axis=2, keepdims=True)
        hubs = 10.0 * np.arange(300)[:, None, None] * np.eye(1, 32)
        points = np.concatenate([hubs, hubs + leaves], axis=1).reshape(-1, 32)
        R = rng.uniform(0.2, 0.3, size=(300, 61))
        R[:, 0] = rng.uniform(0.8, 0.95, size=300)
        return points, R.ravel()
    if instance == "nested clusters":  # lengths over ten orders of magnitude in one component
        points = np.concatenate([rng.standard_normal((800, 3)) * 10.0**-k for k in range(10)])
        return points, np.linalg.norm(points, axis=1) * rng.uniform(0.1, 0.4, size=len(points))
    if instance == CUBE:
        n = 1_000_000
        return rng.random((n, 3)), rng.uniform(0.3, 1.0, size=n) * 0.9 * n ** (-1 / 3)
    raise ValueError(f"{instance} is a graph without bounds of its points")


def neighbour_graph(n: int = 60_000, d: int = 32, k: int = 10) -> regions.OverlapGraph:
    """Only the pairs of k nearest neighbours conflict, however large the balls."""
    import faiss

    points = np.random.default_rng(SEED).random((n, d)).astype(np.float32)
    index = faiss.IndexFlatL2(d)
    index.add(points)
    found = index.search(points, k + 1)[1]
    a, b = np.repeat(np.arange(n), k + 1), found.ravel()
    key = np.unique(np.minimum(a, b)[a != b] * n + np.maximum(a, b)[a != b])
    i, j = np.divmod(key, n)
    points = points.astype(np.float64)
    error = (d + 8) * 2.0**-53
    distance = np.linalg.norm(points[i] - points[j], axis=1) * (1 - error)
    return regions.OverlapGraph(np.full(n, float(distance.max())), i, j, distance, error)


def store_graph(instance: str, path: str) -> None:
    """Search for the overlap graph once, for all contenders."""
    graph = neighbour_graph() if instance == NEIGHBOURS else regions.overlap_graph(*points_and_bounds(instance))
    np.savez(path, R=graph.R, i=graph.i, j=graph.j, distance=graph.distance, distance_error=graph.distance_error)


def stored_graph(path: str | Path) -> regions.OverlapGraph:
    """Read what `store_graph` wrote."""
    with np.load(path) as file:
        arrays = dict(file)
    return regions.OverlapGraph(**{**arrays, "distance_error": float(arrays["distance_error"])})
