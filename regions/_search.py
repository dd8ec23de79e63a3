"""Candidate pairs by FAISS radius search: float32 proposes, with thresholds that provably miss nothing.

In up to ten dimensions, k-d trees in float64 do the same faster.

FAISS takes one radius a call and computes |x|^2 + |y|^2 - 2 x.y in float32. Three measures keep that sharp, safe and
fast: points are centred on their mean; they are searched in buckets of similar radius, so that one large R does not
make every search wide; and in high dimension they are searched in a projection, where distances can only shrink. The
threshold on the squared distance is raised by a bound on all rounding errors (docs/mathematics.md, Eq. M11 and M12).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, Real

from regions._projection import choose_basis

_UNIT32 = 2.0**-24
_SKEW = 1e-12  # how far from orthonormal a basis may be
_ROWS = 2048  # points mapped at once
_RATIO = 0.8  # radii of one bucket lie within this factor of each other ...
_SMALLEST = 256  # ... unless that would make the bucket smaller than this
_CANDIDATES = 1 << 22  # most pairs one call of FAISS can return, if every point is near every other
_QUERIES = 1 << 14  # points whose neighbours are looked up at once
_TREE_DIMENSION = 10
_TOGETHER = 1 << 20  # pairs handed on at once, if there are as many
_HELD = 1 << 28  # bytes of mapped coordinates that are kept; if there are more, blocks are mapped when their turn comes

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) from time to time."""


@dataclass(frozen=True)
class _Bucket:
    """Points of similar radius: their indices and radii, and the largest norm of their mapped coordinates."""

    members: Int64[np.ndarray, " m"]
    radii: Float64[np.ndarray, " m"]
    norm: float
    _coordinates: Float32[np.ndarray, "m w"] | Callable[[], Float32[np.ndarray, "m w"]]

    @property
    def radius(self) -> float:
        """The largest radius."""
        return float(self.radii.max())

    @property
    def coordinates(self) -> Float32[np.ndarray, "m w"]:
        """Mapped coordinates, held or mapped now."""
        return self._coordinates() if callable(self._coordinates) else self._coordinates

    def index(self) -> Any:
        """A FAISS index of the coordinates."""
        import faiss  # loaded only where something is searched

        coordinates = self.coordinates
        index = faiss.IndexFlatL2(coordinates.shape[1])
        index.add(coordinates)
        return index


@dataclass(frozen=True)
class _Frame:
    """The map to float32 that the search sees: it never lengthens a distance, but for rounding.

    z = (x - centre) * scale, with scale a power of two so that |z_k| <= 1; then, given a basis Q with orthonormal
    columns, (Q^T z, |z - Q Q^T z|): the norm of what Q leaves out bounds its share of a distance from below.
    """

    centre: Float64[np.ndarray, " d"]
    scale: float
    basis: Float64[np.ndarray, "d m"] | None = None

    @classmethod
    def around(cls, points: Real[np.ndarray, "n d"], rows: Int64[np.ndarray, " p"], least: float = 0.0) -> _Frame:
        """Centre and scale for these rows of the points, so that these and the length `least` map to about 1."""
        if not rows.size:
            return cls(np.zeros(points.shape[1]), 1.0)
        total, high, low = (
            np.zeros(points.shape[1]),
            np.full(points.shape[1], -np.inf),
            np.full(points.shape[1], np.inf),
        )
        for start in range(0, rows.size, _ROWS):
            block = points[rows[start : start + _ROWS]].astype(np.float64)
            total += block.sum(axis=0)
            high, low = np.maximum(high, block.max(axis=0)), np.minimum(low, block.min(axis=0))
        centre = total / rows.size
        spread = float(max((high - centre).max(), (centre - low).max(), least))
        return cls(centre, math.ldexp(1.0, min(1000, -math.frexp(spread)[1])))

    @property
    def width(self) -> int:
        """Number of mapped coordinates."""
        return self.centre.size if self.basis is None else self.basis.shape[1] + 1

    def map(self, points: Real[np.ndarray, "n d"], rows: Int64[np.ndarray, " p"]) -> Float32[np.ndarray, "p w"]:
        mapped = np.empty((rows.size, self.width), dtype=np.float32)
        for start in range(0, rows.size, _ROWS):
            z = (points[rows[start : start + _ROWS]] - self.centre) * self.scale
            if self.basis is None:
                mapped[start : start + _ROWS] = z
            else:
                inside = z @ self.basis
                mapped[start : start + _ROWS, :-1] = inside
                mapped[start : start + _ROWS, -1] = np.linalg.norm(z - inside @ self.basis.T, axis=1)
        return mapped

    def threshold(self, reach: Float64[np.ndarray, " k"], norms: float) -> Float32[np.ndarray, " k"]:
        """Squared float32 distances below which FAISS must report, to miss no pair with |x - y| < reach.

        `norms` is the largest sum of the norms of two mapped points. docs/mathematics.md, Eq. M12.
        """
        d = self.centre.size
        m = 0 if self.basis is None else self.basis.shape[1]
        moved = 2 * _UNIT32 * norms  # rounding the mapped points to float32 moves a distance by less than this
        moved += 8 * (d + m) * (math.sqrt(m) + 1) * 2.0**-53 * norms  # and computing them in float64 by less than this
        # mapped points are no farther apart than `norms`: a longer reach means the same
        true = (np.minimum(reach * self.scale, 2 * norms + 1) * (1 + 2 * _SKEW) + moved) ** 2
        computed = true + 2 * ((m + 1 if m else d) + 8) * _UNIT32 * norms**2 + 1e-30
        return np.nextafter(computed.astype(np.float32), np.float32(np.inf))


