"""The pair search of `_search` cut into shards that workers can take: rows of one bucket against the whole of another.

Every worker maps and indexes what its shard needs, so that only points and indices travel (a memory map by its name).
Which pairs a shard proposes may depend on how the search is cut; which of them are edges, and at what distance, does
not: float64 and exact arithmetic decide, pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions import _parallel
from regions._projection import choose_basis
from regions._search import _CANDIDATES, _SKEW, _TREE_DIMENSION, Progress, _buckets, _Frame, _layers, _search

_FEWEST = 1 << 22  # pairs that are worth a shard of their own
_EACH = 8  # shards for each worker, since some take longer than others

Pairs = tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]


def shards(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    workers: int,
) -> tuple[_Frame | None, list[tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " q"], bool]]]:
    """How to search (None: by k-d trees), and the shards (rows, columns, whether both are of one bucket)."""
    layers = list(_layers(R, centres))
    total = sum(a.size * b.size for k, a in enumerate(layers) for b in layers[k:])
    size = max(_FEWEST, total // (_EACH * workers))
    found = []
    for k, outer in enumerate(layers):
        for b, inner in enumerate(layers[k:], start=k):
            if R[outer].max() > 0:
                parts = min(outer.size, 1 + outer.size * inner.size // size)
                found += [(rows, inner, k == b) for rows in np.array_split(outer, parts)]
    if points.shape[1] <= _TREE_DIMENSION:
        return None, found
    searched = np.sort(np.append(np.flatnonzero(R > 0), centres))
    frame = _Frame.around(points, searched)
    return replace(frame, basis=choose_basis(points, R, searched, frame.centre, _SKEW)), found


def shard_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    frame: _Frame | None,
    rows: Int64[np.ndarray, " p"],
    columns: Int64[np.ndarray, " q"],
    same: bool,
) -> Iterator[Pairs]:
    """Blocks of pairs of one shard, as `near_pairs` would yield them; each pair is in one shard, once."""
    search = _trees(points, R, rows, columns) if frame is None else _flat(points, R, frame, rows, columns)
    for i, j in search:
        once = i < j if same else slice(None)
        yield i[once], j[once]


def _trees(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    rows: Int64[np.ndarray, " p"],
    columns: Int64[np.ndarray, " q"],
) -> Iterator[Pairs]:
    from scipy.spatial import KDTree

    tree = KDTree(points[columns])
    reach = (float(R[rows].max()) + float(R[columns].max())) * (1 + 1e-12)  # float64 distances err by less
    parts = 1 + int(KDTree(points[rows]).count_neighbors(tree, reach)) // _CANDIDATES
    for part in np.array_split(rows, parts):
        if part.size:
            found = KDTree(points[part]).sparse_distance_matrix(tree, reach, output_type="ndarray")
            yield part[found["i"]], columns[found["j"]]


def _flat(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    frame: _Frame,
    rows: Int64[np.ndarray, " p"],
    columns: Int64[np.ndarray, " q"],
) -> Iterator[Pairs]:
    queries = _buckets(points, [rows], R, frame)
    for bucket in _buckets(points, [columns], R, frame):
        index = bucket.index()
        for query in queries:
            for _, row, column in _search(frame, query.coordinates, query.norm, query.radii, bucket, index):
                yield query.members[row], bucket.members[column]


def shared_out(
    edges_of: _parallel.Call,
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    parallel: _parallel.Workers,
    progress: Progress | None,
) -> Iterator[Any]:
    """What a function makes of every shard: it is called as f(points, R, frame, rows, columns, same, *arguments)."""
    function, arguments = edges_of
    frame, parts = shards(points, R, centres, _parallel.count(parallel))
    calls = ((function, (points, R, frame, *part, *arguments)) for part in parts)
    for done, found in enumerate(_parallel.results(parallel, calls), start=1):
        yield found
        if progress is not None:
            progress("search", done, len(parts))
