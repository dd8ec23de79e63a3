"""Candidate pairs of balls that may overlap: nothing is missed, and what is too much is sorted out by exact distances.

Three backends. "tree": k-d trees in float64. "blocks" and "faiss": float32 inner products, by NumPy or FAISS. For
these, points are mapped, in high dimension projected, and lifted so that one product and one comparison tell whether
two balls may overlap, each with its own radius (docs/mathematics.md, Eq. M11, M12 and M16). "auto": trees in up to ten
dimensions; beyond, products by whichever of the two is quicker on the first tiles of a long search.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, Real

from regions._search.embedding import Frame
from regions._search.products import TILE, backend_for, overlapping
from regions._search.projection import SAMPLE, choose_basis
from regions._search.trees import TREE_DIMENSION, Layer, Pairs, in_units, layers, tree_pairs

_CELLS_FROM = 20_000  # points from which nearest neighbours are looked for in ...
_CELLS = 8  # ... so many of 4 sqrt(n) cells
_QUERIES = 1 << 14  # points whose neighbours are looked up at once
_TOGETHER = 1 << 20  # pairs handed on at once, if there are as many
_FEWEST = 256  # points that are mapped at once however wide
_HELD = 1 << 28  # bytes of mapped coordinates that are kept; if there are more, blocks are mapped when their turn comes

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) from time to time."""


def near_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    progress: Progress | None = None,
    centres: Int64[np.ndarray, " e"] | None = None,
    search: str = "auto",
) -> Iterator[Pairs]:
    """Blocks of pairs (i, j), each at most once, among them EVERY pair with R_i, R_j > 0 and |x_i - x_j| < R_i + R_j.

    `centres` lists points with R = 0 that are paired with every ball they may lie in; pairs of two centres may occur.
    Memory is bounded by blocks whatever the number of candidates. Small blocks are put together, because threads that
    wait for the next search get in the way of those that measure its candidates.
    """
    waiting: list[Pairs] = []
    held = 0
    extra = np.empty(0, dtype=np.int64) if centres is None else centres
    if by_trees(search, points.shape[1]):
        found = _tree_pairs(points, R, extra, progress)
    else:
        members = searched(R, extra)
        found = product_pairs(points, R, frame_for(points, R, members), members, None, progress, search)
    for pairs in found:
        waiting.append(pairs)
        held += pairs[0].size
        if held >= _TOGETHER:
            yield np.concatenate([i for i, _ in waiting]), np.concatenate([j for _, j in waiting])
            waiting.clear()
            held = 0
    if waiting:
        yield np.concatenate([i for i, _ in waiting]), np.concatenate([j for _, j in waiting])


def near_neighbours(points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], k: int) -> Iterator[Pairs]:
    """Blocks of pairs (i, j) where j is about one of the k points nearest to i, both with R > 0; i itself included.

    A heuristic: in a projection, float32, duplicates, or beyond the cells that are looked into, some may be missed.
    Copies of a point are paired with each other, and one of them is searched, since no index can divide them.
    """
    positive = np.flatnonzero(R > 0)
    one, member = distinct(points, positive)
    if one.size == positive.size:
        yield from _near_neighbours(points, R, positive, k)
        return
    order = np.argsort(member, kind="stable")
    for step in range(1, k + 1):
        a, b = order[:-step], order[step:]
        same = member[a] == member[b]
        yield positive[a[same]], positive[b[same]]
    found = [j for _, j in _near_neighbours(points, R, one, k)]
    near = np.concatenate(found).reshape(one.size, -1)
    for start in range(0, positive.size, _QUERIES):
        rows = positive[start : start + _QUERIES]
        yield np.repeat(rows, near.shape[1]), near[member[start : start + _QUERIES]].ravel()


def distinct(
    points: Real[np.ndarray, "n d"], which: Int64[np.ndarray, " k"], *more: Real[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " k"]]:
    """One of each kind among these points, and the kind of each: the same coordinates, and values of `more`."""
    place: dict[bytes, int] = {}
    member = np.empty(which.size, dtype=np.int64)
    for k, i in enumerate(which.tolist()):
        key = hashlib.blake2b((points[i] + points.dtype.type(0)).tobytes(), digest_size=16)  # -0.0 becomes 0.0
        for values in more:
            key.update(values[i].tobytes())
        member[k] = place.setdefault(key.digest(), len(place))
    one = np.empty(len(place), dtype=np.int64)
    one[member[::-1]] = which[::-1]
    return one, member


def _near_neighbours(
    points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], positive: Int64[np.ndarray, " p"], k: int
) -> Iterator[Pairs]:
    k = min(k + 1, positive.size)
    if points.shape[1] <= TREE_DIMENSION:
        from scipy.spatial import KDTree

        points, R = in_units(points, R)
        tree = KDTree(points[positive])
        for start in range(0, positive.size, _QUERIES):
            rows = positive[start : start + _QUERIES]
            found = tree.query(points[rows], k, workers=-1)[1].reshape(rows.size, k)
            yield np.repeat(rows, k), positive[found.ravel()]
        return
    frame = frame_for(points, R, positive)
    queries = [positive[start : start + _QUERIES] for start in range(0, positive.size, _QUERIES)]
    nearest = [np.full((rows.size, k), np.inf, dtype=np.float32) for rows in queries]
    neighbour = [np.repeat(rows[:, None], k, axis=1) for rows in queries]
    for block in _blocks(positive, frame.width, lambda members: frame.map(points, members)[0]):
        index = _index(block.rows)
        for q, rows in enumerate(queries):
            squared, found = index.search(frame.map(points, rows)[0], min(k, block.members.size))
            both = np.concatenate([nearest[q], squared], axis=1)
            best = np.argsort(both, axis=1, kind="stable")[:, :k]
            nearest[q] = np.take_along_axis(both, best, axis=1)
            both = np.concatenate([neighbour[q], block.members[found]], axis=1)  # -1, none, counts as the last: any may
            neighbour[q] = np.take_along_axis(both, best, axis=1)
    for rows, found in zip(queries, neighbour, strict=True):
        yield np.repeat(rows, k), found.ravel()