def near_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    progress: Progress | None = None,
    centres: Int64[np.ndarray, " e"] | None = None,
) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    """Blocks of pairs (i, j), each at most once, among them EVERY pair with R_i, R_j > 0 and |x_i - x_j| < R_i + R_j.

    `centres` lists points with R = 0 that are paired with every ball they may lie in, though not with each other.
    Memory is bounded by blocks whatever the number of candidates. Small blocks are put together, because threads that
    wait for the next search get in the way of those that measure its candidates.
    """
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    search = _tree_pairs if points.shape[1] <= _TREE_DIMENSION else _faiss_pairs
    for pairs in search(points, R, np.empty(0, dtype=np.int64) if centres is None else centres, progress):
        waiting.append(pairs)
        if sum(i.size for i, _ in waiting) >= _TOGETHER:
            yield np.concatenate([i for i, _ in waiting]), np.concatenate([j for _, j in waiting])
            waiting.clear()
    if waiting:
        yield np.concatenate([i for i, _ in waiting]), np.concatenate([j for _, j in waiting])


def near_neighbours(
    points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], k: int
) -> Iterator[tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]]:
    """Blocks of pairs (i, j) where j is about one of the k points nearest to i, both with R > 0; i itself included.

    A heuristic: in a projection, float32, or duplicates, the nearest may be missed.
    """
    positive = np.flatnonzero(R > 0)
    k = min(k + 1, positive.size)
    if points.shape[1] <= _TREE_DIMENSION:
        from scipy.spatial import KDTree

        tree = KDTree(points[positive])
        for start in range(0, positive.size, _QUERIES):
            rows = positive[start : start + _QUERIES]
            found = tree.query(points[rows], k, workers=-1)[1].reshape(rows.size, k)
            yield np.repeat(rows, k), positive[found.ravel()]
        return
    frame = _Frame.around(points, positive)
    frame = replace(frame, basis=choose_basis(points, R, positive, frame.centre, _SKEW))
    queries = _blocks(positive, frame.width, _QUERIES)
    nearest = [np.full((rows.size, k), np.inf, dtype=np.float32) for rows in queries]
    neighbour = [np.repeat(rows[:, None], k, axis=1) for rows in queries]
    for bucket in _buckets(points, [positive], R, frame):
        index = bucket.index()
        for q, rows in enumerate(queries):
            squared, found = index.search(frame.map(points, rows), min(k, bucket.members.size))
            both = np.concatenate([nearest[q], squared], axis=1)
            best = np.argsort(both, axis=1, kind="stable")[:, :k]
            nearest[q] = np.take_along_axis(both, best, axis=1)
            both = np.concatenate([neighbour[q], bucket.members[found]], axis=1)
            neighbour[q] = np.take_along_axis(both, best, axis=1)
    for rows, found in zip(queries, neighbour, strict=True):
        yield np.repeat(rows, k), found.ravel()


def _tree_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    progress: Progress | None,
) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    from scipy.spatial import KDTree

    layers = [(members, KDTree(points[members]), float(R[members].max())) for members in _layers(R, centres)]
    total = len(layers) * (len(layers) + 1) // 2
    done = 0
    for a, (outer, outer_tree, outer_radius) in enumerate(layers):
        for b, (inner, inner_tree, inner_radius) in enumerate(layers[a:], start=a):
            done += 1
            if outer_radius == 0:
                continue
            reach = (outer_radius + inner_radius) * (1 + 1e-12)  # float64 distances err by less
            parts = 1 + int(outer_tree.count_neighbors(inner_tree, reach)) // _CANDIDATES
            if a == b and parts == 1:
                row, column = outer_tree.query_pairs(reach, output_type="ndarray").T
                yield outer[row], outer[column]
            else:
                for rows in np.array_split(np.arange(outer.size), parts):
                    tree = outer_tree if parts == 1 else KDTree(points[outer[rows]])
                    found = tree.sparse_distance_matrix(inner_tree, reach, output_type="ndarray")
                    row, column = rows[found["i"]], found["j"]
                    once = row < column if a == b else slice(None)
                    yield outer[row[once]], inner[column[once]]
            if progress is not None:
                progress("search", done, total)