def _index(rows: Float32[np.ndarray, "m v"]) -> Any:
    """A FAISS index for nearest neighbours: among all rows, or, where these are many, those in a few cells nearby."""
    import faiss  # loaded only where something is searched

    count, width = rows.shape
    index: Any = faiss.IndexFlatL2(width)
    if count >= _CELLS_FROM:
        index = faiss.IndexIVFFlat(index, width, int(4 * math.sqrt(count)))
        index.nprobe = _CELLS
        index.cp.niter, index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 8, 1, 64
        index.train(rows)
    index.add(rows)
    return index


def _tree_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    progress: Progress | None,
) -> Iterator[Pairs]:
    points, R = in_units(points, R)
    found = [Layer.of(points, R, members) for members in layers(R, centres)]
    total = len(found) * (len(found) + 1) // 2
    for done, (outer, inner) in enumerate(combinations_with_replacement(found, 2), start=1):
        yield from tree_pairs(points, outer, inner)
        if progress is not None:
            progress("search", done, total)


def by_trees(search: str, d: int) -> bool:
    """Whether the search of this name uses trees in d dimensions."""
    return search == "tree" or (search == "auto" and d <= TREE_DIMENSION)


def searched(R: Float64[np.ndarray, " n"], centres: Int64[np.ndarray, " e"]) -> Int64[np.ndarray, " m"]:
    """Points with R > 0, then those of `centres`."""
    return np.append(np.flatnonzero(R > 0), centres)


def frame_for(points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], rows: Int64[np.ndarray, " p"]) -> Frame:
    """The frame for a search among some of the points, with the projection that is likely to pay. Deterministic."""
    frame = Frame.around(points, rows)
    sample = np.sort(np.random.default_rng(0).choice(rows, size=min(SAMPLE, rows.size), replace=False))
    z = (points[sample] - frame.centre) * frame.scale
    return replace(frame, basis=choose_basis(z, np.minimum(R[sample] * frame.scale, _widest(frame)), rows.size))


def product_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    frame: Frame,
    rows: Int64[np.ndarray, " p"],
    columns: Int64[np.ndarray, " q"] | None = None,
    progress: Progress | None = None,
    search: str = "auto",
) -> Iterator[Pairs]:
    """Pairs of rows and columns, or (None) each pair of rows once, that may overlap; points with R = 0 come last."""

    def lifted(members: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m v"]:
        mapped, norms = frame.map(points, members)
        return frame.lift(mapped, frame.reach(R[members], norms, _widest(frame)), norms)

    outer = _blocks(rows, frame.width, lifted)
    inner = outer if columns is None else _blocks(columns, frame.width, lifted)
    total = sum(a.members.size * (len(inner) - k * (columns is None)) for k, a in enumerate(outer))
    backend = backend_for(search, rows.size**2 // 2 if columns is None else rows.size * columns.size)
    done = 0
    for k, a in enumerate(outer):
        for b in inner[k if columns is None else 0 :]:
            queries, targets = a.rows, b.rows
            for start in range(0, len(queries), TILE):
                tile = queries[start : start + TILE]
                i = a.members[start : start + TILE]
                if R[i[0]] > 0:  # else none of them and of what follows is a ball
                    for row, column in overlapping(tile, targets, start if a is b else None, backend):
                        yield i[row], b.members[column]
                done += len(tile)
                if progress is not None:
                    progress("search", done, total)


def _widest(frame: Frame) -> float:
    """A scaled radius that reaches any point the frame was made for."""
    return 2 * math.sqrt(frame.centre.size) + 1


@dataclass(frozen=True)
class _Block:
    """Some points, and what they are mapped to: held, or mapped when asked for."""

    members: Int64[np.ndarray, " m"]
    _source: Float32[np.ndarray, "m v"] | Callable[[], Float32[np.ndarray, "m v"]]

    @property
    def rows(self) -> Float32[np.ndarray, "m v"]:
        """A row for each member."""
        return self._source() if callable(self._source) else self._source


def _blocks(
    members: Int64[np.ndarray, " m"],
    width: int,
    mapped: Callable[[Int64[np.ndarray, " p"]], Float32[np.ndarray, "p v"]],
) -> list[_Block]:
    """All members if their coordinates may be held; else parts of them that take an eighth of that, not held."""
    if 4 * width * members.size <= _HELD:
        return [_Block(members, mapped(members))] if members.size else []
    size = max(_FEWEST, _HELD // (32 * width))
    parts = [members[start : start + size] for start in range(0, members.size, size)]
    return [_Block(part, partial(mapped, part)) for part in parts]