def _faiss_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    progress: Progress | None,
) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    searched = np.sort(np.append(np.flatnonzero(R > 0), centres))
    frame = _Frame.around(points, searched)
    frame = replace(frame, basis=choose_basis(points, R, searched, frame.centre, _SKEW))
    buckets = _buckets(points, _layers(R, centres), R, frame)
    total = sum(bucket.members.size * (len(buckets) - k) for k, bucket in enumerate(buckets) if bucket.radius > 0)
    done = 0
    for b, inner in enumerate(buckets):
        index = inner.index()
        for a, outer in enumerate(buckets[: b + 1]):
            if outer.radius == 0:
                continue
            for rows, row, column in _search(frame, outer.coordinates, outer.norm, outer.radii, inner, index):
                done += rows
                if progress is not None:
                    progress("search", done, total)
                once = row < column if a == b else slice(None)
                yield outer.members[row[once]], inner.members[column[once]]


class BallIndex:
    """Which balls may hold a query point: buckets of similar radius, built once."""

    def __init__(self, centres: Real[np.ndarray, "n d"], radii: Float64[np.ndarray, " n"]) -> None:
        positive = np.flatnonzero(radii > 0)
        self._frame = _Frame.around(centres, positive, float(radii.max(initial=0.0)))
        self._buckets = [(b, b.index()) for b in _buckets(centres, _layers(radii), radii, self._frame)]

    def candidates(
        self, queries: Real[np.ndarray, "m d"]
    ) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
        """Blocks of (query, ball), among them every pair with |query - centre| < radius."""
        widest = max((bucket.radius for bucket, _ in self._buckets), default=0.0)
        far = np.abs(queries - self._frame.centre).max(axis=1, initial=0.0)
        near = np.flatnonzero(far <= 2 / self._frame.scale + 2 * widest)  # others are in no ball; float32 stays finite
        if not near.size:
            return
        mapped = self._frame.map(queries, near)
        norm = _largest_norm(mapped)
        for bucket, index in self._buckets:
            for _, row, column in _search(self._frame, mapped, norm, np.zeros(near.size), bucket, index):
                yield near[row], bucket.members[column]


def _buckets(
    points: Real[np.ndarray, "n d"],
    layers: Iterable[Int64[np.ndarray, " m"]],
    R: Float64[np.ndarray, " n"],
    frame: _Frame,
) -> list[_Bucket]:
    layers = list(layers)
    held = 4 * frame.width * sum(members.size for members in layers) <= _HELD
    if not held:
        layers = [block for members in layers for block in _blocks(members, frame.width)]
    buckets = []
    for members in layers:
        coordinates = frame.map(points, members)
        source = coordinates if held else partial(frame.map, points, members)
        buckets.append(_Bucket(members, R[members], _largest_norm(coordinates), source))
    return buckets


def _blocks(members: Int64[np.ndarray, " m"], width: int, most: int = 1 << 40) -> list[Int64[np.ndarray, " _"]]:
    """Parts whose mapped coordinates take an eighth of what may be held, at most; and at most `most` points."""
    size = min(most, max(_SMALLEST, _HELD // (32 * width)))
    return [members[start : start + size] for start in range(0, members.size, size)]


def _layers(
    R: Float64[np.ndarray, " n"], centres: Int64[np.ndarray, " e"] | None = None
) -> Iterator[Int64[np.ndarray, " m"]]:
    """Indices of positive radii, largest first, in layers of similar size; then those of `centres`, if any."""
    descending = np.argsort(-R, kind="stable")[: np.count_nonzero(R > 0)]
    sizes = R[descending]
    start = 0
    while start < descending.size:
        end = int(np.searchsorted(-sizes, -_RATIO * sizes[start]))
        end = min(max(end, start + _SMALLEST), descending.size)
        yield descending[start:end]
        start = end
    if centres is not None and centres.size:
        yield centres


def _search(
    frame: _Frame,
    queries: Float32[np.ndarray, "m w"],
    norm: float,
    radii: Float64[np.ndarray, " m"],
    bucket: _Bucket,
    index: Any,
) -> Iterator[tuple[int, Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    """Blocks (queries searched, rows of `queries`, rows of `bucket`): pairs that may be within their radii' sum."""
    norms = norm + bucket.norm
    threshold = float(frame.threshold(radii.max(keepdims=True) + bucket.radius, norms)[0])
    size = max(32, _CANDIDATES // bucket.members.size)
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        limits, squared, found = index.range_search(block, threshold)
        row = np.repeat(np.arange(start, start + len(block)), np.diff(limits.astype(np.int64)))
        near = squared < frame.threshold(radii[row] + bucket.radii[found], norms)  # not only the largest of both
        yield len(block), row[near], found[near]


def _largest_norm(coordinates: Float32[np.ndarray, "m w"]) -> float:
    return float(np.linalg.norm(coordinates, axis=1).max()) * 1.001  # float32 sums: below 0.1 % for d <= 2^20
